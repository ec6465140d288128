"""Verify reads kallsyms of every layout, and no byte of it can change unnoticed.

The program of ``verify_program.py`` gets one as kbuild does it: link, nm, link with it, and once more, since
what lies behind it has moved.
"""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from prune.verify.elf import Linked
from prune.verify.kallsyms import check_kallsyms
from prune.verify.load import load_model
from prune.verify.model import Check, Model

from .kallsyms import LAYOUTS, Layout, write_kallsyms
from .verify_program import MACHINES, Built, Machine, build, findings

#: Two bytes of length.
LONG = "a_name_that_goes_on_" * 14
Symbols = list[tuple[int, str, str]]
OBJECT = ".tmp_vmlinux.kallsyms2.o"


def _hidden(symbols: Symbols) -> Symbols:
    return [row for row in symbols if row[2] not in ("gone", "lost")]


def _real(symbols: Symbols) -> Symbols:
    """What kallsyms has when tombstones are hidden from it."""
    return [row for row in _hidden(symbols) if not row[2].endswith(("_away", "_gone"))]


def _link(
    machine: Machine, layout: Layout, change: Callable[[Symbols], Symbols]
) -> Callable[[Path, list[str]], None]:
    def link(folder: Path, command: list[str]) -> None:
        command = [*command, "--defsym", f"{LONG}=start"]
        subprocess.run(command, cwd=folder, check=True)
        for _ in range(2):
            said = subprocess.run(
                ["nm", "-n", "vmlinux"], cwd=folder, check=True, capture_output=True, text=True
            )
            rows = [line.split() for line in said.stdout.splitlines()]
            symbols = [(int(at, 16), kind, name) for at, kind, name in rows if kind not in "aA"]
            symbols = change([row for row in symbols if not row[2].startswith("kallsyms_")])
            source = write_kallsyms(symbols, layout, machine.word, machine.bytes)
            (folder / "kallsyms.S").write_text(source)
            compiler = ["gcc", "-c", "-fno-pic", *machine.flags, "kallsyms.S", "-o", OBJECT]
            subprocess.run(compiler, cwd=folder, check=True)
            subprocess.run([*command, OBJECT], cwd=folder, check=True)

    return link


@pytest.fixture(scope="module", params=MACHINES, ids=lambda machine: machine.arch)
def machine(request: pytest.FixtureRequest) -> Machine:
    found: Machine = request.param
    return found


@pytest.fixture(scope="module", params=LAYOUTS)
def built(
    request: pytest.FixtureRequest, machine: Machine, tmp_path_factory: pytest.TempPathFactory
) -> Built:
    layout = LAYOUTS[request.param]
    if layout.addresses == "values" and machine.bytes != 4:
        pytest.skip("addresses do not fit")
    return build(tmp_path_factory.mktemp("kallsyms"), machine, _link(machine, layout, _real))


@pytest.fixture(scope="module")
def sound(machine: Machine, tmp_path_factory: pytest.TempPathFactory) -> Built:
    return made(tmp_path_factory.mktemp("sound"), machine, _real)


@pytest.fixture
def spoilt(sound: Built, tmp_path: Path) -> Built:
    """A copy that the test may spoil."""
    shutil.copytree(sound.folder, tmp_path / "copy")
    return Built(tmp_path / "copy", sound.machine)


def made(folder: Path, machine: Machine, change: Callable[[Symbols], Symbols]) -> Built:
    return build(folder, machine, _link(machine, LAYOUTS["6.1"], change))


def check(built: Built) -> Check:
    return next(each for each in built.verify().checks if each.name == "kallsyms")


def test_a_sound_one_passes(built: Built) -> None:
    verdict = built.verify()
    assert findings(verdict) == {}
    done = next(each for each in verdict.checks if each.name == "kallsyms")
    assert done.checked > 20
    assert done.note == "0 names of dropped functions that another one answers for"


def test_names_of_system_calls_that_a_kept_function_answers_for(machine: Machine, tmp_path: Path) -> None:
    shared = build(tmp_path, machine, _link(machine, LAYOUTS["6.1"], _hidden), shared=True)
    assert check(shared).ok and check(shared).note.startswith("2 names of dropped functions")
    (tmp_path / ".config").write_text("")
    assert "_away at " in check(shared).findings[0]


def _tables(built: Built) -> dict[str, tuple[int, int]]:
    """Table -> (address, bytes), without what fills the last word before the next."""
    said = subprocess.run(["nm", "-n", built.folder / "vmlinux"], check=True, capture_output=True, text=True)
    rows = [line.split() for line in said.stdout.splitlines()]
    found = [(int(at, 16), name) for at, _, name in rows if name.startswith("kallsyms_")]
    (last,) = [at for at, name in found if name == found[-1][1]]
    count = int.from_bytes(built.read(built["kallsyms_num_syms"], 4), "little")
    sizes = {
        "kallsyms_seqs_of_names": 3 * count, "kallsyms_offsets": 4 * count, "kallsyms_token_index": 512,
        "kallsyms_num_syms": 4, "kallsyms_addresses": built.machine.bytes * count,
    }  # fmt: skip
    ends = [*(at for at, _ in found[1:]), last + sizes.get(found[-1][1], 0)]
    return {
        name: (at, min(end - at, sizes.get(name, end - at)))
        for (at, name), end in zip(found, ends, strict=True)
    }


