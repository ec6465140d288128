"""Prepare the pruned link: from a plan to a linker script and edited objects.

``kprune-ld`` calls this on every link of ``vmlinux``; kbuild makes up to four of them with the same
objects, so what was written stays in ``.kprune/`` of the object tree and is used again while the plan,
the objects, the script and kprune itself are the same, by content.
"""

from __future__ import annotations

import hashlib
import json
import re
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tracer.host import HostError, UserError, read_json, whole_file, write_json

if TYPE_CHECKING:
    from prune.image import Image

SCHEMA = 3
#: Of plan.json (:mod:`prune.plan_file`, which needs numpy).
PLAN_SCHEMA = 3
LINK_MAP = "vmlinux.base.map"
#: The folder in the object tree.
PREPARED = ".kprune"
_EDITED = re.compile(r"^\.kprune/plan-[0-9a-f]+/objects/")


@dataclass(frozen=True)
class Prepared:
    """What the linker is given: ``edited`` maps an object to the file that stands for it; ``named``: kallsyms
    is to have the tombstones' names."""

    script: Path
    edited: Mapping[str, str]
    named: bool


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
    words: list[str] = []
    listed = False
    for index, word in enumerate(arguments):
        if index == at:
            words.append(f"--script={prepared.script}" if word.startswith("--") else str(prepared.script))
        elif word.endswith(".a"):
            # The first archive stands for all objects of the plan, in the order of the first link;
            # an archive that is searched again would bring dropped members back.
            if not listed:
                words.append(f"@{prepared.script.parent / 'objects.list'}")
            listed = True
        else:
            words.append(prepared.edited.get(_relative(word), word))
    return words, Path("vmlinux.map"), prepared.named


def _relative(word: str) -> str:
    return word.removeprefix("./")


def prepare(
    script: Path, plan: Path, folder: Path, root: Path = Path(), image: Image | None = None
) -> Prepared:
    """Make what the linker is given, unless it is there. The pipeline, which has read the image, does so
    ahead of kbuild; ``root`` is the object tree, ``script`` and ``folder`` are relative to it.

    Raises:
        UserError: the plan is about other objects.
    """
    head = _plan_head(plan)
    key = _key(root, script, plan, tuple(head["objects"]))
    home = folder / f"plan-{key}"
    if not (root / home / "prepared.json").is_file():
        for old in (root / folder).glob("plan-*"):
            shutil.rmtree(old)
        from prune.generate import generate  # numpy and the ELF model: only when there is work.

        generate(script, plan, home, root, image)
    value = read_json(root / home / "prepared.json", "prepared link", SCHEMA)
    return Prepared(home / "vmlinux.lds", value["edited"], value["named"])


def _plan_head(plan: Path) -> dict[str, Any]:
    value: dict[str, Any] = read_json(plan, "plan", PLAN_SCHEMA)
    if not isinstance(value.get("objects"), dict):
        raise UserError(f"reading the plan: {plan} lists no objects", "make it again: kprune plan")
    return value


def _key(root: Path, script: Path, plan: Path, objects: Sequence[str]) -> str:
    """Content hash of everything that the prepared link is made from."""
    digest = hashlib.blake2b(digest_size=8)
    own = [
        *Path(__file__).parent.glob("*.py"),
        *(Path(__file__).parent.parent / "linkerscripts").glob("*.toml"),
    ]
    try:
        for path in (root / script, plan, *sorted(own), *(root / name for name in objects)):
            digest.update(hashlib.blake2b(path.read_bytes(), digest_size=16).digest())
    except OSError as error:
        raise UserError(
            f"preparing the pruned link: {error.filename}: {error.strerror}",
            "the plan is about another object tree; make it again: kprune plan",
        ) from error
    return digest.hexdigest()


def resolve_tombstones(folder: Path, map_file: Path, vmlinux: Path, into: Path) -> None:
    """Write ``tombstones.json``: the prepared tombstones with the addresses that the link gave them."""
    from prune.nameless import tombstone_addresses  # numpy: in the last link alone.

    homes = list(folder.glob("plan-*/prepared.json"))
    if len(homes) != 1:
        raise HostError(f"reading {folder}: {len(homes)} prepared links", "link again")
    prepared = read_json(homes[0], "prepared link", SCHEMA)
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
    head = {"schema_version": SCHEMA, "start": begin}
    write_json(into, {**head, "tombstones": stones, "freed": freed, "trimmed": trimmed})
    # The script says in full what was dropped, for a person to read.
    with whole_file(into.with_name("kprune.lds")) as stream:
        stream.write(homes[0].with_name("vmlinux.lds").read_text())


def _addresses(map_file: Path) -> dict[tuple[str, str], int]:
    """(object, section) -> the address that the link gave it."""
    from prune.linkmap import read_link_map

    rows = read_link_map(map_file).placed
    return {(_EDITED.sub("", row.object), row.section): row.address for row in rows if row.size}


def write_prepared(
    root: Path,
    home: Path,
    script: str,
    contents: Mapping[str, bytes],
    objects: Sequence[str],
    listed: Sequence[str],
    tombstones: Sequence[Mapping[str, Any]],
    freed: Sequence[Mapping[str, Any]],
    trimmed: Sequence[Mapping[str, Any]],
    named: bool,
) -> None:
    """Write script, edited objects and their list; ``prepared.json`` last, as the sign that all is there."""
    edited: dict[str, str] = {}
    try:
        for name, content in contents.items():
            path = home / "objects" / name
            (root / path).parent.mkdir(parents=True, exist_ok=True)
            (root / path).write_bytes(content)
            edited[name] = str(path)
    except OSError as error:
        shutil.rmtree(root / home, ignore_errors=True)
        raise HostError(
            f"writing edited objects to {root / home}: {error.strerror}", "free some space"
        ) from error
    with whole_file(root / home / "vmlinux.lds") as stream:
        stream.write(script)
    with whole_file(root / home / "objects.list") as stream:
        stream.write("\n".join(json.dumps(edited.get(name, name)) for name in listed) + "\n")
    write_json(
        root / home / "prepared.json",
        {
            "schema_version": SCHEMA,
            "edited": edited,
            "objects": list(objects),
            "tombstones": list(tombstones),
            "freed": list(freed),
            "trimmed": list(trimmed),
            "named": named,
        },
    )
