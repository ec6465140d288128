"""Verify finds what is wrong with a linked program, by the right check and by name.

A small kernel of two objects is compiled twice: as the compiler makes it, and as the object editor leaves it
(the dropped functions gone, references to them by their tombstones' names), and linked with tombstones, so
that nothing of the writer takes part. Each test breaks one thing in the result.
"""

from __future__ import annotations

import ast
import json
import re
import shutil
import struct
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from elftools.elf.elffile import ELFFile

from prune.verify import Verdict, verify_image
from tracer.host import UserError

_FLAGS = [
    "-c",
    "-O1",
    "-ffunction-sections",
    "-fdata-sections",
    "-fno-pic",
    "-mcmodel=kernel",
    "-ffreestanding",
]
_FLAGS += ["-fno-asynchronous-unwind-tables", "-fno-stack-protector", "-fcf-protection=none", "-fno-builtin"]

# `lost` is local, `gone` global, both are dropped; `tick` is a weak function that b.c overrides.
_A = r"""
#ifdef EDITED
#define MID_LOST "lost(%rip)"
#define LOST "lost"
#define MID_GONE "gone"
void lost(int);
#else
#define MID_LOST "lost+2(%rip)"
#define LOST "lost"
#define MID_GONE "gone+3"
__attribute__((noinline, used)) static void lost(int x)
{
    asm volatile("1: nop\n .pushsection __ex_table,\"a\"\n .long 1b - ., 1b - ., 7\n .popsection" :: "r"(x));
}
__attribute__((weak)) int tick(void) { return 5; }
void gone(void) { asm volatile("nop; nop; nop; nop"); }
long __x64_sys_gone(void) { return 4; }
#endif
int tick(void);
void gone(void);
long __x64_sys_gone(void);
long __x64_sys_ni_syscall(void) { return -38; }
void say(const char *);
void (*table[])(void) = { gone, (void (*)(void))__x64_sys_gone, (void (*)(void))say };
const char *words[] = { "two words", "words" };
int number = 42;
asm(".pushsection .data.middle,\"aw\"\n .quad " MID_GONE "\n .long " LOST " - .\n .long 0\n .popsection");
__attribute__((noinline)) int kept(int n)
{
    asm volatile("1: nop\n 2:\n .pushsection __ex_table,\"a\"\n .long 1b - ., 2b - ., 3\n .popsection\n"
                 ".pushsection .orc_unwind_ip,\"a\"\n .long 1b - .\n .popsection\n"
                 ".pushsection .orc_unwind,\"a\"\n .long 6\n .short 1\n .popsection");
    while (n > 9)
        n -= tick();
    return n + number;
}
__attribute__((noinline)) int other(int n)
{
    asm volatile("1: nop\n 2:\n .pushsection __ex_table,\"a\"\n .long 1b - ., 2b - ., 4\n .popsection");
    asm volatile("cmpb $1, " MID_LOST);
    return n * 3;
}
void start(void)
{
    say("two words");
    if (kept(3) == other(4))
        gone();
    lost(number);
    table[1]();
}
"""
_B = r"""
static int __key;
extern void *watched;
int tick(void) { return 3; }
void say(const char *text) { watched = (void *)text; if (text[0] == 'n') watched = "words"; }
void *watched = &watched;
"""
_SCRIPT = """
SECTIONS {
  /DISCARD/ : { *(.comment .note* .eh_frame) }
  . = 0xffffffff81000000;
  .text : {
    *(.text.start) . = ALIGN(16); *(.text.[a-z_]*)
    __kprune_tombstones_start = .;
    gone = .; BYTE(0xd6)
    lost = .; BYTE(0xd6)
    __kprune_tombstones_end = .;
    . = ALIGN(64);
    *(.text)
  } =0xcccccccc
  .rodata : { *(.rodata*) }
  __ex_table : { __start___ex_table = .; *(__ex_table) __stop___ex_table = .; }
  .orc_unwind_ip : { __start_orc_unwind_ip = .; *(.orc_unwind_ip) __stop_orc_unwind_ip = .; }
  .orc_unwind : { *(.orc_unwind) }
  .data : { *(.data*) }
  .bss : { *(.bss*) }
}
__x64_sys_gone = __x64_sys_ni_syscall;
"""
_DROPPED = {".text.lost", ".text.gone", ".text.__x64_sys_gone", ".text.tick"}


@dataclass(frozen=True)
class Part:
    """A section of an ELF file."""

    name: str
    address: int
    offset: int
    size: int
    loaded: bool


def parts(path: Path) -> list[Part]:
    with path.open("rb") as stream:
        return [
            Part(s.name, s["sh_addr"], s["sh_offset"], s["sh_size"], bool(s["sh_flags"] & 2))
            for s in ELFFile(stream).iter_sections()
        ]


