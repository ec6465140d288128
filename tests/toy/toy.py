"""Build, plan, link and run the toy: what the kernel's build does, in a second."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from prune.linking.link import LINK_MAP
from prune.linking.script import named_symbols
from prune.model.assemble import read_image
from prune.model.callgraph import make_call_graph
from prune.model.image import Image
from prune.model.knowledge import Knowledge, read_knowledge
from prune.model.mapfile import read_link_map
from prune.model.tables import find_tables
from prune.plan.answers import find_answers
from prune.plan.plan import make_plan
from prune.plan.plan_file import Plan, save_plan
from prune.plan.policy import Policy
from prune.plan.refusals import find_refusals
from prune.plan.rules import KeepRule
from prune.plan.typed import TypeReader
from prune.verify.verify import Verdict, verify_image
from tests.conftest import image

SOURCES = Path(__file__).parent / "src"
WRAPPER = Path(sys.executable).with_name("kprune-ld")
CFLAGS = (
    "-O1 -ffunction-sections -fdata-sections -ffreestanding -nostdlib -fno-pie -fno-stack-protector "
    "-fcf-protection=none -fno-asynchronous-unwind-tables -fno-ipa-icf -Wall -Werror"
).split()
CLANG_FLAGS = [flag for flag in CFLAGS if flag not in ("-fno-ipa-icf", "-Wall", "-Werror")] + ["-w"]


def link_words(emulation: str) -> list[str]:
    """As kbuild calls it: whole archive of thin members, then the libraries."""
    return (
        f"-m {emulation} -z noexecstack --script=./arch/x86/kernel/vmlinux.lds -o vmlinux "
        "--whole-archive vmlinux.a --no-whole-archive --start-group lib/lib.a --end-group"
    ).split()


LINK = link_words("elf_x86_64")


@dataclass(frozen=True)
class Target:
    """What the toy is built for: more flags, ld's emulation, an option that a configuration has, how names of
    system calls begin."""

    flags: tuple[str, ...]
    emulation: str
    option: str
    calls: str


TARGETS = {
    "x86_64": Target((), "elf_x86_64", "CONFIG_64BIT", "__x64_sys_"),
    # As the kernel is built, arguments in registers: arch/x86/Makefile.
    "i386": Target(("-m32", "-march=i686", "-mregparm=3"), "elf_i386", "CONFIG_X86_32", "__ia32_sys_"),
}
#: What runs when the toy is started without arguments, but for the system call "hot".
HOT = (
    "run",
    "say",
    "say_number",
    "catch",
    "tables",
    "strays",
    "on_fault",
    "kept_twin",
    "hot_with_tail",
    "own_entry",
)


@dataclass(frozen=True)
class Toy:
    """An object tree with the toy in it, linked once without a plan."""

    tree: Path
    arch: str = "x86_64"

    @property
    def target(self) -> Target:
        return TARGETS[self.arch]

    @property
    def knowledge(self) -> Knowledge:
        # The toy's miss path is not the kernel's.
        return replace(read_knowledge(self.arch), roots={"root": [], "barriers": {"symbols": []}})

    def image(self) -> Image:
        return read_image(self.tree, read_link_map(self.tree / "base.map"), self.knowledge)

    def plan(
        self,
        *,
        width: str = "ran",
        rules: tuple[KeepRule, ...] = (),
        healed: tuple[tuple[str, str], ...] = (),
        never: tuple[str, ...] = (),
        small: int = 0,
        also: tuple[str, ...] = (),
        policies: tuple[Policy, ...] = (),
        options: frozenset[str] = frozenset(),
    ) -> Plan:
        """The plan for a profile in which :data:`HOT`, ``also`` and the hot twins ran, but not ``never``;
        ``options`` of the kernel, for ``policies``."""
        image = self.image()
        ran = {
            ("lib/two.o", ".text.clock_read"),
            ("lib/two.o", ".text.native_clock"),
            ("init/one.o", ".text.twin"),
            ("lib/two.o", ".noinstr.text.cold_twin_user"),
        }
        ran |= {
            (obj, f".text.{name}")
            for obj in image.objects
            for name in (*HOT, *also, f"{self.target.calls}hot")
        }
        units = image.unit_of
        hot = {units[place]: "toy" for place in ran if place in units and place[1] not in never}
        graph = make_call_graph(image, find_tables(image, self.knowledge), self.knowledge)
        script = named_symbols((self.tree / "arch/x86/kernel/vmlinux.lds").read_text())
        plan = make_plan(
            image, graph, hot, rules, self.knowledge, build_id="toy", width=width, script_symbols=script,
            healed=dict.fromkeys((units[place] for place in healed), "missed by a boot"), small=small,
        )  # fmt: skip
        if policies:
            types = TypeReader(
                self.tree, dict(zip(image.objects, image.digests, strict=True)), self.knowledge
            )
            answers, unused = find_answers(image, plan.keep, policies, types, self.knowledge, options)
            plan = replace(plan, answers=answers, unused_rules=tuple(map(str, unused)))
        refused = find_refusals(image, plan.keep, policies, self.knowledge)
        plan = replace(plan, answers={**refused, **plan.answers})
        save_plan(plan, self.tree / "plan.json")
        shutil.copy(self.tree / "base.map", self.tree / LINK_MAP)
        return plan

    def link(self, plan: bool, env: dict[str, str] | None = None) -> subprocess.CompletedProcess[str]:
        extra = {"KPRUNE_PLAN": str(self.tree / "plan.json")} if plan else {}
        return subprocess.run(
            [WRAPPER, *link_words(self.target.emulation)], cwd=self.tree,
            env={**os.environ, **extra, **(env or {})}, capture_output=True, text=True, check=False,
        )  # fmt: skip

    def run(self, *arguments: str) -> tuple[int, dict[str, str]]:
        """Exit status, and what it said as label -> value."""
        done = subprocess.run(
            [self.tree / "vmlinux", *arguments], capture_output=True, text=True, check=False, timeout=10
        )
        return done.returncode, dict(line.rsplit(" ", 1) for line in done.stdout.splitlines())

    def verify(self) -> Verdict:
        return verify_image(
            self.tree / "vmlinux", self.tree / "vmlinux.map", self.tree / "plan.json",
            self.tree / "tombstones.json", self.tree, self.arch,
        )  # fmt: skip


def compiled(arch: str, source: str, folder: Path) -> Image:
    """The image of one object made of some C, ``k/one.o``."""
    file = folder / "one.c"
    file.write_text(source)
    subprocess.run(
        ["gcc", *CFLAGS, *TARGETS[arch].flags, "-c", file, "-o", file.with_suffix(".o")], check=True
    )
    return image(folder, {"k/one.o": file.with_suffix(".o").read_bytes()}, knowledge=read_knowledge(arch))


def build(
    tree: Path, flags: Sequence[str] = CFLAGS, more: Sequence[str] = (), compiler: str = "gcc",
    arch: str = "x86_64",
) -> Toy:  # fmt: skip
    """Compile and link the toy without a plan; ``base.map`` is the map of that link.

    Args:
        more: sources that it can do without.
    """
    toy = Toy(tree, arch)
    flags = [*flags, *toy.target.flags]
    others = [(name, "lib") for name in more]
    for name, folder in (("main", "init"), ("one", "init"), ("two", "lib"), *others):
        (tree / folder).mkdir(parents=True, exist_ok=True)
        target = tree / folder / f"{name}.o"
        subprocess.run([compiler, *flags, "-c", SOURCES / f"{name}.c", "-o", target], check=True)
    whole = ["init/main.o", "init/one.o", *(f"{folder}/{name}.o" for name, folder in others)]
    subprocess.run(["ar", "cDPrST", "vmlinux.a", *whole], cwd=tree, check=True)
    subprocess.run(["ar", "cDPrsT", "lib/lib.a", "lib/two.o"], cwd=tree, check=True)
    script = tree / "arch/x86/kernel/vmlinux.lds"
    script.parent.mkdir(parents=True)
    (tree / ".config").write_text(f"{toy.target.option}=y\n")
    shutil.copy(SOURCES / "toy.lds", script)
    done = toy.link(plan=False)
    assert done.returncode == 0, done.stderr
    shutil.copy(tree / "vmlinux.map", tree / "base.map")
    shutil.copy(tree / "vmlinux", tree / "base")
    return toy
