"""The link map of lld, by a reader of verify's own: fixed columns, one row a line."""

from __future__ import annotations

import posixpath
from collections.abc import Iterator

from prune.verify.elf import Linked

#: What lld calls the object that it compiled of bitcode; later ones say OUTPUT.lto.o, or OUTPUT.lto.NAME.o in
#: the folder of NAME.o.
COMPILED = "lto.tmp"
_LISTED = "Inputs of the link:"
#: Columns: the indentation of what is in an output section, behind address, load address, size and alignment.
_DEEPER = "        "


def is_lld_map(text: str) -> bool:
    return text.split("\n", 1)[0].split()[:5] == ["VMA", "LMA", "Size", "Align", "Out"]


def outputs_of(text: str) -> dict[str, tuple[int, int]]:
    """Output section -> (address, size)."""
    return {what: place for depth, place, what in _lines(text) if depth == 0 and " " not in what}


def inputs_of(text: str) -> list[str]:
    """The objects in the order of the link."""
    listed = text.partition(f"\n{_LISTED}\n")[2].splitlines()
    return [_real(name) for name in listed if name and not name.endswith(".a")]


def rows_of(text: str, linked: Linked) -> Iterator[tuple[str, str, str, int, int]]:
    """(object, section, output, address, size) of what lies in loaded output sections."""
    output = ""
    given = {*inputs_of(text)}
    for depth, (address, size), what in _lines(text):
        if depth == 0:
            output = what if " " not in what else output
        elif depth == 1 and what.endswith(")") and ":(" in what and output in linked.outputs:
            name, _, section = what.rpartition(":(")
            path = _real(name)
            made = path not in given and ".lto." in posixpath.basename(path)
            yield COMPILED if made else path, section[:-1], output, address, size


def _lines(text: str) -> Iterator[tuple[int, tuple[int, int], str]]:
    """(depth, (address, size), what) of each row; statements of the script in between as they are."""
    for line in text.partition(f"\n{_LISTED}\n")[0].splitlines()[1:]:
        words = line.split(None, 4)
        if len(words) < 5:
            continue
        before = line[: line.index(words[4], len(line) - len(words[4]) - 1)]
        indent = len(before) - len(before.rstrip()) - 1
        depth = indent // len(_DEEPER)
        yield depth, (int(words[0], 16), int(words[2], 16)), words[4]


def _real(name: str) -> str:
    """A member of a thin archive by its path."""
    if name.endswith(")") and "(" in name:
        archive, _, member = name[:-1].rpartition("(")
        return posixpath.normpath(f"{posixpath.dirname(archive) or '.'}/{member}")
    return name.removeprefix("./")
