"""What a watched kernel called: the filter, the script, the result, and all that can be wrong with it."""

from __future__ import annotations

import hashlib
import shutil
import subprocess
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tracer.elsewhere.observed import Observed, filter_names, filter_text, observed_profile, read_observed
from tracer.host import KpruneError, UserError
from tracer.outcome import LostEvents
from tracer.profiles.profile import Seen
from tracer.profiles.symbols import make_symbols

SCRIPT = Path(__file__).parents[2] / "tracer" / "observe.sh"
ROWS = [
    [0, 8, "a.o", ".text.gone", "gone", True], [8, 8, "a.o", ".text.kept", "kept", True],
    [16, 8, "a.o", ".text.both", "both", True], [24, 8, "b.o", ".text.both", "both", True],
    [32, 8, "b.o", ".text.twice", "twice", True], [40, 8, "c.o", ".text.twice", "twice", True],
]  # fmt: skip
SYMBOLS = make_symbols("production", "aa", ROWS)
DROPPED = [("a.o", ".text.gone"), ("b.o", ".text.both"), ("b.o", ".text.twice"), ("c.o", ".text.twice")]


def result(rows: str, lost: int = 0) -> bytes:
    head = f"kprune-observe 1\nbuild aa\nkernel 6.1 x86_64\nfrom 100 to 160\nwatched 2\nlost {lost}\n"
    body = (head + rows).encode()
    return body + b"end " + hashlib.md5(body).hexdigest().encode() + b"\n"


def written(tmp_path: Path, data: bytes) -> Path:
    path = tmp_path / "result"
    path.write_bytes(data)
    return path


def test_names_that_kept_functions_share_are_not_watched() -> None:
    assert filter_names(SYMBOLS, DROPPED) == (["gone", "twice"], ["both"])
    assert filter_text("aa", ["gone"]) == "# build aa\ngone\n"


def test_calls_become_a_profile(tmp_path: Path) -> None:
    observed = read_observed(written(tmp_path, result("gone.isra.0 4\ntwice 3\nmystery 1\n")))
    assert (observed.seconds, observed.watched) == (60, 2)
    profile = observed_profile(observed, SYMBOLS, DROPPED)
    assert [(f.object, f.symbol, f.seen) for f in profile.functions] == [
        ("a.o", "gone", (Seen("observe", "observe", 4),)),
        ("b.o", "twice", (Seen("observe", "observe", None),)),
        ("c.o", "twice", (Seen("observe", "observe", None),)),
    ]
    assert profile.ambiguous == ("twice",) and profile.unmatched == ("mystery",)


def test_another_build_and_lost_events_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="of build bb"):
        observed_profile(Observed("bb", "", 1, 1, {}), SYMBOLS, DROPPED)
    with pytest.raises(LostEvents, match="lost 7 events"):
        read_observed(written(tmp_path, result("", lost=7)))
    with pytest.raises(UserError, match="does not exist"):
        read_observed(tmp_path / "none")


def test_truncated_anywhere_is_refused(tmp_path: Path) -> None:
    whole = result("gone 4\n")
    for length in range(len(whole)):
        with pytest.raises(UserError):
            read_observed(written(tmp_path, whole[:length]))


@given(st.text(max_size=60))
def test_hostile_rows_are_one_clear_error(tmp_path_factory: pytest.TempPathFactory, rows: str) -> None:
    path = written(tmp_path_factory.mktemp("observed"), result(rows))
    try:
        assert all(name in rows for name in read_observed(path).counts)
    except KpruneError as error:
        assert "\n" not in str(error)


@pytest.mark.parametrize("shell", [["dash"], ["bash", "--posix"], ["busybox", "sh"]])
def test_the_script_says_what_is_missing(tmp_path: Path, shell: list[str]) -> None:
    if shutil.which(shell[0]) is None:
        pytest.skip(f"no {shell[0]}")
    folder = tmp_path / "observe"
    folder.mkdir()
    shutil.copy(SCRIPT, folder)

    def run(*words: str) -> subprocess.CompletedProcess[str]:
        env = {
            "PATH": "/usr/bin:/bin",
            "KPRUNE_OBSERVE_STATE": str(tmp_path / "state"),
            "KPRUNE_TRACEFS": str(folder),
        }
        return subprocess.run(
            [*shell, str(folder / "observe.sh"), *words], capture_output=True, text=True, env=env, check=False
        )

    assert run("start").returncode == 3 and "copy the whole folder" in run("start").stderr
    (folder / "filter").write_text("# build aa\ngone\n")
    (folder / "available_tracers").write_text("blk nop\n")
    done = run("start")
    assert done.returncode == 3 and "no function tracer (CONFIG_FUNCTION_TRACER)" in done.stderr
    (folder / "available_tracers").write_text("function nop\n")
    (folder / "available_filter_functions").write_text("gone_too\nother\n")
    assert "can trace none of the functions" in run("start").stderr
    assert "observe.sh start begins" in run("status").stderr
    assert run("-h").returncode == 0 and "observe.sh stop FILE" in run("-h").stdout
    assert run("nonsense").returncode == 2
