"""The types of the functions that an object defines, as the compiler says in DWARF.

A function is a subprogram with code (DWARF 5, 3.3.1); where that is one of several instances, its name and
type are those of the abstract one. A type is written as C writes it, typedefs by their names: ``long
(struct file *, unsigned int, unsigned long)``.
"""

from __future__ import annotations

import io
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from elftools.common.exceptions import DWARFError, ELFError
from elftools.construct.core import ConstructError
from elftools.dwarf.compileunit import CompileUnit
from elftools.dwarf.die import DIE
from elftools.elf.elffile import ELFFile

from prune.model.elf import ObjectFile, parse_object
from prune.model.knowledge import Knowledge
from prune.model.layout import SYMBOL_SHIFT, kinds_of, put
from tracer.host import MISSHAPEN, UserError

INTEGER, ENUM, POINTER, NOTHING, OTHER = "integer", "enum", "pointer", "nothing", "other"
_DEEPEST = 40
_SAME = ("DW_AT_abstract_origin", "DW_AT_specification")
_THROUGH = ("DW_TAG_typedef", "DW_TAG_const_type", "DW_TAG_volatile_type", "DW_TAG_atomic_type")
_TAGGED = {
    "DW_TAG_structure_type": "struct", "DW_TAG_union_type": "union", "DW_TAG_enumeration_type": "enum",
}  # fmt: skip
_QUALIFIED = {
    "DW_TAG_const_type": "const", "DW_TAG_volatile_type": "volatile", "DW_TAG_restrict_type": "restrict",
    "DW_TAG_atomic_type": "_Atomic",
}  # fmt: skip
# DW_ATE_*: DWARF 5, 7.8.
_BOOLEAN, _SIGNED, _UNSIGNED = 2, (5, 6), (7, 8, 16)
_DAMAGED = (ELFError, DWARFError, ConstructError, AssertionError, NotImplementedError, zlib.error, *MISSHAPEN)


@dataclass(frozen=True)
class FunctionType:
    """``text``: in C; ``kind`` and ``size`` (bytes) of what is returned; an integer is one of ``least`` to
    ``most``, an enum one of ``values``."""

    text: str
    kind: str
    size: int = 0
    least: int = 0
    most: int = 0
    values: tuple[int, ...] = ()


def read_function_types(path: Path, data: bytes, knowledge: Knowledge) -> dict[str, FunctionType | None]:
    """Name -> type of every function in an object; None: of several types, as functions of one name may be
    where many objects were made one. Empty: the object has no DWARF.

    Raises:
        UserError: it is damaged.
    """
    file = parse_object(path, data, knowledge.machine)
    found: dict[str, FunctionType | None] = {}
    try:
        for die in _functions(file, knowledge):
            name = _attribute(die, "DW_AT_name")
            if name is not None:
                made = _function_type(die)
                text = name.value.decode("ascii", "surrogateescape")
                found[text] = made if found.get(text, made) == made else None
    except _DAMAGED as error:
        raise UserError(
            f"reading the types of functions: {path}: damaged DWARF: {error!r}", "build the kernel again"
        ) from error
    return found


def _functions(file: ObjectFile, knowledge: Knowledge) -> Iterator[DIE]:
    """The subprograms that have code."""
    if ".debug_info" not in file.section_names:
        return
    data = io.BytesIO(_relocated(file, knowledge))
    dwarf = ELFFile(data).get_dwarf_info(relocate_dwarf_sections=False, follow_links=False)
    for unit in dwarf.iter_CUs():
        yield from (die for die in _children(unit) if die.tag == "DW_TAG_subprogram" and _has_code(die))


def _children(unit: CompileUnit) -> Iterator[DIE]:
    """What stands at the top of a unit, in its order: a damaged one may go round in circles."""
    last = -1
    for die in unit.iter_DIE_children(unit.get_top_DIE()):
        if die.offset <= last:
            raise ValueError("it goes round in circles")
        last = die.offset
        yield die


def _has_code(die: DIE) -> bool:
    return "DW_AT_low_pc" in die.attributes or "DW_AT_ranges" in die.attributes


def _relocated(file: ObjectFile, knowledge: Knowledge) -> bytes:
    """The object with the fields of its DWARF filled in: what is in them with REL, what pyelftools does one
    by one with RELA."""
    if knowledge.machine.widths:
        return file.data
    data = np.frombuffer(bytearray(file.data), np.uint8)
    for index in file.relocation_sections():
        target = int(file.sections["info"][index])
        if not file.section_names[target].startswith(".debug_"):
            continue
        rows = file.relocations(index)
        kinds = kinds_of(rows)
        values = rows["addend"] + file.symbols["value"][rows["info"] >> SYMBOL_SHIFT].astype(np.int64)
        for kind, width in (("abs64", 8), ("abs32", 4)):
            of_it = np.isin(kinds, knowledge.kinds(kind))
            at = rows["offset"][of_it].astype(np.int64) + int(file.sections["offset"][target])
            put(data, at, values[of_it].astype(f"<i{width}"))
    return data.tobytes()


