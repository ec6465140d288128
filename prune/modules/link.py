"""Link the modules of the workload without what is cold, and write what a pruned kernel's guests get.

As the kernel itself: edited objects, and the script with what is dropped discarded and tombstones behind
the functions. A module stays a relocatable file: a tombstone is a symbol of its text, and the loader places
it. kbuild has linked the module once (:mod:`prune.linking.ld`); kprune makes that link again.
"""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from prune.build.kbuild import KernelBuild, locked
from prune.build.modules import load_modules, read_modules, save_modules
from prune.folder import Folder
from prune.guests.graveyard import MODULES_SCHEMA
from prune.linking.bodies import answer_bodies, laid_down
from prune.linking.edit import edit_image
from prune.linking.generate import check_same
from prune.linking.link import PREPARED, pruned_arguments
from prune.linking.prepared import Prepared
from prune.linking.script import bury, discard_units
from prune.linking.tombstones import Burial, bury_dropped
from prune.linking.writing import Contents, Writing
from prune.model.elf import read_object
from prune.model.image import Image
from prune.model.knowledge import Knowledge, read_module_places
from prune.model.room import DROPPED
from prune.modules.export import write_refused
from prune.modules.model import ModuleModel, read_module_model, recorded_link
from prune.modules.signing import sign_modules
from prune.modules.symbols import without_unneeded
from prune.plan.plan_file import Plan, load_plan
from tracer.host import BuildFailed, read_json, run_program, whole_file, write_json
from tracer.module_list import FOLDER, LIST, SCHEMA

#: What of the modules is not there any more, beside ``modules.json``.
TOMBSTONES = "tombstones.json"


@dataclass(frozen=True)
class PrunedModule:
    """A module that was linked again, and its tombstones as ``tombstones.json`` has them."""

    name: str
    stones: tuple[dict[str, Any], ...]


def link_modules(build: KernelBuild, folder: Folder, knowledge: Knowledge) -> None:
    """Write ``OUT/pruned/modules``: those that have a plan linked by it, other ones of the workload as they
    were.

    Raises:
        UserError: a plan is of other objects.
        BuildFailed: the linker failed.
    """
    into = folder.pruned(FOLDER)
    shutil.rmtree(into, ignore_errors=True)
    known = [module for module in load_modules(folder.path("base")) if module.shipped]
    if not (folder.base(FOLDER) / LIST).is_file():
        return
    made: list[PrunedModule] = []
    with locked(build):
        for module in known:
            plan = folder.module_plans / f"{module.path}.json"
            model = read_module_model(build.objtree, module, knowledge) if plan.is_file() else None
            if model is None:
                _copy(build.objtree / module.path, into / module.path)
            else:
                made.append(_link(build, model, load_plan(plan), into / module.path, knowledge))
    release = read_json(folder.base(FOLDER) / LIST, "list of modules", SCHEMA)["release"]
    made_of = read_modules(into, [module.path for module in known], knowledge.machine)
    now = tuple(replace(module, shipped=True) for module in made_of)
    save_modules(now, str(release), into)
    write_json(
        into / TOMBSTONES,
        {"schema_version": MODULES_SCHEMA, "modules": {each.name: each.stones for each in made}},
    )
    write_refused(into, now, knowledge)
    sign_modules(build.objtree, build.source.path, sorted(into.rglob("*.ko")))


def _copy(source: Path, target: Path) -> None:
    with source.open("rb") as stream, whole_file(target, "wb") as copy:
        shutil.copyfileobj(stream, copy)


def _link(
    build: KernelBuild, model: ModuleModel, plan: Plan, into: Path, knowledge: Knowledge
) -> PrunedModule:
    image, root = model.image, build.objtree
    check_same(plan, image)
    burial = bury_dropped(image, model.tables, plan.keep)
    data = edit_image(image, model.tables, plan.keep, plan.boot, burial, knowledge)
    words = recorded_link(root, model.module)
    at = next(i for i, word in enumerate(words) if word.endswith("module.lds"))
    home = Path(PREPARED) / "pruned-modules" / model.module.path
    with Writing(root, home, Contents(image.objects, image.parts, data, image.archive)) as writing:
        script = (root / words[at].removeprefix("--script=")).read_text()
        with whole_file(root / home / "module.lds") as stream:
            stream.write(_script(script, image, plan, burial, knowledge))
    prepared = Prepared(home / "module.lds", writing.archive, writing.edited, named=True)
    words = pruned_arguments(words, at, prepared)
    words[words.index("-o") + 1] = str(into)
    into.parent.mkdir(parents=True, exist_ok=True)
    run_program(
        [build.toolchain.real_linker, *words, f"-Map={root / home / 'module.map'}"],
        doing=f"linking module {model.module.name}", cwd=root, failure=BuildFailed,
    )  # fmt: skip
    left = without_unneeded(read_object(into, knowledge.machine))
    with whole_file(into, "wb") as stream:
        stream.write(left)
    return PrunedModule(model.module.name, tuple(_stones(image.objects, model, burial)))


def _script(script: str, image: Image, plan: Plan, burial: Burial, knowledge: Knowledge) -> str:
    """The module's script with what is dropped discarded, and with tombstones."""
    text = next(place for place in read_module_places() if place.token == ".text")
    graves = [stone.names for stone in burial.stones.values()]
    bodies = answer_bodies(plan.answers, image, knowledge, frozenset())
    others = laid_down(bodies, image, burial)
    # Symbols around them would have the address of the first one, and an oops would show these.
    return discard_units(bury(script, text, knowledge.trap, graves, others, bounds=False), DROPPED)


def _stones(objects: Sequence[str], model: ModuleModel, burial: Burial) -> list[dict[str, Any]]:
    owner = np.asarray(model.image.units["object"])
    return [
        {
            "symbol": stone.label, "object": objects[int(owner[unit])],
            "section": model.image.names[unit], "names": list(stone.names),
        }
        for unit, stone in burial.stones.items()
    ]  # fmt: skip
