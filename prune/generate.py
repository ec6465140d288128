"""From a plan to what the linker needs: the passes in order, nothing else."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from prune.config import read_options
from prune.edit import FREED_GROUPS, edit_object, freed_name, plan_edits
from prune.image import Image, read_image
from prune.knowledge import Knowledge, read_knowledge
from prune.link import LINK_MAP, write_prepared
from prune.linkmap import read_link_map
from prune.plan_file import Plan, load_plan, object_digests
from prune.script import assign, bury, discard_units, place_pieces, place_units, realign
from prune.tables import find_tables
from prune.tombstones import Burial, bury_dropped
from prune.trim import Trim, trim
from tracer.host import UserError


def generate(
    script: Path, plan_file: Path, home: Path, root: Path = Path(), image: Image | None = None
) -> None:
    """Write the script and the edited objects of ``plan_file`` into ``home``.

    Args:
        script, home: relative to ``root``, the object tree, which is where ld will run.
        image: of these objects, when it has been read before.

    Raises:
        UserError: the plan is about other objects than those in the tree.
    """
    plan = load_plan(plan_file)
    knowledge = read_knowledge(plan.arch)
    link_map = read_link_map(plan_file.with_name(LINK_MAP))
    image = image or read_image(root, link_map, knowledge)
    _check_same(plan, image)
    cold = {image.unit_of[place]: ranges for place, ranges in plan.cold.items()}
    image, tables, trimming = trim(image, find_tables(image, knowledge), cold, knowledge)
    trims = trimming.trims if trimming else {}
    burial = bury_dropped(image, tables, plan.keep, knowledge)
    apart = {name for name, _ in image.pieces}
    edits = plan_edits(image, tables, plan.keep, plan.boot, burial, knowledge, trimming)
    contents = {
        name: file.data for name, file in zip(image.objects, image.files, strict=True) if name in apart
    }
    contents |= {image.objects[obj]: edit_object(image.files[obj], edit) for obj, edit in edits.items()}
    text = realign((root / script).read_text(), knowledge.align, _options(root / ".config"))
    names = _names_for_ld(home, image, contents)
    text = generate_script(text, image, plan, burial, knowledge, names)
    write_prepared(
        root,
        home,
        text,
        contents,
        image.objects,
        # What the command line names itself stays there.
        [name for name in image.objects if name in link_map.members],
        [_as_json(image, burial, unit) for unit in burial.stones],
        _freed(image, plan, trims),
        _trimmed(image, plan, trims),
        plan.named,
    )


def _options(config: Path) -> frozenset[str]:
    """The options that are set in a kernel's configuration."""
    if not config.is_file():
        raise UserError(
            f"preparing the pruned link: {config} does not exist", "link in a kernel's object tree"
        )
    return frozenset(name for name, value in read_options(config).items() if value == "y")


def _freed(image: Image, plan: Plan, trims: Mapping[int, Trim]) -> list[dict[str, object]]:
    """The functions that are freed after boot, as ``tombstones.json`` has them."""
    units = [u for u in np.flatnonzero(plan.boot).tolist() if image.units["function"][u]]
    labels = image.labels(units)
    return [
        _place(image, plan, unit, labels)
        | {"size": trims[unit].size if unit in trims else int(image.units["size"][unit])}
        for unit in units
    ]


def _trimmed(image: Image, plan: Plan, trims: Mapping[int, Trim]) -> list[dict[str, object]]:
    """The functions that lost cold blocks, and [where a trap is, for what place] in each."""
    labels = image.labels(trims)
    return [
        _place(image, plan, unit, labels)
        | {"traps": np.stack([made.moved(made.traps), made.traps], axis=1).tolist()}
        for unit, made in trims.items()
    ]


def _place(image: Image, plan: Plan, unit: int, labels: Mapping[int, str]) -> dict[str, object]:
    name = image.names[unit]
    return {
        "symbol": labels.get(unit, name),
        "object": image.objects[int(image.units["object"][unit])],
        "section": name,
        "placed": freed_name(name, executable=True) if plan.boot[unit] else name,
    }


def _check_same(plan: Plan, image: Image) -> None:
    """The plan's units are the image's, and its objects have the content that it was made for.

    Objects without function sections may differ: some hold the time and place of the build
    (init/version.o), and which tombstones they need is found anew.
    """
    now = dict(object_digests(image.root, image.objects))
    functions = image.units["object"][image.units["function"]]
    code = {image.objects[obj] for obj in np.unique(functions).tolist()}
    changed = [name for name, digest in plan.objects if now.get(name) != digest and name in code]
    rows = [(image.objects[obj], name) for obj, name in zip(image.units["object"], image.names, strict=True)]
    if changed or rows != [row[:2] for row in plan.units]:
        what = f"{changed[0]} changed" if changed else "the units differ"
        raise UserError(
            f"preparing the pruned link: {what} since the plan was made", "make it again: kprune plan"
        )


def _names_for_ld(home: Path, image: Image, contents: Mapping[str, bytes]) -> tuple[str, ...]:
    return tuple(str(home / "objects" / name) if name in contents else name for name in image.objects)


def generate_script(
    script: str,
    image: Image,
    plan: Plan,
    burial: Burial,
    knowledge: Knowledge,
    names: Sequence[str],
) -> str:
    """The kernel's script with everything placed, dropped and buried; ``names`` as ld is given them."""
    dropped: dict[str, list[str]] = {}
    for unit, keep in enumerate(plan.keep.tolist()):
        if not keep:
            dropped.setdefault(names[int(image.units["object"][unit])], []).append(image.names[unit])
    text_place = next(place for place in knowledge.place if place.token == ".text")
    elsewhere = {place.token for place in knowledge.place}
    parts = {name for _, name in image.pieces} - elsewhere
    placed = place_pieces(place_units(script, knowledge.place), {*parts, *FREED_GROUPS})
    buried = bury(placed, text_place, knowledge.trap, [stone.grave for stone in burial.stones.values()])
    return assign(discard_units(buried, dropped), burial.aliases)


def _as_json(image: Image, burial: Burial, unit: int) -> dict[str, object]:
    stone = burial.stones[unit]
    return {
        "symbol": stone.label,
        "object": image.objects[int(image.units["object"][unit])],
        "section": image.names[unit],
        "names": list(stone.names),
    }
