"""Targets: what guests, emulators, targets behind ssh, and Debian's programs and packages say."""

from __future__ import annotations

import io
import selectors
import socket
import tarfile
from collections.abc import Sequence
from pathlib import Path
from random import Random
from types import SimpleNamespace
from typing import Any
from unittest import mock

from prune.build.doctor import parse_version
from tests.fuzz.harness import Target
from tests.fuzz.mutate import HOSTILE, of_bytes, of_json, of_some, of_text
from tests.unit.test_collected import NOTES
from tests.unit.test_remote import TARGET
from tests.unit.test_remote import workload as ssh_workload
from tracer.elsewhere.remote import _Session
from tracer.files import debian, rootfs
from tracer.files.newc import write_newc
from tracer.host import GuestLost
from tracer.machines.gdb import GdbClient
from tracer.machines.qemu import VmOptions, parse_forwards, parse_instruction_pointers
from tracer.machines.vm import Vm
from tracer.notes import read_build_id
from tracer.sessions.options import SessionOptions
from tracer.sessions.session import Session


class _Now(selectors.DefaultSelector):
    """Waits for nobody: all that will ever be said has been said."""

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        return super().select(0)


def _vm(folder: Path, control: bytes = b"", qmp: bytes = b"") -> Vm:
    """A machine that has said this and is gone."""
    (folder / "console.log").write_bytes(b"Kernel panic - not syncing: x\n")
    vm = Vm.__new__(Vm)
    vm.options, vm.console, vm.ending, vm.ended_at, vm.ports = (
        VmOptions(0),
        folder / "console.log",
        "",
        (),
        {},
    )
    vm._qemu_said, vm._sockets, vm.gdb_socket = folder / "qemu.log", folder, folder / "gdb"
    vm._process, vm._selector = None, _Now()
    vm._buffers = {"control": b"", "qmp": b""}
    for name, said in (("control", control), ("qmp", qmp)):
        ours, theirs = socket.socketpair()
        theirs.setblocking(False)
        theirs.send(said[: 1 << 16])
        theirs.shutdown(socket.SHUT_WR)
        setattr(vm, f"_{name}_end", theirs)
        vm._selector.register(ours, selectors.EVENT_READ, name)
        setattr(vm, f"_{name}", ours)
    return vm


def _agent(data: bytes, folder: Path) -> object:
    """The conversation with an agent, as far as it goes."""
    workload = ssh_workload(folder)
    session = Session(
        _vm(folder, control=data), workload, SessionOptions(grace=0.05, boot_timeout=0.05, poll=0), {}
    )
    session.run()
    return session.kernel_version


def _qmp(data: bytes, folder: Path) -> object:
    vm = _vm(folder, qmp=data)
    lines = vm.receive(0)
    vm = _vm(folder, qmp=data)
    with mock.patch.object(Vm, "alive", lambda _: bool(vm._selector.get_map())):
        said = str(vm._ask_qmp("x"))
    return parse_forwards(said), parse_instruction_pointers(said), lines


def _gdb(data: bytes, _: Path) -> object:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        theirs.send(data[: 1 << 16])
        theirs.shutdown(socket.SHUT_WR)
        client = GdbClient(ours)
        try:
            return client.read(1, 8), client.write(1, b"x"), client.read_register(7, 8)
        except OSError as error:
            raise GuestLost(f"as attached() does: {error}") from error


def _ssh(data: bytes, folder: Path) -> object:
    """Lines of a target's; it can make us run the host commands of the workload, and nothing else."""
    from tracer.host import printable

    workload = ssh_workload(folder, "true")
    session = _Session(workload, TARGET, "192.0.2.7", folder, lambda _: None)
    answers = [session._take(printable(line)) for line in data.split(b"\n")[:200]]
    assert all(answer is None or "\n" not in answer for answer in answers)
    return session.last_words()


def _packed(members: Sequence[tuple[str, bytes, bytes, str]]) -> bytes:
    """A tar of (name, type, content, link)."""
    made = io.BytesIO()
    with tarfile.open(fileobj=made, mode="w") as tar:
        for name, kind, content, link in members:
            info = tarfile.TarInfo(name)
            info.type, info.linkname, info.size = kind, link, len(content)
            tar.addfile(info, io.BytesIO(content))
    return made.getvalue()


_MEMBERS = [
    ("./", tarfile.DIRTYPE, b"", ""), ("./bin/", tarfile.DIRTYPE, b"", ""),
    ("./bin/true", tarfile.REGTYPE, b"\x7fELF", ""), ("./usr/bin/alias", tarfile.SYMTYPE, b"", "/bin/true"),
    ("./bin/hard", tarfile.LNKTYPE, b"", "./bin/true"), ("./dev/null", tarfile.CHRTYPE, b"", ""),
]  # fmt: skip


