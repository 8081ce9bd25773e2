"""Checkpoints of a run: folders of safetensors and JSON that are complete or not there at all.

    checkpoints/ckpt-000123/     model.<stage>.safetensors  optimizer.<stage>.safetensors  [task.0.safetensors]
                                 [history-<layer>-<set>.<stage>.safetensors]  state.json
                                 manifest.json      format `gnnsys-ckpt`: digest and size of each file
    checkpoints/latest           name of the newest one

Every pipeline stage writes the tensors of its layers, under names that are unique in the model; stage 0 has all of them
where there is no pipeline. A reader merges what the manifest lists and takes what it needs, so a run may go on with
another number of stages. (`torch.distributed.checkpoint` would do the same with a pickle beside it, and no digests.)

A checkpoint is written under `ckpt-000123.tmp`: every file is made durable, then the folder, then it is renamed, then
the rename is made durable, and only then does `latest` name it. The newest two and the one with the best weights are
kept.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from gnnsys.errors import CorruptStoreError, GnnsysError
from gnnsys.failpoints import failpoint
from gnnsys.pipeline.ranks import Alone, Ranks
from gnnsys.storage.checksums import digest
from gnnsys.storage.files import (
    atomic_write,
    fsync_dir,
    make_folder,
    open_read,
    read_small,
    remove_temps,
    remove_tree,
    write_new,
)
from gnnsys.storage.manifest import NAME, FileEntry, Manifest, artefact_id, canonical_json, read_manifest
from gnnsys.training.tensors import decode, encode

FORMAT = "gnnsys-ckpt"
VERSION = 2
_NAME = re.compile(r"ckpt-(\d{6,})")


@dataclass(frozen=True, kw_only=True)
class Checkpoint:
    """Everything needed to go on: named tensors by group, and plain values."""

    step: int
    tensors: Mapping[str, Mapping[str, Tensor]]
    """`model`, `optimizer`, `task` when it has state, and with chunks of a whole graph `history-<layer>-<set>`."""
    state: Mapping[str, Any]
    """JSON values: position, sums, hyper-parameters, best epoch."""

    @property
    def name(self) -> str:
        return f"ckpt-{self.step:06d}"


class Checkpoints:
    """The checkpoints of one run.

    Args:
        folder: `<run>/checkpoints`; created by the first save.
        run_digest: digest of the configuration they belong to; others are not loaded.
        ranks: who writes them together.
    """

    def __init__(self, folder: Path, run_digest: str, ranks: Ranks | None = None) -> None:
        self._folder = folder
        self._run_digest = run_digest
        self._ranks = ranks or Alone()
        self._newest = ""

    def commit(self, checkpoint: Checkpoint, best: str = "") -> Path:
        """Make `checkpoint` durable, point `latest` at it and delete what is no longer needed; all ranks together.

        Args:
            checkpoint: with the tensors of this rank's stage.
            best: name of the checkpoint with the best weights, kept.
        """
        temp = self._folder / f"{checkpoint.name}.tmp"
        self._ranks.first(lambda: self._make_room(temp))
        own = _write_shards(temp, checkpoint.tensors, self._ranks.stage) if self._ranks.replica == 0 else []
        everyones = (entry for part in self._ranks.gather(own) for entry in part)
        shards = [FileEntry(**{**entry, "shape": tuple(entry["shape"])}) for entry in everyones]
        self._ranks.first(lambda: self._publish(temp, checkpoint, shards, best))
        self._newest = checkpoint.name
        return self._folder / checkpoint.name

    def _make_room(self, temp: Path) -> None:
        make_folder(self._folder)
        self._remove_leftovers()
        temp.mkdir()

    def _publish(self, temp: Path, checkpoint: Checkpoint, shards: Sequence[FileEntry], best: str) -> None:
        final = self._folder / checkpoint.name
        _write_manifest(temp, checkpoint, shards, self._run_digest)
        fsync_dir(temp)
        remove_tree(final)
        failpoint("checkpoint.rename")
        temp.replace(final)
        fsync_dir(self._folder)
        failpoint("checkpoint.latest")
        atomic_write(self._folder / "latest", checkpoint.name.encode() + b"\n")
        failpoint("checkpoint.prune")
        self._prune(keep={checkpoint.name, self._newest, best}, step=checkpoint.step)

    def load(self, name: str, keep: Callable[[str], bool] = lambda _group: True) -> Checkpoint:
        """The checkpoint `name`, every byte verified.

        Args:
            keep: which groups of tensors are wanted; others are verified and dropped, one file at a time.

        Raises:
            CorruptStoreError: incomplete, changed, or of another configuration.
        """
        folder = self._folder / name
        manifest = _read_manifest(folder)
        if manifest.inputs.get("config") != self._run_digest:
            raise CorruptStoreError("GS-STORE-008", f"{folder}: belongs to another configuration than the run")
        tensors: dict[str, dict[str, Tensor]] = {}
        groups = set()
        state = None
        for entry in manifest.files:  # one by one: bytes and tensors of all at once would be twice the memory
            data = _read_verified(folder, entry)
            group, _, kind = entry.path.partition(".")
            if kind.endswith("safetensors"):
                groups.add(group)
                if keep(group):
                    tensors.setdefault(group, {}).update(decode(data, folder / entry.path))
            elif entry.path == "state.json":
                state = _parse_state(data, folder)
            del data
        step = manifest.counts.get("step")
        if not {"model", "optimizer"} <= groups or state is None or not isinstance(step, int):
            raise CorruptStoreError("GS-STORE-008", f"{folder}: a checkpoint has a model, an optimizer and a state")
        found = Checkpoint(step=step, tensors=tensors, state=state)
        if found.name != name:
            raise CorruptStoreError("GS-STORE-008", f"{folder}: holds {found.name}")
        return found

    def load_latest(self, keep: Callable[[str], bool] = lambda _group: True) -> tuple[Checkpoint | None, list[str]]:
        """The newest checkpoint that verifies, None when there is none; and what was wrong with newer ones.

        What `latest` names comes first; a damaged one is passed over for the next older.
        """
        problems: list[str] = []
        for name in self.candidates():
            try:
                found = self.load(name, keep)
            except GnnsysError as error:
                problems.append(error.message)
                continue
            self._newest = name
            return found, problems
        return None, problems

    def candidates(self) -> list[str]:
        """Names of checkpoints, the one that `latest` names first, then from the newest to the oldest."""
        latest = self._folder / "latest"
        named = read_small(latest).decode(errors="replace").strip() if latest.exists() else ""
        others = sorted(self._steps(), key=lambda name: -self._steps()[name])
        return [*([named] if _NAME.fullmatch(named) else []), *(name for name in others if name != named)]

    def _steps(self) -> dict[str, int]:
        """Step of every checkpoint folder, by name."""
        names = [path.name for path in self._folder.glob("ckpt-*")]
        return {name: int(match.group(1)) for name in names if (match := _NAME.fullmatch(name))}

    def _prune(self, keep: set[str], step: int) -> None:
        for name, other in self._steps().items():
            if name not in keep and other < step:
                remove_tree(self._folder / name)

    def _remove_leftovers(self) -> None:
        """Unfinished folders of a killed writer; the run's lock says that there is no other writer."""
        remove_temps(self._folder)
        for temp in self._folder.glob("ckpt-*.tmp*"):
            remove_tree(temp)


