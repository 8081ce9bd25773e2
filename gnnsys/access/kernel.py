"""The kernel that reads rows where they are: compiled by NVRTC when it is first used."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import Any

import torch
from torch import Tensor

from gnnsys.access.requests import LINE, block_shape, element_bytes, is_aligned_loop
from gnnsys.errors import ConfigError

_TYPES = {1: "unsigned char", 2: "unsigned short", 4: "unsigned int", 8: "uint2", 16: "uint4"}
_STAGED = "Use backend='staged'."
MAX_THREADS = 1 << 20
"""Of a launch; 10,240 leave processors to a step that runs meanwhile."""

_SOURCE = """
extern "C" __global__ void gather_rows(
    const {type}* table, const long long* ids, {type}* out, const long long* sizes)
{{
    const long long num_rows = sizes[0], width = sizes[1], base = sizes[2], aligned = sizes[3];
    const long long step = (long long)gridDim.x * blockDim.y;
    for (long long row = (long long)blockIdx.x * blockDim.y + threadIdx.y; row < num_rows; row += step) {{
        const long long begin = ids[row] * width;
        const long long off = aligned ? (base + begin) % {line} : 0;
        for (long long column = (long long)threadIdx.x - off; column < width; column += blockDim.x)
            if (column >= 0) out[row * width + column] = table[begin + column];
    }}
}}
"""


@dataclass(frozen=True)
class Launch:
    """How a gather of some rows is started."""

    element: int
    """Bytes that a thread copies at once."""
    width: int
    """Elements of a row."""
    base: int
    """Elements by which the table starts behind a line."""
    aligned: bool
    block: tuple[int, int]
    grid: int


def launch_of(address: int, out_address: int, row_bytes: int, num_rows: int, max_threads: int) -> Launch:
    """The launch for rows of a table at `address`, to be written from `out_address` on."""
    element = element_bytes(address | out_address, row_bytes)
    width = row_bytes // element
    block = block_shape(width)
    most = max(1, max_threads // (block[0] * block[1]))
    grid = min(-(-num_rows // block[1]), most)
    return Launch(element, width, address % LINE // element, is_aligned_loop(row_bytes), block, max(grid, 1))


def gather_rows(table: Tensor, ids: Tensor, out: Tensor, *, max_threads: int, stream: Any = None) -> None:
    """out (n, F) on a GPU <- rows `ids` (n,) int64, on that GPU, of `table` (N, F) in registered host memory.

    Nothing is checked; table and out are contiguous.

    Raises:
        ConfigError: the kernel cannot be compiled here.
    """
    launch = launch_of(table.data_ptr(), out.data_ptr(), table[0].nbytes, len(ids), max_threads)
    sizes = torch.tensor([len(ids), launch.width, launch.base, launch.aligned], device=ids.device)
    _compiled(launch.element, ids.device)(
        grid=(launch.grid, 1, 1), block=(*launch.block, 1), args=[table, ids, out, sizes], stream=stream
    )


@cache
def _compiled(element: int, device: torch.device) -> Any:
    """The kernel; what is compiled belongs to one device."""
    build = getattr(torch.cuda, "_compile_kernel", None)
    if build is None:
        raise ConfigError("GS-CFG-821", f"torch {torch.__version__} cannot compile kernels", hint=_STAGED)
    try:
        with torch.cuda.device(device):
            return build(_SOURCE.format(type=_TYPES[element], line=LINE // element), "gather_rows")
    except (OSError, ValueError, AttributeError, RuntimeError) as error:  # no toolkit, no NVRTC, or it will not compile
        raise ConfigError(
            "GS-CFG-821", f"the kernel that reads rows in place cannot be compiled ({error})", hint=_STAGED
        ) from error
