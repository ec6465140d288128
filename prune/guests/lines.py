"""Source lines of addresses, as a kernel's own DWARF has them.

The compilation unit around an address comes from ``.debug_aranges`` where that has it (GCC writes it, clang
does not), else all of them are asked. Of a unit the line program is run once.
"""

from __future__ import annotations

import posixpath
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from elftools.common.exceptions import DWARFError, ELFError
from elftools.dwarf.ranges import BaseAddressEntry

from prune.model.extents import open_whole
from tracer.host import MISSHAPEN


@dataclass(frozen=True)
class Lines:
    """``at``: address -> ``net/ipv4/tcp.c:1234``; ``lack``: why there are none, or ""."""

    at: Mapping[int, str]
    lack: str = ""


def source_lines(vmlinux: Path, objects: Mapping[int, str]) -> Lines:
    """The source lines of addresses.

    Args:
        objects: address -> the object there, by which the root of the sources is found in DWARF's names.
    """
    try:
        with vmlinux.open("rb") as stream:
            elf = open_whole(stream)
            if elf.get_section_by_name(".debug_info") is None:
                return Lines({}, f"{vmlinux} has no DWARF")
            dwarf = elf.get_dwarf_info()
            found: dict[int, str] = {}
            for unit, addresses in _units(dwarf, sorted(objects)).values():
                found |= _of_unit(dwarf, unit, addresses, objects)
            return Lines(found)
    except OSError as error:
        return Lines({}, f"{vmlinux}: {error.strerror or error}")
    except (ELFError, DWARFError, AssertionError, *MISSHAPEN) as error:
        return Lines({}, f"the DWARF of {vmlinux} cannot be read: {type(error).__name__} {error}")


def _units(dwarf: Any, addresses: list[int]) -> dict[int, tuple[Any, list[int]]]:
    """Offset of a compilation unit -> (the unit, which of the addresses it has)."""
    units: dict[int, tuple[Any, list[int]]] = {}
    table, lost = dwarf.get_aranges(), []
    for address in addresses:
        offset = table.cu_offset_at_addr(address) if table and table.entries else None
        if offset is None:
            lost.append(address)
            continue
        unit = dwarf.get_CU_at(offset)
        units.setdefault(unit.cu_offset, (unit, []))[1].append(address)
    for unit in dwarf.iter_CUs() if lost else ():
        ranges = list(_ranges(dwarf, unit))
        inside = [address for address in lost if any(begin <= address < end for begin, end in ranges)]
        if inside:
            units.setdefault(unit.cu_offset, (unit, []))[1].extend(inside)
    return units


def _ranges(dwarf: Any, unit: Any) -> Iterator[tuple[int, int]]:
    """(first address, end) of what a compilation unit covers (DWARF 5, 2.17)."""
    top = unit.get_top_DIE().attributes
    base = top["DW_AT_low_pc"].value if "DW_AT_low_pc" in top else 0
    if "DW_AT_high_pc" in top:
        high = top["DW_AT_high_pc"]
        yield base, high.value if high.form == "DW_FORM_addr" else base + high.value
    elif "DW_AT_ranges" in top:
        at = top["DW_AT_ranges"].value
        for entry in dwarf.range_lists().get_range_list_at_offset(at, unit):
            if isinstance(entry, BaseAddressEntry):
                base = entry.base_address
            else:
                start = 0 if getattr(entry, "is_absolute", False) else base
                yield start + entry.begin_offset, start + entry.end_offset


def _of_unit(dwarf: Any, unit: Any, addresses: list[int], objects: Mapping[int, str]) -> dict[int, str]:
    """The lines of some addresses of one unit."""
    program = dwarf.line_program_for_CU(unit)
    if program is None:
        return {}
    name = _text(unit.get_top_DIE().attributes["DW_AT_name"].value)
    found: dict[int, str] = {}
    before = None
    for entry in program.get_entries():
        state = entry.state
        if state is None:
            continue
        for address in addresses:
            if before is not None and before.address <= address < state.address:
                root = _root(name, objects[address])
                path = posixpath.normpath(_path(program.header, before.file)).removeprefix(root)
                found[address] = f"{path}:{before.line}"
        before = None if state.end_sequence else state
    return found


def _root(name: str, path: str) -> str:
    """The folder of the sources, with its slash, in the name of the source file of an object."""
    return name[: max(name.rfind(path.removesuffix("o")), 0)] if path else ""


def _path(header: Any, index: int) -> str:
    """A file of a line program. Up to DWARF 4 files and folders count from 1, and folder 0 is where it was
    compiled."""
    old = header["version"] < 5
    entry = header["file_entry"][index - old]
    folders, folder = header["include_directory"], entry["dir_index"]
    if old:
        prefix = _text(folders[folder - 1]) if folder else ""
    else:
        prefix = _text(folders[folder]) if folder else ""
    return posixpath.join(prefix, _text(entry["name"]))


def _text(value: bytes | str) -> str:
    return value.decode(errors="replace") if isinstance(value, bytes) else value
