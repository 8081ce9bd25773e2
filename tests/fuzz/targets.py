"""Every parser as a function of bytes: what it is given by nature, where it needs company, and what it makes of damage.

Formats of ours carry digests, which find nearly every damage. Behind them hides the parser: such targets put the
damaged part into a good artefact and make the digests true again (`_reseal`).
"""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import os
import shutil
import zipfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, redirect_stderr, redirect_stdout, suppress
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import torch
import xxhash

import gnnsys as gs
from gnnsys.cli.inspect import problems_of
from gnnsys.errors import GnnsysError
from gnnsys.ingestion import pickles
from gnnsys.ingestion.archive import Archive
from gnnsys.ingestion.npy import map_npy
from gnnsys.storage.checksums import digest
from gnnsys.storage.generation import Generation
from gnnsys.storage.hint import NAME as HINT
from gnnsys.storage.hint import resolve_store
from gnnsys.storage.manifest import NAME, artefact_id, canonical_json, read_manifest
from gnnsys.storage.plan_file import read_plan
from gnnsys.storage.pool import Pool
from gnnsys.storage.stage import Stage
from gnnsys.storage.store import FORMAT, VERSION
from gnnsys.training.checkpoint import Checkpoints
from gnnsys.training.config import TrainConfig
from gnnsys.training.folder import read_json
from gnnsys.training.run_file import read_run_file, write_run_file
from gnnsys.training.tensors import decode
from tests.golden import make_golden, read_everything

Parse = Callable[[bytes, Path], None]
"""Of bytes, in a folder whose `golden` holds artefacts, which are as they were afterwards."""


@dataclass(frozen=True)
class Target:
    """A parser. `samples` gives valid inputs from the folder of golden artefacts; one run costs `weight` of others'."""

    samples: Callable[[Path], list[bytes]]
    parse: Parse
    weight: int = 1


def make_room(folder: Path) -> Path:
    """A folder to fuzz in."""
    make_golden(folder / "golden")
    return folder


def _file(room: Path, name: str, data: bytes) -> Path:
    path = room / name
    path.write_bytes(data)
    return path


def _ingest(room: Path, source: str, **options: Any) -> None:
    """All of what becomes of a source: every check that its numbers meet."""
    try:
        store = gs.ingest(source, room / "store", memory="32MiB", workers=1, **options)
        store.labels() if store.num_classes else None
    finally:
        shutil.rmtree(room / "store", ignore_errors=True)


# Files of others: .npy, .npz, text


def _arrays() -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    return {
        "adj_indices": rng.integers(0, 6, 12).astype(np.int32),
        "adj_indptr": np.arange(7) * 2,
        "adj_shape": np.array([6, 6]),
        "attr_data": np.ones(6, dtype=np.float32),
        "attr_indices": np.arange(6, dtype=np.int32) % 3,
        "attr_indptr": np.arange(7),
        "attr_shape": np.array([6, 3]),
        "labels": np.arange(6) % 2,
        "train_idx": np.arange(3),
        "test_idx": np.arange(3, 6),
    }


def _edge_arrays() -> dict[str, np.ndarray]:
    masks = np.arange(12).reshape(2, 6) % 2 == 0
    return {
        "edges": np.random.default_rng(0).integers(0, 6, (12, 2)),
        "node_features": np.ones((6, 3), dtype=np.float16),
        "node_labels": np.arange(6) % 2,
        "train_masks": masks,
        "test_masks": ~masks,
    }


def _npy(array: np.ndarray) -> bytes:
    out = io.BytesIO()
    np.save(out, array)
    return out.getvalue()


def _npy_samples(golden: Path) -> list[bytes]:
    return [
        _npy(a)
        for a in (*_arrays().values(), *_edge_arrays().values(), np.asfortranarray(np.ones((3, 2))), np.empty((0, 3)))
    ]


def _parse_npy(data: bytes, room: Path) -> None:
    np.array(map_npy(_file(room, "a.npy", data)))


