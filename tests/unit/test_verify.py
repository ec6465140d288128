"""Verify finds what is wrong with a linked program, by the right check and by name.

Each test breaks one thing in the program of ``verify_program.py``, on every architecture.
"""

from __future__ import annotations

import ast
import json
import re
import shutil
import struct
import subprocess
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from elftools.elf.elffile import ELFFile

from prune.verify.elf import Field, Symbol
from prune.verify.entries import as_held
from prune.verify.load import load_model
from prune.verify.verify import prove, verify_image
from tracer.host import UserError

from .verify_program import MACHINES, Built, build, findings, parts


@pytest.fixture(scope="module", params=MACHINES, ids=lambda machine: machine.arch)
def original(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Built:
    return build(tmp_path_factory.mktemp("verify"), request.param)


@pytest.fixture
def built(original: Built, tmp_path: Path) -> Built:
    shutil.copytree(original.folder, tmp_path / "copy")
    return Built(tmp_path / "copy", original.machine)


def test_a_sound_program_passes_every_check(built: Built) -> None:
    verdict = built.verify()
    assert findings(verdict) == {}
    assert {check.name for check in verdict.checks if check.checked} == {
        "references", "tombstones", "tables", "bytes", "branches", "accounting", "blocks", "phases",
    }  # fmt: skip
    assert (
        next(check.note for check in verdict.checks if check.name == "phases")
        == "3 units are freed after boot"
    )
    assert json.loads(json.dumps(verdict.to_json()))["ok"] is True


def test_the_program_has_what_the_tests_are_about(built: Built) -> None:
    assert re.search(r"^ \.text\.tick\s.* b\.o$", (built.folder / "vmlinux.map").read_text(), re.M | re.S)
    call = built.machine.call
    assert built[f"{call}gone"] == built[f"{call}away"] + 2
    assert built["lost"] == built["gone"] + len(built.machine.trap)
    assert built.read(built["low"], built.machine.bytes) == built.machine.pack(built["number"] - 0xC0000000)
    assert (built["__stop___ex_table"] - built["__start___ex_table"]) // 12 == 2


def test_a_reference_past_its_tombstone(built: Built) -> None:
    place = built.field("start", "gone")
    built.point(place, built["lost"] - 4)
    found = findings(built.verify())
    offset = place - built["start"]
    assert found.keys() == {"references"}
    assert found["references"] == [
        f"a.o:.text.start+{offset:#x} refers to dropped a.o:.text.gone past its tombstone"
    ]


def test_a_reference_into_the_middle_counts_from_the_end_of_its_instruction(built: Built) -> None:
    place = next(
        at + 2 for at in range(built["other"], built["other"] + 64) if built.read(at, 2) == b"\x80\x3d"
    )
    if built.machine.here:
        built.point(place, built["lost"] - 4)  # right for an operand at the end, wrong before an immediate
    else:
        built.write(place, built.machine.pack(built["lost"] + 2))
    assert "a.o:.text.other" in findings(built.verify())["references"][0]


def test_a_pointer_in_data_to_the_middle_of_a_dropped_function(built: Built) -> None:
    placed = re.search(r"^ \.data\.middle\s+(0x\S+)", (built.folder / "vmlinux.map").read_text(), re.M)
    assert placed
    place = int(placed[1], 16)
    assert built.read(place, built.machine.bytes) == built.machine.pack(built["gone"])
    built.write(place, built.machine.pack(built["gone"] + 3))
    assert findings(built.verify())["references"][0].startswith(
        "a.o:.data.middle+0x0 refers to dropped a.o:.text.gone past its tombstone"
    )


def test_a_kept_reference_that_leads_elsewhere(built: Built) -> None:
    built.point(built.field("start", "kept"), built["other"] - 4)
    found = findings(built.verify())
    assert found.keys() == {"references"}
    assert "should reach kept, a.o:.text.kept+0x0, and reaches a.o:.text.other+0x0" in found["references"][0]


def test_a_pruned_system_call_that_is_answered_elsewhere(built: Built) -> None:
    built.write(built["table"] + built.machine.bytes, built.machine.pack(built["gone"]))
    found = findings(built.verify())
    assert (
        f"refers to dropped a.o:.text.{built.machine.call}gone past its tombstone" in found["references"][0]
    )


@pytest.mark.parametrize(
    ("name", "offset", "code", "finding"),
    [
        ("gone", 3, b"\0\0\0\0", "leads to"),
        ("gone", 2, b"\xe8", "leads to 0x0, not to"),  # a call comes back
        ("gone", 0, b"\xe8", "leads to 0x0, not to"),
        ("away", 1, b"\0", "leads to that of another, at"),
        ("away", 1, b"\xfe", "leads to that of another, at"),  # for ever to itself
        ("away", 0, b"\x74", "leads to 0x0, not to"),  # if it is so
    ],
)
def test_an_entry_that_does_not_lead_to_what_refuses(
    built: Built, name: str, offset: int, code: bytes, finding: str
) -> None:
    entry = f"{built.machine.call}{name}"
    built.write(built[entry] + offset, code)
    said = [each for each in findings(built.verify())["tombstones"] if f"a.o:.text.{entry}, of" in each]
    assert len(said) == 1 and finding in said[0]


def test_an_entry_that_leads_nowhere_beside_a_tombstone_that_is_said_to_lie_at_zero(built: Built) -> None:
    """The fuzzer got a traceback."""
    entry = f"{built.machine.call}gone"
    built.write(built[entry], b"\xe8")
    built.edit("tombstones.json", lambda value: value["tombstones"][0].update(address=0))
    assert any(f"a.o:.text.{entry}, of" in each for each in findings(built.verify())["tombstones"])


def test_an_entry_that_is_said_to_be_another_function(built: Built) -> None:
    built.edit("tombstones.json", lambda value: value["tombstones"][-1].update(call=False))
    (finding,) = findings(built.verify())["tombstones"]
    assert finding.endswith(f"a.o:.text.{built.machine.call}gone is said to be no system call's")


def test_what_refuses_must_stay(built: Built) -> None:
    def drop(value: Any) -> None:
        for row in value["units"]:
            if row[1].endswith("ni_syscall"):
                row[3] = "drop"

    built.edit("plan.json", drop)
    said = findings(built.verify())["tombstones"]
    assert any(
        each.startswith(f"nothing that was kept answers for a.o:.text.{built.machine.call}gone")
        for each in said
    )


@pytest.fixture(scope="module", params=MACHINES, ids=lambda machine: machine.arch)
def sharing(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Built:
    """A kernel that checks what it calls, whose dropped system calls are names of what refuses."""
    return build(tmp_path_factory.mktemp("sharing"), request.param, shared=True)


def test_where_the_kernel_checks_what_it_calls_names_are_those_of_what_refuses(
    sharing: Built, tmp_path: Path
) -> None:
    assert findings(sharing.verify()) == {}
    shutil.copytree(sharing.folder, tmp_path / "copy")
    built = replace(sharing, folder=tmp_path / "copy")
    built.write(built["table"] + built.machine.bytes, built.machine.pack(built["gone"]))
    call = built.machine.call
    said = findings(built.verify())["references"][0]
    assert f"dropped a.o:.text.{call}gone, which {call}ni_syscall answers for" in said


def test_a_string_that_was_merged_with_the_wrong_one(built: Built) -> None:
    built.write(built["words"], built.read(built["words"] + built.machine.bytes, built.machine.bytes))
    assert "should reach a constant of a.o:.rodata" in findings(built.verify())["references"][0]


def test_a_tombstone_that_shadows_a_kept_function(built: Built) -> None:
    """As a dropped weak function's would: the symbol table and the reference agree, and both are wrong."""
    tick = built["tick"]
    place = built.field("kept", "tick")
    built.point(place, built["gone"] - 4)
    with (built.folder / "vmlinux").open("rb") as stream:
        table = ELFFile(stream).get_section_by_name(".symtab")
        number = next(n for n, each in enumerate(table.iter_symbols()) if each.name == "tick")
        row, value = built.machine.symbol
        at = table["sh_offset"] + number * row + value
    data = bytearray((built.folder / "vmlinux").read_bytes())
    data[at : at + built.machine.bytes] = built.machine.pack(built["gone"])
    (built.folder / "vmlinux").write_bytes(data)
    found = findings(built.verify())
    assert built["tick"] != tick
    assert found["references"] == [
        "tick is at the tombstone of a.o:.text.gone, and should be at b.o:.text.tick+0x0",
        f"a.o:.text.kept+{place - built['kept']:#x} should reach tick, b.o:.text.tick+0x0, "
        "and reaches the tombstone of a.o:.text.gone",
    ]


def test_a_call_into_nowhere(built: Built) -> None:
    place = built.field("start", "kept")
    built.point(place, built.machine.base + 0x4000000)
    found = findings(built.verify())
    assert found.keys() == {"references", "branches"}
    assert (
        f"a.o:.text.start+{place - 1 - built['start']:#x} branches to {built.machine.base + 0x4000004:#x}"
        in found["branches"][0]
    )


def test_a_jump_that_leaves_its_function(built: Built) -> None:
    place = next(
        at
        for at in range(built["kept"], built["kept"] + 64)
        if built.read(at, 1) in (b"\x7e", b"\x7f", b"\xeb")
    )
    built.write(place + 1, b"\x7f")
    found = findings(built.verify())
    assert found.keys() == {"bytes", "branches"}
    assert found["branches"][0].startswith("a.o:.text.kept+")


def test_a_flipped_byte(built: Built) -> None:
    built.write(built["number"], b"\x2b")
    assert findings(built.verify()) == {"bytes": ["a.o:.data.number+0x0 is not what the compiler made"]}


def test_two_tombstones_with_one_address(built: Built) -> None:
    def share(value: Any) -> None:
        value["tombstones"][1]["address"] = value["tombstones"][0]["address"]

    built.edit("tombstones.json", share)
    found = findings(built.verify())["tombstones"]
    assert "the tombstone of a.o:.text.lost has the address of the tombstone of a.o:.text.gone" in found


def test_a_tombstone_that_reaches_into_the_next(built: Built) -> None:
    """They have different addresses, and whoever calls the second runs the rest of the first one's trap."""

    def closer(value: Any) -> None:
        value["tombstones"][1]["address"] -= 1

    if len(built.machine.trap) == 1:
        pytest.skip("a trap of one byte has no rest")
    built.edit("tombstones.json", closer)
    found = findings(built.verify())["tombstones"]
    assert "the tombstone of a.o:.text.gone reaches into that of the tombstone of a.o:.text.lost" in found


def test_a_tombstone_with_half_a_trap(built: Built) -> None:
    built.write(built["lost"] + len(built.machine.trap) - 1, b"\x90")
    assert "the tombstone of a.o:.text.lost holds no trap" in findings(built.verify())["tombstones"][0]


def test_a_tombstone_that_does_not_trap(built: Built) -> None:
    built.write(built["lost"], b"\xc3")
    found = findings(built.verify())
    assert found.keys() == {"tombstones"}
    assert "the tombstone of a.o:.text.lost holds no trap" in found["tombstones"][0]


def test_a_tombstone_in_a_kept_unit(built: Built) -> None:
    built.edit("tombstones.json", lambda value: value["tombstones"][0].update(address=built["kept"]))
    assert "the tombstone of a.o:.text.gone lies in a.o:.text.kept" in findings(built.verify())["tombstones"]


def test_a_tombstone_of_a_kept_unit(built: Built) -> None:
    built.edit("tombstones.json", lambda value: value["tombstones"][0].update(section=".text.kept"))
    assert any("was not dropped" in finding for finding in findings(built.verify())["tombstones"])


@pytest.mark.parametrize(("to", "what"), [("gone", "a tombstone"), ("table", "outside kept text")])
def test_a_table_entry_that_points_at_no_kept_code(built: Built, to: str, what: str) -> None:
    built.point(built["__start___ex_table"], built[to])
    found = findings(built.verify())
    assert found.keys() == {"tables"}
    assert found["tables"][0].startswith(f"__ex_table entry 0 points {what}: ")


def test_a_table_that_lost_an_entry_of_kept_code(built: Built) -> None:
    first = built["__start___ex_table"]
    fields = struct.unpack("<iii", built.read(first + 12, 12))
    built.write(first, struct.pack("<iii", fields[0] + 12, fields[1] + 12, fields[2]))
    found = findings(built.verify())["tables"]
    assert any(
        re.fullmatch(r"entry \d of a.o:__ex_table, about .* is not in the image", each) for each in found
    )
    assert any("is of no object" in each for each in found)


def test_a_table_entry_with_another_handler(built: Built) -> None:
    built.write(built["__start___ex_table"] + 8, b"\x09")
    found = findings(built.verify())["tables"]
    assert len(found) == 1
    assert found[0].endswith("is not what the compiler made")


def test_a_table_that_kbuild_sorted(built: Built) -> None:
    """The rows change places, relative fields follow; verify looks them up by owner."""
    first = built["__start___ex_table"]
    one, other = (struct.unpack("<iii", built.read(first + at, 12)) for at in (0, 12))
    built.write(first, struct.pack("<iii", other[0] + 12, other[1] + 12, other[2]))
    built.write(first + 12, struct.pack("<iii", one[0] - 12, one[1] - 12, one[2]))
    found = findings(built.verify())["tables"]
    assert found == ["__ex_table is not sorted: entry 0 is behind its successor"]


def test_an_entry_that_the_build_made_blank(built: Built) -> None:
    """scripts/sorttable.c does it to functions that nm does not list."""
    built.write(built["__start_mcount_loc"], bytes(built.machine.bytes))
    assert findings(built.verify()) == {}
    built.write(built["__start_mcount_loc"], built.machine.pack(built["table"]))
    assert "__mcount_loc entry 0 points outside kept text" in findings(built.verify())["tables"][0]


def test_a_row_of_a_paired_table(built: Built) -> None:
    if built.machine.arch == "i386":
        pytest.skip("objtool writes no pair of tables for it")
    paired = next(part for part in parts(built.folder / "vmlinux") if part.name == ".orc_unwind")
    built.write(paired.address, b"\x07")
    assert "a.o:.orc_unwind_ip" in findings(built.verify())["tables"][0]


def test_bytes_that_are_nobodys(built: Built) -> None:
    built.write(built["__kprune_tombstones_end"], b"\xc3")
    found = findings(built.verify())
    assert found.keys() == {"accounting"}
    assert "1 bytes are no unit, no tombstone and no fill" in found["accounting"][0]


def test_a_physical_address_of_something_else(built: Built) -> None:
    built.write(built["low"], built.machine.pack(built["number"] - 0xC0000000 + 1))
    assert findings(built.verify())["references"][0].startswith("a.o:.data.low+0x0 should reach ")


@pytest.mark.parametrize("nth", [0, 1])
def test_a_cold_block_without_its_trap(built: Built, nth: int) -> None:
    built.write(built["cut"] + 9 + nth * len(built.machine.trap), b"\x90")
    assert findings(built.verify())["bytes"][0].startswith("a.o:.text.cut+")


def test_a_way_into_a_cold_block_that_has_no_trap(built: Built) -> None:
    built.edit("tombstones.json", lambda value: value["trimmed"][0]["traps"].pop(0))
    found = findings(built.verify())
    assert "a.o:.text.cut+0x2 leads to cold 0x9, which has no trap" in found["blocks"]


def test_data_that_leads_to_the_trap_of_another_place(built: Built) -> None:
    built.write(built["way"], built.machine.pack(built["cut"] + 9))
    assert findings(built.verify())["references"] == [
        "a.o:.data.way+0x0 refers to dropped a.o:.text.cut+0xe past its tombstone"
    ]


def test_more_traps_than_a_cold_block_had_room_for(built: Built) -> None:
    def more(value: Any) -> None:
        width = len(built.machine.trap)
        value["trimmed"][0]["traps"] = [[9 + width * nth, 9 + nth] for nth in range(8 // width)]

    built.edit("tombstones.json", more)
    said = findings(built.verify())["blocks"]
    assert any("bytes of traps for 0x9 to 0x10" in each or "and has a trap" in each for each in said)


def test_a_jump_over_a_cold_block_that_was_not_shortened(built: Built) -> None:
    built.write(built["cut"] + 8, b"\x07")
    assert "a.o:.text.cut+0x8 is not what the compiler made" in findings(built.verify())["bytes"]


def test_a_cold_block_that_ran(built: Built) -> None:
    def run(value: Any) -> None:
        next(row for row in value["functions"] if row["symbol"] == "cut")["ran"] = [0, 10, 16, 20]

    built.edit("profile.json", run)
    assert findings(built.verify())["blocks"] == ["a.o:.text.cut, cut: 0x9 to 0x10 is cold, and ran"]


def _fate(built: Built, section: str, fate: str) -> None:
    def change(value: Any) -> None:
        next(row for row in value["units"] if row[1] == section)[3] = fate

    built.edit("plan.json", change)


def test_what_is_freed_after_boot_and_ran_later(built: Built) -> None:
    def later(value: Any) -> None:
        next(row for row in value["functions"] if row["symbol"] == "early")["seen"].append({"app": "web"})

    built.edit("profile.json", later)
    assert findings(built.verify()) == {"phases": ["a.o:.text.early is freed after boot, and web ran it"]}


def test_resident_code_that_leads_to_what_was_freed(built: Built) -> None:
    built.edit("profile.json", lambda value: value["functions"].pop(0))
    (found,) = findings(built.verify())["phases"]
    assert found.startswith("a.o:.text.start+")
    assert found.endswith("refers to a.o:.text.early, freed after boot, and boot did not run it")


def test_what_is_freed_after_boot_and_lies_elsewhere(built: Built) -> None:
    _fate(built, ".text.other", "boot")
    said = findings(built.verify())["phases"]
    assert "a.o:.text.other is to be freed after boot, and lies where nothing is" in said


def test_a_resident_unit_where_memory_is_freed(built: Built) -> None:
    path = built.folder / "vmlinux.map"
    path.write_text(path.read_text().replace(".init.text.text.early", ".text.early"))
    _fate(built, ".text.early", "keep")
    said = findings(built.verify())["phases"]
    assert said == ["a.o:.text.early is resident, and lies where memory is freed after boot"]


def test_data_that_is_freed_and_still_known_to_somebody(built: Built) -> None:
    """Resident code refers to it, and so does freed code that hands the address on; what reads there may."""
    _fate(built, ".data.number", "boot")
    said = findings(built.verify())["phases"]
    assert any(
        re.fullmatch(r"a\.o:\.text\.kept\+.* refers to data freed after boot: a\.o:\.data\.number", each)
        for each in said
    )
    handed = [each for each in said if "may hand on the address of data that is freed after boot" in each]
    assert len(handed) == 1 and handed[0].startswith("a.o:.text.hands+")


def test_no_byte_of_what_was_kept_can_change_unnoticed(original: Built) -> None:
    """Each byte by one bit, the bits taking turns."""
    model = load_model(*original.inputs)
    whole = model.linked
    tried = 0
    for name, output in whole.outputs.items():
        for nth in range(len(output.content)):
            piece = model.memory.at(output.address + nth)
            if piece is None:
                continue
            tried += 1
            content = bytearray(output.content)
            content[nth] ^= 1 << nth % 8
            outputs = whole.outputs | {name: replace(output, content=bytes(content))}
            model.linked = replace(whole, outputs=outputs)
            assert not all(check.ok for check in prove(model)), f"{piece}, {output.address + nth:#x}"
    assert tried > 300


@pytest.mark.parametrize(("nth", "name"), [(0, "two"), (1, "one")])
def test_data_that_leads_to_another_piece_of_a_section(built: Built, nth: int, name: str) -> None:
    place = built["pair"] + nth * built.machine.bytes
    built.write(place, built.machine.pack(built["number"]))
    (found,) = findings(built.verify())["references"]
    assert f"a.o:.init.text.{name}+0x0" in found and "a.o:.data.number+0x0" in found


def test_a_branch_between_pieces_of_a_section(built: Built) -> None:
    """The assembler had resolved it; taken apart, it is a reference."""
    built.point(built["one"] + 1, built["kept"] - 4)
    (found,) = findings(built.verify())["references"]
    assert found.startswith("a.o:.init.text.one+0x1 should reach ")


def test_a_dropped_unit_that_is_in_the_image(built: Built) -> None:
    def drop(value: Any) -> None:
        next(row for row in value["units"] if row[1] == ".text.other")[3] = "drop"

    built.edit("plan.json", drop)
    found = findings(built.verify())
    assert "a.o:.text.other was dropped and is in the image" in found["references"]
    assert any(
        "refers to dropped a.o:.text.other, which has no tombstone" in each for each in found["references"]
    )


def test_a_kept_unit_that_is_not_in_the_image(built: Built) -> None:
    def keep(value: Any) -> None:
        next(row for row in value["units"] if row[1] == ".text.gone")[3] = "keep"

    built.edit("plan.json", keep)
    assert "a.o:.text.gone was kept and is not in the image" in findings(built.verify())["references"]


@pytest.mark.parametrize("name", ["vmlinux", "vmlinux.map", "plan.json", "tombstones.json", "a.o"])
@pytest.mark.parametrize("how", ["truncated", "empty", "text", "gone"])
def test_a_damaged_input_is_one_clear_line(built: Built, name: str, how: str) -> None:
    path = built.folder / name
    content = path.read_bytes()
    path.unlink()
    if how != "gone":
        path.write_bytes({"truncated": content[: len(content) // 2], "empty": b"", "text": b"hello\n"}[how])
    with pytest.raises(UserError, match=re.escape(name)) as caught:
        built.verify()
    assert "\n" not in str(caught.value)


def test_a_stripped_vmlinux(built: Built) -> None:
    subprocess.run(["strip", str(built.folder / "vmlinux")], check=True)
    with pytest.raises(UserError, match="it has no symbols"):
        built.verify()


def test_the_map_of_another_link(built: Built) -> None:
    path = built.folder / "vmlinux.map"
    path.write_text(
        path.read_text().replace(f"{built.machine.base:x}", f"{built.machine.base + 0x1000000:x}")
    )
    with pytest.raises(UserError, match="of another link"):
        built.verify()


def test_an_architecture_that_is_not_described(built: Built) -> None:
    f = built.folder
    with pytest.raises(UserError, match="sparc"):
        verify_image(f / "vmlinux", f / "vmlinux.map", f / "plan.json", f / "tombstones.json", f, "sparc")


def test_verify_shares_no_code_with_the_writer() -> None:
    import prune.verify.verify

    for path in Path(prune.verify.verify.__file__).parent.glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if (
                isinstance(node, ast.ImportFrom)
                and node.module
                and node.module.split(".")[0] in ("prune", "tracer")
            ):
                assert node.module.startswith("prune.verify.") or node.module == "tracer.host", path.name


@pytest.mark.parametrize(("kind", "held"), [("pc32", "pc32"), ("abs32", "abs32"), ("none", "abs32")])
def test_how_a_table_holds_addresses_is_told_by_the_objects(kind: str, held: str) -> None:
    """On 32 bit addresses in __bug_table are relative in 7.x, and were not before."""
    model: Any = SimpleNamespace(kinds={7: kind})
    symbol = Symbol("f", 0, 1, True, False, False)
    fields = (Field(4, 9, 0, symbol), Field(0, 7, 0, symbol))  # the file's name, and what it is about
    section: Any = SimpleNamespace(fields=fields)
    assert as_held(model, {"owner": 0, "field": "abs32"}, [section])["field"] == held
    assert as_held(model, {"owner": 0, "field": "abs32"}, [])["field"] == "abs32"
