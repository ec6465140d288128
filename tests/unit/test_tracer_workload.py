"""Workload files: what is read, and what a mistake in one says."""

from __future__ import annotations

import subprocess
from dataclasses import replace
from pathlib import Path

import pytest

from tracer.host import HostError, UserError
from tracer.sessions.jitter import SLOWNESS, jitter
from tracer.sessions.options import SessionOptions
from tracer.workloads.disks import disk_words, made_disks
from tracer.workloads.workload import Disk
from tracer.workloads.workload_file import load_workload, memory_size

EXAMPLE = Path(__file__).parents[2] / "examples" / "micro"
GOOD = """
schema_version = 1
name = "tiny"
arch = "x86_64"
[machine]
forward = [80]
[[rootfs.file]]
source = "page"
target = "/www/page"
[[app]]
name = "web"
command = "httpd -f"
ready = "true"
client = ["one", "two"]
host = "python3 client.py"
load = "python3 load.py"
timeout = 5
[[server]]
name = "db"
command = "exec sh db.sh"
ready = "python3 ask.py"
timeout = 3
[[server]]
name = "mail"
command = "exec mail"
ready = "true"
ports = ["smtp", "smtp-tls"]
timeout = 3
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "page").write_text("hello")
    (tmp_path / "client.py").write_text("pass")
    (tmp_path / "load.py").write_text("pass")
    (tmp_path / "db.sh").write_text("sleep 1000")
    (tmp_path / "ask.py").write_text("pass")
    (tmp_path / "workload.toml").write_text(GOOD)
    return tmp_path


def test_reads_folder_and_file(folder: Path) -> None:
    workload = load_workload(folder)
    assert workload == load_workload(folder / "workload.toml")
    assert workload.machine.memory == 128 << 20
    assert workload.apps[0].is_service
    assert workload.apps[0].client == ("one", "two")
    assert workload.rootfs.files[0].mode == 0o644


def test_example_is_valid() -> None:
    assert [app.name for app in load_workload(EXAMPLE).apps] == ["shell", "ps", "free", "ls", "web", "ssh"]


@pytest.mark.parametrize("name", ["micro", "client", "full"])
@pytest.mark.parametrize("arch", ["x86_64", "i386"])
def test_every_example_is_valid(name: str, arch: str) -> None:
    """Its scripts, too, as far as a shell can say without running them; no option is asked for twice."""
    workload = load_workload(EXAMPLE.parent / name, arch)
    assert workload.name == name
    asked = [
        line.split("=")[0]
        for fragment in workload.kernel_configs
        for line in fragment.read_text().splitlines()
        if line.startswith("CONFIG_")
    ]
    assert asked and len(asked) == len(set(asked))
    scripts = [path for path in workload.folder.rglob("*.sh") if path.is_file()]
    for script in scripts:
        shell = "bash" if script.read_text().startswith("#!/bin/bash") else "sh"
        subprocess.run([shell, "-n", script], check=True)
    for app in workload.apps:
        for line in (app.command, app.ready, app.host, *app.client):
            subprocess.run(["sh", "-n"], input=line, text=True, check=True)


def test_servers_have_ports_of_their_own_name_or_of_others(folder: Path) -> None:
    db, mail = load_workload(folder).servers
    assert (db.name, db.ports, db.command, db.ready, db.timeout) == (
        "db", ("db",), "exec sh db.sh", "python3 ask.py", 3.0,
    )  # fmt: skip
    assert mail.ports == ("smtp", "smtp-tls")


@pytest.mark.parametrize("changed", ["page", "client.py", "db.sh", "ask.py", "workload.toml"])
def test_hash_follows_every_file(folder: Path, changed: str) -> None:
    before = load_workload(folder).content_hash()
    (folder / changed).write_text((folder / changed).read_text() + "\n# changed")
    assert load_workload(folder).content_hash() != before


def test_a_load_is_no_part_of_what_is_traced(folder: Path) -> None:
    workload = load_workload(folder)
    assert workload.loaded_app() == (0, workload.apps[0])
    traced, loaded = workload.content_hash(), workload.load_hash()
    (folder / "load.py").write_text("print()")
    assert workload.content_hash() == traced
    assert workload.load_hash() != loaded


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("timeout = 5", "timout = 5", 'no key "timout"; did you mean "timeout"?'),
        ("forward = [80]", "forwards = [80]", 'no key "forwards"; did you mean "forward"?'),
        ('arch = "x86_64"', 'arhc = "x86_64"', 'did you mean "arch"?'),
        ('source = "page"', 'sourcee = "page"', 'did you mean "source"?'),
        ("timeout = 5", "", 'key "timeout" is missing'),
        ("timeout = 5", "timeout = true", '"timeout" must be a whole number or a number'),
        ("timeout = 5", "timeout = -1", "more than 0"),
        ('name = "web"', 'name = "boot"', "the name of a phase"),
        ('name = "web"', 'name = "We b"', "may hold only"),
        ('source = "page"', 'source = "gone"', "does not exist"),
        ('target = "/www/page"', 'target = "../page"', "not the absolute path"),
        ("schema_version = 1", "schema_version = 2", "schema_version is 2"),
        ("forward = [80]", "forward = [99999]", "not a TCP port"),
        ("forward = [80]", 'memory = "lots"', 'memory is "lots"'),
        ("forward = [80]", 'tight = "4"', 'tight is "4"'),
        ("[machine]", '[rootfs]\ndevice = "ext9"\n[machine]', "known: romfs, squashfs"),
        ("[machine]", '[rootfs]\nomit = ["usr/share/*"]\n[machine]', "not a pattern of absolute paths"),
        ("[machine]", '[rootfs]\nmodules = ["../a"]\n[machine]', "is not a module's name or a pattern"),
        ("[machine]", "[rootfs]\nmodules = [1]\n[machine]", "is not a module's name or a pattern"),
        ("[machine]", '[rootfs]\nmodules = "a"\n[machine]', '"modules" must be a list'),
        ('ready = "true"', "", "no readiness check"),
        (
            'ready = "true"\nclient = ["one", "two"]\nhost = "python3 client.py"',
            "",
            "has a load but no readi",
        ),
        ('load = "python3 load.py"', "load = true", '"load" must be a string'),
        ('ready = "python3 ask.py"', "", 'the key "ready" is missing'),
        ('ready = "python3 ask.py"', 'host = "python3 ask.py"', '[[server]] 1: there is no key "host"'),
        ('name = "db"', 'name = "D B"', "[[server]] 1: name"),
        ('name = "db"', 'name = "mail"', 'two servers are called "mail"'),
        ('name = "db"', 'name = "smtp"', 'two ports of servers are called "smtp"'),
        ('["smtp", "smtp-tls"]', '["smtp", 25]', "[[server]] 2: ports must be"),
        ('["smtp", "smtp-tls"]', '["smtp_tls"]', 'name "smtp_tls" may hold only'),
        ("timeout = 3", "timeout = 0", "[[server]] 1: timeout must be more than 0"),
        ("[machine]", "[machine", "workload.toml"),
        ("[machine]", '[machine]\nnic = "e1000,mac=1"', '[machine] nic is "e1000,mac=1"'),
    ],
)
def test_a_mistake_is_one_clear_line(folder: Path, old: str, new: str, said: str) -> None:
    (folder / "workload.toml").write_text(GOOD.replace(old, new))
    with pytest.raises(UserError) as caught:
        load_workload(folder)
    assert said in str(caught.value)
    assert "workload.toml" in str(caught.value)
    assert "\n" not in str(caught.value)
    assert caught.value.exit_code == 2


ON_TWO = GOOD.replace('arch = "x86_64"', 'arch = ["x86_64", "i386"]\nkernel_config = ["a", "b"]')
ON_TWO = ON_TWO.replace("forward = [80]", 'forward = [80]\ncpu = "max"')
ON_TWO += """
[on.i386]
kernel_config = "c"
cpu = "pentium"
nic = "ne2k_pci"
tight = "8M"
busybox = "page"
"""


def test_one_workload_on_two_architectures(folder: Path) -> None:
    for name in "abc":
        (folder / name).write_text(f"CONFIG_{name}=y\n")
    (folder / "workload.toml").write_text(ON_TWO)
    first, second = load_workload(folder), load_workload(folder, "i386")
    assert first == load_workload(folder, "x86_64")
    assert (first.arch, first.title, second.arch, second.title) == ("x86_64", "tiny", "i386", "tiny-i386")
    assert [path.name for path in first.kernel_configs] == ["a", "b"]
    assert [path.name for path in second.kernel_configs] == ["a", "b", "c"]
    assert (first.machine.cpu, second.machine.cpu) == ("max", "pentium")
    assert (first.machine.tight, second.machine.tight) == (0, 8 << 20)
    assert (first.machine.nic, second.machine.nic) == ("virtio-net-pci", "ne2k_pci")
    assert (first.rootfs.own_busybox, second.rootfs.own_busybox) == (None, folder / "page")
    assert first.content_hash() != second.content_hash()


@pytest.mark.parametrize(
    ("arch", "old", "new", "said"),
    [
        ("arm", "", "", "it does not run on arm; it says arch = x86_64, i386"),
        ("", "[on.i386]", "[on.arm]", "[on.arm]: it does not run on arm"),
        ("", "[on.i386]", "[on.i386]\nmemory = 1", '[on.i386]: there is no key "memory"'),
        ("", '["x86_64", "i386"]', "[]", "arch is empty"),
        ("", '["x86_64", "i386"]', '["x86_64", 386]', "arch must be a string or a list of strings"),
        ("", '["a", "b"]', '["a", "gone"]', "gone does not exist"),
        ("i386", 'busybox = "page"', 'busybox = "gone"', "gone does not exist"),
        ("", 'busybox = "page"', "busybox = false", '"busybox" must be a string'),
    ],
)
def test_a_mistake_about_architectures(folder: Path, arch: str, old: str, new: str, said: str) -> None:
    for name in "abc":
        (folder / name).touch()
    (folder / "workload.toml").write_text(ON_TWO.replace(old, new) if old else ON_TWO)
    with pytest.raises(UserError) as caught:
        load_workload(folder, arch)
    assert said in str(caught.value)


@pytest.mark.parametrize(("text", "size"), [("4608K", 4608 << 10), ("128M", 128 << 20), ("1G", 1 << 30)])
def test_sizes_of_memory(text: str, size: int) -> None:
    assert memory_size(text) == size
    assert memory_size(f"{text}B") is None


def test_runs_of_the_production_kernel_in_tight_memory(folder: Path) -> None:
    (folder / "workload.toml").write_text(GOOD.replace("[machine]", '[machine]\ntight = "4608K"'))
    workload = load_workload(folder)

    def memories(traced: bool) -> list[int]:
        return [jitter(n, False).apply(SessionOptions(trace=traced), workload).memory for n in range(9)]

    tight = [memory == 4608 << 10 for memory in memories(traced=False)]
    assert tight == [n > 0 and SLOWNESS[n % len(SLOWNESS)] is None for n in range(9)]
    assert sum(tight) == 3 and not tight[0]
    assert min(memories(traced=True)) == workload.machine.memory
    varied = [jitter(n, False) for n in range(9)]
    words = [how.describe(how.apply(SessionOptions(), workload), workload) for how in varied]
    assert [text.startswith("tight memory, seed") for text in words] == tight
    assert words[0] == "memory 100%, seed 0" and words[1] == "memory 100%, icount shift 7, seed 1"


def test_two_apps_of_one_name(folder: Path) -> None:
    second = '[[app]]\nname = "web"\ncommand = "true"\ntimeout = 1\n'
    (folder / "workload.toml").write_text(GOOD + second)
    with pytest.raises(UserError, match='two apps are called "web"'):
        load_workload(folder)


def test_two_loads(folder: Path) -> None:
    second = '[[app]]\nname = "db"\ncommand = "true"\nready = "true"\nload = "x"\ntimeout = 1\n'
    (folder / "workload.toml").write_text(GOOD + second)
    with pytest.raises(UserError, match="apps web and db have a load; one app can be measured"):
        load_workload(folder)


def test_no_workload(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="does not exist"):
        load_workload(tmp_path)


def test_processors_and_disks(tmp_path: Path) -> None:
    head = 'schema_version = 1\nname = "x"\narch = "x86_64"\n'
    app = '[[app]]\nname = "a"\ncommand = "true"\ntimeout = 1\n'
    disk = '[[disk]]\nformat = "ext4"\nsize = "64M"\nmount = "/data"\n'
    file = tmp_path / "workload.toml"
    file.write_text(f"{head}[machine]\ncpus = 2\n{disk}{app}")
    workload = load_workload(tmp_path)
    assert workload.machine.cpus == 2
    assert workload.disks == (Disk("ext4", 64 << 20, "/data"),)
    for wrong, message in (
        (head + "[machine]\ncpus = 0\n" + app, r"cpus is 0; a machine has 1 to 64"),
        (head + disk.replace("ext4", "fat") + app, r'format is "fat"; known: ext4'),
        (head + disk.replace("64M", "64") + app, r"\[\[disk\]\] 1 size is \"64\""),
        (head + disk.replace("/data", "/a b") + app, "not the absolute path of a folder"),
        (head + disk.replace("/data", "/a/../b") + app, "not the absolute path of a folder"),
        (head + disk * 9 + app, r"9 tables \[\[disk\]\]; a machine has 8"),
    ):
        file.write_text(wrong)
        with pytest.raises(UserError, match=message):
            load_workload(tmp_path)


def test_disks_are_new_for_each_guest(tmp_path: Path) -> None:
    workload = load_workload(EXAMPLE.parent / "nginx")
    assert disk_words(workload) == ["kprune.disk=/dev/vda:ext4:/data"]
    behind_root = replace(workload, rootfs=replace(workload.rootfs, device="romfs"))
    assert disk_words(behind_root) == ["kprune.disk=/dev/vdb:ext4:/data"]
    with made_disks(workload.disks, tmp_path) as paths:
        assert [path.stat().st_size for path in paths] == [64 << 20]
        assert paths[0].read_bytes()[0x438:0x43A] == b"\x53\xef"  # ext4's magic number
        assert paths[0].stat().st_blocks * 512 < 16 << 20  # sparse
    assert not paths[0].exists()
    with pytest.raises(HostError, match=r"mkfs\.ext4"), made_disks((Disk("ext4", 4096, "/x"),), tmp_path):
        pass
    assert not list(tmp_path.iterdir())