_ROLES = {"edges": np.arange(12).reshape(6, 2) % 5, "features": np.ones((5, 3), np.float32), "labels": np.arange(5) % 2}


def _role_samples(golden: Path) -> list[bytes]:
    """The first byte tells which file the rest is."""
    return [bytes([number]) + _npy(array) for number, array in enumerate(_ROLES.values())]


def _parse_role(data: bytes, room: Path) -> None:
    """Beside two good ones."""
    for number, (role, array) in enumerate(_ROLES.items()):
        _file(room, f"{role}.npy", data[1:] if number == (data[0] if data else 0) % len(_ROLES) else _npy(array))
    _ingest(room, f"edges:{room / 'edges.npy'}", features=room / "features.npy", labels=room / "labels.npy")


def _npz_samples(golden: Path) -> list[bytes]:
    out = []
    for save in (np.savez, np.savez_compressed):
        for arrays in (_arrays(), _edge_arrays()):
            file = io.BytesIO()
            save(file, **arrays)
            out.append(file.getvalue())
    return out


def _parse_npz(data: bytes, room: Path) -> None:
    path = _file(room, "a.npz", data)
    archive = Archive(path)
    for name in archive.members:
        values = archive.stream(name)
        values.read(0, int(np.prod(values.header.shape)))
    _ingest(room, f"npz:{path}")


def _member_samples(golden: Path) -> list[bytes]:
    """The first byte tells of which graph, and which of its arrays the rest is."""
    return [
        bytes([16 * graph + number]) + _npy(array)
        for graph, arrays in enumerate((_arrays(), _edge_arrays()))
        for number, array in enumerate(arrays.values())
    ]


def _parse_member(data: bytes, room: Path) -> None:
    """In a good archive: what the CRC of a damaged one hides."""
    graph, number = divmod(data[0] if data else 0, 16)
    arrays = (_arrays(), _edge_arrays())[graph % 2]
    with zipfile.ZipFile(room / "a.npz", "w") as file:
        for at, (name, array) in enumerate(arrays.items()):
            file.writestr(f"{name}.npy", data[1:] if at == number % len(arrays) else _npy(array))
    _ingest(room, f"npz:{room / 'a.npz'}")


def _text_samples(golden: Path) -> list[bytes]:
    return [
        b"0,1\n1,2\n2,0\n",
        b"src,dst,weight\n0,1,0.5\n5,2,1\n",
        b"# made by hand\na\tb\nb\tc\r\nc\ta\n",
        b"\xef\xbb\xbf7 8\n8 9\n\n% end\n9 7",
        b"1;0\n0;1\n",
        b"0\n1\n-1\n2\n",
        b"node,class\na,0\nc,1\nb,-1\n",
        b"2 .5 1\n0 1e3 2\n3 0 nan\n1 7 8\n",
        b"id;kind\n2;zoo\n0;\n3;art\n1;zoo\n",
    ]


def _parse_text(data: bytes, room: Path) -> None:
    """As edges, with weights in the third column, as labels and features beside good edges, and packed."""
    path, good, packed = _file(room, "a.csv", data), room / "edges.csv", room / "a.csv.gz"
    good.write_bytes(b"0,1\n1,2\n2,3\n")
    named = _file(room, "named.csv", b"a,b\nb,c\nc,a\n")
    packed.write_bytes(gzip.compress(data, 0))
    _refused(_ingest, room, f"edges:{path}")
    _refused(_ingest, room, f"edges:{path}", edge_weights=3)
    for edges, role in product((good, named), ("labels", "features")):
        _refused(_ingest, room, f"edges:{edges}", **{role: path})
    _ingest(room, f"edges:{packed}")


def _refused(do: Callable[..., None], *given: Any, **options: Any) -> None:
    """Go on where the next thing to do with the same bytes is another matter."""
    with suppress(GnnsysError):
        do(*given, **options)


def _gzip_samples(golden: Path) -> list[bytes]:
    return [gzip.compress(data, level) for data in _text_samples(golden) for level in (0, 9)]


