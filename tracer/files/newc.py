"""Write a newc cpio archive, the format of an initial RAM file system.

Written here rather than by the ``cpio`` program because device nodes and root's ownership would need
root, and because the same input has to give the same bytes: no time stamps, inode numbers by order,
entries sorted by name.
"""

from __future__ import annotations

import stat
from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class Entry:
    """One file of the archive. ``mode`` has the file type and the permissions, as in ``st_mode``.

    ``data`` is the content of a regular file or the target of a symbolic link; ``device`` is major and
    minor number of a device node.
    """

    mode: int
    data: bytes = b""
    device: tuple[int, int] = (0, 0)
    owner: tuple[int, int] = (0, 0)


def directory(permissions: int = 0o755) -> Entry:
    return Entry(stat.S_IFDIR | permissions)


def regular(data: bytes, permissions: int = 0o644) -> Entry:
    return Entry(stat.S_IFREG | permissions, data)


def symlink(target: str) -> Entry:
    return Entry(stat.S_IFLNK | 0o777, target.encode())


def character_device(major: int, minor: int, permissions: int = 0o600) -> Entry:
    return Entry(stat.S_IFCHR | permissions, device=(major, minor))


def write_newc(entries: Mapping[str, Entry]) -> bytes:
    """The archive's bytes. Keys are paths without a leading slash; parents need not be listed."""
    complete = with_parents(entries)
    records = [_record(i, name, complete[name]) for i, name in enumerate(sorted(complete), start=1)]
    archive = b"".join(records) + _record(0, "TRAILER!!!", Entry(0))
    return archive + bytes(-len(archive) % 512)


def with_parents(entries: Mapping[str, Entry]) -> dict[str, Entry]:
    """The entries, and the folders that they are in."""
    return {parent: directory() for name in entries for parent in _parents(name)} | dict(entries)


def _parents(name: str) -> list[str]:
    parts = name.split("/")
    return ["/".join(parts[:depth]) for depth in range(1, len(parts))]


def _record(inode: int, name: str, entry: Entry) -> bytes:
    """Header of 110 characters, name, content; each padded to four bytes."""
    encoded = name.encode() + b"\0"
    links = 2 if stat.S_ISDIR(entry.mode) else 1
    fields = (
        inode, entry.mode, *entry.owner, links, 0, len(entry.data), 0, 0, *entry.device, len(encoded), 0,
    )  # fmt: skip
    head = b"070701" + b"".join(b"%08X" % field for field in fields) + encoded
    return head + bytes(-len(head) % 4) + entry.data + bytes(-len(entry.data) % 4)
