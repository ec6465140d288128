"""A small linked kernel for the tests of verify, of any architecture that this machine's gcc compiles for.

Two objects are compiled twice: as the compiler makes them, and as the object editor leaves them (the dropped
functions gone, references to them by their tombstones' names), and linked with tombstones, so that nothing of
the writer takes part.
"""

from __future__ import annotations

import json
import struct
import subprocess
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from elftools.elf.elffile import ELFFile

from prune.verify.verify import Verdict, verify_image

_FLAGS = (
    "-c -O1 -ffunction-sections -fdata-sections -fno-pic -ffreestanding -fno-asynchronous-unwind-tables "
    "-fno-stack-protector -fcf-protection=none -fno-builtin"
).split()


@dataclass(frozen=True)
class Machine:
    """An architecture as the program needs it: how it is compiled and linked, what stands for a dropped
    function, how the names of system calls begin, and what an address is in assembly and in ``struct``;
    ``here``: how an operand is written that counts from its instruction; ``symbol``: bytes of a row of the
    symbol table, and where in it the value is."""

    arch: str
    flags: tuple[str, ...]
    emulation: str
    base: int
    trap: bytes
    call: str
    word: str
    address: str
    here: str
    symbol: tuple[int, int]

    @property
    def bytes(self) -> int:
        """Of an address."""
        return struct.calcsize(self.address)

    def pack(self, address: int) -> bytes:
        return struct.pack(f"<{self.address}", address)

    @property
    def definitions(self) -> list[str]:
        trap = ", ".join(f"{byte:#x}" for byte in self.trap)
        return [f'-DWORD="{self.word} "', f'-DHERE="{self.here}"', f'-DTRAP=".byte {trap}\\n"']


MACHINES = (
    Machine(
        "x86_64", ("-mcmodel=kernel",), "elf_x86_64", 0xFFFFFFFF81000000, b"\xd6",
        "__x64_sys_", ".quad", "Q", "(%rip)", (24, 8),
    ),
    Machine(
        "i386", ("-m32",), "elf_i386", 0xC1000000, b"\x0f\x0b",
        "__ia32_sys_", ".long", "I", "", (16, 4),
    ),
)  # fmt: skip

