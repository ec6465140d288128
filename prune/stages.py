"""Stages that know their inputs by content: nothing is done twice, and no time stamp is believed.

``OUT/.stages/NAME.json`` records the key of the inputs, the hash of every output, and how long the work
took. A stage is skipped when the key is the same and every output still has its hash. Who does work in
``OUT`` has it alone (:func:`occupy`).
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import IO, Any

from tracer.host import HostError, UserError, file_hash, say, write_json

SCHEMA = 1
STAGES = ("build", "trace", "gather", "plan", "link", "verify", "boot", "report")
#: The folders that this process has for itself, and the open files that say so until it ends.
_OCCUPIED: dict[Path, IO[str]] = {}


def occupy(out: Path) -> None:
    """See to it that nobody else works in a run's folder until this process ends.

    Raises:
        UserError: another kprune does; HostError: there is no writing there.
    """
    place = out.absolute()
    if place in _OCCUPIED:
        return
    doing = f"working in {out}"
    try:
        (place / ".stages").mkdir(parents=True, exist_ok=True)
        handle = (place / ".stages" / "lock").open("a+")
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        handle.truncate(0)
        handle.write(f"{os.getpid()}\n")
        handle.flush()
    except BlockingIOError:
        handle.seek(0)
        raise UserError(
            f"{doing}: another kprune does, process {handle.read(20).strip() or 'unknown'}",
            "wait until it has ended, or choose another folder",
        ) from None
    except OSError as error:
        raise HostError(
            f"{doing}: {error.strerror}", "see who may write there and what room is left"
        ) from error
    _OCCUPIED[place] = handle


def content_key(name: str, inputs: Mapping[str, str | int | Path | None]) -> str:
    """Hash of a stage's name and inputs; a path stands for the content of its file or folder."""
    digest = hashlib.sha256(name.encode())
    for label, value in sorted(inputs.items()):
        if isinstance(value, Path):
            if value.is_dir():
                value = source_hash(value)
            else:
                value = file_hash(value) if value.is_file() else "absent"
        digest.update(f"\0{label}={value}".encode())
    return digest.hexdigest()


def source_hash(*folders: Path) -> str:
    """Hash of what folders contain. Given kprune's own, new code does the work again."""
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
    alone: bool = True,
) -> bool:
    """Do ``work`` unless it was done with the same inputs; say which. True when work was done.

    ``alone``: nobody else may be at work in the folder.

    Raises:
        UserError: somebody else is.
        HostError: ``work`` left one of the outputs unmade.
    """
    record = out / ".stages" / f"{name}.json"
    key = content_key(name, inputs)
    if _done(record, key, outputs):
        say(f"{name}: unchanged")
        return False
    if alone:
        occupy(out)
    # A record of an older run must not outlive outputs that are about to change.
    record.unlink(missing_ok=True)
    say(f"{name} ...")
    began = time.monotonic()
    work()
    seconds = time.monotonic() - began
    lost = [str(path) for path in outputs if not path.is_file()]
    if lost:
        raise HostError(f"{name}: {', '.join(lost)} was not made")
    hashes = {str(path.relative_to(out)): file_hash(path) for path in outputs}
    write_json(record, {"schema_version": SCHEMA, "key": key, "seconds": seconds, "outputs": hashes})
    say(f"{name}: done in {seconds:.1f} s")
    return True


def _done(record: Path, key: str, outputs: Iterable[Path]) -> bool:
    found = _read_record(record)
    hashes = found.get("outputs")
    out = record.parent.parent
    return (
        found.get("key") == key
        and isinstance(hashes, dict)
        and all(
            path.is_file() and hashes.get(str(path.relative_to(out))) == file_hash(path) for path in outputs
        )
    )


def _read_record(record: Path) -> dict[str, Any]:
    """What a stage left behind; a damaged record is no record."""
    try:
        found = json.loads(record.read_text())
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def stage_seconds(out: Path, names: Iterable[str]) -> dict[str, float]:
    """Seconds that each stage took when it last did its work."""
    seconds: dict[str, float] = {}
    for name in names:
        took = _read_record(out / ".stages" / f"{name}.json").get("seconds")
        if isinstance(took, int | float):
            seconds[name] = float(took)
    return seconds
