"""What is freed after boot: only what ran there alone, and what nothing resident can lead to in time."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from prune.model.callgraph import make_call_graph
from prune.model.image import Image
from prune.model.tables import find_tables
from prune.plan.bootonly import Phases, boot_data, boot_only
from tests.conftest import X86, image

from .elfwriter import ALLOC, R_PC32, WRITE, Rela, Section, Symbol, write_elf

NAMES = (".text.once", ".text.late", ".text.both", ".text.read", ".text.take")
# mov 0x0(%rip),%eax; ret      and      lea 0x0(%rip),%rax; ret
LOAD, TAKE = b"\x8b\x05\0\0\0\0\xc3", b"\x48\x8d\x05\0\0\0\0\xc3"


@pytest.fixture
def made(tmp_path: Path) -> Image:
    sections = [
        Section(".text.once"), Section(".text.late", b"\xe8\0\0\0\0\xc3"),
        Section(".text.both", b"\xe8\0\0\0\0\xc3"),
        Section(".text.read", LOAD), Section(".text.take", TAKE),
        Section(".data.counter", bytes(4), ALLOC | WRITE), Section(".data.node", bytes(8), ALLOC | WRITE),
    ]  # fmt: skip
    symbols = [Symbol(name.split(".")[2], name) for name in NAMES]
    symbols += [Symbol("counter", ".data.counter", type=1), Symbol("node", ".data.node", type=1)]
    relocations = [
        Rela(".text.late", 1, "once"), Rela(".text.read", 2, "counter", R_PC32),
        Rela(".text.take", 3, "node", R_PC32),
    ]  # fmt: skip
    return image(tmp_path, {"a.o": write_elf(sections, symbols, relocations)})


def freed(made: Image, boot: Sequence[str], only: Sequence[str]) -> set[str]:
    graph = make_call_graph(made, find_tables(made, X86), X86)
    everything = np.ones(len(made.units), bool)
    mask = boot_only(
        made,
        graph,
        Phases(*([made.unit_of["a.o", name] for name in names] for names in (boot, only))),
        everything,
        everything,
    )
    return {made.names[unit] for unit in np.flatnonzero(mask)}


def test_what_ran_in_boot_alone_is_freed(made: Image) -> None:
    assert freed(made, NAMES, [".text.once", ".text.read"]) == {".text.once", ".text.read"}


def test_not_when_resident_code_that_boot_did_not_run_leads_there(made: Image) -> None:
    assert freed(made, [".text.once"], [".text.once"]) == set()


def test_nothing_is_freed_when_nobody_knows_the_phases(made: Image) -> None:
    graph = make_call_graph(made, find_tables(made, X86), X86)
    everything = np.ones(len(made.units), bool)
    assert not boot_only(made, graph, None, everything, everything).any()


@pytest.mark.parametrize(
    ("code", "wanted"),
    [
        ({".text.read", ".text.take"}, {".data.counter"}),  # the address of node may be in a list by now
        ({".text.take"}, set()),  # counter is read by resident code
    ],
)
def test_data_goes_only_when_its_address_never_went_anywhere(
    made: Image, code: set[str], wanted: set[str]
) -> None:
    boot = np.array([name in code for name in made.names])
    mask = boot_data(made, boot, np.ones(len(made.units), bool), np.empty(0, np.int64))
    assert {made.names[unit] for unit in np.flatnonzero(mask)} == wanted


def test_data_that_the_script_names_stays(made: Image) -> None:
    boot = np.array([name.startswith(".text") for name in made.names])
    named = np.array([made.unit_of["a.o", ".data.counter"]])
    assert not boot_data(made, boot, np.ones(len(made.units), bool), named).any()
