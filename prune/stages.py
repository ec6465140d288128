"""Stages that know their inputs by content: nothing is done twice, and no time stamp is believed.

``OUT/.stages/NAME.json`` records the key of the inputs, the hash of every output, and how long the work
took. A stage is skipped when the key is the same and every output still has its hash.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from tracer.host import file_hash, say, write_json

SCHEMA = 1


def content_key(name: str, inputs: Mapping[str, str | int | Path | None]) -> str:
    """Hash of a stage's name and inputs; a path stands for its file's content."""
    digest = hashlib.sha256(name.encode())
    for label, value in sorted(inputs.items()):
        if isinstance(value, Path):
            value = file_hash(value) if value.is_file() else "absent"
        digest.update(f"\0{label}={value}".encode())
    return digest.hexdigest()


def source_hash(*folders: Path) -> str:
    """Hash of kprune's own code and data in the given folders: new code does the work again."""
    digest = hashlib.sha256()
    for folder in folders:
        for path in sorted(p for p in folder.rglob("*") if p.is_file() and "__pycache__" not in p.parts):
            digest.update(f"{path.relative_to(folder)}\0".encode())
            digest.update(path.read_bytes())
    return digest.hexdigest()


def run_stage(
    out: Path,
    name: str,
    inputs: Mapping[str, str | int | Path | None],
    outputs: Sequence[Path],
    work: Callable[[], object],
) -> bool:
    """Do ``work`` unless it was done with the same inputs; say which. True when work was done."""
    record = out / ".stages" / f"{name}.json"
    key = content_key(name, inputs)
    if _done(record, key, outputs):
        say(f"{name}: unchanged")
        return False
    # A record of an older run must not outlive outputs that are about to change.
    record.unlink(missing_ok=True)
    say(f"{name} ...")
    began = time.monotonic()
    work()
    seconds = time.monotonic() - began
    hashes = {str(path.relative_to(out)): file_hash(path) for path in outputs}
    write_json(record, {"schema_version": SCHEMA, "key": key, "seconds": seconds, "outputs": hashes})
    say(f"{name}: done in {seconds:.1f} s")
    return True


def _done(record: Path, key: str, outputs: Iterable[Path]) -> bool:
    found: dict[str, Any] = {}
    with contextlib.suppress(OSError, ValueError):
        found = json.loads(record.read_text())
    out = record.parent.parent
    return found.get("key") == key and all(
        path.is_file() and found["outputs"].get(str(path.relative_to(out))) == file_hash(path)
        for path in outputs
    )


def stage_seconds(out: Path, names: Iterable[str]) -> dict[str, float]:
    """Seconds that each stage took when it last did its work."""
    seconds: dict[str, float] = {}
    for name in names:
        with contextlib.suppress(OSError, ValueError, KeyError):
            seconds[name] = float(json.loads((out / ".stages" / f"{name}.json").read_text())["seconds"])
    return seconds
