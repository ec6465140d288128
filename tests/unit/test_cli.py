"""The command line: one clear line on stderr, the documented exit code, data on stdout."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import pytest

from prune.build.doctor import doctor, require, table
from prune.settings import Settings, load_settings
from tracer.host import HostError, UserError, run_program, whole_file

KPRUNE = Path(sys.executable).with_name("kprune")


def kprune(*words: str | Path, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [KPRUNE, *map(str, words)], capture_output=True, text=True, check=False,
        env={**os.environ, **environment},
    )  # fmt: skip


def test_it_says_which_version_it_is() -> None:
    done = kprune("--version")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == f"kprune {version('kprune')}\n"


@pytest.mark.parametrize("verb", ["trace", "plan", "link", "verify", "boot", "report"])
def test_a_folder_that_no_run_began_is_told(tmp_path: Path, verb: str) -> None:
    done = kprune(verb, tmp_path / "nothing")
    assert (done.returncode, done.stdout) == (2, "")
    assert "run.json does not exist" in done.stderr and done.stderr.count("\n") == 1


@pytest.mark.parametrize(
    "words",
    [
        ("nonsense",),
        (),
        ("run",),
        ("run", "x", "--boots", "0"),
        ("plan", "x", "--keep", "most"),
    ],
)
def test_wrong_usage_is_exit_2(words: tuple[str, ...]) -> None:
    assert kprune(*words).returncode == 2


def test_help_lists_verbs_and_exit_codes() -> None:
    said = kprune("--help").stdout
    for word in (
        "run",
        "build",
        "trace",
        "plan",
        "link",
        "verify",
        "boot",
        "report",
        "why",
        "doctor",
        "exit codes",
    ):
        assert word in said


def test_a_workload_that_is_not_there_is_named(tmp_path: Path) -> None:
    done = kprune("run", "examples/micro", "--arch", "vax", "--out", tmp_path / "out")
    assert done.returncode == 2
    assert "it does not run on vax; it says arch = x86_64, i386" in done.stderr
    done = kprune("run", tmp_path / "nowhere", "--out", tmp_path / "out")
    assert done.returncode == 2 and "nowhere" in done.stderr
    assert not (tmp_path / "out").exists()


def test_the_doctor_speaks_json_and_a_table() -> None:
    checks = json.loads(kprune("doctor", "--json").stdout)
    assert {"gcc", "qemu-system-x86", "disk"} <= {check["name"] for check in checks}
    assert all(check["ok"] or check["mend"] for check in checks)
    assert "gcc" in kprune("doctor").stdout


def test_the_doctor_names_what_is_missing_and_the_one_command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    said = table(doctor(tmp_path))
    assert "MISSING gcc" in said
    last = said.splitlines()[-1]
    assert last.startswith("apt-get install") and {"gcc", "flex", "qemu-system-x86"} <= set(last.split())
    with pytest.raises(HostError, match=r"gcc, ld are not there; apt-get install .* gcc binutils"):
        require(["gcc", "ld"])


def test_settings_survive_the_disk(tmp_path: Path) -> None:
    made = Settings(workload=tmp_path / "w", out=tmp_path, rules=tmp_path / "r", boots=3, heal=False)
    made.save()
    assert load_settings(tmp_path) == made


def test_settings_of_an_earlier_kprune_mean_what_it_did(tmp_path: Path) -> None:
    made = Settings(workload=tmp_path / "w", out=tmp_path)
    made.save()
    value = json.loads((tmp_path / "run.json").read_text())
    del value["arch"], value["sleepers"]
    (tmp_path / "run.json").write_text(json.dumps(value))
    assert load_settings(tmp_path) == made


@pytest.mark.parametrize("text", ["{", "[]", '{"schema_version": 1}', '{"schema_version": 9}'])
def test_damaged_settings_are_one_clear_error(tmp_path: Path, text: str) -> None:
    (tmp_path / "run.json").write_text(text)
    with pytest.raises(UserError, match=r"run\.json"):
        load_settings(tmp_path)


def test_a_file_is_whole_or_not_there(tmp_path: Path) -> None:
    path = tmp_path / "file"
    with pytest.raises(RuntimeError), whole_file(path) as stream:
        stream.write("half")
        raise RuntimeError
    assert list(tmp_path.iterdir()) == []


def test_a_full_disk_is_named_and_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(HostError, match=r"writing /dev/full/.*"), whole_file(Path("/dev/full/x")):
        pass
    code = (
        "import resource, sys; from pathlib import Path; from tracer.host import whole_file, HostError\n"
        "import signal; signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (10, 10))\n"
        "try:\n"
        f"    with whole_file(Path({str(tmp_path / 'x')!r})) as stream: stream.write('x' * 100)\n"
        "except HostError as error: print(error); sys.exit(error.exit_code)\n"
    )
    done = subprocess.run([sys.executable, "-B", "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 3 and "free some space" in done.stdout, done.stderr
    assert list(tmp_path.iterdir()) == []


def test_a_program_that_fails_says_what_and_where(tmp_path: Path) -> None:
    with pytest.raises(HostError, match=r"trying: sh exited 3: bad.*log"):
        run_program(["sh", "-c", "echo bad; exit 3"], doing="trying", log=tmp_path / "log")
    with pytest.raises(HostError, match="no-such-program is not there"):
        run_program(["no-such-program"], doing="trying")
