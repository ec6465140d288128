"""Modules: what each needs and offers, which are shipped, what the guest finds, and one that is refused."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from prune.build.modules import (
    Module,
    check_options,
    load_modules,
    module_paths,
    read_modules,
    save_modules,
    shipped,
)
from prune.model.elf import SHN_UNDEF, parse_object
from prune.modules.needs import needed_exports
from prune.modules.refused import NAME, NEEDS, refused
from prune.modules.signing import sign_modules
from tests.conftest import X86
from tracer.files.modules import module_tree
from tracer.host import BuildFailed, UserError

from .elfwriter import ALLOC, LOCAL, NOTYPE, WRITE, Section, Symbol, write_elf

THIS = ".gnu.linkonce.this_module"


def ko(name: str, needs: tuple[str, ...] = (), exports: tuple[str, ...] = (), alias: str = "") -> bytes:
    """A module of one function."""
    information = b"license=GPL\0" + (f"alias={alias}\0".encode() if alias else b"") + b"depends=\0"
    sections = [
        Section(".text", bytes(16)), Section(".modinfo", information, ALLOC),
        Section("__ksymtab", bytes(12 * max(len(exports), 1)), ALLOC),
        Section(THIS, bytes(24) + name.encode().ljust(56, b"\0") + bytes(200), ALLOC | WRITE),
    ]  # fmt: skip
    symbols = [Symbol(need, type=NOTYPE) for need in needs]
    symbols += [
        Symbol(f"__ksymtab_{symbol}", "__ksymtab", 12 * i, bind=LOCAL) for i, symbol in enumerate(exports)
    ]
    return write_elf(sections, symbols)


MODULES = {
    "net/llc/llc.ko": ko("llc", ("_printk",), ("llc_open",)),
    "net/802/stp.ko": ko("stp", ("llc_open",), ("stp_register",)),
    "net/bridge/br-idge.ko": ko("br_idge", ("stp_register", "llc_open", "kfree"), alias="rtnl-link-bridge"),
    "drivers/net/tun.ko": ko("tun", ("kfree", "only_tun")),
}


@pytest.fixture
def modules(tmp_path: Path) -> tuple[Module, ...]:
    for path, data in MODULES.items():
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_bytes(data)
    return read_modules(tmp_path, MODULES, X86.machine)


def test_a_module_needs_what_it_leaves_undefined_and_what_has_that(modules: tuple[Module, ...]) -> None:
    bridge = next(each for each in modules if each.name == "br_idge")
    assert bridge.needs == ("kfree", "llc_open", "stp_register")
    assert bridge.depends == ("stp", "llc")
    assert bridge.aliases == ("rtnl-link-bridge",)
    assert next(each for each in modules if each.name == "llc").exports == ("llc_open",)


def test_what_a_shipped_module_depends_on_comes_along(modules: tuple[Module, ...]) -> None:
    assert {each.name for each in shipped(modules, ["br-*"]) if each.shipped} == {"br_idge", "stp", "llc"}
    assert not any(each.shipped for each in shipped(modules, []))


def test_a_module_that_the_kernel_does_not_have_is_an_error(modules: tuple[Module, ...]) -> None:
    with pytest.raises(UserError, match=r"no module wlan.*set its option to m.*it has llc, stp"):
        shipped(modules, ["wlan"])


def test_modules_that_depend_on_each_other_are_refused(tmp_path: Path) -> None:
    (tmp_path / "a.ko").write_bytes(ko("a", ("of_b",), ("of_a",)))
    (tmp_path / "b.ko").write_bytes(ko("b", ("of_a",), ("of_b",)))
    with pytest.raises(UserError, match="depends on itself"):
        read_modules(tmp_path, ["a.ko", "b.ko"], X86.machine)


def test_the_list_is_read_as_it_was_written(tmp_path: Path, modules: tuple[Module, ...]) -> None:
    chosen = shipped(modules, ["tun"])
    save_modules(chosen, "6.1.0", tmp_path / "modules")
    assert load_modules(tmp_path) == chosen
    assert load_modules(tmp_path / "elsewhere") == ()


def test_the_guest_has_what_depmod_would_make(tmp_path: Path, modules: tuple[Module, ...]) -> None:
    for path, data in MODULES.items():
        (tmp_path / "modules" / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "modules" / path).write_bytes(data)
    save_modules(shipped(modules, ["br_idge"]), "6.1.0", tmp_path / "modules")
    tree = module_tree(tmp_path / "bzImage")
    home = "usr/lib/modules/6.1.0"
    assert tree[f"{home}/kernel/net/802/stp.ko"].data == MODULES["net/802/stp.ko"]
    assert f"{home}/kernel/drivers/net/tun.ko" not in tree
    assert set(tree[f"{home}/modules.dep"].data.decode().splitlines()) == {
        "kernel/net/llc/llc.ko:", "kernel/net/802/stp.ko: kernel/net/llc/llc.ko",
        "kernel/net/bridge/br-idge.ko: kernel/net/802/stp.ko kernel/net/llc/llc.ko",
    }  # fmt: skip
    assert tree[f"{home}/modules.alias"].data == b"alias rtnl-link-bridge br_idge\n"


@pytest.mark.parametrize(
    ("release", "path"),
    [("../x", "a.ko"), ("6.1", "../a.ko"), ("6.1", "/a.ko"), ("6.1", "a b.ko"), (6, "a.ko")],
)
def test_a_list_that_leads_elsewhere_is_damaged(tmp_path: Path, release: object, path: str) -> None:
    (tmp_path / "modules").mkdir()
    row = {
        "name": "a",
        "path": path,
        "shipped": True,
        "depends": [],
        "aliases": [],
        "exports": [],
        "needs": [],
    }
    value = {"schema_version": 1, "release": release, "modules": [row]}
    (tmp_path / "modules/modules.json").write_text(json.dumps(value))
    with pytest.raises(UserError, match=r"modules\.json is damaged"):
        module_tree(tmp_path / "bzImage")


def test_a_kernel_without_modules_says_so(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"list of modules.*modules\.json"):
        module_tree(tmp_path / "bzImage")


@pytest.mark.parametrize("lines", ["kernel/a.ko\n", "a.o\n", "a.ko\n"])
def test_modules_of_a_tree_are_listed_as_objects_or_modules(tmp_path: Path, lines: str) -> None:
    path = lines.strip().replace(".o", ".ko")
    (tmp_path / "modules.order").write_text(lines)
    with pytest.raises(BuildFailed, match="make left no"):
        module_paths(tmp_path)
    (tmp_path / path).parent.mkdir(exist_ok=True)
    (tmp_path / path).write_bytes(b"")
    assert module_paths(tmp_path) == (path,)


def test_exports_say_who_needs_them() -> None:
    found = needed_exports({"a": ("f", "g"), "b": ("g",)})
    assert found["g"] == "exported, and needed by a, b" and found["f"].endswith("needed by a")
    assert found["module_layout"].endswith("looked up by the loader of modules")


def test_the_module_to_be_refused_needs_what_nobody_has(tmp_path: Path) -> None:
    file = parse_object(tmp_path / "llc.ko", MODULES["net/llc/llc.ko"], X86.machine)
    made = parse_object(tmp_path / "x.ko", refused(file, "llc"), X86.machine)
    names = [made.symbol_name(i) for i in range(len(made.symbols)) if made.shndx[i] == SHN_UNDEF]
    assert NEEDS in names and "_printk" not in names
    assert f"{NAME}\0".encode() in made.content(made.section_names.index(THIS))
    with pytest.raises(UserError, match="no struct module called stp"):
        refused(file, "stp")
    alone = parse_object(tmp_path / "a.ko", ko("a"), X86.machine)
    with pytest.raises(UserError, match="needs no symbol"):
        refused(alone, "a")


@pytest.mark.parametrize(
    ("config", "problem"),
    [
        ("", ""),
        ("CONFIG_MODULE_SIG=y\n", ""),
        ("CONFIG_MODULE_SIG=y\nCONFIG_MODULE_SIG_FORCE=y\n", "without CONFIG_MODULE_SIG_ALL: nobody signs"),
        ('CONFIG_MODULE_SIG=y\nCONFIG_MODULE_SIG_ALL=y\nCONFIG_MODULE_SIG_KEY="k.pem"\n', r"no .*k\.pem"),
    ],
)  # fmt: skip
def test_modules_are_signed_or_it_is_said_why_not(tmp_path: Path, config: str, problem: str) -> None:
    (tmp_path / ".config").write_text(config)
    if not problem:
        sign_modules(tmp_path, tmp_path, [tmp_path / "a.ko"])
        return
    with pytest.raises(UserError, match=problem):
        sign_modules(tmp_path, tmp_path, [tmp_path / "a.ko"])


def test_a_module_is_no_other_for_being_shipped(modules: tuple[Module, ...]) -> None:
    (tun,) = (each for each in shipped(modules, ["tun"]) if each.shipped)
    assert replace(tun, shipped=False) in modules


def test_modules_of_a_kernel_that_lld_links_are_refused(tmp_path: Path) -> None:
    (tmp_path / ".config").write_text("CONFIG_MODULES=y\nCONFIG_LD_IS_LLD=y\n")
    with pytest.raises(UserError, match=r"CONFIG_LD_IS_LLD.*--toolchain gcc"):
        check_options(tmp_path / ".config")
