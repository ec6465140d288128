"""What the modules of a workload look like in memory: ``modules/code.json``, by which the tracer knows their
blocks (:mod:`tracer.profiles.module_blocks`)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from prune.model.elf import SHF_ALLOC, SHF_EXECINSTR, ObjectFile
from prune.model.image import Image
from prune.model.knowledge import Knowledge
from prune.model.layout import kinds_of
from prune.model.linkmap import LinkMap
from tracer.host import UserError, write_json
from tracer.profiles.module_blocks import SCHEMA

_CODE = SHF_ALLOC | SHF_EXECINSTR


@dataclass(frozen=True)
class Built:
    """One module as it was linked: its ``.ko``, the map of that link, the objects."""

    name: str
    file: ObjectFile
    link_map: LinkMap
    image: Image


def save_module_code(modules: Iterable[Built], knowledge: Knowledge, path: Path) -> None:
    """Write ``code.json``: of each module the memory that stays and that which is freed behind init.

    Raises:
        UserError: a map is not of that module.
    """
    areas = [area for built in modules for area in _areas(built, knowledge)]
    write_json(path, {"schema_version": SCHEMA, "areas": areas})


def _areas(built: Built, knowledge: Knowledge) -> list[dict[str, Any]]:
    rows = _functions(built)
    kinds = (built.file, knowledge)
    return [area for init in (False, True) if (area := _area(built.name, *kinds, rows, init))]


def _area(
    name: str, file: ObjectFile, knowledge: Knowledge, functions: Mapping[str, list[list[Any]]], init: bool
) -> dict[str, Any]:
    """As layout_sections() and module_init_section() of kernel/module/main.c have it."""
    code, known, listed = bytearray(), bytearray(), []
    for index, section in enumerate(file.section_names):
        header = file.sections[index]
        size = int(header["size"])
        if int(header["flags"]) & _CODE != _CODE or not size or section.startswith(".init") != init:
            continue
        align = max(int(header["align"]), 1)
        padding = bytes(-len(code) % align)
        code += padding
        known += padding
        at = len(code)
        code += file.content(index)
        known += _same(file, index, size, knowledge)
        listed += [[at + offset, *rest] for offset, *rest in functions.get(section, ())]
    if not code:
        return {}
    return {"module": name, "code": code.hex(), "known": known.hex(), "functions": listed}


def _same(file: ObjectFile, index: int, size: int, knowledge: Knowledge) -> bytes:
    """A one for each byte that no relocation fills."""
    same = np.ones(size, np.uint8)
    for table in file.relocation_sections():
        if int(file.sections["info"][table]) != index:
            continue
        rows = file.relocations(table)
        offsets = rows["offset"].astype(np.int64)
        eight = np.isin(kinds_of(rows), [*knowledge.kinds("abs64"), *knowledge.kinds("pc64")])
        for byte in range(8):
            at = offsets[eight | (byte < 4)] + byte
            same[at[at < size]] = 0
    return same.tobytes()


def _functions(built: Built) -> dict[str, list[list[Any]]]:
    """Section of the ``.ko`` -> [offset in it, size, object, section, symbol] of its functions."""
    image = built.image
    placed = {(row.object, row.section): row for row in built.link_map.placed if row.size}
    found: dict[str, list[list[Any]]] = {}
    for unit, offset, size, name in image.functions:
        place = image.rows[unit][:2]
        row = placed.get(place)
        if row is None:
            raise UserError(f"reading module {built.name}: its map does not have {':'.join(place)}")
        if size:
            found.setdefault(row.output, []).append([row.address + offset, size, *place, name])
    return found
