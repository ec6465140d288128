"""Write what a pruned link is prepared with: the objects while others work, at the end what is said of it."""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from threading import Thread
from types import TracebackType
from typing import Any, Self

from prune.linking.prepared import ARCHIVE, SCHEMA
from prune.model.elf import Rows
from tracer.host import HostError, write_json


@dataclass(frozen=True)
class Contents:
    """The edited objects: ``data`` holds them all, its first ``archive`` bytes the members of archives;
    ``parts``: ``OBJECT`` rows of :mod:`prune.model.image`."""

    objects: Sequence[str]
    parts: Rows
    data: Rows
    archive: int


class Writing:
    """Writes the edited objects in a thread of its own, from the moment that it is made; ``archive`` and
    ``edited`` as in :class:`Prepared`. Used as a context manager: at its end they are written, and where the
    script turns out to be impossible meanwhile, nothing is left of them."""

    def __init__(self, root: Path, home: Path, contents: Contents) -> None:
        self.home, self._root = home, root
        members, objects = contents.parts["member"], home / "objects"
        self.archive = str(objects / ARCHIVE) if members.any() else ""
        alone = (~members).nonzero()[0].tolist()
        self.edited = {contents.objects[number]: str(objects / contents.objects[number]) for number in alone}
        self._failed: OSError | None = None
        # The thread alone has them, and forgets them when it ends: while ld runs, nobody needs them.
        self._thread = Thread(target=self._write, args=(contents, alone))
        self._thread.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Wait for it.

        Raises:
            HostError: it could not be written; nothing is left of it.
        """
        self._thread.join()
        if kind or self._failed:
            shutil.rmtree(self._root / self.home, ignore_errors=True)
        if self._failed and not kind:
            raise HostError(
                f"writing edited objects to {self._root / self.home}: {self._failed.strerror}",
                "free some space",
            ) from self._failed

    def _write(self, contents: Contents, alone: Sequence[int]) -> None:
        try:
            (self._root / self.home / "objects").mkdir(parents=True, exist_ok=True)
            if self.archive:
                (self._root / self.archive).write_bytes(contents.data[: contents.archive].data)
            for number in alone:
                path, part = self._root / self.edited[contents.objects[number]], contents.parts[number]
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(contents.data[part["at"] : part["at"] + part["size"]].data)
        except OSError as error:
            self._failed = error


def write_prepared(
    root: Path,
    writing: Writing,
    objects: Mapping[str, str],
    tombstones: Sequence[Mapping[str, Any]],
    freed: Sequence[Mapping[str, Any]],
    trimmed: Sequence[Mapping[str, Any]],
    named: bool,
) -> None:
    """Write ``prepared.json``, what is to be known of the link: the last file, the sign of a whole one.

    Args:
        objects: object -> digest of the file that it was made of.
    """
    value = {
        "schema_version": SCHEMA,
        "archive": writing.archive,
        "edited": writing.edited,
        "objects": dict(objects),
        "tombstones": list(tombstones),
        "freed": list(freed),
        "trimmed": list(trimmed),
        "named": named,
    }
    write_json(root / writing.home / "prepared.json", value, indent=None)
