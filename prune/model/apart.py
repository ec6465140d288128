"""Write an object in which a section is several: headers, symbols and relocations, in numpy rows.

The bytes of code stay where they are in the file; each piece is a header that points among them. A
section symbol for each piece goes behind the local symbols, so that global ones get new numbers (gABI
chapter 4: local symbols come first). The section itself stays, empty, for whatever else names it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from prune.model.elf import SHF_EXECINSTR, STT_SECTION, ObjectFile, Rows, add_name, section_names_at
from prune.model.knowledge import Knowledge
from prune.model.layout import RELA, SECTION, SYMBOL, SYMBOL_SHIFT, kinds_of, like, put_column


@dataclass(frozen=True)
class Piece:
    """Bytes ``start`` to ``start + size`` of a section, now the section ``name``."""

    name: str
    start: int
    size: int


@dataclass(frozen=True)
class Split:
    """One section that was taken apart; ``pieces`` cover it in order. ``branches``: (offset of the field,
    offset of the target) of branches between pieces that had no relocation."""

    section: int
    name: str
    pieces: tuple[Piece, ...]
    branches: tuple[tuple[int, int], ...]

    @property
    def starts(self) -> Rows:
        return np.array([piece.start for piece in self.pieces], np.int64)

    def piece_at(self, offsets: Rows) -> Rows:
        """Index of the piece that holds each offset; the section's end belongs to the last."""
        found: Rows = np.searchsorted(self.starts, offsets, "right") - 1
        return np.clip(found, 0, len(self.pieces) - 1)


def take_apart(file: ObjectFile, splits: Sequence[Split], knowledge: Knowledge) -> bytes:
    """The object's bytes with these sections taken apart."""
    apart = _Apart(file, splits, knowledge)
    machine, layout = file.machine, file.machine.layout
    data = np.frombuffer(file.data, np.uint8).copy()
    old = np.array(file.sections)
    tail = bytearray()

    def append(content: bytes) -> int:
        """Where the content will lie in the file."""
        tail.extend(bytes(-(len(data) + len(tail)) % 8))
        tail.extend(content)
        return len(data) + len(tail) - len(content)

    apart_rows = {split.section: [np.empty(0, RELA)] for split in splits}
    for index in file.relocation_sections():
        rows, section = apart.renumbered(index), int(old["info"][index])
        if section in apart_rows:
            apart_rows[section].append(rows)
            old["size"][index] = 0
        else:
            written = machine.as_written(rows)
            at = int(old["offset"][index])
            data[at : at + written.nbytes] = written.view(np.uint8)
            machine.fill(data, int(old["offset"][section]) + rows["offset"].astype(np.int64), rows)
    names = bytearray(file.content(apart.names_at))
    pieces = apart.piece_headers(names)
    of_piece: list[Rows] = [np.empty(0, RELA)] * apart.count
    for split in splits:
        for field, _ in split.branches:
            at = int(old["offset"][split.section]) + field
            data[at : at + 4] = 0
        for piece, own in apart.by_piece(split, np.concatenate(apart_rows[split.section])):
            of_piece[piece] = own
            machine.fill(data, int(pieces["offset"][piece]) + own["offset"].astype(np.int64), own)
        old["size"][split.section] = 0
    new = np.concatenate([pieces, apart.rela_headers(names, of_piece)])
    for header, rows in zip(new[apart.count :], (r for r in of_piece if len(r)), strict=True):
        header["offset"] = append(machine.as_written(rows).tobytes())
    symbols = like(apart.symbols(), layout.symbol).tobytes()
    for index, content in ((apart.names_at, bytes(names)), (file.symtab, symbols)):
        old["offset"][index], old["size"][index] = append(content), len(content)
    old["info"][file.symtab] += apart.count
    table = like(np.concatenate([old, new]), layout.section)
    start = np.zeros(1, np.int64)
    put_column(data, start, layout.header, "shoff", start + append(table.tobytes()))
    put_column(data, start, layout.header, "shnum", start + len(table))
    return data.tobytes() + bytes(tail)


