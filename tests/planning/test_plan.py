"""Plans are exact, explain themselves, and refuse with numbers."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import gnnsys as gs
from gnnsys.errors import ConfigError, DiskSpaceError, InputDataError, MemoryBudgetError
from gnnsys.planning.calibrate import Speeds
from gnnsys.planning.plan import Plan, estimate, plan
from gnnsys.storage.hint import write_hint
from gnnsys.storage.pack import Pack
from gnnsys.storage.pool import Pool
from gnnsys.storage.store import Store

MIB = 1 << 20


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory, make_store: Callable[..., Store]) -> Store:
    return make_store(tmp_path_factory.mktemp("plan") / "store")


@pytest.fixture(scope="module")
def pool(store: Store, tmp_path_factory: pytest.TempPathFactory) -> Pool:
    return gs.sample(store, tmp_path_factory.mktemp("plan") / "pool", fanouts=[4, 3], batch_size=32)


@pytest.fixture
def tight(pool: Pool, store: Store, speeds: Speeds) -> int:
    """Memory in which the cache holds some of the rows that are asked for."""
    need = plan(pool, store, memory="64MiB", layout="packed", speeds=speeds).shares
    return need["loader"] + need["step"] + 50_000


def disk_use(path: Path, kinds: tuple[str, ...]) -> int:
    return sum(f.stat().st_size for kind in kinds for f in path.rglob(f"{kind}*.bin"))


def test_the_plan_of_a_pack_is_exactly_what_its_files_hold_and_its_reader_requests(
    pool: Pool, store: Store, speeds: Speeds, tight: int, tmp_path: Path
) -> None:
    made = plan(pool, store, memory=tight, layout="packed", speeds=speeds)
    assert 0 < made.cache_rows < made.requested_rows
    pack = gs.pack(pool, tmp_path / "pack", plan=made, store=store, memory="16MiB")
    generation, folder = pack.generations[0], pack.path / "g000000"
    batches = range(pack.pool.num_batches)
    assert made.chosen.rows_bytes == sum(map(generation.run_bytes, batches)) == disk_use(folder, ("rows-",))
    assert made.chosen.slots_bytes == sum(map(generation.slots_bytes, batches)) == disk_use(folder, ("slots",))
    assert made.chosen.pool_bytes == sum(map(pool.blob_bytes, batches)) == disk_use(folder, ("blobs-",))
    assert made.bytes_planned_per_epoch == sum(generation.planned_bytes(k) + pool.blob_bytes(k) for k in batches)
    assert generation.num_cached == made.cache_rows
    assert made.cache_hits == made.requests - int(generation.count.sum())


def test_direct_is_priced_as_the_direct_table_reads(pool: Pool, store: Store, speeds: Speeds) -> None:
    table = store.table("x", "direct")
    asked = sum(table.request_bytes(pool.ids(k)) for k in range(pool.num_batches))
    assert plan(pool, store, memory="64MiB", layout="direct", speeds=speeds).chosen.rows_bytes == asked


def test_the_cache_alone_depends_on_memory_and_never_on_speeds_or_epochs(
    pool: Pool, store: Store, speeds: Speeds, tight: int
) -> None:
    base = plan(pool, store, memory=tight, layout="packed", speeds=speeds)
    slow = Speeds(read=1.0, write=1.0, random=1.0, copy=1.0)
    for other in (
        plan(pool, store, memory=tight, layout="packed", speeds=slow),
        plan(pool, store, memory=tight, layout="packed", speeds=speeds, epochs=99, disk="1GiB"),
        plan(pool, store, memory=tight, layout="packed", speeds=speeds, workers=1),
    ):
        assert (other.layout, other.cache_rows, other.chosen.bytes) == ("packed", base.cache_rows, base.chosen.bytes)
    assert plan(pool, store, memory=tight + 4000, layout="packed", speeds=speeds).cache_rows == base.cache_rows + 10


def test_auto_takes_what_ends_all_epochs_first(pool: Pool, store: Store, speeds: Speeds) -> None:
    slow_writes = replace(speeds, write=1e5)
    few = plan(pool, store, memory="64MiB", epochs=1, speeds=slow_writes)
    many = plan(pool, store, memory="64MiB", epochs=10_000, speeds=slow_writes)
    assert (few.layout, many.layout) == ("direct", "packed")
    even = few.break_even_epochs
    assert even is not None
    packed, direct = few.candidate("packed"), few.candidate("direct")
    assert packed.total_s(even) <= direct.total_s(even)
    assert packed.total_s(even - 1) > direct.total_s(even - 1)


def test_auto_takes_what_fits(pool: Pool, store: Store, speeds: Speeds) -> None:
    small_disk = plan(pool, store, memory="64MiB", disk=2 * disk_use(pool.path, ("blobs-",)), speeds=speeds)
    assert small_disk.layout == "direct"
    assert "--disk" in small_disk.candidate("packed").why_not
    small_memory = plan(pool, store, memory=small_disk.candidate("packed").memory_bytes, speeds=speeds)
    assert small_memory.layout == "packed"
    assert "--memory" in small_memory.candidate("direct").why_not


def test_what_fits_nowhere_is_refused_with_the_minimum_of_each_layout(pool: Pool, store: Store, speeds: Speeds) -> None:
    for layout in ("packed", "direct", "auto"):
        with pytest.raises(MemoryBudgetError, match=r"packed needs at least --memory .*direct needs at least"):
            plan(pool, store, memory="200KiB", layout=layout, speeds=speeds)
        with pytest.raises(DiskSpaceError, match=r"packed needs .* --disk .*direct needs"):
            plan(pool, store, memory="64MiB", disk="1KiB", layout=layout, speeds=speeds)
    with pytest.raises(MemoryBudgetError, match="counting"):
        plan(pool, store, memory="2KiB", speeds=speeds)


def test_the_minimum_that_a_refusal_states_is_enough(pool: Pool, store: Store, speeds: Speeds, tmp_path: Path) -> None:
    least = plan(pool, store, memory="64MiB", speeds=speeds).candidate("packed").memory_bytes
    made = plan(pool, store, memory=least, layout="packed", speeds=speeds)
    gs.pack(pool, tmp_path / "pack", plan=made, store=store, memory=least)
    with pytest.raises(MemoryBudgetError):
        plan(pool, store, memory=least - 1, layout="packed", speeds=speeds)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"layout": "best"}, "layout is 'best'"),
        ({"epochs": 0}, "epochs is 0"),
        ({"device_memory": "1GiB"}, "cannot be cached there yet"),
        ({"memory": "much"}, "not a size"),
    ],
)
def test_options_out_of_range_are_refused(pool: Pool, store: Store, options: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        plan(pool, store, **options)  # type: ignore[arg-type]


def test_a_pool_alone_finds_its_store_by_the_hint_or_says_how_to_name_it(
    pool: Pool, store: Store, speeds: Speeds
) -> None:
    (pool.path / "hint.json").unlink(missing_ok=True)
    with pytest.raises(InputDataError) as caught:
        plan(pool, speeds=speeds)
    assert "--store" in caught.value.hint
    write_hint(pool.path, store.path, store.id)
    assert plan(pool, speeds=speeds).store_id == store.id


def test_a_plan_survives_json(pool: Pool, store: Store, speeds: Speeds) -> None:
    made = plan(pool, store, memory="64MiB", disk="1GiB", speeds=speeds)
    document = json.loads(json.dumps(made.to_json()))
    assert Plan.from_json(document) == made
    assert document["bytes_planned_per_epoch"] == made.chosen.bytes
    assert document["explanation"] == str(made)
    del document["cache_rows"]
    with pytest.raises(InputDataError, match="cache_rows"):
        Plan.from_json(document)


def test_an_estimate_of_few_batches_is_the_exact_plan(pool: Pool, store: Store, speeds: Speeds, tight: int) -> None:
    exact = plan(pool, store, memory=tight, layout="packed", speeds=speeds)
    guess = estimate(store.path, fanouts=[4, 3], batch_size=32, memory=tight, layout="packed", speeds=speeds)
    assert not guess.estimated
    assert replace(guess, pool_id=exact.pool_id) == exact


def test_an_estimate_of_many_batches_says_so_and_is_near(store: Store, tmp_path: Path, speeds: Speeds) -> None:
    many = gs.sample(store, tmp_path / "pool", fanouts=[4, 3], batch_size=4)
    least = plan(many, store, memory="64MiB", speeds=speeds).candidate("packed").memory_bytes
    options = {"memory": least + 40_000, "layout": "packed", "speeds": speeds}
    exact = plan(many, store, **options)  # type: ignore[arg-type]
    guess = estimate(store, fanouts=[4, 3], batch_size=4, **options)  # type: ignore[arg-type]
    assert guess.estimated
    assert (guess.sampled_batches, guess.num_batches) == (32, 75)
    assert "ESTIMATED from 32 of 75" in str(guess)
    assert 0 < exact.cache_rows < exact.requested_rows
    # one skewed graph, fixed seed: 0.995 measured; 32 of 75 batches know the largest batch and the hot rows roughly
    assert 0.9 < guess.chosen.bytes / exact.chosen.bytes < 1.2


def test_an_estimate_refuses_a_batch_that_sampling_would_refuse(store: Store, tmp_path: Path, speeds: Speeds) -> None:
    options = {"fanouts": [-1, -1, -1], "batch_size": 300, "memory": "1MiB"}
    with pytest.raises(MemoryBudgetError, match="a batch needs at least"):
        gs.sample(store, tmp_path / "pool", **options)  # type: ignore[arg-type]
    with pytest.raises(MemoryBudgetError, match="a batch needs at least"):
        estimate(store, **options, speeds=speeds)  # type: ignore[arg-type]


def test_the_explanation_shows_every_candidate_marks_the_choice_and_says_why(
    pool: Pool, store: Store, speeds: Speeds
) -> None:
    text = str(plan(pool, store, memory="64MiB", disk="1GiB", epochs=20, speeds=speeds))
    lines = text.splitlines()
    marked = [line for line in lines if line.startswith("  >")]
    assert len(marked) == 1
    assert [line.split()[0] for line in lines if line.startswith("     ") and "direct" in line] == ["direct"]
    for word in (
        "packed",
        "direct",
        "reads/epoch",
        "amplif.",
        "disk",
        "memory",
        "prepare",
        "20 epochs",
        "in all",
        "because",
    ):
        assert word in text
    assert "cache" in text
    assert "hottest rows answer 100% of requests" in text


@settings(max_examples=30, deadline=None)
@given(
    scale=st.integers(1, 10**12),
    epochs=st.integers(1, 100_000),
    known=st.booleans(),
    requested=st.sampled_from(["packed", "direct", "auto"]),
)
def test_no_line_of_an_explanation_is_wider_than_100_columns(
    pool: Pool, store: Store, scale: int, epochs: int, known: bool, requested: str
) -> None:
    made = plan(pool, store, memory="64MiB", speeds=Speeds(1e9, 1e9, 1e5, 1e9))
    grown = replace(
        made,
        epochs=epochs,
        requested=requested,
        num_rows=scale,
        requests=10 * scale,
        cache_rows=scale // 10,
        speeds=made.speeds if known else None,
        candidates=tuple(replace(c, rows_bytes=scale * 100, epoch_s=scale / 1e6) for c in made.candidates),
    )
    assert max(map(len, str(grown).splitlines())) <= 100


def test_a_loaded_pack_prints_the_explanation_it_was_made_with(
    pool: Pool, store: Store, speeds: Speeds, tmp_path: Path
) -> None:
    made = plan(pool, store, memory="16MiB", layout="packed", speeds=speeds)
    gs.pack(pool, tmp_path / "pack", plan=made, store=store, memory="16MiB")
    assert str(Pack.open(tmp_path / "pack").plan) == str(made)


def test_a_pool_may_be_named_by_its_folder_and_a_store_is_refused(pool: Pool, store: Store, speeds: Speeds) -> None:
    assert plan(pool.path, store, speeds=speeds).to_json() == plan(pool, store, speeds=speeds).to_json()
    with pytest.raises(ConfigError, match=r"GS-CFG-309.*no Pool(?s:.*)gs\.estimate"):
        plan(store)  # type: ignore[arg-type]
    with pytest.raises(InputDataError, match=r"GS-IN-021.*gnnsys-store"):
        plan(store.path)
    with pytest.raises(ConfigError, match=r"GS-CFG-310(?s:.*)gs\.plan"):
        estimate(pool, fanouts=[4, 3])  # type: ignore[arg-type]
