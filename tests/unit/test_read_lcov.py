"""lcov's tracefiles, of both generations."""

from __future__ import annotations

import re
from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.unit.damage import damaged, survives
from tracer.host import UserError
from tracer.readers.lcov import read_lcov
from tracer.readers.sightings import ForeignTrace, Sighting

OLD = """\
TN:boot
SF:/usr/src/linux/fs/open.c
FN:12,do_sys_open
FN:40,never
FNDA:7,do_sys_open
FNDA:0,never
FNF:2
FNH:1
BRDA:13,0,0,-
BRF:1
BRH:0
DA:12,7
DA:40,0,md5sum
LF:2
LH:1
end_of_record
TN:web
SF:fs/open.c
FN:12,do_sys_open
FNDA:3,do_sys_open
end_of_record
"""
NEW = """\
# lcov 2.2
TN:boot
SF:/usr/src/linux/fs/open.c
VER:abc
FNL:0,12,20
FNA:0,7,do_sys_open
FNA:0,7,do_sys_open_alias
FNL:1,40
FNA:1,0,never
MCDC:13,2,t,1,0,a
MCF:2
MCH:1
end_of_record

SF:/usr/src/linux/fs/open.c
FNA:0,3,do_sys_open
end_of_record
"""


def test_lcov_1() -> None:
    assert read_lcov(OLD.encode(), "a") == ForeignTrace(
        "lcov",
        ("a",),
        (
            Sighting("a", 7, "do_sys_open", "/usr/src/linux/fs/open.c"),
            Sighting("a", 3, "do_sys_open", "fs/open.c"),
        ),
    )
    assert read_lcov(OLD.encode(), "") == ForeignTrace(
        "lcov",
        ("boot", "web"),
        (
            Sighting("boot", 7, "do_sys_open", "/usr/src/linux/fs/open.c"),
            Sighting("web", 3, "do_sys_open", "fs/open.c"),
        ),
    )


def test_lcov_2() -> None:
    assert read_lcov(NEW.replace("\n", "\r\n").encode(), "") == ForeignTrace(
        "lcov",
        ("boot",),
        (
            Sighting("boot", 10, "do_sys_open", "/usr/src/linux/fs/open.c"),
            Sighting("boot", 7, "do_sys_open_alias", "/usr/src/linux/fs/open.c"),
        ),
    )


def test_nothing_ran() -> None:
    assert read_lcov(b"SF:a.c\nFNDA:0,f\nend_of_record\n", "a") == ForeignTrace("lcov", ("a",), ())


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("", "no records of functions"),
        ("TN:\nSF:a.c\nDA:1,1\nend_of_record\n", "no records of functions"),
        (OLD[:-14], "ends in the middle of fs/open.c"),
        (OLD + "XY:1\n", "line 22 is 'XY:1'"),
        (OLD + "DA:1,1\n", "line 22 is 'DA:1,1'"),
        (OLD + "end_of_record\n", "line 22 is "),
        ("SF:a.c\nFNDA:many,f\n", "line 2 is 'FNDA:many,f'"),
        ("SF:a.c\nFNDA:" + "9" * 5000 + ",f\n", "line 2 is "),
        ("SF:a.c\nSF:b.c\n", "line 2 is 'SF:b.c'"),
        ("SF:a.c\nDA\n", "line 2 is 'DA'"),
        ("<html>\n", "line 1 is '<html>'"),
    ],
)
def test_malformed(text: str, what: str) -> None:
    with pytest.raises(UserError, match=what):
        read_lcov(text.encode(), "a")


def test_a_test_without_a_name_needs_one() -> None:
    with pytest.raises(UserError, match="line 3 belongs to no test; name the app"):
        read_lcov(b"TN:\nSF:a.c\nFNDA:1,f\nend_of_record\n", "")


@settings(max_examples=60)
@given(
    st.lists(
        st.tuples(
            st.sampled_from(["boot", "web"]), st.sampled_from(["a.c", "b/c.c"]),
            st.lists(st.tuples(st.text("abc_", min_size=1, max_size=4), st.integers(0, 2**40)), min_size=1),
        ),
        min_size=1, max_size=8,
    ),
    st.booleans(),
)  # fmt: skip
def test_counts_are_added_up(sections: list[tuple[str, str, list[tuple[str, int]]]], new: bool) -> None:
    text = ""
    expected: Counter[tuple[str, str, str]] = Counter()
    for test, file, functions in sections:
        text += f"TN:{test}\nSF:{file}\n"
        for i, (name, count) in enumerate(functions):
            text += f"FNL:{i},1,2\nFNA:{i},{count},{name}\n" if new else f"FN:1,{name}\nFNDA:{count},{name}\n"
            expected[test, file, name] += count
        text += "end_of_record\n"
    found = read_lcov(text.encode(), "")
    assert {(s.app, s.file, s.name): s.count for s in found.sightings} == {
        k: n for k, n in expected.items() if n
    }
    assert set(found.apps) == {test for test, _, _ in sections}


@pytest.mark.parametrize("text", [OLD, NEW])
def test_truncated(text: str) -> None:
    for length in range(len(text)):
        found = survives(read_lcov, text[:length].encode())
        # What is cut off is seen, but for whole sections at the end.
        assert (found is None) == (not re.search(r"end_of_record(\s*|\s*TN:\w*\s*)$", text[:length]))


@settings(max_examples=200, deadline=None)
@given(st.sampled_from([OLD.encode(), NEW.encode()]).flatmap(damaged))
def test_damaged(data: bytes) -> None:
    survives(read_lcov, data)
