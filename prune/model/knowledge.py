"""What kprune knows of kernels and architectures, read from ``linkerscripts/*.toml``."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from fnmatch import translate
from functools import cache
from pathlib import Path
from typing import Any

from prune.model.layout import ELF32, ELF64, Layout, Machine
from tracer.host import HostError, UserError

#: kprune's own code, and what it knows of kernels.
CODE = Path(__file__).resolve().parent.parent
FOLDER = CODE.parent / "linkerscripts"


@dataclass(frozen=True)
class Table:
    """A kernel table: ``entry`` sizes to probe, in order; ``owner``: byte offsets in the entry, of which the
    first that holds an address names the owner; ``through``: a constant stands for the variable it
    describes; ``bounds``: the symbols around it, ``*`` being the section's name; ``calls``: booting goes
    through the list and calls what it names; ``length``: entry size -> where in it a byte says how many bytes
    of code the entry covers; ``ranges``: an entry holds up to the next one."""

    section: str
    entry: tuple[int, ...]
    owner: tuple[int, ...]
    field: str
    bounds: tuple[str, str]
    through: bool = False
    calls: bool = False
    ranges: bool = False
    length: Mapping[int, int] | None = None
    pair: str | None = None
    pair_entry: tuple[int, ...] = ()

    def brackets(self, symbols: Iterable[str]) -> list[tuple[str, str]]:
        """The bounds of each section of a kernel with these symbols that is such a table."""
        first, last = self.bounds
        if "*" not in first:
            return [self.bounds]
        before, _, behind = first.partition("*")
        found = _glob((before + self.section + behind,))
        names = (name[len(before) : len(name) - len(behind)] for name in symbols if found.fullmatch(name))
        return [(first.replace("*", name), last.replace("*", name)) for name in names]


@dataclass(frozen=True)
class Redirect:
    """For dropped functions of this pattern, which are entries of system calls, the function ``to`` answers,
    and returns ``value``."""

    pattern: str
    to: str
    value: str


@dataclass(frozen=True)
class SystemCalls:
    """System calls of programs of ``bits``: their entries' names begin with one of ``prefixes``, and what of
    the symbols ``origins`` a kernel has leads to them."""

    bits: int
    prefixes: tuple[str, ...]
    origins: tuple[str, ...]


@dataclass(frozen=True)
class Align:
    """Alignment ``from_`` in an output section becomes ``to`` in a kernel with none of the options."""

    output: str
    from_: str
    to: str
    unless: tuple[str, ...]


@dataclass(frozen=True)
class Place:
    """Input section patterns to be placed where the script places ``token``."""

    token: str
    patterns: tuple[str, ...]


@dataclass(frozen=True)
class Knowledge:
    """Everything that the passes look up, for one architecture."""

    arch: str
    machine: Machine
    trap: bytes
    split: frozenset[str]
    shared: frozenset[str]
    boot_code: tuple[str, ...]
    walkers: tuple[str, ...]
    aside: tuple[str, ...]
    prefixes: tuple[str, ...]
    numbered: Mapping[str, str]
    place: tuple[Place, ...]
    align: tuple[Align, ...]
    tables: tuple[Table, ...]
    redirects: tuple[Redirect, ...]
    system_calls: tuple[SystemCalls, ...]
    relocations: dict[str, tuple[int, ...]]
    roots: dict[str, Any]
    closure: dict[str, Any]
    disassembler: dict[str, Any]
    answer: dict[str, Any]
    exports: tuple[str, ...]
    versions: tuple[str, ...]
    _function: re.Pattern[str] = field(repr=False)
    _data: re.Pattern[str] = field(repr=False)
    _group: re.Pattern[str] = field(repr=False)
    _init: re.Pattern[str] = field(repr=False)
    _generated: re.Pattern[str] = field(repr=False)

    def unit_kind(self, section: str) -> tuple[bool, bool]:
        """(one function of its own, data that can go) for an input section's name."""
        if section not in self.shared and self._group.fullmatch(section):
            return False, False
        data = section in self.shared or bool(self._data.fullmatch(section)) or bool(self.exported(section))
        return bool(self._function.fullmatch(section)), data

    def exported(self, section: str) -> str:
        """The exported symbol that a section is about, "" for any other section."""
        if "+" in section and _glob(self.exports + self.versions).fullmatch(section):
            return section.partition("+")[2]
        return ""

    def is_init(self, section: str) -> bool:
        """Freed after boot or discarded at exit: not counted as text."""
        return bool(self._init.fullmatch(section))

    def is_generated(self, path: str) -> bool:
        """An object that link-vmlinux.sh makes from a finished vmlinux."""
        return bool(self._generated.fullmatch(path.rpartition("/")[2]))

    def table_of(self, section: str) -> Table | None:
        for table in self.tables:
            if _glob((table.section,)).fullmatch(section):
                return table
        return None

    def kinds(self, kind: str) -> tuple[int, ...]:
        return self.relocations[kind]


