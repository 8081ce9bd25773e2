"""Stack: an ordered list of layers and nothing else, the shape of every network here."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor, nn

from gnnsys.batch import Block
from gnnsys.errors import ConfigError


class Stack(nn.Module):
    """`layers` of one kind, widths in_channels -> hidden_channels ... -> out_channels.

    Args:
        in_channels: columns of the input rows.
        hidden_channels: width between layers; not used when there is one layer.
        num_layers: at least 1; a batch needs as many hops.
        out_channels: classes, or width of the embedding.
        dropout: probability in [0, 1) of zeroing a value while training; where, each layer says.

    Raises:
        ConfigError: a number outside its range.
    """

    layer_type: type[nn.Module]
    deep = False
    """Layers have the hidden width inside; the first one maps the input to it, the last one maps it to the output."""

    def __init__(
        self, *, in_channels: int, hidden_channels: int, num_layers: int, out_channels: int, dropout: float = 0.0
    ) -> None:
        super().__init__()
        _check(in_channels, hidden_channels, num_layers, out_channels, dropout)
        widths = [in_channels, *[hidden_channels] * (num_layers - 1), out_channels]
        self.layers = nn.ModuleList()
        for i in range(num_layers):
            common = {"dropout": dropout, "last": i == num_layers - 1}
            if self.deep:
                layer = self.layer_type(widths[i], hidden_channels, widths[i + 1], number=i + 1, **common)
            else:
                layer = self.layer_type(widths[i], widths[i + 1], **common)
            self.layers.append(layer)

    def reset_layer(self, number: int) -> None:
        """Draw the parameters of one layer anew from torch's generator."""
        layer: Any = self.layers[number]
        layer.reset_parameters()

    def forward(self, x: Tensor, blocks: Sequence[Block]) -> Tensor:
        """(B, out_channels) from x (N, in_channels) and one block per layer, outermost first."""
        for layer, block in zip(self.layers, blocks, strict=True):
            x = layer(x, block)
        return x


def _check(in_channels: int, hidden_channels: int, num_layers: int, out_channels: int, dropout: float) -> None:
    sizes = {"in_channels": in_channels, "hidden_channels": hidden_channels, "num_layers": num_layers}
    for name, value in {**sizes, "out_channels": out_channels}.items():
        if value < 1:
            raise ConfigError("GS-CFG-600", f"{name} is {value}; it must be at least 1")
    if not 0 <= dropout < 1:
        raise ConfigError("GS-CFG-600", f"dropout is {dropout}; it must be at least 0 and below 1")
