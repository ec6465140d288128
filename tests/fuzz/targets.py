"""All targets by name."""

from __future__ import annotations

from tests.fuzz import documents, kernel_modules, links, machines, traces, views
from tests.fuzz.harness import Target

TARGETS: dict[str, Target] = {
    each.name: each
    for part in (traces, documents, views, links, machines, kernel_modules)
    for each in part.TARGETS
}
