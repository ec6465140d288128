"""Targets: objects, link maps and linked kernels, for the side that writes and for the side that proves."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path
from random import Random

import numpy as np

from prune.guests.boots import read_pruned
from prune.guests.counters import read_kernel_file
from prune.ledger.paint import true_sizes
from prune.linking.generate import generate
from prune.linking.nameless import hide_tombstones, tombstone_addresses
from prune.model.buildid import build_id
from prune.model.knowledge import Knowledge, read_knowledge
from prune.model.mapfile import read_link_map
from prune.model.refine import refine
from prune.model.store import Stored, stored
from prune.plan.dwarf_types import read_function_types
from prune.plan.plan_file import Answer, Plan, load_plan, save_plan
from prune.verify.elf import read_linked
from prune.verify.read import read_facts, read_map, relocation_widths
from prune.verify.verify import verify_image
from prune.verify.wide import read_object
from tests.conftest import X86
from tests.fuzz.harness import Target
from tests.fuzz.mutate import HOSTILE, of_bytes, of_elf, of_json, of_some, of_text
from tests.objects import parse_object
from tests.unit.elfwriter import LOCAL, Rela, Section, Symbol, write_elf, write_map
from tests.unit.test_edit import HOSTILE as TABLES
from tests.unit.test_linkmap import MAP
from tests.unit.test_script import LDS
from tests.unit.test_store import OTHER, SOURCE
from tests.unit.test_verify_kallsyms import _real, made
from tests.unit.verify_program import MACHINES

Run = Callable[[bytes, Path], object]
KINDS = tuple(read_knowledge(machine.arch) for machine in MACHINES)
I386 = next(kind for kind in KINDS if kind.arch == "i386")
_FLAGS = (
    "-fno-pic -fno-pie -fcf-protection=none -fno-asynchronous-unwind-tables -c -O1 -ffunction-sections "
    "-fdata-sections"
).split()


def _code(bits: int) -> bytes:
    return write_elf(
        [Section(".text.f", bytes(12)), Section(".text.g"), Section(".text.h")],
        [Symbol("f", ".text.f"), Symbol("g", ".text.g"), Symbol("h", ".text.h", bind=LOCAL)],
        [Rela(".text.f", 1, "g"), Rela(".text.f", 6, "h")],
        bits=bits,
    )


_CODE = _code(64)


def _objects_of(flags: Sequence[str], written: Sequence[bytes]) -> Callable[[Path], list[bytes]]:
    """From a compiler, with code that is taken apart; and written, with tables and strings, and small."""

    def samples(folder: Path) -> list[bytes]:
        (folder / "a.c").write_text(SOURCE)
        subprocess.run(["gcc", *_FLAGS, *flags, "a.c", "-o", "a.o"], cwd=folder, check=True)
        return [(folder / "a.o").read_bytes(), *written]

    return samples


_types, _types_32 = (_objects_of(["-g", *more], []) for more in ([], ["-m32"]))
_objects = _objects_of(["-mcmodel=kernel"], [OTHER, TABLES, _CODE])
_objects_32 = _objects_of(["-m32"], [_code(32)])


def _named(random: Random, _: Sequence[bytes]) -> bytes:
    """A sound object whose names would do harm."""
    one, two, three = (random.choice(HOSTILE).replace("\0", "") for _ in range(3))
    sections = [Section(f".text.{one}", bytes(12)), Section(".text.g"), Section(f"{two}x")]
    symbols = [Symbol(one, f".text.{one}"), Symbol(three, ".text.g"), Symbol("local", ".text.g", bind=LOCAL)]
    relocations = [
        Rela(f".text.{one}", 1, three),
        Rela(f".text.{one}", 6, ".text.g"),
        Rela(f".text.{one}", 7, "local"),
    ]
    return write_elf(sections, symbols, relocations)


def _object(knowledge: Knowledge) -> Run:
    return lambda data, _: refine(parse_object(Path("a.o"), data, knowledge.machine), knowledge)


def _typed(knowledge: Knowledge) -> Run:
    return lambda data, _: read_function_types(Path("a.o"), data, knowledge)


def _image(knowledge: Knowledge, beside: bytes) -> Run:
    """An object tree with a hostile object among sound ones: read, pruned, written, all but linked."""

    def run(data: bytes, folder: Path) -> object:
        tree, placed = folder / "tree", {}
        for name, content in (("a.o", data), ("lib/b.o", beside)):
            (tree / name).parent.mkdir(parents=True, exist_ok=True)
            (tree / name).write_bytes(content)
            file = parse_object(Path(name), content, knowledge.machine)
            rows = zip(file.section_names, file.sections, strict=True)
            placed[name] = [(section, int(row["size"])) for section, row in rows if row["flags"] & 2]
        (tree / "x.map").write_text(write_map(placed, {"a.o"}), errors="surrogateescape")
        return _pruned(tree, stored(tree, tree / "x.map", knowledge), knowledge)

    return run


def _pruned(tree: Path, made: Stored, knowledge: Knowledge) -> object:
    """What a link gets by a plan that drops every second function, and what is said of it."""
    image, count = made.image, len(made.image.units)
    keep = np.ones(count, bool)
    keep[np.flatnonzero(image.units["function"])[::2]] = False
    gone = [image.rows[unit][:2] for unit in np.flatnonzero(~keep).tolist()]
    answers = {
        place: Answer(place[1], ("return", "panic")[n % 2], -n, f"-{n}", "") for n, place in enumerate(gone)
    }
    plan = Plan(
        knowledge.arch, "", "ran", (), image.rows, keep, np.zeros_like(keep), [""] * count, image.pieces,
        answers=answers,
    )  # fmt: skip
    save_plan(plan, tree / "plan.json")
    (tree / "vmlinux.lds").write_text(LDS)
    (tree / ".config").write_text("CONFIG_A=y\n")
    home = Path(".kprune/plan-0123456789abcdef")
    ready = generate(Path("vmlinux.lds"), load_plan(tree / "plan.json"), home, tree, image, made.tables)
    ready.describe()
    return ready.prepared


def _map(data: bytes, folder: Path) -> object:
    (folder / "x.map").write_bytes(data)
    found = read_link_map(folder / "x.map")
    true_sizes(found)
    return found


@cache
def _sound() -> list[tuple[str, bytes]]:
    return [("a.o", _CODE), ("lib/b.o", OTHER)]


def _map_of_objects(data: bytes, folder: Path) -> object:
    """A hostile map of sound objects."""
    tree = folder / "tree"
    for name, content in _sound():
        (tree / name).parent.mkdir(parents=True, exist_ok=True)
        (tree / name).write_bytes(content)
    (folder / "harm").write_bytes(_CODE)
    (folder / "harm.o").write_bytes(_CODE)
    (tree / "x.map").write_bytes(data)
    before = sorted(path for path in folder.iterdir())
    made = _pruned(tree, stored(tree, tree / "x.map", X86), X86)
    assert sorted(folder.iterdir()) == before, "something was written beside the tree"
    assert (folder / "harm").read_bytes() == (folder / "harm.o").read_bytes() == _CODE
    return made


def _maps(_: Path) -> list[bytes]:
    placed = {}
    for name, content in _sound():
        file = parse_object(Path(name), content)
        rows = zip(file.section_names, file.sections, strict=True)
        placed[name] = [(section, int(row["size"])) for section, row in rows if row["flags"] & 2]
    made = [write_map(placed), write_map(placed, {"a.o"})]
    return [
        text.encode()
        for text in (*made, made[0].replace("a.o", "../harm.o"), made[1].replace("a.o", "/harm"))
    ]


def _lld_maps(folder: Path) -> list[bytes]:
    """What lld says of a small link, with its inputs as kprune-ld appends them."""
    from prune.model.lldmap import INPUTS

    for name, data in (("a.o", _CODE), ("b.o", write_elf([Section(".text.x")], [Symbol("x", ".text.x")]))):
        (folder / name).write_bytes(data)
    (folder / "x.lds").write_text(
        "SECTIONS { .text : { *(.text*) *(.init*) BYTE(1) } .data : { *(.data*) } }"
    )
    command = (
        "ld.lld -T x.lds -Map=x.map --noinhibit-exec --unresolved-symbols=ignore-all -o x a.o b.o --trace"
    )
    done = subprocess.run(command.split(), cwd=folder, check=True, capture_output=True, text=True)
    return [((folder / "x.map").read_text() + INPUTS + done.stdout).encode()]


def _sound_kernel(folder: Path, arch: str) -> Path:
    """A kernel that verify finds nothing in, kallsyms and all; made once for the process."""
    home = folder.parent / arch
    if not home.is_dir():
        home.mkdir()
        made(home, next(machine for machine in MACHINES if machine.arch == arch), _real)
    return home


def _sample_of(name: str, arch: str = "x86_64") -> Callable[[Path], list[bytes]]:
    return lambda folder: [(_sound_kernel(folder, arch) / name).read_bytes()]


def _verifying(name: str, arch: str = "x86_64") -> Run:
    """Verify a sound kernel of which one file is hostile."""

    def run(data: bytes, folder: Path) -> object:
        tree = folder / "tree"
        shutil.copytree(folder.parent / arch, tree)
        (tree / name).write_bytes(data)
        files = [tree / each for each in ("vmlinux", "vmlinux.map", "plan.json", "tombstones.json")]
        return str(verify_image(files[0], files[1], files[2], files[3], tree, arch))

    return run


def _vmlinux(data: bytes, folder: Path) -> object:
    """All that reads a linked kernel."""
    path = folder / "vmlinux"
    path.write_bytes(data)
    refused = None
    for read in (build_id, read_linked, read_kernel_file, tombstone_addresses, hide_tombstones):
        try:
            read(path)
        except Exception as error:
            from tracer.host import KpruneError

            if not isinstance(error, KpruneError):
                raise
            refused = error
    if refused:
        raise refused
    return None


def _system_map(data: bytes, folder: Path) -> object:
    (folder / "System.map").write_bytes(data)
    stones = '{"schema_version": 5, "tombstones": [], "freed": [], "trimmed": []}'
    (folder / "tombstones.json").write_text(stones)
    found = read_pruned(folder, False)
    return found.name_of(0xFFFFFFFF81000010), found.name_of(0)


def _verify_map(data: bytes, folder: Path) -> object:
    (folder / "vmlinux.map").write_bytes(data)
    return read_map(folder / "vmlinux.map", read_linked(folder.parent / "x86_64" / "vmlinux"))


def _original(arch: str, word: int) -> Run:
    widths = relocation_widths(read_facts(arch, word))

    def run(data: bytes, folder: Path) -> object:
        (folder / "a.o").write_bytes(data)
        return read_object(folder, "a.o", widths)

    return run


_OBJECTS = of_some(of_elf, of_elf, _named)
_SYSTEM_MAP = (
    b"ffffffff81000000 T _text\nffffffff81000010 t f\nffffffff81000020 D data\n0000000000000000 A x\n"
)

TARGETS = [
    Target("object", _objects, _object(X86), _OBJECTS),
    Target("object_32", _objects_32, _object(I386), of_elf),
    Target("types", _types, _typed(X86), of_some(of_elf, of_bytes)),
    Target("types_32", _types_32, _typed(I386), of_some(of_elf, of_bytes)),
    Target("image", _objects, _image(X86, OTHER), _OBJECTS, weight=8),
    Target("image_32", _objects_32, _image(I386, _code(32)), of_elf, weight=8),
    Target("map", lambda _: [MAP.encode()], _map, of_text),
    Target("map_of_objects", _maps, _map_of_objects, of_text, weight=8),
    Target("lld_map", _lld_maps, _map, of_text),
    Target("vmlinux", _sample_of("vmlinux"), _vmlinux, of_elf, weight=4),
    Target("verify_object", _objects, _original("x86_64", 8), _OBJECTS),
    Target("verify_object_32", _objects_32, _original("i386", 4), of_elf),
    Target("verify_map", _sample_of("vmlinux.map"), _verify_map, of_text, weight=2),
    *(
        Target(f"verify_{name}", _sample_of(file, arch), _verifying(file, arch), mutate, weight=40)
        for name, file, arch, mutate in (
            ("plan", "plan.json", "x86_64", of_json),
            ("tombstones", "tombstones.json", "x86_64", of_json),
            ("vmlinux", "vmlinux", "x86_64", of_elf),
            ("vmlinux_32", "vmlinux", "i386", of_elf),
            ("of_object", "b.o", "x86_64", of_elf),
            ("of_object_32", "a.o", "i386", of_elf),
        )
    ),
    Target("system_map", lambda _: [_SYSTEM_MAP], _system_map, of_some(of_text, of_bytes)),
]  # fmt: skip
