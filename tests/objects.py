"""The reader of objects, for tests that do not care which machine an object is for: x86_64's, unless told."""

from __future__ import annotations

from pathlib import Path

from prune.model import elf
from prune.model.elf import ObjectFile
from prune.model.layout import Machine
from tests.conftest import X86


def read_object(path: Path, machine: Machine = X86.machine) -> ObjectFile:
    return elf.read_object(path, machine)


def parse_object(path: Path, data: bytes, machine: Machine = X86.machine) -> ObjectFile:
    return elf.parse_object(path, data, machine)