@cache
def _glob(patterns: tuple[str, ...]) -> re.Pattern[str]:
    return re.compile("|".join(translate(pattern) for pattern in patterns))


@cache
def read_toml(path: Path) -> dict[str, Any]:
    """One TOML file of the folder, which nobody changes.

    Raises:
        HostError: the installation is damaged.
    """
    try:
        return tomllib.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise HostError(f"reading {path}: {error}", "install kprune again") from error


def debug_option() -> str:
    """What a kernel's configuration needs for DWARF."""
    return f"{option('debug_info')}=y"


def option(what: str) -> str:
    """What kbuild calls something: options (``debug_info``, ``modules``, ``smp``, ``moves``), ``whole``."""
    found: str = read_toml(FOLDER / "kbuild.toml")[what]
    return found


def wanted_options() -> Mapping[str, Any]:
    """Who needs what of a kernel's configuration: lists of lists of names, one of each is enough; ``format``
    and ``card`` have such lists by file system and by network card."""
    found: Mapping[str, Any] = read_toml(FOLDER / "kbuild.toml")["wanted"]
    return found


def read_places() -> tuple[Place, ...]:
    """The placement rules, the only part that a link without a plan needs."""
    common = read_toml(FOLDER / "common.toml")
    return tuple(Place(row["token"], tuple(row["patterns"])) for row in common["place"])


def read_module_places() -> tuple[Place, ...]:
    """The same for modules: ``token`` is the output section."""
    common = read_toml(FOLDER / "common.toml")
    return tuple(Place(row["token"], tuple(row["patterns"])) for row in common["module_place"])


def version_symbols() -> frozenset[str]:
    """What the loader looks up for itself when symbols have versions."""
    return frozenset(read_toml(FOLDER / "common.toml")["exports"]["looked_up"])


def export_prefix() -> str:
    """How the symbols for export rows begin."""
    found: str = read_toml(FOLDER / "common.toml")["exports"]["symbol"]
    return found


def this_module() -> str:
    """The section in which a module has its struct module."""
    found: str = read_toml(FOLDER / "common.toml")["exports"]["this_module"]
    return found


def expected_lines() -> tuple[str, ...]:
    """How lines of consoles begin that differ between kernels and runs whatever was pruned."""
    return _tuple(read_toml(FOLDER / "common.toml")["consoles"]["expected"])


@cache
def generated_objects() -> re.Pattern[str]:
    """Names of objects that link-vmlinux.sh makes from a finished vmlinux, on every architecture."""
    return _glob(_tuple(read_toml(FOLDER / "common.toml")["units"]["generated"]))


@cache
def stripped_outputs() -> frozenset[str]:
    """Output sections that are in the link map, and no more in the finished vmlinux."""
    return frozenset(_tuple(read_toml(FOLDER / "common.toml")["units"]["stripped"]))