def _parse_gzip(data: bytes, room: Path) -> None:
    _ingest(room, f"edges:{_file(room, 'a.csv.gz', data)}")


def _ogb_samples(golden: Path) -> list[bytes]:
    return [b"0,1\n1,2\n2,0\n", b"0.5,-1e3\n,2\n3,4\n", b"1\n", b"nan\n2.0\n"]


def _parse_ogb(data: bytes, room: Path) -> None:
    from gnnsys.ingestion.csv_rows import unpack_csv

    path = _file(room, "a.csv.gz", gzip.compress(data, 0))
    for dtype in (np.int64, np.float32):
        with _job(room) as job:
            _refused(lambda job=job, dtype=dtype: np.array(unpack_csv(job, path, dtype)))


@contextmanager
def _job(room: Path) -> Iterator[Any]:
    from gnnsys.budget import Budget
    from gnnsys.ingestion.job import Job
    from gnnsys.progress import silent

    with Stage(room / "stage", FORMAT, VERSION, inputs={}, parameters={}) as stage:
        try:
            yield Job(stage, Budget(64 << 20), 1, silent)
        finally:
            shutil.rmtree(stage.work)
            stage.done.clear()


# Pickles, in a child as the product reads them, but forked: starting Python would take a second each


def _pickle_samples(golden: Path) -> list[bytes]:
    out = []
    for zipped in (True, False):
        file = io.BytesIO()
        given = {"train": np.arange(3), "valid": {"paper": torch.arange(2)}, "count": 7, "of": "papers"}
        torch.save(given, file, _use_new_zipfile_serialization=zipped)
        out.append(file.getvalue())
    return out


def _parse_pickle(data: bytes, room: Path) -> None:
    path, out = _file(room, "a.pt", data), room / "child"
    shutil.rmtree(out, ignore_errors=True)
    out.mkdir()
    if (child := os.fork()) == 0:
        with (out / "stdout").open("w") as said, redirect_stdout(said), redirect_stderr(said):
            code = pickles.main(path, out)  # killed by a signal: the product says that the child ended with it
        os._exit(code)
    if os.waitpid(child, 0)[1] == 0:
        for entry in json.loads((out / "stdout").read_text()).values():
            np.array(pickles._value(out, entry))


# Artefacts of ours


def _reseal(folder: Path, changed: Path | None = None) -> None:
    """Make the digests of a manifest true: of the file that changed, and of the manifest itself."""
    path = folder / NAME
    document = json.loads(path.read_bytes())
    for entry in document["files"] if changed else ():
        if folder / entry["path"] == changed:
            data = changed.read_bytes()
            entry["size"], entry["digest"] = len(data), digest(data)
            if entry["role"] == "checkpoint":
                entry["shape"] = [len(data)]
    path.write_bytes(_sealed_manifest(document))


def _sealed_manifest(document: dict[str, Any]) -> bytes:
    rest = {key: value for key, value in document.items() if key != "digest"}
    return canonical_json({**rest, "digest": "sha256:" + hashlib.sha256(canonical_json(rest)).hexdigest()})


def _resealed(data: bytes, seal: Callable[[dict[str, Any]], bytes]) -> bytes:
    """A damaged JSON object with its checksums made true, where it still is one that they can be made for."""
    try:
        return seal(dict(json.loads(data)))
    except (ValueError, TypeError, RecursionError, KeyError, AttributeError):
        return data


@contextmanager
def _in_place_of(file: Path, data: bytes) -> Iterator[None]:
    good = file.read_bytes()
    file.write_bytes(data)
    try:
        yield
    finally:
        file.write_bytes(good)


def _manifest_samples(golden: Path) -> list[bytes]:
    return [path.read_bytes() for path in sorted(golden.rglob(NAME))]


