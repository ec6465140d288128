"""What a virtual machine of an architecture is, read from ``machines.toml``."""

from __future__ import annotations

import tomllib
from dataclasses import dataclass
from pathlib import Path

from tracer.host import UserError

MACHINES = Path(__file__).parent / "machines.toml"


@dataclass(frozen=True)
class MachineKind:
    """One architecture's machine; the fields are explained in ``machines.toml``."""

    arch: str
    program: str
    package: str
    machine: str
    cpu: str
    console: str
    control: str
    image: str
    kernel_start: int
    identity_offset: int
    stack_pointer: int
    address_size: int
    page_size: int
    trap: bytes
    slowest: int
    no_execute: bool
    debian: str
    elf: int


def machine_kind(arch: str) -> MachineKind:
    """The machine of an architecture.

    Raises:
        UserError: there is no such table in ``machines.toml``.
    """
    tables = tomllib.loads(MACHINES.read_text())
    known = [name for name, table in tables.items() if isinstance(table, dict)]
    if arch not in known:
        raise UserError(f"choosing the machine: no architecture {arch!r}", f"known: {', '.join(known)}")
    table = dict(tables[arch])
    return MachineKind(arch=arch, trap=bytes.fromhex(table.pop("trap")), **table)
