"""What is stored is what was read; what changed or is damaged is read anew, and nothing is half-written."""

from __future__ import annotations

import json
import resource
import shutil
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import fields, replace
from pathlib import Path

import numpy as np
import pytest

from prune.linking.edit import edit_image
from prune.linking.tombstones import bury_dropped
from prune.model.elf import Rows
from prune.model.image import Image
from prune.model.store import HOME, Stored, stored
from tests.conftest import X86, placing
from tracer.host import HostError, UserError

from .elfwriter import (
    ALLOC,
    LOCAL,
    MERGE,
    NOTYPE,
    R_64,
    R_PC32,
    STRINGS,
    WRITE,
    Rela,
    Section,
    Symbol,
    write_elf,
)

SOURCE = """\
#define init __attribute__((section(".init.text"), noinline, used))
int v = 3;
static init int first(int x) { return x * v; }
static init int second(int x) { return x / v; }
init int third(int x) { return first(x) + second(x + 1); }
long __x64_sys_ni_syscall(void) { return -38; }
"""
OTHER = write_elf(
    [
        Section(".text.f", b"\xe8\0\0\0\0\x8b\x05" + bytes(10)), Section(".text.g"),
        Section(".data.w", bytes(8), ALLOC | WRITE), Section("__ex_table", bytes(24), ALLOC),
        Section(".init.text", b"\xc3\xc3"),  # stays whole: nobody says that it came from C
        Section(".rodata.str1.1", b"dead\0alive\0", ALLOC | MERGE | STRINGS),
    ],
    [
        Symbol("f", ".text.f"), Symbol("g", ".text.g"), Symbol("w", ".data.w", type=1),
        Symbol("p", ".init.text", 0, 1), Symbol("q", ".init.text", 1, 1),
        Symbol("lc", ".rodata.str1.1", 5, bind=LOCAL, type=NOTYPE),
    ],
    [
        Rela(".text.f", 1, ".text.g"), Rela(".text.f", 7, "w", R_PC32), Rela(".data.w", 0, "g", R_64, 0),
        Rela(".text.f", 11, ".rodata.str1.1", 10, 5),
        Rela("__ex_table", 0, ".text.g", R_PC32, 0), Rela("__ex_table", 12, ".text.f", R_PC32, 0),
    ],
)  # fmt: skip


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """An object tree with its map: a.o, whose init code is taken apart, is out of an archive."""
    flags = "-c -O1 -ffunction-sections -fdata-sections -fno-asynchronous-unwind-tables a.c -o a.o"
    command = ["gcc", "-mcmodel=kernel", "-fno-pic", "-fcf-protection=none", *flags.split()]
    (tmp_path / "a.c").write_text(SOURCE)
    subprocess.run(command, cwd=tmp_path, check=True)
    objects = {"a.o": (tmp_path / "a.o").read_bytes(), "lib/b.o": OTHER}
    (tmp_path / "x.map").write_text(placing(tmp_path, objects, {"a.o"}))
    return tmp_path


def take(tree: Path) -> Stored:
    return stored(tree, tree / "x.map", X86)


def written(tree: Path) -> int:
    """Another number when the store was written anew."""
    return (tree / HOME).stat().st_ino


def same(one: object, two: object) -> None:
    """Every field, array by array."""
    assert type(one) is type(two)
    for field in fields(one):  # type: ignore[arg-type]
        mine, others = getattr(one, field.name), getattr(two, field.name)
        if isinstance(mine, np.ndarray):
            assert mine.dtype == others.dtype and mine.shape == others.shape, field.name
            assert mine.tobytes() == others.tobytes(), field.name
        elif type(mine).__module__.startswith("prune."):
            same(mine, others)
        else:
            assert mine == others, field.name


def in_store(tree: Path) -> list[Path]:
    return sorted((tree / HOME).iterdir())


def edit(made: Stored) -> Rows:
    """Without g."""
    image = made.image
    keep = np.array([name != ".text.g" for name in image.names])
    burial = bury_dropped(image, made.tables, keep)
    return edit_image(image, made.tables, keep, np.zeros_like(keep), burial, X86)


