"""A pruned link is the first one with another script, and with edited objects where the objects were."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import numpy as np
import pytest

from prune.linking.link import pruned_arguments
from prune.linking.prepared import SCHEMA, Prepared
from prune.linking.writing import Contents, Writing, write_prepared
from prune.model.image import Image
from tests.conftest import image
from tests.objects import parse_object
from tracer.host import UserError

from .elfwriter import Section, Symbol, write_elf

HOME = ".kprune/plan-0123456789abcdef"
ARCHIVE = f"{HOME}/objects/archive.a"
LDS = "arch/x86/kernel/vmlinux.lds"
HEAD = f"{HOME}/objects/arch/x86/kernel/head_64.o"
PREPARED = Prepared(Path(f"{HOME}/vmlinux.lds"), ARCHIVE, {"arch/x86/kernel/head_64.o": HEAD}, False)
NO_ARCHIVE = Prepared(PREPARED.script, "", PREPARED.edited, False)


def pruned(words: str, prepared: Prepared = PREPARED) -> str:
    arguments = words.split()
    at = next(index for index, word in enumerate(arguments) if word.endswith(".lds"))
    return " ".join(pruned_arguments(arguments, at, prepared))


@pytest.mark.parametrize(
    ("given", "wanted"),
    [
        (f"--script=./{LDS}", f"--script={HOME}/vmlinux.lds"),
        (f"--script={LDS}", f"--script={HOME}/vmlinux.lds"),
        (f"-T {LDS}", f"-T {HOME}/vmlinux.lds"),
        (f"--script {LDS}", f"--script {HOME}/vmlinux.lds"),
    ],
)
def test_the_script_is_the_generated_one(given: str, wanted: str) -> None:
    assert pruned(f"-m elf_x86_64 {given} -o vmlinux x.o") == f"-m elf_x86_64 {wanted} -o vmlinux x.o"


def test_one_archive_stands_for_all() -> None:
    """As kbuild has called ld since 5.19: lib.a would bring dropped members back."""
    words = f"-o vmlinux -T {LDS} --whole-archive vmlinux.a init/version.o --no-whole-archive"
    words += " --start-group lib/lib.a arch/x86/lib/lib.a --end-group .tmp_vmlinux.kallsyms2.o"
    assert pruned(words) == (
        f"-o vmlinux -T {HOME}/vmlinux.lds --whole-archive {ARCHIVE} init/version.o --no-whole-archive"
        " --start-group --end-group .tmp_vmlinux.kallsyms2.o"
    )


@pytest.mark.parametrize(
    ("given", "wanted"),
    [
        ("--whole-archive a.a --no-whole-archive", f"--whole-archive {ARCHIVE} --no-whole-archive"),
        ("--whole-archive a.a b.a --no-whole-archive", f"--whole-archive {ARCHIVE} --no-whole-archive"),
        ("a.a", f"--whole-archive {ARCHIVE} --no-whole-archive"),
        ("a.a x.o b.a", f"--whole-archive {ARCHIVE} --no-whole-archive x.o"),
        ("--whole-archive x.o --no-whole-archive a.a",
         f"--whole-archive x.o --no-whole-archive --whole-archive {ARCHIVE} --no-whole-archive"),
        ("--whole-archive x.o a.a y.o", f"--whole-archive x.o {ARCHIVE} y.o"),
        ("--no-whole-archive --whole-archive a.a", f"--no-whole-archive --whole-archive {ARCHIVE}"),
        ("a.a --whole-archive b.a x.o",
         f"--whole-archive {ARCHIVE} --no-whole-archive --whole-archive x.o"),
    ],
)  # fmt: skip
def test_every_member_is_linked_and_what_follows_is_treated_as_before(given: str, wanted: str) -> None:
    assert pruned(f"-T {LDS} {given}") == f"-T {HOME}/vmlinux.lds {wanted}"


def test_objects_of_the_command_line_are_replaced_one_by_one() -> None:
    given = f"-T {LDS} arch/x86/kernel/head_64.o ./arch/x86/kernel/head_64.o ../arch/x86/kernel/head_64.o x.o"
    assert pruned(given).split()[2:] == [HEAD, HEAD, "../arch/x86/kernel/head_64.o", "x.o"]


def test_without_members_there_is_no_archive() -> None:
    words = f"-T {LDS} --whole-archive empty.a --no-whole-archive lib.a arch/x86/kernel/head_64.o"
    assert pruned(words, NO_ARCHIVE).split()[2:] == ["--whole-archive", "--no-whole-archive", HEAD]


def test_all_else_stays_word_for_word() -> None:
    words = f"-m elf_x86_64 -z max-page-size=0x200000 --build-id=sha1 --orphan-handling=warn -T {LDS} -o x"
    assert pruned(words) == words.replace(LDS, f"{HOME}/vmlinux.lds")


# --- what is written ------------------------------------------------------------------------------


def function(name: str) -> bytes:
    return write_elf([Section(f".text.{name}")], [Symbol(name, f".text.{name}")])


OBJECTS = {"head.o": function("head"), "init/main.o": function("main"), "lib/x.o": function("x")}


def write(made: Image, folder: Path) -> dict[str, object]:
    contents = Contents(made.objects, made.parts, made.data, made.archive)
    (folder / HOME).mkdir(parents=True)
    script = "SECTIONS { .text : { *(.text.*) } }\n"
    digests = dict(zip(made.objects, made.digests, strict=True))
    with Writing(folder, Path(HOME), contents) as writing:
        pass
    (folder / HOME / "vmlinux.lds").write_text(script)
    write_prepared(folder, writing, digests, [{"symbol": "f"}], [], [], True)
    value: dict[str, object] = json.loads((folder / HOME / "prepared.json").read_text())
    return value


@pytest.mark.parametrize("members", [(), ("init/main.o", "lib/x.o"), tuple(OBJECTS)])
def test_each_object_is_written_as_the_member_or_file_that_it_was(
    tmp_path: Path, members: tuple[str, ...]
) -> None:
    made = image(tmp_path, OBJECTS, members)
    value = write(made, tmp_path)
    files = {name: f"{HOME}/objects/{name}" for name in OBJECTS if name not in members}
    assert value == {
        "schema_version": SCHEMA, "archive": ARCHIVE if members else "", "edited": files,
        "objects": dict(zip(made.objects, made.digests, strict=True)), "tombstones": [{"symbol": "f"}],
        "freed": [], "trimmed": [], "named": True,
    }  # fmt: skip
    written = {str(p.relative_to(tmp_path)) for p in (tmp_path / HOME).rglob("*") if p.is_file()}
    names = {f"{HOME}/{name}" for name in ("prepared.json", "vmlinux.lds")}
    assert written == {*files.values(), *names, *([ARCHIVE] if members else [])}
    for number, name in enumerate(made.objects):
        if name in files:
            assert (tmp_path / files[name]).read_bytes() == made.files[number].data
    if members:
        listed = subprocess.run(
            ["ar", "t", ARCHIVE], cwd=tmp_path, capture_output=True, text=True, check=True
        )
        assert listed.stdout.split() == list(members)


@pytest.mark.parametrize("members", [(), ("init/main.o", "lib/x.o"), tuple(OBJECTS)])
def test_ld_takes_what_was_prepared(tmp_path: Path, members: tuple[str, ...]) -> None:
    """Each function once, in the order of the first link."""
    value = write(image(tmp_path, OBJECTS, members), tmp_path)
    prepared = Prepared(Path(HOME) / "vmlinux.lds", value["archive"], value["edited"], True)  # type: ignore[arg-type]
    if members:
        subprocess.run(["ar", "cDPrST", "vmlinux.a", *members], cwd=tmp_path, check=True)
    inputs = [name for name in OBJECTS if name not in members]
    inputs += ["--whole-archive", "vmlinux.a", "--no-whole-archive", "vmlinux.a"] if members else []
    arguments = ["-o", "vmlinux", "-e", "0", "-T", "x.lds", *inputs]
    words = pruned_arguments(arguments, 5, prepared)
    subprocess.run(["ld", *words], cwd=tmp_path, check=True)
    said = subprocess.run(["nm", "-n", "vmlinux"], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert [line.split()[2] for line in said.stdout.splitlines()] == ["head", "main", "x"]


def test_nothing_is_left_of_what_comes_to_nothing(tmp_path: Path) -> None:
    made = image(tmp_path, OBJECTS, ("lib/x.o",))
    contents = Contents(made.objects, made.parts, made.data, made.archive)
    with pytest.raises(UserError, match="no script"), Writing(tmp_path, Path(HOME), contents):
        raise UserError("no script")
    assert not (tmp_path / HOME).exists()


def test_edited_bytes_are_what_is_written(tmp_path: Path) -> None:
    made = image(tmp_path, OBJECTS, ("lib/x.o",))
    data = made.data.copy()
    data[made.units["at"]] = 0x90
    contents = Contents(made.objects, made.parts, data, made.archive)
    with Writing(tmp_path, Path(HOME), contents):
        pass
    plain = parse_object(Path("head.o"), (tmp_path / HOME / "objects/head.o").read_bytes())
    assert plain.content(1) == b"\x90"
    member = subprocess.run(["ar", "pP", ARCHIVE, "lib/x.o"], cwd=tmp_path, capture_output=True, check=True)
    assert parse_object(Path("x.o"), member.stdout).content(1) == b"\x90"
    assert np.array_equal(made.data != data, np.isin(np.arange(len(data)), made.units["at"]))


def test_nothing_is_left_of_what_failed(tmp_path: Path) -> None:
    """The thread that writes is not at work any more when the error is seen."""
    made = image(tmp_path, OBJECTS, ("lib/x.o",))
    contents = Contents(made.objects, made.parts, made.data, made.archive)
    with pytest.raises(UserError, match="no linker"), Writing(tmp_path, Path(HOME), contents):
        raise UserError("no linker takes it")
    assert not (tmp_path / HOME).exists()
