"""What was seen of many functions, each kind of it once.

Thousands of functions were seen by the same apps and sources. The set of those is a number here, a bit for
each (app, source) of the profile, so that whatever follows from it is worked out once for each such set.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from tracer.profiles.profile import Profile, Seen


@dataclass(frozen=True)
class Signatures:
    """``masks[i]``: the bits of function ``i`` of the profile; ``pairs``: (app, source) of each bit."""

    masks: tuple[int, ...]
    pairs: tuple[tuple[str, str], ...]

    def of(self, mask: int) -> Iterator[tuple[str, str]]:
        """The pairs of a mask, those of the first apps of the profile first."""
        return (pair for number, pair in enumerate(self.pairs) if mask >> number & 1)

    def apps(self, mask: int) -> tuple[str, ...]:
        return tuple(dict.fromkeys(app for app, _ in self.of(mask)))

    def sources(self, mask: int) -> frozenset[str]:
        return frozenset(source for _, source in self.of(mask))

    def mask_of(self, sources: Iterable[str]) -> int:
        """The bits of these sources."""
        wanted = set(sources)
        return sum(1 << number for number, (_, source) in enumerate(self.pairs) if source in wanted)


def signatures(profile: Profile) -> Signatures:
    """The signature of every function of a profile."""
    order: dict[tuple[str, str], int] = {}
    # Most rows are like another one, and then the same object (tracer.profiles.profile).
    bits: dict[int, int] = {}
    known: dict[int, int] = {}

    def bit(seen: Seen) -> int:
        bits[id(seen)] = made = 1 << order.setdefault((seen.app, seen.source), len(order))
        return made

    def mask_of(seen: tuple[Seen, ...]) -> int:
        mask = 0
        for each in seen:
            mask |= bits.get(id(each)) or bit(each)
        known[id(seen)] = mask
        return mask

    masks = [known.get(id(record.seen)) or mask_of(record.seen) for record in profile.functions]
    return Signatures(tuple(masks), tuple(order))
