"""A stage runs when its inputs or outputs changed by content, and only then."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from prune.stages import run_stage, stage_seconds


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


def test_a_damaged_record_is_no_record(stage: Stage) -> None:
    stage.run()
    (stage.out / ".stages" / "copy.json").write_text("{")
    assert stage.run()
