"""The root file system's archive, the machine's command line, and the names of what goes wrong."""

from __future__ import annotations

import json
import shutil
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest

from tracer.files import rootfs
from tracer.files.newc import character_device, directory, regular, symlink, write_newc
from tracer.files.rootfs import Roots, build_root, merged_name
from tracer.host import HostError, UserError
from tracer.machines.machine import machine_kind
from tracer.machines.qemu import VmOptions, parse_forwards, parse_instruction_pointers, qemu_command
from tracer.outcome import GuestHung, GuestPanicked, console_end, panic_headline
from tracer.readers.ftrace import Frame
from tracer.workloads.workload import Disk
from tracer.workloads.workload_file import load_workload

EXAMPLE = Path(__file__).parents[2] / "examples" / "micro"

TREE = {
    "dev/console": character_device(5, 1),
    "etc/motd": regular(b"hello\n", 0o600),
    "bin": symlink("usr/bin"),
    "tmp": directory(0o1777),
}


def test_newc_layout() -> None:
    archive = write_newc({"a": regular(b"xyz")})
    assert archive.startswith(b"070701" + b"00000001" + b"000081A4")
    assert b"a\0xyz\x00070701" in archive  # name and content end on multiples of four
    assert len(archive) % 512 == 0
    assert archive == write_newc({"a": regular(b"xyz")})


@pytest.mark.skipif(not shutil.which("cpio"), reason="cpio is not installed")
def test_cpio_reads_what_we_write() -> None:
    done = subprocess.run(["cpio", "-tv", "--quiet"], input=write_newc(TREE), capture_output=True, check=True)
    lines = {line.split()[8]: line for line in done.stdout.decode().splitlines()}
    assert list(lines) == ["bin", "dev", "dev/console", "etc", "etc/motd", "tmp"] or len(lines) == 6
    assert lines["tmp"].startswith("drwxrwxrwt")
    assert lines["etc/motd"].startswith("-rw-------")
    assert lines["bin"].endswith("bin -> usr/bin")


@pytest.mark.skipif(not rootfs.BUSYBOX.exists(), reason="busybox is not installed")
def test_initrd_is_deterministic(tmp_path: Path) -> None:
    workload = load_workload(EXAMPLE)
    first = build_root(workload, tmp_path / "a", tmp_path)
    second = build_root(workload, tmp_path / "b", tmp_path)
    assert first.read_bytes() == second.read_bytes()
    archive = first.read_bytes()
    for name in (
        b"init\0",
        b"dev/null\0",
        b"kprune/app.0/command\0",
        b"www/index.html\0",
        b"usr/sbin/dropbear\0",
    ):
        assert name in archive
    assert b"usr/share/doc/dropbear-bin" not in archive  # omitted


@pytest.mark.skipif(not rootfs.BUSYBOX.exists(), reason="busybox is not installed")
@pytest.mark.skipif(not shutil.which("unsquashfs"), reason="squashfs-tools is not installed")
@pytest.mark.skipif(not rootfs.BUSYBOX.exists(), reason="busybox is not installed")
def test_files_of_packages_may_all_be_of_root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tree = {"usr/bin/expiry": replace(regular(b"", 0o2755), owner=(0, 42))}
    monkeypatch.setattr(rootfs, "fetch_packages", lambda *_: [Path("passwd.deb")])
    monkeypatch.setattr(rootfs, "package_tree", lambda _: tree)
    example = load_workload(EXAMPLE)
    for owners, said in ((True, ["-rwxr-sr-x", "0", "42"]), (False, ["-rwxr-xr-x", "0", "0"])):
        root = replace(example.rootfs, owners=owners)
        archive = build_root(replace(example, rootfs=root), tmp_path, tmp_path).read_bytes()
        done = subprocess.run(["cpio", "-itvn"], input=archive, capture_output=True, check=True)
        (line,) = [line for line in done.stdout.decode().splitlines() if line.endswith("usr/bin/expiry")]
        mode, _, user, group, *_ = line.split()
        assert [mode, user, group] == said


