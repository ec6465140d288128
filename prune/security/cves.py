"""A list of known holes, and what has become of the functions that each of them is in.

The list is the user's, TOML::

    [[cve]]
    id = "CVE-2022-0185"
    file = "fs/fs_context.c"            # optional: where its functions are
    functions = ["legacy_parse_param"]  # or "fs/fs_context.c:legacy_parse_param", one by one
    note = "heap overflow"              # optional

or CSV with a head, a line for each function or for several with spaces between them; lines of one ``cve``
belong together::

    cve,function,file,note
    CVE-2022-0185,legacy_parse_param,fs/fs_context.c,heap overflow

What is said of a function is said of what has its name, with what compilers add for clones and cold parts.
Where nothing has, it is unknown: it may be in its callers, configured out, or called otherwise. That is never
guessed.
"""

from __future__ import annotations

import csv
import io
import re
import tomllib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from prune.ledger.feature import plain
from prune.model.knowledge import option
from prune.security.surface import Kernel
from tracer.host import UserError, read_at_most
from tracer.shapes import WrongShape, check_shape

#: What has become of a function. UNTIL_BOOT: it is freed when the kernel has booted. NOT_BUILT: of a file of
#: the sources that the base kernel was built without. SEVERAL: not the same in all objects that have one of
#: this name.
PRESENT, UNTIL_BOOT, GONE, NOT_BUILT, UNKNOWN, SEVERAL = (
    "present", "until boot", "gone", "not in base", "unknown", "several",
)  # fmt: skip
#: Of some functions of a hole that are known, some are gone.
PARTLY = "partly"
NO_FILE, NO_FUNCTION = "the sources have no such file", "no function has that name; it may be in its callers"
VERDICTS = (PRESENT, PARTLY, SEVERAL, UNKNOWN, GONE, NOT_BUILT)
MAX_BYTES = 1 << 22
_ID = re.compile(r"[A-Za-z0-9][\w.:+/-]{0,63}", re.ASCII)
_FUNCTION = re.compile(r"[A-Za-z_]\w{0,254}", re.ASCII)
_FILE = re.compile(r"(?!/)(?!(?:.*/)?\.\.?/)[\w.,+/-]{1,254}\.[cSo]", re.ASCII)
_COLUMNS = {"cve", "function", "file", "note"}


@dataclass(frozen=True)
class Named:
    """A function of a hole; ``file`` of the kernel's sources, "" for any."""

    function: str
    file: str = ""

    @property
    def object(self) -> str:
        return re.sub(r"\.[cS]$", ".o", self.file)


@dataclass(frozen=True)
class Hole:
    """One entry of the list."""

    id: str
    functions: tuple[Named, ...]
    note: str = ""


@dataclass(frozen=True)
class Piece:
    """One function or clone as the kernels have it, with its bytes in each."""

    symbol: str
    object: str
    state: str
    base: int
    pruned: int


@dataclass(frozen=True)
class Found:
    """What has become of one function, and what there is of it; ``why`` nothing is known of it."""

    function: str
    file: str
    state: str
    pieces: tuple[Piece, ...]
    why: str = ""


@dataclass(frozen=True)
class Judged:
    """A hole with its verdict."""

    id: str
    note: str
    verdict: str
    functions: tuple[Found, ...]


def read_holes(path: Path) -> tuple[Hole, ...]:
    """Read a list, CSV if that is how the file's name ends.

    Raises:
        UserError: unreadable, neither TOML nor CSV, or an entry that is none.
    """
    try:
        data = read_at_most(path, MAX_BYTES)
        if len(data) > MAX_BYTES:
            raise ValueError(f"it has more than {MAX_BYTES >> 20} MiB")
        text = data.decode()
        return tuple(_of_csv(text) if path.suffix.lower() == ".csv" else _of_toml(text))
    except OSError as error:
        raise UserError(f"reading the list of CVEs {path}: {error.strerror or error}") from error
    except RecursionError:
        raise UserError(f"reading the list of CVEs {path}: it is nested too deeply") from None
    except WrongShape as error:
        raise UserError(f"reading the list of CVEs {path}: {error}", error.remedy) from None
    except (ValueError, csv.Error) as error:
        raise UserError(
            f"reading the list of CVEs {path}: {error}",
            '[[cve]] tables with id = "CVE-..." and functions = ["name"], or CSV: cve,function,file',
        ) from error


def _of_toml(text: str) -> Iterator[Hole]:
    seen: set[str] = set()
    for raw in check_shape(tomllib.loads(text), "cves").get("cve", []):
        row = check_shape(raw, "cve")
        name, file = row["id"], row.get("file", "")
        if not all(isinstance(each, str) for each in row["functions"]):
            raise ValueError(f"{name}: functions are texts")
        if name in seen:
            raise ValueError(f"{name} is there twice")
        seen.add(name)
        yield _hole(name, [(each, file) for each in row["functions"]], row.get("note", ""))


