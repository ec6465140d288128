"""Bits that travel over a graph, against networkx on graphs made at random."""

from __future__ import annotations

from random import Random

import networkx as nx
import numpy as np
import pytest

from prune.model.callgraph import unique_edges
from prune.security.reach import Amount, amounts, reach_each


@pytest.mark.parametrize("seed", range(20))
def test_bits_say_what_networkx_says(seed: int) -> None:
    dice = Random(seed)
    count = dice.randint(1, 60)
    pairs = [(dice.randrange(count), dice.randrange(count)) for _ in range(dice.randint(0, 3 * count))]
    rows = np.array(pairs, np.int64).reshape(-1, 2)
    graph = unique_edges(count, rows[:, 0], rows[:, 1], np.zeros(len(rows), np.int8))
    chosen = np.array([dice.random() < 0.8 for _ in graph.source], bool)
    starts = [dice.randrange(count) for _ in range(dice.choice((1, 7, 8, 9, 30)))]
    counted = np.array([dice.random() < 0.7 for _ in range(count)], bool)
    size = np.array([dice.randrange(100) for _ in range(count)], np.int64)

    oracle = nx.DiGraph()
    oracle.add_nodes_from(range(count))
    oracle.add_edges_from(zip(graph.source[chosen].tolist(), graph.target[chosen].tolist(), strict=True))
    expected = []
    for start in starts:
        reached = [v for v in {start, *nx.descendants(oracle, start)} if counted[v]]
        expected.append(Amount(len(reached), int(size[reached].sum())))
    assert amounts(reach_each(graph, count, starts, chosen), len(starts), counted, size) == expected


def test_nobody_asks() -> None:
    graph = unique_edges(2, np.array([0]), np.array([1]), np.array([0]))
    bits = reach_each(graph, 2, [], np.ones(1, bool))
    assert amounts(bits, 0, np.ones(2, bool), np.ones(2, np.int64)) == []
    assert not bits.any(axis=1).any()
