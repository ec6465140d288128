"""Names from elsewhere do no harm: in linker scripts, paths, commands, on a terminal, in a page."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from prune.linking.script import assign, bury, discard_units, list_dropped, place_units, quoted
from prune.model.assemble import read_image
from prune.model.knowledge import read_knowledge, read_places
from prune.model.mapfile import parse_link_map
from prune.options import read_options
from prune.report.page import as_script
from tests.conftest import X86
from tests.unit.elfwriter import Section, Symbol, write_elf, write_map
from tests.unit.test_remote import TARGET, workload
from tests.unit.test_script import LDS
from tracer.elsewhere.remote import _Session
from tracer.host import KpruneError, UserError, say, show

WEB = Path(__file__).parents[2] / "prune" / "report" / "web"
NAMES = (
    "$(touch harm)", "`touch harm`", '"; } harm = .; /*', 'x" = .; harm = 1; "y', "../../../harm",
    "a\nharm = 1;", "*", "a*", "a b", "*/ harm = 1; /*", "x;harm=1", "x = 1", "x,y", "-rf", "@harm",
    "INCLUDE harm", "\\", "{", "}", "\udcff\udc80", "é", "\x1b[2J", "x\r", "/DISCARD/", "KEEP(harm)",
)  # fmt: skip
LINKERS = [name for name in ("ld", "ld.lld") if shutil.which(name)]
HOSTILE = "</script><!-- \u2028\x1b[2Jx\r\n\udc80"


@pytest.mark.parametrize("linker", LINKERS)
@pytest.mark.parametrize("name", NAMES)
def test_a_name_is_a_symbol_of_the_script_or_refused(tmp_path: Path, name: str, linker: str) -> None:
    """A linker reads the script and has the symbol of that name, and no other."""
    (tmp_path / "a.o").write_bytes(
        write_elf([Section(".text.f"), Section(".text.g")], [Symbol("f", ".text.f")])
    )
    places = read_places()
    try:
        graves = [(name, "after")]
        script = bury(
            place_units(LDS.replace("jiffies = jiffies_64;", ""), places), places[0], b"\xd6", graves
        )
        script = assign(script, {f"{name}.alias": "f"})
    except UserError as error:
        assert "no linker takes" in str(error)
        return
    script = list_dropped(discard_units(script, ".dropped"), ".dropped", {name: [name, f"*/ {name}"]})
    script = script.replace(":text", "").replace("OUTPUT_ARCH(i386:x86-64)", "")
    (tmp_path / "x.lds").write_bytes(script.encode("utf-8", "surrogateescape"))
    command = [linker, "-T", "x.lds", "-e", "0", "-o", "x", "a.o"]
    subprocess.run(command, cwd=tmp_path, check=True, capture_output=True)
    said = subprocess.run(["nm", "x"], cwd=tmp_path, check=True, capture_output=True).stdout
    symbols = {line.split(b" ", 2)[2].decode("utf-8", "surrogateescape") for line in said.splitlines()}
    assert {name, f"{name}.alias", "after"} <= symbols and "harm" not in symbols
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.o", "x", "x.lds"]


@pytest.mark.parametrize("name", ['"', 'a"b', "a\nb", "a\x00b", "\x1b"])
def test_what_no_quotes_hold_is_refused(name: str) -> None:
    with pytest.raises(UserError, match="no linker takes"):
        quoted(name)


@pytest.mark.parametrize("name", ["../harm.o", "/tmp/harm.o", "a/../../harm.o", "..", "a/..", "x\0y.o"])
@pytest.mark.parametrize("member", [False, True])
def test_an_object_outside_the_tree_is_refused(tmp_path: Path, name: str, member: bool) -> None:
    """Its edited copy would be written outside as well."""
    tree = tmp_path / "tree"
    (tree / "a").mkdir(parents=True)
    data = write_elf([Section(".text.f")], [Symbol("f", ".text.f")])
    for path in (tree / "a.o", tmp_path / "harm.o"):
        path.write_bytes(data)
    placed = write_map({"a.o": [(".text.f", 16)], name: [(".text.f", 16)]}, {name} if member else ())
    with pytest.raises(UserError, match="is not in the object tree"):
        read_image(tree, parse_link_map(placed), X86)


def test_an_object_whose_path_goes_up_and_down_is_in_the_tree(tmp_path: Path) -> None:
    """Makefiles of drivers name objects so (drivers/gpu/drm/amd/amdgpu/../display/...)."""
    (tmp_path / "a").mkdir()
    (tmp_path / "x.o").write_bytes(write_elf([Section(".text.f")], [Symbol("f", ".text.f")]))
    made = read_image(tmp_path, parse_link_map(write_map({"a/../x.o": [(".text.f", 16)]})), X86)
    assert made.objects == ("a/../x.o",)


@pytest.mark.parametrize("arch", ["../tests/x", "/etc/x", "x86_64/../x86_64", "common\0", "", "*"])
def test_an_architecture_is_no_path(arch: str) -> None:
    with pytest.raises(UserError, match="not supported"):
        read_knowledge(arch)


def test_errors_are_one_line_that_a_terminal_obeys_nothing_of(capsys: pytest.CaptureFixture[str]) -> None:
    message = str(KpruneError(f"reading {HOSTILE}", f"try {HOSTILE}"))
    assert message.isprintable() and message.startswith("reading </script>")
    assert len(str(KpruneError("x" * 10**6, "the way out"))) < 5000
    assert str(KpruneError("x" * 10**6, "the way out")).endswith("the way out")
    say(HOSTILE)
    show(HOSTILE)
    for text in capsys.readouterr():
        assert text.replace("\n", "").isprintable() and "</script>" in text


def test_names_end_no_element_of_a_page() -> None:
    text = as_script({HOSTILE: [HOSTILE]})
    assert not set("<>&\u2028") & set(text) and text.encode()
    assert list(json.loads(text)) == [HOSTILE.replace("\udc80", "?")]


def test_pages_put_names_into_the_document_as_text() -> None:
    for script in WEB.glob("*.js"):
        found = re.search(
            r"innerHTML|outerHTML|insertAdjacent|document\.write|\beval\b|new Function|DOMParser",
            script.read_text(),
        )
        assert not found, f"{script.name}: {found}"
    assert "default-src 'none'" in (WEB / "frame.html").read_text()


@pytest.mark.parametrize("value", ['"$(shell touch harm)"', '"`touch harm`"', '"${HOME}"', "$x"])
def test_an_option_that_make_or_a_shell_would_run_is_refused(tmp_path: Path, value: str) -> None:
    (tmp_path / "config").write_text(f"CONFIG_A=y\nCONFIG_LOCALVERSION={value}\n")
    with pytest.raises(UserError, match="line 2: make or a shell would run this"):
        read_options(tmp_path / "config")


@pytest.mark.parametrize("app", ["$(touch harm)", "web; touch harm", "../web", "one", "web\0"])
def test_a_target_behind_ssh_has_no_command_of_its_own_run(tmp_path: Path, app: str) -> None:
    """It says whose turn it is; only host commands of the workload answer."""
    session = _Session(
        workload(tmp_path, "touch $KPRUNE_SEED"), TARGET, "192.0.2.7", tmp_path, lambda _: None
    )
    assert session._take(f"host {app} 0") in (None, "there is no host command")
    assert session._take("host web $(touch harm)") is None
    assert session._take("host web 7") == "0"
    assert {path.name for path in tmp_path.iterdir()} == {"workload.toml", "7", "host-web.log"}