def _evil(random: Random, samples: Sequence[bytes]) -> bytes:
    """Names and links that lead elsewhere, members of every type."""
    members = [list(member) for member in _MEMBERS]
    for _ in range(random.randint(1, 3)):
        at = random.randrange(len(members))
        field = random.choice((0, 1, 3))
        members[at][field] = (
            bytes([random.randrange(0x30, 0x60)]) if field == 1
            else random.choice((*HOSTILE, "./bin", "bin", "usr/../../x", "./usr/bin/hard", "/", "..", "."))
        )  # fmt: skip
    return _packed([tuple(member) for member in members])  # type: ignore[misc]


def _package(data: bytes, folder: Path) -> object:
    """What dpkg-deb has unpacked of a package."""
    done = SimpleNamespace(returncode=0, stdout=data, stderr=b"")
    with mock.patch.object(rootfs.subprocess, "run", lambda *_, **__: done):
        tree = rootfs.package_tree(folder / "x.deb")
    assert not any(".." in name.split("/") or name.startswith("/") for name in tree), "a path leads out of it"
    return len(write_newc(tree))


_INSTALLS = b"NEW packages:\n  libc6\nInst libc6 (2.36 Debian:12 [amd64]) []\nInst dropbear-bin (1)\nConf x\n"
_URIS = b"'http://x/a_1_amd64.deb' a_1_amd64.deb 1 SHA256:0\n'http://x/b_2_all.deb' b_2_all.deb 1 SHA256:0\n"


def _apt(data: bytes, folder: Path) -> object:
    """What apt answers: names of packages and of files, which become words of commands and paths."""
    installs, _, uris = data.partition(b"\n----\n")
    asked: list[Sequence[str]] = []

    def answer(_: debian.Apt, *words: str, log: Path | None = None, **__: Any) -> str:
        asked.append(words)
        if log:
            log.write_bytes(installs)
        return uris.decode(errors="replace")

    cache = folder / "cache"
    with (
        mock.patch.object(debian.Apt, "run", answer),
        mock.patch.object(debian, "host_architecture", lambda: "amd64"),
    ):
        found = debian.fetch_packages(("dropbear-bin",), "amd64", cache)
    assert all(path.parent == cache for path in found), "a file is outside the cache"
    words = [word for each in asked[1:] for word in each[1:] if word != "--print-uris"]
    assert not any(word.startswith("-") for word in words), "apt takes a name for an option"
    return found


def _busybox(data: bytes, folder: Path) -> object:
    return len(write_newc(rootfs.busybox_links(folder, data)))


_AGENT = b"hello 1 Linux version 6.1\ndone 0\ndone 0\n| said\ndone 3\ndied 1\ndone 0\n"
_QMP = (
    b'{"event": "SHUTDOWN", "data": {"guest": true, "reason": "guest-reset"}}\n'
    b'{"return": "TCP[HOST_FORWARD]  17  127.0.0.1 41000  10.0.2.15 80  0  0\\n'
    b'RIP=ffffffff81000042 EIP=0000fff0"}\n',
    b'{"error": {"class": "x", "desc": "no"}}\n',
)

_QMP_LINES = [line for said in _QMP for line in said.splitlines() if b"SHUTDOWN" not in line]
_APPLETS = b"\x7fELF\0x\0zz\0ash\0cat\0ls\0sh\0wget\0\0\x90\0"
_SAID = b"run web 0\nhost web 0\nrun web 1 x\nlast words\n"


def _version(data: bytes, _: Path) -> object:
    return parse_version(data.decode(errors="replace"))


TARGETS = [
    Target("agent", lambda _: [_AGENT], _agent, of_text, weight=2),
    Target("qmp", lambda _: _QMP, _qmp, of_some(of_text, of_bytes), weight=2),
    Target("qmp_json", lambda _: _QMP_LINES, lambda data, folder: _qmp(data + b"\n", folder), of_json),
    Target("gdb", lambda _: [b"+$0011223344556677#00+$OK#00+$" + b"00" * 64 + b"#00"], _gdb, of_bytes),
    Target("ssh", lambda _: [_SAID], _ssh, of_text, weight=4, programs=("sh",)),
    Target("package", lambda _: [_packed(_MEMBERS)], _package, of_some(of_bytes, _evil)),
    Target("apt", lambda _: [_INSTALLS + b"\n----\n" + _URIS], _apt, of_text),
    Target("busybox", lambda _: [_APPLETS], _busybox, of_bytes),
    Target("notes", lambda _: [NOTES], lambda data, _: read_build_id(data), of_bytes),
    Target("version", lambda _: [b"QEMU emulator version 7.2.9\n"], _version, of_text),
]  # fmt: skip
