"""Source, configuration and build, on a kernel tree of twenty lines that behaves like kbuild."""

from __future__ import annotations

import tarfile
from pathlib import Path

import pytest

from prune.config import read_options
from prune.kbuild import KernelBuild, build_kernel, describe_build, relink
from prune.source import resolve_source
from tracer.host import BuildFailed, UserError

# Drops CONFIG_LOST in olddefconfig; "compiles" by counting; fails when CONFIG_BROKEN is set.
MAKEFILE = """VERSION = 6
PATCHLEVEL = 1
SUBLEVEL = 7
tinyconfig:
\techo CONFIG_TINY=y > $(O)/.config
olddefconfig:
\tsed -i /CONFIG_LOST/d $(O)/.config
vmlinux:
\t@! grep -q CONFIG_BROKEN=y $(O)/.config || { echo "net/x.c:1: error: no such thing"; exit 1; }
\techo "  CC      init/main.o" && echo run >> $(O)/count
\techo "vmlinux $$KPRUNE_PLAN" > $(O)/vmlinux
\tfor f in vmlinux.map link.json System.map tombstones.json; do echo $$f > $(O)/$$f; done
bzImage: vmlinux
\tmkdir -p $(O)/arch/x86/boot && cp $(O)/vmlinux $(O)/arch/x86/boot/bzImage
.PHONY: vmlinux
"""


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    folder = tmp_path / "linux"
    folder.mkdir()
    (folder / "Makefile").write_text(MAKEFILE)
    (folder / "Kconfig").write_text("")
    return folder


def described(tree: Path, tmp_path: Path, fragment: str = "CONFIG_NET=y\n", full: str = "") -> KernelBuild:
    cache = tmp_path / "cache"
    (tmp_path / "fragment").write_text(fragment)
    (tmp_path / "full").write_text(full)
    source = resolve_source(tree, cache)
    return describe_build(
        "production", source, "x86_64", [tmp_path / "fragment"], tmp_path / "full" if full else None, cache
    )


def test_a_fragment_goes_on_top_of_tinyconfig(tree: Path, tmp_path: Path) -> None:
    build = described(tree, tmp_path, 'CONFIG_NET=y\nCONFIG_NAME="x y"\n# CONFIG_OFF is not set\n')
    assert build.config.split("\n")[:3] == ["CONFIG_TINY=y", "CONFIG_NET=y", 'CONFIG_NAME="x y"']


def test_a_full_configuration_replaces_tinyconfig(tree: Path, tmp_path: Path) -> None:
    assert "TINY" not in described(tree, tmp_path, full="CONFIG_MINE=y\n").config


@pytest.mark.parametrize("where", ["fragment", "full"])
def test_an_option_that_does_not_survive_is_named(tree: Path, tmp_path: Path, where: str) -> None:
    with pytest.raises(UserError, match="CONFIG_LOST=y became n"):
        described(tree, tmp_path, **{where: "CONFIG_LOST=y\n"})


def test_a_line_that_is_no_option_is_named(tmp_path: Path) -> None:
    (tmp_path / "bad").write_text("CONFIG_A=y\nCONFIG B\n")
    with pytest.raises(UserError, match="line 2"):
        read_options(tmp_path / "bad")


def test_a_kernel_is_built_once(tree: Path, tmp_path: Path) -> None:
    build = described(tree, tmp_path)
    build_kernel(build)
    build_kernel(described(tree, tmp_path))
    assert (build.objtree / "count").read_text() == "run\n"
    assert {path.name for path in build.artefacts.iterdir()} >= {
        "vmlinux",
        "bzImage",
        "vmlinux.map",
        ".config",
    }


def test_another_source_or_configuration_is_another_build(tree: Path, tmp_path: Path) -> None:
    first = described(tree, tmp_path)
    assert described(tree, tmp_path, "CONFIG_NET=y\nCONFIG_MORE=y\n").home != first.home
    (tree / "file.c").write_text("int x;")
    assert described(tree, tmp_path).home != first.home


def test_an_environment_with_a_plan_does_not_prune_the_base(
    tree: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KPRUNE_PLAN", "left over")
    build = described(tree, tmp_path)
    build_kernel(build)
    assert (build.artefacts / "vmlinux").read_text() == "vmlinux \n"


def test_a_relink_gets_the_plan_and_leaves_the_base(tree: Path, tmp_path: Path) -> None:
    build = described(tree, tmp_path)
    build_kernel(build)
    relink(build, tmp_path / "plan.json", tmp_path / "pruned", tmp_path / "log")
    assert (tmp_path / "pruned" / "vmlinux").read_text() == f"vmlinux {tmp_path / 'plan.json'}\n"
    assert (build.artefacts / "vmlinux").read_text() == "vmlinux \n"


def test_a_failed_build_names_the_first_error_and_the_log(tree: Path, tmp_path: Path) -> None:
    build = described(tree, tmp_path, "CONFIG_BROKEN=y\n")
    with pytest.raises(BuildFailed, match=r"net/x\.c:1: error: no such thing.*build\.log"):
        build_kernel(build)
    assert not build.artefacts.exists()


def test_a_dry_run_prints_and_makes_nothing(
    tree: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    build = described(tree, tmp_path)
    build_kernel(build, dry_run=True)
    assert capsys.readouterr().out.startswith("make -C ")
    assert not build.home.exists()


def test_a_tarball_is_unpacked_once(tree: Path, tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "linux-6.1.tar.gz", "w:gz") as archive:
        archive.add(tree, "linux-6.1")
    first = resolve_source(tmp_path / "linux-6.1.tar.gz", tmp_path / "cache")
    assert first == resolve_source(tmp_path / "linux-6.1.tar.gz", tmp_path / "cache")
    assert first.version == "6.1.7" and (first.path / "Kconfig").is_file()


@pytest.mark.parametrize(
    ("spoil", "says"),
    [
        ("version", "supports 6.x"),
        ("built", "mrproper"),
        ("no tree", "not a Linux tree"),
        ("gone", "does not exist"),
    ],
)
def test_what_is_no_clean_6x_tree_is_refused(tree: Path, tmp_path: Path, spoil: str, says: str) -> None:
    if spoil == "version":
        (tree / "Makefile").write_text(MAKEFILE.replace("VERSION = 6", "VERSION = 5", 1))
    if spoil == "built":
        (tree / ".config").write_text("")
    if spoil == "no tree":
        (tree / "Kconfig").unlink()
    with pytest.raises(UserError, match=says):
        resolve_source(tmp_path / "nothing" if spoil == "gone" else tree, tmp_path / "cache")
