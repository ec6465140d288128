"""Policies: read strictly, values by the kernel's names, families with what each is made of."""

from __future__ import annotations

from pathlib import Path

import pytest

from prune.plan.policy import KEEP, PANIC, RETURN, TRAP, Policy, Value, families, make_value, may_answer
from prune.plan.rules import KeepRule, Rules, read_rules
from tracer.host import UserError

POLICY = '[[policy]]\nfunctions = ["f"]\n'


def read(folder: Path, text: str) -> Rules:
    path = folder / "rules.toml"
    path.write_text(text)
    return read_rules(path)


def test_a_file_with_everything(tmp_path: Path) -> None:
    found = read(
        tmp_path,
        'builtin = ["fallocate"]\n'
        '[[keep]]\npattern = "a"\nreason = "r"\n'
        '[[policy]]\nfunctions = ["b*", "c"]\nobject = "net/*"\ntypes = ["int *"]\n'
        'on_miss = "return"\nvalue = "-EIO"\n'
        '[[policy]]\nfunctions = ["d"]\n'
        '[[policy]]\nfunctions = ["e"]\non_miss = "panic"\n'
        '[[policy]]\nfunctions = ["g", "h"]\nobject = "x.o"\non_miss = "keep"\n',
    )
    assert found.keep == (
        KeepRule("a", "r"),
        KeepRule("g", "a policy keeps it", "x.o"),
        KeepRule("h", "a policy keeps it", "x.o"),
    )
    *own, family = found.policies
    assert own == [
        Policy(("b*", "c"), RETURN, Value("-EIO", -5), "net/*", ("int *",)),
        Policy(("d",), TRAP),
        Policy(("e",), PANIC),
    ]
    assert (family.family, family.value) == ("fallocate", Value("-EOPNOTSUPP", -95))
    assert KEEP not in {policy.on_miss for policy in found.policies}


def test_what_a_policy_is_called() -> None:
    assert str(Policy(("b*", "c"), RETURN, Value("-EIO", -5), "net/*")) == "net/*:b* c = -EIO"
    assert str(Policy(("d",), PANIC)) == "d = panic"


@pytest.mark.parametrize(
    ("said", "value"),
    [
        ("-ENOTTY", Value("-ENOTTY", -25)),
        ("-ENOIOCTLCMD", Value("-ENOIOCTLCMD", -515)),
        (0, Value("0", 0)),
        (-7, Value("-7", -7)),
        ("12", Value("12", 12)),
        ("NULL", Value("NULL", 0, pointer=True)),
        ("ERR_PTR(-ENOENT)", Value("ERR_PTR(-ENOENT)", -2, pointer=True)),
    ],
)
def test_values(said: object, value: Value) -> None:
    assert make_value(said, "testing") == value


@pytest.mark.parametrize(
    "said",
    [
        "ENOTTY",
        "-ENOSUCH",
        "",
        "--5",
        "ERR_PTR(x)",
        "ERR_PTR(ENOENT)",
        1 << 31,
        -(1 << 31) - 1,
        True,
        1.5,
        None,
        [],
    ],
)
def test_what_is_no_value(said: object) -> None:
    with pytest.raises(UserError, match="value"):
        make_value(said, "testing")


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("[policy]\n", r"write \[\[policy\]\]"),
        ("policy = [1]\n", "must be a table"),
        ("[[policy]]\n", 'the key "functions" is missing'),
        ("[[policy]]\nfunctions = []\n", "needs functions"),
        ('[[policy]]\nfunctions = "f"\n', '"functions" must be a list'),
        ('[[policy]]\nfunctions = [""]\n', "functions is a list of globs"),
        (f"{POLICY}types = [1]\n", "types is a list of globs"),
        (f"{POLICY}object = 1\n", '"object" must be a string'),
        (f'{POLICY}on_miss = "ignore"\n', "on_miss is ignore; it can be return, trap, panic, keep"),
        (f"{POLICY}on_miss = [1]\n", '"on_miss" must be a string'),
        (f'{POLICY}on_miss = "return"\n', "a value belongs to on_miss"),
        (f"{POLICY}value = 0\n", "a value belongs to on_miss"),
        (f'{POLICY}on_miss = "return"\nvalue = "ENOTTY"\n', "no value is called ENOTTY"),
        (f'{POLICY}on_miss = "keep"\ntypes = ["int *"]\n', "not chosen by its type"),
        (f"{POLICY}on_mis = 1\n", 'there is no key "on_mis"; did you mean "on_miss"'),
        ('builtin = "ioctl"\n', "builtin is no list of names"),
        ('builtin = ["ioctls"]\n', "no builtin policy is called ioctls; there are ioctl, xattr,"),
    ],
)
def test_a_mistake_is_one_clear_error(tmp_path: Path, text: str, says: str) -> None:
    with pytest.raises(UserError, match=says) as caught:
        read(tmp_path, text)
    assert "rules.toml" in str(caught.value) and "\n" not in str(caught.value)


def test_every_family_can_be_asked_for(tmp_path: Path) -> None:
    names = list(families())
    found = read(tmp_path, f"builtin = {names}\n".replace("'", '"'))
    assert {policy.family for policy in found.policies} == set(names)
    for policy in found.policies:
        assert policy.types and policy.value and policy.value.number < 0


def test_a_miss_may_have_a_family_by_its_name() -> None:
    assert may_answer("pipe_ioctl") == ("ioctl",)
    assert may_answer("proc_dointvec_minmax.isra.0") == ("sysctl",)
    assert may_answer("tcp_ack") == ()


def test_a_family_that_is_asked_for_twice_is_there_once(tmp_path: Path) -> None:
    assert len(read(tmp_path, 'builtin = ["mmap", "mmap"]\n').policies) == 1
