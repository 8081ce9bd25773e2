"""Sizes and counts as people write them: `4GiB` to bytes and back."""

from __future__ import annotations

import re

from gnnsys.errors import ConfigError

_SCALE = {
    "": 1,
    "B": 1,
    "KB": 10**3,
    "MB": 10**6,
    "GB": 10**9,
    "TB": 10**12,
    "KIB": 1 << 10,
    "MIB": 1 << 20,
    "GIB": 1 << 30,
    "TIB": 1 << 40,
}
_SIZE = re.compile(r"(\d+(?:\.\d+)?)\s*([A-Za-z]*)")


def parse_size(text: str | int) -> int:
    """Bytes of `"512MiB"`, `"6GB"` or `4096`; binary and decimal units are kept apart.

    Raises:
        ConfigError: not a number followed by a known unit.
    """
    if isinstance(text, int):
        return text
    match = _SIZE.fullmatch(text.strip())
    scale = _SCALE.get(match.group(2).upper()) if match else None
    if match is None or scale is None:
        raise ConfigError("GS-CFG-001", f"{text!r} is not a size", hint="Write it like 512MiB, 6GiB or 6GB.")
    return int(float(match.group(1)) * scale) if "." in match.group(1) else int(match.group(1)) * scale


def format_size(num_bytes: float) -> str:
    """`num_bytes` in the largest binary unit that keeps at least one digit before the point."""
    size = float(num_bytes)
    for unit in ("B", "KiB", "MiB", "GiB"):
        if abs(size) < 1024:
            return f"{size:.0f} B" if unit == "B" else f"{size:.1f} {unit}"
        size /= 1024
    return f"{size:.1f} TiB"


_TO_ONE = ("acc", "rocauc", "ap", "f1", "r2", "mrr", "hits")


def format_score(metric: str, value: float) -> str:
    """Four decimals of what is at most 1, else four digits, or all before the point: errors have the scale of what was
    learned."""
    if metric.partition("@")[0] in _TO_ONE:
        return f"{value:.4f}"
    return f"{value:,.0f}" if abs(value) >= 9999.5 else f"{value:#.4g}"


def size_at_least(num_bytes: int) -> str:
    """`num_bytes` rounded up to whole KiB or MiB, as an option takes it: `110MiB`."""
    unit, name = (1 << 10, "KiB") if num_bytes < 1 << 20 else (1 << 20, "MiB")
    return f"{-(-num_bytes // unit)}{name}"
