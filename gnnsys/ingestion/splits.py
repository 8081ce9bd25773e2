"""Splits: the given ones checked, or new ones drawn, each an ascending file of node ids."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from gnnsys.errors import ConfigError, InputDataError
from gnnsys.ingestion import drawn_splits
from gnnsys.storage.labels import known

_GIVEN = re.compile(r"given:([0-9]{1,9})")
_PER_CLASS = re.compile(r"per-class:([0-9]{1,9})/([0-9]{1,9})")
_RANDOM = re.compile(r"random:([0-9]{1,3})/([0-9]{1,3})/([0-9]{1,3})")
_NAME = re.compile(r"[A-Za-z0-9_+=-]{1,100}")
_STEP = 1 << 17
_SCORED = ("train", "valid", "test")
"""Splits without a label are mistakes under these names; others may be there to be predicted."""


@dataclass(frozen=True)
class SplitRule:
    """Which splits a Store gets: `kind` is `given`, `per-class`, `random` or `none`."""

    kind: str
    version: int | None = None
    """Version of the given splits; None takes all of them."""
    train: int = 0
    valid: int = 0
    """Nodes of every class, or percent of the labelled nodes."""
    seed: int = 0
    asked: bool = False
    """Splits are wanted; without, a source that has none gets none."""
    overlap: bool = False
    """A node may be in several of the given splits."""

    @property
    def drawn(self) -> bool:
        """From all labelled nodes."""
        return self.kind in ("per-class", "random")

    @property
    def parameters(self) -> str:
        """Canonical spelling for the manifest."""
        if self.kind == "per-class":
            return f"per-class:{self.train}/{self.valid}:{self.seed}"
        if self.kind == "random":
            return f"random:{self.train}/{self.valid}/{100 - self.train - self.valid}:{self.seed}"
        return self.kind if self.version is None else f"{self.kind}:{self.version}"


def parse_split(text: str | None, seed: int | None = None, overlap: bool = False) -> SplitRule:
    """The rule of `given`, `given:K`, `per-class:20/30`, `random:60/20/20`, `none`; None is `given` where there are
    any. The seed is 0 when None.

    Raises:
        ConfigError: none of these, or a seed or an overlap for a rule that has no use for it.
    """
    rule = SplitRule("given") if text is None else replace(_rule(text), asked=True)
    if seed is not None and not rule.drawn:
        raise ConfigError(
            "GS-CFG-108",
            f"--split-seed {seed} was given with --split {rule.parameters}, which draws nothing",
            hint="Leave it out, or draw a split: --split random:60/20/20.",
        )
    if overlap and rule.kind != "given":
        raise ConfigError(
            "GS-CFG-108",
            f"--allow-overlap was given with --split {rule.parameters}, whose splits never overlap",
            hint="Leave it out.",
        )
    if seed is not None and not 0 <= seed < 1 << 63:
        raise ConfigError("GS-CFG-106", f"--split-seed is {seed}; it must be 0 or more, and less than 2**63")
    return replace(rule, seed=seed or 0, overlap=overlap)


def _rule(text: str) -> SplitRule:
    if text in ("given", "none"):
        return SplitRule(text)
    if match := _GIVEN.fullmatch(text):
        return SplitRule("given", version=int(match[1]))
    match = _PER_CLASS.fullmatch(text)
    if match and int(match[1]) > 0 and int(match[2]) > 0:
        return SplitRule("per-class", train=int(match[1]), valid=int(match[2]))
    match = _RANDOM.fullmatch(text)
    if match and all(map(int, match.groups())) and sum(map(int, match.groups())) == 100:
        return SplitRule("random", train=int(match[1]), valid=int(match[2]))
    raise ConfigError(
        "GS-CFG-101",
        f"--split {text!r} is not known",
        hint="Write given, given:K, per-class:20/30 (nodes of every class), random:60/20/20 (percent of the labelled "
        "nodes, 100 in all) or none.",
    )


def make_splits(
    rule: SplitRule,
    versions: Sequence[Mapping[str, np.ndarray]],
    num_given: int,
    kept: np.ndarray | None,
    labels: np.ndarray | None,
    num_classes: int,
) -> dict[str, np.ndarray]:
    """Ascending node ids (n,) int64 of every split, by name.

    Args:
        versions: the given splits, node ids in [0, num_given) by name; all versions of them.
        kept: (N,) ids that nodes had in the source, ascending; None when all were kept.
        labels: (N,) int64 or (N, T) float32 of the nodes kept.

    Raises:
        InputDataError: a split is empty, has no labelled node, holds an id twice or out of range, shares a node, is
            not made of integers, or has a name that no file can have.
        ConfigError: `rule` asks for what is not there.
    """
    if rule.kind == "none":
        return {}
    splits = _drawn(rule, labels, num_classes) if rule.drawn else _given(rule, versions, num_given, kept)
    for name, ids in splits.items():
        _check(name, ids, labels)
    return splits


def _drawn(rule: SplitRule, labels: np.ndarray | None, num_classes: int) -> dict[str, np.ndarray]:
    if labels is None:
        raise ConfigError("GS-CFG-102", f"--split {rule.kind} needs labels, the source has none")
    if rule.kind == "random":
        return drawn_splits.random(labels, rule.train, rule.valid, rule.seed)
    if labels.ndim > 1:
        raise ConfigError(
            "GS-CFG-102",
            f"--split per-class needs one class per node, the labels have {labels.shape[1]} columns",
            hint="--split random:60/20/20 draws from all labelled nodes.",
        )
    return drawn_splits.per_class(labels, num_classes, rule.train, rule.valid, rule.seed)


def _given(
    rule: SplitRule, versions: Sequence[Mapping[str, np.ndarray]], num_given: int, kept: np.ndarray | None
) -> dict[str, np.ndarray]:
    if rule.version is not None:
        if rule.version >= len(versions):
            have = f"versions 0 to {len(versions) - 1}" if versions else "no splits"
            raise ConfigError("GS-CFG-103", f"--split given:{rule.version}: the source has {have}")
        versions = [versions[rule.version]]
    if rule.asked and not versions:
        raise ConfigError(
            "GS-CFG-103", "--split given: the source has no splits", hint="E.g. --split random:60/20/20, or none."
        )
    out: dict[str, np.ndarray] = {}
    for number, version in enumerate(versions):
        for name in version:
            check_name("split", name)
        ordered = {name: ascending(name, ids, num_given) for name, ids in version.items()}
        if not rule.overlap:
            _refuse_overlap(ordered)
        for name, ids in ordered.items():
            out[name if len(versions) == 1 else f"{name}.{number}"] = _selected(ids, kept)
    return out


def check_name(role: str, name: str) -> None:
    """Raise InputDataError for the name of a split or a table that no file can have."""
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        raise InputDataError("GS-IN-146", f"{role} {name!r}: a name is made of letters, digits and _ + = -")


def require_ids(name: str, ids: np.ndarray) -> None:
    """Raise InputDataError when `ids` of split `name` are not integers (n,)."""
    if ids.ndim != 1 or (ids.size and ids.dtype.kind not in "iu"):
        raise InputDataError("GS-IN-147", f"split {name}: {ids.dtype} of shape {ids.shape}, expected node ids (n,)")


def ascending(name: str, ids: np.ndarray, num_nodes: int) -> np.ndarray:
    """The ids (n,) of split `name` in order, int64.

    Raises:
        InputDataError: not integers, outside of [0, num_nodes), or one of them twice.
    """
    require_ids(name, ids)
    ordered = np.sort(ids.astype(np.int64))
    if len(ordered) and (ordered[0] < 0 or ordered[-1] >= num_nodes):
        bad = ordered[0] if ordered[0] < 0 else ordered[-1]
        raise InputDataError("GS-IN-140", f"split {name}: node {bad} is outside [0, {num_nodes})")
    twice = np.flatnonzero(ordered[1:] == ordered[:-1])
    if len(twice):
        raise InputDataError("GS-IN-141", f"split {name}: node {ordered[twice[0]]} is listed twice")
    return ordered


def _refuse_overlap(splits: Mapping[str, np.ndarray]) -> None:
    names = list(splits)
    for i, first in enumerate(names):
        for second in names[:i]:
            where = np.searchsorted(splits[first], splits[second])
            inside = where < len(splits[first])
            shared = splits[second][inside][splits[first][where[inside]] == splits[second][inside]]
            if len(shared):
                raise InputDataError(
                    "GS-IN-142",
                    f"node {shared[0]} is in split {second} and in split {first} ({len(shared)} such nodes)",
                    hint="A node in two splits leaks its label; --allow-overlap takes them as they are.",
                )


def _selected(ids: np.ndarray, kept: np.ndarray | None) -> np.ndarray:
    """New numbers of the ids that were kept."""
    if kept is None:
        return ids
    where = np.searchsorted(kept, ids)
    return where[(where < len(kept)) & (kept[np.minimum(where, len(kept) - 1)] == ids)]


def _check(name: str, ids: np.ndarray, labels: np.ndarray | None) -> None:
    if not len(ids):
        raise InputDataError("GS-IN-143", f"split {name} is empty", hint="--split none leaves splits out.")
    if (
        labels is not None
        and name.partition(".")[0] in _SCORED
        and not any(known(labels[ids[a : a + _STEP]]).any() for a in range(0, len(ids), _STEP))
    ):
        raise InputDataError("GS-IN-144", f"no node of split {name} has a label")
