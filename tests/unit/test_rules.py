"""Keep rules: read strictly, applied by name and object, unused ones are told."""

from __future__ import annotations

from pathlib import Path

import pytest

from prune.model.image import Image
from prune.plan.rules import KeepRule, Rules, apply_rules, read_rules
from tests.conftest import image
from tracer.host import UserError

from .elfwriter import LOCAL, NOTYPE, Section, Symbol, write_elf


@pytest.fixture
def made(tmp_path: Path) -> Image:
    tcp = [".text.tcp_send", ".text.tcp_send.part.0", ".text.unlikely.tcp_send", ".text.helper"]
    names = ["tcp_send", "tcp_send.part.0", "tcp_send.cold", "helper"]
    return image(
        tmp_path,
        {
            "net/ipv4/tcp.o": write_elf(
                [Section(name) for name in tcp],
                [
                    Symbol(n, s, size=1, bind=LOCAL if "." in n else 1)
                    for n, s in zip(names, tcp, strict=True)
                ],
            ),
            "lib/x.o": write_elf(
                [Section(".text.helper"), Section(".text.label")],
                [Symbol("helper", ".text.helper", bind=LOCAL), Symbol("label", ".text.label", type=NOTYPE)],
            ),
        },
    )


def kept(made: Image, *rules: KeepRule) -> set[str]:
    return {made.unit_label(unit) for unit in apply_rules(made, rules)[0]}


def test_variants_follow_their_function(made: Image) -> None:
    assert kept(made, KeepRule("tcp_send", "why")) == {
        "net/ipv4/tcp.o:.text.tcp_send",
        "net/ipv4/tcp.o:.text.tcp_send.part.0",
        "net/ipv4/tcp.o:.text.unlikely.tcp_send",
    }


def test_a_variant_can_be_named_alone(made: Image) -> None:
    assert kept(made, KeepRule("*.cold", "why")) == {"net/ipv4/tcp.o:.text.unlikely.tcp_send"}


def test_an_object_narrows_a_rule(made: Image) -> None:
    assert kept(made, KeepRule("helper", "why")) == {
        "net/ipv4/tcp.o:.text.helper",
        "lib/x.o:.text.helper",
    }
    assert kept(made, KeepRule("helper", "why", "net/*")) == {"net/ipv4/tcp.o:.text.helper"}


def test_assembly_labels_are_functions_too(made: Image) -> None:
    assert kept(made, KeepRule("lab*", "why")) == {"lib/x.o:.text.label"}


def test_globs_know_case_and_the_whole_name(made: Image) -> None:
    assert kept(made, KeepRule("TCP_*", "why"), KeepRule("send", "why")) == set()


def test_the_first_rule_that_matches_is_the_reason_and_both_were_used(made: Image) -> None:
    first, second, typo = KeepRule("helper", "one"), KeepRule("help*", "two"), KeepRule("hepler", "three")
    units, unused = apply_rules(made, (first, second, typo))
    assert set(units.values()) == {first}
    assert unused == (typo,)


def test_a_rule_whose_object_is_wrong_is_unused(made: Image) -> None:
    rule = KeepRule("helper", "why", "drivers/*")
    assert apply_rules(made, (rule,)) == ({}, (rule,))
    assert str(rule) == "drivers/*:helper"


def test_a_file_is_read(tmp_path: Path) -> None:
    path = tmp_path / "rules.toml"
    path.write_text('[[keep]]\npattern = "a*"\nobject = "net/*"\nreason = "because"\n')
    assert read_rules(path) == Rules((KeepRule("a*", "because", "net/*"),))
    path.write_text("")
    assert read_rules(path) == Rules()


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("[[keep]", "rules.toml"),
        ('[[keep]]\nreason = "r"\n', "a pattern and a reason"),
        ('[[keep]]\npattern = "p"\n', "a pattern and a reason"),
        ('[[keep]]\npattern = "p"\nreason = ""\n', "a pattern and a reason"),
        ('[[keep]]\npattern = 3\nreason = "r"\n', "a pattern and a reason"),
        ('[[keep]]\npattern = "p"\nreason = "r"\nobject = 3\n', "object"),
        ('[[keep]]\npatern = "p"\nreason = "r"\n', "pattern, reason and object only"),
        ('[[kepe]]\npattern = "p"\nreason = "r"\n', "unknown key kepe"),
        ('[keep]\npattern = "p"\nreason = "r"\n', "unknown key keep"),
        ("keep = [1]\n", "pattern, reason and object only"),
    ],
)
def test_a_mistake_is_one_clear_error(tmp_path: Path, text: str, says: str) -> None:
    path = tmp_path / "rules.toml"
    path.write_text(text)
    with pytest.raises(UserError, match=says) as caught:
        read_rules(path)
    assert "\n" not in str(caught.value)


def test_what_is_no_text_or_not_there_is_refused(tmp_path: Path) -> None:
    (tmp_path / "binary").write_bytes(b"\xff\xfe\x00")
    for name in ("binary", "nowhere"):
        with pytest.raises(UserError, match=name):
            read_rules(tmp_path / name)
