"""Parsers of artefacts of ours.

Their digests find nearly every damage. Behind them hides the parser: the damaged part is put into a good artefact, and
the digests are made true again (`_reseal`).
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import xxhash

from gnnsys.cli.inspect import problems_of
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
from tests.fuzz.target import Parse, Target, put, refused
from tests.golden import read_everything


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
            refused(lambda kind=kind: read_manifest(folder, kind, 9))


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
        refused(lambda: Stage(folder, FORMAT, VERSION, inputs={}, parameters={}).__enter__().__exit__(None, None, None))


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
            refused(lambda k=k: pool.read(k, verify="off"))
        pool.seed_ids()
        pool.verify(deep=True)
    finally:
        pool.close()


def _read_generation(folder: Path) -> None:
    generation = Generation.open(folder)
    try:
        generation.cache_nodes(), generation.load_cache()
        for k in range(len(generation.pool)):
            refused(lambda k=k: generation.slots(k))
            refused(lambda k=k: generation.read_run(k))
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
        refused(read_json, put(room, "a.json", version))


def _plan_samples(golden: Path) -> list[bytes]:
    return [(golden / "pack/g000000/plan.json").read_bytes()]


def _parse_plan(data: bytes, room: Path) -> None:
    folder = room / "plan"
    folder.mkdir(exist_ok=True)
    for version in (
        data,
        _resealed(data, lambda d: canonical_json({**d, "digest": digest(canonical_json(d["plan"]))})),
    ):
        put(folder, "plan.json", version)
        refused(lambda: str(read_plan(folder)))


def _hint_samples(golden: Path) -> list[bytes]:
    return [(golden / part / HINT).read_bytes() for part in ("pack", "run")]


def _parse_hint(data: bytes, room: Path) -> None:
    for part in ("pack", "run"):
        folder = room / "golden" / part
        with _in_place_of(folder / HINT, data):
            refused(resolve_store, folder)


def _toml_samples(golden: Path) -> list[bytes]:
    write_run_file(golden / "run.toml", TrainConfig(), {"source": golden / "pack", "out": golden / "run"})
    return [(golden / "run.toml").read_bytes(), b'[train]\nsource = "pack"\nmodel = "gcn"\nfanouts = [10, 5]\n']


def _parse_toml(data: bytes, room: Path) -> None:
    read_run_file(put(room, "run.toml", data))


OURS = {
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
