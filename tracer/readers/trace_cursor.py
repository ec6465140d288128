"""Taking trace-cmd's files apart byte by byte: bounded reads, bounded expansion of what is compressed."""

from __future__ import annotations

import zlib

import zstandard

from tracer.host import UserError
from tracer.readers.ring_buffer import Order

DOING = "reading the trace-cmd file"
CONVERT = "trace-cmd convert --file-version 6 -i FILE -o NEW makes one that can be read"
#: Bytes that the compressed parts of a file may expand to.
MAX_EXPANDED = 1 << 31
#: Bytes of them that are expanded at once.
_PIECE = 1 << 20


class Cursor:
    """A place in a part of the file, from which bytes and numbers are taken.

    Raises:
        UserError: from every method, when the part ends before what is wanted.
    """

    def __init__(self, data: memoryview, order: Order, at: int = 0) -> None:
        self._data, self.order, self._at = data, order, at

    def take(self, size: int) -> memoryview:
        """The next bytes; a view, not a copy."""
        if size > len(self._data) - self._at:
            raise UserError(f"{DOING}: it ends in the middle; {size} bytes are missing or damaged")
        self._at += size
        return self._data[self._at - size : self._at]

    def number(self, size: int) -> int:
        """An unsigned number."""
        return int.from_bytes(self.take(size), self.order)

    def text(self, size_of_size: int) -> bytes:
        """A text after its size."""
        return bytes(self.take(self.number(size_of_size)))

    def string(self) -> str:
        """A string of sane length that ends with a zero byte."""
        start = bytes(self._data[self._at : self._at + 256])
        if b"\0" not in start:
            raise UserError(f"{DOING}: a name in it does not end")
        found = start[: start.index(b"\0")]
        self._at += len(found) + 1
        return found.decode(errors="replace")

    def at(self, offset: int) -> Cursor:
        """Another place in the same part."""
        if offset > len(self._data):
            raise UserError(f"{DOING}: it points to byte {offset} of {len(self._data)}; it is cut short")
        return Cursor(self._data, self.order, offset)

    def slice(self, offset: int, size: int) -> memoryview:
        """Bytes at another place in the same part; none can be anywhere."""
        return self.at(offset).take(size) if size else self._data[:0]


def _inflate(packed: memoryview, size: int) -> bytes:
    expander = zlib.decompressobj()
    data = expander.decompress(packed, size + 1)
    return data if expander.eof else b""


def _unzstd(packed: memoryview, size: int) -> bytes:
    # One frame, whose header may not promise more than the block's does.
    promised = zstandard.frame_content_size(packed)
    if promised > size:
        raise ValueError(f"it holds {promised} bytes")
    data = bytearray()
    with zstandard.ZstdDecompressor().stream_reader(packed) as stream:
        # In pieces: all that is asked for gets room at once, and a header may promise a gigabyte for nothing.
        while len(data) <= size and (piece := stream.read(min(size + 1 - len(data), _PIECE))):
            data += piece
    return bytes(data)


#: What trace-cmd may call the compression of a file -> how a block is expanded, to not much more than a size.
EXPANDERS = {"zlib": _inflate, "zstd": _unzstd}


class Expander:
    """Expands compressed parts, to no more than a bounded number of bytes in all."""

    def __init__(self, method: str = "", limit: int = MAX_EXPANDED) -> None:
        self._expand = EXPANDERS.get(method)
        self._left = limit

    def block(self, cursor: Cursor) -> memoryview:
        """A block after its two sizes, compressed and not: a section's content or a chunk of pages.

        Raises:
            UserError: it is not what its header says, or all of them are too much.
        """
        packed_size, size = cursor.number(4), cursor.number(4)
        packed = cursor.take(packed_size)
        self._left -= size
        if self._left < 0:
            raise UserError(f"{DOING}: it expands to more than {MAX_EXPANDED >> 30} GiB", CONVERT)
        if self._expand is None:
            raise UserError(f"{DOING}: a part is compressed in a file that is not")
        try:
            data = self._expand(packed, size)
        except (zlib.error, zstandard.ZstdError, ValueError) as error:
            raise UserError(f"{DOING}: a compressed part is damaged: {error}") from None
        if len(data) != size:
            raise UserError(f"{DOING}: a compressed part does not have the {size} bytes that it should")
        return memoryview(data)
