"""Prove a pruned kernel by reading it again, sharing no code with what wrote it.

1. *references*: every relocated field of every kept unit is computed again from the object as the
   compiler made it. A target that was kept must be reached where the map puts it, a target that was
   dropped at its own tombstone and nowhere else.
2. *tombstones*: addresses are unique, hold the trap, and are what their names resolve to; no kept
   unit overlaps another or a tombstone. Where the plan has a policy, what lies there is decoded, and is
   that and nothing else.
3. *tables*: no entry of a kernel table points at a tombstone or outside what was kept, and no entry
   that speaks of kept code was lost or changed.
4. *bytes*: apart from relocated fields, every kept unit is what the compiler made.
5. *branches*: every direct branch and call, disassembled, lands in kept text or on a tombstone.
6. *accounting*: executable sections are kept units, tombstones and fill, to the last byte.
7. *blocks*: a cold block that was taken out of kept code has a trap wherever kept code or data may lead to
   it, and the profile does not say that it ran. (The other checks are made against what must be left.)
8. *phases*: what is freed after boot lies where the kernel frees, nothing else does, and resident code leads
   there only where boot took that way.
9. *kallsyms*: decoded from the image, every entry is a symbol of vmlinux in something that was kept; of a
   tombstone there is none, unless the plan wants its names.
10. *exports*: export rows and versions are those that the plan keeps, in the order that the loader relies on.
11. *modules*: see :mod:`prune.verify.modules`.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

from prune.verify.blocks import check_blocks
from prune.verify.code import (
    check_accounting,
    check_branches,
    check_tombstones,
    disassemble,
    instruction_end,
)
from prune.verify.exports import check_exports
from prune.verify.fields import check_fields
from prune.verify.kallsyms import check_kallsyms
from prune.verify.load import load_model
from prune.verify.model import Check, Model
from prune.verify.phases import check_phases
from prune.verify.read import read_blocks, read_ran
from prune.verify.tables import check_tables

__all__ = ["Check", "Verdict", "prove", "verify_image"]


@dataclass(frozen=True)
class Verdict:
    """Every check that was made."""

    checks: tuple[Check, ...]

    @property
    def ok(self) -> bool:
        return all(check.ok for check in self.checks)

    def to_json(self) -> dict[str, Any]:
        return {"ok": self.ok, "checks": [asdict(check) for check in self.checks]}

    def __str__(self) -> str:
        lines = []
        for check in self.checks:
            note = f" ({check.note})" if check.note else ""
            lines.append(
                f"{'ok    ' if check.ok else 'BROKEN'} {check.name}: {check.checked:,} checked{note}"
            )
            lines += [f"         {finding}" for finding in check.findings]
        return "\n".join(lines)


def verify_image(
    vmlinux: Path,
    link_map: Path,
    plan: Path,
    tombstones: Path,
    objtree: Path,
    arch: str,
    profile: Path | None = None,
) -> Verdict:
    """Prove ``vmlinux`` against the plan and the unedited objects in ``objtree``, and against the profile
    where something is freed after boot.

    Raises:
        UserError: a file is missing or damaged.
    """
    return Verdict(prove(load_model(vmlinux, link_map, plan, tombstones, objtree, arch), profile))


def prove(model: Model, profile: Path | None = None) -> tuple[Check, ...]:
    """Every check of what was read, in the order of the list above.

    Raises:
        UserError: the profile is missing or damaged, or a relocation's type is not described.
    """
    listings = disassemble(model)
    references, unchanged = check_fields(model, partial(instruction_end, listings))
    return (
        references,
        check_tombstones(model),
        check_tables(model),
        unchanged,
        check_branches(model, listings),
        check_accounting(model),
        check_blocks(model, read_blocks(profile) if profile else None),
        check_phases(model, read_ran(profile) if profile else {}),
        check_kallsyms(model),
        check_exports(model),
    )