def test_what_is_loaded_is_what_was_read(tree: Path) -> None:
    first = take(tree)
    at = written(tree)
    again = take(tree)
    assert written(tree) == at and again is not first
    same(first, again)
    assert first.image.pieces and any(first.image.starts) and any(first.functions.names)
    kinds = (first.image, first.tables, first.graph, first.functions)
    arrays = {
        name: each for kind in kinds for name, each in vars(kind).items() if isinstance(each, np.ndarray)
    }
    assert {name for name, each in arrays.items() if not each.size} == set()


def test_what_follows_from_it_is_the_same(tree: Path) -> None:
    first, again = take(tree), take(tree)
    assert np.array_equal(edit(first), edit(again))
    for name in ("globals_", "rows", "unit_of", "functions"):
        assert getattr(first.image, name) == getattr(again.image, name)
    assert [file.data for file in first.image.files] == [file.data for file in again.image.files]
    assert again.tables.parts.keys() == first.tables.parts.keys()


def test_nobody_writes_into_the_store_by_mistake(tree: Path) -> None:
    take(tree)
    data = take(tree).image.data
    with pytest.raises(ValueError, match="read-only"):
        data[0] = 0
    changed = edit(take(tree))
    assert changed.flags.writeable and not np.array_equal(changed, data)


def test_a_tree_that_was_moved_takes_its_store_along(tree: Path) -> None:
    first, at = take(tree), written(tree)
    moved = tree.rename(tree.with_name("moved"))
    again = take(moved)
    assert written(moved) == at and again.image.root == moved
    same(replace(first.image, root=moved), again.image)


def test_an_object_that_changed_is_read_anew(tree: Path) -> None:
    first = take(tree)
    at = written(tree)
    (tree / "lib/b.o").write_bytes(OTHER.replace(b"alive\0", b"vital\0"))
    again = take(tree)
    assert written(tree) != at
    changed = [a != b for a, b in zip(first.image.digests, again.image.digests, strict=True)]
    assert changed == [False, True]
    assert b"vital" in again.image.files[1].data and b"vital" not in first.image.files[1].data


def test_a_time_stamp_is_no_change(tree: Path) -> None:
    take(tree)
    at = written(tree)
    (tree / "lib/b.o").write_bytes(OTHER)
    (tree / "x.map").touch()
    take(tree)
    assert written(tree) == at


def test_a_map_that_changed_is_read_anew(tree: Path) -> None:
    first = take(tree)
    at = written(tree)
    text = (tree / "x.map").read_text()
    (tree / "x.map").write_text(text.replace(" .text.g\n", " .text.gone\n"))
    again = take(tree)
    assert written(tree) != at and len(again.image.units) == len(first.image.units) - 1
    (tree / "x.map").write_text(text)
    same(take(tree), first)


@pytest.mark.parametrize("spoil", ["key", "schema_version"])
def test_what_another_kprune_stored_is_read_anew(tree: Path, spoil: str) -> None:
    first, at = take(tree), written(tree)
    path = tree / HOME / "text.json"
    value = json.loads(path.read_text())
    value[spoil] = 99 if spoil == "schema_version" else value[spoil][::-1]
    path.write_text(json.dumps(value))
    same(take(tree), first)
    assert written(tree) != at


def test_what_was_stored_for_another_architecture_is_read_anew(tree: Path) -> None:
    take(tree)
    at = written(tree)
    stored(tree, tree / "x.map", replace(X86, arch="other"))
    assert written(tree) != at


def test_an_object_that_is_gone_is_named(tree: Path) -> None:
    take(tree)
    (tree / "lib/b.o").unlink()
    with pytest.raises(UserError, match=r"lib/b\.o: No such file"):
        take(tree)


def test_a_map_that_is_gone_is_named(tree: Path) -> None:
    take(tree)
    (tree / "x.map").unlink()
    with pytest.raises(UserError, match=r"x\.map: No such file"):
        take(tree)


