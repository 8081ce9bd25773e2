"""`synthetic:powerlaw:nodes=1e6,edges=2e7,feat=128,classes=16`: a community graph that is generated, never stored.

Nodes have a rank of popularity: sources follow a power law (probability ~ rank^(-2/3), so degrees with exponent 2.5),
destinations a milder one. The class of a node is rank modulo classes; a homophilous edge moves its source to the
class of its destination. Ranks are scattered over node ids by an affine bijection. A row is the centroid of the class,
faint, plus noise of variance 1: one row says little about the class, the mean over some neighbours nearly all.

Every edge, row and split is a function of (seed, its own number): any part is generated alone, in any order, and with
arithmetic that rounds alike on every machine.
"""

from __future__ import annotations

import difflib
import math
import re
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from gnnsys.errors import ConfigError
from gnnsys.ingestion.kernels import add_centroids, noise_rows, powerlaw_edges
from gnnsys.ingestion.source import NOTHING_SKIPPED, Names, Rows
from gnnsys.keys import GOLDEN, derive, mix, permutation

if TYPE_CHECKING:
    from gnnsys.ingestion.job import Job

_EDGES, _ROWS, _CENTROIDS, _SPLITS = 1, 2, 3, 4
_SIGNAL = 2.5
"""Distance of two centroids in units of the noise, about."""
_MAX_EVALUATED = 10_000
_FEW_NODES = 1000
_STEP = 1 << 17


@dataclass(frozen=True, kw_only=True)
class PowerLaw:
    """What is generated; the fields are the keys of the source string."""

    nodes: int
    edges: int
    feat: int = 128
    classes: int = 16
    train: float = 0.1
    valid: float | None = None
    """Fraction of the nodes; None is 5 %, but 10,000 nodes at most, so that evaluation stays cheap."""
    test: float | None = None
    """As `valid`."""
    homophily: float = 0.8
    seed: int = 0

    def fraction(self, name: str) -> float:
        """Share of the nodes in split `name`."""
        given = getattr(self, name)
        return float(min(0.05, _MAX_EVALUATED / self.nodes) if given is None else given)


def parse_powerlaw(text: str) -> PowerLaw:
    """The graph that `nodes=1e6,edges=2e7,feat=128,classes=16` describes.

    Raises:
        ConfigError: a key is unknown or missing, or a value makes no sense.
    """
    types: dict[str, Callable[[str], Any]] = {
        **dict.fromkeys(("nodes", "edges", "feat", "classes", "seed"), _whole),
        **dict.fromkeys(("train", "valid", "test", "homophily"), float),
    }
    values: dict[str, Any] = {}
    for part in filter(None, text.split(",")):
        name, _, value = part.partition("=")
        if name not in types:
            close = difflib.get_close_matches(name, types, n=1)
            hint = f"Did you mean {close[0]}?" if close else f"Keys are {', '.join(types)}."
            raise ConfigError("GS-CFG-110", f"synthetic:powerlaw: unknown key {name!r}", hint=hint)
        if name in values:
            raise ConfigError("GS-CFG-114", f"synthetic:powerlaw: {name} is given twice", hint="Give it once.")
        try:
            values[name] = types[name](value)
        except ValueError:
            raise ConfigError("GS-CFG-111", f"synthetic:powerlaw: {name}={value!r} is not a number it takes") from None
    missing = [name for name in ("nodes", "edges") if name not in values]
    if missing:
        hint = "Write synthetic:powerlaw:nodes=1e6,edges=2e7,feat=128,classes=16."
        raise ConfigError("GS-CFG-112", f"synthetic:powerlaw: {' and '.join(missing)} missing", hint=hint)
    spec = PowerLaw(**values)
    _check(spec)
    return spec


def _whole(text: str) -> int:
    if re.fullmatch(r"-?\d+", text):
        return int(text)
    value = float(text)
    if not math.isfinite(value) or value != int(value):
        raise ValueError(text)
    return int(value)


def _check(spec: PowerLaw) -> None:
    fractions = [spec.fraction(name) for name in ("train", "valid", "test")] if spec.nodes > 0 else []
    problems = {
        "nodes must be 1 .. 2^32 - 1": 1 <= spec.nodes < 1 << 32,
        "edges, feat and seed must not be negative": min(spec.edges, spec.feat, spec.seed) >= 0,
        "seed must be less than 2^63": spec.seed < 1 << 63,
        "feat and classes must be less than 2^31": max(spec.feat, spec.classes) < 1 << 31,
        "classes must be at least 1": spec.classes >= 1,
        "homophily must be within 0 .. 1": 0 <= spec.homophily <= 1,
        "train, valid and test must be at least 0 and sum to at most 1": all(f >= 0 for f in fractions)
        and sum(fractions) <= 1,
    }
    for problem, good in problems.items():
        if not good:
            raise ConfigError("GS-CFG-113", f"synthetic:powerlaw: {problem}; given {spec}")


