"""Doctor names what is missing and ends with the one command that mends it."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from prune.build import doctor as module
from prune.build.doctor import Check, doctor, parse_version, require, table, to_json
from tracer.host import HostError


def program(folder: Path, name: str, says: str = "") -> None:
    (folder / name).write_text(f"#!/bin/sh\necho '{says}'\n")
    (folder / name).chmod(0o755)


@pytest.fixture
def only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A PATH that holds nothing but what a test puts there."""
    monkeypatch.setenv("PATH", str(tmp_path))
    return tmp_path


def test_what_is_missing_is_named_with_the_package_that_has_it(only: Path) -> None:
    program(only, "make")
    with pytest.raises(
        HostError, match=r"flex, bison are not there; apt-get install .* flex bison$"
    ) as caught:
        require(("make", "flex", "bison"))
    assert caught.value.exit_code == 3


def test_a_file_stands_for_a_package_without_a_command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_read_packages", lambda: [("libx-dev", str(tmp_path / "x.h"), "why")])
    with pytest.raises(HostError, match=r"libx-dev$"):
        require((str(tmp_path / "x.h"),))
    (tmp_path / "x.h").write_text("")
    require((str(tmp_path / "x.h"),))


def test_nothing_missing_is_silent(only: Path) -> None:
    program(only, "make")
    require(("make",))


@pytest.mark.parametrize(
    ("said", "version"),
    [
        ("gcc (Debian 12.2.0-14+deb12u1) 12.2.0\nCopyright 2022", (12, 2, 0)),
        ("GNU ld (GNU Binutils for Debian) 2.40", (2, 40)),
        ("GNU Make 4.3", (4, 3)),
        ("QEMU emulator version 7.2.22 (Debian 1:7.2+dfsg-7+deb12u18)", (7, 2, 22)),
        ("no number", ()),
        ("", ()),
    ],
)
def test_versions_are_read_past_the_distribution(said: str, version: tuple[int, ...]) -> None:
    assert parse_version(said) == version


@pytest.mark.parametrize(("version", "ok"), [("2.29.1", False), ("2.30", True), ("10.1", True)])
def test_a_linker_that_is_too_old_is_found(only: Path, version: str, ok: bool) -> None:
    program(only, "ld", f"GNU ld (GNU Binutils for Elsewhere) {version}")
    check = next(each for each in doctor(only) if each.name == "ld version")
    assert check.ok is ok
    assert check.mend.endswith(" binutils") is not ok


def test_the_last_line_is_the_one_command(only: Path) -> None:
    checks = doctor(only)
    last = table(checks).splitlines()[-1]
    assert last.startswith("apt-get install --no-install-recommends ")
    assert {"gcc", "flex", "qemu-system-x86"} <= set(last.split())
    assert len(last.split()) == len(set(last.split()))


def test_what_apt_cannot_mend_is_said_apart() -> None:
    disk = Check("disk", False, "1 GiB free", "room", "free some space")
    assert table([disk]).splitlines()[-1] == "disk: free some space"
    assert table([Check("disk", True, "9 GiB free", "room", "")]).splitlines()[-1] == "all there"


def test_a_full_disk_is_a_finding(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_CACHE_GIB", 10**9)
    check = next(each for each in doctor(tmp_path / "not" / "yet") if each.name == "disk")
    assert not check.ok and str(tmp_path) in check.found


def test_json_has_every_field(tmp_path: Path) -> None:
    for each in to_json(doctor(tmp_path)):
        assert set(each) == {"name", "ok", "found", "why", "mend"}


def test_the_makefile_and_doctor_read_the_same_packages() -> None:
    root = Path(__file__).resolve().parents[2]
    said = subprocess.run(
        ["make", "-s", "--eval", "show:;@echo $(APT_PACKAGES)", "show"],
        cwd=root, capture_output=True, text=True, check=True, env={**os.environ, "MAKEFLAGS": ""},
    ).stdout  # fmt: skip
    assert said.split() == [package for package, _, _ in module._read_packages()]
