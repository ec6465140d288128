"""Which file of the sources a unit is from.

An object says it by its name, but for one: where the kernel is linked through ``vmlinux.o``, as with IBT, all
units are of that. The objects it was made from are still there, and a function or variable with a section to
itself has the same section in one of them. Objects of LTO are not code yet, and say nothing.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from prune.model.elf import Rows, is_bitcode, read_object
from prune.model.image import Image, matches
from prune.model.knowledge import option


def origins(image: Image, files: Sequence[str]) -> Rows:
    """For each unit a number, the same for those of one file, if a pattern of ``files`` (as ``kernel/rcu/*``)
    matches the name of that file's object, else -1. Static functions that have one name in several of these
    files count as the first one's."""
    listed = np.array([matches(name, files) for name in image.objects], bool)
    number: Rows = np.where(listed, np.arange(len(image.objects)), -1)[image.units["object"]]
    whole = np.flatnonzero(of_whole(image) & (image.units["function"] | image.units["data"]))
    if not len(whole):
        return number
    of_section: dict[str, int] = {}
    for i, path in enumerate(_objects(image.root, files), len(image.objects)):
        for name in read_object(path, image.machine).section_names:
            of_section.setdefault(name, i)
    number[whole] = [of_section.get(image.names[unit], -1) for unit in whole.tolist()]
    return number


def of_whole(image: Image) -> Rows:
    """Mask of the units of the one object that a kernel is linked from; of none where there are many."""
    name = option("whole")
    found: Rows = image.units["object"] == (image.objects.index(name) if name in image.objects else -1)
    return found


def _objects(objtree: Path, files: Sequence[str]) -> Iterator[Path]:
    """The compiled objects in the tree that a pattern matches."""
    met = [path for pattern in files for path in objtree.glob(pattern)]
    # A ``*`` stands for folders, too, as in the names of an image's objects.
    found = {path for each in met for path in (each.rglob("*.o") if each.is_dir() else (each,))}
    code = (path for path in sorted(found) if path.suffix == ".o" and not path.name.endswith(".mod.o"))
    return (path for path in code if not is_bitcode(path))
