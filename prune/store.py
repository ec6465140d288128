"""The image of a build, kept beside its objects as the arrays that it is.

Objects are read, taken apart and given room once, when a kernel has been built; every plan and link after
that maps the arrays. Before they are believed, the objects' content is hashed again: a build that changed is
read anew. What follows from the image alone is kept with it: tables, call graph, functions, roots.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import shutil
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np

from prune.apart import Piece
from prune.callgraph import CallGraph, make_call_graph
from prune.digests import Hashing
from prune.elf import Rows
from prune.functions import Functions, make_functions
from prune.image import Image, Names
from prune.knowledge import FOLDER, Knowledge
from prune.tables import Tables, find_tables
from tracer.host import HostError, UserError, uncollected

SCHEMA = 1
#: The folder in ``.kprune`` of the object tree.
HOME = Path(".kprune") / "image"
_DATA = "data.npy"


@dataclass(frozen=True)
class Stored:
    """An image with what follows from it."""

    image: Image
    tables: Tables
    graph: CallGraph
    functions: Functions


def stored(root: Path, link_map: Path, knowledge: Knowledge) -> Stored:
    """The image of the objects in ``root`` that ``link_map`` places: from the store if it has that, else read
    from the objects and stored.

    Raises:
        UserError: a bad object, or one that the map knows otherwise.
    """
    key = _key(link_map, knowledge.arch)
    with uncollected():
        found = _load(root, key, knowledge)
    if found is None:
        # What reads objects is not loaded where nothing has to be read.
        from prune.assemble import read_image
        from prune.linkmap import read_link_map

        image = read_image(root, read_link_map(link_map), knowledge)
        tables = find_tables(image, knowledge)
        graph = make_call_graph(image, tables, knowledge)
        found = Stored(image, tables, graph, make_functions(image, tables, knowledge))
        _save(root, key, found)
    return found


def _key(link_map: Path, arch: str) -> str:
    """Of what an image is made from besides the objects: the map, and kprune's own code and knowledge."""
    own = sorted([*Path(__file__).parent.glob("*.py"), *FOLDER.glob("*.toml")])
    digest = hashlib.blake2b(arch.encode(), digest_size=16)
    try:
        for path in (link_map, *own):
            digest.update(hashlib.blake2b(path.read_bytes()).digest())
    except OSError as error:
        raise UserError(f"reading link map {link_map}: {error.strerror}", "build the kernel again") from error
    return digest.hexdigest()


def _load(root: Path, key: str, knowledge: Knowledge) -> Stored | None:
    """What is stored, if it is of these objects, whole."""
    try:
        text = json.loads((root / HOME / "text.json").read_text("ascii"))
        if text["schema_version"] != SCHEMA or text["key"] != key:
            return None
        hashing = Hashing([root / name for name in text["objects"]])
        found = _read(root, text, knowledge)
        return found if list(hashing.digests()) == text["digests"] else None
    except (OSError, EOFError, ValueError, KeyError, TypeError):
        return None  # None there, or cut short: it is made again.


def _read(root: Path, text: Mapping[str, Any], knowledge: Knowledge) -> Stored:
    home = root / HOME

    def arrays(prefix: str, kind: type) -> dict[str, Any]:
        return {name: np.load(home / f"{prefix}{name}.npy") for name in _arrays(kind) if name != "data"}

    pieces = {
        (name, section): tuple(Piece(str(n), int(start), int(size)) for n, start, size in parts)
        for name, section, parts in text["pieces"]
    }
    image = Image(
        root=root, machine=knowledge.machine, objects=tuple(text["objects"]), digests=tuple(text["digests"]),
        pieces=pieces, starts=tuple(map(tuple, text["starts"])), archive=int(text["archive"]),
        text=Names(*(tuple(text["names"][field.name]) for field in fields(Names))),
        data=np.load(home / _DATA, mmap_mode="r"), **arrays("", Image),
    )  # fmt: skip
    parts = arrays("functions.", Functions)
    names = tuple(map(tuple, text["functions"]))
    inside = CallGraph(units=len(image.units) + len(parts["keys"]), **arrays("functions.graph.", CallGraph))
    return Stored(
        image,
        Tables(known=knowledge.tables, **arrays("tables.", Tables)),
        CallGraph(units=len(image.units), **arrays("graph.", CallGraph)),
        Functions(image=image, names=names, graph=inside, **parts),
    )


def _arrays(kind: type) -> list[str]:
    return [field.name for field in fields(kind) if field.type == "Rows"]


def _save(root: Path, key: str, made: Stored) -> None:
    """Write it, whole or not at all; what cannot be written is read anew the next time."""
    image = made.image
    home = root / HOME
    text: dict[str, Any] = {
        "schema_version": SCHEMA, "key": key, "objects": image.objects, "digests": image.digests,
        "archive": image.archive, "starts": image.starts, "functions": made.functions.names,
        "names": {f.name: getattr(image.text, f.name) for f in fields(Names)},
        "pieces": [
            [*place, [[piece.name, piece.start, piece.size] for piece in parts]]
            for place, parts in image.pieces.items()
        ],
    }  # fmt: skip
    try:
        home.parent.mkdir(parents=True, exist_ok=True)
        temporary = Path(tempfile.mkdtemp(dir=home.parent, prefix="image."))
    except OSError as error:
        raise HostError(f"writing {home}: {error.strerror or error}", "free some space") from error
    try:
        functions = (("functions.", made.functions), ("functions.graph.", made.functions.graph))
        for prefix, value in (("", image), ("tables.", made.tables), ("graph.", made.graph), *functions):
            for name in _arrays(type(value)):
                _put(temporary / f"{prefix}{name}.npy", getattr(value, name))
        (temporary / "text.json").write_text(json.dumps(text), "ascii")
        shutil.rmtree(home, ignore_errors=True)
        os.replace(temporary, home)
    except OSError as error:
        raise HostError(f"writing {home}: {error.strerror or error}", "free some space") from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _put(path: Path, array: Rows) -> None:
    """As np.save, which does not notice when the last few KB do not fit on the disk."""
    head = io.BytesIO()
    np.lib.format.write_array_header_1_0(head, np.lib.format.header_data_from_array_1_0(array))
    with path.open("wb") as stream:
        stream.write(head.getvalue())
        stream.write(np.ascontiguousarray(array).data)
