"""Tensors as safetensors bytes: what no writer of ours makes is refused, however well it is formed."""

from __future__ import annotations

import json
import struct
from pathlib import Path

import pytest

from gnnsys.errors import CorruptStoreError
from gnnsys.training.tensors import decode

ENTRY = '{"dtype":"F32","shape":[2],"data_offsets":[0,8]}'


def file(header: str) -> bytes:
    """A safetensors file with two float32 values."""
    return struct.pack("<Q", len(header)) + header.encode() + bytes(8)


@pytest.mark.parametrize("aliases", ["[1]", "5", '{"b":[1]}', '{"b":"c"}', "[" * 100_000, '{"b":"a","b":"a"}', ""])
def test_aliases_that_are_no_names_are_refused(aliases: str) -> None:
    with pytest.raises(CorruptStoreError, match=r"x\.safetensors"):
        decode(file(f'{{"a":{ENTRY},"__metadata__":{{"aliases":{json.dumps(aliases)}}}}}'), Path("x.safetensors"))


def test_a_tensor_that_is_there_twice_is_refused() -> None:
    with pytest.raises(CorruptStoreError, match="twice"):
        decode(file(f'{{"a":{ENTRY},"a":{ENTRY}}}'), Path("x.safetensors"))
