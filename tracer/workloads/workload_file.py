"""Read a workload: a folder with a ``workload.toml``, whose tables are as :mod:`tracer.shapes` says."""

from __future__ import annotations

import re
import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tracer.host import UserError
from tracer.phase_names import RESERVED
from tracer.shapes import WrongShape, check_shape, package_name, path_pattern
from tracer.workloads.disks import FORMATS
from tracer.workloads.servers import Server
from tracer.workloads.workload import DEVICES, NIC, App, Disk, Machine, Rootfs, RootfsFile, Workload, is_file

SCHEMA_VERSION = 1
#: What QEMU's machines can have at most, and kernels are configured for by default.
_MOST_CPUS = 64
#: Of disks for data; there are only so many places for cards.
_MOST_DISKS = 8


def memory_size(text: str) -> int | None:
    """Bytes of ``4608K``, ``128M`` or ``1G``; None for anything else."""
    match = re.fullmatch(r"([1-9][0-9]{0,6})([KMG])", text)
    return int(match[1]) << {"K": 10, "M": 20, "G": 30}[match[2]] if match else None


def load_workload(path: Path, arch: str = "") -> Workload:
    """Read and check a workload, given its folder or its TOML file.

    Args:
        arch: one of the architectures that it says it runs on; "" for the first of them.

    Raises:
        UserError: unreadable, a key unknown or missing or of the wrong type, a file that is not there, an
            architecture that it does not run on.
    """
    file = path / "workload.toml" if path.is_dir() else path
    try:
        with file.open("rb") as stream:
            raw = tomllib.load(stream)
    except FileNotFoundError:
        raise UserError(
            f"reading the workload: {file} does not exist", "start from a copy of examples/micro"
        ) from None
    except (OSError, ValueError) as error:
        raise UserError(f"reading the workload: {file}: {error}") from error
    return _Reader(file.resolve()).workload(raw, arch)


