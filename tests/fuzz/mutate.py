"""Damage that knows formats: numbers at their limits, parts swapped, cut or repeated, words where others stood."""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Sequence

_LIMITS = (0, 1, -1, 127, 128, 255, 256, 2**15, 2**16 - 1, 2**31 - 1, 2**31, 2**32 - 1, 2**32, 2**53, 2**63 - 1, 2**63)
_WORDS = (
    *(
        b"",
        b"null",
        b"true",
        b"-1",
        b"0",
        b"1e999",
        b"NaN",
        b"0.5",
        b"[]",
        b"{}",
        b'""',
        b'"',
        b"'",
        b",",
        b"\n",
        b"\0",
    ),
    *(b"\xff\xfe", b"\xef\xbb\xbf", b"\r\n", b"..", b"/", b"[" * 5000, b"9" * 400, b'"shape"', b"()", b":", b"#"),
)
_NUMBER = re.compile(rb"-?\d+(?:\.\d+)?")


def mutate(data: bytes, rng: random.Random, others: Sequence[bytes]) -> bytes:
    """`data` after one to eight edits, some of which take parts of `others`."""
    for _ in range(rng.choice((1, 1, 2, 3, 8))):
        data = rng.choice(_EDITS)(data, rng, others)
    return data


def _span(data: bytes, rng: random.Random, longest: int = 1 << 16) -> tuple[int, int]:
    start = rng.randrange(len(data) + 1)
    return start, min(len(data), start + rng.choice((1, 2, 4, 8, 64, rng.randrange(1, longest))))


def _put(data: bytes, at: int, end: int, new: bytes) -> bytes:
    return data[:at] + new + data[end:]


def _byte(data: bytes, rng: random.Random, others: Sequence[bytes]) -> bytes:
    at = rng.randrange(len(data) + 1)
    return _put(data, at, at + 1, bytes([rng.randrange(256)]))


def _flip(data: bytes, rng: random.Random, others: Sequence[bytes]) -> bytes:
    at = rng.randrange(max(len(data), 1))
    return _put(data, at, at + 1, bytes([data[at] ^ 1 << rng.randrange(8)])) if data else data


def _cut(data: bytes, rng: random.Random, others: Sequence[bytes]) -> bytes:
    return data[: rng.randrange(len(data) + 1)]


def _drop(data: bytes, rng: random.Random, others: Sequence[bytes]) -> bytes:
    return _put(data, *_span(data, rng), b"")


def _repeat(data: bytes, rng: random.Random, others: Sequence[bytes]) -> bytes:
    start, stop = _span(data, rng)
    return _put(data, stop, stop, data[start:stop] * rng.choice((1, 1, 2, 50)))


def _swap(data: bytes, rng: random.Random, others: Sequence[bytes]) -> bytes:
    a, b, c = sorted(rng.randrange(len(data) + 1) for _ in range(3))
    return data[:a] + data[b:c] + data[a:b] + data[c:]


def _splice(data: bytes, rng: random.Random, others: Sequence[bytes]) -> bytes:
    other = rng.choice(others)
    return _put(data, *_span(data, rng), other[slice(*_span(other, rng))])


def _binary_number(data: bytes, rng: random.Random, others: Sequence[bytes]) -> bytes:
    """A length, count or offset: often at a multiple of its own size."""
    size = rng.choice((2, 4, 8))
    at = rng.randrange(max(len(data) - size, 0) + 1)
    at -= at % size * rng.randrange(2)
    number = (rng.choice(_LIMITS) + rng.choice((0, 0, 1, -1))) % (1 << 8 * size)
    return _put(data, at, at + size, number.to_bytes(size, "little"))


def _decimal_number(data: bytes, rng: random.Random, others: Sequence[bytes]) -> bytes:
    found = list(_NUMBER.finditer(data[:4096]))
    if not found:
        return _word(data, rng, others)
    match = rng.choice(found)
    near = [int(float(match[0])) + rng.choice((-1, 1))] if len(match[0]) < 20 else []
    return _put(data, *match.span(), str(rng.choice((*_LIMITS, -(2**63), 10**30, *near))).encode())


def _word(data: bytes, rng: random.Random, others: Sequence[bytes]) -> bytes:
    start, stop = _span(data, rng, longest=8)
    return _put(data, start, rng.choice((start, stop)), rng.choice(_WORDS))


_EDITS: tuple[Callable[[bytes, random.Random, Sequence[bytes]], bytes], ...] = (
    *(_byte, _flip, _cut, _drop, _repeat, _swap, _splice),
    *(_binary_number, _binary_number, _decimal_number, _decimal_number, _word, _word),
)
