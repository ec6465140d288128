"""A small module: linked as kbuild links one, pruned, proved, and linked into a program that is executed."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from prune.build.kbuild import RELEASE, KernelBuild
from prune.build.modules import load_modules, read_modules, save_modules, shipped
from prune.build.source import Source
from prune.folder import Folder
from prune.model.elf import read_object
from prune.model.knowledge import read_knowledge
from prune.modules.link import link_modules
from prune.modules.model import read_module_model
from prune.modules.plan import ModulePlan, plan_modules, save_module_plans
from prune.plan.policy import STOP
from prune.verify.modules import check_modules
from tests.unit.test_stale import PROFILE
from tracer.profiles.profile import Profile, Seen, records
from tracer.profiles.symbols import Identity

X86 = read_knowledge("x86_64")
#: Flags of the compiler, ld's emulation, flags of the assembler.
TARGETS = {
    "x86_64": (["-mcmodel=kernel"], "elf_x86_64", "--64"),
    "i386": (["-m32", "-mregparm=3"], "elf_i386", "--32"),
}
CFLAGS = (
    "-O1 -fno-pic -ffunction-sections -fdata-sections -fcf-protection=none -fno-asynchronous-unwind-tables"
).split()
KPRUNE_LD = Path(sys.executable).with_name("kprune-ld")
LDS = """SECTIONS {
 /DISCARD/ : { *(.discard) *(.discard.*) }
 __ksymtab 0 : { *(SORT(___ksymtab+*)) }
 __bug_table 0 : { KEEP(*(__bug_table)) }
}
"""
#: hot calls by a static pointer what it is told to, both by the table of a file system's; cold_by_name is
#: exported and asks for more of the kernel.
MODULE = r"""
extern int from_kernel(int), only_for_cold(int);
#define LARGE asm volatile(".skip 40, 0x90")
/* An entry as 7.3 has them: of 16 bytes, of which either half begins with a field that a relocation fills. */
#define TEXT ".pushsection .rodata.str1.1,\"aMS\",@progbits,1\n2: .asciz \"a.c\"\n .popsection\n"
#define ENTRY ".pushsection __bug_table,\"aw\"\n3: .long 1b - ., 2b - ., 2b - .\n .word 1, 0\n .popsection\n"
#define WARN asm volatile("1: nop\n" TEXT ENTRY)
#ifdef __x86_64__
#define HAND_ON "lea 3b(%%rip), %%rax"
#else
#define HAND_ON "mov $3b, %%eax"
#endif
/* It hands the address of its entry on. */
#define WARN_BY_ADDRESS asm volatile("1: nop\n" TEXT ENTRY HAND_ON ::: "eax")
static int __attribute__((noinline)) cold(int x) { LARGE; return only_for_cold(x) + 1; }
static int __attribute__((noinline)) warm(int x) { return from_kernel(x) * 2; }
static int (*const way[])(int) = { warm, cold };
int hot(int which, int x) { WARN; return way[which](x); }
int cold_by_name(int x) {
    LARGE;
    WARN;
    return only_for_cold(x) + 2;
}
int calls_cold(int x) { LARGE; return cold_by_name(x) + 1; }
/* The kernel calls it under a lock. */
static int __attribute__((noinline)) toy_rmdir(int x) { LARGE; return x + 7; }
int (*const toy_dir_inode_operations[])(int) = { toy_rmdir };
int both(int which, int x) {
    WARN_BY_ADDRESS;
    return which == 2 ? toy_dir_inode_operations[x - 1](x) : which ? calls_cold(x) : hot(0, x);
}
#define ROW(n) "__ksymtab_" #n ": .long " #n " - ., 0, 0\n.previous"
#define EXPORT(n) asm(".section \"___ksymtab+" #n "\",\"a\"\n" ROW(n))
EXPORT(cold_by_name);
EXPORT(hot);
"""
STRUCT = """
int hot(int, int), both(int, int);
int init_module(void) { return hot(0, 1); }
struct { char pad[24]; char name[56]; int (*init)(void); } __this_module
    __attribute__((section(".gnu.linkonce.this_module"))) = { .name = "toy", .init = init_module };
