"""Residual and jumping-knowledge stacks: joined as PyG joins, folded layer by layer, refused where useless."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from gnnsys.batch import Batch
from gnnsys.errors import ConfigError
from gnnsys.models.fold import fold
from gnnsys.models.registry import build
from gnnsys.models.skips import JUMPS

SEEDS = [4, 0, 1, 9]
SIZES: dict[str, Any] = {"in_channels": 5, "hidden_channels": 16, "out_channels": 3}


@pytest.mark.parametrize("jk", [None, *JUMPS])
@pytest.mark.parametrize("residual", [False, True])
@pytest.mark.parametrize("name", ["sage", "gcn", "gin", "gat", "gatv2", "mlp"])
def test_every_stack_with_skips_keeps_the_invariants(
    name: str, residual: bool, jk: str | None, tree: Any, check_model: Callable[[nn.Module, Batch, int], None]
) -> None:
    batch = tree.batch(SEEDS, [2, 2, 2], np.random.default_rng(0))
    check_model(build(name, num_layers=3, residual=residual, jk=jk, **SIZES), batch, 3)


@pytest.mark.parametrize("jk", JUMPS)
def test_jumping_knowledge_joins_the_layers_as_pyg_does(jk: str, tree: Any) -> None:
    pyg = pytest.importorskip("torch_geometric.nn")
    model = build("sage", num_layers=4, jk=jk, **SIZES).eval()
    batch = tree.batch(SEEDS, [-1, -1, -1, -1])
    gave: list[Tensor] = []
    h = batch.x
    for layer, block in zip(model.layers, batch.blocks, strict=True):  # type: ignore[arg-type,call-overload]
        h = layer.layer(h, block)
        gave.append(h)
    last: Any = model.layers[3]  # type: ignore[index]
    joined = gave[-1]
    if jk != "last":
        join = pyg.JumpingKnowledge(jk, 16, 4)
        if jk == "lstm":
            join.lstm.load_state_dict(last.lstm.state_dict())
            join.att.weight.data.copy_(last.att.weight)
            nn.init.zeros_(join.att.bias)
        joined = join([each[: len(SEEDS)] for each in gave])
    torch.testing.assert_close(fold(model, batch), last.lin(joined), atol=1e-6, rtol=0)


def test_residual_adds_what_a_layer_read_where_widths_are_equal(tree: Any) -> None:
    plain = build("sage", num_layers=3, **SIZES).eval()
    model: Any = build("sage", num_layers=3, residual=True, **SIZES).eval()
    batch = tree.batch(SEEDS, [-1, -1, -1])
    first, second, third = plain.layers  # type: ignore[misc]
    one = first(batch.x, batch.blocks[0])
    two = second(one, batch.blocks[1]) + one[: batch.blocks[1].num_dst]
    assert torch.equal(fold(model, batch), third(two, batch.blocks[2]))


@pytest.mark.parametrize(
    ("name", "options", "said"),
    [
        ("sage", {"residual": True, "num_layers": 2}, "would change nothing"),
        ("sage", {"heads": 4, "num_layers": 2}, "takes no heads"),
        ("gcnii", {"jk": "cat", "num_layers": 4}, "takes no jk"),
        ("gcn", {"jk": "sum", "num_layers": 2}, "expected one of last, cat, max, lstm"),
    ],
)
def test_an_option_that_a_network_has_no_use_for_is_refused(name: str, options: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        build(name, **SIZES, **options)