class _Apart:
    """Numbers of sections and symbols, before and after."""

    def __init__(self, file: ObjectFile, splits: Sequence[Split], knowledge: Knowledge) -> None:
        self.file, self.splits = file, splits
        self.pc32 = knowledge.kinds("pc32")
        self.split_of = {split.section: split for split in splits}
        self.count = sum(len(split.pieces) for split in splits)
        firsts = np.cumsum([0, *(len(split.pieces) for split in splits)]).tolist()
        self.first = {split.section: first for split, first in zip(splits, firsts, strict=False)}
        self.first_global = int(file.sections["info"][file.symtab])
        self.names_at = section_names_at(file)
        is_section = file.symbols["info"] & 15 == STT_SECTION
        self.section_of_symbol = np.where(is_section, file.shndx, 0)

    def header_of(self, piece: Rows) -> Rows:
        return len(self.file.sections) + piece

    def symbol_of(self, piece: Rows) -> Rows:
        return self.first_global + piece

    def renumbered(self, index: int) -> Rows:
        """A relocation section's rows with symbols by their new numbers; what named a whole section that
        was taken apart names the piece."""
        rows = np.array(self.file.relocations(index))
        symbol, kind = (rows["info"] >> SYMBOL_SHIFT).astype(np.int64), kinds_of(rows)
        applies = int(self.file.sections["info"][index])
        in_code = bool(int(self.file.sections["flags"][applies]) & SHF_EXECINSTR)
        # The operand of a call, jump or lea is the last of its instruction: counted from its end.
        skew = np.where(np.isin(kind, self.pc32), 4, 0) if in_code else np.zeros(len(rows), np.int64)
        into = self.section_of_symbol[symbol]
        number = np.where(symbol >= self.first_global, symbol + self.count, symbol)
        for section, split in self.split_of.items():
            hit = into == section
            piece = split.piece_at(rows["addend"][hit] + skew[hit])
            number[hit] = self.symbol_of(self.first[section] + piece)
            rows["addend"][hit] -= split.starts[piece]
        rows["info"] = number.astype(np.uint64) << np.uint64(SYMBOL_SHIFT) | kind
        return rows

    def by_piece(self, split: Split, rows: Rows) -> list[tuple[int, Rows]]:
        """(piece, its rows by offset) of the relocations of a section that was taken apart."""
        new = np.zeros(len(split.branches), RELA)
        for row, (field, target) in zip(new, split.branches, strict=True):
            piece = int(split.piece_at(np.array([target]))[0])
            row["offset"] = field
            row["info"] = (
                int(self.symbol_of(self.first[split.section] + piece)) << SYMBOL_SHIFT | self.pc32[0]
            )
            row["addend"] = target - split.pieces[piece].start - 4
        every = np.concatenate([rows, new])
        every = every[np.argsort(every["offset"], kind="stable")]
        which = split.piece_at(every["offset"].astype(np.int64))
        every["offset"] -= split.starts[which].astype(np.uint64)
        return [(self.first[split.section] + int(i), every[which == i]) for i in np.unique(which)]

    def piece_headers(self, names: bytearray) -> Rows:
        made = np.empty(self.count, SECTION)
        for split in self.splits:
            for number, piece in enumerate(split.pieces, self.first[split.section]):
                made[number] = self.file.sections[split.section]
                made["name"][number] = add_name(names, piece.name)
                made["offset"][number] += np.uint64(piece.start)
                made["size"][number] = piece.size
                # As much as the section had and the piece's place in it shows.
                whole = max(int(made["align"][number]), 1)
                made["align"][number] = min(whole, piece.start & -piece.start) if piece.start else whole
        return made

    def rela_headers(self, names: bytearray, of_piece: Sequence[Rows]) -> Rows:
        pieces = [piece for split in self.splits for piece in split.pieces]
        wanted = [number for number, rows in enumerate(of_piece) if len(rows)]
        machine = self.file.machine
        size = machine.relocation.itemsize
        made = np.zeros(len(wanted), SECTION)
        for row, number in zip(made, wanted, strict=True):
            row["name"] = add_name(names, f"{machine.prefix}{pieces[number].name}")
            row["type"], row["flags"] = machine.table, 0x40  # SHF_INFO_LINK
            row["align"] = machine.layout.bits // 8
            row["size"], row["entsize"] = len(of_piece[number]) * size, size
            row["link"], row["info"] = self.file.symtab, len(self.file.sections) + number
        return made

    def symbols(self) -> Rows:
        """The symbol table: every symbol in its piece, and a section symbol for each piece."""
        old = np.array(self.file.symbols)
        for section, split in self.split_of.items():
            inside = np.flatnonzero((self.file.shndx == section) & (self.section_of_symbol != section))
            piece = split.piece_at(old["value"][inside].astype(np.int64))
            old["shndx"][inside] = self.header_of(self.first[section] + piece)
            old["value"][inside] -= split.starts[piece].astype(np.uint64)
        new = np.zeros(self.count, SYMBOL)
        new["info"] = STT_SECTION
        new["shndx"] = self.header_of(np.arange(self.count))
        return np.concatenate([old[: self.first_global], new, old[self.first_global :]])
