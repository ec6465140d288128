"""Content hashes of many files, read on every processor at once, while others go on.

SHA-256, which processors have had instructions for since 2017: with these it takes half the time of BLAKE2.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from pathlib import Path
from threading import Thread

#: Bytes of a digest that are kept.
SIZE = 12


class Hashing:
    """Hashes files in threads of its own, from the moment that it is made."""

    def __init__(self, paths: Sequence[Path | str]) -> None:
        self._names = [str(path) for path in paths]
        self._found = [""] * len(self._names)
        self._failed: list[OSError] = []
        share = len(os.sched_getaffinity(0))
        # Neighbours are about the same size: all threads come to their end at about the same time.
        self._threads = [Thread(target=self._hash, args=(first, share)) for first in range(share)]
        for thread in self._threads:
            thread.start()

    def _hash(self, first: int, step: int) -> None:
        try:
            for number in range(first, len(self._names), step):
                with open(self._names[number], "rb", buffering=0) as stream:
                    self._found[number] = hashlib.sha256(stream.read()).hexdigest()[: 2 * SIZE]
        except OSError as error:
            self._failed.append(error)

    def digests(self) -> tuple[str, ...]:
        """The first bytes of the SHA-256 of each file's content, in hex.

        Raises:
            OSError: one cannot be read.
        """
        for thread in self._threads:
            thread.join()
        if self._failed:
            raise self._failed[0]
        return tuple(self._found)


def digests_of(paths: Sequence[Path | str]) -> tuple[str, ...]:
    """As :class:`Hashing`, when there is nothing to do meanwhile.

    Raises:
        OSError: one cannot be read.
    """
    return Hashing(paths).digests()
