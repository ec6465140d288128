"""What a linked kernel says of itself: its build id, which names it in every file, and its entry."""

from __future__ import annotations

import mmap
from pathlib import Path

from prune.model.elf import SHT_NOTE
from prune.model.layout import layout_of
from tracer.host import UserError
from tracer.notes import read_build_id


def build_id(vmlinux: Path) -> str:
    """The GNU build id of a linked kernel, in hex.

    Raises:
        UserError: not an ELF file, or linked without ``--build-id``.
    """
    try:
        with vmlinux.open("rb") as stream, mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ) as data:
            found = _read(data)
    except OSError as error:
        raise UserError(f"reading kernel {vmlinux}: {error.strerror}") from error
    except ValueError:  # empty, or it ends before its tables
        found = None
    if found is None:
        raise UserError(f"reading kernel {vmlinux}: not a whole ELF file", "build it again")
    if not found:
        raise UserError(f"reading kernel {vmlinux}: it has no build id", "link it with --build-id")
    return found


def entry_point(vmlinux: Path) -> int:
    """The address at which a linked kernel is entered (``e_entry``): a physical one on x86.

    Raises:
        UserError: not an ELF file.
    """
    try:
        with vmlinux.open("rb") as stream:
            head = stream.read(64)
        layout = layout_of(head[:6])
        if layout is not None:
            return int(layout.header_of(head[: layout.header.itemsize])["entry"])
    except OSError as error:
        raise UserError(f"reading kernel {vmlinux}: {error.strerror}") from error
    except ValueError:  # it ends before its header does
        pass
    raise UserError(f"reading kernel {vmlinux}: not a whole ELF file", "build it again")


def _read(data: mmap.mmap) -> str | None:
    """The build id, "" for none; None: this is no ELF file."""
    layout = layout_of(data[:6])
    if layout is None:
        return None
    header = layout.header_of(data[: layout.header.itemsize])
    at, count = int(header["shoff"]), int(header["shnum"])
    sections = layout.sections(data[at : at + count * layout.section.itemsize], count, 0)
    for section in sections[sections["type"] == SHT_NOTE]:
        start = int(section["offset"])
        found = read_build_id(data[start : start + int(section["size"])])
        if found:
            return found
    return ""