def _of_csv(text: str) -> Iterator[Hole]:
    rows = csv.DictReader(io.StringIO(text, newline=""), strict=True)
    columns = list(rows.fieldnames or [])
    if not {"cve", "function"} <= set(columns) <= _COLUMNS or len(columns) > len(set(columns)):
        raise ValueError(f"its first line is not cve,function,file,note but {','.join(columns)}")
    names: dict[str, list[tuple[str, str]]] = {}
    notes: dict[str, str] = {}
    for row in rows:
        if None in row or None in row.values():
            raise ValueError(f"line {rows.line_num} has not as many fields as the first")
        mine = names.setdefault(row["cve"], [])
        mine += [(name, row.get("file", "")) for name in row["function"].split()]
        notes[row["cve"]] = notes.get(row["cve"]) or row.get("note", "")
    for name, functions in names.items():
        yield _hole(name, functions, notes[name])


def _hole(name: str, functions: Sequence[tuple[str, str]], note: str) -> Hole:
    if not _ID.fullmatch(name):
        raise ValueError(f"{name!r} is no name of a CVE")
    if not functions:
        raise ValueError(f"{name} names no function")
    return Hole(name, tuple(dict.fromkeys(_named(name, *each) for each in functions)), note)


def _named(name: str, function: str, file: str) -> Named:
    before, colon, last = function.rpartition(":")
    function, file = (last, before) if colon else (function, file)
    if not _FUNCTION.fullmatch(function):
        raise ValueError(f"{name}: {function!r} is no name of a function")
    if file and not _FILE.fullmatch(file):
        raise ValueError(f"{name}: {file!r} is no .c, .S or .o file below the kernel's sources")
    return Named(function, file)


def judge(holes: Iterable[Hole], base: Kernel, pruned: Kernel, source: Path) -> tuple[Judged, ...]:
    """What has become of each hole.

    Args:
        source: the folder with the kernel's sources.
    """
    pieces = _pieces({named.function for hole in holes for named in hole.functions}, base, pruned)
    objects = frozenset(base.functions.image.objects)
    made = []
    for hole in holes:
        found = tuple(_find(named, pieces, objects, source) for named in hole.functions)
        made.append(Judged(hole.id, hole.note, verdict([each.state for each in found]), found))
    return tuple(made)


def verdict(states: Sequence[str]) -> str:
    """Of a hole whose functions have these states. One that is unknown may be in a caller that stays, so
    nothing is gone then; what was not built takes no part unless all was not."""
    count = set(states) - {NOT_BUILT}
    if not count:
        return NOT_BUILT
    if SEVERAL in count:
        return SEVERAL
    if count & {PRESENT, UNTIL_BOOT}:
        return PARTLY if GONE in count else PRESENT
    return UNKNOWN if UNKNOWN in count else GONE


def _pieces(wanted: set[str], base: Kernel, pruned: Kernel) -> Mapping[str, list[Piece]]:
    """Name in the source -> what the base kernel has of it."""
    image, of_unit = base.functions.image, base.functions.of_unit
    found: dict[str, list[Piece]] = {name: [] for name in wanted}
    for symbol, vertices in base.functions.named.items():
        for vertex in vertices if plain(symbol) in found else ():
            unit = int(of_unit[vertex])
            if not base.is_function[vertex] or not base.size[unit]:
                continue
            stays = bool(pruned.size[unit])
            state = (UNTIL_BOOT if pruned.freed[unit] else PRESENT) if stays else GONE
            size = int(base.bytes[vertex]), int(pruned.bytes[vertex]) if stays else 0
            found[plain(symbol)].append(
                Piece(symbol, image.objects[image.units["object"][unit]], state, *size)
            )
    return found


def _find(named: Named, pieces: Mapping[str, list[Piece]], objects: frozenset[str], source: Path) -> Found:
    here = pieces[named.function]
    if named.file and option("whole") not in objects:
        here = [piece for piece in here if piece.object == named.object]
        if named.object not in objects:
            if _has(source, named):
                return Found(named.function, named.file, NOT_BUILT, ())
            return Found(named.function, named.file, UNKNOWN, (), NO_FILE)
    here = sorted(here, key=lambda piece: (piece.object, piece.symbol))
    of_object: dict[str, set[str]] = {}
    for piece in here:
        of_object.setdefault(piece.object, set()).add(piece.state)
    # Some code of a function is there as long as one clone or part of it is.
    states = {
        next(state for state in (PRESENT, UNTIL_BOOT, GONE) if state in each) for each in of_object.values()
    }
    state = states.pop() if len(states) == 1 else SEVERAL if states else UNKNOWN
    return Found(named.function, named.file, state, tuple(here), "" if here else NO_FUNCTION)


def _has(source: Path, named: Named) -> bool:
    """Whether the sources have the file; of an object, one that it can be made from."""
    stem = named.file.removesuffix(".o")
    return any((source / name).is_file() for name in (named.file, f"{stem}.c", f"{stem}.S"))
