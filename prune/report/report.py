"""``report.json``, ``metadata.json`` and the table on the terminal.

Byte counts come from the link maps of the base and the pruned kernel, never from file sizes (but for the
boot image) and never from what the plan hoped for.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from prune.ledger.sizes import Sizes
from prune.modules.sizes import module_lines

SCHEMA = 1
#: Lines of consoles that the table has; report.json has more.
MOST_SAID = 10
SIZE_ROWS = (
    ("text", "text_bytes"),
    ("  resident", "resident_text_bytes"),
    ("init text", "init_text_bytes"),
    ("rodata", "rodata_bytes"),
    ("data", "data_bytes"),
    ("bss", "bss_bytes"),
    ("boot image", "image_bytes"),
    ("functions", "functions"),
)


def make_report(
    base: Sizes,
    pruned: Sizes,
    tombstones: int,
    validation: Mapping[str, Any],
    knowledge: Mapping[str, Any],
    stages: Mapping[str, float],
    heal: Mapping[str, Any],
    plan_counts: Mapping[str, int],
    unused_rules: Sequence[str],
    more: Mapping[str, Any],
) -> dict[str, Any]:
    """The report as it is written.

    Args:
        validation: ``boots``, ``passed``, ``repeated``, ``misses``, ``answered``, ``console`` of the boot
            stage (:mod:`prune.guests.consoles`), and ``verify``.
        stages: seconds of each stage when it last did its work.
        knowledge: ``profile`` and ``saturation``: what is known of the workload, and how completely.
        more: ``ledger``, its summary; ``memory`` that each kernel left for others; ``block_traps``, the traps
            in functions for cold blocks that were taken out; ``modules`` (:mod:`prune.modules.sizes`).
        heal: ``rounds``, ``converged``, ``why`` not, and ``added``, the functions that boots missed.
    """
    return {
        "schema_version": SCHEMA,
        "base": asdict(base),
        "pruned": asdict(pruned),
        "change": {
            key: round(getattr(pruned, key) / getattr(base, key) - 1, 4) if getattr(base, key) else 0.0
            for _, key in SIZE_ROWS
        },
        "tombstones": tombstones,
        "plan": dict(plan_counts),
        "unused_rules": list(unused_rules),
        **knowledge,
        **more,
        "validation": dict(validation),
        "heal": dict(heal),
        "seconds": {name: round(seconds, 2) for name, seconds in stages.items()},
    }


def table(report: Mapping[str, Any]) -> str:
    """The report for a person."""
    lines = [f"{'':12}{'base':>12}{'pruned':>12}{'change':>9}"]
    for label, key in SIZE_ROWS:
        base, pruned = report["base"][key], report["pruned"][key]
        lines.append(f"{label:12}{base:12,}{pruned:12,}{report['change'][key]:9.1%}")
    validation = report["validation"]
    lines.append(f"{'tombstones':12}{'':12}{report['tombstones']:12,}")
    if report["plan"].get("stops"):
        lines.append(f"{'  under locks':24}{report['plan']['stops']:12,}  they stop the machine")
    if report["block_traps"]:
        lines.append(f"{'block traps':12}{'':12}{report['block_traps']:12,}")
    lines += _apart(report["ledger"], report["memory"])
    lines += module_lines(report.get("modules", {}))
    lines.append("")
    lines.append(f"verify: {validation['verify'] or 'not run'}")
    lines.append(f"boots: {validation['passed']} of {validation['boots']} ran the whole workload")
    if validation["repeated"]:
        lines.append(
            f"        {validation['repeated']} of them after a first try in which the guest was lost"
        )
    lines += _healed(report["heal"])
    lines += _known(report["profile"], report["saturation"])
    if report["plan"].get("carried"):
        lines.append(
            f"       {report['plan']['carried']:,} functions ({report['plan']['carried_bytes']:,} bytes) were"
            " kept of which that build cannot say that they did not run"
        )
    if report["plan"].get("inferred"):
        lines.append(
            f"       {report['plan']['inferred']:,} functions were kept that nothing could have seen run"
        )
    for miss in validation["misses"]:
        lines.append(
            f"missed: {miss['function']} ({miss['object']}), called by {miss['caller'] or 'unknown'}"
        )
    for each in validation["answered"]:
        how = "asked for, and gone" if each["call"] else "answered by policy"
        lines.append(f"{how}: {each['function']} ({each['object']}), {each['value']}")
    said = validation["console"]
    for line in said["new"][:MOST_SAID]:
        lines.append(
            f"only the pruned kernel says, in {line['boots']} of {said['boots']} boots: {line['text']}"
        )
    for rule in report["unused_rules"]:
        lines.append(f"rule {rule} matches nothing")
    lines.append("seconds: " + ", ".join(f"{name} {value:.1f}" for name, value in report["seconds"].items()))
    return "\n".join(lines)


def _apart(ledger: Mapping[str, Any], memory: Mapping[str, Any]) -> list[str]:
    """What the ledger says of data and init without what the configuration fixes, and of memory."""
    lines = []
    for label, key in (("data, all", "rodata_data_bss"), ("init, all", "init")):
        both, fixed = ledger[key], ledger[f"{key}_fixed"]["pruned"]
        change = both["pruned"] / both["base"] - 1 if both["base"] else 0.0
        lines.append(
            f"{label:12}{both['base']:12,}{both['pruned']:12,}{change:9.1%}  besides {fixed:,} of fixed size"
        )
    if memory["base"] and memory["pruned"]:
        gain = (memory["pruned"] - memory["base"]) >> 10
        both = f"{memory['base'] >> 10:12,}{memory['pruned'] >> 10:12,}{gain:+9,}"
        lines.append(f"{'left (KiB)':12}{both}  of {memory['machine'] >> 10:,} when it has booted")
    return lines


def _healed(heal: Mapping[str, Any]) -> list[str]:
    lines = []
    if heal["added"]:
        names = ", ".join(each["function"] for each in heal["added"])
        lines.append(f"healed in {heal['rounds']} rounds: {names}")
    return lines if heal["converged"] else [*lines, f"not converged: {heal['why']}"]


def _known(profile: Mapping[str, Any], saturation: Mapping[str, Any] | None) -> list[str]:
    lines = []
    if saturation:
        line = f"trace: {saturation['curve'][-1]:,} functions after {saturation['runs']} runs"
        if saturation["unseen_estimate"] is not None:
            line += f", the last {saturation['quiet']} added none" if saturation["quiet"] else ""
            line += f"; at least {saturation['unseen_estimate']:g} more are to be expected,"
            line += f" {saturation['next_run_estimate']:g} in the next run"
        lines.append(line)
    if profile["ambiguous"]:
        lines.append(f"       {profile['ambiguous']} names stand for several functions: all were kept")
    for stale in profile["stale"]:
        moved = stale["source"] == stale["options"] == "same"
        line = f"profile {stale['workload']} of build {stale['build_id'][:12]}: {stale['carried']:,} of"
        line += f" {stale['functions']:,} functions that ran are functions here"
        if stale["ran_bytes"]:
            line += f" ({stale['carried_bytes'] / stale['ran_bytes']:.1%} of the bytes that ran)"
        lines.append(line if moved else f"stale {line}")
    return lines


def metadata(
    command: Sequence[str], tools: Mapping[str, str], inputs: Mapping[str, str], hashes: Mapping[str, str]
) -> dict[str, Any]:
    """What repeats the run: the command, the tools' versions, the hashes of inputs and outputs."""
    return {
        "schema_version": SCHEMA,
        "command": list(command),
        "tools": {"python": sys.version.split()[0], **tools},
        "inputs": dict(inputs),
        "sha256": dict(hashes),
    }
