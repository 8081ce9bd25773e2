"""Tables and splits added to a finished Store: read like its own, and nothing of it changes."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

import gnnsys as gs
from gnnsys.cli.app import app
from gnnsys.cli.inspect import problems_of
from gnnsys.errors import ConfigError, CorruptStoreError, InputDataError, MemoryBudgetError
from gnnsys.training.run import train_from_config
from tests.graphs import ingest_arrays

N = 200
RNG = np.random.default_rng(0)
SRC, DST = RNG.integers(0, N, (2, 1500))
X = RNG.standard_normal((N, 6)).astype(np.float32)
EMB = RNG.standard_normal((N, 3)).astype(np.float16)
Y = RNG.integers(0, 3, N)
MINE = RNG.permutation(N)[:30]


@pytest.fixture
def store(tmp_path: Path) -> gs.Store:
    return ingest_arrays(tmp_path / "store", SRC, DST, N, x=X, y=Y, splits={"train": np.arange(50)})


def test_what_is_added_is_read_like_what_was_ingested(store: gs.Store) -> None:
    files = {path: path.read_bytes() for path in store.path.rglob("*") if path.is_file()}
    more = gs.add(store, tables={"emb": EMB}, splits={"mine": MINE})
    assert (more.id, more.digest) == (store.id, store.digest)
    assert (more.table_names, more.split_names) == (["emb", "x"], ["train", "mine"])
    for backend in ("mapped", "direct", "memory"):
        assert np.array_equal(more.table("emb", backend).read(np.arange(N)), EMB)
    assert np.array_equal(more.split("mine"), np.sort(MINE))
    with gs.Loader(more, seeds="mine", fanouts=[3], batch_size=8, tables=("x", "emb")) as loader:
        for batch in loader:
            assert isinstance(batch.x, dict)
            assert np.array_equal(batch.x["x"].numpy(), X[batch.n_id])
            assert np.array_equal(batch.x["emb"].numpy(), EMB[batch.n_id])
    assert problems_of(store.path, deep=True) == []
    assert files.items() <= {path: path.read_bytes() for path in store.path.rglob("*") if path.is_file()}.items()


def test_the_same_again_does_nothing_and_something_else_is_refused(store: gs.Store) -> None:
    gs.add(store, splits={"mine": MINE}, tables={"emb": EMB})
    mask = np.isin(np.arange(N), MINE)
    gs.add(store, splits={"mine": mask}, tables={"emb": lambda: [EMB[:7], EMB[7:]]})
    with pytest.raises(ConfigError, match=r"GS-CFG-970: .*'mine' was added already, with other values"):
        gs.add(store, splits={"mine": MINE[1:]})
    with pytest.raises(ConfigError, match="GS-CFG-970"):
        gs.add(store, tables={"x": X})
    with pytest.raises(ConfigError, match="GS-CFG-970"):
        gs.add(store, splits={"train": MINE})


@pytest.mark.parametrize(
    ("given", "code"),
    [
        ({"tables": {"emb": EMB[1:]}}, "GS-IN-122"),
        ({"tables": {"emb": EMB[:, 0]}}, "GS-IN-123"),
        ({"tables": {"emb": Y[:, None]}}, "GS-IN-121"),
        ({"tables": {"../emb": EMB}}, "GS-IN-146"),
        ({"tables": {5: EMB}}, "GS-IN-146"),
        ({"tables": EMB}, "GS-IN-178"),
        ({"tables": {"emb": "nowhere.csv"}}, "GS-IN-100"),
        ({"splits": {"mine": "nowhere.npy"}}, "GS-IN-100"),
        ({"splits": {"mine": 3}}, "GS-IN-147"),
        ({"splits": {5: MINE}}, "GS-IN-146"),
        ({"splits": MINE}, "GS-IN-178"),
        ({"splits": {"mine": [0, N]}}, "GS-IN-140"),
        ({"splits": {"mine": [0, 0]}}, "GS-IN-141"),
        ({"splits": {"mine": np.zeros(N, dtype=bool)}}, "GS-IN-143"),
    ],
)
def test_what_does_not_fit_is_refused(given: dict[str, object], code: str, store: gs.Store) -> None:
    with pytest.raises(InputDataError, match=code):
        gs.add(store, **given)
    assert gs.Store.open(store.path).table_names == ["x"]


def test_features_that_were_added_are_packed_and_trained_on(tmp_path: Path, store: gs.Store) -> None:
    plain = ingest_arrays(tmp_path / "plain", SRC, DST, N, y=Y, splits={"train": np.arange(50)})
    rows = gs.add(plain, tables={"x": X})
    batches = []
    for given, name in ((rows, "added"), (store, "ingested")):
        made = gs.pack(given, tmp_path / name, fanouts=[4, 2], batch_size=16, layout="packed")
        with gs.Loader(made) as loader:
            batches.append([batch.x.numpy().tobytes() for batch in loader])
    assert batches[0] == batches[1]
    model = gs.build("sage", in_channels=6, hidden_channels=8, num_layers=2, out_channels=3)
    with gs.Loader(rows, fanouts=[4, 2], batch_size=16) as loader:
        run = gs.train(model, loader, task=gs.NodeClassification(3), epochs=1, out=tmp_path / "run")
    assert run.metrics.keys() == {"train"}


def test_a_pool_of_an_added_split_is_told_by_its_nodes(tmp_path: Path, store: gs.Store) -> None:
    first = gs.sample(gs.add(store, splits={"mine": MINE}), tmp_path / "first", seeds="mine", fanouts=[2])
    shutil.rmtree(store.path / "added")
    other = gs.sample(gs.add(store, splits={"mine": MINE[3:]}), tmp_path / "other", seeds="mine", fanouts=[2])
    assert first.id != other.id
    assert np.array_equal(np.sort(first.seed_ids()), np.sort(MINE))


def test_an_unfinished_addition_is_not_seen_and_continues(store: gs.Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gnnsys.ingestion.job.MAX_UNIT_BYTES", 256)
    monkeypatch.setattr("gnnsys.ingestion.job.MAX_BLOCK_BYTES", 64)

    def stop(_what: str, done: float, _of: float) -> None:
        if done > N // 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        gs.add(store, tables={"emb": EMB}, progress=stop)
    assert gs.Store.open(store.path).table_names == ["x"]
    assert np.array_equal(gs.add(store, tables={"emb": EMB}).table("emb").read(np.arange(N)), EMB)
    assert list(store.path.rglob(".work")) == []


@pytest.mark.parametrize("file", ["tables/emb.bin", "tables/emb.bin.xxh", "manifest.json"])
def test_damage_is_found(file: str, store: gs.Store) -> None:
    gs.add(store, tables={"emb": EMB})
    path = store.path / "added" / "table-emb" / file
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    try:
        found = problems_of(store.path, deep=True)
    except CorruptStoreError as error:
        found = [str(error)]
    assert any("table-emb" in problem for problem in found)


def test_an_addition_of_another_store_is_refused(tmp_path: Path, store: gs.Store) -> None:
    other = ingest_arrays(tmp_path / "other", DST, SRC, N, x=X)
    gs.add(other, tables={"emb": EMB})
    shutil.copytree(other.path / "added", store.path / "added")
    with pytest.raises(CorruptStoreError, match=r"GS-STORE-012.*another Store"):
        gs.Store.open(store.path)


def run(capsys: pytest.CaptureFixture[str], *arguments: str) -> dict[str, list[str]]:
    app([*arguments, "--json"], standalone_mode=False)
    return json.loads(capsys.readouterr().out)


def test_from_the_command_line(store: gs.Store, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    np.save(tmp_path / "emb.npy", EMB)
    np.save(tmp_path / "mine.npy", MINE)
    given = ["--table", f"emb={tmp_path / 'emb.npy'}", "--split", f"mine={tmp_path / 'mine.npy'}"]
    assert run(capsys, "add", str(store.path), *given)["tables"] == ["emb", "x"]
    assert run(capsys, "info", str(store.path))["added"] == ["splits/mine.bin", "tables/emb.bin"]
    for wrong in ([], ["--table", "emb.npy"]):
        with pytest.raises(ConfigError, match="GS-CFG-971"):
            run(capsys, "add", str(store.path), *wrong)


def test_seeds_may_be_a_file_of_ids(store: gs.Store, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    np.save(tmp_path / "mine.npy", MINE)
    given = [str(store.path), str(tmp_path / "pool"), "--seeds", str(tmp_path / "mine.npy"), "--fanouts", "3"]
    assert run(capsys, "sample", *given)["batches"] == 1
    assert np.array_equal(np.sort(gs.Pool.open(tmp_path / "pool").seed_ids()), np.sort(MINE))


def test_a_folder_that_a_kill_left_before_any_work_is_not_seen(store: gs.Store) -> None:
    for name in ("split-mine", "table-emb", "notes"):
        (store.path / "added" / name).mkdir(parents=True)
    (store.path / "added" / "split-mine" / ".lock").touch()
    assert gs.Store.open(store.path).split_names == ["train"]
    assert gs.add(store, splits={"mine": MINE}).split_names == ["train", "mine"]


def test_another_table_in_the_place_of_the_one_that_was_packed_is_refused(tmp_path: Path) -> None:
    plain = ingest_arrays(tmp_path / "plain", SRC, DST, N, y=Y, splits={"train": np.arange(50)})
    made = gs.pack(gs.add(plain, tables={"x": X}), tmp_path / "pack", fanouts=[4], batch_size=16)
    run = train_from_config(made.path, {"hidden": 4, "epochs": 1}, tmp_path / "run")
    run.evaluate("train")
    shutil.rmtree(plain.path / "added")
    again = gs.add(plain, tables={"x": -X})
    with gs.Loader(made) as loader:
        assert next(iter(loader)).x is not None
    with pytest.raises(InputDataError, match="GS-IN-407"):
        gs.Loader(made, rows="mapped")
    with pytest.raises(InputDataError, match="GS-IN-408"):
        run.evaluate("train")
    run.evaluate("train", on=again)


def test_node_ids_of_a_split_are_part_of_the_memory(store: gs.Store) -> None:
    with pytest.raises(MemoryBudgetError):
        gs.add(store, splits={"mine": np.arange(4 << 20)}, memory="16MiB")
    with pytest.raises(ConfigError):
        gs.add(store, splits={"mine": MINE}, memory="garbage")


def test_columns_in_the_order_of_fortran_are_the_same_values(tmp_path: Path) -> None:
    many = np.asfortranarray(RNG.standard_normal((40_000, 8)).astype(np.float32))
    given = [gs.ArraySource((SRC, DST), x=x).fingerprint() for x in (many, np.ascontiguousarray(many))]
    assert given[0] == given[1]


@pytest.fixture(params=["named", "numbered"])
def cited(tmp_path: Path, request: pytest.FixtureRequest) -> tuple[gs.Store, list[str]]:
    """A Store of an edge list, and the id of every node in it."""
    letter = "n" if request.param == "named" else ""
    edges = "".join(f"{letter}{s},{letter}{d}\n" for s, d in zip(SRC, DST, strict=True))
    (tmp_path / "e.csv").write_text(edges + "".join(f"{letter}{v},{letter}{v}\n" for v in range(N)))
    store = gs.ingest(f"edges:{tmp_path / 'e.csv'}", tmp_path / "cited")
    return store, store.names(range(N)) if letter else [str(v) for v in range(N)]


@pytest.mark.parametrize("head", ["", "id,a,b,c\n", "# of nodes\n"])
def test_a_text_of_rows_goes_by_the_ids_of_the_source(
    tmp_path: Path, cited: tuple[gs.Store, list[str]], head: str
) -> None:
    store, ids = cited
    order = RNG.permutation(N)
    rows = [",".join([ids[v], *map(str, EMB[v].astype(float))]) for v in order]
    (tmp_path / "emb.csv").write_text(head + "\n".join(rows))
    more = gs.add(store, tables={"emb": tmp_path / "emb.csv"})
    assert np.array_equal(more.table("emb").read(np.arange(N)), EMB.astype(np.float32))
    assert gs.add(store, tables={"emb": str(tmp_path / "emb.csv")}).table_names == ["emb"]
    assert problems_of(store.path, deep=True) == []
    assert list(store.path.rglob(".work")) == []


@pytest.mark.parametrize("head", ["", "id\n", "\n% chosen\n"])
def test_a_text_of_a_split_goes_by_the_ids_of_the_source(
    tmp_path: Path, cited: tuple[gs.Store, list[str]], head: str
) -> None:
    store, ids = cited
    (tmp_path / "mine.txt").write_text(head + "\n".join(ids[v] for v in MINE))
    np.save(tmp_path / "mine.npy", MINE)
    more = gs.add(store, splits={"mine": tmp_path / "mine.txt", "again": tmp_path / "mine.npy"})
    assert more.split("mine").tolist() == more.split("again").tolist() == np.sort(MINE).tolist()


@pytest.mark.parametrize(
    ("text", "code", "what"),
    [
        ("{0}\nzoe\n", "GS-IN-179", "row 2 is of node 'zoe'"),
        ("0x1\n{0}\n", "GS-IN-179", "row 1 is of node '0x1'"),
        ("{0},3\n{1},3\n", "GS-IN-179", "row 1 has 2 columns: '.*0 3'"),
        ("{0}\n{0}\n", "GS-IN-141", "node 0 is listed twice"),
        ("", "GS-IN-143", "mine is empty"),
        ("id\n", "GS-IN-143", "mine is empty"),
        ("{0}\n" + "9" * 18, "GS-IN-", "999999999999999999"),
    ],
)
def test_a_bad_text_of_a_split_is_told(
    tmp_path: Path, cited: tuple[gs.Store, list[str]], text: str, code: str, what: str
) -> None:
    store, ids = cited
    (tmp_path / "mine.txt").write_text(text.format(*ids))
    with pytest.raises(InputDataError, match=f"{code}.*{what}"):
        gs.add(store, splits={"mine": tmp_path / "mine.txt"})


def test_a_text_of_rows_needs_one_of_every_node(tmp_path: Path, cited: tuple[gs.Store, list[str]]) -> None:
    store, ids = cited
    (tmp_path / "emb.csv").write_text("\n".join(f"{name},1.5" for name in ids[:-1]))
    with pytest.raises(InputDataError, match=f"GS-IN-180: .*has no row of node '?{ids[-1]}"):
        gs.add(store, tables={"emb": tmp_path / "emb.csv"})
    (tmp_path / "emb.csv").write_text("\n".join(f"{name},1.5" for name in [*ids, "200"]))
    with pytest.raises(InputDataError, match=r"GS-IN-179: .*node '?200"):
        gs.add(store, tables={"emb": tmp_path / "emb.csv"})
    assert gs.Store.open(store.path).table_names == []


def test_numbers_of_a_store_are_not_those_of_the_source(tmp_path: Path) -> None:
    (tmp_path / "e.csv").write_text("0,1\n2,5\n5,6\n6,2\n")
    store = gs.ingest(f"edges:{tmp_path / 'e.csv'}", tmp_path / "s", largest_component=True)
    assert store.names(range(3)) == ["2", "5", "6"]
    (tmp_path / "mine.txt").write_text("2\n")
    more = gs.add(store, splits={"text": tmp_path / "mine.txt"})
    with pytest.warns(UserWarning, match=r"renumbered.*Split array is of these numbers, of which 2 was 6"):
        more = gs.add(store, splits={"array": [2]})
    assert [more.names(more.split(name)) for name in ("text", "array")] == [["2"], ["6"]]


def test_names_that_changed_place_no_rows(tmp_path: Path) -> None:
    (tmp_path / "e.csv").write_text("alice,bob\nbob,carol\n")
    store = gs.ingest(f"edges:{tmp_path / 'e.csv'}", tmp_path / "s")
    (store.path / "names" / "bytes.bin").write_bytes(b"bobaliceca" + b"rol")
    (tmp_path / "mine.txt").write_text("bob\n")
    with pytest.raises(CorruptStoreError, match=r"bytes\.bin"):
        gs.add(store.path, splits={"mine": tmp_path / "mine.txt"})
