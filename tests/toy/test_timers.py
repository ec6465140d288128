"""What timers, RCU and work queues run is read from what real compilers make of handing it on."""

from __future__ import annotations

import subprocess
from pathlib import Path

import numpy as np
import pytest

from prune.model.callgraph import make_call_graph
from prune.model.knowledge import read_knowledge
from prune.model.tables import find_tables
from prune.plan.timers import may_go_off
from tests.conftest import image

from .toy import CFLAGS, SOURCES, TARGETS

HANDS = "code hands it on, to be called later"
CALLS = "what code hands on for later may call it"


@pytest.mark.parametrize("arch", TARGETS)
@pytest.mark.parametrize("level", ["-Os", "-O2"])
def test_what_hot_code_hands_on_stays_with_what_it_calls(arch: str, level: str, tmp_path: Path) -> None:
    hot = ("sets_up", "hot_callee")
    # Two calls deep, and not beyond what ran: that has called what it calls.
    assert found(arch, level, tmp_path, *hot) == {
        "goes_off": HANDS, "delayed": HANDS, "first": CALLS, "second": CALLS,
    }  # fmt: skip


@pytest.mark.parametrize("arch", TARGETS)
@pytest.mark.parametrize("level", ["-Os", "-O2"])
def test_what_is_freed_passed_on_or_queued_stays_as_well(arch: str, level: str, tmp_path: Path) -> None:
    # tcp_write_timer, which inet_csk_init_xmit_timers is given, was taken for nobody's; __d_free_external and
    # delayed_fput were missed by boots.
    assert found(arch, level, tmp_path, "frees") == {"freed": HANDS}
    assert found(arch, level, tmp_path, "opens") == {"runs_softly": HANDS}
    assert found(arch, level, tmp_path, "asks") == {"elsewhere": HANDS}
    assert found(arch, level, tmp_path, "has_some", "passes_on") == {"passed_one": HANDS, "passed_two": HANDS}
    assert found(arch, level, tmp_path, "has_slabs") == {"constructs": HANDS}
    assert found(arch, level, tmp_path, "queues") == {"works": HANDS}
    # clocksource_watchdog_work: the watchdog of clocks has it scheduled when a busy host made it late.
    assert found(arch, level, tmp_path, "has_it_scheduled") == {"later_on": HANDS}
    # kfree_rcu_shrink_count was missed by a server that ran out of memory.
    assert found(arch, level, tmp_path, "can_shrink") == {"counts": HANDS, "scans": HANDS}
    assert found(arch, level, tmp_path, "has_inodes") == {"counts_inodes": HANDS, "scans_inodes": HANDS}
    extents = {"counts_extents": HANDS, "scans_extents": HANDS}
    assert found(arch, level, tmp_path, "has_extents") == extents
    assert found(arch, level, tmp_path, "has_threads", "watches") == {
        "watches": HANDS, "looks_for_hung_tasks": CALLS,
    }  # fmt: skip


@pytest.mark.parametrize("arch", TARGETS)
@pytest.mark.parametrize("level", ["-Os", "-O2"])
def test_what_is_stored_beside_a_timer_that_is_set_up_stays(arch: str, level: str, tmp_path: Path) -> None:
    # addrconf_verify_work was missed by boots of a kernel that sets its work up for each network.
    stays = {"delayed_work_timer_fn": HANDS, "later": HANDS, "finer": HANDS}
    assert found(arch, level, tmp_path, "has_work") == stays


def found(arch: str, level: str, folder: Path, *hot: str) -> dict[str, str]:
    """What stays because of these functions of timer.c, and why."""
    compiled = folder / "timer.o"
    # A kernel has no vector registers, which would load two functions from a pool of constants at once.
    flags = (*CFLAGS, "-mgeneral-regs-only", *TARGETS[arch].flags)
    words = ["gcc", *flags, level, "-c", SOURCES / "timer.c", "-o", compiled]
    subprocess.run(words, check=True)
    knowledge = read_knowledge(arch)
    made = image(folder, {"k/timer.o": compiled.read_bytes()}, knowledge=knowledge)
    ran = np.isin(made.names, [f".text.{name}" for name in hot])
    graph = make_call_graph(made, find_tables(made, knowledge), knowledge)
    units = may_go_off(made, graph, knowledge, ran, ran)
    return {made.names[unit].removeprefix(".text."): why for unit, why in units.items()}
