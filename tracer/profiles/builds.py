"""What a profile says of the build that it is of: its kernel, its sources, what could not be seen of it."""

from __future__ import annotations

from collections.abc import Iterable

from tracer.profiles.identity import Carrier
from tracer.profiles.phases import FTRACE
from tracer.profiles.profile import BlindSpot, KernelId
from tracer.profiles.symbols import Identity, Symbols


def kernel_id(symbols: Symbols) -> KernelId:
    """Which kernel a build's symbols are of."""
    return KernelId(symbols.build_id, symbols.config, symbols.source, symbols.version, symbols.options)


def files_of(functions: Iterable[Identity], symbols: Symbols) -> tuple[tuple[str, str], ...]:
    """(object, hash of its source file) of the objects of the functions, as far as it is known."""
    objects = {function.object for function in functions}
    return tuple(sorted((name, symbols.files[name]) for name in objects if name in symbols.files))


def blind_spots(carrier: Carrier, traced: Symbols) -> tuple[BlindSpot, ...]:
    """Production functions that ftrace cannot report, with a traced build as given."""
    traceable = [f for i, f in enumerate(traced.functions) if traced.traceable[i]]
    absent = set(carrier.missing_from(traced.functions))
    untraceable = set(carrier.missing_from(traceable)) - absent
    return (
        BlindSpot(FTRACE, "has no site for the function tracer", tuple(sorted(untraceable))),
        BlindSpot(FTRACE, "is not a function of the traced build", tuple(sorted(absent))),
    )
