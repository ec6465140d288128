"""What is in the cache of builds, and what goes from it."""

from __future__ import annotations

import fcntl
import json
import os
import time
from pathlib import Path

import pytest

from prune.cli import main
from prune.commands.cache import cached_builds, remove_unused


@pytest.fixture
def home(tmp_path: Path) -> Path:
    for number, name in enumerate(("production-1", "production-2", "traced-3")):
        folder = tmp_path / "builds" / name
        (folder / "artefacts").mkdir(parents=True)
        (folder / "artefacts" / ".config").write_text("#\n# Linux/x86_64 6.1.7 Kernel Configuration\n#\n")
        (folder / "obj").mkdir()
        (folder / "obj" / "vmlinux.o").write_bytes(bytes(10_000))
        (folder / "lock").touch()
        long_ago = time.time() - 10 * number * 24 * 60 * 60
        os.utime(folder / "lock", (long_ago, long_ago))
    return tmp_path / "builds"


def test_the_last_used_comes_first(home: Path) -> None:
    found = list(cached_builds(home))
    assert [build.name for build in found] == ["production-1", "production-2", "traced-3"]
    assert [round(build.unused) for build in found] == [0, 10, 20]
    assert all(build.kernel == "x86_64 6.1.7" and build.size >= 10_000 for build in found)


def test_what_is_unused_goes_unless_somebody_works_in_it(home: Path) -> None:
    with (home / "traced-3" / "lock").open("a") as handle:
        fcntl.flock(handle, fcntl.LOCK_EX)
        remove_unused(home, 5)
    assert sorted(path.name for path in home.iterdir()) == ["production-1", "traced-3"]
    remove_unused(home, 5)
    assert [path.name for path in home.iterdir()] == ["production-1"]


def test_a_build_that_broke_off_is_listed(home: Path) -> None:
    (home / "production-1" / "artefacts" / ".config").unlink()
    assert next(cached_builds(home)).kernel == ""


def test_the_verb(home: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("KPRUNE_CACHE", str(home.parent))
    with pytest.raises(SystemExit) as left:
        main(["cache", "--json", "--remove-unused", "15"])
    assert left.value.code == 0
    said = capsys.readouterr()
    assert [build["name"] for build in json.loads(said.out)] == ["production-1", "production-2"]
    assert "removed traced-3" in said.err


def test_an_empty_cache(tmp_path: Path) -> None:
    assert list(cached_builds(tmp_path / "builds")) == []
