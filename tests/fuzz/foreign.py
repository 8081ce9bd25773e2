"""Parsers of files that others made: .npy, .npz, text, OGB's tables and pickles."""

from __future__ import annotations

import gzip
import io
import json
import os
import shutil
import warnings
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import torch

import gnnsys as gs
from gnnsys.budget import Budget
from gnnsys.ingestion import pickles
from gnnsys.ingestion.archive import Archive
from gnnsys.ingestion.npy import map_npy
from gnnsys.ingestion.source import Names
from gnnsys.ingestion.split_text import read_split
from gnnsys.storage.stage import Stage
from gnnsys.storage.store import FORMAT, VERSION
from tests.fuzz.target import Target, put, refused


def _ingest(room: Path, source: str, **options: Any) -> None:
    """All of what becomes of a source: every check that its numbers meet. A warning is no finding."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)
            store = gs.ingest(source, room / "store", memory="32MiB", workers=1, **options)
        store.labels() if store.num_classes else None
    finally:
        shutil.rmtree(room / "store", ignore_errors=True)


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
    np.array(map_npy(put(room, "a.npy", data)))


_ROLES = {"edges": np.arange(12).reshape(6, 2) % 5, "features": np.ones((5, 3), np.float32), "labels": np.arange(5) % 2}


def _role_samples(golden: Path) -> list[bytes]:
    """The first byte tells which file the rest is."""
    return [bytes([number]) + _npy(array) for number, array in enumerate(_ROLES.values())]


def _parse_role(data: bytes, room: Path) -> None:
    """Beside two good ones."""
    for number, (role, array) in enumerate(_ROLES.items()):
        put(room, f"{role}.npy", data[1:] if number == (data[0] if data else 0) % len(_ROLES) else _npy(array))
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
    path = put(room, "a.npz", data)
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
    """As edges, with weights in the third column, as labels and features beside good edges, as a split, and packed."""
    path, good, packed = put(room, "a.csv", data), room / "edges.csv", room / "a.csv.gz"
    good.write_bytes(b"0,1\n1,2\n2,3\n")
    named = put(room, "named.csv", b"a,b\nb,c\nc,a\n")
    packed.write_bytes(gzip.compress(data, 0))
    refused(_ingest, room, f"edges:{path}")
    refused(_ingest, room, f"edges:{path}", edge_weights=3)
    for edges, role in product((good, named), ("labels", "features")):
        refused(_ingest, room, f"edges:{edges}", **{role: path})
    names = Names(put(room, "names", b"abc"), put(room, "offsets", np.arange(4).tobytes()))
    for known in (None, names):
        refused(read_split, path, known, Budget(32 << 20))
    _ingest(room, f"edges:{packed}")


def _gzip_samples(golden: Path) -> list[bytes]:
    return [gzip.compress(data, level) for data in _text_samples(golden) for level in (0, 9)]


def _parse_gzip(data: bytes, room: Path) -> None:
    _ingest(room, f"edges:{put(room, 'a.csv.gz', data)}")


def _ogb_samples(golden: Path) -> list[bytes]:
    return [b"0,1\n1,2\n2,0\n", b"0.5,-1e3\n,2\n3,4\n", b"1\n", b"nan\n2.0\n"]


def _parse_ogb(data: bytes, room: Path) -> None:
    from gnnsys.ingestion.csv_rows import unpack_csv

    path = put(room, "a.csv.gz", gzip.compress(data, 0))
    for dtype in (np.int64, np.float32):
        with _job(room) as job:
            refused(lambda job=job, dtype=dtype: np.array(unpack_csv(job, path, dtype)))


@contextmanager
def _job(room: Path) -> Iterator[Any]:
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
    path, out = put(room, "a.pt", data), room / "child"
    shutil.rmtree(out, ignore_errors=True)
    out.mkdir()
    if (child := os.fork()) == 0:
        with (out / "stdout").open("w") as said, redirect_stdout(said), redirect_stderr(said):
            code = pickles.main(path, out)  # killed by a signal: the product says that the child ended with it
        os._exit(code)
    if os.waitpid(child, 0)[1] == 0:
        for entry in json.loads((out / "stdout").read_text()).values():
            np.array(pickles._value(out, entry))


FOREIGN = {
    "npy": Target(_npy_samples, _parse_npy),
    "npy-source": Target(_role_samples, _parse_role, 10),
    "npz": Target(_npz_samples, _parse_npz, 4),
    "npz-member": Target(_member_samples, _parse_member, 10),
    "text": Target(_text_samples, _parse_text, 20),
    "gzip": Target(_gzip_samples, _parse_gzip, 4),
    "ogb-csv": Target(_ogb_samples, _parse_ogb, 4),
    "pickle": Target(_pickle_samples, _parse_pickle, 40),
}
