"""A model of one's own: plain PyTorch Geometric, trained from packed batches without a change.

gnnsys train packs/cora --model examples/my_model.py:Net --out runs/mine
"""

import itertools

import torch.nn.functional as F
from torch import Tensor, nn
from torch_geometric.nn import SAGEConv


class Net(nn.Module):
    """Two SAGE convolutions; gnnsys calls `forward` with what its parameter names ask for."""

    def __init__(
        self, in_channels: int, hidden_channels: int, num_layers: int, out_channels: int, dropout: float
    ) -> None:
        super().__init__()
        widths = [in_channels, *[hidden_channels] * (num_layers - 1), out_channels]
        self.convs = nn.ModuleList(SAGEConv(a, b) for a, b in itertools.pairwise(widths))
        self.dropout = dropout

    def forward(self, x: Tensor, edge_index: Tensor) -> Tensor:
        for conv in self.convs[:-1]:
            x = F.dropout(conv(x, edge_index).relu(), self.dropout, self.training)
        return self.convs[-1](x, edge_index)
