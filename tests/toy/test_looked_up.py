"""What the kernel finds by its name or its type stays: stubs of BPF, functions in lists of types."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from prune.model.callgraph import make_call_graph
from prune.model.knowledge import read_knowledge
from prune.model.tables import find_tables
from prune.plan.roots import find_roots

from .toy import TARGETS, compiled

SOURCE = """
static int stub(int x) { return x + 1; }
struct ops { int (*undo)(int); } __bpf_ops_tcp_congestion_ops = { stub };
int other(int x) { return x + 2; }
int numbered(int x) { return x + 3; }
asm(".pushsection .BTF_ids,\\"a\\"; .local __BTF_ID__func__numbered__76;"
    ".type __BTF_ID__func__numbered__76,@object;"
    ".size __BTF_ID__func__numbered__76, 4; __BTF_ID__func__numbered__76: .zero 4; .popsection");
"""


@pytest.mark.parametrize("arch", TARGETS)
def test_stubs_that_are_looked_up_by_address_stay(arch: str, tmp_path: Path) -> None:
    made, knowledge = compiled(arch, SOURCE, tmp_path), read_knowledge(arch)
    graph = make_call_graph(made, find_tables(made, knowledge), knowledge)
    roots = dict(find_roots(made, graph, knowledge, frozenset()))
    kept = np.array(made.names)[roots["is looked up by its address"]].tolist()
    assert sorted(kept) == [".data.__bpf_ops_tcp_congestion_ops", ".text.stub"]
    assert np.array(made.names)[roots["is in a list of types by number"]].tolist() == [".text.numbered"]
