"""The image of a build, kept beside its objects as the arrays that it is.

Objects are read, taken apart and given room once, when a kernel has been built; every plan and link after
that maps the arrays. Before they are believed, the objects' content is hashed again: a build that changed is
read anew. What follows from the image alone is kept with it: tables, call graph, functions, locks.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, BinaryIO

import msgspec
import numpy as np

from prune.model.apart import Piece
from prune.model.callgraph import CallGraph, make_call_graph
from prune.model.digests import Hashing, digests_of
from prune.model.elf import Rows
from prune.model.functions import Functions, make_functions
from prune.model.image import Image, Names
from prune.model.knowledge import CODE, FOLDER, Knowledge
from prune.model.locks import Locks
from prune.model.tables import Tables, find_tables
from tracer.host import HostError, uncollected

SCHEMA = 4
#: The folder in ``.kprune`` of the object tree.
HOME = Path(".kprune") / "image"
_ARRAYS = "arrays.bin"
#: Where an array may begin: what no element of one straddles.
_ALIGN = 64


@dataclass(frozen=True)
class Stored:
    """An image with what follows from it."""

    image: Image
    tables: Tables
    graph: CallGraph
    functions: Functions
    locks: Locks


def stored(root: Path, link_map: Path, knowledge: Knowledge) -> Stored:
    """The image of the objects in ``root`` that ``link_map`` places: from the store if it has that, else read
    from the objects and stored.

    Raises:
        UserError: a bad object, or one that the map knows otherwise.
    """
    key = _key(knowledge.arch)
    with uncollected():
        found = _load(root, link_map, key, knowledge)
    if found is None:
        # What reads objects is not loaded where nothing has to be read.
        from prune.model.assemble import read_image
        from prune.model.lock_calls import make_locks
        from prune.model.mapfile import read_link_map

        placed = digests_of([link_map])[0] if link_map.is_file() else ""
        image = read_image(root, read_link_map(link_map), knowledge)
        tables = find_tables(image, knowledge)
        graph = make_call_graph(image, tables, knowledge)
        functions = make_functions(image, tables, knowledge)
        found = Stored(image, tables, graph, functions, make_locks(image, tables, knowledge))
        _save(root, {"key": key, "map": placed}, found)
    return found


def _key(arch: str) -> str:
    """Of what an image is made from besides objects and map: kprune's own code and knowledge."""
    own = sorted([*CODE.rglob("*.py"), *FOLDER.glob("*.toml")])
    digest = hashlib.blake2b(arch.encode(), digest_size=16)
    for path in own:
        digest.update(path.read_bytes())
    return digest.hexdigest()


def _load(root: Path, link_map: Path, key: str, knowledge: Knowledge) -> Stored | None:
    """What is stored, if it is of this map and these objects, whole."""
    try:
        text = msgspec.json.decode((root / HOME / "text.json").read_bytes())
        if text["schema_version"] != SCHEMA or text["key"] != key:
            return None
        if text["written"] != _stamp(root / HOME / _ARRAYS):
            return None  # Nobody writes to it but kprune: it is not kprune's any more.
        hashing = Hashing([link_map, *(f"{root}/{name}" for name in text["objects"])])
        found = _read(root, text, knowledge)
        return found if hashing.digests() == (text["map"], *text["digests"]) else None
    except (OSError, ValueError, KeyError, TypeError, msgspec.MsgspecError):
        return None  # None there, or cut short: it is made again.


