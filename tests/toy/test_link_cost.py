"""The link that is measured is the one that was recorded, and it leaves the object tree alone."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from prune.build.kbuild import KernelBuild
from prune.build.source import Source
from prune.measure.link_cost import generation_costs, link_cost

from .toy import Toy


@pytest.fixture
def build(toy: Toy, tmp_path: Path) -> KernelBuild:
    """The toy as a finished build in the cache."""
    home = tmp_path / "home"
    (home / "artefacts").mkdir(parents=True)
    toy.tree.rename(home / "obj")
    shutil.copy(home / "obj/link.json", home / "artefacts")
    return KernelBuild("production", Source(tmp_path, "", ""), "x86_64", "", home)


def test_both_links_are_measured_and_thrown_away(build: KernelBuild) -> None:
    Toy(build.objtree).plan()
    before = {path: path.read_bytes() for path in build.objtree.glob("*") if path.is_file()}
    for plan in (None, build.objtree / "plan.json"):
        costs = link_cost(build, plan, rounds=2)
        assert len(costs) == 2 and all(cost.seconds > 0 and cost.peak_bytes > 1 << 20 for cost in costs)
    assert before == {path: path.read_bytes() for path in build.objtree.glob("*") if path.is_file()}
    assert sorted(path.name for path in build.home.iterdir()) == ["artefacts", "lock", "obj"]


def test_code_generation_is_measured_where_it_is_recorded(build: KernelBuild) -> None:
    assert generation_costs(build) == ()
    link = json.loads((build.artefacts / "link.json").read_text())
    link["argv"][link["argv"].index("vmlinux.a")] = "vmlinux.o"
    (build.artefacts / "link.json").write_text(json.dumps(link))
    record = (
        "savedcmd_vmlinux.o := ld -m elf_x86_64 -r -o vmlinux.o --whole-archive vmlinux.a ; ./objtool $$x\n"
    )
    (build.objtree / ".vmlinux.o.cmd").write_text(record)
    assert len(generation_costs(build, rounds=2)) == 2
    assert not (build.objtree / "vmlinux.o").exists()
