"""Images for the tests of the passes: objects written in code, and the map of a link that places them all."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path

from hypothesis import settings

from prune.model.assemble import read_image
from prune.model.elf import Rows, parse_object
from prune.model.image import Image
from prune.model.knowledge import Knowledge, read_knowledge
from prune.model.mapfile import parse_link_map
from tests.unit.elfwriter import ALLOC, write_map

X86, I386 = read_knowledge("x86_64"), read_knowledge("i386")
# How long an example takes says something of the machine and its other work, nothing of the code.
settings.register_profile("kprune", deadline=None)
settings.load_profile("kprune")


def image(
    folder: Path, objects: Mapping[str, bytes], members: Collection[str] = (), knowledge: Knowledge = X86
) -> Image:
    """An image of these objects, everything that is loaded placed in the order of the objects.

    ``members``: those that came out of an archive.
    """
    return read_image(folder, parse_link_map(placing(folder, objects, members, knowledge)), knowledge)


def placing(
    folder: Path, objects: Mapping[str, bytes], members: Collection[str] = (), knowledge: Knowledge = X86
) -> str:
    """Write the objects; the map of the link that :func:`image` is of."""
    placed: dict[str, list[tuple[str, int]]] = {}
    for name, data in objects.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(data)
        file = parse_object(Path(name), data, knowledge.machine)
        rows = zip(file.section_names, file.sections, strict=True)
        placed[name] = [(section, int(row["size"])) for section, row in rows if row["flags"] & ALLOC]
    return write_map(placed, members)


def edited_objects(image: Image, data: Rows) -> dict[str, bytes]:
    """Object -> its content in ``data``, each on its own."""
    begins = image.parts["at"].tolist()
    sizes = image.parts["size"].tolist()
    return {
        name: data[at : at + size].tobytes()
        for name, at, size in zip(image.objects, begins, sizes, strict=True)
    }
