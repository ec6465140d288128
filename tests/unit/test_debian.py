"""Packages of another architecture than the host's, by apt itself from a mirror of our own."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from tracer.files.debian import fetch_packages, host_architecture
from tracer.files.rootfs import package_tree
from tracer.host import HostError, UserError, file_hash

pytestmark = pytest.mark.skipif(
    not all(shutil.which(program) for program in ("apt-get", "dpkg-deb")), reason="this is no Debian"
)
FOREIGN = "hurd-i386"


def publish(mirror: Path, version: str, *packages: tuple[str, ...]) -> None:
    """A mirror with these packages, in this version alone: name, what it depends on; other fields in full."""
    shutil.rmtree(mirror, ignore_errors=True)
    mirror.mkdir()
    index = ""
    for name, depends, *fields in packages:
        root = mirror.parent / "made"
        (root / "DEBIAN").mkdir(parents=True)
        (root / "bin").mkdir()
        (root / "bin" / name).write_text(f"{name} {version}\n")
        control = (
            f"Package: {name}\nVersion: {version}\nArchitecture: {FOREIGN}\nMaintainer: x\nDescription: x\n"
        )
        control += "".join(f"{line}\n" for line in ([f"Depends: {depends}"] if depends else []) + fields)
        (root / "DEBIAN" / "control").write_text(control)
        deb = mirror / f"{name}_{version}_{FOREIGN}.deb"
        subprocess.run(["dpkg-deb", "--build", root, deb], check=True, capture_output=True)
        shutil.rmtree(root)
        index += f"{control}Filename: ./{deb.name}\nSHA256: {file_hash(deb)}\nSize: {deb.stat().st_size}\n\n"
    (mirror / "Packages").write_text(index)


@pytest.fixture
def mirror(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    sources, parts = tmp_path / "sources.list", tmp_path / "parts"
    parts.mkdir()
    sources.write_text(f"deb [trusted=yes] file:{tmp_path}/mirror ./\n")
    config = tmp_path / "apt.conf"
    config.write_text(f'Dir::Etc::sourcelist "{sources}";\nDir::Etc::sourceparts "{parts}";\n')
    monkeypatch.setenv("APT_CONFIG", str(config))
    return tmp_path / "mirror"


def test_with_dependencies_and_again_from_the_cache(mirror: Path, tmp_path: Path) -> None:
    publish(mirror, "1.0", ("server", "library"), ("library", ""), ("other", ""))
    cache = tmp_path / "cache"
    debs = fetch_packages(("server",), FOREIGN, cache)
    assert [deb.name for deb in debs] == [f"library_1.0_{FOREIGN}.deb", f"server_1.0_{FOREIGN}.deb"]
    assert package_tree(debs[1])["usr/bin/server"].data == b"server 1.0\n"
    assert [deb.name for deb in fetch_packages(("server",), FOREIGN, cache, alone=True)] == [debs[1].name]
    shutil.rmtree(mirror)
    assert fetch_packages(("server",), FOREIGN, cache) == debs


def test_of_alternatives_and_of_providers_there_is_one(mirror: Path, tmp_path: Path) -> None:
    publish(
        mirror, "1.0", ("server", "library | toolkit, mailer"), ("library", ""), ("toolkit", "desktop"),
        ("desktop", ""), ("exim", "", "Provides: mailer"), ("postfix", "", "Provides: mailer"),
        ("wanted", "", "Recommends: desktop"),
    )  # fmt: skip
    debs = fetch_packages(("server", "wanted"), FOREIGN, tmp_path / "cache")
    names = [deb.name.partition("_")[0] for deb in debs]
    assert len(names) == 4
    assert {"server", "library", "wanted"} < set(names)
    assert {"exim", "postfix"} & set(names)


def test_packages_that_exclude_each_other(mirror: Path, tmp_path: Path) -> None:
    publish(mirror, "1.0", ("one", ""), ("other", "", "Conflicts: one"))
    with pytest.raises(UserError, match=r"packages one, other .*Conflicts: one") as caught:
        fetch_packages(("one", "other"), FOREIGN, tmp_path / "cache")
    assert "\n" not in str(caught.value)


def test_lists_that_are_out_of_date(mirror: Path, tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    publish(mirror, "1.0", ("server", ""))
    fetch_packages(("server",), FOREIGN, cache)
    publish(mirror, "2.0", ("server", ""), ("client", ""))
    assert [deb.name for deb in fetch_packages(("client",), FOREIGN, cache)] == [f"client_2.0_{FOREIGN}.deb"]


def test_what_no_mirror_has(mirror: Path, tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    with pytest.raises(
        HostError, match=f"fetching the lists of Debian's {FOREIGN} packages: none of the mirrors"
    ):
        fetch_packages(("server",), FOREIGN, cache)
    publish(mirror, "1.0", ("server", ""))
    with pytest.raises(UserError, match=r"packages nothing-of-the-kind \(hurd-i386\)"):
        fetch_packages(("nothing-of-the-kind",), FOREIGN, cache)
    with pytest.raises(HostError, match=r"locating .*Unable to locate package nothing-of-the-kind"):
        fetch_packages(("nothing-of-the-kind",), FOREIGN, cache, alone=True)


def test_the_hosts_own_architecture_is_not_foreign(tmp_path: Path) -> None:
    assert host_architecture() != FOREIGN
    assert fetch_packages((), FOREIGN, tmp_path) == []