# `lost` is local, `gone` global, both are dropped; `tick` is a weak function that b.c overrides. `cut` lost
# the cold block at 1, into which data leads, too; `one` and `two` share a section that is taken apart;
# `only`, `early` and `hands` are freed after boot. `low` holds a physical address, as head code does.
_A = r"""
#ifdef EDITED
#define MID_LOST "lost" HERE
#define LOST "lost"
#define MID_GONE "gone"
#define COLD "1: " TRAP "3: " TRAP
#define FREED(group, name) __attribute__((section(group name)))
#define ONE ".init.text.one"
#define BREAK ".popsection\n .pushsection .init.text.two,\"ax\"\n"
void lost(int);
#else
#define MID_LOST "lost+2" HERE
#define LOST "lost"
#define MID_GONE "gone+3"
#define COLD "1: movl $7, %eax\n 3: nop\n nop\n"
#define FREED(group, name) __attribute__((section(name)))
#define ONE ".init.text"
#define BREAK ""
__attribute__((noinline, used)) static void lost(int x)
{
    asm volatile("1: nop\n .pushsection __ex_table,\"a\"\n .long 1b - ., 1b - ., 7\n .popsection" :: "r"(x));
}
__attribute__((weak)) int tick(void) { return 5; }
void gone(void) { asm volatile("nop; nop; nop; nop"); }
long __x64_sys_gone(void) { return 4; }
long __x64_sys_away(void) { return 5; }
#endif
int tick(void);
void gone(void);
long __x64_sys_gone(void);
long __x64_sys_away(void);
long __x64_sys_ni_syscall(void) { return -38; }
void say(const char *);
void (*table[])(void) = { gone, (void (*)(void))__x64_sys_gone, (void (*)(void))say,
    (void (*)(void))__x64_sys_away };
const char *words[] = { "two words", "words" };
int number = 42;
asm(".pushsection .data.middle,\"aw\"\n" WORD MID_GONE "\n .long " LOST " - .\n .long 0\n .popsection");
asm(".pushsection .text.cut,\"ax\"\n .globl cut\n .type cut, @function\n"
    "cut: testl %eax, %eax\n jne 1f\n addl $1, %eax\n jmp 2f\n" COLD "2: addl $2, %eax\n ret\n"
    ".size cut, . - cut\n .popsection\n"
    ".pushsection .data.way,\"aw\"\n .globl way\n way:" WORD "3b\n .popsection");
asm(".pushsection " ONE ",\"ax\"\n .globl one\n one: call two\n ret\n" BREAK "two: nop\n ret\n .popsection\n"
    ".pushsection .data.pair,\"aw\"\n .globl pair\n pair:" WORD "two\n" WORD "one\n .popsection");
asm(".pushsection .data.low,\"aw\"\n .globl low\n low:" WORD "number - 0xc0000000\n .popsection");
FREED(".init.data", ".data.only") int only = 7;
FREED(".init.text", ".text.early") void early(void) { only += number; }
FREED(".init.text", ".text.hands") int *hands(void) { return &number; }
__attribute__((noinline)) int kept(int n)
{
    asm volatile("1: nop\n .pushsection __mcount_loc,\"a\"\n " WORD "1b\n .popsection");
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
    early();
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
  . = BASE;
  .text : {
    *(.text.start) . = ALIGN(16); *(.text.[a-z_]*)
    __kprune_tombstones_start = .;
    gone = .; TRAP
    lost = .; TRAP
    CALLS
    __kprune_tombstones_end = .;
    . = ALIGN(64);
    *(.text)
  } =0xcccccccc
  __init_begin = .;
  .init.text : { *(.init.text.*) }
  .init.data : { *(.init.data.*) }
  __init_end = .;
  .rodata : { *(.rodata*) }
  __ex_table : { __start___ex_table = .; *(__ex_table) __stop___ex_table = .; }
  __mcount_loc : { __start_mcount_loc = .; *(__mcount_loc) __stop_mcount_loc = .; }
  .orc_unwind_ip : { __start_orc_unwind_ip = .; *(.orc_unwind_ip) __stop_orc_unwind_ip = .; }
  .orc_unwind : { *(.orc_unwind) }
  .data : { *(.data*) }
  .bss : { *(.bss*) }
}
"""
# Both lead to the jump behind the last; they are names of what refuses where the kernel checks what it calls.
_CALLS = """
    __x64_sys_away = .; BYTE(0xeb) BYTE(2)
    __x64_sys_gone = .; BYTE(0xeb) BYTE(0) BYTE(0xe9) LONG(__x64_sys_ni_syscall - (__x64_sys_gone + 7))
"""
_SHARED = "__x64_sys_away = __x64_sys_ni_syscall; __x64_sys_gone = __x64_sys_ni_syscall;"
# Of `cut`: where the cold block begins, where data leads into it, and where it ends.
_COLD, _LATER, _WARM = 9, 14, 16
_PIECES: Sequence[tuple[str, int, int]] = ((".init.text.one", 0, 6), (".init.text.two", 6, 2))


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
    machine: Machine

    def verify(self) -> Verdict:
        return verify_image(*self.inputs, self.folder / "profile.json")

    @property
    def inputs(self) -> tuple[Path, Path, Path, Path, Path, str]:
        names = ("vmlinux", "vmlinux.map", "plan.json", "tombstones.json", ".")
        one, other, plan, stones, tree = (self.folder / name for name in names)
        return one, other, plan, stones, tree, self.machine.arch

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


Link = Callable[[Path, list[str]], None]