@pytest.mark.skipif(not rootfs.BUSYBOX.exists(), reason="busybox is not installed")
def test_a_root_that_no_guest_has_room_for(tmp_path: Path) -> None:
    example = load_workload(EXAMPLE)
    machine = replace(example.machine, memory=1 << 20)
    with pytest.raises(UserError, match=r"making the root file system: \d+ MiB, for guests of 1 MiB"):
        build_root(replace(example, machine=machine), tmp_path, tmp_path)


def test_a_root_that_is_read_only_has_the_folders_of_the_disks_for_data(tmp_path: Path) -> None:
    """The agent, which would make them, said that the disk could not be mounted."""
    example = load_workload(EXAMPLE)
    disks = (Disk("ext4", 1 << 20, "/srv/data"), Disk("ext4", 1 << 20, "/root"))
    root = replace(example.rootfs, device="squashfs", packages=())
    image = build_root(replace(example, rootfs=root, disks=disks), tmp_path, tmp_path)
    listed = subprocess.run(
        ["unsquashfs", "-d", "", "-lln", image], check=True, capture_output=True, text=True
    )
    modes = {line.split()[-1]: line.split()[0] for line in listed.stdout.splitlines() if "/" in line}
    assert modes["/srv/data"] == "drwxr-xr-x"
    assert modes["/root"] == "drwx------"  # what is there stays as it is


@pytest.mark.skipif(not rootfs.BUSYBOX.exists(), reason="busybox is not installed")
def test_each_kernel_has_a_root_of_its_own_where_modules_are_shipped(tmp_path: Path) -> None:
    plain = load_workload(EXAMPLE)
    kernels = [tmp_path / side / "bzImage" for side in ("base", "pruned")]
    roots = Roots(plain, tmp_path / "plain", tmp_path)
    assert roots.of(kernels[0]) == roots.of(kernels[1])
    shipping = replace(plain, rootfs=replace(plain.rootfs, modules=("m",)))
    for kernel in kernels:
        folder = kernel.parent / "modules"
        folder.mkdir(parents=True)
        (folder / "m.ko").write_bytes(b"\x7fELF of " + kernel.parent.name.encode())
        row = {"name": "m", "path": "m.ko", "shipped": True, "depends": [], "aliases": []}
        value = {"schema_version": 1, "release": "6.1.0", "modules": [row]}
        (folder / "modules.json").write_text(json.dumps(value))
    roots = Roots(shipping, tmp_path / "shipping", tmp_path)
    base, pruned = (roots.of(kernel).read_bytes() for kernel in kernels)
    assert b"ELF of base" in base and b"ELF of pruned" in pruned and b"ELF of base" not in pruned
    assert roots.of(kernels[0]) == roots.of(kernels[0])


