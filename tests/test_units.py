"""Sizes as people write them."""

import pytest

from gnnsys.errors import ConfigError
from gnnsys.units import format_score, format_size, parse_size, size_at_least


@pytest.mark.parametrize(
    ("text", "size"),
    [("0", 0), ("4096", 4096), ("1KiB", 1024), ("512MiB", 512 << 20), ("6GB", 6 * 10**9), (" 1.5 GiB ", 3 << 29)],
)
def test_a_size_is_read_in_its_own_unit(text: str, size: int) -> None:
    assert parse_size(text) == size


@pytest.mark.parametrize("text", ["", "GiB", "-1MiB", "4 parsecs", "1e9", "0x10"])
def test_what_is_not_a_size_is_refused_by_name(text: str) -> None:
    with pytest.raises(ConfigError, match="GS-CFG-001"):
        parse_size(text)


def test_a_large_size_is_exact() -> None:
    assert parse_size("9007199254740993") == 9007199254740993


@pytest.mark.parametrize(("size", "text"), [(0, "0 B"), (1023, "1023 B"), (1536, "1.5 KiB"), (3 << 40, "3.0 TiB")])
def test_a_size_is_shown_in_the_largest_unit(size: int, text: str) -> None:
    assert format_size(size) == text


@pytest.mark.parametrize("num_bytes", [1, 1023, 1025, (1 << 20) - 1, 1 << 20, (1 << 30) + 1])
def test_a_size_rounded_up_is_enough_and_reads_back(num_bytes: int) -> None:
    assert num_bytes <= parse_size(size_at_least(num_bytes)) < num_bytes + (1 << 20)


@pytest.mark.parametrize(
    ("metric", "value", "text"),
    [
        ("acc", 1.0, "1.0000"),
        ("hits@20", 0.56789, "0.5679"),
        ("rmse", 3.2e-05, "3.200e-05"),
        ("mae", 0.5, "0.5000"),
        ("rmse", 12.0, "12.00"),
        ("rmse", 25431.12, "25,431"),
        ("mae", -1234567.8, "-1,234,568"),
    ],
)
def test_a_score_is_shown_at_its_own_scale(metric: str, value: float, text: str) -> None:
    assert format_score(metric, value) == text
