"""Instructions that numba has no word for: block copies, stores past the caches, prefetching. For use in kernels."""

from __future__ import annotations

from typing import Any

from llvmlite import ir  # type: ignore[import-untyped]
from numba.core import cgutils, types
from numba.extending import intrinsic

LINE_BYTES = 64
"""A cache line."""


@intrinsic
def _memcpy(typing_context, to, source, num_bytes):
    """memcpy between addresses: 3 to 10 times as fast as a numba slice assignment, which calls a generic loop per
    row. (Prefetching rows ahead was tried for 64 B to 27 KB rows: no gain, the copies already overlap.)"""

    def generate(context, builder, _signature, args):
        pointer = ir.IntType(8).as_pointer()
        cgutils.raw_memcpy(builder, builder.inttoptr(args[0], pointer), builder.inttoptr(args[1], pointer), args[2], 1)
        return context.get_dummy_value()

    return types.void(types.intp, types.intp, types.intp), generate


@intrinsic
def _stream_line(typing_context, to, source):
    """Copy 64 bytes to a 64-byte-aligned address past the caches: the line need not be read before it is written."""

    def generate(context, builder, _signature, args):
        pointer = ir.VectorType(ir.IntType(64), 8).as_pointer()
        line = builder.load(builder.inttoptr(args[1], pointer))
        line.align = 1
        store = builder.store(line, builder.inttoptr(args[0], pointer), align=LINE_BYTES)
        store.set_metadata("nontemporal", builder.module.add_metadata([ir.Constant(ir.IntType(32), 1)]))
        return context.get_dummy_value()

    return types.void(types.intp, types.intp), generate


@intrinsic
def _fence_all(typing_context):
    """Streamed lines are seen by other threads before anything that follows."""

    def generate(context, builder, _signature, _args):
        builder.fence("seq_cst")
        return context.get_dummy_value()

    return types.void(), generate


@intrinsic
def _prefetch(typing_context, address):
    """Ask for the cache line at an address that will be read soon; an address that is not there is no error."""

    def generate(context, builder, _signature, args):
        pointer, int32 = ir.IntType(8).as_pointer(), ir.IntType(32)
        kind = ir.FunctionType(ir.VoidType(), [pointer, int32, int32, int32])
        function = cgutils.get_or_insert_function(builder.module, kind, "llvm.prefetch.p0")
        read, keep_close, data = int32(0), int32(3), int32(1)
        builder.call(function, [builder.inttoptr(args[0], pointer), read, keep_close, data])
        return context.get_dummy_value()

    return types.void(types.intp), generate


@intrinsic
def _load_word(typing_context, address):
    """The uint64 at any address, aligned or not."""

    def generate(_context, builder, _signature, args):
        word = builder.load(builder.inttoptr(args[0], ir.IntType(64).as_pointer()))
        word.align = 1
        return word

    return types.uint64(types.intp), generate


@intrinsic
def _store_word(typing_context, address, word):
    """Write a uint64 to any address, aligned or not."""

    def generate(context, builder, _signature, args):
        store = builder.store(args[1], builder.inttoptr(args[0], ir.IntType(64).as_pointer()))
        store.align = 1
        return context.get_dummy_value()

    return types.void(types.intp, types.uint64), generate


copy: Any = _memcpy
stream_line: Any = _stream_line
fence: Any = _fence_all
prefetch: Any = _prefetch
load_word: Any = _load_word
store_word: Any = _store_word