@cache
def read_knowledge(arch: str) -> Knowledge:
    """All that is known for ``arch``.

    Raises:
        UserError: no description for this architecture.
    """
    if not arch.isidentifier() or not (FOLDER / f"{arch}.toml").is_file():
        known = ", ".join(sorted(path.stem for path in FOLDER.glob("*.toml") if _is_arch(path)))
        raise UserError(f"architecture {arch}: not supported; supported: {known}")
    common, own = read_toml(FOLDER / "common.toml"), read_toml(FOLDER / f"{arch}.toml")
    units, machine = common["units"], _machine(own)
    return Knowledge(
        arch=arch,
        machine=machine,
        trap=bytes(own["trap"]),
        split=frozenset(units["split"]),
        shared=frozenset(units["shared"]),
        boot_code=tuple(units["boot_code"]),
        walkers=tuple(units["walkers"]),
        aside=tuple(units["aside"]),
        prefixes=tuple(units["prefixes"]),
        numbered=common["numbered"],
        place=read_places(),
        tables=tuple(_table(row, machine.layout) for row in (*common["table"], *own.get("table", ()))),
        align=tuple(
            Align(row["output"], row["from"], row["to"], tuple(row["unless"])) for row in own.get("align", ())
        ),
        redirects=tuple(Redirect(row["pattern"], row["to"], row["value"]) for row in own.get("redirect", ())),
        system_calls=tuple(
            SystemCalls(row["bits"], tuple(row["prefixes"]), tuple(row["from"]))
            for row in own.get("system_calls", ())
        ),
        relocations={kind: tuple(types) for kind, types in own["relocations"].items()},
        roots=read_toml(FOLDER / "roots.toml"),
        closure=_named(read_toml(FOLDER / "closure.toml"), own["system_call"]),
        disassembler=own["disassembler"],
        answer=own["answer"],
        exports=tuple(common["exports"]["rows"]),
        versions=tuple(common["exports"]["versions"]),
        _function=_glob(_tuple(units["function"])),
        _data=_glob(_tuple(units["data"])),
        _group=_glob(_tuple(units["group"])),
        _init=_glob(_tuple(units["init"])),
        _generated=generated_objects(),
    )


def _is_arch(path: Path) -> bool:
    return "machine" in read_toml(path)


def _tuple(values: Iterable[str]) -> tuple[str, ...]:
    return tuple(values)


def _named(closure: dict[str, Any], call: str) -> dict[str, Any]:
    """What closures begin with, what is called by chance: system calls by the names that they have here."""

    def here(names: list[str]) -> list[str]:
        return [name.replace("{call}", call) for name in names]

    known = {
        key: {**part, "start": here(part["start"])} if isinstance(part, dict) and "start" in part else part
        for key, part in closure.items()
    }
    chance = known["chance"]
    called = {file: here(names) for file, names in chance["called"].items()}
    return {**known, "chance": {**chance, "called": called}}


def _machine(own: dict[str, Any]) -> Machine:
    """Where addends are in the fields, the names of the relocations' kinds say how many bits those have."""
    layout = {32: ELF32, 64: ELF64}[own["class"]]
    widths: dict[int, int] = {}
    if own["addends"] == "field":
        for kind, types in own["relocations"].items():
            bits = re.fullmatch(r"(?:abs|pc)(\d+)", kind)
            if bits or kind == "none":
                widths |= dict.fromkeys(types, int(bits[1]) // 8 if bits else 0)
    return Machine(own["machine"], layout, widths)


def _table(row: dict[str, Any], layout: Layout) -> Table:
    row = {**row, **(row.get("narrow", {}) if layout is ELF32 else {})}
    pair = row.get("pair", {})
    return Table(
        row["section"],
        tuple(row["entry"]),
        tuple(row["owner"]) if isinstance(row["owner"], list) else (row["owner"],),
        row["field"],
        (row["bounds"][0], row["bounds"][1]),
        row.get("through", False),
        row.get("calls", False),
        row.get("ranges", False),
        {int(size): at for size, at in row["length"].items()} if "length" in row else None,
        pair=pair.get("section"),
        pair_entry=tuple(pair.get("entry", ())),
    )
