"""The options of a kernel configuration."""

from __future__ import annotations

import re
from pathlib import Path

from tracer.host import UserError

_SET = re.compile(r"^(CONFIG_\w+)=(.*)$")
#: kbuild hands values on to make and to shells (include/config/auto.conf), which expand these.
_RUNS = re.compile(r"[$`]")
_UNSET = re.compile(r"^# (CONFIG_\w+) is not set$")


def read_options(path: Path) -> dict[str, str]:
    """Option -> value of a config file or fragment, "n" for one that is not set; a later line wins.

    Raises:
        UserError: unreadable, or a line that is no option.
    """
    try:
        lines = path.read_text().splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"reading kernel configuration {path}: {error}") from error
    options: dict[str, str] = {}
    for number, line in enumerate(lines, 1):
        text = line.strip()
        found = _SET.match(text)
        unset = _UNSET.match(text)
        if found and _RUNS.search(found[2]):
            raise UserError(
                f"reading kernel configuration {path}: line {number}: make or a shell would run this: {text}"
            )
        if found:
            options[found[1]] = found[2]
        elif unset:
            options[unset[1]] = "n"
        elif text and not text.startswith("#"):
            raise UserError(f"reading kernel configuration {path}: line {number} is no option: {text}")
    return options
