"""Where the types of functions come from: an object's own DWARF, or the same source compiled once more.

A kernel need not be built with debug information for a policy: the object tree says how kbuild compiled each
object (``.NAME.o.cmd``), and that command, with ``-g`` and another output, makes an object of which only the
DWARF is read. (BTF would say nothing more: pahole makes it of the same DWARF.) What was read is kept beside
the objects, for a profile that is mended is planned with many times.
"""

from __future__ import annotations

import re
import shlex
import tempfile
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

import msgspec

from prune.model.knowledge import Knowledge
from prune.plan.dwarf_types import FunctionType, read_function_types
from tracer.host import MISSHAPEN, BuildFailed, UserError, read_json, run_program, say, write_json

SCHEMA = 1
#: In the object tree.
FOLDER = Path(".kprune/types")
_COMMAND = re.compile(r"^(?:saved)?cmd_\S+\.o := (.*)$", re.M)
_FLAGS = ("-g", "-gno-split-dwarf", "-gz=none", "-w")
#: Where gcc and clang note what an object was made of; kbuild reads that.
_NOTES = "-Wp,-MMD,"

Types = Mapping[str, FunctionType | None]


@dataclass(frozen=True)
class TypeReader:
    """Reads the types of the objects in the object tree ``root``; ``digests``: object -> of its content."""

    root: Path
    digests: Mapping[str, str]
    knowledge: Knowledge

    def __call__(self, name: str) -> Types:
        """Name -> type of the functions in one object; None for a name of several types. Empty: nobody can
        tell.

        Raises:
            UserError, BuildFailed: the object is damaged, or cannot be compiled again.
        """
        kept = self.root / FOLDER / f"{self.digests[name]}.json"
        found = _kept(kept)
        if found is None:
            path = self.root / name
            try:
                found = read_function_types(path, path.read_bytes(), self.knowledge)
            except OSError as error:
                raise UserError(
                    f"reading object {path}: {error.strerror}", "build the kernel again"
                ) from error
            found = found or self._compiled(name)
            if found:
                kept.parent.mkdir(parents=True, exist_ok=True)
                rows = {key: asdict(each) if each else None for key, each in found.items()}
                write_json(kept, {"schema_version": SCHEMA, "types": rows}, indent=None)
        return found

    def _compiled(self, name: str) -> Types:
        """Of the same source, compiled again with debug information."""
        words = compile_words(self.root, name)
        if not words:
            return {}
        say(f"reading types: compiling {name} with -g")
        with tempfile.TemporaryDirectory() as folder:
            output = Path(folder) / "typed.o"
            doing = f"compiling {name} again for the types of its functions"
            run_program([*words, "-o", output], doing=doing, cwd=self.root, failure=BuildFailed)
            return read_function_types(self.root / name, output.read_bytes(), self.knowledge)


def compile_words(root: Path, name: str) -> list[str]:
    """The command that compiled an object, with debug information and without an output; none when the
    object tree does not say."""
    folder, _, base = name.rpartition("/")
    record = root / folder / f".{base}.cmd"
    found = _COMMAND.search(record.read_text(errors="replace")) if record.is_file() else None
    if not found:
        return []
    try:
        # As kbuild writes it for make and a shell: scripts/Kbuild.include, make-cmd.
        words = shlex.split(found[1].replace("$(pound)", "#").replace("$$", "$"))
    except ValueError:
        return []
    # What objtool does with it afterwards has nothing to do with its types.
    words = words[: words.index(";")] if ";" in words else words
    words = [word for word in words if not word.startswith(_NOTES)]
    if "-c" not in words or "-o" not in words[:-1]:
        return []
    at = words.index("-o")
    return [*words[:at], *words[at + 2 :], *_FLAGS]


def _kept(path: Path) -> Types | None:
    """What was read before; None: nothing, or by another kprune."""
    if not path.is_file():
        return None
    try:
        value = read_json(path, "types of functions", SCHEMA)
        return msgspec.convert(value["types"], dict[str, FunctionType | None])
    except (UserError, msgspec.ValidationError, *MISSHAPEN):
        return None
