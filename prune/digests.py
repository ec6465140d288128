"""Content hashes of many files, read on every processor at once."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

#: Bytes of a digest.
SIZE = 12


def digests_of(paths: Sequence[Path]) -> tuple[str, ...]:
    """BLAKE2 of each file's content, in hex.

    Raises:
        OSError: as the first that cannot be read.
    """
    processors = len(os.sched_getaffinity(0))
    names = [str(path) for path in paths]
    # Neighbours are about the same size: every processor gets every so-manieth.
    shares = [names[first::processors] for first in range(processors)]
    with ThreadPoolExecutor(processors) as pool:
        parts = list(pool.map(_digests, shares))
    found = [""] * len(names)
    for first, part in enumerate(parts):
        found[first::processors] = part
    return tuple(found)


def _digests(names: Sequence[str]) -> list[str]:
    found = []
    for name in names:
        with open(name, "rb", buffering=0) as stream:
            found.append(hashlib.blake2b(stream.read(), digest_size=SIZE).hexdigest())
    return found
