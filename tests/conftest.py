"""Images for the tests of the passes: objects written in code, and the map of a link that places them all."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from prune.elf import parse_object
from prune.assemble import read_image
from prune.image import Image
from prune.knowledge import read_knowledge
from prune.linkmap import parse_link_map
from tests.unit.elfwriter import ALLOC, write_map

X86 = read_knowledge("x86_64")


def image(folder: Path, objects: Mapping[str, bytes]) -> Image:
    """An image of these objects, everything that is loaded placed in the order of the objects."""
    placed: dict[str, list[tuple[str, int]]] = {}
    for name, data in objects.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(data)
        file = parse_object(Path(name), data)
        rows = zip(file.section_names, file.sections, strict=True)
        placed[name] = [(section, int(row["size"])) for section, row in rows if row["flags"] & ALLOC]
    return read_image(folder, parse_link_map(write_map(placed)), X86)
