"""Every error code of the sources: its class, what it says and what to do.

Read from the code itself, so that it is never out of date: a code and the sentence behind it, in a call or a tuple.
"""

from __future__ import annotations

import ast
import re
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

from gnnsys import errors

_CODE = re.compile(r"GS-[A-Z]+-\d{3}")
_WARNING = re.compile(rf"({_CODE.pattern}): ")
_PACKAGE = Path(__file__).resolve().parents[1]
_CLASSES = {
    name: kind for name, kind in vars(errors).items() if isinstance(kind, type) and issubclass(kind, errors.GnnsysError)
}


@dataclass(frozen=True)
class Case:
    """One place that raises a code. What is only known then stands in braces."""

    message: str
    hint: str
    module: str
    """Such as `ingestion/npz.py`."""


@dataclass(frozen=True)
class Entry:
    """What a code means."""

    code: str
    kind: str
    """Name of the error class, or `warning`."""
    exit_code: int | None
    """None for warnings, which end nothing."""
    cases: tuple[Case, ...]


def error_index() -> dict[str, Entry]:
    """All codes in order."""
    found: dict[str, list[tuple[str, Case]]] = defaultdict(list)
    folders = [_PACKAGE, *(path for path in _PACKAGE.iterdir() if path.is_dir())]  # some may be links
    for path in sorted({path for folder in folders for path in folder.rglob("*.py")}):
        for code, kind, case in _cases(path):
            if (kind, case) not in found[code]:
                found[code].append((kind, case))
    return {code: _entry(code, found[code]) for code in sorted(found)}


def _entry(code: str, found: list[tuple[str, Case]]) -> Entry:
    kinds = sorted({kind for kind, _ in found if kind in _CLASSES})
    kind = " or ".join(kinds) or "warning"
    exit_code = _CLASSES[kinds[0]].exit_code if kinds else None
    return Entry(code, kind, exit_code, tuple(case for _, case in found))


def _cases(path: Path) -> Iterator[tuple[str, str, Case]]:
    """(code, name of what is called with it, case) of every place in a file that gives a code and a sentence."""
    module, tree = str(path.relative_to(_PACKAGE)), ast.parse(path.read_text())
    texts = _Texts(tree)
    for node in ast.walk(tree):
        if isinstance(node, ast.Call | ast.Tuple):
            given = node.args if isinstance(node, ast.Call) else node.elts
            for code_node, sentence in pairwise(given):
                if _CODE.fullmatch(code := texts.of(code_node)):
                    yield code, _called(node), Case(texts.of(sentence), texts.hint(node), module)
        elif isinstance(node, ast.JoinedStr | ast.Constant) and (start := _WARNING.match(texts.of(node))):
            yield start[1], "warning", Case(texts.of(node)[start.end() :], "", module)


def _called(node: ast.Call | ast.Tuple) -> str:
    """The error class; helpers that make one are named after what they do, and only make that kind."""
    if isinstance(node, ast.Tuple):
        return "InputDataError"
    name = node.func.id if isinstance(node.func, ast.Name) else getattr(node.func, "attr", "")
    return {"refusal": "MemoryBudgetError"}.get(name, name)


class _Texts:
    """Expressions of one file as their reader sees them, with `{name}` for what is filled in."""

    def __init__(self, tree: ast.Module) -> None:
        named = (node for node in tree.body if isinstance(node, ast.Assign))
        self._constants = {target.id: n.value for n in named for target in n.targets if isinstance(target, ast.Name)}

    def of(self, node: ast.expr) -> str:
        if isinstance(node, ast.Constant):
            return str(node.value)
        if isinstance(node, ast.JoinedStr):
            return "".join(self.of(part) for part in node.values)
        if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Add):
            return self.of(node.left) + self.of(node.right)
        if isinstance(node, ast.IfExp):
            return self.of(node.body)
        if isinstance(node, ast.Name) and isinstance(self._constants.get(node.id), ast.Constant | ast.JoinedStr):
            return self.of(self._constants[node.id])
        return "{" + _name(node.value if isinstance(node, ast.FormattedValue) else node) + "}"

    def hint(self, node: ast.Call | ast.Tuple) -> str:
        keywords = node.keywords if isinstance(node, ast.Call) else []
        return next((self.of(k.value) for k in keywords if k.arg == "hint"), "")


def _name(node: ast.expr) -> str:
    """The word in an expression that says most."""
    if isinstance(node, ast.Name):
        return node.id
    if isinstance(node, ast.Attribute):
        return node.attr.lstrip("_")
    if isinstance(node, ast.Call) and node.args:
        return _name(node.args[0])
    if isinstance(node, ast.Subscript):
        return _name(node.value)
    return ".."
