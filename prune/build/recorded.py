"""The links that a build has recorded, to be made again elsewhere: nothing is written into an object tree."""

from __future__ import annotations

import re
import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from prune.model.knowledge import generated_objects
from tracer.host import MISSHAPEN, UserError, read_json

#: What a kernel with LTO is linked from: one object, for which all code is generated.
WHOLE = "vmlinux.o"
_RECORDED = re.compile(r"^(?:saved)?cmd_vmlinux\.o := (.*)$", re.M)
_CACHE = "--thinlto-cache-dir="


@dataclass(frozen=True)
class LastLink:
    """The last link of vmlinux, as kprune-ld was called: the kernel's ``script``, and the words behind the
    linker."""

    script: Path
    argv: tuple[str, ...]

    @property
    def generates_code(self) -> bool:
        """Whether the link of :data:`WHOLE` comes before it."""
        return WHOLE in self.argv


def read_last_link(path: Path) -> LastLink:
    """The ``link.json`` of a finished build.

    Raises:
        UserError: missing or damaged.
    """
    value = read_json(path, "recorded link", 1)
    try:
        link = LastLink(Path(value["script"]), tuple(map(str, value["argv"])))
        link.argv[link.argv.index("-o") + 1]
    except MISSHAPEN as error:
        raise UserError(f"reading the recorded link: {path}: {error!r}", "build the kernel again") from error
    return link


def redirected(argv: Sequence[str], output: Path) -> list[str]:
    """A recorded link with another output, no map, and without what was made from a finished vmlinux: the
    tables of kallsyms."""
    generated = generated_objects()
    words = list(argv)
    words[words.index("-o") + 1] = str(output)
    return [w for w in words if not w.startswith("-Map") and not generated.fullmatch(w.rpartition("/")[2])]


def code_generation(objtree: Path, linker: str, output: Path) -> list[str]:
    """The command of an LTO build that generates all code, the link of :data:`WHOLE`, with another output.

    Raises:
        UserError: the tree has no record of that link.
    """
    record = objtree / f".{WHOLE}.cmd"
    found = _RECORDED.search(record.read_text()) if record.is_file() else None
    if not found:
        raise UserError(f"reading {record}: it does not say how {WHOLE} was linked", "build the kernel again")
    words = shlex.split(found[1].replace("$$", "$"))[1:]
    # What objtool does with it afterwards is no part of the link, and a cache would be the work of others.
    words = words[: words.index(";")] if ";" in words else words
    return [linker, *redirected([word for word in words if not word.startswith(_CACHE)], output)]
