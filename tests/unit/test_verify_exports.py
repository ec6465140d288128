"""Export rows in vmlinux: those that the plan keeps, by name, each with its version beside it."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from prune.verify.exports import check_exports
from prune.verify.read import LinkMap, Piece, read_facts

FACTS = read_facts("x86_64", 8)


def check(*sections: str, dropped: str = "") -> tuple[str, ...]:
    """The findings for a kernel with these rows, one behind the other."""
    pieces = tuple(
        Piece("a.o", name, name.partition("+")[0][1:], 0x1000 + 16 * i, 12) for i, name in enumerate(sections)
    )
    fates = {("a.o", name): name != dropped for name in sections}
    model = SimpleNamespace(map=LinkMap(pieces, ("a.o",)), fates=fates, facts=FACTS)
    return check_exports(model).findings  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("sections", "dropped", "finding"),
    [
        (("___ksymtab+a", "___ksymtab+b", "___ksymtab_gpl+a2"), "", ""),
        (("___ksymtab+a", "___kcrctab+a", "___ksymtab_gpl+b", "___kcrctab_gpl+b"), "", ""),
        (("___ksymtab+b", "___ksymtab+a"), "", "is not in the order of names"),
        (("___ksymtab+a", "___ksymtab+a"), "", "is not in the order of names"),
        (("___ksymtab+a", "___ksymtab+b", "___kcrctab+a"), "", "has not the rows of"),
        (("___ksymtab+a", "___kcrctab+b"), "", "has not the rows of"),
        (("___ksymtab+a", "___ksymtab+b"), "___ksymtab+b", "and the plan does not keep it"),
    ],
)
def test_rows_are_in_order_and_have_their_versions(
    sections: tuple[str, ...], dropped: str, finding: str
) -> None:
    found = check(*sections, dropped=dropped)
    assert any(finding in each for each in found) if finding else not found