@dataclass(frozen=True)
class Built:
    """One linked program with everything that verify reads, in a folder of its own."""

    folder: Path

    def verify(self) -> Verdict:
        return verify_image(
            self.folder / "vmlinux", self.folder / "vmlinux.map", self.folder / "plan.json",
            self.folder / "tombstones.json", self.folder, "x86_64",
        )  # fmt: skip

    def __getitem__(self, symbol: str) -> int:
        with (self.folder / "vmlinux").open("rb") as stream:
            return int(
                ELFFile(stream).get_section_by_name(".symtab").get_symbol_by_name(symbol)[0]["st_value"]
            )

    def read(self, address: int, size: int) -> bytes:
        at = self._offset(address)
        return (self.folder / "vmlinux").read_bytes()[at : at + size]

    def write(self, address: int, content: bytes) -> None:
        at, data = self._offset(address), bytearray((self.folder / "vmlinux").read_bytes())
        data[at : at + len(content)] = content
        (self.folder / "vmlinux").write_bytes(data)

    def point(self, place: int, target: int) -> None:
        """Make the 32-bit distance at ``place`` lead to ``target``, counted from the field."""
        self.write(place, struct.pack("<i", target - place))

    def field(self, unit: str, to: str) -> int:
        """Address of the operand of the call or jump in ``unit`` that leads to ``to``."""
        for at in range(self[unit], self[unit] + 200):
            if (
                self.read(at, 1) in (b"\xe8", b"\xe9")
                and at + 5 + struct.unpack("<i", self.read(at + 1, 4))[0] == self[to]
            ):
                return at + 1
        raise AssertionError(f"{unit} does not call {to}")

    def edit(self, name: str, change: Callable[[Any], None]) -> None:
        path = self.folder / name
        value = json.loads(path.read_text())
        change(value)
        path.write_text(json.dumps(value))

    def _offset(self, address: int) -> int:
        inside = next(
            part
            for part in parts(self.folder / "vmlinux")
            if part.loaded and 0 <= address - part.address < part.size
        )
        return inside.offset + address - inside.address


def _build(folder: Path) -> Built:
    edited = folder / ".kprune/plan-0123456789abcdef/objects"
    edited.mkdir(parents=True)
    for name, source in (("a", _A), ("b", _B)):
        (folder / f"{name}.c").write_text(source)
        subprocess.run(["gcc", *_FLAGS, f"{name}.c", "-o", f"{name}.o"], cwd=folder, check=True)
    subprocess.run(["gcc", *_FLAGS, "-DEDITED", "a.c", "-o", str(edited / "a.o")], cwd=folder, check=True)
    (folder / "script.lds").write_text(_SCRIPT)
    command = [
        "ld",
        "-T",
        "script.lds",
        "-e",
        "start",
        "-Map=vmlinux.map",
        "-o",
        "vmlinux",
        "--no-warn-rwx-segments",
    ]
    subprocess.run([*command, str(edited.relative_to(folder) / "a.o"), "b.o"], cwd=folder, check=True)
    built = Built(folder)
    units = [
        [
            name,
            section.name,
            section.size,
            "drop" if name == "a.o" and section.name in _DROPPED else "keep",
            "test",
        ]
        for name in ("a.o", "b.o")
        for section in parts(folder / name)
        if section.loaded and section.size and not section.name.startswith((".note", ".eh_frame"))
    ]
    plan = {
        "schema_version": 3,
        "objects": {"a.o": "", "b.o": ""},
        "pieces": [],
        "cold": [],
        "named": False,
        "units": units,
    }
    (folder / "plan.json").write_text(json.dumps(plan))
    stones = [
        {"symbol": name, "object": "a.o", "section": f".text.{name}", "names": [name], "address": built[name]}
        for name in ("gone", "lost")
    ]
    value = {
        "schema_version": 3,
        "start": built["__kprune_tombstones_start"],
        "tombstones": stones,
        "trimmed": [],
    }
    (folder / "tombstones.json").write_text(json.dumps(value))
    return built


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Built:
    return _build(tmp_path_factory.mktemp("verify"))


@pytest.fixture
def built(original: Built, tmp_path: Path) -> Built:
    shutil.copytree(original.folder, tmp_path / "copy")
    return Built(tmp_path / "copy")


def findings(verdict: Verdict) -> dict[str, list[str]]:
    """Check -> findings, of the checks that failed."""
    assert verdict.ok == all(check.ok for check in verdict.checks)
    return {check.name: list(check.findings) for check in verdict.checks if not check.ok}


def test_a_sound_program_passes_every_check(built: Built) -> None:
    verdict = built.verify()
    assert findings(verdict) == {}
    assert {check.name for check in verdict.checks if check.checked} == {
        "references", "tombstones", "tables", "bytes", "branches", "accounting", "phases",
    }  # fmt: skip
    assert json.loads(json.dumps(verdict.to_json()))["ok"] is True


