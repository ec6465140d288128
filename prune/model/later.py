"""Rows that are made when somebody looks at them: a plan decides, and is linked, without its texts."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import cached_property
from typing import TypeVar

_T = TypeVar("_T")


class Later(Sequence[_T]):
    """``length`` rows, all of which ``make`` makes at once; equal to other rows that are the same."""

    def __init__(self, length: int, make: Callable[[], Sequence[_T]]) -> None:
        self._length, self._make = length, make

    @cached_property
    def _all(self) -> tuple[_T, ...]:
        return tuple(self._make())

    def __len__(self) -> int:
        return self._length

    def __iter__(self) -> Iterator[_T]:
        return iter(self._all)

    def __getitem__(self, number: int) -> _T:  # type: ignore[override]
        return self._all[number]

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Sequence) and self._all == tuple(other)

    def __hash__(self) -> int:
        return hash(self._all)