def build(folder: Path, machine: Machine, link: Link | None = None, shared: bool = False) -> Built:
    """Compile, link, and write what verify reads beside vmlinux.

    Args:
        link: makes vmlinux with the linker's command instead of running it once.
        shared: a kernel that checks what it calls.
    """
    edited = folder / ".kprune/plan-0123456789abcdef/objects"
    edited.mkdir(parents=True)
    flags = [*_FLAGS, *machine.flags, *machine.definitions]
    for name, source in (("a", _A), ("b", _B)):
        (folder / f"{name}.c").write_text(source.replace("__x64_sys_", machine.call))
        subprocess.run(["gcc", *flags, f"{name}.c", "-o", f"{name}.o"], cwd=folder, check=True)
    subprocess.run(["gcc", *flags, "-DEDITED", "a.c", "-o", str(edited / "a.o")], cwd=folder, check=True)
    trap = " ".join(f"BYTE({byte:#x})" for byte in machine.trap)
    script = _SCRIPT.replace("BASE", f"{machine.base:#x}").replace("TRAP", trap)
    script = script.replace("CALLS", "" if shared else _CALLS) + _SHARED * shared
    (folder / ".config").write_text("CONFIG_CFI_CLANG=y\n" * shared)
    (folder / "script.lds").write_text(script.replace("__x64_sys_", machine.call))
    words = "-T script.lds -e start -Map=vmlinux.map -o vmlinux --no-warn-rwx-segments"
    command = ["ld", "-m", machine.emulation, *words.split(), str(edited.relative_to(folder) / "a.o"), "b.o"]
    if link is None:
        subprocess.run(command, cwd=folder, check=True)
    else:
        link(folder, command)
    built = Built(folder, machine)
    _write_plan(built)
    stones = [
        {
            "symbol": name,
            "object": "a.o",
            "section": f".text.{name}",
            "names": [name],
            "address": built[name],
            "answer": "",
            "call": False,
        }
        for name in ("gone", "lost")
    ]
    for name in ("away", "gone") if not shared else ():
        entry = f"{machine.call}{name}"
        row = {"object": "a.o", "section": f".text.{entry}", "names": [entry], "answer": "-ENOSYS"}
        stones.append({"symbol": entry, **row, "address": built[entry], "call": True})
    traps = [[_COLD + nth * len(machine.trap), place] for nth, place in enumerate((_COLD, _LATER))]
    trimmed = [{"object": "a.o", "section": ".text.cut", "address": built["cut"], "traps": traps}]
    value = {
        "schema_version": 5,
        "start": built["__kprune_tombstones_start"],
        "tombstones": stones,
        "trimmed": trimmed,
    }
    (folder / "tombstones.json").write_text(json.dumps(value))
    return built


def _write_plan(built: Built) -> None:
    calls = [f"{built.machine.call}{name}" for name in ("away", "gone")]
    dropped = {f".text.{name}" for name in ("lost", "gone", "tick", *calls)}
    units = [
        [
            name,
            section.name,
            section.size,
            "drop" if name == "a.o" and section.name in dropped else "keep",
            "test",
        ]
        for name in ("a.o", "b.o")
        for section in parts(built.folder / name)
        if section.loaded and section.size and not section.name.startswith((".note", ".eh_frame"))
    ]
    freed = (".data.only", ".text.early", ".text.hands")
    units = [[*row[:3], "boot" if row[1] in freed else row[3], row[4]] for row in units]
    units = [unit for unit in units if unit[1] != ".init.text"]
    units += [["a.o", name, size, "keep", "test"] for name, _, size in _PIECES]
    plan = {
        "schema_version": 5,
        "objects": {"a.o": "", "b.o": ""},
        "pieces": [["a.o", ".init.text", _PIECES]],
        "cold": [["a.o", ".text.cut", [[_COLD, _WARM]]]],
        "named": False,
        "stops": [],
        "answers": [
            ["a.o", f".text.{name}", name, "refuse", 0, "-ENOSYS", f"{built.machine.call}ni_syscall"]
            for name in calls
        ],
        "units": units,
    }
    (built.folder / "plan.json").write_text(json.dumps(plan))
    functions = [
        {"object": "a.o", "section": f".text.{name}", "symbol": name, "ran": ran, "seen": [{"app": app}]}
        for name, app, ran in (
            ("start", "boot", []), ("early", "boot", []), ("hands", "boot", []),
            ("cut", "web", [0, _COLD, _WARM, _WARM + 4]),
        )
    ]  # fmt: skip
    (built.folder / "profile.json").write_text(json.dumps({"functions": functions}))


def findings(verdict: Verdict) -> dict[str, list[str]]:
    """Check -> findings, of the checks that failed."""
    assert verdict.ok == all(check.ok for check in verdict.checks)
    return {check.name: list(check.findings) for check in verdict.checks if not check.ok}