def test_the_program_has_what_the_tests_are_about(built: Built) -> None:
    assert re.search(r"^ \.text\.tick\s.* b\.o$", (built.folder / "vmlinux.map").read_text(), re.M | re.S)
    assert built["__x64_sys_gone"] == built["__x64_sys_ni_syscall"]
    assert built["lost"] == built["gone"] + 1
    assert (built["__stop___ex_table"] - built["__start___ex_table"]) // 12 == 2


def test_a_reference_past_its_tombstone(built: Built) -> None:
    place = built.field("start", "gone")
    built.point(place, built["gone"] + 1 - 4)
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
    built.point(place, built["lost"] - 4)  # right for an operand at the end, wrong before an immediate
    assert "a.o:.text.other" in findings(built.verify())["references"][0]


def test_a_pointer_in_data_to_the_middle_of_a_dropped_function(built: Built) -> None:
    placed = re.search(r"^ \.data\.middle\s+(0x\S+)", (built.folder / "vmlinux.map").read_text(), re.M)
    assert placed
    place = int(placed[1], 16)
    assert built.read(place, 8) == struct.pack("<Q", built["gone"])
    built.write(place, struct.pack("<Q", built["gone"] + 3))
    assert findings(built.verify())["references"][0].startswith(
        "a.o:.data.middle+0x0 refers to dropped a.o:.text.gone past its tombstone"
    )


def test_a_kept_reference_that_leads_elsewhere(built: Built) -> None:
    built.point(built.field("start", "kept"), built["other"] - 4)
    found = findings(built.verify())
    assert found.keys() == {"references"}
    assert "should reach kept, a.o:.text.kept+0x0, and reaches a.o:.text.other+0x0" in found["references"][0]


def test_a_pruned_system_call_that_answers_elsewhere(built: Built) -> None:
    built.write(built["table"] + 8, struct.pack("<Q", built["gone"]))
    found = findings(built.verify())
    assert (
        "dropped a.o:.text.__x64_sys_gone, which __x64_sys_ni_syscall answers for" in found["references"][0]
    )


def test_a_string_that_was_merged_with_the_wrong_one(built: Built) -> None:
    built.write(built["words"], built.read(built["words"] + 8, 8))
    assert "should reach a constant of a.o:.rodata" in findings(built.verify())["references"][0]


def test_a_tombstone_that_shadows_a_kept_function(built: Built) -> None:
    """As a dropped weak function's would: the symbol table and the reference agree, and both are wrong."""
    tick = built["tick"]
    place = built.field("kept", "tick")
    built.point(place, built["gone"] - 4)
    with (built.folder / "vmlinux").open("rb") as stream:
        table = ELFFile(stream).get_section_by_name(".symtab")
        number = next(n for n, each in enumerate(table.iter_symbols()) if each.name == "tick")
        at = table["sh_offset"] + number * 24 + 8
    data = bytearray((built.folder / "vmlinux").read_bytes())
    data[at : at + 8] = struct.pack("<Q", built["gone"])
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
    built.point(place, 0xFFFFFFFF81000000 + 0x4000000)
    found = findings(built.verify())
    assert found.keys() == {"references", "branches"}
    assert (
        f"a.o:.text.start+{place - 1 - built['start']:#x} branches to 0xffffffff85000004"
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


def test_a_row_of_a_paired_table(built: Built) -> None:
    paired = next(part for part in parts(built.folder / "vmlinux") if part.name == ".orc_unwind")
    built.write(paired.address, b"\x07")
    assert "a.o:.orc_unwind_ip" in findings(built.verify())["tables"][0]


def test_bytes_that_are_nobodys(built: Built) -> None:
    built.write(built["__kprune_tombstones_end"], b"\xc3")
    found = findings(built.verify())
    assert found.keys() == {"accounting"}
    assert "1 bytes are no unit, no tombstone and no fill" in found["accounting"][0]


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
    path.write_text(path.read_text().replace("0xffffffff81000000", "0xffffffff82000000"))
    with pytest.raises(UserError, match="of another link"):
        built.verify()


def test_an_architecture_that_is_not_described(built: Built) -> None:
    f = built.folder
    with pytest.raises(UserError, match="sparc"):
        verify_image(f / "vmlinux", f / "vmlinux.map", f / "plan.json", f / "tombstones.json", f, "sparc")


def test_verify_shares_no_code_with_the_writer() -> None:
    import prune.verify

    for path in Path(prune.verify.__file__).parent.glob("verify*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if (
                isinstance(node, ast.ImportFrom)
                and node.module
                and node.module.split(".")[0] in ("prune", "tracer")
            ):
                assert node.module.startswith("prune.verify") or node.module == "tracer.host", path.name
