"""Where OGB keeps the files of each data set, and how a missing folder is had: by ogb's own functions."""

from __future__ import annotations

import contextlib
import shutil
import sys
import zipfile
from dataclasses import dataclass
from pathlib import Path

from gnnsys.errors import ConfigError, InputDataError, MissingDependencyError
from gnnsys.ingestion.csv_rows import load_pandas

SPLITS = ("train", "valid", "test")
SPLIT_PICKLE = "split_dict.pt"
"""Beside the text files, or in place of them: ogb takes the split from it where it is there."""
_TEXTS = ("edges", "labels", "num_nodes")
_NUM_EDGES = "num-edge-list.csv.gz"
"""Beside the edges, where a download has it."""
_OWN_PARTS = ("raw", "mapping", "processed", "RELEASE_v1.txt", "RELEASE_v2.txt", "meta.pt")
"""What the folder of a data set holds, and a folder of data sets does not."""
_ARCHIVES = {"graph": "raw/data.npz", "labels": "raw/node-label.npz"}


@dataclass(frozen=True)
class Layout:
    """Where the files of a data set are, below its folder, and how ogb reads them."""

    split: str
    edges: str = "raw/edge.csv.gz"
    features: str = "raw/node-feat.csv.gz"
    """Empty where nodes have none."""
    edge_features: str = ""
    """What takes the place of node features: their mean over the edges that reach a node."""
    labels: str = "raw/node-label.csv.gz"
    num_nodes: str = "raw/num-node-list.csv.gz"
    archive: bool = False
    """`raw/data.npz` and `raw/node-label.npz` in place of text."""
    inverse: bool = False
    """ogb puts the reverse of every edge behind it."""
    node_type: str = ""
    """The type of node that is read, where there are several."""
    multilabel: bool = False
    """Labels are columns of 0 and 1."""
    left_out: str = ""
    """What of the data set does not come into a Store."""


LAYOUTS = {
    "ogbn-arxiv": Layout("split/time"),
    "ogbn-products": Layout("split/sales_ranking", inverse=True),
    "ogbn-proteins": Layout(
        "split/species", features="", edge_features="raw/edge-feat.csv.gz", inverse=True, multilabel=True
    ),
    "ogbn-mag": Layout(
        split="split/time/paper",
        edges="raw/relations/paper___cites___paper/edge.csv.gz",
        features="raw/node-feat/paper/node-feat.csv.gz",
        labels="raw/node-label/paper/node-label.csv.gz",
        num_nodes="raw/num-node-dict.csv.gz",
        node_type="paper",
        left_out="authors, institutions and fields of study, and every relation but cites",
    ),
    "ogbn-papers100M": Layout("split/time", archive=True),
}


def node_files(layout: Layout, folder: Path) -> dict[str, Path]:
    """The files of a data set by what they hold, all there; `split` is the pickle, where there is one.

    Raises:
        InputDataError: one is missing.
    """
    if layout.archive:
        files = {role: folder / name for role, name in _ARCHIVES.items()}
    else:
        roles = (*_TEXTS, *(role for role in ("features", "edge_features") if getattr(layout, role)))
        files = {role: folder / getattr(layout, role) for role in roles}
    split = pickled_split(layout, folder)
    texts = {name: folder / layout.split / f"{name}.csv.gz" for name in SPLITS}
    return require_files(folder, files | ({"split": split} if split.exists() else texts))


def num_edges_file(edges: Path) -> Path | None:
    """The file that says how many edges the file `edges` holds, where the download has one."""
    file = edges.with_name(_NUM_EDGES)
    return file if file.is_file() else None


def pickled_split(layout: Layout, folder: Path) -> Path:
    """Where ogb looks for a pickled split: above the folders of the types of nodes."""
    split = folder / layout.split
    return (split.parent if layout.node_type else split) / SPLIT_PICKLE


def require_files(folder: Path, files: dict[str, Path]) -> dict[str, Path]:
    """`files`, all of them there.

    Raises:
        InputDataError: one is missing.
    """
    for file in files.values():
        if not file.is_file():
            raise InputDataError(
                "GS-IN-100",
                f"{file}: no such file",
                hint=incomplete(folder),
            )
    return files


def incomplete(folder: Path) -> str:
    """What to do about a folder that lacks something."""
    return f"Is the download of {folder} complete? Move the folder away to have ogb download it again."


def download_node_set(name: str, folder: Path) -> None:
    """Have ogb download and unpack a data set of its node collection, if `folder` is not there.

    Raises:
        MissingDependencyError, InputDataError, ConfigError: ogb is not installed, could not do it, or was told not to;
            the folder of the data set was given in place of the one that holds it.
    """
    if _is_there(name, folder):
        return
    try:
        from ogb import nodeproppred
    except ImportError as error:
        raise _no_ogb(name, folder) from error
    facts = load_pandas().read_csv(Path(nodeproppred.__file__).parent / "master.csv", index_col=0)[name]
    _download(name, facts["url"], facts["download_name"], folder)


def download_mag240m(name: str, folder: Path) -> None:
    """As `download_node_set`, for MAG240M."""
    if _is_there(name, folder):
        return
    try:
        from ogb.lsc import MAG240MDataset
    except ImportError as error:
        raise _no_ogb(name, folder) from error
    _download(name, MAG240MDataset.url, folder.name, folder)


def _is_there(name: str, folder: Path) -> bool:
    root = folder.parent
    if not folder.is_dir() and root.resolve().name == folder.name and any((root / p).exists() for p in _OWN_PARTS):
        raise InputDataError(
            "GS-IN-135",
            f"{root} is the folder of {name} itself, expected the folder that holds it",
            hint=f"Write ogb:{name}:{root.resolve().parent}.",
        )
    return folder.is_dir()


def _download(name: str, url: str, packed_name: str, folder: Path) -> None:
    """Unpacked beside `folder` and moved there when all of it has come; without success no folder is left behind."""
    from ogb.utils.url import decide_download, download_url, extract_zip

    sys.stderr.write(f"{folder} is not there: ogb downloads {name} from {url}\n")
    made = [parent for parent in folder.parents if not parent.exists()]
    partial = folder.with_name(f".{folder.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    try:
        with contextlib.redirect_stdout(sys.stderr):  # results alone go to stdout
            if not decide_download(url):
                raise ConfigError(
                    "GS-CFG-116",
                    f"{folder}: no such folder, and the download was declined",
                    hint=_where(name, folder),
                )
            extract_zip(download_url(url, str(partial)), str(partial))
        shutil.move(partial / packed_name, folder)
    except (OSError, EOFError, zipfile.BadZipFile) as error:
        raise InputDataError(
            "GS-IN-134",
            f"{folder}: no such folder, and ogb could not download it ({error})",
            hint=_where(name, folder),
        ) from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)
        with contextlib.suppress(OSError):  # holds the data, or something of another's
            for parent in made:
                parent.rmdir()


def _no_ogb(name: str, folder: Path) -> MissingDependencyError:
    return MissingDependencyError(
        "GS-DEP-003",
        f"{folder}: no such folder, and ogb, which would download it, is not installed",
        hint=f'pip install "gnnsys[ogb]". {_where(name, folder)}',
    )


def _where(name: str, folder: Path) -> str:
    looked = f"{folder.name} was looked for in {folder.parent.resolve()}"
    return f"Is the data elsewhere? {looked}; ogb:{name}:ROOT looks in ROOT."
