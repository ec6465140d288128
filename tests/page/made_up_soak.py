"""Soaks that nobody ran: an hour of a pruned kernel in a few guests, twenty minutes of the whole one."""

from __future__ import annotations

from collections.abc import Sequence
from random import Random
from typing import Any

from prune.guests.misses import Miss
from prune.guests.soaked import Guest, Soak, shown
from tracer.sessions.soak import TROUBLES, Stretch

#: Of the rate without trouble; requests that nobody answers.
_COSTS = {
    "": (1.0, 0), "storm": (0.8, 9), "fill": (0.9, 0), "kill": (0.55, 40), "memory": (0.4, 25),
    "loss": (0.3, 0), "clock": (0.97, 0),
}  # fmt: skip


def made_up_soaks(hostile: str = "") -> dict[str, Any]:
    """What the page shows of both; ``hostile`` stands where the guest or the load has a say."""
    dice = Random(1)
    first = Miss("oom_kill_process", "mm/oom_kill.o", ".text.oom_kill_process", "out_of_memory", "nginx")
    block = Miss("tcp_retransmit_timer", "net/ipv4/tcp_timer.o", ".text.t", hostile, "nginx", 0x1A4)
    guests = [
        _guest(dice, 0, 410, 470, (first,), f"missed {first}"),
        _guest(dice, 430, 1900, 470, (block, first), f"missed {block}; {first}"),
        _guest(dice, 1920, 2300, 470, (), f"nothing was heard of the guest for 60 seconds {hostile}"),
        Guest((), (), "it hung in boot"),
        _guest(dice, 2350, 3590, 470, (), "", f"recv failed: Connection reset by peer {hostile}"),
    ]
    base = [_guest(dice, 0, 1190, 495, (), "")]
    found = shown([Soak("base", TROUBLES, tuple(base)), Soak("pruned", TROUBLES, tuple(guests))])
    assert found
    return found


def _guest(
    dice: Random, begins: float, ends: float, rate: float, misses: Sequence[Miss], problem: str,
    lost: str = "",
) -> Guest:  # fmt: skip
    stretches = []
    at = begins + 1.7
    for turn in range(1000):
        if at > ends:
            break
        trouble = TROUBLES[turn // 2 % len(TROUBLES)] if turn % 2 else ""
        share, unanswered = _COSTS[trouble]
        seconds = 10 + dice.random() / 4
        if lost and trouble == "kill" and dice.random() < 0.3:
            stretches.append(Stretch(round(at, 1), trouble, round(seconds, 2), 0, lost))
        else:
            requests = int(rate * share * seconds * dice.gauss(1, 0.05))
            none = dice.randint(0, unanswered)
            stretches.append(Stretch(round(at, 1), trouble, round(seconds, 2), requests, "", none))
        at += seconds + 0.2
    return Guest(tuple(stretches), tuple(misses), problem)
