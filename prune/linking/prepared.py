"""What a pruned link is prepared with, as those that prepare it and those that link with it know it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

#: Of prepared.json.
SCHEMA = 6
ARCHIVE = "archive.a"
#: The script that ld reads, and the same with all that it drops, for a person to read.
SCRIPT, LISTING = "vmlinux.lds", "kprune.lds"


@dataclass(frozen=True)
class Prepared:
    """What the linker is given: ``archive`` has the edited members of all archives ("": there are none),
    ``edited`` maps every other object to the file that stands for it; ``named``: kallsyms is to have the
    tombstones' names."""

    script: Path
    archive: str
    edited: Mapping[str, str]
    named: bool


@dataclass(frozen=True)
class Ready:
    """A link that may begin; ``describe`` writes what is to be known of it, which ld does not wait for."""

    prepared: Prepared
    describe: Callable[[], None]
