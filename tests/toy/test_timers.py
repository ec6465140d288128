"""What timers run is read from what real compilers make of setting one up."""

from __future__ import annotations

import subprocess
from pathlib import Path

import numpy as np
import pytest

from prune.callgraph import make_call_graph
from prune.knowledge import read_knowledge
from prune.tables import find_tables
from prune.timers import may_go_off
from tests.conftest import image

from .toy import CFLAGS, SOURCES, TARGETS

SETS, CALLS = "code sets a timer up for it", "a timer that code sets up may call it"


@pytest.mark.parametrize("arch", TARGETS)
@pytest.mark.parametrize("level", ["-Os", "-O2"])
def test_what_hot_code_sets_up_stays_with_what_it_calls(arch: str, level: str, tmp_path: Path) -> None:
    compiled = tmp_path / "timer.o"
    words = ["gcc", *CFLAGS, level, *TARGETS[arch].flags, "-c", SOURCES / "timer.c", "-o", compiled]
    subprocess.run(words, check=True)
    knowledge = read_knowledge(arch)
    made = image(tmp_path, {"k/timer.o": compiled.read_bytes()}, knowledge=knowledge)
    hot = np.array([name in (".text.sets_up", ".text.hot_callee") for name in made.names])
    graph = make_call_graph(made, find_tables(made, knowledge), knowledge)
    found = may_go_off(made, graph, knowledge, hot)
    names = {made.names[unit].removeprefix(".text."): why for unit, why in found.items()}
    # Two calls deep, and not beyond what ran: that has called what it calls.
    assert names == {"goes_off": SETS, "delayed": SETS, "first": CALLS, "second": CALLS}
