"""Which functions of modules ran, from the block log: by the bytes of the blocks, not by their addresses.

A module lies where there is room, and after it another one may lie there; who unloads a module within an app
leaves nothing to be asked. But the log has the bytes of every block, and prune has written down what each
module looks like in memory (``modules/code.json``): its executable sections one behind the other, as the
loader lays them out from a page's boundary on (layout_sections() of kernel/module/main.c), and which bytes
relocations fill.

A block that agrees with a module at some place says where that module may lie. Where enough blocks say so, it
did, and what ran there were its functions; also blocks that the kernel has patched since.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from tracer.host import MISSHAPEN, UserError, read_json
from tracer.profiles.symbols import Identity

SCHEMA = 1
CODE = "modules/code.json"
#: Modules begin at a page's boundary, whatever the size of pages.
_PAGE = 4096
#: Bytes of all blocks that agree, before they are believed: common beginnings of functions are shorter.
_ENOUGH = 24
#: Of one block, to speak for a place at all.
_TELLING = 6

Bytes = NDArray[np.uint8]


@dataclass(frozen=True)
class Area:
    """Executable memory of one module: ``known[i]`` says whether byte ``i`` is the same wherever it lies.
    ``functions``: (first, end, what it is called) within ``code``."""

    module: str
    code: Bytes
    known: NDArray[np.bool_]
    functions: tuple[tuple[int, int, Identity], ...]


@dataclass(frozen=True)
class ModuleCode:
    """The executable memory of all modules that the workload ships."""

    areas: tuple[Area, ...] = ()


@dataclass(frozen=True)
class Block:
    """A block outside the kernel's image: where it lay, what it was."""

    start: int
    code: bytes


def load_module_code(kernel: Path) -> ModuleCode:
    """What lies beside the boot image ``kernel``; nothing when it ships no module.

    Raises:
        UserError: damaged.
    """
    path = kernel.parent / CODE
    if not path.is_file():
        return ModuleCode()
    try:
        return ModuleCode(tuple(map(_area, read_json(path, "code of the modules", SCHEMA)["areas"])))
    except MISSHAPEN as error:
        raise UserError(
            f"reading the code of the modules: {path} is damaged: {error!r}", "kprune build"
        ) from error


def _area(row: Mapping[str, object]) -> Area:
    code, known = (np.frombuffer(bytes.fromhex(str(row[key])), np.uint8) for key in ("code", "known"))
    functions = row["functions"]
    if len(code) != len(known) or not isinstance(functions, list):
        raise ValueError("an area whose parts do not fit")
    return Area(
        str(row["module"]),
        code,
        known != 0,
        tuple((int(at), int(at) + int(size), Identity(*map(str, names))) for at, size, *names in functions),
    )


def functions_of(blocks: Sequence[Block], code: ModuleCode) -> tuple[list[tuple[Identity, ...]], int]:
    """(the functions that each block is in, how many blocks lie in no module)."""
    placed = _where(blocks, code)
    found: list[tuple[Identity, ...]] = []
    outside = 0
    for block in blocks:
        covering = [
            (area, block.start - base)
            for area, base in placed
            if base <= block.start and block.start + len(block.code) <= base + len(area.code)
        ]
        agreeing = [(area, at) for area, at in covering if _agrees(area, at, block.code)]
        outside += not covering
        functions = [
            identity
            for area, at in agreeing or covering
            for first, end, identity in area.functions
            if first < at + len(block.code) and at < end
        ]
        found.append(tuple(functions))
    return found, outside


def _where(blocks: Iterable[Block], code: ModuleCode) -> list[tuple[Area, int]]:
    """Each module's memory, and where it began, as often as it was loaded elsewhere."""
    telling: Counter[tuple[int, int]] = Counter()
    for block in {(block.start, block.code): block for block in blocks}.values():
        for number, area in enumerate(code.areas):
            for at in range(block.start % _PAGE, len(area.code) - len(block.code) + 1, _PAGE):
                same = int(np.count_nonzero(area.known[at : at + len(block.code)]))
                if same >= _TELLING and _agrees(area, at, block.code):
                    telling[number, block.start - at] += same
    return [(code.areas[number], base) for (number, base), same in telling.items() if same >= _ENOUGH]


def _agrees(area: Area, at: int, code: bytes) -> bool:
    """Whether the bytes are those of the area there, but for what relocations fill."""
    there = slice(at, at + len(code))
    found = np.frombuffer(code, np.uint8)
    return bool(np.all((area.code[there] == found) | ~area.known[there]))


def by_phase(
    blocks: Mapping[int, Sequence[Block]], names: Sequence[str], code: ModuleCode
) -> tuple[dict[str, frozenset[Identity]], int]:
    """(phase -> the functions of modules that ran in it, how many blocks lie in no module).

    Args:
        blocks: index of a phase -> its blocks.
    """
    everything = [(phase, block) for phase, rows in blocks.items() for block in rows]
    functions, outside = functions_of([block for _, block in everything], code)
    ran: dict[str, set[Identity]] = defaultdict(set)
    for (phase, _), each in zip(everything, functions, strict=True):
        ran[names[phase]].update(each)
    return {phase: frozenset(found) for phase, found in ran.items() if found}, outside
