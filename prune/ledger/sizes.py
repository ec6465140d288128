"""Byte counts, always from the link map: every byte of the loaded image has a label.

``text`` is every executable input section outside init and exit, tombstones included, and of it
``resident_text`` what is not freed after boot; ``init_text`` the executable rest; ``rodata`` and ``data``
what is in the file otherwise; ``bss`` what is not. ``padding`` is what alignment adds. Together they are the
output sections, which is asserted.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from prune.model.elf import SHF_EXECINSTR, SHF_WRITE, SHT_NOBITS, STT_FUNC
from prune.model.image import Image
from prune.model.knowledge import Knowledge
from prune.model.linkmap import LinkMap, take_apart
from prune.model.lldmap import COMPILED, INTERNAL
from prune.model.room import FREED_GROUPS
from tracer.host import UserError

_EDITED = re.compile(r"^\.kprune/plan-[0-9a-f]+/objects/")


@dataclass(frozen=True)
class Sizes:
    """Bytes of one linked kernel; ``image_bytes`` is the compressed boot image, ``functions`` a count."""

    text_bytes: int
    init_text_bytes: int
    rodata_bytes: int
    data_bytes: int
    bss_bytes: int
    padding_bytes: int
    resident_text_bytes: int
    image_bytes: int
    functions: int


def original_object(path: str) -> str:
    """The object that an edited object stands for."""
    return _EDITED.sub("", path)


def measure(
    image: Image, knowledge: Knowledge, link_map: LinkMap, boot_image: Path, tombstone_bytes: int
) -> Sizes:
    """Measure a kernel linked from the objects of ``image``, pruned or not.

    Args:
        link_map: of the link to be measured.
        tombstone_bytes: what the script lays down besides input sections.

    Raises:
        UserError: the map places a section of an object that the image does not know, or the parts do
            not fit into the output sections.
    """
    count = dict.fromkeys(("text", "init_text", "rodata", "data", "bss"), 0)
    freed_text = 0
    placed: set[int] = set()
    known = {*image.objects, INTERNAL, COMPILED}
    loaded: set[str] = set()
    for row in take_apart(link_map, image.pieces).placed:
        if not row.size:
            continue
        name = original_object(row.object)
        unit, freed = unit_placed(image, name, row.section)
        if unit is not None:
            placed.add(unit)
            label = section_label(image, knowledge, unit)
            count[label] += row.size
            freed_text += row.size if freed and label == "text" else 0
        elif not row.address:
            continue  # Not loaded: debug information, .comment.
        elif knowledge.is_generated(name) or name in known:
            # kallsyms, made from a finished link; what ld itself adds to an object (.note.gnu.build-id); what
            # lld merged.
            count["rodata"] += row.size
        else:
            raise UserError(f"measuring: {name}:{row.section} is in the map but in no object")
        # Variables of each processor are loaded, and lie at address 0 (x86-64 with SMP).
        loaded.add(row.output)
    count["text"] += tombstone_bytes
    total = sum(output.size for output in link_map.outputs if output.address or output.name in loaded)
    padding = total - sum(count.values())
    if padding < 0:
        raise UserError(f"measuring: the parts are {-padding} bytes larger than the output sections")
    return Sizes(
        text_bytes=count["text"],
        init_text_bytes=count["init_text"],
        rodata_bytes=count["rodata"],
        data_bytes=count["data"],
        bss_bytes=count["bss"],
        padding_bytes=padding,
        resident_text_bytes=count["text"] - freed_text,
        image_bytes=boot_image.stat().st_size,
        functions=_functions(image, placed),
    )


def unit_placed(image: Image, name: str, section: str) -> tuple[int | None, bool]:
    """(the unit that a section of a map is, whether it was moved to where the kernel frees after boot)."""
    unit = image.unit_of.get((name, section))
    if unit is not None:
        return unit, False
    for group in FREED_GROUPS:
        unit = image.unit_of.get((name, section.removeprefix(group))) if section.startswith(group) else None
        if unit is not None:
            return unit, True
    return None, False


def section_label(image: Image, knowledge: Knowledge, unit: int) -> str:
    flags = int(image.units["flags"][unit])
    if flags & SHF_EXECINSTR:
        return "init_text" if knowledge.is_init(image.names[unit]) else "text"
    obj, section = int(image.units["object"][unit]), int(image.units["section"][unit])
    if image.files[obj].sections[section]["type"] == SHT_NOBITS:
        return "bss"
    return "data" if flags & SHF_WRITE else "rodata"


def _functions(image: Image, placed: set[int]) -> int:
    """Distinct addresses of ``STT_FUNC`` symbols in the placed units; aliases count once."""
    found: set[tuple[int, int]] = set()
    for obj, file in enumerate(image.files):
        base = int(image.symbols_at[obj])
        for index in ((file.symbols["info"] & 15) == STT_FUNC).nonzero()[0].tolist():
            unit = int(image.symbol_unit[base + index])
            if unit in placed:
                found.add((unit, int(file.symbols["value"][index])))
    return len(found)
