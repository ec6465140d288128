"""Prove the export rows: only what was kept is there, in the order by which the loader of modules searches,
and beside each row the version of the same symbol.

The loader searches ``__ksymtab`` by halving (find_exported_symbol_in_section() of kernel/module/main.c), and
takes the version at the same place of ``__kcrctab``.
"""

from __future__ import annotations

from fnmatch import fnmatchcase

from prune.verify.model import Check, Model, Tally


def check_exports(model: Model) -> Check:
    """Every row of ``__ksymtab``, ``__ksymtab_gpl`` and of the versions."""
    tally = Tally("exports")
    known = model.facts["exports"]
    for rows, versions in zip(known["rows"], known["versions"], strict=True):
        symbols, versioned = _symbols(model, tally, rows), _symbols(model, tally, versions)
        if not symbols and not versioned:
            continue
        tally.expect(symbols == sorted(set(symbols)), f"{rows} is not in the order of names")
        tally.expect(versioned in ([], symbols), f"{versions} has not the rows of {rows}")
    return tally.done("rows of __ksymtab and of versions")


def _symbols(model: Model, tally: Tally, pattern: str) -> list[str]:
    """The symbols that the rows are about, as they lie."""
    pieces = [p for p in model.map.pieces if p.size and fnmatchcase(p.section, pattern)]
    for piece in pieces:
        kept = model.fates.get((piece.object, piece.section))
        tally.expect(kept is True, f"{piece} is in the image, and the plan does not keep it")
    return [piece.section.partition("+")[2] for piece in sorted(pieces, key=lambda each: each.address)]
