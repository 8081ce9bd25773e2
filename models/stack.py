"""Stack: an ordered list of layers and nothing else, the shape of every network here."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor, nn

from gnnsys.batch import Block
from gnnsys.errors import ConfigError
from gnnsys.models.skips import JUMPS, JumpLayer, ResidualLayer


class Stack(nn.Module):
    """`layers` of one kind, widths in_channels -> hidden_channels ... -> out_channels.

    Args:
        in_channels: columns of the input rows.
        hidden_channels: width between layers; not used when there is one layer.
        num_layers: at least 1; a batch needs as many hops.
        out_channels: classes, or width of the embedding.
        dropout: probability in [0, 1) of zeroing a value while training; where, each layer says.
        residual: add to what a layer gives what it read, where the widths are equal.
        jk: jumping knowledge, one of `JUMPS`: the output is a map of what all layers gave.
        rest: of the layers of a kind, such as `heads`.

    Raises:
        ConfigError: a number outside its range, or an option that this network has no use for.
    """

    layer_type: type[nn.Module]
    options: frozenset[str] = frozenset({"residual", "jk"})
    """Keywords beside the sizes that a network takes."""
    built_as: Mapping[str, Any] | None = None
    """What `registry.build` was told, so that weights can be read into the same network again; None if made by hand."""
    deep = False
    """Layers have the hidden width inside; the first one maps the input to it, the last one maps it to the output."""

    def __init__(
        self,
        *,
        in_channels: int,
        hidden_channels: int,
        num_layers: int,
        out_channels: int,
        dropout: float = 0.0,
        residual: bool = False,
        jk: str | None = None,
        **rest: Any,
    ) -> None:
        super().__init__()
        _check(in_channels, hidden_channels, num_layers, out_channels, dropout)
        self._refuse_unknown({"residual": residual, "jk": jk, **rest})
        last_width = out_channels if jk is None else hidden_channels
        widths = [in_channels, *[hidden_channels] * (num_layers - 1), last_width]
        self.layers = nn.ModuleList()
        for i in range(num_layers):
            last = i == num_layers - 1
            common = {"dropout": dropout, "last": last and jk is None, **rest}
            if self.deep:
                layer = self.layer_type(widths[i], hidden_channels, widths[i + 1], number=i + 1, **common)
            else:
                layer = self.layer_type(widths[i], widths[i + 1], **common)
            if residual and widths[i] == widths[i + 1] and not (last and jk is None):
                layer = ResidualLayer(layer)
            if jk is not None:
                sizes = {"hidden_channels": hidden_channels, "out_channels": out_channels, "num_layers": num_layers}
                layer = JumpLayer(layer, number=i + 1, mode=jk, **sizes)
            self.layers.append(layer)
        if residual and not any(isinstance(module, ResidualLayer) for module in self.modules()):
            raise ConfigError(
                "GS-CFG-852",
                f"no hidden layer of {num_layers} reads rows as wide as it gives: residual would change nothing",
                hint=f"Use 3 or more layers, or as many hidden channels as input columns ({in_channels}).",
            )

    def _refuse_unknown(self, given: dict[str, Any]) -> None:
        for name, value in given.items():
            if value and name not in self.options:
                known = ", ".join(sorted(self.options))
                raise ConfigError(
                    "GS-CFG-850",
                    f"{type(self).__name__} takes no {name}",
                    hint=f"It takes {known}." if known else "It takes the sizes alone.",
                )
        if given["jk"] not in (None, *JUMPS):
            raise ConfigError("GS-CFG-850", f"jk is {given['jk']!r}, expected one of {', '.join(JUMPS)}")

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
