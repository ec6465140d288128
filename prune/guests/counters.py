"""A kernel's own counts of its pages, read from outside: nothing runs in the guest for it.

``vm_zone_stat`` and ``vm_node_stat`` are arrays of words, a word for each item (mm/vmstat.c). Which item is
which depends on the configuration; ``vmstat_text``, from which /proc/vmstat is printed, lists their names in
order, the zones' first. It is read from the file of the whole kernel, and the places of the counts from that
of the kernel at hand: both were configured alike. Without SMP, counts are exact; with it, each processor may
hold some pages back for a second (mm/vmstat.c: calculate_normal_threshold).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from elftools.common.exceptions import ELFError

from prune.model.extents import open_whole
from tracer.host import UserError

#: The first item of a node, in every 6.x (include/linux/mmzone.h: enum node_stat_item).
_FIRST_OF_NODE = "nr_inactive_anon"
_ZONES, _NODES, _NAMES, _TOTAL = "vm_zone_stat", "vm_node_stat", "vmstat_text", "_totalram_pages"
#: Where parts of the image begin and end (include/asm-generic/sections.h).
_PARTS = {
    "text": ("_stext", "_etext"),
    "rodata": ("__start_rodata", "__end_rodata"),
    "data": ("_sdata", "_edata"),
    "init": ("__init_begin", "__init_end"),
    "bss": ("__bss_start", "__bss_stop"),
    # What is reserved from the first moment on; behind it is room for the first page tables.
    "reserved": ("_text", "__bss_stop"),
}


@dataclass(frozen=True)
class KernelFile:
    """What is asked of a vmlinux: symbol -> (address, size), its words, and the bytes that it loads."""

    path: Path
    symbols: Mapping[str, tuple[int, int]]
    word: int
    order: str
    segments: tuple[tuple[int, bytes], ...]

    def symbol(self, name: str) -> tuple[int, int]:
        """(address, size).

        Raises:
            UserError: there is no such symbol.
        """
        if name not in self.symbols:
            raise UserError(f"reading {self.path}: there is no {name}", "a kernel without it cannot be asked")
        return self.symbols[name]

    def bytes_at(self, address: int, size: int) -> bytes:
        for begin, data in self.segments:
            if begin <= address < begin + len(data):
                return data[address - begin : address - begin + size]
        raise UserError(f"reading {self.path}: nothing is loaded at {address:#x}")

    def words(self, data: bytes) -> list[int]:
        return [
            int.from_bytes(data[at : at + self.word], self.order, signed=True)  # type: ignore[arg-type]
            for at in range(0, len(data), self.word)
        ]

    def text_at(self, address: int) -> str:
        return self.bytes_at(address, 64).split(b"\0")[0].decode(errors="replace")


@dataclass(frozen=True)
class Counters:
    """Where the counts of a kernel are: (address, item of each word; "" for no item)."""

    arrays: tuple[tuple[int, tuple[str, ...]], ...]
    file: KernelFile

    def read(self, memory: Callable[[int, int], bytes]) -> dict[str, int]:
        """Item -> its count, by name as in /proc/vmstat, and ``total``: pages that the kernel hands out.

        Args:
            memory: (virtual address, size) -> bytes of the guest.
        """
        found: dict[str, int] = {}
        for address, names in self.arrays:
            words = self.file.words(memory(address, len(names) * self.file.word))
            found |= {name: value for name, value in zip(names, words, strict=True) if name}
        return found


def read_kernel_file(path: Path) -> KernelFile:
    """Read a vmlinux.

    Raises:
        UserError: there is none, or it is damaged.
    """
    try:
        with path.open("rb") as stream:
            elf = open_whole(stream)
            table: Any = elf.get_section_by_name(".symtab")
            symbols = {each.name: (each["st_value"], each["st_size"]) for each in table.iter_symbols()}
            segments = tuple(
                (each["p_vaddr"], each.data()) for each in elf.iter_segments() if each["p_type"] == "PT_LOAD"
            )
            order = "little" if elf.little_endian else "big"
            return KernelFile(path, symbols, elf.elfclass // 8, order, segments)
    except OSError as error:
        raise UserError(f"reading kernel {path}: {error.strerror}", "build it: kprune run") from error
    except (ELFError, AttributeError, KeyError, ValueError) as error:
        raise UserError(f"reading kernel {path}: not a whole ELF file", "build it again") from error


def find_counters(whole: KernelFile, kernel: KernelFile) -> Counters:
    """Where ``kernel`` counts; ``whole`` is the same unpruned.

    Raises:
        UserError: the kernel does not count, or its items have no names.
    """
    address, size = whole.symbol(_NAMES)
    pointers = whole.words(whole.bytes_at(address, size))
    mask = (1 << 8 * whole.word) - 1
    names = [whole.text_at(pointer & mask) for pointer in pointers]
    if _FIRST_OF_NODE not in names:
        raise UserError(f"reading {whole.path}: {_NAMES} names no {_FIRST_OF_NODE}")
    arrays = []
    for array, first in ((_ZONES, 0), (_NODES, names.index(_FIRST_OF_NODE))):
        at, size = kernel.symbol(array)
        count = size // kernel.word
        arrays.append((at, tuple(names[first : first + count])))
    arrays.append((kernel.symbol(_TOTAL)[0], ("total",)))
    return Counters(tuple(arrays), kernel)


def part_sizes(kernel: KernelFile) -> dict[str, int]:
    """Part of the image -> bytes in memory; ``reserved`` is all of it, with what lies between its parts."""
    return {part: kernel.symbol(end)[0] - kernel.symbol(begin)[0] for part, (begin, end) in _PARTS.items()}