@dataclass(frozen=True)
class _Reader:
    """Turns parsed TOML into a Workload; holds the file for error messages."""

    file: Path

    def fail(self, message: str, remedy: str = "") -> UserError:
        return UserError(f"reading the workload: {self.file}: {message}", remedy)

    def workload(self, raw: dict[str, Any], wanted: str) -> Workload:
        self.check(raw, "", "")
        if raw["schema_version"] != SCHEMA_VERSION:
            raise self.fail(f"schema_version is {raw['schema_version']}, this kprune reads {SCHEMA_VERSION}")
        if not re.fullmatch(r"[A-Za-z0-9._-]+", raw["name"]):
            raise self.fail(f"name {raw['name']!r} may hold only letters, digits, '.', '_' and '-'")
        arches = self.strings(raw["arch"], "arch")
        if not arches:
            raise self.fail("arch is empty", "name an architecture, such as x86_64")
        if wanted and wanted not in arches:
            raise self.fail(f"it does not run on {wanted}", f"it says arch = {', '.join(arches)}")
        arch = wanted or arches[0]
        own = self.on(raw.get("on", {}), arches)[arch]
        configs = self.strings(raw.get("kernel_config", []), "kernel_config")
        return Workload(
            folder=self.file.parent,
            file=self.file,
            name=raw["name"],
            arch=arch,
            arches=arches,
            kernel_configs=tuple(
                self.existing(name, "kernel_config")
                for name in (
                    *configs,
                    *self.strings(own.get("kernel_config", []), f"[on.{arch}] kernel_config"),
                )
            ),
            machine=self.machine(raw.get("machine", {}), own),
            rootfs=self.rootfs(raw.get("rootfs", {}), own),
            apps=self.apps(raw["app"]),
            any_order=raw.get("any_order", False),
            servers=self.servers(raw.get("server", [])),
            needs=self.strings(raw.get("needs", []), "needs"),
            disks=self.disks(raw.get("disk", [])),
        )

    def strings(self, value: object, where: str) -> tuple[str, ...]:
        """A string, or a list of them."""
        values = value if isinstance(value, list) else [value]
        if not all(isinstance(each, str) and each for each in values):
            raise self.fail(f"{where} must be a string or a list of strings")
        return tuple(values)

    def on(self, raw: dict[str, Any], arches: tuple[str, ...]) -> dict[str, dict[str, Any]]:
        """What each architecture has of its own: the tables ``[on.ARCH]``."""
        for name in raw:
            if name not in arches:
                raise self.fail(
                    f"[on.{name}]: it does not run on {name}", f"it says arch = {', '.join(arches)}"
                )
        return {name: self.check(raw.get(name, {}), "on", f"[on.{name}]") for name in arches}

    def machine(self, raw: dict[str, Any], own: dict[str, Any]) -> Machine:
        self.check(raw, "machine", "[machine]")
        tight = own.get("tight", raw.get("tight", ""))
        return Machine(
            memory=self.memory(raw.get("memory", "128M")),
            cmdline=raw.get("cmdline", ""),
            forward=tuple(self.port(port) for port in raw.get("forward", [])),
            cpu=own.get("cpu", raw.get("cpu", "")),
            tight=self.memory(tight, "tight") if tight else 0,
            nic=self.nic(own.get("nic", raw.get("nic", NIC))),
            cpus=self.cpus(raw.get("cpus", 1)),
        )

    def cpus(self, number: int) -> int:
        if not 0 < number <= _MOST_CPUS:
            raise self.fail(f"[machine] cpus is {number}", f"a machine has 1 to {_MOST_CPUS} of them")
        return number

    def disks(self, raw: list[Any]) -> tuple[Disk, ...]:
        if len(raw) > _MOST_DISKS:
            raise self.fail(f"there are {len(raw)} tables [[disk]]", f"a machine has {_MOST_DISKS} at most")
        return tuple(self.disk(item, f"[[disk]] {i + 1}") for i, item in enumerate(raw))

    def disk(self, raw: object, where: str) -> Disk:
        table = self.check(raw, "disk", where)
        if table["format"] not in FORMATS:
            raise self.fail(f'{where}: format is "{table["format"]}"', f"known: {', '.join(FORMATS)}")
        if not re.fullmatch(r"(/[A-Za-z0-9._-]+)+", table["mount"]) or ".." in table["mount"].split("/"):
            raise self.fail(f'{where}: mount "{table["mount"]}" is not the absolute path of a folder')
        return Disk(table["format"], self.memory(table["size"], "size", where), table["mount"])

    def nic(self, text: str) -> str:
        if not re.fullmatch(r"[A-Za-z0-9_.-]+", text):
            raise self.fail(f'[machine] nic is "{text}"', "name a PCI network card of QEMU's (-device help)")
        return text

    def memory(self, text: str, key: str = "memory", where: str = "[machine]") -> int:
        size = memory_size(text)
        if not size:
            raise self.fail(f'{where} {key} is "{text}"', 'write it like "4608K", "128M" or "1G"')
        return size

    def port(self, port: object) -> int:
        if not isinstance(port, int) or isinstance(port, bool) or not 0 < port < 65536:
            raise self.fail(f"[machine] forward: {port!r} is not a TCP port")
        return port

    def rootfs(self, raw: dict[str, Any], own: dict[str, Any]) -> Rootfs:
        self.check(raw, "rootfs", "[rootfs]")
        try:
            packages = tuple(map(package_name, raw.get("packages", ())))
            omit = tuple(map(path_pattern, raw.get("omit", ())))
        except WrongShape as error:
            raise self.fail(f"[rootfs] {error}") from None
        device = raw.get("device", "")
        if device and device not in DEVICES:
            raise self.fail(f'[rootfs] device is "{device}"', f"known: {', '.join(DEVICES)}")
        files = raw.get("file", [])
        busybox = own.get("busybox", raw.get("busybox", True))
        brought = isinstance(busybox, str)
        return Rootfs(
            busybox=brought or busybox,
            packages=packages,
            files=tuple(self.rootfs_file(item, f"[[rootfs.file]] {i + 1}") for i, item in enumerate(files)),
            omit=omit,
            own_busybox=self.existing(busybox, "busybox") if brought else None,
            device=device,
            modules=self.modules(raw.get("modules", [])),
        )

    def modules(self, patterns: list[Any]) -> tuple[str, ...]:
        for pattern in patterns:
            if not isinstance(pattern, str) or not re.fullmatch(r"[\w*?\[\]-]+", pattern):
                raise self.fail(f"[rootfs] modules: {pattern!r} is not a module's name or a pattern of them")
        return tuple(patterns)

    def rootfs_file(self, raw: object, where: str) -> RootfsFile:
        table = self.check(raw, "rootfs.file", where)
        target, mode = table["target"], table.get("mode", "0644")
        if not target.startswith("/") or ".." in target.split("/") or target.endswith("/"):
            raise self.fail(f'{where}: target "{target}" is not the absolute path of a file')
        if not re.fullmatch(r"0?[0-7]{3,4}", mode):
            raise self.fail(f'{where}: mode "{mode}" is not octal', 'write it like "0644"')
        return RootfsFile(self.existing(table["source"], where), target, int(mode, 8))

    def apps(self, raw: list[Any]) -> tuple[App, ...]:
        apps = tuple(self.app(item, f"[[app]] {i + 1}") for i, item in enumerate(raw))
        if not apps:
            raise self.fail("there is no [[app]]")
        names = [app.name for app in apps]
        for name in names:
            if names.count(name) > 1:
                raise self.fail(f'two apps are called "{name}"')
        loaded = [app.name for app in apps if app.load]
        if len(loaded) > 1:
            raise self.fail(f"apps {' and '.join(loaded)} have a load", "one app can be measured")
        return apps

    def app(self, raw: object, where: str) -> App:
        table = self.check(raw, "app", where)
        name = table["name"]
        if not re.fullmatch(r"[a-z0-9-]+", name):
            raise self.fail(f'{where}: name "{name}" may hold only a-z, 0-9 and "-"')
        if name in RESERVED:
            raise self.fail(f'{where}: name "{name}" is the name of a phase', "choose another")
        client = self.strings(table.get("client", []), f"{where}: client")
        app = App(
            name, table["command"], table.get("ready", ""), table.get("check", ""), client,
            table.get("host", ""), self.seconds(table["timeout"], where), table.get("load", ""),
        )  # fmt: skip
        if not app.is_service and (app.client or app.host or app.load):
            what = "a client" if app.client or app.host else "a load"
            raise self.fail(f'{where}: "{name}" has {what} but no readiness check', "add `ready`")
        if app.is_service and app.check:
            raise self.fail(f'{where}: "{name}" is a service', "use `client` instead of `check`")
        return app

    def servers(self, raw: list[Any]) -> tuple[Server, ...]:
        servers = tuple(self.server(item, f"[[server]] {i + 1}") for i, item in enumerate(raw))
        for what, names in (
            ("servers", [server.name for server in servers]),
            ("ports of servers", [port for server in servers for port in server.ports]),
        ):
            for name in names:
                if names.count(name) > 1:
                    raise self.fail(f'two {what} are called "{name}"')
        return servers

    def server(self, raw: object, where: str) -> Server:
        table = self.check(raw, "server", where)
        ports = self.strings(table.get("ports", [table["name"]]), f"{where}: ports")
        for name in (table["name"], *ports):
            if not re.fullmatch(r"[a-z][a-z0-9-]*", name):
                raise self.fail(f'{where}: name "{name}" may hold only a-z, 0-9 and "-"')
        timeout = self.seconds(table["timeout"], where)
        return Server(table["name"], table["command"], table["ready"], ports, timeout)

    def seconds(self, timeout: float, where: str) -> float:
        if not 0 < timeout <= 1e9:
            raise self.fail(f"{where}: timeout must be more than 0 seconds, and a number of them")
        return float(timeout)

    def check(self, raw: object, table: str, where: str) -> dict[str, Any]:
        try:
            return check_shape(raw, table)
        except WrongShape as error:
            raise self.fail(f"{where}: {error}" if where else str(error), error.remedy) from None

    def existing(self, name: str, where: str) -> Path:
        path = self.file.parent / name
        if not is_file(path):
            raise self.fail(f"{where}: {path} does not exist or is not a file")
        return path