DAMAGES: dict[str, Callable[[bytes], bytes | None]] = {
    "gone": lambda _: None,
    "empty": lambda _: b"",
    "cut in its head": lambda data: data[:9],
    "cut in the middle": lambda data: data[: len(data) // 2],
    "cut at its end": lambda data: data[:-1],
    "something else": lambda data: b"what is this? " * (1 + len(data) // 14),
    "zeros": lambda data: bytes(len(data)),
}


@pytest.mark.parametrize("damage", list(DAMAGES))
def test_a_damaged_store_is_read_anew(tree: Path, damage: str) -> None:
    """Any file of it."""
    first = take(tree)
    for name in [path.name for path in in_store(tree)]:
        path, at = tree / HOME / name, written(tree)
        left = DAMAGES[damage](path.read_bytes())
        path.unlink()
        if left is not None:
            path.write_bytes(left)
        same(take(tree), first)
        assert written(tree) != at, name


@pytest.mark.parametrize("text", ["null", "[]", "{}", '"x"', '{"schema_version": 1}'])
def test_a_text_that_says_nothing_is_read_anew(tree: Path, text: str) -> None:
    first = take(tree)
    (tree / HOME / "text.json").write_text(text)
    same(take(tree), first)


def test_a_text_that_lacks_something_is_read_anew(tree: Path) -> None:
    first = take(tree)
    path = tree / HOME / "text.json"
    whole = json.loads(path.read_text())
    for lost in whole:
        path.write_text(json.dumps({name: value for name, value in whole.items() if name != lost}))
        same(take(tree), first)


@contextmanager
def no_file_larger_than(size: int) -> Iterator[None]:
    """As on a disk that is full."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def sizes(tree: Path) -> list[int]:
    """Each a byte less than some file of the store needs."""
    return [0, *sorted({path.stat().st_size - 1 for path in in_store(tree)})]


def test_a_disk_that_fills_up_leaves_nothing(tree: Path) -> None:
    take(tree)
    for size in sizes(tree):
        shutil.rmtree(tree / ".kprune", ignore_errors=True)
        with no_file_larger_than(size), pytest.raises(HostError, match="free some space"):
            take(tree)
        assert not list(tree.glob(".kprune/*")), size
        take(tree)
        assert in_store(tree)


def test_a_disk_that_fills_up_leaves_what_was_stored_before(tree: Path) -> None:
    take(tree)
    at, before = written(tree), {path: path.read_bytes() for path in in_store(tree)}
    (tree / "lib/b.o").write_bytes(OTHER.replace(b"alive\0", b"vital\0"))
    for size in sizes(tree):
        with no_file_larger_than(size), pytest.raises(HostError, match="free some space"):
            take(tree)
        assert written(tree) == at and {path: path.read_bytes() for path in in_store(tree)} == before, size
        assert [path.name for path in tree.glob(".kprune/*")] == ["image"]


@pytest.mark.parametrize("place", [".kprune", ".kprune/image"])
def test_a_file_where_the_store_would_be_is_one_clear_error(tree: Path, place: str) -> None:
    (tree / place).parent.mkdir(exist_ok=True)
    (tree / place).write_text("in the way")
    with pytest.raises(HostError) as caught:
        take(tree)
    assert "\n" not in str(caught.value) and (tree / place).read_text() == "in the way"


def test_nothing_is_stored_of_what_cannot_be_read(tree: Path) -> None:
    (tree / "lib/b.o").write_bytes(b"\x7fELF" + bytes(60))
    with pytest.raises(UserError, match=r"lib/b\.o"):
        take(tree)
    assert not list(tree.glob(".kprune/*"))


def test_every_array_of_an_image_is_stored(tree: Path) -> None:
    """An array that is not would be read anew, or not at all."""
    made = take(tree).image
    names = {field.name for field in fields(Image) if isinstance(getattr(made, field.name), np.ndarray)}
    listed = json.loads((tree / HOME / "text.json").read_text())["arrays"]
    assert names <= listed.keys() and "data" in names and len(names) > 10
