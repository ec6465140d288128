"""``collect.sh`` on a machine of plain files, under both shells that it has to live with."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.unit.fake_machine import COLLECT, Machine, make_machine
from tracer.elsewhere.collected import read_collected
from tracer.outcome import AppFailed


@dataclass(frozen=True)
class Run:
    """How to run collect.sh: with which shell, on which machine."""

    shell: tuple[str, ...]
    machine: Machine
    tar: Path

    def command(self, *words: str | Path) -> list[str]:
        tracing = self.machine.root / "tracing"
        return [*self.shell, str(COLLECT), "-t", str(tracing), "-o", str(self.tar), *map(str, words)]

    def begin(self, *words: str | Path) -> subprocess.Popen[str]:
        return subprocess.Popen(
            self.command(*words), stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
            text=True, env=self.machine.environment,
        )  # fmt: skip

    def __call__(self, *words: str | Path, code: int = 0, **environment: str) -> str:
        """Run it to its end; what it said to a person. Whatever happens, the machine is as it was."""
        before = self.machine.settings()
        done = subprocess.run(
            self.command(*words), capture_output=True, text=True, stdin=subprocess.DEVNULL, check=False,
            env={**self.machine.environment, **environment},
        )  # fmt: skip
        assert done.returncode == code, done.stderr
        self.check_tidy(before)
        if code > 1:
            assert not self.tar.exists()
        return done.stderr

    def list(self, text: str) -> Path:
        path = self.machine.root / "apps"
        path.write_text(text)
        return path

    def check_tidy(self, before: dict[str, str]) -> None:
        assert self.machine.settings() == before
        assert list(self.machine.temporary.iterdir()) == []
        assert [path for path in self.tar.parent.iterdir() if path != self.tar] == []


@pytest.fixture(params=["sh", "busybox sh"])
def collect(request: pytest.FixtureRequest, tmp_path: Path) -> Run:
    (tmp_path / "result").mkdir()
    return Run(tuple(request.param.split()), make_machine(tmp_path), tmp_path / "result" / "collected.tar")


@pytest.fixture
def marker(tmp_path: Path) -> Iterator[Callable[[], bool]]:
    """Whether a process that sleeps for an odd time of ours still runs."""

    def running() -> bool:
        for process in Path("/proc").glob("[0-9]*/cmdline"):
            try:
                if f"sleep\0{_ODD}\0".encode() in process.read_bytes():
                    return True
            except OSError:
                continue
        return False

    yield running


_ODD = f"61.{os.getpid()}"


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "there is no app"),
        ("one command\n", "line 1 has no tab"),
        ("# a comment\n\nApp\ttrue\n", "app 'App': a name has only a-z"),
        ("boot\ttrue\n", "that is the name of a phase"),
        ("a\ttrue\na\tfalse\n", "two apps are called 'a'"),
        ("a\t\n", "app 'a' has no command"),
        ("+check\ttrue\n", "'+check' comes before the first app"),
        ("a\ttrue\n+chekc\ttrue\n", "there is no key '+chekc'"),
        ("a\ttrue\n+check\ttrue\n+check\ttrue\n", "a second '+check'"),
        ("a\ttrue\n+timeout\t1.5\n", "app 'a': +timeout wants a whole number"),
        ("a\ttrue\n+timeout\t0\n", "app 'a': +timeout wants a whole number"),
        ("a\ttrue\n+ready\ttrue\n+check\ttrue\n", "use +client instead of +check"),
        ("a\ttrue\n+client\ttrue\n", "add +ready"),
        ("a\ttrue\n+host\ttext\n", "add +ready"),
    ],
)
def test_a_wrong_list_names_its_fault(collect: Run, text: str, says: str) -> None:
    assert says in collect(collect.list(text), code=2)


def test_wrong_usage_names_its_fault(collect: Run) -> None:
    for words, says in (
        (("-x",), "there is no option '-x'"),
        (("-a", "name", "true"), "write -a NAME -- 'COMMAND'"),
        (("-r",), "-r wants a value"),
        (("-r", "0", "-a", "a", "--", "true"), "-r and -T want a whole number"),
        (("/nothing",), "/nothing cannot be read"),
        (("-o", "/tmp", "-a", "a", "--", "true"), "/tmp is a folder"),
    ):
        assert says in collect(*words, code=2)
    assert "usage: collect.sh" in subprocess.run(
        [*collect.shell, COLLECT, "--help"], capture_output=True, text=True, check=True
    ).stdout  # fmt: skip


def test_a_tar_that_the_importer_accepts(collect: Run) -> None:
    """Lines with carriage returns, no newline at the end, odd characters in commands and their output."""
    out = collect.machine.root / "seeds"
    collect(
        "-r", 3, "-a", "first", "--", f"echo $KPRUNE_SEED >>{out}; printf '\\377'",
        collect.list("# apps\r\nsecond\techo \"it's $KPRUNE_SEED\"; test $KPRUNE_SEED\r\n+check\ttrue"),
    )  # fmt: skip
    found = read_collected(collect.tar)
    assert (found.apps, found.repeats) == (("first", "second"), 3)
    assert [(run.app, run.run, run.outcome) for run in found.runs] == [
        (app, run, "ok") for run in range(3) for app in ("first", "second")
    ]
    assert out.read_text() == "0\n1\n2\n"
    assert found.runs[3].said == "it's 1\n"
    assert {each.name: each.count for each in found.runs[0].sightings} == {
        "ksys_write": 24, "vfs_0": 4, "vfs_1": 4,
    }  # fmt: skip
    facts = found.facts
    assert (facts.version, facts.cmdline) == ("Linux version 6.1.0", "quiet")
    assert (facts.functions, facts.symbols) == ({"ksys_write", "vfs_0", "vfs_1"}, {"ksys_write", "vfs_0"})


def test_an_app_that_fails_ends_it_unless_told_otherwise(collect: Run) -> None:
    apps = collect.list("good\ttrue\nbad\techo why; exit 7\n+check\ttrue\nlast\ttrue\n+check\tfalse\n")
    assert "bad: its command exited with status 7; it said:\nwhy" in collect("-r", 2, apps, code=1)
    with pytest.raises(AppFailed, match="running app bad: its command exited with status 7; it said: why"):
        read_collected(collect.tar)
    collect("-k", "-r", 2, apps)
    assert [(run.app, run.outcome) for run in read_collected(collect.tar).runs] == 2 * [
        ("good", "ok"),
        ("bad", "its command exited with status 7"),
        ("last", "its check exited with status 1"),
    ]


def test_time_limits_end_whole_families(collect: Run, marker: Callable[[], bool]) -> None:
    slow = f"(sleep {_ODD}; true) | cat"
    apps = collect.list(
        f"slow\t{slow}\n+timeout\t1\nnever\texec sleep {_ODD}\n+ready\tfalse\n+timeout\t1\n"
        "quick\ttrue\n+timeout\t9\n"
    )
    collect("-k", apps)
    assert not marker()
    assert [run.outcome for run in read_collected(collect.tar).runs] == [
        "its command did not end within 1 seconds",
        "its readiness check did not pass within 1 seconds (status 1)",
        "ok",
    ]


def test_a_service_is_used_from_inside_and_outside(collect: Run, marker: Callable[[], bool]) -> None:
    up, before = collect.machine.root / "up", collect.machine.settings()
    service = f"trap 'rm {up}; exit' TERM; touch {up}; while sleep 0.05; do :; done"
    process = collect.begin("-k", collect.list(
        f"web\t{service}\n+ready\ttest -e {up}\n+client\ttest -e {up}\n+client\ttrue\n+host\tfetch it\n"
        f"refuses\texec sleep {_ODD}\n+ready\ttrue\n+client\texit 4\n"
        "gone\texit 3\n+ready\tfalse\n"
        "early\tsleep 0.3; exit 5\n+ready\ttrue\n+client\tsleep 0.5\n"
    ))  # fmt: skip
    assert process.stdin and process.stdout
    assert process.stdout.readline() == "run web 0\n"
    assert process.stdout.readline() == "host web 0 fetch it\n"
    assert up.exists()
    process.stdin.write("it was slow\n")
    said, _ = process.communicate()
    assert said == "run refuses 0\nrun gone 0\nrun early 0\n" and process.returncode == 0
    assert not up.exists() and not marker()
    assert [run.outcome for run in read_collected(collect.tar).runs] == [
        "its use from outside failed: it was slow",
        "client command 1 exited with status 4",
        "the service ended with status 3 before it was ready",
        "the service had ended by itself, with status 5",
    ]
    collect.check_tidy(before)


def test_a_service_that_does_not_want_to_end(collect: Run, marker: Callable[[], bool]) -> None:
    if collect.shell != ("sh",):
        pytest.skip("it takes five seconds")
    collect("-a", "other", "--", "true", collect.list(f"a\ttrap '' TERM; sleep {_ODD}; :\n+ready\ttrue\n"))
    assert not marker()
    assert [run.outcome for run in read_collected(collect.tar).runs] == ["ok", "ok"]


def test_nobody_there_to_use_a_service(collect: Run, marker: Callable[[], bool]) -> None:
    apps = collect.list(f"web\texec sleep {_ODD}\n+ready\ttrue\n+host\tx\n")
    assert "standard input ended before it was said" in collect(apps, code=3)
    assert not marker()


FILTER = "vfs_read (1) R I\nx:mod:ext4\nschedule:traceoff:unlimited\nksys_write\n"


@pytest.mark.parametrize(
    ("number", "app"),
    [
        (signal.SIGINT, f"a\tsleep {_ODD}\n"),
        (signal.SIGTERM, f"a\tsleep {_ODD}\n+ready\ttrue\n+host\tx\n"),
        (signal.SIGHUP, f"a\tsleep {_ODD}\n+ready\tfalse\n"),
    ],
)
def test_interrupted_it_puts_everything_back(
    collect: Run, marker: Callable[[], bool], number: signal.Signals, app: str
) -> None:
    tracing = collect.machine.tracing
    tracing("set_ftrace_filter").write_text(FILTER)
    tracing("tracing_thresh").write_text("100\n")
    tracing("options/prof-text-offset").write_text("1\n")
    process = collect.begin(collect.list(app))
    assert process.stdout and process.stdout.readline() == "run a 0\n"
    while not marker():
        time.sleep(0.01)
    if "+host" in app:
        assert process.stdout.readline() == "host a 0 x\n"
    during = collect.machine.settings()
    assert during["tracing/function_profile_enabled"] == "1\n"
    assert during["tracing/set_ftrace_filter"].strip() == ""
    assert during["tracing/tracing_thresh"] == "0\n"
    process.send_signal(number)
    process.communicate(timeout=10)
    assert process.returncode == 128 + number
    assert not marker() and not collect.tar.exists()
    # Flags and comments are not what was set, and commands were never away.
    assert tracing("set_ftrace_filter").read_text() == "vfs_read\nx:mod:ext4\nksys_write\n"
    assert tracing("tracing_thresh").read_text() == "100\n"
    assert tracing("options/prof-text-offset").read_text() == "1\n"
    assert tracing("function_profile_enabled").read_text() == "0\n"
    assert list(collect.machine.temporary.iterdir()) == []


def test_it_ends_when_nobody_listens(collect: Run) -> None:
    """What a lost ssh connection looks like."""
    before = collect.machine.settings()
    process = collect.begin(collect.list("a\tsleep 0.3\nb\tsleep 0.3\nc\ttrue\n"))
    assert process.stdout and process.stdout.readline() == "run a 0\n"
    process.stdout.close()
    process.stdout = None
    process.communicate(timeout=10)
    assert process.returncode == 128 + signal.SIGPIPE
    collect.check_tidy(before)
    assert not collect.tar.exists()


def test_what_the_machine_lacks_is_named(collect: Run) -> None:
    enabled = collect.machine.tracing("function_profile_enabled")
    app = ("-a", "a", "--", "true")
    assert "somebody switched the function profiler off" in collect(
        "-a", "a", "--", f"echo 0 >{enabled}", code=3
    )
    assert "cannot be written; is the disk full?" in collect(*app, "-o", "/nowhere/tar", code=3)
    enabled.write_text("1\n")
    assert "somebody is profiling already" in collect(*app, code=3)
    enabled.unlink()
    assert "this kernel has no function profiler" in collect(*app, code=3)
    assert "a folder in /nowhere cannot be made; set TMPDIR" in collect(*app, code=3, TMPDIR="/nowhere")


def test_a_small_system_without_md5sum_and_setsid(tmp_path: Path, marker: Callable[[], bool]) -> None:
    """(Under busybox's own shell they are always there.)"""
    programs = tmp_path / "programs"
    programs.mkdir()
    for name in "cat cksum grep id mkdir mv rm sed sleep sh tail tar uname wc".split():
        (programs / name).symlink_to(shutil.which(name) or name)
    (tmp_path / "result").mkdir()
    collect = Run(
        (shutil.which("sh") or "sh",), make_machine(tmp_path), tmp_path / "result" / "collected.tar"
    )
    apps = collect.list(f"slow\texec sleep {_ODD}\n+timeout\t1\nserver\texec sleep {_ODD}\n+ready\ttrue\n")
    assert "there is no setsid" in collect("-k", apps, PATH=str(programs))
    assert not marker()
    outcomes = [run.outcome for run in read_collected(collect.tar).runs]
    assert outcomes == ["its command did not end within 1 seconds", "ok"]
    (programs / "sed").unlink()
    collect.tar.unlink()
    assert "the program sed is not here" in collect(apps, code=3, PATH=str(programs))
