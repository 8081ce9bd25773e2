"""Placements: predictions that follow from the profile, and a choice that falls back to what is simple."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from gnnsys.pipeline.placement import LINK_BYTES_PER_S, LINK_S, LayerCost, Machine, Placement, Work, place
from gnnsys.pipeline.schedule import make_schedule
from gnnsys.pipeline.simulate import simulate

MIB = 1 << 20


def layer(seconds: float, *, sent: int = MIB, held: int = MIB, parameters: int = MIB) -> LayerCost:
    return LayerCost(
        forward_s=seconds, backward_s=2 * seconds, sent_bytes=sent, held_bytes=held, parameter_bytes=parameters
    )


def work(*seconds: float, micro: int = 8, **changes: Any) -> Work:
    """Layers of those costs, equal sizes, sampled micro-batches."""
    common: dict[str, Any] = {"num_micro": micro, "schedule": "1f1b", "load_s": 0.0, "batch_bytes": MIB}
    layers = tuple(layer(each) for each in seconds)
    return Work(**{**common, "layers": layers, "fixed_bytes": (0,) * len(layers), **changes})


def machine(devices: int, memory: int = 1 << 40, cores: int = 0) -> Machine:
    return Machine(num_devices=devices, cores=cores, memory=memory)


def named(found: Any) -> dict[str, Placement]:
    return {each.name: each for each in found.candidates}


def test_every_way_that_the_devices_and_micro_batches_allow_is_listed() -> None:
    found = named(place(work(0.1, 0.1, 0.1, micro=4), machine(6)))
    assert set(found) == {
        "one device",
        "data parallel x 2",
        "data parallel x 4",
        "2 stages",
        "2 stages x 2 replicas",
        "3 stages",
        "3 stages x 2 replicas",
    }


def test_a_step_is_the_schedule_performed_with_these_costs() -> None:
    found = named(place(work(0.1, 0.3, 0.2, 0.2), machine(2)))["2 stages"]
    assert found.bounds == (0, 2, 4)
    transfer = LINK_S + MIB / LINK_BYTES_PER_S
    timeline = simulate(make_schedule("1f1b", 2, 8), [0.4, 0.4], [0.8, 0.8], transfer)
    assert found.step_s == pytest.approx(timeline.length)
    assert found.bubble == pytest.approx(timeline.bubble)
    assert found.step_bytes == 2 * 8 * MIB


def test_replicas_divide_the_micro_batches_and_add_up_gradients() -> None:
    found = named(place(work(0.1, 0.1), machine(4, cores=8)))["data parallel x 4"]
    assert found.step_s == pytest.approx(2 * 0.6 + LINK_S + 1.5 * 2 * MIB / LINK_BYTES_PER_S)
    assert found.step_bytes == 2 * 3 * 2 * MIB
    assert found.memory_bytes == 4 * (4 * 2 * MIB + 2 * MIB)


def test_stages_share_out_the_memory() -> None:
    found = named(place(work(0.1, 0.1, fixed_bytes=(5 * MIB, 7 * MIB), shared_bytes=3 * MIB), machine(2, cores=8)))[
        "2 stages"
    ]
    weights, rows, graph = 4 * 2 * MIB, 12 * MIB, 2 * 3 * MIB
    live = (2 + 1) * MIB + MIB  # 1f1b: the first stage is one micro-batch ahead of the last
    assert found.memory_bytes == weights + rows + graph + live


def test_data_parallelism_is_chosen_when_one_layer_costs_most() -> None:
    found = place(work(1.0, 0.01, 0.01), machine(4))
    assert found.chosen is not None
    assert found.chosen.name == "data parallel x 4"
    assert "the best with stages, needs" in found.why


def test_stages_are_chosen_when_no_device_holds_all_layers() -> None:
    """On a host that all processes share, cutting saves nothing."""
    layers = tuple(replace(layer(0.1), parameter_bytes=10 * MIB) for _ in range(4))
    heavy = work(0.1, 0.1, 0.1, 0.1, layers=layers)
    found = place(heavy, machine(2, memory=100 * MIB))
    assert found.chosen is not None
    assert found.chosen.name == "2 stages"
    assert "one device cannot hold" in found.why
    refused = place(heavy, machine(2, memory=100 * MIB, cores=2))
    assert refused.chosen is None
    assert "none fits" in refused.why
    assert "Refused" in str(refused)


def test_every_process_sets_aside_the_least_a_step_may_take() -> None:
    found = named(place(work(0.1, 0.1, least_step_bytes=9 * MIB), machine(2, cores=8)))["2 stages"]
    assert found.memory_bytes == 4 * 2 * MIB + 2 * 9 * MIB


def test_one_process_has_all_threads() -> None:
    found = named(place(work(0.1, 0.1, thread_gain=1.5), machine(2, cores=2)))
    assert found["one device"].step_s == pytest.approx(8 * 0.6 / 1.5)
    assert found["data parallel x 2"].step_s > 4 * 0.6


def test_chunks_have_stages_or_one_device() -> None:
    found = place(work(0.1, 0.1, micro=8, schedule="fill-drain", replicas=False), machine(4))
    assert set(named(found)) == {"one device", "2 stages"}
    assert found.chosen is not None
    assert found.chosen.name == "2 stages"
    assert found.chosen.bubble == pytest.approx(1 / 9, abs=0.02)


def test_processes_that_share_cores_are_no_faster_than_the_cores() -> None:
    found = named(place(work(0.1, 0.1, 0.1, 0.1), machine(4, cores=1)))
    assert min(found.values(), key=lambda each: each.step_s).name == "one device"


def test_no_way_is_faster_than_the_rows_come() -> None:
    found = place(work(0.01, 0.01, load_s=1.0), machine(2))
    assert all(each.step_s == 8.0 for each in found.candidates)
    assert found.chosen is not None
    assert found.chosen.name == "one device"
    assert "> one device" in str(found)