"""
#: Another module, which needs what toy exports.
USER = "int cold_by_name(int); int uses(int x) { return cold_by_name(x); }\n"
USER_STRUCT = """
struct { char pad[24]; char name[56]; } __this_module
    __attribute__((section(".gnu.linkonce.this_module"))) = { .name = "user" };
"""
MAIN = r"""
#include <stdio.h>
#include <stdlib.h>
int from_kernel(int x) { return x + 40; }
int only_for_cold(int x) { return x + 50; }
int both(int, int), hot(int, int);
int main(int n, char **v) {
    int which = atoi(v[1]);
    printf("%d\n", which < 2 ? hot(which, 1) : both(which - 2, 1));
    return 0;
}
"""


@pytest.fixture
def made(tmp_path: Path, request: pytest.FixtureRequest) -> tuple[KernelBuild, Folder]:
    """Two modules as a build leaves them, and a run's folder that ships both."""
    arch = getattr(request, "param", "x86_64")
    flags, emulation, _ = TARGETS[arch]
    build = KernelBuild("production", Source(tmp_path, "6.1.0", ""), arch, "CONFIG_MODULES=y\n", tmp_path)
    tree = build.objtree
    (tree / "scripts").mkdir(parents=True)
    (tree / "scripts/module.lds").write_text(LDS)
    (tree / ".config").write_text(build.config)
    (tree / RELEASE).parent.mkdir(parents=True)
    (tree / RELEASE).write_text("6.1.0\n")
    for name, text, struct in (("toy", MODULE, STRUCT), ("user", USER, USER_STRUCT)):
        for source, content in ((name, text), (f"{name}.mod", struct)):
            (tree / f"{source}.c").write_text(content)
            words = ["gcc", "-c", *CFLAGS, *flags]
            subprocess.run([*words, f"{source}.c", "-o", f"{source}.o"], cwd=tree, check=True)
        link = [
            "-m",
            emulation,
            "-r",
            "-T",
            "scripts/module.lds",
            "-o",
            f"{name}.ko",
            f"{name}.o",
            f"{name}.mod.o",
        ]
        subprocess.run([KPRUNE_LD, *link], cwd=tree, check=True)
    folder = Folder(tmp_path / "out")
    paths = ["toy.ko", "user.ko"]
    save_modules(
        shipped(read_modules(tree, paths, read_knowledge(arch).machine), ["*"]),
        "6.1.0",
        folder.base("modules"),
    )
    for path in paths:
        (folder.base("modules") / path).write_bytes((tree / path).read_bytes())
    return build, folder


def profile(*functions: str) -> Profile:
    seen = {Identity("toy.o", f".text.{name}", name): [Seen("app", "blocks", 1)] for name in functions}
    seen |= {Identity("user.o", ".text.uses", "uses"): [Seen("app", "blocks", 1)]}
    return replace(PROFILE, functions=records(seen))


def plans(build: KernelBuild, folder: Folder, known: Profile | None) -> tuple[ModulePlan, ...]:
    listed = load_modules(folder.path("base"))
    knowledge = read_knowledge(build.arch)
    models = [model for m in listed if (model := read_module_model(build.objtree, m, knowledge))]
    return plan_modules(models, known, (), knowledge, "id")


HOT = ("hot", "warm", "both")


@pytest.fixture
def pruned(made: tuple[KernelBuild, Folder]) -> tuple[KernelBuild, Folder]:
    """The same, linked by a plan for what was hot."""
    build, folder = made
    save_module_plans(plans(build, folder, profile(*HOT)), folder.module_plans)
    link_modules(build, folder, read_knowledge(build.arch))
    _, emulation, bits = TARGETS[build.arch]
    exports = "".join(
        f".globl __ksymtab_{n}\n__ksymtab_{n}: .long 0\n" for n in ("from_kernel", "only_for_cold")
    )
    into = folder.path("pruned")
    (into / "v.s").write_text(f".data\n{exports}")
    subprocess.run(["as", bits, "v.s", "-o", "v.o"], cwd=into, check=True)
    subprocess.run(["ld", "-m", emulation, "-e", "0", "v.o", "-o", "vmlinux"], cwd=into, check=True)
    return made