def _parse_manifest(data: bytes, room: Path) -> None:
    folder = room / "manifest"
    folder.mkdir(exist_ok=True)
    for version in (data, _resealed(data, _sealed_manifest)):
        (folder / NAME).write_bytes(version)
        kinds = ("gnnsys-store", "gnnsys-pool", "gnnsys-pack", "gnnsys-generation", "gnnsys-ckpt", "gnnsys-aggregates")
        for kind in kinds:
            _refused(lambda kind=kind: read_manifest(folder, kind, 9))


def _journal_samples(golden: Path) -> list[bytes]:
    bodies = [canonical_json({"unit": f"part/{i}", "rows": i, "file": {"bytes": 8, "hash": "0"}}) for i in range(3)]
    return [b"".join(_line(body) for body in bodies), _line(bodies[0]), b""]


def _line(body: bytes) -> bytes:
    return xxhash.xxh3_64_hexdigest(body).encode() + b" " + body + b"\n"


def _parse_journal(data: bytes, room: Path) -> None:
    folder = room / "journal"
    for version in (data, b"".join(_line(line[17:]) for line in data.split(b"\n"))):
        with Stage(folder, FORMAT, VERSION, inputs={}, parameters={}):
            pass
        (folder / ".work/journal").write_bytes(version)
        _refused(
            lambda: Stage(folder, FORMAT, VERSION, inputs={}, parameters={}).__enter__().__exit__(None, None, None)
        )


def _stage_samples(golden: Path) -> list[bytes]:
    ident = artefact_id(FORMAT, VERSION, {}, {})
    return [canonical_json({"id": ident, "inputs": {}, "parameters": {}})]


def _parse_stage(data: bytes, room: Path) -> None:
    folder = room / "begun"
    with Stage(folder, FORMAT, VERSION, inputs={}, parameters={}) as stage:
        stage.record("one")
    with _in_place_of(folder / ".work/stage.json", data), Stage(folder, FORMAT, VERSION, inputs={}, parameters={}):
        pass


def _files_of(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.suffix in (".bin", ".json", ".safetensors"))


def _file_samples(part: str) -> Callable[[Path], list[bytes]]:
    """The first byte tells which file of the artefact the rest is."""
    return lambda golden: [bytes([i]) + f.read_bytes() for i, f in enumerate(_files_of(golden / part))]


def _with_file(part: str, read: Callable[[Path], None]) -> Parse:
    """The bytes in the place of one file of an artefact, in which all digests are made true."""

    def parse(data: bytes, room: Path) -> None:
        folder = room / "golden" / part
        files = _files_of(folder)
        file = files[(data[0] if data else 0) % len(files)]
        version = _resealed(data[1:], _sealed_manifest) if file.name == NAME else data[1:]
        home = next(parent for parent in file.parents if (parent / NAME).exists())
        with _in_place_of(file, version), _in_place_of(home / NAME, (home / NAME).read_bytes()):
            if file.name != NAME:
                _reseal(home, file)
            read(folder)

    return parse


def _read_pool(folder: Path) -> None:
    pool = Pool.open(folder)
    try:
        for k in range(len(pool)):
            _refused(lambda k=k: pool.read(k, verify="off"))
        pool.seed_ids()
        pool.verify(deep=True)
    finally:
        pool.close()


def _read_generation(folder: Path) -> None:
    generation = Generation.open(folder)
    try:
        generation.cache_nodes(), generation.load_cache()
        for k in range(len(generation.pool)):
            _refused(lambda k=k: generation.slots(k))
            _refused(lambda k=k: generation.read_run(k))
        generation.verify(deep=True)
    finally:
        generation.close()


def _read_store(folder: Path) -> None:
    read_everything("store", folder)
    problems_of(folder, deep=True)


def _newest(golden: Path) -> Path:
    folder = golden / "run/checkpoints"
    return folder / (folder / "latest").read_text().strip()


def _checkpoint_samples(golden: Path) -> list[bytes]:
    return [bytes([i]) + f.read_bytes() for i, f in enumerate(_files_of(_newest(golden)))]


