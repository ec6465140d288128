"""Compilers by name and version: what make is told, and what must be there."""

from __future__ import annotations

import pytest

from prune.build.doctor import require
from prune.build.toolchain import find_toolchain
from prune.cli import main
from tracer.host import HostError, UserError


@pytest.mark.parametrize(
    ("name", "make", "linker", "compiler"),
    [
        ("gcc", (), "ld", "gcc"),
        ("gcc-11", ("CC=gcc-11",), "ld", "gcc-11"),
        ("clang", ("LLVM=1",), "ld.lld", "clang"),
        ("clang-19", ("LLVM=-19",), "ld.lld-19", "clang-19"),
    ],
)
def test_a_version_is_asked_for_by_its_name(
    name: str, make: tuple[str, ...], linker: str, compiler: str
) -> None:
    found = find_toolchain(name)
    assert (found.make, found.linker, found.tools[0]) == (make, linker, compiler)


@pytest.mark.parametrize("name", ["tcc", "clang-", "clang-1999", "gcc;reboot", "clang-19 ", "../gcc"])
def test_what_is_no_compiler_is_refused(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(UserError, match="not supported"):
        find_toolchain(name)
    with pytest.raises(SystemExit) as stopped:
        main(["run", "examples/micro", "--toolchain", name])
    assert stopped.value.code == 2
    assert "nor a version such as clang-19" in capsys.readouterr().err


def test_a_version_that_is_not_there_is_named_with_its_packages() -> None:
    with pytest.raises(
        HostError, match=r"clang-98, ld\.lld-98, llvm-ar-98 are not there.* clang-98 lld-98 llvm-98"
    ):
        require(find_toolchain("clang-98").tools)
