"""Damage for readers of files from elsewhere: whatever happens to a file, they answer or say why not."""

from __future__ import annotations

import struct
from collections.abc import Callable

from hypothesis import strategies as st

from tracer.host import UserError
from tracer.readers.sightings import ForeignTrace

Reader = Callable[[bytes, str], ForeignTrace]


def survives(read: Reader, data: bytes, app: str = "a") -> ForeignTrace | None:
    """What the reader makes of it. LostEvents is a UserError; any other exception fails the test."""
    try:
        found = read(data, app)
    except UserError as error:
        assert str(error) and "\n" not in str(error)
        return None
    assert isinstance(found, ForeignTrace)
    return found


@st.composite
def damaged(draw: st.DrawFn, whole: bytes) -> bytes:
    """Truncated, or with bytes changed, put in, or taken out, in a few places."""
    data = bytearray(whole)
    for _ in range(draw(st.integers(1, 4))):
        at = draw(st.integers(0, len(data)))
        kind = draw(st.sampled_from(["change", "insert", "delete", "truncate", "large"]))
        if kind == "truncate":
            del data[at:]
        elif kind == "delete":
            del data[at : at + draw(st.integers(1, 20))]
        elif kind == "insert":
            data[at:at] = draw(st.binary(min_size=1, max_size=20))
        elif kind == "large":
            data[at : at + 8] = draw(
                st.sampled_from([b"\xff" * 8, b"\x7f" * 4, b"\0" * 8, b"\xff\xff", b"9" * 30])
            )
        else:
            data[at : at + 1] = draw(st.binary(min_size=1, max_size=1))
    return bytes(data)


@st.composite
def damaged_fields(draw: st.DrawFn, whole: bytes, headers_at: int | None = None) -> bytes:
    """An object whose headers, symbols and relocations hold other values that mean something.

    ``headers_at``: where its section headers begin, of an object that is not ELF64.
    """
    data = bytearray(whole)
    headers = struct.unpack_from("<Q", whole, 40)[0] if headers_at is None else headers_at
    last = len(whole) // 4 - 1
    for _ in range(draw(st.integers(1, 3))):
        at = draw(st.one_of(st.integers(headers // 4, last), st.integers(16, last))) * 4
        value = draw(st.sampled_from(_MEANINGFUL))
        struct.pack_into("<I", data, at, value)
    return bytes(data)


_MEANINGFUL = (0, 1, 2, 3, 4, 5, 8, 9, 18, 24, 64, 0x7FFFFFFF, 0xFFFFFFFF, 0xFFF1, 1 << 20)
