"""Block and Batch as plain data."""

import torch

from gnnsys.batch import Batch, Block


def _batch() -> Batch:
    """Seeds 7 and 9; node 4 feeds both, node 9 feeds 7."""
    block = Block(
        indptr=torch.tensor([0, 2, 3], dtype=torch.int32),
        indices=torch.tensor([1, 2, 2], dtype=torch.int32),
        degree=torch.tensor([2, 1, 0], dtype=torch.int32),
    )
    return Batch(
        seeds=torch.tensor([7, 9]),
        n_id=torch.tensor([7, 9, 4]),
        num_nodes=(2, 3),
        blocks=(block,),
        degree=block.degree,
        x={"x": torch.zeros(3, 2)},
    )


def test_edge_index_names_source_above_destination() -> None:
    assert _batch().edge_index.tolist() == [[1, 2, 2], [0, 0, 1]]


def test_a_block_counts_its_sources_destinations_and_edges() -> None:
    block = _batch().blocks[0]
    assert (block.num_src, block.num_dst, block.num_edges) == (3, 2, 3)


def test_to_moves_every_tensor_also_inside_blocks_and_tables() -> None:
    moved = _batch().to("meta")
    assert isinstance(moved.x, dict)
    places = {t.device.type for t in (moved.seeds, moved.n_id, moved.blocks[0].indptr, moved.x["x"], moved.degree)}
    assert places == {"meta"}


def test_what_is_shown_is_sizes() -> None:
    batch = _batch()
    assert repr(batch) == "Batch(0: seeds=2, nodes=3, edges=[3], x=(3, 2) float32, device=cpu)"
    assert repr(batch.blocks[0]) == "Block(3 -> 2 nodes, 3 edges, device=cpu)"


def test_a_batch_without_hops_has_no_edges() -> None:
    seeds = torch.tensor([3])
    batch = Batch(seeds=seeds, n_id=seeds, num_nodes=(1,), blocks=(), degree=torch.zeros(1, dtype=torch.int32))
    assert batch.edge_index.shape == (2, 0)
