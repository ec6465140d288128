"""A stage runs when its inputs or outputs changed by content, and only then."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from prune.stages import run_stage, stage_seconds
from tracer.host import HostError, UserError


class Stage:
    def __init__(self, out: Path) -> None:
        self.out = out
        self.source = out / "in"
        self.result = out / "result"
        self.source.write_text("one")

    def run(self, **more: str) -> bool:
        def work() -> None:
            self.result.write_text(self.source.read_text())

        return run_stage(self.out, "copy", {"in": self.source, **more}, [self.result], work)


@pytest.fixture
def stage(tmp_path: Path) -> Stage:
    return Stage(tmp_path)


def test_the_second_time_nothing_is_done(stage: Stage) -> None:
    assert stage.run()
    assert not stage.run()
    assert "copy" in stage_seconds(stage.out, ["copy", "never"])


def test_a_new_time_stamp_is_not_a_change(stage: Stage) -> None:
    stage.run()
    os.utime(stage.source, (1, 1))
    assert not stage.run()


@pytest.mark.parametrize("spoil", ["in", "result", "gone", "value"])
def test_every_change_of_content_counts(stage: Stage, spoil: str) -> None:
    stage.run()
    if spoil == "in":
        stage.source.write_text("two")
    if spoil == "result":
        stage.result.write_text("spoilt")
    if spoil == "gone":
        stage.result.unlink()
    assert stage.run(**({"value": "new"} if spoil == "value" else {}))


def test_a_stage_that_failed_is_done_again(stage: Stage) -> None:
    stage.run()
    stage.source.write_text("two")

    def fail() -> None:
        raise RuntimeError

    with pytest.raises(RuntimeError):
        run_stage(stage.out, "copy", {"in": stage.source}, [stage.result], fail)
    stage.source.write_text("one")
    assert stage.run()


@pytest.mark.parametrize("damage", ["{", "[]", "3", "{}", '{"key": 1, "outputs": 2, "seconds": "x"}'])
def test_a_damaged_record_is_no_record(stage: Stage, damage: str) -> None:
    stage.run()
    (stage.out / ".stages" / "copy.json").write_text(damage)
    assert stage_seconds(stage.out, ["copy"]) == {}
    assert stage.run()


def test_a_folder_is_an_input_by_content(tmp_path: Path) -> None:
    folder, result = tmp_path / "folder", tmp_path / "result"
    folder.mkdir()
    (folder / "a").write_text("1")
    ran = []
    for text in ("1", "2", "2"):
        (folder / "a").write_text(text)
        ran.append(run_stage(tmp_path, "s", {"in": folder}, [result], lambda: result.write_text("x")))
    assert ran == [True, True, False]


def test_an_output_that_was_not_made_is_named(tmp_path: Path) -> None:
    with pytest.raises(HostError, match="never was not made"):
        run_stage(tmp_path, "s", {}, [tmp_path / "never"], lambda: None)


def test_two_processes_do_not_work_in_one_folder(stage: Stage) -> None:
    """Two runs into one folder took each other's files away, and what was said of it was a file's name."""
    code = "import sys; from prune.stages import *; occupy(Path(sys.argv[1])); print(flush=True); input()"
    command = [sys.executable, "-c", code, str(stage.out)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as other:
        assert other.stdout and other.stdout.readline()
        with pytest.raises(UserError, match=f"another kprune does, process {other.pid}"):
            stage.run()
        assert not stage.result.exists()
        assert run_stage(stage.out, "look", {}, [stage.source], lambda: None, alone=False)
        other.communicate()
    assert stage.run()
    assert stage.run(more="again"), "it has the folder itself"
