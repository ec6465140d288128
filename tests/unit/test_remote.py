"""``kprune trace --ssh`` with an ssh that runs everything here, and fails in every way that ssh has."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from tests.unit.fake_machine import Machine, make_machine
from tracer.elsewhere import remote, ssh
from tracer.elsewhere.collected import read_collected
from tracer.elsewhere.remote import collect_over_ssh
from tracer.elsewhere.ssh import SshTarget
from tracer.host import GuestLost, HostError, UserError
from tracer.outcome import AppFailed, LostEvents
from tracer.workloads.workload import Workload
from tracer.workloads.workload_file import load_workload

KPRUNE = Path(sys.executable).with_name("kprune")
# Like sshd it gives the line to a shell in a session of its own, which outlives a lost connection; like ssh
# it warns on standard error. $FAKE_SSH is what goes wrong.
SSH = """\
#!/bin/sh
for line; do :; done
if [ "$1" = -G ]; then
	printf 'user root\\nhostname %s\\nport 22\\n' "$FAKE_ADDRESS"
	exit
fi
echo "Warning: Permanently added 'target' to the list of known hosts." >&2
case $FAKE_SSH-$line in
refused-*) printf 'ssh: connect to host target port 22: Connection refused\\r\\n' >&2; exit 255 ;;
stranger-*) echo "Host key verification failed." >&2; exit 255 ;;
silent-*) sleep 60 ;;
lost-*collect.sh*) echo "run web 0"; printf 'client_loop: Broken pipe\\r\\n' >&2; exit 255 ;;
cut-*cat*collected.tar*) sh -c "$line" | head -c 5000; exit 255 ;;
truncated-*cat*collected.tar*) sh -c "$line" | head -c 5000; exit ;;
esac
exec setsid -w sh -c "$line"
"""
WORKLOAD = """\
schema_version = 1
name = "small"
arch = "x86_64"

[machine]
forward = [80]

[[app]]
name = "one"
command = "echo 'one   shot'; exit $FAIL"
timeout = 20

[[app]]
name = "web"
command = "touch {up}; exec sleep 30"
ready = "test -e {up}"
client = ["true", "true"]
host = '''{host}'''
timeout = 20
"""
TARGET = SshTarget("root@target")


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Machine:
    """The target; what runs over "ssh" finds its folders."""
    made = make_machine(tmp_path / "target")
    (made.root / "proc/mounts").write_text(f"tracefs {made.tracing('')} tracefs rw 0 0\n")
    programs = tmp_path / "programs"
    programs.mkdir()
    for name, text in (("ssh", SSH), ("id", "#!/bin/sh\necho 0\n")):
        (programs / name).write_text(text)
        (programs / name).chmod(0o755)
    for name, value in made.environment.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("PATH", f"{programs}:{os.environ['PATH']}")
    monkeypatch.setenv("FAKE_ADDRESS", "192.0.2.7")
    monkeypatch.setenv("FAKE_SSH", "")
    monkeypatch.setenv("FAIL", "0")
    return made


def workload(folder: Path, host: str = "test $KPRUNE_HOST:$KPRUNE_PORT_80 = 192.0.2.7:80") -> Workload:
    (folder / "workload.toml").write_text(WORKLOAD.format(up=folder / "up", host=host))
    return load_workload(folder)


@pytest.fixture(autouse=True)
def nothing_is_left(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder on the target, by a name that we know."""
    token = f"test-{os.getpid()}"
    monkeypatch.setattr(remote.secrets, "token_hex", lambda _: token)
    return Path(f"/tmp/kprune-{token}")


def test_the_whole_conversation(machine: Machine, tmp_path: Path, nothing_is_left: Path) -> None:
    before, progress = machine.settings(), list[str]()
    host = "echo $KPRUNE_SEED $KPRUNE_HOST $KPRUNE_PORT_80 $KPRUNE_PORT_443 >>said"
    target = SshTarget("root@target", ports=((80, 8080), (443, 8443)), runs=2)
    tar = collect_over_ssh(workload(tmp_path, host), target, tmp_path / "into", progress.append)
    found = read_collected(tar)
    assert [(run.app, run.run, run.outcome) for run in found.runs] == [
        (app, run, "ok") for run in (0, 1) for app in ("one", "web")
    ]
    assert found.runs[0].said == "one   shot\n"
    assert (tmp_path / "said").read_text() == "0 192.0.2.7 8080 8443\n1 192.0.2.7 8080 8443\n"
    assert progress[-1] == "root@target: web, run 2 of 2"
    assert machine.settings() == before and not nothing_is_left.exists()


def test_failures_of_apps_and_of_their_use(
    machine: Machine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, nothing_is_left: Path
) -> None:
    failing = workload(tmp_path, "echo no; exit 3")
    with pytest.raises(
        AppFailed, match=r"on root@target: .*app web: its use from outside failed: the host com"
    ):
        collect_over_ssh(failing, TARGET, tmp_path)
    assert (tmp_path / "host-web.log").read_text() == "no\n"
    monkeypatch.setenv("FAIL", "7")
    with pytest.raises(AppFailed, match="app one: its command exited with status 7; it said: one   shot"):
        collect_over_ssh(failing, TARGET, tmp_path)
    machine.tracing("function_profile_enabled").unlink()
    with pytest.raises(HostError, match=r"root@target: .*this kernel has no function profiler"):
        collect_over_ssh(failing, TARGET, tmp_path)
    assert not nothing_is_left.exists()


