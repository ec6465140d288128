"""A soak: what it tells a person, what goes into the guest, and what happens to a guest that goes down."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from prune import cli
from prune.commands.soak import _troubles, table
from prune.folder import Folder
from prune.guests.misses import Miss
from prune.guests.soaked import Guest, Soak, Sum, read_soak, shown, to_json
from prune.run import soaking
from prune.run.pipeline import Pipeline
from tracer.host import UserError, write_json
from tracer.sessions.soak import IN_GUEST, TROUBLES, Stretch, scripts
from tracer.workloads.workload_file import load_workload

EXAMPLES = Path(__file__).parents[2] / "examples"
GUESTS = (
    Guest(
        (Stretch(0.5, "", 10.0, 4000), Stretch(10.5, "kill", 3.0, 0, "reset by peer")),
        (Miss("oom_kill", "mm/oom_kill.o", ".text.oom_kill", "out_of_memory", "nginx"),),
        "missed oom_kill",
    ),
    Guest((Stretch(60.0, "", 10.0, 6000), Stretch(70.0, "fill", 8.0, 2000, "", 7)), ()),
)


SOAK = Soak("pruned", ("kill", "fill"), GUESTS)
NOTHING = Soak("pruned", (), (Guest((), (), "it hung"),))


def test_requests_and_misses_in_the_course_of_time() -> None:
    found = to_json(SOAK)
    assert (found["requests"], found["misses"], len(found["lost"])) == (12000, 1, 2)
    lines = table(SOAK).splitlines()
    assert lines[1].split() == ["0.0", "4,000", "1", "250.0", "0", "1"]
    assert lines[6].split()[1:] == ["8,000", "0", "0.0", "7", "0"]
    assert lines[7].split() == ["all", "12,000", "1", "83.3", "7", "1"]
    assert "calm          2 stretches,      500 requests/s, 0 unanswered, 0 lost" in lines
    assert "kill          1 stretches,        0 requests/s, 0 unanswered, 1 lost" in lines
    assert lines[-1] == "guest ended: missed oom_kill"
    assert table(NOTHING) == "pruned: nothing was answered; it hung"
    assert table(Soak("base", (), ())) == "base: nothing was answered; no guest"


def test_sums_are_of_all_stretches() -> None:
    """Parts and kinds have every stretch once; a guest without a stretch ended where the one before did."""
    soak = replace(SOAK, guests=(GUESTS[0], replace(GUESTS[0], stretches=()), GUESTS[1]))
    assert soak.last() == [(10.5, 13.5), (10.5, 13.5), (70.0, 78.0)]
    assert soak.whole() == Sum(4, 12000, 28.0, 7, 1, misses=2)
    for sums in (list(soak.kinds().values()), [part for _, part in soak.parts()]):
        assert sum(each.stretches for each in sums) == 4 and sum(each.requests for each in sums) == 12000
    assert [part.misses for _, part in soak.parts()] == [2, 0, 0, 0, 0, 0]
    assert list(soak.kinds()) == ["calm", "kill", "fill"]
    assert (NOTHING.parts(), NOTHING.whole().per_million, NOTHING.whole().per_second) == ([], None, 0.0)


def test_what_the_page_shows() -> None:
    again = replace(GUESTS[0].misses[0], caller="", offset=16)
    soak = replace(SOAK, guests=(*GUESTS, replace(GUESTS[0], stretches=(), misses=(again, again))))
    found = shown([Soak("base", (), GUESTS[1:]), soak])
    assert found
    base, pruned = found["sides"]
    assert (base["side"], pruned["side"], pruned["sum"]["misses"]) == ("base", "pruned", 3)
    assert pruned["stretches"][1] == [1, 10.5, 3.0, 0.0, 0, "kill", 0, "reset by peer"]
    assert pruned["stretches"][3] == [2, 70.0, 8.0, 250.0, 2000, "fill", 7, ""]
    assert pruned["kinds"][2] == ["fill", 1, 2000, 250.0, 7, 0]
    assert pruned["guests"][0] == [13.5, 4000, 1, "missed oom_kill"]
    assert found["missed"] == [
        ["oom_kill", "mm/oom_kill.o", "out_of_memory", "nginx", 1],
        ["oom_kill+0x10", "mm/oom_kill.o", "", "nginx", 1],
    ]
    assert shown([]) is None


def test_a_soak_is_read_again(tmp_path: Path) -> None:
    path = tmp_path / "soak.json"
    write_json(path, to_json(SOAK))
    assert read_soak(path, "pruned") == SOAK


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        ({"side": "base"}, "of the base kernel, not of the pruned one"),
        ({"troubles": ["flood"]}, "troubles are of storm"),
        ({"troubles": ["kill"]}, "the trouble 'fill', which was not asked for"),
        ({"guests": None}, "Expected `array`"),
        ({"guests": [{"stretches": []}]}, "missing required field `misses`"),
        ({"at": 9.0}, "a stretch at 9.0 seconds, 8.0 long, after 60.0"),
        ({"at": float("nan")}, "a stretch at nan seconds"),
        ({"seconds": -1.0}, "-1.0 long"),
        ({"seconds": "8"}, "Expected `float`"),
        ({"requests": -1}, "-1 requests"),
        ({"requests": True}, "Expected `int`"),
        ({"unanswered": 1 << 60}, "unanswered"),
        ({"schema_version": 2}, "schema_version 2, expected 1"),
    ],
)
def test_a_damaged_soak_is_one_clear_line(tmp_path: Path, damage: dict[str, Any], said: str) -> None:
    path = tmp_path / "soak.json"
    value = to_json(SOAK)
    last = value["guests"][1]["stretches"] = list(value["guests"][1]["stretches"])
    in_stretch = damage.keys() <= last[1].keys()
    (last[1] if in_stretch else value).update(damage)
    write_json(path, value)
    with pytest.raises(UserError) as caught:
        read_soak(path, "pruned")
    assert said in str(caught.value) and str(path) in str(caught.value) and "\n" not in str(caught.value)
    assert "make it again" in str(caught.value)


def test_a_soak_that_is_ended_by_hand_is_kept_up_to_its_last_stretch(monkeypatch: pytest.MonkeyPatch) -> None:
    """One that had missed nothing for three quarters of an hour was lost."""

    def interrupted(*words: Any) -> Guest:
        so_far = words[-1]
        for many in (1, 2):
            so_far(Guest(GUESTS[1].stretches[:many], ()))
        raise KeyboardInterrupt

    monkeypatch.setattr(soaking, "soak_once", interrupted)
    monkeypatch.setattr(soaking, "kernel_of", lambda folder, side: None)
    pipeline = cast("Any", SimpleNamespace(workload=None, folder=Folder(Path("/nowhere"))))
    kept: list[Sequence[Guest]] = []
    with pytest.raises(KeyboardInterrupt):
        soaking.soak(pipeline, "pruned", 3600.0, (), 0, kept.append)
    assert [[guest.requests for guest in guests] for guests in kept] == [[6000], [8000]]


def test_what_rehearsals_ran_is_kept_beside_what_boots_missed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each has a file of its own, after which everything is planned, linked and proved again."""
    did: list[str] = []

    def step(name: str) -> Any:
        return lambda: did.append(name)

    monkeypatch.setattr(soaking, "is_smp", lambda config: True)
    monkeypatch.setattr(soaking, "collect_soak", lambda *words: words[-2:])
    monkeypatch.setattr(soaking, "save_profile", lambda profile, path: path.write_text(f"{profile}"))
    steps = {name: step(name) for name in ("plan", "link", "verify")}
    pipeline = cast("Any", SimpleNamespace(workload=None, folder=Folder(tmp_path), **steps))
    pipeline.renew = lambda: Pipeline.renew(pipeline)
    (tmp_path / "heal").mkdir()
    soaking.rehearse(pipeline, 120.0, ("kill",))
    soaking.rehearse(pipeline, 60.0, ())
    soaking.rehearse(pipeline, 20.0, ("kill",), "soak-3")
    assert {path.name: path.read_text() for path in Folder(tmp_path).retraced} == {
        "round-rehearsal-1.json": "(120.0, ('kill',))",
        "round-rehearsal-2.json": "(60.0, ())",
        "round-soak-3.json": "(20.0, ('kill',))",
    }
    assert did == ["plan", "link", "verify"] * 3


