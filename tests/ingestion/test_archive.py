"""Members of an archive as streams: the values that unpacking gives, wherever reading starts and goes back to."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from gnnsys.errors import InputDataError
from gnnsys.ingestion.archive import Archive

VALUES = np.random.default_rng(0).normal(size=(5000, 7)).astype(np.float32)  # 137 KiB: several pieces
Save = Callable[..., None]
both_forms = pytest.mark.parametrize("save", [np.savez, np.savez_compressed])


@both_forms
@pytest.mark.parametrize("order", [[(0, 5000)], [(0, 1), (1, 4999), (4999, 5000)], [(10, 20), (400, 4800)]])
def test_values_are_those_of_the_array(save: Save, order: list[tuple[int, int]], tmp_path: Path) -> None:
    save(tmp_path / "a.npz", x=VALUES)
    rows = Archive(tmp_path / "a.npz").stream("x").rows()
    assert (rows.num_rows, rows.columns, rows.dtype, rows.sequential) == (5000, 7, np.float32, True)
    for start, stop in order:
        assert np.array_equal(rows.read(start, stop), VALUES[start:stop])


@both_forms
def test_going_back_starts_again_at_the_front(save: Save, tmp_path: Path) -> None:
    save(tmp_path / "a.npz", x=VALUES)
    values = Archive(tmp_path / "a.npz").stream("x")
    for start, stop in [(34_000, 35_000), (3, 9), (0, 35_000), (34_999, 35_000), (7, 7)]:
        assert np.array_equal(values.read(start, stop), VALUES.reshape(-1)[start:stop])


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (VALUES.astype(">f8"), VALUES.astype("<f8")),
        (VALUES[:, 0] > 0, (VALUES[:, :1] > 0).astype(np.uint8)),
        (np.empty((0, 3), dtype=np.int64), np.empty((0, 3), dtype=np.int64)),
    ],
)
def test_rows_are_in_the_order_of_this_machine(given: np.ndarray, expected: np.ndarray, tmp_path: Path) -> None:
    np.savez_compressed(tmp_path / "a.npz", x=given)
    found = Archive(tmp_path / "a.npz").stream("x").rows()
    read = found.read(0, len(given))
    assert found.dtype == read.dtype == expected.dtype
    assert np.array_equal(read, expected)


@pytest.mark.parametrize("given", [np.asfortranarray(VALUES), VALUES[None], np.float32(3)])
def test_other_layouts_are_refused(given: np.ndarray, tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", x=given)
    with pytest.raises(InputDataError, match=r"expected \(N, F\) in C order"):
        Archive(tmp_path / "a.npz").stream("x").rows()


@both_forms
@pytest.mark.parametrize("place", [0.5, 0.9])
def test_a_flipped_bit_is_found_by_the_last_value_read(save: Save, place: float, tmp_path: Path) -> None:
    path = tmp_path / "a.npz"
    save(path, x=VALUES)
    data = bytearray(path.read_bytes())
    data[int(place * len(data))] ^= 16
    path.write_bytes(data)
    values = Archive(path).stream("x")
    with pytest.raises(InputDataError, match="member x: cannot be unpacked"):
        for start in range(0, VALUES.size, 700):
            values.read(start, start + 700)