@pytest.mark.parametrize(
    ("fault", "error", "says"),
    [
        ("refused", HostError, "cannot be reached: .*Connection refused; is it up"),
        ("stranger", HostError, "Host key verification failed.; connect once by hand"),
        ("lost", GuestLost, "connection was lost when app web ran, run 1 of 1: client_loop: Broken pipe$"),
        ("cut", GuestLost, r"did not come whole \(ssh exited 255\)"),
        ("silent", GuestLost, "no answer in 0.3 seconds"),
    ],
)  # fmt: skip
def test_what_goes_wrong_with_ssh(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fault: str, error: type[Exception], says: str,
    nothing_is_left: Path,
) -> None:  # fmt: skip
    monkeypatch.setenv("FAKE_SSH", fault)
    if fault == "silent":
        monkeypatch.setattr(ssh, "GRACE", 0.3)
    with pytest.raises(error, match=says) as raised:
        collect_over_ssh(workload(tmp_path), TARGET, tmp_path / "into")
    assert type(raised.value) is error
    assert not (tmp_path / "into" / "collected.tar").exists() and not nothing_is_left.exists()


def test_a_tar_that_is_cut_without_a_word(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FAKE_SSH", "truncated")
    tar = collect_over_ssh(workload(tmp_path), TARGET, tmp_path / "into")
    with pytest.raises(LostEvents, match="cut short"):
        read_collected(tar)


def test_a_tar_without_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ssh, "MAX_FILE", 5000)
    with pytest.raises(UserError, match="larger than"):
        collect_over_ssh(workload(tmp_path), TARGET, tmp_path / "into")
    assert list((tmp_path / "into").glob("*collected*")) == []


def test_no_end(
    tmp_path: Path, machine: Machine, monkeypatch: pytest.MonkeyPatch, nothing_is_left: Path
) -> None:
    """The time for all apps is over; the target is told, and puts its settings back."""
    before = machine.settings()
    given = workload(tmp_path, "sleep 3; test $KPRUNE_HOST")
    monkeypatch.setattr(remote, "GRACE", 1.5 - sum((4 + len(a.client)) * a.timeout + 30 for a in given.apps))
    with pytest.raises(GuestLost, match=r"no end after 1.5 seconds, when app web ran"):
        collect_over_ssh(given, TARGET, tmp_path / "into")
    assert machine.settings() == before and not nothing_is_left.exists()


def test_interrupted_the_target_is_as_it_was(tmp_path: Path, machine: Machine, nothing_is_left: Path) -> None:
    before = machine.settings()
    machine.tracing("tracing_thresh").write_text("100\n")

    def interrupt(text: str) -> None:
        assert machine.tracing("tracing_thresh").read_text() == "0\n"
        if "web" in text:
            signal.raise_signal(signal.SIGINT)

    with pytest.raises(KeyboardInterrupt):
        collect_over_ssh(workload(tmp_path), TARGET, tmp_path / "into", interrupt)
    assert machine.settings() == {**before, "tracing/tracing_thresh": "100\n"}
    assert not nothing_is_left.exists()


def test_a_host_command_that_asks_the_wrong_machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    here = workload(tmp_path, "true http://127.0.0.1:$KPRUNE_PORT_80")
    with pytest.raises(
        UserError, match=r"app web asks 127\.0\.0\.1, but the app runs on 192\.0\.2\.7; write"
    ):
        collect_over_ssh(here, TARGET, tmp_path / "into")
    collect_over_ssh(here, SshTarget("root@target", ports=((80, 8080),)), tmp_path / "mapped")
    collect_over_ssh(workload(tmp_path, "true ${KPRUNE_HOST:-127.0.0.1}"), TARGET, tmp_path / "named")
    monkeypatch.setenv("FAKE_ADDRESS", "127.0.0.1")
    collect_over_ssh(here, TARGET, tmp_path / "local")


@pytest.mark.parametrize("destination", ["", "-oProxyCommand=x", "two words"])
def test_destinations_that_are_none(tmp_path: Path, destination: str) -> None:
    with pytest.raises(UserError, match="is no user@host"):
        collect_over_ssh(workload(tmp_path), SshTarget(destination), tmp_path)


@pytest.mark.parametrize(
    ("words", "says"),
    [
        ("--ssh x --sources blocks", "reading --sources: with --ssh"),
        ("--ssh x --quiet-runs 3", "reading --quiet-runs: with --ssh"),
        ("--ssh-option -v", "expected one argument"),
        ("--ssh-option=-v", "reading --ssh-option: there is no --ssh"),
        ("--ssh-port-map 80:8080", "reading --ssh-port-map: there is no --ssh"),
        ("--of traced", "reading --of: there is no --ssh"),
        ("--ssh x --ssh-port-map 80", "80 is not GUEST:HOST"),
        ("--ssh x --ssh-port-map 80:99999", "80:99999 is not GUEST:HOST"),
        ("--ssh x", "run.json does not exist"),
    ],
)
def test_the_command_line(tmp_path: Path, words: str, says: str) -> None:
    done = subprocess.run(
        [KPRUNE, "trace", tmp_path, *words.split()], capture_output=True, text=True, check=False
    )
    assert done.returncode == 2 and says in done.stderr, textwrap.shorten(done.stderr, 2000)
    assert done.stdout == "" and list(tmp_path.iterdir()) == [tmp_path / "programs", tmp_path / "target"]
