"""One module as the passes see a kernel: the objects of its last link, their tables and call graph.

``kprune-ld`` records that link when kbuild makes it (:mod:`prune.linking.ld`). Init and exit code is not
taken apart: all of it stays, for it is what loads and unloads the module, and the kernel frees the one by
itself.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

from prune.build.modules import Module
from prune.model.assemble import read_image
from prune.model.callgraph import CallGraph, make_call_graph
from prune.model.image import Image
from prune.model.knowledge import Knowledge
from prune.model.mapfile import read_link_map
from prune.model.tables import Tables, find_tables
from tracer.host import MISSHAPEN, UserError, read_json

#: Where kprune-ld puts what it records of modules, in the object tree.
RECORDED = Path(".kprune/modules")


@dataclass(frozen=True)
class ModuleModel:
    """A module's image with what follows from it."""

    module: Module
    image: Image
    tables: Tables
    graph: CallGraph


def read_module_model(objtree: Path, module: Module, knowledge: Knowledge) -> ModuleModel | None:
    """The objects of a module; None when it has no function that could be dropped.

    Raises:
        UserError: its link was not recorded, or an object is bad.
    """
    whole = replace(knowledge, split=frozenset())
    link_map = read_link_map(objtree / RECORDED / f"{module.path}.map")
    if not any(whole.unit_kind(row.section)[0] and row.size for row in link_map.placed):
        return None
    image = read_image(objtree, link_map, whole)
    tables = find_tables(image, whole)
    return ModuleModel(module, image, tables, make_call_graph(image, tables, whole))


def module_objects(objtree: Path, module: Module, knowledge: Knowledge) -> tuple[str, ...]:
    """The objects that a module was linked from."""
    link_map = read_link_map(objtree / RECORDED / f"{module.path}.map")
    return tuple(name for name in link_map.objects if not knowledge.is_generated(name))


def recorded_link(objtree: Path, module: Module) -> list[str]:
    """The words behind the linker in the last link of a module.

    Raises:
        UserError: it was not recorded.
    """
    path = objtree / RECORDED / f"{module.path}.json"
    value = read_json(path, "recorded link of a module", 1)
    try:
        words = [str(word) for word in value["argv"]]
        words[words.index("-o") + 1]
    except MISSHAPEN as error:
        raise UserError(
            f"reading the recorded link of a module: {path}: {error!r}", "build the kernel again"
        ) from error
    return words