class PowerLawSource:
    """The generated graph as a Source."""

    weights: Rows | None = None
    names: Names | None = None
    label_kind: str | None = "class"
    skipped = NOTHING_SKIPPED
    sequential = False

    def __init__(self, spec: PowerLaw) -> None:
        self.spec = spec
        self.num_nodes: int | None = spec.nodes
        self.num_edges = spec.edges
        self.num_classes: int | None = spec.classes
        self.tables: Mapping[str, Rows] = {}
        if spec.feat:
            self.tables = {"x": Rows(spec.nodes, spec.feat, np.dtype(np.float32), self._rows)}
        self.labels: Rows | None = Rows(spec.nodes, 1, np.dtype(np.int64), self._labels)
        self._scatter = _Scatter(spec.nodes)
        self._keys = {part: np.uint64(derive(spec.seed, part)) for part in (_EDGES, _ROWS, _CENTROIDS, _SPLITS)}
        self._root = _cube_root(spec.nodes + 1) - 1.0

    def fingerprint(self) -> dict[str, Any]:
        shares = {name: self.spec.fraction(name) for name in ("train", "valid", "test")}
        return {"generator": "powerlaw-1", **asdict(self.spec), **shares}

    def input_bytes(self) -> int:
        return 0

    def prepare(self, job: Job) -> None:
        """Nothing to unpack; the centroids stay in memory."""
        job.budget.reserve(self.spec.classes * (4 * self.spec.feat + 8), "centroids of the classes")

    @cached_property
    def _centroids(self) -> np.ndarray:
        """(C, F) float32; two of unit variance per column lie sqrt(2 F) apart."""
        spec = self.spec
        out = np.empty((spec.classes, spec.feat), dtype=np.float32)
        noise_rows(self._keys[_CENTROIDS], np.arange(spec.classes), out)
        out *= np.float32(_SIGNAL / math.sqrt(2 * max(spec.feat, 1)))
        return out

    def edges(self, start: int, stop: int) -> tuple[np.ndarray, np.ndarray]:
        spec = self.spec
        src, dst = np.empty((2, stop - start), dtype=np.int64)
        powerlaw_edges(self._keys[_EDGES], start, spec.nodes, spec.classes, spec.homophily, self._root, src, dst)
        return self._scatter.ids(src), self._scatter.ids(dst)

    def edge_place(self, number: int) -> str:
        return f"synthetic edge {number}"

    @property
    def splits(self) -> list[dict[str, np.ndarray]]:
        """Every node falls into a split by its own draw; of few nodes each split gets its share by count, at least
        one. A split that stays empty is left out."""
        shares = {name: self.spec.fraction(name) for name in ("train", "valid", "test")}
        found = self._dealt(shares) if self.spec.nodes <= _FEW_NODES else self._drawn(shares)
        found = {name: ids for name, ids in found.items() if len(ids)}
        return [found] if found else []

    def _dealt(self, shares: Mapping[str, float]) -> dict[str, np.ndarray]:
        order = permutation(self.spec.nodes, int(self._keys[_SPLITS]))
        counts = [max(1, round(share * len(order))) if share else 0 for share in shares.values()]
        return dict(zip(shares, np.split(order, np.cumsum(counts)), strict=False))

    def _drawn(self, shares: Mapping[str, float]) -> dict[str, np.ndarray]:
        bounds = np.cumsum(list(shares.values()))
        parts: dict[str, list[np.ndarray]] = {name: [] for name in shares}
        for start in range(0, self.spec.nodes, _STEP):
            ids = np.arange(start, min(start + _STEP, self.spec.nodes))
            draws = mix(self._keys[_SPLITS] + ids.astype(np.uint64) * GOLDEN) * 2.0**-64
            which = np.searchsorted(bounds, draws, side="right")
            for number, name in enumerate(shares):
                parts[name].append(ids[which == number])
        return {name: np.concatenate(part) for name, part in parts.items()}

    def _labels(self, start: int, stop: int) -> np.ndarray:
        return (self._scatter.ranks(np.arange(start, stop)) % self.spec.classes)[:, None]

    def _rows(self, start: int, stop: int) -> np.ndarray:
        ids = np.arange(start, stop)
        out = np.empty((len(ids), self.spec.feat), dtype=np.float32)
        noise_rows(self._keys[_ROWS], ids, out)
        add_centroids(self._centroids, self._labels(start, stop)[:, 0], out)
        return out


class _Scatter:
    """Bijection of ranks and ids in [0, n): id = rank * factor modulo n. n < 2^32, so products fit 64 bits."""

    def __init__(self, n: int) -> None:
        # Near n / golden ratio neighbouring ranks land far apart.
        factor = max(1, int(n * 0.6180339887498949))
        while math.gcd(factor, n) != 1:
            factor += 1
        self._n, self._factor, self._back = np.uint64(n), np.uint64(factor % n or 1), np.uint64(pow(factor, -1, n))

    def ids(self, ranks: np.ndarray) -> np.ndarray:
        return (ranks.astype(np.uint64) * self._factor % self._n).astype(np.int64)

    def ranks(self, ids: np.ndarray) -> np.ndarray:
        return (ids.astype(np.uint64) * self._back % self._n).astype(np.int64)


def _cube_root(value: int) -> float:
    """Newton's method: only operations that IEEE rounds alike everywhere, which the library's cbrt is not."""
    root = float(1 << (value.bit_length() // 3 + 1))
    for _ in range(64):
        root -= (root * root * root - value) / (3.0 * root * root)
    return root
