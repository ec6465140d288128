"""What every byte of a vmlinux file is for: what is loaded, what only describes it, and what lies between."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from elftools.common.exceptions import ELFError
from elftools.elf.elffile import ELFFile

from prune.model.elf import SHF_ALLOC
from tracer.host import UserError

#: Kinds of bytes of the file; ``unattributed`` are those that no header speaks of and that are not zero.
FILE_KINDS = ("loaded", "symbols", "names", "debug", "other", "headers", "alignment", "unattributed")
_NAMES = {".symtab": "symbols", ".strtab": "names", ".shstrtab": "names"}


def account_file(path: Path) -> dict[str, int]:
    """Kind of :data:`FILE_KINDS` -> bytes of the file; together they are its size.

    Raises:
        UserError: not a whole ELF file, or two parts of it overlap.
    """
    try:
        data = path.read_bytes()
        with path.open("rb") as stream:
            parts = sorted(_parts(ELFFile(stream)))
    except OSError as error:
        raise UserError(f"reading kernel {path}: {error.strerror}", "build it: kprune run") from error
    except (ELFError, ValueError, KeyError, AttributeError) as error:
        raise UserError(f"reading kernel {path}: not a whole ELF file", "build it again") from error
    count = dict.fromkeys(FILE_KINDS, 0)
    at = 0
    for offset, size, kind in [*parts, (len(data), 0, "other")]:
        if offset < at or offset + size > len(data):
            raise UserError(f"accounting for {path}: its {kind} at {offset:#x} lie where others do")
        gap = data[at:offset]
        count["alignment" if not gap.strip(b"\0") else "unattributed"] += len(gap)
        count[kind] += size
        at = offset + size
    return count


def _parts(elf: ELFFile) -> Iterator[tuple[int, int, str]]:
    """(offset, size, kind) of everything that a header speaks of."""
    head = elf.header
    yield 0, head["e_ehsize"], "headers"
    yield head["e_phoff"], head["e_phnum"] * head["e_phentsize"], "headers"
    yield head["e_shoff"], elf.num_sections() * head["e_shentsize"], "headers"
    for section in elf.iter_sections():
        if section["sh_type"] in ("SHT_NOBITS", "SHT_NULL") or not section["sh_size"]:
            continue
        kind = _NAMES.get(section.name) or ("debug" if section.name.startswith(".debug") else "other")
        loaded = section["sh_flags"] & SHF_ALLOC
        yield section["sh_offset"], section["sh_size"], "loaded" if loaded else kind
