"""Source, configuration and build, on a kernel tree of twenty lines that behaves like kbuild."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import shutil
import subprocess
import tarfile
from pathlib import Path

import pytest

from prune.build.build_time import build_time
from prune.build.config import make_config, options_hash, write_config
from prune.build.flags import object_flags
from prune.build.kbuild import KernelBuild, build_kernel, describe_build, relink
from prune.build.source import resolve_source
from prune.options import read_options
from tracer.host import BuildFailed, HostError, UserError

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
\t@[ -e $(O)/fixdep ] || { echo "  HOSTCC  scripts/basic/fixdep"; touch $(O)/fixdep; }
\techo "  CC      init/main.o" && echo run >> $(O)/count
\techo "vmlinux $$KPRUNE_PLAN" > $(O)/vmlinux
\tfor f in vmlinux.map link.json System.map tombstones.json kprune.lds; do echo $$f > $(O)/$$f; done
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


@pytest.mark.parametrize("option", ['CONFIG_LOST="text"', "CONFIG_LOST=64", "CONFIG_LOST=m"])
def test_values_of_a_full_configuration_must_survive_too(tree: Path, tmp_path: Path, option: str) -> None:
    with pytest.raises(UserError, match=f"{option} became n"):
        described(tree, tmp_path, full=f"{option}\n")


@pytest.mark.parametrize(
    ("option", "refused"),
    [
        ("CONFIG_CC_OPTIMIZE_FOR_SIZE", True),
        ("CONFIG_GCC_PLUGINS", True),
        ("CONFIG_GCC_VERSION", False),
        ("CONFIG_HAVE_ARCH_KASAN", False),
    ],
)
def test_only_what_kconfig_probes_may_change(tree: Path, tmp_path: Path, option: str, refused: bool) -> None:
    text = (tree / "Makefile").read_text()
    (tree / "Makefile").write_text(text.replace("/CONFIG_LOST/d", f"/{option}=/d"))
    expected = pytest.raises(UserError, match=option) if refused else contextlib.nullcontext()
    with expected:
        described(tree, tmp_path, full=f"{option}=1\n")


@pytest.mark.parametrize("asked", ["CONFIG_PROC_SYSCTL=y", "CONFIG_SYSCTL=y"])
@pytest.mark.parametrize("lost", ["CONFIG_PROC_SYSCTL", "CONFIG_SYSCTL", "SYSCTL"])
def test_an_option_may_have_another_name_in_another_kernel(
    tree: Path, tmp_path: Path, lost: str, asked: str
) -> None:
    """It is one option, whichever name a kernel knows; "SYSCTL" is both, and neither survives."""
    text = (tree / "Makefile").read_text()
    (tree / "Makefile").write_text(text.replace("/CONFIG_LOST/d", f"/{lost}=/d"))
    if lost == "SYSCTL":
        with pytest.raises(UserError, match=f"{asked} became n"):
            described(tree, tmp_path, f"{asked}\n")
    else:
        config = described(tree, tmp_path, f"{asked}\n").config
        assert config.count("SYSCTL=y") == 1 and f"{lost}=" not in config


def test_an_option_by_another_name_is_not_asked_for_where_both_are_spoken_of(
    tree: Path, tmp_path: Path
) -> None:
    """In 6.1 they are two: SYSCTL is what PROC_SYSCTL selects, and others may."""
    full = "CONFIG_SYSCTL=y\n# CONFIG_PROC_SYSCTL is not set\n"
    assert "# CONFIG_PROC_SYSCTL is not set" in described(tree, tmp_path, full=full).config


def test_a_later_fragment_wins(tree: Path, tmp_path: Path) -> None:
    for name, value in (("one", "1"), ("two", "2")):
        (tmp_path / name).write_text(f"CONFIG_N={value}\n")
    source = resolve_source(tree, tmp_path / "cache")
    text = make_config(source, "x86_64", [tmp_path / "one", tmp_path / "two"], None)
    assert text.count("CONFIG_N=") == 1 and "CONFIG_N=2" in text


def test_the_same_configuration_is_not_written_again(tmp_path: Path) -> None:
    path = tmp_path / ".config"
    write_config("CONFIG_A=y\n", path)
    os.utime(path, (1, 1))
    write_config("CONFIG_A=y\n", path)
    assert path.stat().st_mtime == 1


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


def test_a_whole_build_has_a_time_and_jobs(tree: Path, tmp_path: Path) -> None:
    build = described(tree, tmp_path)
    assert build_time(build.home) is None
    build_kernel(build, jobs=3)
    took = build_time(build.home)
    assert took and took[0] >= 0 and took[1] == 3
    relink(build, None, tmp_path / "again", tmp_path / "again.log")
    assert build_time(build.home) == took
    # One that goes on where another had stopped tells nothing of a whole build.
    (build.home / "build.json").unlink()
    build_kernel(build)
    assert build_time(build.home) is None


def test_a_build_from_before_times_were_kept_is_timed_by_its_files(tree: Path, tmp_path: Path) -> None:
    build = described(tree, tmp_path)
    build_kernel(build, jobs=2)
    stamp = json.loads((build.home / "build.json").read_text())
    del stamp["took"]
    (build.home / "build.json").write_text(json.dumps(stamp))
    os.utime(build.objtree / ".config", (1000, 1000))
    os.utime(build.home / "build.log", (1090.5, 1090.5))
    assert build_time(build.home) == (90.5, 2)


def test_another_source_or_configuration_is_another_build(tree: Path, tmp_path: Path) -> None:
    first = described(tree, tmp_path)
    assert described(tree, tmp_path, "CONFIG_NET=y\nCONFIG_MORE=y\n").home != first.home
    (tree / "file.c").write_text("int x;")
    assert described(tree, tmp_path).home != first.home


def test_only_where_recordmcount_asks_for_section_symbols_the_compiler_makes_lines(
    tree: Path, tmp_path: Path
) -> None:
    asks = described(tree, tmp_path, "CONFIG_FTRACE_MCOUNT_USE_RECORDMCOUNT=y\n")
    assert "KCFLAGS=-ffunction-sections -fdata-sections -g1" in asks.make("vmlinux")
    assert "KCFLAGS=-ffunction-sections -fdata-sections" in described(tree, tmp_path).make("vmlinux")


def test_an_environment_with_a_plan_does_not_prune_the_base(
    tree: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KPRUNE_PLAN", "left over")
    build = described(tree, tmp_path)
    build_kernel(build)
    assert (build.artefacts / "vmlinux").read_text() == "vmlinux \n"


@pytest.mark.parametrize(
    "name", ["LLVM", "CROSS_COMPILE", "KCONFIG_CONFIG", "MAKEFLAGS", "KBUILD_OUTPUT", "ARCH"]
)
def test_what_a_shell_left_over_reaches_no_make(
    tree: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    """The key of a build does not know the environment, so the build must not either."""
    plain = described(tree, tmp_path)
    text = (tree / "Makefile").read_text()
    recipe = f"@env | grep -E '^(KEPT|{name})=(1|left)' >> $(O)/seen; true\n\t"
    (tree / "Makefile").write_text(
        text.replace("olddefconfig:\n\t", f"olddefconfig:\n\t{recipe}")
        .replace("sed -i", "cat $(O)/seen | sed 's/^/# /' >> $(O)/.config; sed -i")
        .replace("vmlinux:\n\t", f"vmlinux:\n\t{recipe}")
    )
    monkeypatch.setenv(name, "left")
    monkeypatch.setenv("KEPT", "1")
    build = described(tree, tmp_path)
    build_kernel(build)
    assert "# KEPT=1" in build.config and "left" not in build.config
    assert (build.objtree / "seen").read_text() == "KEPT=1\n"
    assert plain.home != build.home  # Only because the tree's Makefile is another.


@pytest.mark.parametrize("damage", ["stamp", "shape", "schema", "artefact", "objects"])
def test_a_damaged_build_is_made_again(tree: Path, tmp_path: Path, damage: str) -> None:
    build = described(tree, tmp_path)
    build_kernel(build)
    stamp = build.home / "build.json"
    if damage == "stamp":
        stamp.write_text("{")
    if damage == "shape":
        stamp.write_text('{"schema_version": 1}')
    if damage == "schema":
        stamp.write_text('{"schema_version": 0}')
    if damage == "artefact":
        (build.artefacts / "vmlinux").write_text("spoilt")
    if damage == "objects":
        shutil.rmtree(build.objtree)
    build_kernel(build)
    assert (build.artefacts / "vmlinux").read_text() == "vmlinux \n"
    assert (build.objtree / "count").read_text().count("run") == (1 if damage == "objects" else 2)


def test_a_shell_that_misses_an_optional_tool_is_not_the_cause(tree: Path, tmp_path: Path) -> None:
    text = (tree / "Makefile").read_text()
    spoilt = text.replace("vmlinux:\n", "vmlinux:\n\t@echo 'sh: 1: pkg-config: not found'\n")
    (tree / "Makefile").write_text(spoilt)
    with pytest.raises(BuildFailed, match=r"production kernel: net/x\.c:1: error"):
        build_kernel(described(tree, tmp_path, "CONFIG_BROKEN=y\n"))


def test_a_missing_compiler_is_said_before_the_build(
    tree: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(HostError, match="gcc is not there"):
        described(tree, tmp_path)
    assert not (tmp_path / "cache" / "builds").exists()


def test_a_relink_gets_the_plan_and_leaves_the_base(tree: Path, tmp_path: Path) -> None:
    build = described(tree, tmp_path)
    build_kernel(build)
    relink(build, tmp_path / "plan.json", tmp_path / "pruned", tmp_path / "log")
    assert (tmp_path / "pruned" / "vmlinux").read_text() == f"vmlinux {tmp_path / 'plan.json'}\n"
    assert (build.artefacts / "vmlinux").read_text() == "vmlinux \n"


def test_what_a_relink_prepares_is_in_nobodys_way(tree: Path, tmp_path: Path) -> None:
    """Two runs of one kernel share its object tree: the other waits, and its own is not taken away."""
    build = described(tree, tmp_path)
    build_kernel(build)
    held: list[bool] = []

    def prepare() -> None:
        with (build.home / "lock").open() as other:
            try:
                fcntl.flock(other, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                held.append(True)

    relink(build, tmp_path / "plan.json", tmp_path / "pruned", tmp_path / "log", before=prepare)
    assert held == [True]


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


@pytest.mark.parametrize("spoil", ["damaged", "cut short", "no tarball", "no kernel"])
def test_a_bad_tarball_is_the_users_error(tree: Path, tmp_path: Path, spoil: str) -> None:
    tarball = tmp_path / ("linux-6.1.zip" if spoil == "no tarball" else "linux-6.1.tar.gz")
    with tarfile.open(tarball, "w:gz") as archive:
        archive.add(tmp_path / "linux" / ("Makefile" if spoil == "no kernel" else ""), "linux-6.1")
    if spoil == "damaged":
        tarball.write_bytes(b"not a tarball")
    if spoil == "cut short":
        tarball.write_bytes(tarball.read_bytes()[:-60])
    with pytest.raises(UserError) as caught:
        resolve_source(tarball, tmp_path / "cache")
    assert caught.value.exit_code == 2
    if spoil != "no kernel":
        left = tmp_path / "cache" / "src"
        assert not left.exists() or not list(left.iterdir())


@pytest.mark.parametrize("version", ["7", "10"])
def test_later_kernels_are_tried(tree: Path, tmp_path: Path, version: str) -> None:
    (tree / "Makefile").write_text(MAKEFILE.replace("VERSION = 6", f"VERSION = {version}", 1))
    assert resolve_source(tree, tmp_path / "cache").version == f"{version}.1.7"


def _package(tree: Path, into: Path, name: str) -> Path:
    """A .deb that has the tree as a tarball of that name."""
    (into / "root/DEBIAN").mkdir(parents=True)
    (into / "root/DEBIAN/control").write_text(
        "Package: linux-source-6.1\nVersion: 6.1.7-1\nArchitecture: all\n"
        "Maintainer: nobody <n@example.org>\nDescription: x\n"
    )
    (into / "root/usr/src").mkdir(parents=True)
    with tarfile.open(into / "root/usr/src" / name, "w:xz") as archive:
        archive.add(tree, "linux-source-6.1")
    package = into / "linux-source-6.1_6.1.7-1_all.deb"
    subprocess.run(["dpkg-deb", "-b", into / "root", package], check=True, stdout=subprocess.DEVNULL)
    return package


def test_a_package_file_is_unpacked_once(tree: Path, tmp_path: Path) -> None:
    package = _package(tree, tmp_path, "linux-source-6.1.tar.xz").rename(tmp_path / "of-my-own.deb")
    first = resolve_source(package, tmp_path / "cache")
    assert first == resolve_source(package, tmp_path / "cache")
    assert first.version == "6.1.7" and (first.path / "Kconfig").is_file()


@pytest.mark.parametrize("spoil", ["damaged", "no tarball"])
def test_a_bad_package_is_the_users_error(tree: Path, tmp_path: Path, spoil: str) -> None:
    package = _package(tree, tmp_path, "linux-source-6.1.tar.xz" if spoil == "damaged" else "other.tar.xz")
    if spoil == "damaged":
        package.write_bytes(package.read_bytes()[:200])
    with pytest.raises(UserError, match="is the package whole" if spoil == "damaged" else "holds no"):
        resolve_source(package, tmp_path / "cache")


def test_a_change_of_content_changes_the_hash_and_git_does_not(tree: Path, tmp_path: Path) -> None:
    (tree / ".git").mkdir()
    first = resolve_source(tree, tmp_path / "cache").content_hash
    (tree / ".git" / "index").write_text("x")
    assert resolve_source(tree, tmp_path / "cache").content_hash == first
    (tree / "Kconfig").write_text("config X\n")
    second = resolve_source(tree, tmp_path / "cache").content_hash
    assert second not in ("", first)
    (tree / "Kconfig").write_text("")
    assert resolve_source(tree, tmp_path / "cache").content_hash == first


@pytest.mark.parametrize("damage", ["{", "[]", '{"Makefile": 3}', '{"Makefile": [1]}'])
def test_a_damaged_index_is_made_again(tree: Path, tmp_path: Path, damage: str) -> None:
    first = resolve_source(tree, tmp_path / "cache")
    for index in (tmp_path / "cache" / "index").iterdir():
        index.write_text(damage)
    assert resolve_source(tree, tmp_path / "cache") == first


def test_a_fifo_in_the_tree_does_not_block(tree: Path, tmp_path: Path) -> None:
    os.mkfifo(tree / "fifo")
    assert resolve_source(tree, tmp_path / "cache").version == "6.1.7"


@pytest.mark.parametrize(
    ("spoil", "says"),
    [
        ("version", "supports 6.0 and later"),
        ("built", "mrproper"),
        ("no tree", "not a Linux tree"),
        ("gone", "does not exist"),
    ],
)
def test_what_is_no_clean_tree_is_refused(tree: Path, tmp_path: Path, spoil: str, says: str) -> None:
    if spoil == "version":
        (tree / "Makefile").write_text(MAKEFILE.replace("VERSION = 6", "VERSION = 5", 1))
    if spoil == "built":
        (tree / ".config").write_text("")
    if spoil == "no tree":
        (tree / "Kconfig").unlink()
    with pytest.raises(UserError, match=says):
        resolve_source(tmp_path / "nothing" if spoil == "gone" else tree, tmp_path / "cache")


GCC = """CONFIG_CC_VERSION_TEXT="gcc"
CONFIG_CC_IS_GCC=y
CONFIG_LTO_NONE=y
CONFIG_CC_OPTIMIZE_FOR_SIZE=y
CONFIG_NET=y
# CONFIG_READABLE_ASM is not set
"""
CLANG = """CONFIG_CC_IS_CLANG=y
CONFIG_LTO=y
CONFIG_LTO_CLANG_FULL=y
CONFIG_HAS_LTO_CLANG=y
CONFIG_CC_OPTIMIZE_FOR_PERFORMANCE=y
CONFIG_NET=y
CONFIG_LD_IS_LLD=y
"""


@pytest.mark.parametrize(
    ("text", "same"),
    [(CLANG, True), (CLANG + "CONFIG_SMP=y\n", False), (CLANG.replace("NET=y", "NET=m"), False)],
)
def test_the_compiler_is_not_one_of_the_options(tmp_path: Path, text: str, same: bool) -> None:
    for name, content in (("gcc", GCC), ("other", text)):
        (tmp_path / name).write_text(content)
    assert (options_hash(tmp_path / "gcc") == options_hash(tmp_path / "other")) is same


def test_objects_have_flags_of_their_own_where_an_option_asks_for_it(tmp_path: Path) -> None:
    # A traced 7.3 reset without a word: GCC had put function_profile_call at an odd address.
    config = "CONFIG_DYNAMIC_FTRACE=y\nCONFIG_DYNAMIC_FTRACE_WITH_JMP=y\n"
    assert "CFLAGS_ftrace.o=-O2 -falign-functions=16" in object_flags(config)
    assert object_flags("CONFIG_DYNAMIC_FTRACE=y\n") == ()
