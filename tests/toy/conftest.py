"""The toy, built once: as it is, and pruned."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from .toy import Toy, build


@pytest.fixture(scope="session")
def built(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Toy:
    """For x86_64, unless a test is parametrized with another architecture."""
    return build(tmp_path_factory.mktemp("toy"), arch=getattr(request, "param", "x86_64"))


@pytest.fixture(scope="session")
def pruned(built: Toy, tmp_path_factory: pytest.TempPathFactory) -> Toy:
    tree = tmp_path_factory.mktemp("pruned") / "tree"
    shutil.copytree(built.tree, tree, symlinks=True)
    toy = replace(built, tree=tree)
    toy.plan()
    done = toy.link(plan=True)
    assert done.returncode == 0, done.stderr
    return toy


@pytest.fixture
def toy(built: Toy, tmp_path: Path) -> Toy:
    """A copy of the unpruned toy that the test may spoil."""
    shutil.copytree(built.tree, tmp_path / "tree", symlinks=True)
    return replace(built, tree=tmp_path / "tree")


@pytest.fixture
def spoilt(pruned: Toy, tmp_path: Path) -> Toy:
    """A copy of the pruned toy that the test may spoil."""
    shutil.copytree(pruned.tree, tmp_path / "tree", symlinks=True)
    return replace(pruned, tree=tmp_path / "tree")