def run(folder: Path, argument: int) -> subprocess.CompletedProcess[str]:
    """The module of a folder in a program; what it does for an argument."""
    (folder / "main.c").write_text(MAIN)
    subprocess.run(["gcc", "-no-pie", "main.c", "toy.ko", "-o", "main"], cwd=folder, check=True)
    return subprocess.run([folder / "main", str(argument)], capture_output=True, text=True, check=False)


def test_what_ran_stays_and_what_nobody_needs_goes(made: tuple[KernelBuild, Folder]) -> None:
    toy, user = plans(*made, profile(*HOT))
    rows = zip(toy.plan.units, toy.plan.keep.tolist(), toy.plan.reason, strict=True)
    fate = {section: (keep, why) for (_, section, _), keep, why in rows}
    assert fate[".text.hot"] == (True, "ran: app (blocks)")
    assert not any(fate[f".text.{name}"][0] for name in ("cold", "cold_by_name", "calls_cold", "toy_rmdir"))
    assert {answer.function: answer.on_miss for answer in toy.plan.answers.values()} == {"toy_rmdir": STOP}
    assert fate[".text.init_module"] == (True, "root: the loader calls it")
    assert fate["___ksymtab+cold_by_name"] == (True, "exported, and needed by user")
    assert not fate["___ksymtab+hot"][0]
    assert toy.needs == ("from_kernel",) and user.needs == ("cold_by_name",)


def test_a_module_that_nobody_saw_run_stays_whole(
    made: tuple[KernelBuild, Folder], capsys: pytest.CaptureFixture[str]
) -> None:
    toy, _ = plans(*made, None)
    rows = zip(toy.plan.units, toy.plan.keep.tolist(), strict=True)
    assert [section for (_, section, _), keep in rows if not keep] == ["___ksymtab+hot"]
    assert toy.needs == ("from_kernel", "only_for_cold")
    assert "module toy: no block coverage saw it run; it stays whole" in capsys.readouterr().err


def test_the_pruned_module_runs_what_it_has_and_traps_on_the_rest(
    pruned: tuple[KernelBuild, Folder],
) -> None:
    build, folder = pruned
    modules = folder.pruned("modules")
    assert [run(build.objtree, n).stdout.strip() for n in range(5)] == ["82", "52", "82", "54", "8"]
    assert run(modules, 0).stdout.strip() == run(modules, 2).stdout.strip() == "82"
    for argument in (1, 3):
        assert run(modules, argument).returncode == -signal.SIGILL
    assert run(modules, 4).returncode == -signal.SIGTRAP


def test_a_tombstone_is_a_symbol_of_the_module_by_which_an_oops_names_it(
    pruned: tuple[KernelBuild, Folder],
) -> None:
    modules = pruned[1].pruned("modules")
    shown = subprocess.run(["nm", modules / "toy.ko"], capture_output=True, text=True, check=True).stdout
    kinds = {line.split()[-1]: line.split()[-2] for line in shown.splitlines()}
    listed = json.loads((modules / "tombstones.json").read_text())["modules"]["toy"]
    assert {row["symbol"] for row in listed} == {"cold", "cold_by_name", "calls_cold", "toy_rmdir"}
    assert all(kinds[name].upper() == "T" for row in listed for name in row["names"])
    assert "only_for_cold" not in kinds
    # The entry about the dropped function went.
    file = read_object(modules / "toy.ko", X86.machine)
    sizes = dict(zip(file.section_names, file.sections["size"].tolist(), strict=True))
    assert sizes["__bug_table"] == 2 * 16


