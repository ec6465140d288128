"""The toy linked by lld: another map, another reading of scripts, the same program."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from prune.guests.graveyard import read_graveyard
from prune.model.linkmap import LinkMap
from prune.model.lldmap import COMPILED, INTERNAL
from prune.model.mapfile import parse_link_map, read_link_map
from prune.verify.elf import read_linked
from prune.verify.lldmap import rows_of
from tracer.host import UserError

from .test_trim import TRACED, executed, plan_blocks, runs
from .toy import CFLAGS, CLANG_FLAGS, Toy, build


@pytest.fixture(scope="module")
def lld() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("KPRUNE_LD", "ld.lld")
        yield


@pytest.fixture(scope="module")
def linked(lld: None, tmp_path_factory: pytest.TempPathFactory) -> Toy:
    """Pruned by the function."""
    toy = build(tmp_path_factory.mktemp("lld"))
    toy.plan()
    done = toy.link(plan=True)
    assert done.returncode == 0, done.stderr
    return toy


def test_it_is_the_same_program(linked: Toy, pruned: Toy) -> None:
    assert linked.run() == pruned.run()


def test_verify_agrees(linked: Toy) -> None:
    verdict = linked.verify()
    assert verdict.ok, str(verdict)


def test_the_maps_say_the_same(built: Toy, lld: None, tmp_path: Path) -> None:
    """Which object has which sections, in which order they were linked."""
    one, other = read_link_map(built.tree / "base.map"), read_link_map(build(tmp_path).tree / "base.map")
    assert one.objects == other.objects and one.members == other.members

    def rows(link_map: LinkMap) -> set[tuple[str, str, int]]:
        """What is loaded, but for strings: lld has merged those before it writes the map."""
        return {
            (row.object, row.section, row.size)
            for row in link_map.placed
            if row.size and row.address and row.object != INTERNAL and ".str1." not in row.section
        }

    assert rows(one) == rows(other)
    assert other.merged and not one.merged


def test_every_byte_of_an_output_section_is_a_row_or_fill(lld: None, tmp_path: Path) -> None:
    link_map = read_link_map(build(tmp_path).tree / "base.map")
    for output in link_map.outputs:
        if output.address:
            sizes = [row.size for row in (*link_map.placed, *link_map.fills) if row.output == output.name]
            assert sum(sizes) == output.size


def test_a_miss_is_told(linked: Toy) -> None:
    code, said = linked.run("x", "y")
    stones = read_graveyard(linked.tree / "tombstones.json").stones
    assert code == 3 and stones[int(said["missed"], 16)][0] == "cold_two"


@pytest.mark.parametrize(("compiler", "flags"), [("gcc", CFLAGS), ("clang", CLANG_FLAGS)])
def test_cold_blocks_go_as_well(lld: None, tmp_path: Path, compiler: str, flags: list[str]) -> None:
    toy = build(tmp_path, flags, ("shapes",), compiler)
    plan_blocks(toy, {at for number in TRACED for at in executed(toy.tree / "vmlinux", number)})
    done = toy.link(plan=True)
    assert done.returncode == 0, done.stderr
    verdict = toy.verify()
    assert verdict.ok, str(verdict)
    for number in TRACED:
        assert runs(toy, "vmlinux", number)[1]["shapes"] == runs(toy, "base", number)[1]["shapes"]


def test_a_map_without_the_inputs_is_refused(linked: Toy) -> None:
    text = (linked.tree / "vmlinux.map").read_text().partition("\nInputs of the link:\n")[0]
    with pytest.raises(UserError, match="does not list the inputs"):
        parse_link_map(text)


@pytest.mark.parametrize(
    ("name", "given", "told"),
    [
        (COMPILED, False, COMPILED),
        # lld 19: what is written, and what it was.
        ("vmlinux.lto.o", False, COMPILED),
        ("init/vmlinux.unstripped.lto.version-timestamp.o", False, COMPILED),
        ("init/some.lto.name.o", True, "init/some.lto.name.o"),
        ("init/version-timestamp.o", False, "init/version-timestamp.o"),
    ],
)
def test_what_lld_compiled_itself_has_one_name(linked: Toy, name: str, given: bool, told: str) -> None:
    text = (linked.tree / "vmlinux.map").read_text()
    row = next(line for line in text.splitlines() if line.endswith(":(.data)") or ":(.text" in line)
    before = row[row.rindex(" ") + 1 : row.rindex(":(")]
    text = text.replace(row, row.replace(f"{before}:(", f"{name}:("), 1) + (f"{name}\n" if given else "")
    told_by_verify = {path for path, *_ in rows_of(text, read_linked(linked.tree / "vmlinux"))}
    for objects in {row.object for row in parse_link_map(text).placed}, told_by_verify:
        assert told in objects and (told == name or name not in objects)
