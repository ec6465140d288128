"""What cannot be seen is reasoned from a real compiler's code: by phase, and no further than it must."""

from __future__ import annotations

import subprocess

import pytest

from prune.model.functions import Functions, make_functions
from prune.model.tables import find_tables
from prune.plan.closure import Watched, infer, watched
from tests.conftest import X86, image
from tracer.profiles.profile import BlindSpot, FunctionRecord, KernelId, Profile, Run, Seen
from tracer.profiles.signatures import signatures
from tracer.profiles.symbols import Identity

from .toy import CFLAGS, SOURCES

OBJECT = "k/early.o"
BLIND = ("notrace_leaf", "notrace_far", "notrace_cold", "notrace_initcall_leaf")
TRACED, EARLY, BOOT, SHUTDOWN = (
    f"inferred: {why}"
    for why in ("cannot be traced, called by what ran", "early boot", "boot", "shutdown")
)  # fmt: skip


@pytest.fixture(scope="module")
def functions(tmp_path_factory: pytest.TempPathFactory) -> Functions:
    folder = tmp_path_factory.mktemp("closure")
    compiled = folder / "early.o"
    subprocess.run(["gcc", *CFLAGS, "-c", SOURCES / "early.c", "-o", compiled], check=True)
    made = image(folder, {OBJECT: compiled.read_bytes()})
    return make_functions(made, find_tables(made, X86), X86)


def identity(name: str, section: str = "") -> Identity:
    return Identity(OBJECT, section or f".text.{name}", name)


def reasons(
    functions: Functions, boot: bool = True, seen: tuple[str, ...] = ("worker", "later")
) -> dict[str, str]:
    blind = (*map(identity, BLIND), identity("notrace_init", ".init.text.notrace_init"))
    ran = tuple(map(identity, seen))
    found = infer(Watched(ran, ran, blind, boot), functions, X86)
    names = {functions.image.names[unit]: why for unit, why in found.items()}
    return {name.removeprefix(".text."): why for name, why in names.items() if not name.startswith(".init")}


def test_calls_within_a_section_are_edges(functions: Functions) -> None:
    """gas resolves them, so there is no relocation to read; `first` may be at offset 0, too."""
    graph = functions.graph
    (start,), (first,) = functions.named["start_kernel"], functions.named["first"]
    assert first in graph.target[graph.source == start]
    (helper,) = functions.named["early_helper"]
    assert helper in graph.target[graph.source == first]
    assert helper not in graph.target[graph.source == start]


def test_a_watched_boot_leaves_little_to_reason(functions: Functions) -> None:
    assert reasons(functions) == {
        "notrace_leaf": TRACED,
        "notrace_far": TRACED,
        "notrace_initcall_leaf": TRACED,  # by way of an initcall that cannot be traced
        "early_helper": EARLY,
        "early_callback": EARLY,
        "early_probe": EARLY,
        "between": EARLY,
        "first_use": EARLY,  # one step behind worker, which __init code calls itself
        "kernel_power_off": SHUTDOWN,
        "on_reboot": SHUTDOWN,
        "toy_shutdown": SHUTDOWN,
        "quiet_step": SHUTDOWN,
    }


def test_init_code_is_reasoned_by_function(functions: Functions) -> None:
    blind = (*map(identity, BLIND), identity("notrace_init", ".init.text.notrace_init"))
    ran = (identity("worker"), identity("later"))
    found = infer(Watched(ran, ran, blind, boot=True), functions, X86)
    names = {functions.image.names[unit]: why for unit, why in found.items()}
    assert {name: why for name, why in names.items() if name.startswith(".init")} == {
        ".init.text.start_kernel": EARLY,
        ".init.text.first": EARLY,
        ".init.text.second": EARLY,
        ".init.text.notrace_init": TRACED,
    }


def test_without_a_watched_boot_the_initcalls_are_followed(functions: Functions) -> None:
    """And nothing is known of what did not run then, not even of what was seen later."""
    more = reasons(functions, boot=False)
    assert more["boot_only"] == more["cold_branch"] == BOOT
    assert reasons(functions).keys() < more.keys()
    assert not {"cold", "notrace_cold", "unused_shutdown"} & set(more)


def test_what_would_have_been_reported_is_not_reasoned(functions: Functions) -> None:
    found = reasons(functions)
    assert not {"reported_if_called", "cold_branch", "cold", "notrace_cold", "toy_probe"} & set(found)
    assert "unused_shutdown" not in found  # no code that ran refers to its driver


def test_what_only_a_board_ran_brings_what_cannot_be_traced(functions: Functions) -> None:
    """Another source saw all of booting, so nothing else is reasoned."""
    blind = tuple(map(identity, BLIND))
    ran = (identity("later"),)
    found = infer(Watched(ran, ran, blind, boot=False, complete=True), functions, X86)
    assert {functions.image.names[unit] for unit in found} == {".text.notrace_leaf", ".text.notrace_far"}


def test_what_was_not_seen_at_all_is_followed_early(functions: Functions) -> None:
    found = reasons(functions, seen=())
    assert found["worker"] == found["cold_branch"] == found["toy_probe"] == EARLY


def profile(sources: tuple[str, ...], spots: tuple[BlindSpot, ...], *runs: Run) -> Profile:
    seen = FunctionRecord(OBJECT, ".text.worker", "worker", (Seen("web", sources[0], 1),))
    return Profile(
        KernelId("id", "", "", ""), "", "toy", "", ("web",), sources, (), (seen,), spots, (), (), runs
    )


def watching(profile: Profile) -> Watched | None:
    return watched(profile, signatures(profile))


def run(source: str, outcome: str) -> Run:
    return Run("boot-1", source, 0, 0, (), outcome, 1.0, 1, 1, 0)


def test_which_profiles_are_reasoned_about() -> None:
    spot = BlindSpot("ftrace", "has no site", (identity("notrace_leaf"),))
    worker = (identity("worker"),)
    assert watching(profile(("blocks", "ftrace"), (spot,))) == Watched((), (), spot.functions, False, True)
    # A miss was seen by who sees all; what an unsampled function called is open.
    healed = watching(profile(("heal", "blocks", "ftrace"), (spot,)))
    assert healed == Watched((), (), spot.functions, False, True)
    assert watching(profile(("heal", "ftrace"), (spot,))) == Watched(worker, (), spot.functions, False)
    assert watching(profile(("perf",), ())) is None
    what = watching(profile(("ftrace",), (spot,), run("ftrace-boot", "lost 7 events")))
    assert what == Watched(worker, worker, (identity("notrace_leaf"),), boot=False)
    whole = watching(profile(("ftrace",), (spot,), run("ftrace-boot", "powered off")))
    assert whole is not None and whole.boot
    sampled = watching(profile(("perf",), (spot,)))  # a sample says nothing of what the function calls
    assert sampled == Watched(worker, (), (identity("notrace_leaf"),), boot=False)