def _read(root: Path, text: Mapping[str, Any], knowledge: Knowledge) -> Stored:
    # Mapped, not read: of some a plan needs a part.
    whole = np.memmap(root / HOME / _ARRAYS, np.uint8, "r")

    def arrays(prefix: str, kind: type) -> dict[str, Any]:
        return {name: _array(whole, text["arrays"][prefix + name]) for name in _arrays(kind)}

    pieces = {
        (name, section): tuple(Piece(str(n), int(start), int(size)) for n, start, size in parts)
        for name, section, parts in text["pieces"]
    }
    image = Image(
        root=root, machine=knowledge.machine, objects=tuple(text["objects"]), digests=tuple(text["digests"]),
        pieces=pieces, starts=tuple(map(tuple, text["starts"])), archive=int(text["archive"]),
        text=Names(*(tuple(text["names"][field.name]) for field in fields(Names))), **arrays("", Image),
    )  # fmt: skip
    parts = arrays("functions.", Functions)
    names = tuple(map(tuple, text["functions"]))
    inside = CallGraph(units=len(image.units) + len(parts["keys"]), **arrays("functions.graph.", CallGraph))
    return Stored(
        image,
        Tables(known=knowledge.tables, **arrays("tables.", Tables)),
        CallGraph(units=len(image.units), **arrays("graph.", CallGraph)),
        Functions(image=image, names=names, graph=inside, **parts),
        Locks(**arrays("locks.", Locks)),
    )


def _stamp(path: Path) -> list[int]:
    """Size and time of the last write. The arrays are three times what they were made from: hashing them
    would cost more than everything that a plan does."""
    found = path.stat()
    return [found.st_size, found.st_mtime_ns]


def _array(whole: Rows, where: Mapping[str, Any]) -> Rows:
    kind = where["dtype"]
    dtype = np.dtype(kind if isinstance(kind, str) else [(str(name), str(form)) for name, form in kind])
    return np.frombuffer(whole, dtype, where["rows"], where["at"])


def _arrays(kind: type) -> list[str]:
    return [field.name for field in fields(kind) if field.type == "Rows"]


def _save(root: Path, key: Mapping[str, str], made: Stored) -> None:
    """Write it, whole or not at all.

    Raises:
        HostError: there is no room for it, or something is in the way.
    """
    image = made.image
    home = root / HOME
    text: dict[str, Any] = {
        "schema_version": SCHEMA, **key, "objects": image.objects, "digests": image.digests,
        "archive": image.archive, "starts": image.starts, "functions": made.functions.names,
        "names": {f.name: getattr(image.text, f.name) for f in fields(Names)},
        "pieces": [
            [*place, [[piece.name, piece.start, piece.size] for piece in parts]]
            for place, parts in image.pieces.items()
        ],
    }  # fmt: skip
    temporary: Path | None = None
    try:
        home.parent.mkdir(parents=True, exist_ok=True)
        temporary = Path(tempfile.mkdtemp(dir=home.parent, prefix="image."))
        with (temporary / _ARRAYS).open("wb") as stream:
            text["arrays"] = _put(stream, made)
        text["written"] = _stamp(temporary / _ARRAYS)
        (temporary / "text.json").write_text(json.dumps(text), "ascii")
        shutil.rmtree(home, ignore_errors=True)
        os.replace(temporary, home)
    except OSError as error:
        raise HostError(f"writing {home}: {error.strerror or error}", "free some space") from error
    finally:
        if temporary:
            shutil.rmtree(temporary, ignore_errors=True)


def _put(stream: BinaryIO, made: Stored) -> dict[str, dict[str, Any]]:
    """Write all arrays; where each is, and of what."""
    parts = (
        ("", made.image), ("tables.", made.tables), ("graph.", made.graph), ("locks.", made.locks),
        ("functions.", made.functions), ("functions.graph.", made.functions.graph),
    )  # fmt: skip
    found = {}
    for prefix, value in parts:
        for name in _arrays(type(value)):
            array = getattr(value, name)
            stream.write(bytes(-stream.tell() % _ALIGN))
            kind = array.dtype.descr if array.dtype.names else array.dtype.str
            found[prefix + name] = {"dtype": kind, "rows": len(array), "at": stream.tell()}
            stream.write(np.ascontiguousarray(array).data if len(array) else b"")
    return found
