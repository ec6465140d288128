"""A workload: the apps that matter, the root file system they run in, the machine they run on.

:mod:`tracer.workloads.workload_file` reads it.
"""

from __future__ import annotations

import hashlib
import random
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tracer.host import file_hash
from tracer.workloads.servers import Server

#: Formats of a root file system that is on a disk.
DEVICES = ("romfs", "squashfs")
#: The network card of a machine that does not name another: QEMU's -device.
NIC = "virtio-net-pci"
AGENT = Path(__file__).parents[1] / "guest" / "init"


@dataclass(frozen=True)
class Machine:
    """The virtual machine: memory in bytes, extra kernel command line, guest TCP ports to forward, and what
    QEMU calls the processor, "" for that of ``machines.toml``, and the network card. ``tight``: bytes of
    memory in which some runs of the production kernel happen as well, 0 for none. ``cpus``: processors."""

    memory: int
    cmdline: str
    forward: tuple[int, ...]
    cpu: str = ""
    tight: int = 0
    nic: str = NIC
    cpus: int = 1


@dataclass(frozen=True)
class Disk:
    """A disk for the guest's data, made afresh for each guest: its file system, bytes, the guest's folder."""

    format: str
    size: int
    mount: str


@dataclass(frozen=True)
class RootfsFile:
    """One file of the user's: absolute host path, absolute guest path, permission bits."""

    source: Path
    target: str
    mode: int


@dataclass(frozen=True)
class Rootfs:
    """``busybox``: there are links to all of its applets; ``own_busybox``: the workload brings its own;
    ``omit``: shell patterns of guest paths that are left out of the packages (``*`` matches ``/``, too);
    ``device``: the format of the disk that it is on (:data:`DEVICES`), "" for an initial RAM file system;
    ``modules``: shell patterns of names of the kernel's modules, which come with what they depend on;
    ``owners``: files of packages are whose the packages say, else all are root's."""

    busybox: bool
    packages: tuple[str, ...]
    files: tuple[RootfsFile, ...]
    omit: tuple[str, ...] = ()
    own_busybox: Path | None = None
    device: str = ""
    modules: tuple[str, ...] = ()
    owners: bool = True


@dataclass(frozen=True)
class App:
    """One app. With ``ready`` it is a service, without it runs once to its end.

    ``command``, ``ready``, ``check`` and each of ``client`` are lines for the guest's shell, ``host`` is
    one for the host's; "" and () mean that there is none. ``timeout`` is in seconds and holds for each.
    ``load`` is a line for the host's shell as well, which no trace runs: it measures
    (:mod:`tracer.sessions.measure`).
    """

    name: str
    command: str
    ready: str
    check: str
    client: tuple[str, ...]
    host: str
    timeout: float
    load: str = ""

    @property
    def is_service(self) -> bool:
        return bool(self.ready)


@dataclass(frozen=True)
class Workload:
    """A workload on one architecture, ``arch``, of those that it says it runs on, ``arches``.
    ``kernel_configs``: fragments over tinyconfig; of two that set an option the later one wins."""

    folder: Path
    file: Path
    name: str
    arch: str
    arches: tuple[str, ...]
    kernel_configs: tuple[Path, ...]
    machine: Machine
    rootfs: Rootfs
    apps: tuple[App, ...]
    any_order: bool = False
    servers: tuple[Server, ...] = ()
    needs: tuple[str, ...] = ()
    disks: tuple[Disk, ...] = ()

    @property
    def title(self) -> str:
        """What a folder for its results is called: its name, and the architecture unless it is the first."""
        return self.name if self.arch == self.arches[0] else f"{self.name}-{self.arch}"

    def ordered_apps(self, seed: int) -> list[tuple[int, App]]:
        """Apps with their numbers, in the order of a run: the file's, unless any order will do."""
        numbered = list(enumerate(self.apps))
        if self.any_order and seed:
            random.Random(seed).shuffle(numbered)
        return numbered

    def content_hash(self) -> str:
        """SHA-256 over everything that the workload is made of, the guest's agent included; in hex."""
        digest = hashlib.sha256(self.arch.encode())
        named = [("workload.toml", self.file), ("agent", AGENT)]
        named += [(f"kernel_config {i}", path) for i, path in enumerate(self.kernel_configs)]
        if self.rootfs.own_busybox:
            named.append(("busybox", self.rootfs.own_busybox))
        named += [(f"{file.target} {file.mode:o}", file.source) for file in self.rootfs.files]
        # What a host command names, its client script say, is part of the workload too.
        named += self._named_in([app.host for app in self.apps])
        named += self._named_in([line for server in self.servers for line in (server.command, server.ready)])
        for name, path in named:
            digest.update(f"{name}\0{file_hash(path)}\n".encode())
        return digest.hexdigest()

    def load_hash(self) -> str:
        """As :meth:`content_hash`, with what the loads name: a trace does not depend on that."""
        digest = hashlib.sha256(self.content_hash().encode())
        for name, path in self._named_in([app.load for app in self.apps]):
            digest.update(f"{name}\0{file_hash(path)}\n".encode())
        return digest.hexdigest()

    def _named_in(self, commands: Sequence[str]) -> list[tuple[str, Path]]:
        words = sorted({word for command in commands for word in command.split()})
        return [(f"host {word}", self.folder / word) for word in words if is_file(self.folder / word)]

    def loaded_app(self) -> tuple[int, App] | None:
        """The app that has a load, with its number."""
        return next(((number, app) for number, app in enumerate(self.apps) if app.load), None)


def is_file(path: Path) -> bool:
    """Also for what cannot be a name, such as a whole command of a shell's."""
    try:
        return path.is_file()
    except OSError:
        return False
