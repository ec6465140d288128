"""kprune-ld is ld itself for every call but one: the link of vmlinux."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from prune.linking.ld import module_argument, output_of, script_argument

WRAPPER = Path(sys.executable).with_name("kprune-ld")
LDS = "arch/x86/kernel/vmlinux.lds"


@pytest.mark.parametrize(
    ("words", "at"),
    [
        (f"-m elf_x86_64 --script=./{LDS} -o vmlinux", 2),
        (f"--script={LDS} -o .tmp_vmlinux.kallsyms1", 0),
        (f"-o vmlinux --script=/build/obj/{LDS}", 2),
        (f"-o vmlinux --script {LDS}", 3),
        ("-T arch/arm64/kernel/vmlinux.lds -o vmlinux", 1),
        (f"-r --script={LDS} -o vmlinux.o", None),
        (f"--script={LDS} --relocatable -o vmlinux.o", None),
        ("-T arch/x86/boot/compressed/vmlinux.lds -o arch/x86/boot/compressed/vmlinux", None),
        ("-T arch/x86/boot/setup.ld -o arch/x86/boot/setup.elf", None),
        ("-T arch/x86/realmode/rm/realmode.lds -o arch/x86/realmode/rm/realmode.elf", None),
        ("-r --script=scripts/module.lds -o x.ko", None),
        ("-T arch/x86/entry/vdso/vdso.lds -shared -o vdso64.so.dbg", None),
        ("-T myarch/x86/kernel/vmlinux.lds -o vmlinux", None),
        (f"-T {LDS}.S -o vmlinux", None),
        (f"-o {LDS} a.o", None),
        ("--version", None),
        ("", None),
    ],
)
def test_only_the_kernels_own_link_is_recognised(words: str, at: int | None) -> None:
    assert script_argument(words.split()) == at


@pytest.mark.parametrize(
    ("words", "at"),
    [
        ("-m elf_x86_64 -r -T scripts/module.lds -o x.ko x.o x.mod.o", 4),
        ("-r --script=/obj/scripts/module.lds -o x.ko", 1),
        ("-r -T arch/arm64/kernel/module.lds -o x.ko", None),
        ("-r -T arch/arm64/module.lds -o x.ko", 2),
        ("-T scripts/module.lds -o x.ko", None),
        (f"-r --script={LDS} -o vmlinux.o", None),
        ("-r -o x.o a.o b.o", None),
    ],
)
def test_only_the_last_link_of_a_module_is_recognised(words: str, at: int | None) -> None:
    assert module_argument(words.split()) == at


def test_a_module_has_one_section_for_its_functions_and_its_link_is_recorded(tree: Path) -> None:
    (tree / "scripts").mkdir()
    (tree / "scripts/module.lds").write_text("SECTIONS {\n __ksymtab 0 : { *(SORT(___ksymtab+*)) }\n}\n")
    (tree / "m.c").write_text("int one(void) { return 1; }\nint two(void) { return 2; }\n")
    compiled = ["gcc", "-c", "-ffunction-sections", "m.c", "-o", "m.o"]
    subprocess.run(compiled, cwd=tree, check=True)
    done = wrapper(tree, "-r", "-T", "scripts/module.lds", "-o", "drivers-m.ko", "m.o")
    assert done.returncode == 0, done.stderr
    shown = subprocess.run(
        ["readelf", "-SW", "drivers-m.ko"], cwd=tree, capture_output=True, text=True, check=True
    ).stdout
    assert ".text.one" not in shown and " .text " in shown
    recorded = json.loads((tree / ".kprune/modules/drivers-m.ko.json").read_text())
    assert recorded["argv"][-1] == "m.o"
    assert ".text.two" in (tree / ".kprune/modules/drivers-m.ko.map").read_text()


def test_the_output_is_what_ld_writes() -> None:
    assert output_of(["-o", "vmlinux", "x.o"]) == "vmlinux"
    assert output_of(["x.o"]) == "a.out"


def wrapper(folder: Path, *words: str, **environment: str) -> subprocess.CompletedProcess[str]:
    env = {name: value for name, value in os.environ.items() if not name.startswith("KPRUNE_")}
    return subprocess.run(
        [WRAPPER, *words], cwd=folder, env={**env, **environment}, capture_output=True, text=True, check=False
    )


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """An object tree with one function and a kernel-like script."""
    (tmp_path / "arch/x86/kernel").mkdir(parents=True)
    (tmp_path / LDS).write_text(
        "ENTRY(f)\nSECTIONS\n{\n .text : { *(.text) } .data : { *(.data) } .bss : { *(.bss) } "
        "/DISCARD/ : { *(.comment) *(.note*) }\n}\n"
    )
    flags = "-O1 -ffunction-sections -fno-asynchronous-unwind-tables -x c -c - -o x.o".split()
    subprocess.run(["gcc", *flags], cwd=tmp_path, input="int f(void) { return 1; }", text=True, check=True)
    return tmp_path


def leftovers(tree: Path) -> set[str]:
    return {str(p.relative_to(tree)) for p in tree.rglob("*") if p.is_file()} - {LDS, "x.o"}


def test_other_calls_are_ld_itself(tree: Path) -> None:
    plain = subprocess.run(["ld", "--version"], capture_output=True, text=True, check=True).stdout
    assert wrapper(tree, "--version").stdout == plain
    assert wrapper(tree, "-r", "x.o", "-o", "y.o").returncode == 0
    ours = (tree / "y.o").read_bytes()
    subprocess.run(["ld", "-r", "x.o", "-o", "y.o"], cwd=tree, check=True)
    assert ours == (tree / "y.o").read_bytes() and leftovers(tree) == {"y.o"}


def test_a_plan_does_not_touch_other_calls(tree: Path) -> None:
    done = wrapper(tree, "-r", f"--script={LDS}", "x.o", "-o", "vmlinux.o", KPRUNE_PLAN="/nowhere/plan.json")
    assert done.returncode == 0 and leftovers(tree) == {"vmlinux.o"}


def test_lds_own_failure_is_passed_on(tree: Path) -> None:
    done = wrapper(tree, "nowhere.o", "-o", "x")
    assert done.returncode == 1 and "nowhere.o" in done.stderr


def test_the_kernels_link_leaves_a_map_and_how_to_repeat_it(tree: Path) -> None:
    words = [f"--script=./{LDS}", "-o", "vmlinux", "x.o"]
    assert wrapper(tree, *words).returncode == 0
    assert leftovers(tree) == {"vmlinux", "vmlinux.map", "link.json", ".kprune/vmlinux.lds"}
    value = json.loads((tree / "link.json").read_text())
    assert (value["script"], value["argv"]) == (LDS, words)
    assert "*(.text.[0-9a-zA-Z_]*)" in (tree / ".kprune/vmlinux.lds").read_text()
    assert ".text.f" in (tree / "vmlinux.map").read_text()


def test_an_intermediate_link_leaves_no_map(tree: Path) -> None:
    """Of up to four links of vmlinux, only the last is what boots."""
    assert wrapper(tree, f"--script={LDS}", "-o", ".tmp_vmlinux.kallsyms1", "x.o").returncode == 0
    assert leftovers(tree) == {".tmp_vmlinux.kallsyms1", ".kprune/vmlinux.lds"}


def test_the_users_own_map_is_made_too(tree: Path) -> None:
    """CONFIG_VMLINUX_MAP."""
    assert wrapper(tree, f"--script={LDS}", "-Map=mine.map", "-o", "vmlinux", "x.o").returncode == 0
    assert (tree / "mine.map").read_text() == (tree / "vmlinux.map").read_text()


def one_clear_error(done: subprocess.CompletedProcess[str], code: int, says: str) -> None:
    assert done.returncode == code, done
    assert says in done.stderr and done.stderr.startswith("kprune-ld: ") and done.stderr.count("\n") == 1


def test_no_linker_is_exit_3(tree: Path) -> None:
    one_clear_error(wrapper(tree, "x.o", KPRUNE_LD="no-such-linker"), 3, "no-such-linker")


def test_the_linker_can_be_another_one(tree: Path) -> None:
    (tree / "my-ld").write_text("#!/bin/sh\necho mine\n")
    (tree / "my-ld").chmod(0o755)
    assert wrapper(tree, "x.o", KPRUNE_LD=str(tree / "my-ld")).stdout == "mine\n"


def test_a_plan_that_is_not_there_is_named(tree: Path) -> None:
    done = wrapper(tree, f"--script={LDS}", "-o", "vmlinux", "x.o", KPRUNE_PLAN="plan.json")
    one_clear_error(done, 2, "plan.json does not exist")
    assert leftovers(tree) == set()


@pytest.mark.parametrize("text", ["", "{", "[]", '{"schema_version": 1}', '{"schema_version": 7}'])
def test_what_is_no_plan_is_refused(tree: Path, text: str) -> None:
    (tree / "plan.json").write_text(text)
    (tree / "vmlinux.base.map").write_text("the map of the first link\n")
    done = wrapper(tree, f"--script={LDS}", "-o", "vmlinux", "x.o", KPRUNE_PLAN="plan.json")
    one_clear_error(done, 2, "plan.json")
    assert leftovers(tree) == {"plan.json", "vmlinux.base.map"}


def test_a_plan_without_its_map_is_refused(tree: Path) -> None:
    (tree / "plan.json").write_text("{}")
    done = wrapper(tree, f"--script={LDS}", "-o", "vmlinux", "x.o", KPRUNE_PLAN="plan.json")
    one_clear_error(done, 2, "vmlinux.base.map: No such file")
    assert leftovers(tree) == {"plan.json"}


def test_a_script_that_is_no_kernels_is_refused(tree: Path) -> None:
    (tree / LDS).write_text("SECTIONS { .data : { *(.data) } }\n")
    done = wrapper(tree, f"--script={LDS}", "-o", "vmlinux", "x.o")
    one_clear_error(done, 2, "places no .text sections")
    assert leftovers(tree) == set()


def test_a_script_that_is_not_there_is_named(tree: Path) -> None:
    (tree / LDS).unlink()
    one_clear_error(wrapper(tree, f"--script={LDS}", "-o", "vmlinux", "x.o"), 2, f"{LDS}: No such file")


def test_a_script_that_is_no_text_is_named(tree: Path) -> None:
    (tree / LDS).write_bytes(b"\xff\xfe")
    one_clear_error(wrapper(tree, f"--script={LDS}", "-o", "vmlinux", "x.o"), 2, LDS)


def test_a_folder_that_cannot_be_made_is_named(tree: Path) -> None:
    (tree / ".kprune").write_text("in the way")
    one_clear_error(wrapper(tree, f"--script={LDS}", "-o", "vmlinux", "x.o"), 3, ".kprune")
