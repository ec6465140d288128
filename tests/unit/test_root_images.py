"""Root file systems on a disk: what other programs find in the images that are written here."""

from __future__ import annotations

import re
import stat
import struct
import subprocess
from pathlib import Path

import pytest

from tracer.files.newc import Entry, character_device, directory, regular, symlink
from tracer.files.romfs import write_romfs
from tracer.files.rootfs import root_words, write_root
from tracer.files.squashfs import write_squashfs
from tracer.host import UserError

TREE = {
    "bin": symlink("usr/bin"),
    "dev/console": character_device(5, 1),
    "empty": regular(b""),
    "init": regular(b"#!/bin/sh\n" * 500, 0o755),
    "tmp": directory(0o1777),
    "usr/bin/a name of twenty-six chars": regular(b"x" * 70000),
    "usr/bin/sh": symlink("/kprune/busybox"),
}


def read_romfs(image: bytes) -> dict[str, tuple[int, bytes | int]]:
    """Path -> (kind with the executable bit, content or device), by the format's description alone."""
    assert image[:8] == b"-rom1fs-"
    size = struct.unpack(">I", image[8:12])[0]
    assert size <= len(image)
    assert sum(struct.unpack(f">{min(512, size) // 4}I", image[: min(512, size)])) & 0xFFFFFFFF == 0
    found: dict[str, tuple[int, bytes | int]] = {}

    def name_at(at: int) -> tuple[str, int]:
        name = image[at : image.index(b"\0", at)]
        return name.decode(), at + (len(name) + 16) // 16 * 16

    def walk(at: int, above: str) -> None:
        while at:
            head = struct.unpack(">4I", image[at : at + 16])
            name, data = name_at(at + 16)
            assert sum(struct.unpack(f">{(data - at) // 4}I", image[at:data])) & 0xFFFFFFFF == 0
            kind = head[0] & 15
            if name not in (".", ".."):
                assert kind & 7 != 0
                content: bytes | int = head[1] if kind & 7 in (4, 5) else image[data : data + head[2]]
                found[above + name] = (kind, content)
                if kind & 7 == 1:
                    walk(head[1], f"{above}{name}/")
            elif above or name == "..":
                assert kind & 7 == 0  # a hard link
            at = head[0] & ~15

    walk(name_at(16)[1], "")
    return found


def test_romfs_holds_the_tree() -> None:
    found = read_romfs(write_romfs(TREE))
    assert set(found) == {*TREE, "dev", "usr", "usr/bin"}
    assert found["init"] == (8 | 2, TREE["init"].data)
    assert found["empty"] == (2, b"")
    assert found["bin"] == (3, b"usr/bin")
    assert found["dev/console"] == (5, 5 << 16 | 1)
    assert found["usr/bin"][0] == 8 | 1
    assert found["usr/bin/a name of twenty-six chars"][1] == b"x" * 70000


def test_romfs_as_genromfs_makes_it(tmp_path: Path) -> None:
    """The program that the format comes from, on a folder with the same files."""
    tree = {name: entry for name, entry in TREE.items() if not stat.S_ISCHR(entry.mode)}
    tree["a"] = directory()  # one that is not empty is listed in another order, but found all the same
    tree["a/b/c"] = regular(b"deep")
    for name in sorted({*tree, "a/b", "usr/bin", "usr"}):
        path, entry = tmp_path / "tree" / name, tree.get(name, directory())
        path.parent.mkdir(parents=True, exist_ok=True)
        if stat.S_ISLNK(entry.mode):
            path.symlink_to(entry.data.decode())
        elif stat.S_ISDIR(entry.mode):
            path.mkdir(exist_ok=True)
        else:
            path.write_bytes(entry.data)
            path.chmod(stat.S_IMODE(entry.mode))
    subprocess.run(["genromfs", "-d", tmp_path / "tree", "-f", tmp_path / "image"], check=True)
    assert read_romfs((tmp_path / "image").read_bytes()) == read_romfs(write_romfs(tree))


def test_romfs_refuses_what_it_cannot_keep() -> None:
    with pytest.raises(UserError, match="/etc/shadow has an owner or a bit that romfs cannot keep"):
        write_romfs({"etc/shadow": Entry(stat.S_IFREG | 0o640, b"", owner=(0, 42))})
    with pytest.raises(UserError, match="/bin/su"):
        write_romfs({"bin/su": regular(b"", 0o4755)})


def test_squashfs_holds_the_tree(tmp_path: Path) -> None:
    tree = {**TREE, "home/me": Entry(stat.S_IFREG | 0o640, b"mine", owner=(1000, 100))}
    write_squashfs(tree, tmp_path / "image")
    listed = subprocess.run(
        ["unsquashfs", "-d", "", "-lln", tmp_path / "image"], check=True, capture_output=True, text=True
    ).stdout  # fmt: skip
    found = re.findall(r"^(\S+) (\S+) +(\d+, +\d+|\d+) \S+ \S+ (.*)$", listed, re.M)
    rows = {name: (mode, owner, size) for mode, owner, size, name in found}
    assert set(rows) == {
        "", "/bin -> usr/bin", "/dev", "/dev/console", "/empty", "/init", "/tmp", "/usr", "/usr/bin", "/home",
        "/home/me", "/usr/bin/a name of twenty-six chars", "/usr/bin/sh -> /kprune/busybox",
    }  # fmt: skip
    assert rows["/dev/console"] == ("crw-------", "0/0", "5,  1")
    assert rows["/tmp"][0] == "drwxrwxrwt"
    assert rows["/home/me"] == ("-rw-r-----", "1000/100", "4")
    content = subprocess.run(
        ["unsquashfs", "-cat", tmp_path / "image", "init"], check=True, capture_output=True
    ).stdout
    assert content == TREE["init"].data


@pytest.mark.parametrize("device", ["", "romfs", "squashfs"])
def test_the_same_tree_gives_the_same_bytes(tmp_path: Path, device: str) -> None:
    first = write_root(TREE, device, tmp_path / "a").read_bytes()
    assert first == write_root(TREE, device, tmp_path / "b").read_bytes()
    assert len(first) % 512 == 0  # QEMU's disks have whole sectors


def test_the_kernel_is_told() -> None:
    assert root_words("") == []
    assert root_words("romfs") == ["root=/dev/vda", "ro", "rootfstype=romfs", "init=/init"]
