"""perf script's text: every selection of fields, chains, names with spaces, losses."""

from __future__ import annotations

import re
import string
from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.unit.damage import damaged, survives
from tracer.host import UserError
from tracer.outcome import LostEvents
from tracer.readers.perf import read_perf
from tracer.readers.sightings import ForeignTrace, Sighting

# As perf 6.1 printed it, cut down.
CHAINS = """\
# ========
# captured on    : Mon Nov 23 17:06:49 2026
# ========
#
swapper     0 [000] 16746.399618:     250000 cpu-clock:\x20
\tffffffff821f236b pv_native_safe_halt+0xb ([kernel.kallsyms])
\tffffffff821f3e75 default_idle+0x5 ([kernel.kallsyms])
\tffffffffc0201234 nft_do_chain+0x12 ([nf_tables])

Web Content 20136/20140 [002] 16746.399764:     250000 cpu-clock:\x20
\tffffffff821e86a7 clear_page_erms+0x7 ([kernel.kallsyms])
\tffffffff821f3e75 default_idle+0x5 ([kernel.kallsyms].init.text)
\tffffffff821f3e75 default_idle+0x85 (/usr/lib/debug/boot/vmlinux-6.1.0)
\tffffffff81000c82 [unknown] ([kernel.vmlinux])
\tffffffff81000c92 [unknown] ([unknown])
\t    7f34b6a1b2c3 [unknown] ([unknown])
\tfffffffffffffe00 [unknown] ([unknown])
\tffffffff815e9cee handle_pte_fault (inlined)
\t    7fa5dd994a5b std::map<int, int>::find(int const&) const+0x2b (/tmp/my prog (deleted))

swapper     0 [000] 16747.399618:     250000 cpu-clock:\x20
\tffffffff821f3e75 default_idle+0x5 (/boot/vmlinux)

kworker/0:1 12 [000] 16748.000000:  sched:sched_switch: prev_comm=a prev_pid=1 ==> next_comm=b

"""
LINES = """\
         swapper     0 [000] 16746.399618: 250000 cycles:  ffffffff821f236b halt+0xb ([kernel.kallsyms])
       kprune ld 21109 [003] 16746.423385: 250000 cycles:      7fa5dd994a5b main+0x2b (/usr/lib/x.so)
             abc     7 [003] 16746.423629: 250000 cycles:  ffffffff821f236b halt+0xc ([kernel.kallsyms])
         swapper     0 [001] 16746.423879: 250000 cycles:  ffffffff821f236b [unknown] ([kernel.kallsyms])
"""


def test_chains() -> None:
    address, hidden = 0xFFFFFFFF81000C82, 0xFFFFFFFF81000C92
    assert read_perf(CHAINS.encode(), "") == ForeignTrace(
        "perf",
        ("swapper", "Web Content", "kworker/0:1"),
        (
            Sighting("swapper", 2, "default_idle"),
            Sighting("swapper", 1, "pv_native_safe_halt"),
            Sighting("Web Content", 1, address=address),
            Sighting("Web Content", 1, address=hidden),
            Sighting("Web Content", 1, "clear_page_erms"),
            # Twice in one chain is one sample.
            Sighting("Web Content", 1, "default_idle"),
        ),
    )
    assert read_perf(CHAINS.encode(), "web").apps == ("web",)
    assert Sighting("web", 3, "default_idle") in read_perf(CHAINS.encode(), "web").sightings


def test_lines() -> None:
    assert read_perf(LINES.encode(), "") == ForeignTrace(
        "perf",
        ("swapper", "kprune ld", "abc"),
        (
            Sighting("swapper", 1, "halt"),
            Sighting("abc", 1, "halt"),
            Sighting("swapper", 1, address=0xFFFFFFFF821F236B),
        ),
    )


@pytest.mark.parametrize(
    ("pattern", "by"),
    [
        # -F ip,sym,dso; -F comm,ip,sym,dso; -F comm,tid,cpu,ip,sym,dso; -F -symoff; -F +srcline
        (r"(?m)^\S.*\n(?=\t)", ""),
        (r"(?m)^(\S+)(?: Content)? +\S+ \[.*\n(?=\t)", r"\1 \n"),
        (r"(?m)(\]) 1674\d\..*\n(?=\t)", r"\1 \n"),
        (r"\+0x[0-9a-f]+", ""),
        (r"(?m)(\(.*vmlinux\))$", r"\1\n  core.c:12"),
    ],
)
def test_selections_of_fields(pattern: str, by: str) -> None:
    text = re.sub(pattern, by, CHAINS)
    assert text != CHAINS
    assert set(read_perf(text.encode(), "a").sightings) == set(read_perf(CHAINS.encode(), "a").sightings)


