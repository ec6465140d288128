"""Prove the cold blocks: what was taken out of kept code never ran, and whoever goes there meets a trap."""

from __future__ import annotations

from collections.abc import Mapping

from prune.verify.model import Check, Model, Tally
from prune.verify.read import Name

Ranges = list[tuple[int, int]]


def check_blocks(model: Model, ran: Mapping[Name, Mapping[str, Ranges]] | None) -> Check:
    """What taking the blocks out has shown, and what the profile says of them.

    Args:
        ran: unit -> function -> the bytes of it that ran; None without a profile.
    """
    tally = Tally("blocks")
    tally.checked += model.outcome.checked
    for finding in model.outcome.findings:
        tally.find(finding)
    lost = taken = 0
    for name, sections in model.cold.items():
        for section, cold in sections.items():
            taken += 1
            lost += sum(end - begin for begin, end in cold)
            if ran is None:
                continue
            label = f"{name}:{section}"
            functions = ran.get((name, section), {})
            tally.expect(bool(functions), f"{label} lost blocks, and the profile does not know it")
            for function, ranges in functions.items():
                tally.expect(bool(ranges), f"{label} lost blocks, and nobody can tell what of {function} ran")
                at = model.outcome.places.get((name, section, function), 0)
                _check_ran(tally, f"{label}, {function}", cold, [(a + at, b + at) for a, b in ranges])
    return tally.done(f"{lost:,} bytes of {taken:,} functions are cold")


def _check_ran(tally: Tally, label: str, cold: Ranges, ran: Ranges) -> None:
    for begin, end in cold:
        both = next(((one, other) for one, other in ran if one < end and begin < other), None)
        tally.expect(both is None, f"{label}: {begin:#x} to {end:#x} is cold, and ran")
