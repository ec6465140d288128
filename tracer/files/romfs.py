"""Write a romfs image: the smallest file system that Linux reads from a disk, uncompressed.

The format (Documentation/filesystems/romfs.rst): a header, then files, each at a multiple of 16 bytes; a file
is a header of four big-endian words, a name, and its content. A folder's header holds where its first file
is, each file's where the next one is. The lower four bits of the latter are type and "may be executed".

It keeps neither owners, permissions nor times: all belongs to root, and all may be read.
"""

from __future__ import annotations

import stat
import struct
from collections.abc import Mapping
from dataclasses import dataclass, field

from tracer.files.newc import Entry, directory, with_parents
from tracer.host import UserError

_HARD_LINK, _FOLDER, _REGULAR, _SYMLINK, _BLOCK, _CHARACTER, _SOCKET, _FIFO = range(8)
_EXECUTABLE = 8
_KINDS = {
    stat.S_IFDIR: _FOLDER, stat.S_IFREG: _REGULAR, stat.S_IFLNK: _SYMLINK, stat.S_IFBLK: _BLOCK,
    stat.S_IFCHR: _CHARACTER, stat.S_IFSOCK: _SOCKET, stat.S_IFIFO: _FIFO,
}  # fmt: skip
#: The first so many bytes have a checksum (fs/romfs/super.c).
_CHECKED = 512


@dataclass
class _Node:
    """A file on its way into the image. ``at``: offset of its header; ``link``: what a hard link means."""

    name: str
    entry: Entry
    children: list[_Node] = field(default_factory=list)
    link: _Node | None = None
    at: int = 0

    @property
    def size(self) -> int:
        """Of header, name and content, with what fills them up."""
        return 16 + _padded(len(self.name.encode()) + 1) + _padded(len(self.entry.data))


def write_romfs(entries: Mapping[str, Entry], volume: str = "kprune") -> bytes:
    """The image's bytes. Keys are paths without a leading slash; parents need not be listed.

    Raises:
        UserError: a file has an owner or permissions that romfs cannot keep.
    """
    root = _tree(entries)
    head = 16 + _padded(len(volume) + 1)
    end = _place(root, head)
    image = bytearray(_padded(end, 1024))  # the kernel reads blocks of this size
    image[0:8] = b"-rom1fs-"
    struct.pack_into(">I", image, 8, end)
    image[16 : 16 + len(volume)] = volume.encode()
    for following, node in _in_lists(root):
        _write(image, node, following)
    _make_sum_zero(image, 0, min(_CHECKED, end), 12)
    return bytes(image)


def _tree(entries: Mapping[str, Entry]) -> _Node:
    """The root, with a hard link ``.`` and ``..`` in each folder: readdir shows what is in the image."""
    root = _Node(".", directory())
    root.children = [root, _Node("..", directory(), link=root)]
    nodes = {"": root}
    complete = with_parents(entries)
    for path in sorted(complete):
        entry = complete[path]
        if entry.owner != (0, 0) or entry.mode & (stat.S_ISUID | stat.S_ISGID):
            raise UserError(
                f"writing a romfs image: /{path} has an owner or a bit that romfs cannot keep",
                'choose [rootfs] device = "squashfs"',
            )
        above, _, name = path.rpartition("/")
        node = nodes[path] = _Node(name, entry)
        if stat.S_ISDIR(entry.mode):
            node.children = [
                _Node(".", directory(), link=node), _Node("..", directory(), link=nodes[above]),
            ]  # fmt: skip
        nodes[above].children.append(node)
    return root


def _place(root: _Node, at: int) -> int:
    """Give every file its place, a folder's files one behind the other; the end of all."""
    folders = [root]
    for folder in folders:
        for child in folder.children:
            child.at = at
            at += child.size
            if child is not root and child.children:
                folders.append(child)
    return at


def _in_lists(root: _Node) -> list[tuple[int, _Node]]:
    """(place of the next file in its folder or 0, file) of every file."""
    found: list[tuple[int, _Node]] = []
    folders = [root]
    for folder in folders:
        following = [child.at for child in folder.children[1:]] + [0]
        found += zip(following, folder.children, strict=True)
        folders += [child for child in folder.children if child is not root and child.children]
    return found


def _write(image: bytearray, node: _Node, following: int) -> None:
    kind = _HARD_LINK if node.link else _KINDS[stat.S_IFMT(node.entry.mode)]
    info = 0
    if node.link:
        info = node.link.at
    elif kind == _FOLDER:
        info = node.children[0].at
    elif kind in (_BLOCK, _CHARACTER):
        info = node.entry.device[0] << 16 | node.entry.device[1]
    executable = _EXECUTABLE if not node.link and node.entry.mode & 0o111 and kind != _SYMLINK else 0
    name, data = node.name.encode(), node.entry.data
    begin = node.at + 16 + _padded(len(name) + 1)
    struct.pack_into(">III", image, node.at, following | kind | executable, info, len(data))
    image[node.at + 16 : node.at + 16 + len(name)] = name
    image[begin : begin + len(data)] = data
    _make_sum_zero(image, node.at, begin, node.at + 12)


def _make_sum_zero(image: bytearray, begin: int, end: int, at: int) -> None:
    """Write what makes the words of a range add up to zero."""
    words = struct.unpack_from(f">{(end - begin) // 4}I", image, begin)
    struct.pack_into(">I", image, at, -sum(words) & 0xFFFFFFFF)


def _padded(size: int, unit: int = 16) -> int:
    return -(-size // unit) * unit
