"""Lists of CVEs: both forms, and what is refused."""

from __future__ import annotations

from pathlib import Path

import pytest

from prune.security.cves import (
    GONE,
    MAX_BYTES,
    NOT_BUILT,
    PARTLY,
    PRESENT,
    SEVERAL,
    UNKNOWN,
    UNTIL_BOOT,
    Hole,
    Named,
    read_holes,
    verdict,
)
from tracer.host import UserError

EXAMPLE = Path(__file__).parents[2] / "examples/micro/cves.toml"
TOML = """\
[[cve]]
id = "CVE-2022-0185"
note = "length"
file = "fs/fs_context.c"
functions = ["legacy_parse_param", "fs/namei.c:other", "legacy_parse_param"]
[[cve]]
id = "GHSA-x"
functions = ["f"]
"""
CSV = """\
cve,function,file,note
CVE-2022-0185,legacy_parse_param,fs/fs_context.c,length
GHSA-x,f,,
CVE-2022-0185,fs/namei.c:other,,
"""
HOLES = (
    Hole(
        "CVE-2022-0185",
        (Named("legacy_parse_param", "fs/fs_context.c"), Named("other", "fs/namei.c")),
        "length",
    ),
    Hole("GHSA-x", (Named("f"),)),
)


def written(folder: Path, text: str, name: str = "list.toml") -> Path:
    path = folder / name
    path.write_text(text)
    return path


def test_both_forms_say_the_same(tmp_path: Path) -> None:
    assert read_holes(written(tmp_path, TOML)) == HOLES
    assert read_holes(written(tmp_path, CSV, "list.CSV")) == HOLES
    assert read_holes(written(tmp_path, "cve,function\nA,f g\n", "a.csv")) == (
        Hole("A", (Named("f"), Named("g"))),
    )
    assert read_holes(written(tmp_path, "")) == ()


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("[[cve", "Expected"),
        ("cves = 1", 'did you mean "cve"'),
        ("cve = 1", '"cve" must be a list'),
        ("cve = [1]", "must be a table"),
        ('[[cve]]\nid = "A"\nfunctions = ["f"]\nurl = "x"', 'there is no key "url"'),
        ('[[cve]]\nid = "A"\nfunctions = "f"', '"functions" must be a list'),
        ('[[cve]]\nid = "A"\nfunctions = []', "names no function"),
        ('[[cve]]\nid = 1\nfunctions = ["f"]', '"id" must be a string'),
        ('[[cve]]\nfunctions = ["f"]', 'the key "id" is missing'),
        ('[[cve]]\nid = "A"\nfunctions = [1]', "functions are texts"),
        ('[[cve]]\nid = "A b"\nfunctions = ["f"]', "no name of a CVE"),
        ('[[cve]]\nid = "A"\nfunctions = ["f()"]', "no name of a function"),
        ('[[cve]]\nid = "A"\nfunctions = ["f.isra.0"]', "no name of a function"),
        ('[[cve]]\nid = "A"\nfunctions = ["f"]\nfile = "../a.c"', "no .c, .S or .o file"),
        ('[[cve]]\nid = "A"\nfunctions = ["/etc/a.c:f"]', "no .c, .S or .o file"),
        ('[[cve]]\nid = "A"\nfunctions = ["f"]\nfile = "a.h"', "no .c, .S or .o file"),
        ('[[cve]]\nid = "A"\nfunctions = ["f"]\n[[cve]]\nid = "A"\nfunctions = ["g"]', "twice"),
        (f"x = {'[' * 100_000}", ""),
        ("#" * (MAX_BYTES + 1), "MiB"),
    ],
)
def test_a_damaged_list_is_refused_in_one_line(tmp_path: Path, text: str, why: str) -> None:
    with pytest.raises(UserError, match="reading the list of CVEs") as caught:
        read_holes(written(tmp_path, text))
    assert why in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "text",
    [
        "", "a,b\n", "cve,function,cve\n", "cve,function,url\nA,f,x\n", "cve,function\nA\n",
        "cve,function\nA,f,g\n",
        'cve,function\nA,"f\n', "cve,function\nA,\n", "cve,function\n,f\n",
    ],
)  # fmt: skip
def test_a_damaged_csv_is_refused(tmp_path: Path, text: str) -> None:
    with pytest.raises(UserError, match="reading the list of CVEs"):
        read_holes(written(tmp_path, text, "a.csv"))


def test_what_is_no_file_is_refused(tmp_path: Path) -> None:
    for path in (tmp_path, tmp_path / "none"):
        with pytest.raises(UserError, match="reading the list of CVEs"):
            read_holes(path)


@pytest.mark.parametrize(
    ("states", "expected"),
    [
        ([GONE], GONE), ([GONE, PRESENT], PARTLY), ([PRESENT, UNKNOWN], PRESENT), ([UNTIL_BOOT], PRESENT),
        ([UNTIL_BOOT, GONE, UNKNOWN], PARTLY), ([GONE, UNKNOWN], UNKNOWN), ([UNKNOWN], UNKNOWN),
        ([NOT_BUILT], NOT_BUILT), ([NOT_BUILT, GONE], GONE), ([NOT_BUILT, UNKNOWN], UNKNOWN),
        ([SEVERAL, GONE], SEVERAL),
    ],
)  # fmt: skip
def test_a_verdict_claims_no_more_than_is_known(states: list[str], expected: str) -> None:
    assert verdict(states) == expected


def test_the_example_can_be_read() -> None:
    holes = read_holes(EXAMPLE)
    assert len(holes) >= 15 and [hole.id for hole in holes] == sorted((hole.id for hole in holes), key=_order)
    assert all(named.file for hole in holes for named in hole.functions)


def _order(name: str) -> tuple[int, int]:
    _, year, number = name.split("-")
    return int(year), int(number)