def _with_byte(model: Model, address: int, value: int) -> Linked:
    outputs = dict(model.linked.outputs)
    name = next(n for n, o in outputs.items() if o.address <= address < o.address + o.size)
    content = bytearray(outputs[name].content)
    content[address - outputs[name].address] = value
    outputs[name] = replace(outputs[name], content=bytes(content))
    return replace(model.linked, outputs=outputs)


def test_no_byte_can_change_unnoticed(built: Built) -> None:
    """Every byte of every table, by one bit that it takes turns with."""
    model = load_model(*built.inputs)
    assert check_kallsyms(model).ok
    for name, (address, size) in _tables(built).items():
        for at in range(address, address + size):
            model.linked = whole = model.linked
            held = whole.read(at, 1)[0]
            model.linked = _with_byte(model, at, held ^ (1 << (at - address) % 8))
            assert not check_kallsyms(model).ok, f"{name}+{at - address:#x}"
            model.linked = whole


@pytest.mark.parametrize(
    ("table", "at", "value", "says"),
    [
        ("offsets", 4, b"\xff", "is no symbol of vmlinux"),
        ("names", 4, b"\x00", "is no symbol of vmlinux"),
        ("names", 0, b"\x7f", "kallsyms_num_syms says"),
        ("num_syms", 0, b"\x02", "bytes that are not in use"),
        ("markers", 0, b"\x01", "does not say where every 256th name begins"),
        ("seqs_of_names", 2, b"\xff", "does not have every entry once"),
        ("token_index", 2, b"\xff", "does not say where the strings of"),
        ("relative_base", 0, b"\x01", "is no symbol of vmlinux"),
    ],
)
def test_what_it_says_of_a_damaged_table(spoilt: Built, table: str, at: int, value: bytes, says: str) -> None:
    spoilt.write(spoilt[f"kallsyms_{table}"] + at, value)
    found = findings(spoilt.verify())
    assert found.keys() == {"kallsyms"}
    assert says in found["kallsyms"][0]


def test_the_name_of_a_tombstone(machine: Machine, tmp_path: Path) -> None:
    built = made(tmp_path, machine, lambda symbols: symbols)
    found = findings(built.verify())
    assert found.keys() == {"kallsyms"}
    assert len(found["kallsyms"]) == 4
    assert "is a name of the tombstone of a.o:.text.gone" in found["kallsyms"][0]


def test_the_names_of_tombstones_that_the_plan_wants(machine: Machine, tmp_path: Path) -> None:
    built = made(tmp_path, machine, lambda symbols: symbols)
    path = built.folder / "plan.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"named": True}))
    assert check(built).ok


def test_the_name_of_what_was_dropped(spoilt: Built) -> None:
    """It is still in the image, which other checks say as well."""
    path = spoilt.folder / "plan.json"
    plan = json.loads(path.read_text())
    next(row for row in plan["units"] if row[1] == ".text.other")[3] = "drop"
    path.write_text(json.dumps(plan))
    found = check(spoilt).findings
    assert len(found) == 1
    assert ", other at " in found[0] and "is the name of nothing that was kept there" in found[0]


def test_a_letter_that_nm_does_not_have_for_it(machine: Machine, tmp_path: Path) -> None:
    built = made(
        tmp_path, machine, lambda s: [(a, "t" if n == "kept" else k, n) for a, k, n in _real(s)]
    )  # fmt: skip
    assert "kept at" in check(built).findings[0]
    assert "is called t, and vmlinux has T" in check(built).findings[0]


def test_a_name_at_the_place_of_another(machine: Machine, tmp_path: Path) -> None:
    def swapped(symbols: Symbols) -> Symbols:
        at = {name: address for address, _, name in symbols}
        other = {at["kept"]: at["other"], at["other"]: at["kept"]}
        rows = ((other.get(address, address), kind, name) for address, kind, name in _real(symbols))
        return sorted(rows)

    found = check(made(tmp_path, machine, swapped)).findings
    assert [("kept" in each, "other" in each) for each in found] == [(True, True), (True, True)]


def test_a_kernel_without_one(machine: Machine, tmp_path: Path) -> None:
    done = check(build(tmp_path, machine))
    assert (done.ok, done.checked, done.note) == (True, 0, "this kernel has none")


def test_a_table_that_is_not_there(spoilt: Built) -> None:
    subprocess.run(["objcopy", "-N", "kallsyms_token_index", spoilt.folder / "vmlinux"], check=True)
    assert "vmlinux has no kallsyms_token_index" in check(spoilt).findings[0]
