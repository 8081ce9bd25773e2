"""What users hold as numpy arrays and Rows: arrays in memory or mapped, tensors, any byte order and layout."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from gnnsys.errors import InputDataError
from gnnsys.ingestion.source import Rows


def as_array(given: Any) -> np.ndarray:
    """Its values, not copied where that is possible; bfloat16, which numpy does not have, as float32, without loss.

    Raises:
        InputDataError: it is not a dense array.
    """
    try:
        if isinstance(given, torch.Tensor):
            found = given.detach().cpu()
            return (found.float() if found.dtype == torch.bfloat16 else found).numpy()
        return np.asarray(given)
    except (TypeError, ValueError, RuntimeError) as error:  # sparse tensors, rows of different lengths
        raise InputDataError("GS-IN-176", f"a {type(given).__name__} is no dense array ({error})") from None


def native_dtype(dtype: np.dtype) -> np.dtype:
    """The type that values of `dtype` are kept as: this machine's byte order, booleans as 0 and 1."""
    return np.dtype(np.uint8) if dtype == np.bool_ else dtype.newbyteorder("=")


def native(array: np.ndarray) -> np.ndarray:
    """`array` in native order, contiguous."""
    return np.ascontiguousarray(array, dtype=native_dtype(array.dtype))


def rows_of_array(array: np.ndarray) -> Rows:
    """An (N, F) or (N,) array as rows in native order."""
    columns = array.shape[1] if array.ndim == 2 else 1

    def read(start: int, stop: int) -> np.ndarray:
        return native(array[start:stop]).reshape(stop - start, columns)

    return Rows(len(array), columns, native_dtype(array.dtype), read)
