"""From a plan to what the linker needs: the passes in order, nothing else."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from prune.linking.bodies import Body, answer_bodies, laid_down, refusals, shared_answers
from prune.linking.edit import edit_image
from prune.linking.prepared import LISTING, SCRIPT, Prepared, Ready
from prune.linking.script import assign, bury, discard_units, list_dropped, place_pieces, place_units, realign
from prune.linking.tombstones import Burial, bury_dropped
from prune.linking.writing import Contents, Writing, write_prepared
from prune.model.elf import Rows
from prune.model.image import Image
from prune.model.knowledge import Knowledge, read_knowledge
from prune.model.room import DROPPED, FREED_GROUPS, freed_name
from prune.model.tables import Tables
from prune.options import read_options
from prune.plan.plan_file import Plan
from prune.plan.policy import REFUSE, RETURN
from tracer.host import UserError, uncollected, whole_file

# Disassembling is for those whose plan takes blocks out.
if TYPE_CHECKING:
    from prune.plan.trim import Trim, Trimming


@uncollected()
def generate(script: Path, plan: Plan, home: Path, root: Path, image: Image, tables: Tables) -> Ready:
    """Write the script and the edited objects of a plan into ``home``.

    Args:
        script, home: relative to ``root``, the object tree, which is where ld will run.
        image, tables: of the plan's objects.

    Raises:
        UserError: the plan asks for what these objects cannot do.
    """
    knowledge = read_knowledge(plan.arch)
    trimming = None
    if plan.cold:
        from prune.plan.trim import trim

        cold = {image.unit_of[place]: ranges for place, ranges in plan.cold.items()}
        image, tables, trimming = trim(image, tables, cold, knowledge)
        trimming = _with_stops(trimming, image, plan)
    trims = trimming.trims if trimming else {}
    options = _options(root / ".config")
    shared = shared_answers(plan.answers, image, knowledge, options)
    burial = bury_dropped(image, tables, plan.keep, shared)
    burial, calls = refusals(plan.answers, image, burial, knowledge, options)
    data = edit_image(image, tables, plan.keep, plan.boot, burial, knowledge, trimming)
    with Writing(root, home, Contents(image.objects, image.parts, data, image.archive)) as writing:
        bodies = answer_bodies(plan.answers, image, knowledge, options) | calls
        text = realign((root / script).read_text(), knowledge.align, options)
        text = generate_script(text, image, plan.keep, burial, knowledge, bodies)
        with whole_file(root / home / SCRIPT, "wb") as stream:
            stream.write(text.encode("utf-8", "surrogateescape"))

    def describe() -> None:
        listing = list_dropped(text, DROPPED, _dropped(image, plan.keep))
        with whole_file(root / home / LISTING, "wb") as stream:
            stream.write(listing.encode("utf-8", "surrogateescape"))
        write_prepared(
            root,
            writing,
            dict(zip(image.objects, image.digests, strict=True)),
            [
                _as_json(image, burial, unit) | _as_answer(plan, image.rows[unit][:2], bodies, knowledge.trap)
                for unit in burial.stones
            ],
            _freed(image, plan, trims),
            _trimmed(image, plan, trims),
            plan.named,
        )

    return Ready(Prepared(home / SCRIPT, writing.archive, writing.edited, plan.named), describe)


def _options(config: Path) -> frozenset[str]:
    """The options that are set in a kernel's configuration."""
    if not config.is_file():
        raise UserError(
            f"preparing the pruned link: {config} does not exist", "link in a kernel's object tree"
        )
    return frozenset(name for name, value in read_options(config).items() if value == "y")


def _with_stops(trimming: Trimming | None, image: Image, plan: Plan) -> Trimming | None:
    """The layout of functions that lost blocks with the traps that stop the machine."""
    if trimming is None:
        return None
    stops = {image.unit_of[place]: frozenset(places) for place, places in plan.stops.items()}
    trims = {unit: replace(made, stops=stops.get(unit, frozenset())) for unit, made in trimming.trims.items()}
    return replace(trimming, trims=trims)


def _freed(image: Image, plan: Plan, trims: Mapping[int, Trim]) -> list[dict[str, object]]:
    """The functions that are freed after boot, as ``tombstones.json`` has them."""
    units = np.flatnonzero(plan.boot & image.units["function"]).tolist()
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


def check_same(plan: Plan, image: Image) -> None:
    """The plan's units are the image's, and its objects have the content that it was made for.

    Objects without function sections may differ: some hold the time and place of the build
    (init/version.o), and which tombstones they need is found anew.

    Raises:
        UserError: the plan is about other objects than those in the tree.
    """
    now = dict(zip(image.objects, image.digests, strict=True))
    functions = image.units["object"][image.units["function"]]
    code = {image.objects[obj] for obj in np.unique(functions).tolist()}
    gone = [name for name, _ in plan.objects if name not in now]
    changed = [name for name, digest in plan.objects if now.get(name) != digest and name in code]
    same = [row[:2] for row in image.rows] == [row[:2] for row in plan.units]
    if gone or changed or not same:
        what = f"{gone[0]} went" if gone else f"{changed[0]} changed" if changed else "the units differ"
        raise UserError(
            f"preparing the pruned link: {what} since the plan was made", "make it again: kprune plan"
        )


def generate_script(
    script: str,
    image: Image,
    keep: Rows,
    burial: Burial,
    knowledge: Knowledge,
    bodies: Mapping[tuple[str, str], Body],
) -> str:
    """The kernel's script with everything placed, dropped and buried."""
    text_place = next(place for place in knowledge.place if place.token == ".text")
    elsewhere = {place.token for place in knowledge.place}
    parts = {name for _, name in image.pieces} - elsewhere
    placed = place_pieces(place_units(script, knowledge.place), {*parts, *FREED_GROUPS})
    graves = [stone.names for stone in burial.stones.values()]
    buried = bury(placed, text_place, knowledge.trap, graves, laid_down(bodies, image, burial))
    return assign(buried if keep.all() else discard_units(buried, DROPPED), burial.aliases)


def _dropped(image: Image, keep: Rows) -> dict[str, list[str]]:
    """Object -> the sections of it that go."""
    gone = (~keep).tolist()
    return {
        name: [section for section, unit in units.items() if gone[unit]]
        for name, units in image.units_of.items()
    }


def _as_json(image: Image, burial: Burial, unit: int) -> dict[str, object]:
    stone = burial.stones[unit]
    return {
        "symbol": stone.label,
        "object": image.objects[int(image.units["object"][unit])],
        "section": image.names[unit],
        "names": list(stone.names),
    }


def _as_answer(
    plan: Plan, place: tuple[str, str], bodies: Mapping[tuple[str, str], Body], trap: bytes
) -> dict[str, object]:
    """The bytes of a tombstone, the value that it returns, "" where it does not return, and whether it is
    that of a system call."""
    answer = plan.answers.get(place)
    call = answer is not None and answer.on_miss == REFUSE
    row: dict[str, object] = {
        "size": bodies[place].size if place in bodies else len(trap),
        "answer": answer.value if answer and answer.on_miss in (RETURN, REFUSE) else "",
        "call": call,
    }
    # The function may have another name first (SYSCALL_DEFINE0).
    return row | {"symbol": answer.function} if answer and call else row
