"""Read a link map, whichever linker wrote it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from prune.model.knowledge import stripped_outputs
from prune.model.ldmap import parse_ld_map
from prune.model.linkmap import LinkMap
from prune.model.lldmap import HEADING, parse_lld_map
from tracer.host import UserError


def read_link_map(path: Path) -> LinkMap:
    """Read a link map.

    Raises:
        UserError: no such file, or not a link map.
    """
    try:
        text = path.read_text(errors="surrogateescape")
    except OSError as error:
        raise UserError(f"reading link map {path}: {error.strerror}", "build the kernel again") from error
    return parse_link_map(text, str(path))


def parse_link_map(text: str, name: str = "map") -> LinkMap:
    """As :func:`read_link_map`, from text."""
    return _finished(parse_lld_map(text, name) if HEADING.match(text) else parse_ld_map(text, name))


def _finished(link_map: LinkMap) -> LinkMap:
    """Without what the finished vmlinux does not have any more."""
    gone = stripped_outputs()
    if not any(output.name in gone for output in link_map.outputs):
        return link_map
    return replace(
        link_map,
        placed=tuple(row for row in link_map.placed if row.output not in gone),
        merged=tuple(row for row in link_map.merged if row.output not in gone),
        fills=tuple(fill for fill in link_map.fills if fill.output not in gone),
        outputs=tuple(output for output in link_map.outputs if output.name not in gone),
    )
