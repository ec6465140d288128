"""All targets by name."""

from __future__ import annotations

from tests.fuzz import documents, links, machines, traces, views
from tests.fuzz.harness import Target

TARGETS: dict[str, Target] = {
    each.name: each for part in (traces, documents, views, links, machines) for each in part.TARGETS
}