def test_busybox_must_be_static(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    workload, kind = load_workload(EXAMPLE), machine_kind("x86_64")
    monkeypatch.setattr(rootfs, "host_architecture", lambda: "amd64")
    dynamic = tmp_path / "busybox"
    dynamic.write_bytes(b"\x7fELF" + bytes(60) + b"/lib64/ld-linux-x86-64.so.2\0")
    monkeypatch.setattr(rootfs, "BUSYBOX", dynamic)
    with pytest.raises(HostError, match="apt-get install busybox-static"):
        rootfs.read_busybox(workload, kind, tmp_path)
    monkeypatch.setattr(rootfs, "BUSYBOX", tmp_path / "gone")
    with pytest.raises(HostError, match="apt-get install busybox-static"):
        rootfs.read_busybox(workload, kind, tmp_path)


def test_a_busybox_of_the_workloads_own(tmp_path: Path) -> None:
    own = tmp_path / "busybox"
    example = load_workload(EXAMPLE)
    workload = replace(example, rootfs=replace(example.rootfs, own_busybox=own))
    own.write_bytes(b"\x7fELF" + bytes(14) + (3).to_bytes(2, "little") + bytes(90))
    assert rootfs.read_busybox(workload, machine_kind("i386"), tmp_path) == (own, own.read_bytes())
    with pytest.raises(UserError, match=r"busybox is not for x86_64; build it with CONFIG_STATIC=y"):
        rootfs.read_busybox(workload, machine_kind("x86_64"), tmp_path)


@pytest.mark.skipif(not rootfs.BUSYBOX.exists(), reason="busybox is not installed")
def test_applets_are_read_as_busybox_lists_them() -> None:
    said = subprocess.run([rootfs.BUSYBOX, "--list"], capture_output=True, text=True, check=True).stdout
    links = rootfs.busybox_links(rootfs.BUSYBOX, rootfs.BUSYBOX.read_bytes())
    assert list(links) == [f"usr/bin/{name}" for name in said.split()]
    with pytest.raises(HostError, match="no list of its applets"):
        rootfs.busybox_links(rootfs.BUSYBOX, b"\x7fELF" + bytes(99))
    # What lies before the first one may look like a name, too.
    links = rootfs.busybox_links(rootfs.BUSYBOX, b"\1zz\0[\0ash\0sh\0\0yes\0\0")
    assert list(links) == ["usr/bin/[", "usr/bin/ash", "usr/bin/sh"]


@pytest.mark.parametrize(
    ("path", "name"),
    [("/bin/ls", "usr/bin/ls"), ("./lib/x/y", "usr/lib/x/y"), ("/usr/bin/a", "usr/bin/a"), ("/w/i", "w/i")],
)
def test_merged_usr(path: str, name: str) -> None:
    assert merged_name(path) == name


def test_qemu_command() -> None:
    options = VmOptions(
        memory=64 << 20, forward=(80,), block_log=Path("/x/b.log"), block_filter=((0x1000, 0x20),), gdb=True
    )
    kind = machine_kind("x86_64")
    words = qemu_command(kind, Path("k"), Path("i"), Path("/a,b/console"), Path("/s"), options)
    joined = " ".join(words)
    assert "-accel tcg -M pc" in joined
    assert "-m 65536K" in joined
    assert "-dfilter 0x1000+0x20" in joined
    assert "file:/a,,b/console" in joined
    assert "-gdb unix:/s/gdb" in joined
    assert "virtio-serial" not in joined
    assert "-cpu qemu64" in joined
    words = qemu_command(kind, Path("k"), Path("i"), Path("c"), Path("/s"), replace(options, cpu="core2duo"))
    assert words[words.index("-cpu") + 1] == "core2duo"
    assert "virtio-net-pci,netdev=net0,romfile=" in words
    words = qemu_command(kind, Path("k"), Path("i"), Path("c"), Path("/s"), replace(options, nic="ne2k_pci"))
    assert "ne2k_pci,netdev=net0,romfile=" in words
    assert kind.trap == b"\xd6"


def test_unknown_architecture() -> None:
    with pytest.raises(UserError, match="known: x86_64"):
        machine_kind("vax")


def test_forwarded_ports() -> None:
    said = (
        "Hub -1 (net0):\r\n  Protocol[State]    FD  Source Address  Port   Dest. Address  Port RecvQ\r\n"
        "  TCP[HOST_FORWARD]  12       127.0.0.1 40123       10.0.2.15    80     0     0\r\n"
    )
    assert parse_forwards(said) == {80: 40123}


CONSOLE = """[    1.0] Run /init as init process
[    2.0] invalid opcode: 0000 [#1]
[    2.0] RIP: 0010:vfs_write+0x0/0x157
[    2.0] Kernel panic - not syncing: Fatal exception
"""


def test_errors_hold_the_end_of_the_console() -> None:
    assert panic_headline(CONSOLE) == "invalid opcode, at vfs_write+0x0/0x157, Fatal exception"
    assert console_end("\n".join(map(str, range(100)))).endswith("98 | 99")
    panicked = GuestPanicked("the guest panicked", CONSOLE)
    assert panicked.console == CONSOLE
    assert "\n" not in str(panicked)
    assert (panicked.exit_code, GuestHung("x").exit_code) == (5, 6)
    assert Frame(0, "a", b"") == Frame(0, "a", b"")


def test_where_the_processors_stood() -> None:
    said = "\nCPU#0\nRAX=0 RBX=1\nRIP=ffffffff81000042 RFL=46\nCPU#1\nEIP=0000fff0 EFL=2\n"
    assert parse_instruction_pointers(said) == (0xFFFFFFFF81000042, 0xFFF0)
    assert parse_instruction_pointers("") == ()
