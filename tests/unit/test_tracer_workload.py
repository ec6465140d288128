"""Workload files: what is read, and what a mistake in one says."""

from __future__ import annotations

from pathlib import Path

import pytest

from tracer.host import UserError
from tracer.workload import load_workload

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
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "page").write_text("hello")
    (tmp_path / "client.py").write_text("pass")
    (tmp_path / "load.py").write_text("pass")
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


@pytest.mark.parametrize("changed", ["page", "client.py", "workload.toml"])
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
        ("[machine]", '[rootfs]\nomit = ["usr/share/*"]\n[machine]', "not a pattern of absolute paths"),
        ('ready = "true"', "", "no readiness check"),
        (
            'ready = "true"\nclient = ["one", "two"]\nhost = "python3 client.py"',
            "",
            "has a load but no readi",
        ),
        ('load = "python3 load.py"', "load = true", '"load" must be a string'),
        ("[machine]", "[machine", "workload.toml"),
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