def test_the_base_has_nothing_to_rehearse(capsys: pytest.CaptureFixture[str]) -> None:
    for words in (["--base", "--rehearse", "2"], ["--rehearse", "-1"], ["--rehearse", "nan"]):
        with pytest.raises(SystemExit) as ended:
            cli.main(["soak", "/nowhere", *words])
        assert ended.value.code == UserError.exit_code
        assert "only for the kernel that is pruned" in capsys.readouterr().err


def test_troubles_are_chosen_by_name() -> None:
    assert _troubles(None, TROUBLES) == list(TROUBLES)
    assert _troubles("none", TROUBLES) == []
    assert _troubles("loss,kill", TROUBLES) == ["loss", "kill"]
    with pytest.raises(UserError, match="there is no 'flood'; known: storm"):
        _troubles("flood", TROUBLES)


@pytest.mark.skipif(not shutil.which("busybox"), reason="busybox is not installed")
def test_scripts_are_for_the_guests_shell(tmp_path: Path) -> None:
    tree = scripts(load_workload(EXAMPLES / "redis"))
    assert {name.rpartition("-")[2] for name in tree} == set(IN_GUEST)
    for name, entry in tree.items():
        script = tmp_path / name.replace("/", "-")
        script.write_bytes(entry.data)
        done = subprocess.run(
            ["busybox", "sh", "-n", str(script)], capture_output=True, text=True, check=False
        )
        assert (done.returncode, done.stderr) == (0, "")
        # What the trouble asks the kernel for, beside the trouble, is not to be a miss: /proc/meminfo was.
        assert entry.data.startswith(b"kilobytes=262144\n") and b"meminfo" not in entry.data


def test_a_workload_without_a_load_cannot_be_soaked() -> None:
    with pytest.raises(UserError, match="no app of it has a load"):
        scripts(load_workload(EXAMPLES / "full"))