def _attribute(die: DIE, name: str) -> Any:
    """An attribute of a subprogram, or of what it is an instance of."""
    return next((each.attributes[name] for each in _instances(die) if name in each.attributes), None)


def _instances(die: DIE) -> Iterator[DIE]:
    """A subprogram, what it is an instance of, and so on; last what says how it was declared."""
    for _ in range(_DEEPEST):
        yield die
        same = next((each for each in _SAME if each in die.attributes), None)
        if same is None:
            return
        die = die.get_DIE_from_attribute(same)
    raise ValueError("an instance of itself")


def _function_type(die: DIE) -> FunctionType:
    *_, declared = _instances(die)
    returned = _type_of(declared)
    text = f"{_text(returned)} ({_parameters(declared, 0)})"
    if _attribute(die, "DW_AT_noreturn") is not None:
        return FunctionType(text, NOTHING)  # its callers have no code behind the call
    for _ in range(_DEEPEST):
        if returned is None or returned.tag not in _THROUGH:
            break
        returned = _type_of(returned)
    return _returning(text, returned)


def _returning(text: str, returned: DIE | None) -> FunctionType:
    if returned is None:
        return FunctionType(text, NOTHING)
    size = (
        int(returned.attributes["DW_AT_byte_size"].value) if "DW_AT_byte_size" in returned.attributes else 0
    )
    if returned.tag == "DW_TAG_pointer_type":
        return FunctionType(text, POINTER, size)
    if returned.tag == "DW_TAG_enumeration_type":
        values = (each.attributes["DW_AT_const_value"].value for each in returned.iter_children())
        return FunctionType(text, ENUM, size, values=tuple(int(value) for value in values))
    if returned.tag == "DW_TAG_base_type" and 1 <= size <= 16:
        encoding, bits = returned.attributes["DW_AT_encoding"].value, 8 * size
        if encoding == _BOOLEAN:
            return FunctionType(text, INTEGER, size, 0, 1)
        if encoding in _SIGNED:
            return FunctionType(text, INTEGER, size, -(1 << bits - 1), (1 << bits - 1) - 1)
        if encoding in _UNSIGNED:
            return FunctionType(text, INTEGER, size, 0, (1 << bits) - 1)
    return FunctionType(text, OTHER, size)


def _type_of(die: DIE) -> DIE | None:
    return die.get_DIE_from_attribute("DW_AT_type") if "DW_AT_type" in die.attributes else None


def _parameters(die: DIE, depth: int) -> str:
    words = []
    for child in die.iter_children():
        if child.tag == "DW_TAG_formal_parameter":
            words.append(_text(_type_of(child), depth))
        elif child.tag == "DW_TAG_unspecified_parameters":
            words.append("...")
    return ", ".join(words) or "void"


def _text(die: DIE | None, depth: int = 0) -> str:
    """A type in C."""
    if depth > _DEEPEST:
        raise ValueError("a type of itself")
    if die is None:
        return "void"
    name = (
        die.attributes["DW_AT_name"].value.decode("ascii", "replace")
        if "DW_AT_name" in die.attributes
        else ""
    )
    if die.tag in _TAGGED:
        return f"{_TAGGED[die.tag]} {name}".rstrip()
    if name:
        return _plain(name) if die.tag == "DW_TAG_base_type" else name
    of = _type_of(die)
    if die.tag == "DW_TAG_subroutine_type":
        return f"{_text(of, depth + 1)} ({_parameters(die, depth + 1)})"
    inner = _text(of, depth + 1)
    if die.tag == "DW_TAG_pointer_type":
        if of is not None and of.tag == "DW_TAG_subroutine_type":
            return inner.replace(" (", " (*)(", 1)
        return f"{inner}*" if inner.endswith("*") else f"{inner} *"
    if die.tag in _QUALIFIED:
        word = _QUALIFIED[die.tag]
        return f"{inner} {word}" if inner.endswith("*") else f"{word} {inner}"
    return f"{inner}[]" if die.tag == "DW_TAG_array_type" else inner


def _plain(name: str) -> str:
    """The name of an integer as the kernel's sources have it: compilers differ (``long unsigned int``)."""
    words = name.split()
    if not {"long", "short"} & set(words):
        return name
    words = [word for word in words if word not in ("int", "signed")]
    return " ".join(sorted(words, key=lambda word: word != "unsigned"))
