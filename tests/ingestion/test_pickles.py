"""Foreign pickles: what torch saved in any of its forms is read, and nothing else is, whatever it tries."""

from __future__ import annotations

import os
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from gnnsys.budget import Budget
from gnnsys.errors import InputDataError, MemoryBudgetError
from gnnsys.ingestion.job import Job
from gnnsys.ingestion.pickles import read_pickle
from gnnsys.progress import silent
from gnnsys.storage.stage import Stage
from gnnsys.storage.store import FORMAT, PARTS, VERSION

SPLIT = {"train": np.array([4, 1]), "valid": {"paper": np.arange(3, dtype=np.int32)}, "count": 7, "of": "papers"}


def read(path: Path, memory: int = 4 << 30) -> dict[str, Any]:
    with Stage(path.parent / "s", FORMAT, VERSION, inputs={}, parameters={}, parts=PARTS) as stage:
        return dict(read_pickle(Job(stage, Budget(memory), 1, silent), path))


def old_names(data: bytes) -> bytes:
    """The same pickle as numpy 1 wrote it."""
    return data.replace(b"cnumpy._core.multiarray\n", b"cnumpy.core.multiarray\n")


@pytest.mark.parametrize("zipped", [True, False])
def test_arrays_and_numbers_come_back_by_name(zipped: bool, tmp_path: Path) -> None:
    given = SPLIT | {"tensor": torch.arange(4.0), "empty": np.empty((0, 2))}
    torch.save(given, tmp_path / "a.pt", _use_new_zipfile_serialization=zipped)
    found = read(tmp_path / "a.pt")
    assert list(found) == ["train", "valid/paper", "count", "of", "tensor", "empty"]
    assert found["count"] == 7
    assert found["of"] == "papers"
    arrays = {name: value for name, value in found.items() if isinstance(value, np.ndarray)}
    assert {name: (a.dtype.str, a.tolist()) for name, a in arrays.items()} == {
        "train": ("<i8", [4, 1]),
        "valid/paper": ("<i4", [0, 1, 2]),
        "tensor": ("<f4", [0.0, 1.0, 2.0, 3.0]),
        "empty": ("<f8", []),
    }
    assert arrays["empty"].shape == (0, 2)


def test_the_names_of_numpy_1_are_known(tmp_path: Path) -> None:
    torch.save(SPLIT, tmp_path / "new.pt", _use_new_zipfile_serialization=False)
    data = (tmp_path / "new.pt").read_bytes()
    assert old_names(data) != data
    (tmp_path / "old.pt").write_bytes(old_names(data))
    assert read(tmp_path / "old.pt")["train"].tolist() == [4, 1]


class _Runs:
    """Creates a file when it is unpickled without care."""

    def __init__(self, made: Path) -> None:
        self._made = made

    def __reduce__(self) -> tuple[Any, ...]:
        return (os.mkdir, (str(self._made),))


@pytest.mark.parametrize("zipped", [True, False])
def test_a_pickle_that_would_run_something_is_refused_by_name(zipped: bool, tmp_path: Path) -> None:
    torch.save({"train": _Runs(tmp_path / "made")}, tmp_path / "a.pt", _use_new_zipfile_serialization=zipped)
    with pytest.raises(InputDataError, match=r"a\.pt: asks for posix\.mkdir, which is not an array"):
        read(tmp_path / "a.pt")
    assert not (tmp_path / "made").exists()


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "cannot be read"),
        (pickle.dumps({"a": 1})[:-3], "cannot be read"),
        (b"\x80\x02" + b"]" * 2000, "cannot be read"),
        (b"not a pickle", "cannot be read"),
    ],
)
def test_damage_is_named(data: bytes, message: str, tmp_path: Path) -> None:
    (tmp_path / "a.pt").write_bytes(data)
    with pytest.raises(InputDataError, match=message) as caught:
        read(tmp_path / "a.pt")
    assert caught.value.code == "GS-IN-133"


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ([1, 2], "the file holds list"),
        ({"a": [np.arange(2)]}, "a holds list"),
        ({3: np.arange(2)}, "has an entry named 3"),
        ({"a": {"b": None}}, "a/b holds NoneType"),
        ({"a": float("nan")}, "a holds float"),
        ({"a": np.array(["x"])}, "numpy"),
        ({"a": torch.zeros(2, dtype=torch.complex64)}, "a holds ndarray"),
    ],
)
def test_what_is_not_an_array_or_a_number_is_refused(value: Any, message: str, tmp_path: Path) -> None:
    torch.save(value, tmp_path / "a.pt")
    with pytest.raises(InputDataError, match=message):
        read(tmp_path / "a.pt")


def test_the_process_that_reads_is_part_of_the_memory(tmp_path: Path) -> None:
    torch.save(SPLIT, tmp_path / "a.pt")
    with pytest.raises(MemoryBudgetError, match=r"a process that reads a\.pt"):
        read(tmp_path / "a.pt", memory=64 << 20)


def test_a_pickle_that_claims_terabytes_ends_in_an_error(tmp_path: Path) -> None:
    """The limit of the child's memory answers before the machine does."""
    claimed = torch.empty(1).expand(1 << 40)  # a view: its storage is one value
    torch.save({"a": claimed}, tmp_path / "a.pt")
    with pytest.raises(InputDataError, match="cannot be read"):
        read(tmp_path / "a.pt")
