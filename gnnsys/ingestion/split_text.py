"""The nodes of a split from a text: the id of a node per row, in any order."""

from __future__ import annotations

import re
from array import array
from pathlib import Path

import numpy as np

from gnnsys.budget import Budget
from gnnsys.ingestion.node_ids import NodeIds, is_title, shown
from gnnsys.ingestion.source import Names, require_file
from gnnsys.ingestion.text import text_rows
from gnnsys.ingestion.text_names import names_bytes

_DIGIT = re.compile(rb"\d")
_PART = 1 << 16
_HELD = 24
"""Memory of an id while there come more, and as they become an array."""
_FORM = "A row of a split is the id of a node and nothing else."


def read_split(path: Path, names: Names | None, budget: Budget) -> np.ndarray:
    """(n,) int64 nodes in the order of the rows; a first row that is the name of a column is skipped.

    Raises:
        InputDataError: a row is not the id of a node.
        MemoryBudgetError: so many ids do not fit.
    """
    require_file(path)
    nodes = array("q")
    with budget.holding(0 if names is None else names_bytes(names), "names of nodes"):
        ids = NodeIds(path, names)
        for row, (line, fields) in enumerate(text_rows(path, ids.names)):
            if len(fields) != 1:
                raise ids.bad_row(line, f"has {len(fields)} columns: {shown(b' '.join(fields))}", _FORM)
            node = ids.node(fields[0])
            if node is not None:
                nodes.append(node)
            elif row or not is_title(fields[0], likely=names is None and not _DIGIT.search(fields[0])):
                raise ids.stranger(line, fields[0], _FORM)
            if len(nodes) % _PART == 1:
                with budget.holding(_HELD * (len(nodes) + _PART), f"node ids of {path.name}"):
                    pass
        return np.array(nodes, dtype=np.int64)
