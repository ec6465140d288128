"""Running kbuild's make: progress while it works, the first cause when it fails."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from prune.build.config import leftovers
from tracer.host import BuildFailed, HostError, say


def run_make(what: str, command: Sequence[str], log: Path, extra: Mapping[str, str]) -> None:
    """Run make with its output in a log and a line of progress every ten seconds.

    Args:
        what: "production kernel", for the messages.
        extra: environment on top of the user's, from which everything that kbuild takes is removed.

    Raises:
        BuildFailed: the compiler or the linker failed; the message names the first error and the log.
        HostError: there is no make, or the disk is full.
    """
    unwanted = leftovers()
    environment = {key: value for key, value in os.environ.items() if key not in unwanted}
    environment.update({"LC_ALL": "C", **extra})
    log.parent.mkdir(parents=True, exist_ok=True)
    began = spoke = time.monotonic()
    with log.open("w") as stream:
        stream.write(f"$ {shlex.join(command)}\n")
        stream.flush()
        try:
            made = subprocess.Popen(
                list(command),
                stdin=subprocess.DEVNULL,
                stdout=stream,
                stderr=subprocess.STDOUT,
                env=environment,
            )
        except OSError as error:
            raise HostError(f"building the kernel: make: {error.strerror}", "see kprune doctor") from error
        try:
            while made.poll() is None:
                time.sleep(0.05)
                if time.monotonic() - spoke >= 10:
                    spoke = time.monotonic()
                    objects = len(re.findall(r"^  (?:CC|AS) ", log.read_text(errors="replace"), re.M))
                    say(f"  {objects} objects compiled, {spoke - began:.0f} s")
        finally:
            if made.poll() is None:
                made.terminate()
                made.wait()
    if made.returncode != 0:
        raise _failure(what, log)


def _failure(what: str, log: Path) -> BuildFailed | HostError:
    text = log.read_text(errors="replace")
    full = re.search(r"^.*No space left on device.*$", text, re.M)
    if full:
        return HostError(f"building the {what}: {full[0].strip()}", "free some space")
    # The first line that names an error is the cause; what make says after it is the echo. "not found" can
    # also be a shell that tried a tool which kbuild does without, so it counts only when nothing else does.
    causes = (r"\berror:|kprune-ld:|undefined reference|fatal:", r"\bError\b|not found")
    hits = (re.search(rf"^(?!make|\$ ).*(?:{cause}).*$", text, re.M) for cause in causes)
    line = next((hit for hit in hits if hit), None)
    others = [said for said in text.splitlines() if said.strip() and not said.startswith("make")]
    said = line[0].strip() if line else others[-1].strip()
    return BuildFailed(f"building the {what}: {said}", f"all of it is in {log}")
