"""What a section's name and headers say of it, looked up once."""

from __future__ import annotations

from dataclasses import dataclass

from prune.model.elf import ObjectFile
from prune.model.image import matches
from prune.model.knowledge import Knowledge

#: Constants that the linker merges across objects.
_MERGED = ("*.str1.*", "*.cst*")


@dataclass(frozen=True)
class Kinds:
    """What a section's name says, looked up once for each name."""

    knowledge: Knowledge
    known: dict[str, tuple[bool, bool, bool, bool, bool]]

    def of(self, name: str) -> tuple[bool, bool, bool, bool, bool]:
        """(function, data, init, movable, alone)"""
        if name not in self.known:
            known = self.knowledge
            alone = name not in known.shared and not matches(name, _MERGED)
            self.known[name] = (
                *known.unit_kind(name), known.is_init(name), matches(name, known.boot_code), alone,
            )  # fmt: skip
        return self.known[name]


def relocated_by(file: ObjectFile) -> dict[int, tuple[int, int]]:
    """Section -> (the one that relocates it, where in the file that is); (-2, 0) when there are several."""
    found: dict[int, tuple[int, int]] = {}
    for index in file.relocation_sections():
        section = int(file.sections[index]["info"])
        found[section] = (-2, 0) if section in found else (index, int(file.sections[index]["offset"]))
    return found