def test_lines_without_tasks() -> None:
    text = re.sub(r"(?m)^.*cycles: ", "", LINES).encode()
    assert read_perf(text, "a").sightings == (
        Sighting("a", 2, "halt"),
        Sighting("a", 1, address=0xFFFFFFFF821F236B),
    )
    with pytest.raises(UserError, match="does not say which app ran; name the app"):
        read_perf(text, "")


@pytest.mark.parametrize(
    "line",
    [
        "swapper     0 [000] 16747.3996180: PERF_RECORD_LOST lost 12",
        "swapper     0 [000] 16747.3996180: PERF_RECORD_LOST_SAMPLES ",
        "LOST 12 events!",
        "Processed 12345 events and lost 12 chunks!",
    ],
)
def test_losses(line: str) -> None:
    with pytest.raises(LostEvents, match=r"perf lost (12|some) events"):
        read_perf(f"{CHAINS}{line}\n".encode(), "a")


def test_nothing_lost() -> None:
    line = "swapper     0 [000] 16747.3996180: PERF_RECORD_LOST lost 0\n"
    assert read_perf((CHAINS + line).encode(), "a") == read_perf(CHAINS.encode(), "a")


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("", "none of its 0 samples was in the kernel; record as root"),
        ("sh 1 [000] 1.000000: cycles: \n\t 55 main (/bin/sh)\n", "none of its 1 samples was in the kernel"),
        ("hello\n\nworld\n", "line 1 is no sample; make it with"),
        (CHAINS + "\tffffffff821f236b halt\n", "line 26 is "),
        ("\0", "line 1 is not text"),
    ],
)
def test_malformed(text: str, what: str) -> None:
    with pytest.raises(UserError, match=what):
        read_perf(text.encode(), "a")


TASKS = (
    st.text(string.ascii_letters + "/:-_ 0123456789", min_size=1, max_size=15)
    .map(str.strip)
    .filter(lambda name: name and not name.replace(" ", "").isdigit())
)
SAMPLES = st.lists(
    st.tuples(TASKS, st.lists(st.text(string.ascii_lowercase + "_.0", min_size=1, max_size=20), max_size=6)),
    min_size=1, max_size=20,
)  # fmt: skip


@settings(max_examples=100, deadline=None)
@given(SAMPLES, st.booleans())
def test_whatever_was_sampled_is_counted(samples: list[tuple[str, list[str]]], chains: bool) -> None:
    text = ""
    expected: Counter[tuple[str, str]] = Counter()
    for i, (task, names) in enumerate(samples):
        names = ["anchor", *names]
        if chains:
            text += f"{task} {i:5d} [{i:03d}] {i:5d}.123456: {i:10d} cycles: \n"
            text += (
                "".join(f"\tffffffff81{i:06x} {name}+0x{i:x} ([kernel.kallsyms])\n" for name in names) + "\n"
            )
            expected.update((task, name) for name in set(names))
        else:
            for name in names:
                text += f"{task:>16} {i:5d} [{i:03d}] {i:5d}.123456: {i:10d} cycles:  "
                text += f"ffffffff81{i:06x} {name} ([kernel.kallsyms])\n"
                expected[task, name] += 1
    found = read_perf(text.encode(), "")
    assert {(each.app, each.name): each.count for each in found.sightings} == expected


@pytest.mark.parametrize("text", [CHAINS, LINES])
def test_truncated(text: str) -> None:
    for length in range(len(text)):
        survives(read_perf, text[:length].encode(), "")


@settings(max_examples=300, deadline=None)
@given(st.sampled_from([CHAINS.encode(), LINES.encode()]).flatmap(damaged), st.sampled_from(["", "a"]))
def test_damaged(data: bytes, app: str) -> None:
    survives(read_perf, data, app)


@pytest.mark.parametrize(
    "unit", [" ", "1", " 1", "a ", "a b (", "\t", "(", "1.000000", ".", "lost 1 ", "[1] "]
)
def test_long_lines_take_no_time(unit: str) -> None:
    survives(read_perf, (unit * (60_000 // len(unit)) + "\n").encode() * 3)
