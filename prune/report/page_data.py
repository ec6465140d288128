"""What the page shows, as columns: the ledger's rows with who ran them, the report, the boots."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from prune.ledger.ledger import KINDS, Ledger, Row
from prune.report.report import SIZE_ROWS
from tracer.profiles.profile import Profile

_FIRST, _LAST = ("boot", "start"), ("shutdown", "miss")
DROPPED, RESIDENT, FREED = range(3)


def page_data(
    ledger: Ledger, profile: Profile, report: Mapping[str, Any], boots: Sequence[Mapping[str, Any]], log: str,
    facts: Sequence[str], minram: Mapping[str, Any] | None = None, security: Mapping[str, Any] | None = None,
    holdout: Mapping[str, Any] | None = None, soak: Mapping[str, Any] | None = None,
) -> dict[str, Any]:  # fmt: skip
    """The page's data.

    Args:
        boots: ``each`` of boots.json. log: what the console of one boot said. facts: words for the head.
        minram: what minram.json holds, None where nobody searched; security: of
            :func:`prune.security.exposure.read_exposure`. holdout: of
            :func:`prune.guests.held_out.read_holdout`. soak: of :func:`prune.guests.soaked.shown`.
    """
    apps = _apps(profile)
    return {
        "meta": {
            # Of a profile that was merged with what was healed, the first.
            "workload": profile.workload_name.partition("+")[0],
            "facts": list(facts),
            "text": [report["base"]["text_bytes"], report["pruned"]["text_bytes"]],
            "trace": _trace(report),
        },
        "sizes": _sizes(report),
        "apps": apps,
        "kinds": list(KINDS),
        **_columns(ledger.rows, _ran(profile, apps)),
        "runs": [{"name": run.name, "source": run.source, "new": run.new} for run in profile.runs],
        "boots": [
            {key: boot[key] for key in ("number", "variation", "seconds", "problem")} for boot in boots
        ],
        "said": report["validation"]["console"],
        "log": log,
        "minram": _minram(minram) if minram else None,
        "security": security,
        "holdout": holdout,
        "soak": soak,
    }


def _sizes(report: Mapping[str, Any]) -> list[list[Any]]:
    """Rows of label, base, pruned."""
    rows = [[label.strip(), report["base"][key], report["pruned"][key]] for label, key in SIZE_ROWS]
    for label, key in (("rodata + data + bss", "rodata_data_bss"), ("init text + data", "init")):
        both = report["ledger"][key]
        rows.append([f"{label}, without what the configuration fixes", both["base"], both["pruned"]])
    left = report["memory"]
    if all(left.values()):
        label = f"memory left for others, of {left['machine'] >> 10:,} KiB"
        rows.append([label, left["base"], left["pruned"]])
    return rows


def _minram(found: Mapping[str, Any]) -> dict[str, Any]:
    """Columns by side: ``smallest``, and rows of a name and bytes."""
    sides: Mapping[str, Any] = found["sides"]
    names = next(iter(sides.values()))["rows"]
    return {
        "sides": list(sides),
        "apps": found["apps"],
        "smallest": [each["smallest"] for each in sides.values()],
        "rows": [[name, *(each["rows"][name] for each in sides.values())] for name in names],
    }


def _apps(profile: Profile) -> list[str]:
    """Phases and apps in the order of their time."""
    seen = {each.app for record in profile.functions for each in record.seen}
    middle = [app for app in profile.apps if app not in (*_FIRST, *_LAST)]
    others = sorted(seen - {*_FIRST, *_LAST, *middle})
    return [app for app in (*_FIRST, *middle, *others, *_LAST) if app in seen]


def _ran(profile: Profile, apps: Sequence[str]) -> dict[tuple[str, str], int]:
    """(object, section) -> bits of the apps that ran it."""
    bit = {app: 1 << number for number, app in enumerate(apps)}
    found: dict[tuple[str, str], int] = {}
    for record in profile.functions:
        place = (record.object, record.section)
        for each in record.seen:
            found[place] = found.get(place, 0) | bit[each.app]
    return found


def _columns(rows: Sequence[Row], ran: Mapping[tuple[str, str], int]) -> dict[str, Any]:
    objects, reasons, causes = _Strings(), _Strings(), _Strings()
    return {
        "units": {
            "object": [objects.number(row.object) for row in rows],
            "section": [row.section for row in rows],
            "name": [row.symbol for row in rows],
            "base": [max(row.base, 0) for row in rows],
            "pruned": [max(row.pruned, 0) for row in rows],
            "fate": [DROPPED if row.pruned <= 0 else RESIDENT if row.resident else FREED for row in rows],
            "moved": [int(row.kind == "text" and row.pruned > 0 and not row.resident) for row in rows],
            "kind": [KINDS.index(row.kind) for row in rows],
            "reason": [reasons.number(row.reason) for row in rows],
            "cause": [causes.number(row.removed_by) for row in rows],
            "apps": [ran.get((row.object, row.section), 0) for row in rows],
        },
        "objects": objects.all,
        "reasons": reasons.all,
        "causes": causes.all,
    }


class _Strings:
    """Each string once, with a number."""

    def __init__(self) -> None:
        self.all: list[str] = []
        self._numbers: dict[str, int] = {}

    def number(self, text: str) -> int:
        if text not in self._numbers:
            self._numbers[text] = len(self.all)
            self.all.append(text)
        return self._numbers[text]


def _trace(report: Mapping[str, Any]) -> str:
    known = report["saturation"]
    if not known:
        return ""
    text = f"{known['curve'][-1]:,} functions after {known['runs']} runs"
    return f"{text}; the last {known['quiet']} added none." if known["quiet"] else f"{text}."