def _parse_checkpoint(data: bytes, room: Path) -> None:
    run, newest = room / "golden/run", _newest(room / "golden")
    checkpoints = Checkpoints(run / "checkpoints", read_json(run / "config.json")["digest"])

    def read(folder: Path) -> None:
        checkpoints.load(folder.name)

    _with_file(str(newest.relative_to(room / "golden")), read)(data, room)


def _safetensors_samples(golden: Path) -> list[bytes]:
    return [path.read_bytes() for path in sorted(golden.rglob("*.safetensors"))[:4]]


def _parse_safetensors(data: bytes, room: Path) -> None:
    for tensor in decode(data, room / "a.safetensors").values():
        tensor.clone()


def _json_samples(golden: Path) -> list[bytes]:
    return [(golden / "run" / name).read_bytes() for name in ("config.json", "result.json")]


def _sealed_json(document: Mapping[str, Any]) -> bytes:
    rest = {key: value for key, value in document.items() if key != "checksum"}
    return json.dumps({**rest, "checksum": digest(canonical_json(rest))}).encode()


def _parse_json(data: bytes, room: Path) -> None:
    for version in (data, _resealed(data, _sealed_json)):
        _refused(read_json, _file(room, "a.json", version))


def _plan_samples(golden: Path) -> list[bytes]:
    return [(golden / "pack/g000000/plan.json").read_bytes()]


def _parse_plan(data: bytes, room: Path) -> None:
    folder = room / "plan"
    folder.mkdir(exist_ok=True)
    for version in (
        data,
        _resealed(data, lambda d: canonical_json({**d, "digest": digest(canonical_json(d["plan"]))})),
    ):
        _file(folder, "plan.json", version)
        _refused(lambda: str(read_plan(folder)))


def _hint_samples(golden: Path) -> list[bytes]:
    return [(golden / part / HINT).read_bytes() for part in ("pack", "run")]


def _parse_hint(data: bytes, room: Path) -> None:
    for part in ("pack", "run"):
        folder = room / "golden" / part
        with _in_place_of(folder / HINT, data):
            _refused(resolve_store, folder)


def _toml_samples(golden: Path) -> list[bytes]:
    write_run_file(golden / "run.toml", TrainConfig(), {"source": golden / "pack", "out": golden / "run"})
    return [(golden / "run.toml").read_bytes(), b'[train]\nsource = "pack"\nmodel = "gcn"\nfanouts = [10, 5]\n']


def _parse_toml(data: bytes, room: Path) -> None:
    read_run_file(_file(room, "run.toml", data))


TARGETS = {
    "npy": Target(_npy_samples, _parse_npy),
    "npy-source": Target(_role_samples, _parse_role, 10),
    "npz": Target(_npz_samples, _parse_npz, 4),
    "npz-member": Target(_member_samples, _parse_member, 10),
    "text": Target(_text_samples, _parse_text, 20),
    "gzip": Target(_gzip_samples, _parse_gzip, 4),
    "ogb-csv": Target(_ogb_samples, _parse_ogb, 4),
    "pickle": Target(_pickle_samples, _parse_pickle, 40),
    "manifest": Target(_manifest_samples, _parse_manifest),
    "journal": Target(_journal_samples, _parse_journal),
    "stage": Target(_stage_samples, _parse_stage, 2),
    "store": Target(_file_samples("store"), _with_file("store", _read_store), 10),
    "pool": Target(_file_samples("pool"), _with_file("pool", _read_pool), 10),
    "generation": Target(_file_samples("pack/g000000"), _with_file("pack/g000000", _read_generation), 10),
    "folded": Target(_file_samples("folded/g000000"), _with_file("folded/g000000", _read_generation), 10),
    "checkpoint": Target(_checkpoint_samples, _parse_checkpoint, 2),
    "safetensors": Target(_safetensors_samples, _parse_safetensors),
    "run-json": Target(_json_samples, _parse_json),
    "plan": Target(_plan_samples, _parse_plan),
    "hint": Target(_hint_samples, _parse_hint),
    "run-file": Target(_toml_samples, _parse_toml),
}
