"""One finished run of examples/micro for all tests that need one."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
KPRUNE = Path(sys.executable).with_name("kprune")


@pytest.fixture(scope="session")
def micro(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that ``kprune run`` has filled; tests that change it work on a copy."""
    folder = tmp_path_factory.mktemp("run") / "micro"
    done = subprocess.run(
        [KPRUNE, "run", "examples/micro", "--out", str(folder)],
        capture_output=True, text=True, cwd=ROOT, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-4000:]
    return folder
