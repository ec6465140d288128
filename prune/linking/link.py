"""Prepare the pruned link: from a plan to a linker script and edited objects.

``kprune-ld`` calls this on every link of ``vmlinux``; kbuild makes up to four of them with the same
objects, so what was written stays in ``.kprune/`` of the object tree and is used again while the plan,
the objects, the script and kprune itself are the same, by content.
"""

from __future__ import annotations

import hashlib
import re
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from prune.linking.prepared import LISTING, SCHEMA, SCRIPT, Prepared
from prune.model.digests import digests_of
from tracer.host import HostError, UserError, read_json, whole_file, write_json

if TYPE_CHECKING:
    from prune.model.store import Stored
    from prune.plan.plan_file import Plan

#: Of tombstones.json, which others read.
TOMBSTONES_SCHEMA = 5
LINK_MAP = "vmlinux.base.map"
#: The folder in the object tree.
PREPARED = ".kprune"
_CODE = Path(__file__).parent.parent
_EDITED = re.compile(r"^\.kprune/plan-[0-9a-f]+/objects/")


@dataclass(frozen=True)
class Made:
    """A plan and the image that it was made of, where somebody has them at hand."""

    plan: Plan
    stored: Stored


def prepare_link(
    arguments: Sequence[str], at: int, script: Path, plan: Path, folder: Path
) -> tuple[list[str], Path, bool]:
    """The arguments of a pruned link, where its map goes, whether kallsyms has the names of tombstones.

    Args:
        arguments: of the unpruned link; ``at`` is the index of the one that names the script.
        folder: ``.kprune`` in the object tree, which is the working directory.

    Raises:
        UserError: the plan is about other objects.
    """
    prepared = prepare(script, plan, folder)
    return pruned_arguments(arguments, at, prepared), Path("vmlinux.map"), prepared.named


def pruned_arguments(arguments: Sequence[str], at: int, prepared: Prepared) -> list[str]:
    """The arguments of a link with the script (the argument ``at``) and the objects replaced."""
    words: list[str] = []
    listed = whole = False
    for index, word in enumerate(arguments):
        if index == at:
            words.append(f"--script={prepared.script}" if word.startswith("--") else str(prepared.script))
        elif word.endswith(".a"):
            # The first archive stands for all objects of the plan, in the order of the first link;
            # an archive that is searched again would bring dropped members back.
            if not listed and prepared.archive:
                around = ([], []) if whole else (["--whole-archive"], ["--no-whole-archive"])
                words += [*around[0], prepared.archive, *around[1]]
            listed = True
        else:
            whole = word == "--whole-archive" or (whole and word != "--no-whole-archive")
            words.append(prepared.edited.get(_relative(word), word))
    return words


def _relative(word: str) -> str:
    return word.removeprefix("./")


def prepare(
    script: Path, plan: Path, folder: Path, root: Path = Path(), made: Made | None = None
) -> Prepared:
    """Make what the linker is given, unless it is there.

    Args:
        script, folder: relative to ``root``, the object tree.
        made: what the pipeline has read, ahead of kbuild.

    Raises:
        UserError: the plan is about other objects.
    """
    home = folder / f"plan-{_key(root / script, plan)}"
    value = _prepared_before(root, home)
    if value is None:
        for old in (root / folder).glob("plan-*"):
            shutil.rmtree(old)
        # numpy and the ELF model: only when there is work.
        from prune.linking.generate import check_same, generate

        if made is None:
            made = _read(plan, root)
            check_same(made.plan, made.stored.image)
        ready = generate(script, made.plan, home, root, made.stored.image, made.stored.tables)
        ready.describe()
        return ready.prepared
    return Prepared(home / SCRIPT, value["archive"], value["edited"], value["named"])


def _read(plan: Path, root: Path) -> Made:
    from prune.model.knowledge import read_knowledge
    from prune.model.store import stored
    from prune.plan.plan_file import load_plan

    loaded = load_plan(plan)
    return Made(loaded, stored(root, plan.with_name(LINK_MAP), read_knowledge(loaded.arch)))


def _load(home: Path) -> dict[str, Any]:
    value: dict[str, Any] = read_json(home / "prepared.json", "prepared link", SCHEMA)
    return value


def _prepared_before(root: Path, home: Path) -> dict[str, Any] | None:
    """What was prepared for this plan, if the objects are those that it was made of."""
    if not (root / home / "prepared.json").is_file():
        return None
    value = _load(root / home)
    try:
        now = digests_of([root / name for name in value["objects"]])
    except OSError as error:
        raise UserError(
            f"preparing the pruned link: {error.filename}: {error.strerror}",
            "the plan is about another object tree; make it again: kprune plan",
        ) from error
    return value if list(now) == list(value["objects"].values()) else None


def _key(script: Path, plan: Path) -> str:
    """Content hash of what the prepared link is made from, but for the objects."""
    digest = hashlib.blake2b(digest_size=8)
    own = [
        *_CODE.rglob("*.py"),
        *(_CODE.parent / "linkerscripts").glob("*.toml"),
    ]
    try:
        for path in (script, plan, plan.with_name(LINK_MAP), *sorted(own)):
            digest.update(hashlib.blake2b(path.read_bytes(), digest_size=16).digest())
    except OSError as error:
        raise UserError(
            f"preparing the pruned link: {error.filename}: {error.strerror}",
            "the plan is about another object tree; make it again: kprune plan",
        ) from error
    return digest.hexdigest()


def resolve_tombstones(folder: Path, map_file: Path, vmlinux: Path, into: Path) -> None:
    """Write ``tombstones.json``: the prepared tombstones with the addresses that the link gave them."""
    from prune.linking.nameless import tombstone_addresses  # numpy: in the last link alone.

    homes = list(folder.glob("plan-*/prepared.json"))
    if len(homes) != 1:
        raise HostError(f"reading {folder}: {len(homes)} prepared links", "link again")
    prepared = _load(homes[0].parent)
    stones = prepared["tombstones"]
    names = tombstone_addresses(vmlinux)
    begin = min(names.values(), default=0)
    for stone in stones:
        stone["address"] = names.get(stone["names"][0], 0)
    lost = [stone["names"][0] for stone in stones if not stone["address"]]
    if lost:
        raise HostError(f"reading {vmlinux}: no address for tombstone {lost[0]}", "link again")
    at = _addresses(map_file)
    try:
        freed, trimmed = (
            [{**unit, "address": at[unit["object"], unit["placed"]]} for unit in prepared[kind]]
            for kind in ("freed", "trimmed")
        )
    except KeyError as error:
        raise HostError(
            f"reading {map_file}: {':'.join(error.args[0])} is not in it", "link again"
        ) from error
    head = {"schema_version": TOMBSTONES_SCHEMA, "start": begin}
    write_json(into, {**head, "tombstones": stones, "freed": freed, "trimmed": trimmed})
    # It says in full what was dropped, for a person to read.
    with whole_file(into.with_name(LISTING), "wb") as stream:
        stream.write(homes[0].with_name(LISTING).read_bytes())


def _addresses(map_file: Path) -> dict[tuple[str, str], int]:
    """(object, section) -> the address that the link gave it."""
    from prune.model.mapfile import read_link_map

    rows = read_link_map(map_file).placed
    return {(_EDITED.sub("", row.object), row.section): row.address for row in rows if row.size}
