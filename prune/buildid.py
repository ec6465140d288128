"""The build id of a linked kernel: its name in every file that speaks of it."""

from __future__ import annotations

import mmap
from pathlib import Path

import numpy as np

from prune.elf import SECTION, SHT_NOTE
from tracer.host import UserError
from tracer.notes import read_build_id

_SHOFF_AT, _SHNUM_AT = 40, 60  # Elf64_Ehdr


def build_id(vmlinux: Path) -> str:
    """The GNU build id of a linked kernel, in hex.

    Raises:
        UserError: not an ELF file, or linked without ``--build-id``.
    """
    try:
        with vmlinux.open("rb") as stream, mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ) as data:
            found = _read(data) if data[:6] == b"\x7fELF\x02\x01" else None
    except OSError as error:
        raise UserError(f"reading kernel {vmlinux}: {error.strerror}") from error
    except ValueError:  # empty, or it ends before its tables
        found = None
    if found is None:
        raise UserError(f"reading kernel {vmlinux}: not a whole ELF file", "build it again")
    if not found:
        raise UserError(f"reading kernel {vmlinux}: it has no build id", "link it with --build-id")
    return found


def _read(data: mmap.mmap) -> str:
    at = int.from_bytes(data[_SHOFF_AT : _SHOFF_AT + 8], "little")
    count = int.from_bytes(data[_SHNUM_AT : _SHNUM_AT + 2], "little")
    sections = np.frombuffer(data[at : at + count * SECTION.itemsize], SECTION, count)
    for section in sections[sections["type"] == SHT_NOTE]:
        start = int(section["offset"])
        found = read_build_id(data[start : start + int(section["size"])])
        if found:
            return found
    return ""
