"""fold: call styles, conversion of rows, dropout as a function of the key, and refusals."""

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from gnnsys.batch import Batch, Block
from gnnsys.errors import ConfigError
from gnnsys.keys import derive
from gnnsys.models.fold import call_style, float_rows, fold, layers_of
from gnnsys.models.randomness import random_from
from gnnsys.models.registry import build


class EdgeIndexNet(nn.Module):
    def forward(self, features: Tensor, edge_index: Tensor) -> Tensor:
        return features.new_zeros(features.shape).index_add(0, edge_index[1], features[edge_index[0]])


class BlocksNet(nn.Module):
    def forward(self, x: Tensor, blocks: list[Block]) -> Tensor:
        return x[: blocks[-1].num_dst]


class BatchNet(nn.Module):
    def forward(self, batch: Batch) -> Tensor:
        assert isinstance(batch.x, Tensor)
        return batch.x[: batch.batch_size]


class StrangeNet(nn.Module):
    def forward(self, x: Tensor, graph: object) -> Tensor:
        return x


@pytest.fixture
def batch(tree: Any) -> Batch:
    batch: Batch = tree.batch([4, 0, 1], [-1, -1])
    return batch


def test_the_names_of_parameters_choose_the_call(batch: Batch) -> None:
    assert isinstance(batch.x, Tensor)
    assert torch.equal(fold(BlocksNet(), batch), batch.x[:3])
    assert torch.equal(fold(BatchNet(), batch), batch.x[:3])
    expected = batch.x[batch.edge_index[0][batch.edge_index[1] == 0]].sum(0)
    torch.testing.assert_close(fold(EdgeIndexNet(), batch)[0], expected)


def test_other_parameter_names_are_refused_with_the_ones_expected() -> None:
    with pytest.raises(ConfigError, match=r"takes \(x, graph\).*\n.*\(x, blocks\)"):
        call_style(StrangeNet)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64, torch.uint8, torch.int8])
def test_rows_of_other_types_reach_the_model_as_float32(batch: Batch, dtype: torch.dtype) -> None:
    assert isinstance(batch.x, Tensor)
    x = (batch.x * 10).to(dtype)
    assert torch.equal(fold(BatchNet(), replace(batch, x=x)), x[:3].to(torch.float32))


def test_float32_rows_and_wider_integers_are_not_copied() -> None:
    single, ids = torch.ones(2, 3), torch.ones(2, 3, dtype=torch.int64)
    tables = float_rows({"x": single, "ids": ids})
    assert tables["x"] is single
    assert tables["ids"] is ids


def test_the_key_decides_dropout_layer_by_layer(batch: Batch) -> None:
    model = build("gcn", in_channels=5, hidden_channels=8, num_layers=2, out_channels=3, dropout=0.5).train()
    out = fold(model, batch, key=(7, 1, 0))
    torch.rand(3)
    assert torch.equal(fold(model, batch, key=(7, 1, 0)), out)
    h = batch.x
    for number, block in enumerate(batch.blocks):  # as a pipeline stage would, one layer at a time
        with random_from(derive(7, 1, 0, number)):
            h = model.layers[number](h, block)
    assert torch.equal(h, out)


def test_a_key_leaves_the_generator_where_it_was(batch: Batch) -> None:
    torch.manual_seed(3)
    first = torch.rand(2)
    torch.manual_seed(3)
    fold(build("mlp", in_channels=5, hidden_channels=4, num_layers=2, out_channels=3, dropout=0.5), batch, key=(1,))
    assert torch.equal(torch.rand(2), first)


def test_a_pyg_model_with_a_list_named_layers_is_called_as_a_whole() -> None:
    class Net(EdgeIndexNet):
        def __init__(self) -> None:
            super().__init__()
            self.layers = nn.ModuleList([nn.Linear(5, 3)])

    assert layers_of(Net()) is None


def test_layers_that_take_no_block_are_not_folded() -> None:
    class Net(BlocksNet):
        def __init__(self) -> None:
            super().__init__()
            self.layers = nn.ModuleList([nn.Linear(5, 3)])

    assert layers_of(Net()) is None


def test_too_few_hops_are_refused_with_both_numbers(tree: Any) -> None:
    model = build("sage", in_channels=5, hidden_channels=4, num_layers=3, out_channels=3)
    with pytest.raises(ConfigError, match=r"3 layers, the batch has 2 hops"):
        fold(model, tree.batch([0], [-1, -1]))


def test_a_batch_without_rows_is_refused(batch: Batch) -> None:
    with pytest.raises(ConfigError, match="no rows"):
        fold(BatchNet(), replace(batch, x=None))


def test_a_tuple_passes_from_layer_to_layer(batch: Batch) -> None:
    class First(nn.Module):
        def forward(self, h: Tensor, block: Block) -> tuple[Tensor, Tensor]:
            return h[: block.num_dst], 2 * h[: block.num_dst]

    class Second(nn.Module):
        def forward(self, h: tuple[Tensor, Tensor], block: Block) -> Tensor:
            return h[0][: block.num_dst] + h[1][: block.num_dst]

    class Net(BlocksNet):
        def __init__(self) -> None:
            super().__init__()
            self.layers = nn.ModuleList([First(), Second()])

    assert isinstance(batch.x, Tensor)
    assert torch.equal(fold(Net(), batch), 3 * batch.x[:3])