@pytest.mark.parametrize("made", TARGETS, indirect=True)
def test_what_was_linked_is_proved(pruned: tuple[KernelBuild, Folder]) -> None:
    build, folder = pruned
    check = check_modules(folder.path("pruned"), folder.module_plans, build.objtree, build.arch)
    assert check.ok, check.findings
    assert check.checked > 30


def _symbol_at(path: Path, name: str) -> int:
    """Where in the file of a module a symbol's bytes are."""
    file = read_object(path, X86.machine)
    row = next(i for i in range(len(file.symbols)) if file.symbol_name(i) == name)
    return int(file.sections["offset"][file.shndx[row]]) + int(file.symbols["value"][row])


@pytest.mark.parametrize(
    ("name", "by", "finding"),
    [
        ("calls_cold", b"\xc3", "the tombstone of toy.o:.text.calls_cold holds no trap"),
        ("toy_rmdir", b"\xd6", "the tombstone of toy.o:.text.toy_rmdir holds no trap"),
        ("hot", b"\xc3", "toy.o:.text.hot is not what the compiler made"),
        ("__this_module", b"\x01", "this_module is not what the compiler made"),
    ],
)
def test_a_changed_byte_is_found(
    pruned: tuple[KernelBuild, Folder], name: str, by: bytes, finding: str
) -> None:
    build, folder = pruned
    path = folder.pruned("modules") / "toy.ko"
    data, at = bytearray(path.read_bytes()), _symbol_at(path, name)
    assert data[at : at + 1] != by
    data[at : at + 1] = by
    path.write_bytes(data)
    check = check_modules(folder.path("pruned"), folder.module_plans, build.objtree, "x86_64")
    assert any(finding in each for each in check.findings), check.findings


def test_a_relocation_that_leads_elsewhere_is_found(pruned: tuple[KernelBuild, Folder]) -> None:
    build, folder = pruned
    path = folder.pruned("modules") / "toy.ko"
    file, data = read_object(path, X86.machine), bytearray(path.read_bytes())
    index = file.section_names.index(".rela.text")
    at = int(file.sections["offset"][index]) + 16  # the addend of the first one
    data[at] ^= 0x10
    path.write_bytes(data)
    check = check_modules(folder.path("pruned"), folder.module_plans, build.objtree, "x86_64")
    assert not check.ok and any("toy: toy.o:.text" in each for each in check.findings)


def test_a_warning_by_another_ones_entry_is_found(pruned: tuple[KernelBuild, Folder]) -> None:
    """In 7.x WARN() hands the address of its entry on, which moves when others go."""
    build, folder = pruned
    path = folder.pruned("modules") / "toy.ko"
    file, data = read_object(path, X86.machine), bytearray(path.read_bytes())
    index, table = file.section_names.index(".rela.text"), file.section_names.index("__bug_table")
    start, size = (int(file.sections[column][index]) for column in ("offset", "size"))
    changed = 0
    for at in range(start, start + size, 24):
        symbol = int.from_bytes(data[at + 12 : at + 16], "little")
        if file.shndx[symbol] == table:
            addend = int.from_bytes(data[at + 16 : at + 24], "little", signed=True)
            data[at + 16 : at + 24] = (addend - 16).to_bytes(8, "little", signed=True)
            changed += 1
    assert changed == 1
    path.write_bytes(data)
    check = check_modules(folder.path("pruned"), folder.module_plans, build.objtree, "x86_64")
    assert any("refers to another entry of __bug_table" in each for each in check.findings), check.findings


def test_a_need_that_no_kernel_has_is_found(pruned: tuple[KernelBuild, Folder]) -> None:
    build, folder = pruned
    into = folder.path("pruned")
    (into / "v.s").write_text(".data\n.globl __ksymtab_other\n__ksymtab_other: .long 0\n")
    subprocess.run(["as", "v.s", "-o", "v.o"], cwd=into, check=True)
    subprocess.run(["ld", "-e", "0", "v.o", "-o", "vmlinux"], cwd=into, check=True)
    check = check_modules(into, folder.module_plans, build.objtree, "x86_64")
    assert "toy needs from_kernel, which nothing exports" in check.findings
