"""Which exported symbols somebody needs, and who."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from prune.model.knowledge import version_symbols


def needed_exports(needs: Mapping[str, Sequence[str]]) -> dict[str, str]:
    """Symbol -> why its export row stays.

    Args:
        needs: module -> the symbols that it leaves undefined.
    """
    users: dict[str, list[str]] = {}
    for name, symbols in needs.items():
        for symbol in symbols:
            users.setdefault(symbol, []).append(name)
    looked_up = dict.fromkeys(sorted(version_symbols()), "exported, and looked up by the loader of modules")
    return looked_up | {
        symbol: f"exported, and needed by {', '.join(names)}" for symbol, names in users.items()
    }
