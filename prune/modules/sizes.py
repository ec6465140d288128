"""What the workload's modules take, as built and as pruned, and how many symbols the kernel exports."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from prune.build.modules import load_modules
from prune.folder import Folder
from prune.model.elf import SHF_ALLOC, SHF_EXECINSTR, ObjectFile, read_object
from prune.model.knowledge import Knowledge
from prune.plan.plan_file import Plan

SIDES = ("base", "pruned")


def module_sizes(folder: Folder, plan: Plan, knowledge: Knowledge) -> dict[str, Any]:
    """``exports``: rows of exported symbols in each kernel; ``each``: module -> side -> bytes of its
    ``file``, of ``text``, and of all that is ``loaded``. {} of a kernel that loads no modules."""
    shipped = [module for module in load_modules(folder.path("base")) if module.shipped]
    rows = [
        bool(keep)
        for (_, section, _), keep in zip(plan.units, plan.keep.tolist(), strict=True)
        if knowledge.exported(section) and "ksymtab" in section
    ]
    if not rows and not shipped:
        return {}
    return {
        "exports": {"base": len(rows), "pruned": sum(rows)},
        "each": {
            module.name: {
                side: _sizes(read_object(folder.path(side) / "modules" / module.path, knowledge.machine))
                for side in SIDES
            }
            for module in shipped
        },
    }


def _sizes(file: ObjectFile) -> dict[str, int]:
    flags, sizes = file.sections["flags"].astype(int), file.sections["size"].astype(int)
    loaded = flags & SHF_ALLOC != 0
    return {
        "file": len(file.data),
        "text": int(sizes[loaded & (flags & SHF_EXECINSTR != 0)].sum()),
        "loaded": int(sizes[loaded].sum()),
    }


def module_lines(modules: Mapping[str, Any]) -> list[str]:
    """The same for a person: all modules together, then each."""
    if not modules:
        return []
    exports = modules["exports"]
    lines = [f"{'exports':12}{exports['base']:12,}{exports['pruned']:12,}{_change(**exports)}"]
    for label, key in (("modules", "file"), ("  text", "text"), ("  loaded", "loaded")):
        both = {side: sum(each[side][key] for each in modules["each"].values()) for side in SIDES}
        lines.append(f"{label:12}{both['base']:12,}{both['pruned']:12,}{_change(**both)}")
    for name, each in sorted(modules["each"].items()):
        both = {side: each[side]["loaded"] for side in SIDES}
        lines.append(f"  {name:10.10}{both['base']:12,}{both['pruned']:12,}{_change(**both)}")
    return lines


def _change(base: int, pruned: int) -> str:
    return f"{pruned / base - 1:9.1%}" if base else ""
