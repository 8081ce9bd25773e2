"""From the text a user types (`npz:cora.npz`) to a Source."""

from __future__ import annotations

import difflib
import re
from pathlib import Path
from typing import Any

from gnnsys.errors import ConfigError
from gnnsys.ingestion.edges import EdgeListSource
from gnnsys.ingestion.mag240m import NAME as MAG240M
from gnnsys.ingestion.mag240m import Mag240mSource
from gnnsys.ingestion.npz import NpzSource
from gnnsys.ingestion.objects import source_of_object
from gnnsys.ingestion.ogb import OgbSource
from gnnsys.ingestion.ogb_files import LAYOUTS
from gnnsys.ingestion.source import Source
from gnnsys.ingestion.synthetic import PowerLawSource, parse_powerlaw

_KINDS = ("synthetic", "npz", "edges", "ogb")
_POWERLAW = "powerlaw:"
_COLUMN = re.compile("[0-9]{1,9}")
_TEXTS = (".csv", ".tsv", ".txt", ".gz", ".npy")
_OGB_ROOT = "dataset"
"""Where ogb keeps its downloads unless told."""


def open_source(
    source: str | Path | Source | Any,
    features: str | Path | None,
    labels: str | Path | None,
    weights: str | Path | int | None,
) -> Source:
    """The Source that `source` names; a Source is returned as it is, graphs of other libraries are wrapped.

    Raises:
        ConfigError: the kind is unknown, or files were given to a kind that has its own.
        InputDataError: the file is absent or not valid.
    """
    if not isinstance(source, str | Path):
        own = "Leave them out, or give all as arrays: gs.ArraySource(edge_index, x=..., y=..., edge_weight=...)."
        _refuse_files(f"a {type(source).__name__}", own, features, labels, weights)
        return source if hasattr(source, "fingerprint") else source_of_object(source)
    kind, colon, rest = str(source).partition(":")
    if kind == "edges":
        return EdgeListSource(Path(rest), _path(features), _path(labels), _column_or_path(weights))
    if meant := _meant(kind, bool(colon)):
        raise ConfigError("GS-CFG-104", f"source {str(source)!r} is not known", hint=f"Write {meant}:{source}.")
    _refuse_files(f"{kind}:", "Leave them out: the source has its own, or none.", features, labels, weights)
    if kind == "npz":
        return NpzSource(Path(rest))
    if kind == "ogb":
        return _open_ogb(*rest.partition(":")[::2])
    if kind == "synthetic" and rest.startswith(_POWERLAW):
        return PowerLawSource(parse_powerlaw(rest.removeprefix(_POWERLAW)))
    close = difflib.get_close_matches(kind, _KINDS, n=1)
    raise ConfigError(
        "GS-CFG-104",
        f"source {str(source)!r} is not known" + (f"; did you mean {close[0]}:?" if close and close[0] != kind else ""),
        hint="Write synthetic:powerlaw:nodes=1e6,edges=2e7,feat=128,classes=16, npz:FILE, edges:FILE or "
        "ogb:NAME[:ROOT].",
    )


def _meant(name: str, more: bool) -> str | None:
    """The kind of a data set, or of a file with nothing `more` behind it, that was named without one."""
    if name in (*LAYOUTS, MAG240M):
        return "ogb"
    suffix = "" if more else Path(name).suffix.lower()
    return "edges" if suffix in _TEXTS else "npz" if suffix == ".npz" else None


def _open_ogb(name: str, root: str) -> Source:
    folder = Path(root or _OGB_ROOT)
    if name == MAG240M:
        return Mag240mSource(folder)
    if name in LAYOUTS:
        return OgbSource(name, folder)
    known = [*LAYOUTS, MAG240M]
    close = difflib.get_close_matches(name, known, n=1)
    raise ConfigError(
        "GS-CFG-115",
        f"ogb data set {name!r} is not known" + (f"; did you mean {close[0]}?" if close else ""),
        hint=f"Known are {', '.join(known)}.",
    )


def _column_or_path(weights: str | Path | int | None) -> int | Path | None:
    if isinstance(weights, str) and _COLUMN.fullmatch(weights):
        return int(weights)
    return weights if isinstance(weights, int) else _path(weights)


def _path(given: str | Path | None) -> Path | None:
    return None if given is None else Path(given)


def _refuse_files(kind: str, hint: str, *files: object) -> None:
    if any(file is not None for file in files):
        raise ConfigError(
            "GS-CFG-105",
            f"--features, --labels and --edge-weights go with edges:FILE, not with {kind}",
            hint=hint,
        )