def newest_state(folder: Path) -> dict[str, Any] | None:
    """What the newest checkpoint in `folder` says of the training (`TrainState`); None without one. No weights are
    read."""
    checkpoints = Checkpoints(folder, "")
    for name in checkpoints.candidates():
        path = folder / name / "state.json"
        if path.exists():
            state: dict[str, Any] = json.loads(read_small(path))["train"]
            return state
    return None


def _write_shards(folder: Path, tensors: Mapping[str, Mapping[str, Tensor]], stage: int) -> list[dict[str, Any]]:
    """One file per group; returns their entries as JSON values."""
    files = {f"{name}.{stage}.safetensors": group for name, group in tensors.items()}
    return [asdict(_write_file(folder, path, encode(group))) for path, group in files.items()]


def _write_manifest(folder: Path, checkpoint: Checkpoint, shards: Sequence[FileEntry], run_digest: str) -> None:
    entries = [*shards, _write_file(folder, "state.json", canonical_json(checkpoint.state))]
    inputs, parameters = {"config": run_digest}, {"step": checkpoint.step}
    manifest = Manifest(
        format=FORMAT,
        version=VERSION,
        id=artefact_id(FORMAT, VERSION, inputs, parameters),
        inputs=inputs,
        parameters=parameters,
        counts={"step": checkpoint.step},
        files=tuple(sorted(entries, key=lambda entry: entry.path)),
    )
    write_new(folder / NAME, canonical_json({**asdict(manifest), "digest": manifest.digest}) + b"\n")


def _write_file(folder: Path, path: str, data: bytes) -> FileEntry:
    write_new(folder / path, data)
    failpoint("checkpoint.file")
    return FileEntry(path=path, size=len(data), dtype="U8", shape=(len(data),), role="checkpoint", digest=digest(data))


def _read_manifest(folder: Path) -> Manifest:
    try:
        return read_manifest(folder, FORMAT, VERSION)
    except GnnsysError as error:
        raise CorruptStoreError("GS-STORE-008", f"{folder}: the checkpoint is incomplete ({error.message})") from error


def _parse_state(data: bytes, folder: Path) -> dict[str, Any]:
    try:
        return dict(json.loads(data))
    except (ValueError, TypeError, RecursionError) as error:
        raise CorruptStoreError("GS-STORE-008", f"{folder}: state.json is not a JSON object ({error})") from error


def _read_verified(folder: Path, entry: FileEntry) -> bytes:
    path = folder / entry.path
    fd = open_read(path, num_bytes=entry.size)
    with os.fdopen(fd, "rb") as file:
        data = file.read()
    if digest(data) != entry.digest:
        raise CorruptStoreError("GS-STORE-004", f"{path}: fails its checksum")
    return data
