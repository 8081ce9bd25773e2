"""Pack: open the generations of rows in reading order that one manifest names.

pack/manifest.json     names, ids and digests of the generations
pack/hint.json         where the Store was (covered by no digest)
pack/g000000/          a Generation
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

from gnnsys.errors import CorruptStoreError
from gnnsys.storage.generation import Generation
from gnnsys.storage.manifest import Manifest, read_manifest
from gnnsys.storage.plan_file import StoredPlan
from gnnsys.storage.pool import Pool

__all__ = ["FORMAT", "VERSION", "Generation", "Pack", "StoredPlan", "generation_name"]

FORMAT = "gnnsys-pack"
VERSION = 1
_MEND = "Delete the pack's folder and repeat `gnnsys pack`, or copy the folder from a good pack."


def generation_name(number: int) -> str:
    """Folder of generation `number` inside a Pack."""
    return f"g{number:06d}"


class Pack:
    """A finished Pack. Make one with `gnnsys.pack`."""

    def __init__(self, path: Path, manifest: Manifest, *, verify: str = "first") -> None:
        self.path = path
        self.manifest = manifest
        self.generations = [self._generation(part, verify) for part in self._listed()]

    @classmethod
    def open(cls, path: str | Path, *, verify: str = "first") -> Pack:
        """The Pack in folder `path`, with every generation it names.

        Raises:
            InputDataError: no finished Pack is there.
            CorruptStoreError: a manifest or an index is damaged, or a file is missing or of another size.
            VersionError: a newer gnnsys wrote it.
        """
        path = Path(path)
        return cls(path, read_manifest(path, FORMAT, VERSION), verify=verify)

    def __repr__(self) -> str:
        return f"Pack({str(self.path)!r}, generations={len(self.generations)}, layout={self.generations[0].layout!r})"

    @property
    def id(self) -> str:
        return self.manifest.id

    @cached_property
    def digest(self) -> str:
        return self.manifest.digest

    @property
    def store_id(self) -> str:
        """Id of the Store that the rows come from."""
        return str(self.manifest.inputs["store"])

    @property
    def pool(self) -> Pool:
        """The pool of the first generation."""
        return self.generations[0].pool

    @property
    def plan(self) -> StoredPlan:
        """The plan of the first generation; print it for the explanation."""
        return self.generations[0].plan

    def verify(self, deep: bool = False) -> list[str]:
        """Problems found, one sentence each; `deep` reads every byte again."""
        return [problem for generation in self.generations for problem in generation.verify(deep)]

    def close(self) -> None:
        """Close every file."""
        for generation in self.generations:
            generation.close()

    def _listed(self) -> list[Mapping[str, Any]]:
        listed: list[Mapping[str, Any]] = self.manifest.counts.get("generations") or []
        names = [generation_name(i) for i in range(len(listed))]
        if not names or [part.get("name") for part in listed] != names:
            raise CorruptStoreError("GS-STORE-001", f"{self.path}: the manifest names no generation", hint=_MEND)
        return listed

    def _generation(self, part: Mapping[str, Any], verify: str) -> Generation:
        generation = Generation.open(self.path / str(part["name"]), verify=verify)
        if generation.digest != part.get("digest"):
            raise CorruptStoreError(
                "GS-STORE-008", f"{generation.path}: is not the generation that {self.path} names", hint=_MEND
            )
        return generation
