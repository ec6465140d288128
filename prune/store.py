"""The image of a build, kept beside its objects as the arrays that it is.

Objects are read, taken apart and given room once, when a kernel has been built; every plan and link after
that maps the arrays. Before they are believed, the objects' content is hashed again: a build that changed is read
anew. What follows from the image alone is kept with it: tables, call graph, functions, roots.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tempfile
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np

from prune.apart import Piece
from prune.callgraph import CallGraph, make_call_graph
from prune.digests import digests_of
from prune.functions import Functions, make_functions
from prune.image import Image, Names
from prune.knowledge import FOLDER, Knowledge
from prune.tables import Tables, find_tables
from tracer.host import HostError, UserError

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
    home = root / HOME
    try:
        text = json.loads((home / "text.json").read_text("ascii"))
        if text["schema_version"] != SCHEMA or text["key"] != key:
            return None
        if list(digests_of([root / name for name in text["objects"]])) != text["digests"]:
            return None
        arrays = {name: np.load(home / f"{name}.npy") for name in _arrays(Image) if name != "data"}
        arrays["data"] = np.load(home / _DATA, mmap_mode="r")
        tables = {name: np.load(home / f"tables.{name}.npy") for name in _arrays(Tables)}
        graph = {name: np.load(home / f"graph.{name}.npy") for name in _arrays(CallGraph)}
        inside = {name: np.load(home / f"functions.{name}.npy") for name in _arrays(CallGraph)}
        keys = np.load(home / "functions.keys.npy")
    except (OSError, ValueError, KeyError, TypeError):
        return None  # None there, or cut short: it is made again.
    pieces = {
        (name, section): tuple(Piece(str(n), int(start), int(size)) for n, start, size in parts)
        for name, section, parts in text["pieces"]
    }
    names = Names(*(tuple(text["names"][field.name]) for field in fields(Names)))
    image = Image(
        root=root, machine=knowledge.machine, objects=tuple(text["objects"]), digests=tuple(text["digests"]),
        pieces=pieces, starts=tuple(tuple(units) for units in text["starts"]), text=names, archive=int(text["archive"]), **arrays,
    )  # fmt: skip
    vertices = len(image.units) + len(keys)
    functions = Functions(
        image, keys, tuple(map(tuple, text["functions"])), CallGraph(units=vertices, **inside)
    )
    return Stored(
        image, Tables(known=knowledge.tables, **tables), CallGraph(units=len(image.units), **graph), functions
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
        "pieces": [[*place, [[p.name, p.start, p.size] for p in parts]] for place, parts in image.pieces.items()],
    }  # fmt: skip
    home.parent.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(dir=home.parent, prefix="image."))
    try:
        np.save(temporary / "functions.keys.npy", made.functions.keys)
        graphs = (("graph.", made.graph), ("functions.", made.functions.graph))
        for prefix, value in (("", image), ("tables.", made.tables), *graphs):
            for name in _arrays(type(value)):
                np.save(temporary / f"{prefix}{name}.npy", getattr(value, name))
        (temporary / "text.json").write_text(json.dumps(text), "ascii")
        shutil.rmtree(home, ignore_errors=True)
        os.replace(temporary, home)
    except OSError as error:
        raise HostError(f"writing {home}: {error.strerror or error}", "free some space") from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
