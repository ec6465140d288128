"""The modules of a build: which there are, what each needs and offers, which of them the workload ships.

A module needs what it leaves undefined. The loader finds that in the export rows of vmlinux, or in those of
another module, which has to be loaded before. ``modules.json`` says it all, for the guest's files
(:mod:`tracer.files.modules`) as for the plan.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from pathlib import Path

import numpy as np

from prune.model.elf import SHN_UNDEF, STB_LOCAL, ObjectFile, read_object
from prune.model.knowledge import export_prefix
from prune.model.layout import Machine
from prune.options import read_options
from tracer.host import MISSHAPEN, BuildFailed, UserError, read_json, write_json
from tracer.module_list import FOLDER, LIST, SCHEMA, is_module_path, module_name

#: What modules of a tree are, in the order of their folders (scripts/Makefile.build).
ORDER = "modules.order"
#: Options of a kernel whose modules cannot be pruned, and the way out.
_REFUSED = {
    "CONFIG_LD_IS_LLD": "modules are linked again with GNU ld alone; --toolchain gcc",
}


@dataclass(frozen=True)
class Module:
    """One module: ``path`` of its ``.ko`` in the object tree; ``needs``: what it leaves undefined;
    ``aliases``: what it is loaded for; ``depends``: the modules that have what it needs, nearest last;
    ``shipped``: the workload's guests have it."""

    name: str
    path: str
    needs: tuple[str, ...]
    exports: tuple[str, ...]
    aliases: tuple[str, ...]
    depends: tuple[str, ...] = ()
    shipped: bool = False


def module_paths(objtree: Path) -> tuple[str, ...]:
    """The ``.ko`` files of a finished build, relative to its tree.

    Raises:
        BuildFailed: kbuild lists one that it did not make.
    """
    order = objtree / ORDER
    lines = order.read_text().split() if order.is_file() else []
    # Objects since 6.3 (scripts/Makefile.modfinal), modules before.
    paths = tuple(line.removesuffix(".o").removesuffix(".ko") + ".ko" for line in lines)
    lost = [path for path in paths if not (objtree / path).is_file()]
    if lost:
        raise BuildFailed(f"building modules: make left no {objtree / lost[0]}", "is it in modules.order?")
    return paths


def read_modules(folder: Path, paths: Iterable[str], machine: Machine) -> tuple[Module, ...]:
    """What each module is; ``paths`` are relative to ``folder``.

    Raises:
        UserError: one is damaged.
    """
    found = [_read_module(path, read_object(folder / path, machine)) for path in paths]
    owner = {symbol: module.name for module in found for symbol in module.exports}
    direct = {
        module.name: sorted({owner[need] for need in module.needs if need in owner} - {module.name})
        for module in found
    }
    return tuple(_with_dependencies(module, direct) for module in found)


def _read_module(path: str, file: ObjectFile) -> Module:
    bind = file.symbols["info"] >> 4
    undefined = np.flatnonzero((file.shndx == SHN_UNDEF) & (bind != STB_LOCAL)).tolist()
    names = [file.symbol_name(index) for index in range(len(file.symbols))]
    prefix = export_prefix()
    exports = {name.removeprefix(prefix) for name in names if name.startswith(prefix)}
    return Module(
        module_name(path),
        path,
        tuple(sorted({names[index] for index in undefined} - {""})),
        tuple(sorted(exports)),
        tuple(_information(file, "alias")),
    )


def _information(file: ObjectFile, key: str) -> list[str]:
    """What ``.modinfo`` says under a key (include/linux/moduleparam.h: ``key=value`` and a zero)."""
    texts = [file.content(i) for i, name in enumerate(file.section_names) if name == ".modinfo"]
    rows = b"".join(texts).decode("utf-8", "surrogateescape").split("\0")
    return [row.partition("=")[2] for row in rows if row.startswith(f"{key}=")]


def _with_dependencies(module: Module, direct: Mapping[str, Sequence[str]]) -> Module:
    """All that has to be loaded before, each once, what is needed first at the end, as in modules.dep."""
    order: list[str] = []
    _visit(module.name, direct, (), order)
    return replace(module, depends=tuple(order[-2::-1]))


def _visit(name: str, direct: Mapping[str, Sequence[str]], users: tuple[str, ...], order: list[str]) -> None:
    """Put a module into ``order``, behind all that it depends on."""
    if name in users:
        raise UserError(f"reading modules: {name} depends on itself, by {', '.join(users)}")
    for other in () if name in order else direct[name]:
        _visit(other, direct, (*users, name), order)
    if name not in order:
        order.append(name)


def shipped(modules: Sequence[Module], wanted: Sequence[str]) -> tuple[Module, ...]:
    """The modules, those marked that the shell patterns ``wanted`` name, and what these depend on.

    Raises:
        UserError: a pattern names none.
    """
    chosen: set[str] = set()
    for pattern in wanted:
        found = [each for each in modules if fnmatchcase(each.name, pattern.replace("-", "_"))]
        if not found:
            known = ", ".join(each.name for each in modules[:20]) or "none"
            raise UserError(
                f"choosing modules: this kernel has no module {pattern}",
                f"set its option to m in the workload's kernel_config; it has {known}",
            )
        chosen.update(name for each in found for name in (each.name, *each.depends))
    return tuple(replace(module, shipped=module.name in chosen) for module in modules)


def save_modules(modules: Iterable[Module], release: str, folder: Path) -> None:
    """Write ``modules.json`` into the folder that has the modules."""
    rows = [
        {
            "name": each.name, "path": each.path, "shipped": each.shipped, "depends": list(each.depends),
            "aliases": list(each.aliases), "exports": list(each.exports), "needs": list(each.needs),
        }
        for each in modules
    ]  # fmt: skip
    write_json(folder / LIST, {"schema_version": SCHEMA, "release": release, "modules": rows})


def load_modules(kernel: Path) -> tuple[Module, ...]:
    """The modules beside a kernel (``OUT/base`` or the like); none of a kernel that loads none.

    Raises:
        UserError: ``modules.json`` is damaged.
    """
    path = kernel / FOLDER / LIST
    if not path.is_file():
        return ()
    try:
        rows = read_json(path, "list of modules", SCHEMA)["modules"]
        if not all(is_module_path(row["path"]) for row in rows):
            raise ValueError("a path that is none of a module")
        return tuple(
            Module(
                str(row["name"]), str(row["path"]), tuple(row["needs"]), tuple(row["exports"]),
                tuple(row["aliases"]), tuple(row["depends"]), bool(row["shipped"]),
            )
            for row in rows
        )  # fmt: skip
    except MISSHAPEN as error:
        raise UserError(
            f"reading the list of modules: {path} is damaged: {error!r}", "kprune build"
        ) from error


def check_options(config: Path) -> None:
    """Refuse to ship modules of a kernel that is built in a way in which they cannot be pruned.

    Raises:
        UserError: the configuration has it.
    """
    options = read_options(config)
    for name, why in _REFUSED.items():
        if options.get(name) == "y":
            raise UserError(f"shipping modules of a kernel with {name}: that is not supported", why)
