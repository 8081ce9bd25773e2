"""aggregate against loops over edges, its gradients, its bits and its corner cases."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from gnnsys.batch import Block
from gnnsys.models.aggregate import How, aggregate

HOWS: list[How] = ["sum", "mean", "max", "gcn"]


def random_block(seed: int, num_dst: int, num_src: int, max_edges: int = 6) -> Block:
    """Some destinations without edges, some with parallel ones; degrees at least the sampled counts."""
    rng = np.random.default_rng(seed)
    counts = rng.integers(0, max_edges + 1, num_dst)
    degree = rng.integers(0, 9, num_src)
    degree[:num_dst] += counts
    return Block(
        indptr=torch.tensor([0, *np.cumsum(counts)], dtype=torch.int32),
        indices=torch.from_numpy(rng.integers(0, num_src, counts.sum()).astype(np.int32)),
        degree=torch.from_numpy(degree.astype(np.int32)),
    )


def slow_aggregate(block: Block, h: Tensor, how: How) -> Tensor:
    """The formulas of the docstring, edge by edge."""
    out = torch.zeros(block.num_dst, h.shape[1], dtype=h.dtype)
    for v in range(block.num_dst):
        sources = block.indices[int(block.indptr[v]) : int(block.indptr[v + 1])].tolist()
        d = int(block.degree[v])
        if how == "gcn":
            out[v] = h[v] / (d + 1)
            for u in sources:
                out[v] += (d / len(sources)) / math.sqrt((int(block.degree[u]) + 1) * (d + 1)) * h[u]
        elif sources:
            rows = h[sources]
            out[v] = {"sum": rows.sum(0), "mean": rows.mean(0), "max": rows.max(0).values}[how]
    return out


@settings(deadline=None)  # the first call warms torch up
@given(st.integers(0, 2**32 - 1), st.integers(0, 6), st.integers(0, 6), st.sampled_from(HOWS))
def test_every_sum_equals_the_loop_over_edges(seed: int, num_dst: int, extra: int, how: How) -> None:
    block = random_block(seed, num_dst, num_dst + extra)
    h = torch.from_numpy(np.random.default_rng(seed).standard_normal((block.num_src, 3)))
    torch.testing.assert_close(aggregate(block, h, how), slow_aggregate(block, h, how), atol=1e-12, rtol=0)
    single = h.to(torch.float32)
    # float32: at most 6 terms of order one
    torch.testing.assert_close(aggregate(block, single, how), slow_aggregate(block, single, how), atol=1e-5, rtol=0)


@pytest.mark.parametrize("how", HOWS)
def test_gradients_equal_finite_differences(how: How) -> None:
    block = random_block(1, 4, 7)
    h = torch.from_numpy(np.random.default_rng(0).standard_normal((7, 3))).requires_grad_()
    assert torch.autograd.gradcheck(lambda h: aggregate(block, h, how), (h,))


@pytest.mark.parametrize("how", HOWS)
@pytest.mark.parametrize("num_dst", [0, 3])
def test_without_edges_nothing_arrives(how: How, num_dst: int) -> None:
    block = Block(
        indptr=torch.zeros(num_dst + 1, dtype=torch.int32),
        indices=torch.empty(0, dtype=torch.int32),
        degree=torch.zeros(num_dst + 2, dtype=torch.int32),
    )
    h = torch.ones(num_dst + 2, 4)
    own = h[:num_dst] if how == "gcn" else torch.zeros(num_dst, 4)  # an isolated node keeps its own row in a GCN
    assert torch.equal(aggregate(block, h, how), own)


def test_a_block_of_no_nodes_gives_no_rows() -> None:
    empty = torch.empty(0, dtype=torch.int32)
    block = Block(indptr=torch.zeros(1, dtype=torch.int32), indices=empty, degree=empty)
    assert [aggregate(block, torch.empty(0, 4), how).shape for how in HOWS] == [(0, 4)] * 4


@pytest.mark.parametrize("how", HOWS)
def test_bits_repeat_and_do_not_depend_on_the_number_of_threads(how: How) -> None:
    block = random_block(2, 3000, 9000, max_edges=12)
    rows = torch.from_numpy(np.random.default_rng(0).standard_normal((9000, 33)).astype(np.float32))
    grad = torch.from_numpy(np.random.default_rng(1).standard_normal((3000, 33)).astype(np.float32))
    results = [_both_ways(block, rows, grad, how, threads) for threads in (1, 2, 2)]
    for out, back in results[1:]:
        assert torch.equal(out, results[0][0])
        assert torch.equal(back, results[0][1])


def _both_ways(block: Block, rows: Tensor, grad: Tensor, how: How, threads: int) -> tuple[Tensor, Tensor]:
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        h = rows.clone().requires_grad_()
        out = aggregate(block, h, how)
        out.backward(grad)
        assert h.grad is not None
        return out.detach(), h.grad
    finally:
        torch.set_num_threads(before)


def test_sampled_gcn_weights_are_right_on_average() -> None:
    # one destination of degree 8, all pairs of its sources drawn in turn: the mean over draws is the exact value
    degree = torch.tensor([8, 1, 2, 3, 4, 5, 6, 7, 8], dtype=torch.int32)
    h = torch.from_numpy(np.random.default_rng(0).standard_normal((9, 3)))
    pairs = [(a, b) for a in range(1, 9) for b in range(a + 1, 9)]
    drawn = [_one_destination(list(pair), degree) for pair in pairs]
    mean = torch.stack([aggregate(block, h, "gcn") for block in drawn]).mean(0)
    exact = aggregate(_one_destination(list(range(1, 9)), degree), h, "gcn")
    torch.testing.assert_close(mean, exact, atol=1e-12, rtol=0)


def _one_destination(sources: list[int], degree: Tensor) -> Block:
    indptr = torch.tensor([0, len(sources)], dtype=torch.int32)
    return Block(indptr=indptr, indices=torch.tensor(sources, dtype=torch.int32), degree=degree)


def test_another_kind_of_block_registers_how_it_aggregates() -> None:
    class Folded:
        stored = torch.full((2, 3), 7.0)

    with pytest.raises(TypeError, match="Folded is not a block"):
        aggregate(Folded(), torch.zeros(2, 3), "mean")
    aggregate.register(Folded, lambda block, _h, _how: block.stored)
    assert torch.equal(aggregate(Folded(), torch.zeros(2, 3), "mean"), Folded.stored)


def test_an_unknown_way_is_named() -> None:
    with pytest.raises(ValueError, match="median"):
        aggregate(random_block(0, 1, 1), torch.zeros(1, 1), "median")  # type: ignore[arg-type]


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("how", HOWS)
def test_cuda_gives_what_the_cpu_gives(how: How) -> None:
    block = random_block(3, 50, 90)
    h = torch.from_numpy(np.random.default_rng(0).standard_normal((90, 33)).astype(np.float32))
    there = aggregate(block.to("cuda"), h.cuda(), how)
    torch.testing.assert_close(there.cpu(), aggregate(block, h, how), atol=1e-5, rtol=0)  # other summation order
