"""How many bytes of an image each row of its link map is.

ld merges equal constants, and its map shows them where and as large as they were: such rows overlap what
follows. So every output section is covered byte by byte: what is not merged first, then what lies between,
and of a merged row only what is still free counts.
"""

from __future__ import annotations

import re
from dataclasses import replace

import numpy as np

from prune.model.linkmap import Fill, LinkMap, Output, Placed
from tracer.host import UserError

#: Bytes of all output sections, debug information included; each takes one of memory here.
_MOST = 1 << 30
_MERGED = re.compile(r"\.(str|cst)[0-9]+(\.|$)")


def true_sizes(link_map: LinkMap) -> LinkMap:
    """The map with the sizes of rows in loaded output sections that the image has.

    Raises:
        UserError: the map says that the image is larger than any.
    """
    ground = _Ground(link_map)
    placed = list(link_map.placed)
    merged = [bool(_MERGED.search(row.section)) for row in placed]
    for late in (False, True):
        for index, row in enumerate(placed):
            if row.size and merged[index] == late:
                placed[index] = replace(row, size=ground.take(row))
        if not late:
            fills = tuple(replace(each, size=ground.take(each)) for each in link_map.fills)
    return replace(link_map, placed=tuple(placed), fills=fills)


class _Ground:
    """The bytes of loaded output sections, and which of them are covered already."""

    def __init__(self, link_map: LinkMap) -> None:
        self.outputs: dict[str, Output] = {output.name: output for output in link_map.outputs}
        if sum(output.size for output in self.outputs.values()) > _MOST:
            raise UserError(
                f"measuring a link map: its sections have more than {_MOST >> 30} GiB",
                "no kernel is so large",
            )
        self.free = {name: np.ones(output.size, bool) for name, output in self.outputs.items()}

    def take(self, row: Placed | Fill) -> int:
        """Cover a row; how many of its bytes were free."""
        output = self.outputs.get(row.output)
        if output is None:
            return row.size
        at = row.address - output.address
        part = self.free[row.output][max(at, 0) : max(at + row.size, 0)]
        taken = int(np.count_nonzero(part))
        part[:] = False
        return taken
