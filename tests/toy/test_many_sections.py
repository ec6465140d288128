"""An object with more than 65,279 sections, and a kernel of it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from .toy import TARGETS, build


@pytest.mark.parametrize("arch", list(TARGETS))
def test_more_sections_than_sixteen_bits_count(arch: str, tmp_path: Path) -> None:
    toy = build(tmp_path / "tree", more=("many",), arch=arch)
    toy.plan(also=("many_user", "many7", "many65998"))

    done = toy.link(plan=True)
    assert done.returncode == 0, done.stderr
    stones = json.loads((toy.tree / "tombstones.json").read_text())["tombstones"]
    assert [row["names"] for row in stones if row["object"] == "lib/many.o"] == [["many65999"]]
    assert toy.verify().ok
    assert toy.run()[0] == 0
