"""Writes trace-cmd's ``trace.dat``, versions 6 and 7, for tests. Shares nothing with the reader.

Events are given as what they mean; layouts are those of the man pages trace-cmd.dat.v6(5) and .v7(5) and of
include/linux/ring_buffer.h.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Sequence
from typing import Literal, NamedTuple

import zstandard

MAGIC = b"\x17\x08\x44tracing"
FUNCTION, GRAPH_ENTRY, OTHER = 1, 11, 5


class Kernel(NamedTuple):
    """The traced machine. ``word``: bytes of its long; ``page``: of its ring buffer's pages."""

    order: Literal["little", "big"] = "little"
    word: int = 8
    page: int = 4096

    @property
    def prefix(self) -> str:
        return "<" if self.order == "little" else ">"

    def pack(self, format: str, *values: int) -> bytes:
        return struct.pack(self.prefix + format.replace("L", "Q" if self.word == 8 else "I"), *values)

    def texts(self) -> tuple[str, str]:
        start = 8 + self.word
        return (
            "\tfield: u64 timestamp;\toffset:0;\tsize:8;\tsigned:0;\n"
            f"\tfield: local_t commit;\toffset:8;\tsize:{self.word};\tsigned:1;\n"
            "\tfield: int overwrite;\toffset:8;\tsize:1;\tsigned:1;\n"
            f"\tfield: char data;\toffset:{start};\tsize:{self.page - start};\tsigned:1;\n",
            "# compressed entry header\n\ttype_len    :    5 bits\n\ttime_delta  :   27 bits\n"
            "\tarray       :   32 bits\n\n\tpadding     : type == 29\n\ttime_extend : type == 30\n"
            "\ttime_stamp : type == 31\n\tdata max type_len  == 28\n",
        )

    def formats(self, function_id: int = FUNCTION) -> list[bytes]:
        """Three events of the ftrace system; the field names are the kernel's."""
        common = (
            "\tfield:unsigned short common_type;\toffset:0;\tsize:2;\tsigned:0;\n"
            "\tfield:unsigned char common_flags;\toffset:2;\tsize:1;\tsigned:0;\n"
            "\tfield:unsigned char common_preempt_count;\toffset:3;\tsize:1;\tsigned:0;\n"
            "\tfield:int common_pid;\toffset:4;\tsize:4;\tsigned:1;\n\n"
        )
        long = f"size:{self.word};\tsigned:0;\n"
        events = {
            ("function", function_id): (
                f"\tfield:unsigned long ip;\toffset:8;\t{long}"
                f"\tfield:unsigned long parent_ip;\toffset:{8 + self.word};\t{long}\n"
                'print fmt: " %ps <-- %ps", (void *)REC->ip, (void *)REC->parent_ip\n'
            ),
            ("funcgraph_entry", GRAPH_ENTRY): (
                f"\tfield:unsigned long func;\toffset:8;\t{long}"
                f"\tfield:int depth;\toffset:{8 + self.word};\tsize:4;\tsigned:1;\n\n"
                'print fmt: "--> %ps (%d)", (void *)REC->func, REC->depth\n'
            ),
            ("print", OTHER): (
                f"\tfield:unsigned long ip;\toffset:8;\t{long}"
                f"\tfield:char buf[];\toffset:{8 + self.word};\tsize:0;\tsigned:0;\n\n"
                'print fmt: "%ps: %s", (void *)REC->ip, REC->buf\n'
            ),
        }
        return [f"name: {n}\nID: {i}\nformat:\n{common}{body}".encode() for (n, i), body in events.items()]

    def head(self, kind: int, delta: int = 1) -> bytes:
        return self.pack("I", kind | delta << 5 if self.order == "little" else kind << 27 | delta)

    def call(self, pid: int, ip: int, event: int = FUNCTION, how: str = "short") -> bytes:
        """A call, encoded in one of the ways that the ring buffer has; ``how`` can name what precedes it."""
        data = self.pack("HBBiL", event, 0, 0, pid, ip)
        data += self.pack("I", 1) if event == GRAPH_ENTRY else self.pack("L", ip)
        before = {
            "extend": self.head(30) + self.pack("I", 7),
            "stamp": self.head(31) + self.pack("I", 7),
            "discarded": self.head(29) + self.pack("I", 12) + bytes(8),
        }
        if how == "long":
            return self.head(0) + self.pack("I", len(data) + 4) + data
        return before.get(how, b"") + self.head(len(data) // 4) + data

    def pages(self, events: Sequence[bytes], flags: int = 0, end: bytes = b"") -> bytes:
        """Events on as few pages as they need, in order; ``flags`` go into the first page's commit."""
        room = self.page - 8 - self.word
        contents = [b""]
        for event in [*events, end]:
            if len(contents[-1]) + len(event) > room:
                contents.append(b"")
            contents[-1] += event
        written = [
            self.pack("QL", 1000 * (i + 1), len(content) | flags * (not i)) + content.ljust(room, b"\0")
            for i, content in enumerate(contents)
        ]
        return b"".join(written) if events or end else b""


class Dat(NamedTuple):
    """A file's content. ``cpus``: pages by processor; ``instances``: the same, by name. ``said_cpus``: how
    many version 6 says there are where it first can; the option that corrects it follows."""

    kernel: Kernel = Kernel()
    cpus: tuple[bytes, ...] = ()
    instances: tuple[tuple[str, tuple[bytes, ...]], ...] = ()
    kallsyms: bytes = b""
    cmdlines: bytes = b""
    stats: tuple[str, ...] = ()
    formats: tuple[bytes, ...] = ()
    said_cpus: int | None = None

    def sized(self, format: str, text: bytes) -> bytes:
        return self.kernel.pack(format, len(text)) + text

    def parts(self) -> dict[int, bytes]:
        """The content of sections by their number in version 7, in the order of version 6."""
        pack, (page, event) = self.kernel.pack, self.kernel.texts()
        formats = self.formats or self.kernel.formats()
        return {
            16: b"header_page\0" + self.sized("Q", page.encode())
            + b"header_event\0" + self.sized("Q", event.encode()),
            17: pack("I", len(formats)) + b"".join(self.sized("Q", each) for each in formats),
            18: pack("I", 1) + b"sched\0" + pack("I", 1) + self.sized("Q", b"name: sched_switch\nID: 300\n"),
            19: self.sized("I", self.kallsyms),
            20: self.sized("I", b""),
            21: self.sized("Q", self.cmdlines),
        }  # fmt: skip

    def start(self, version: str) -> bytes:
        kernel = self.kernel
        order = b"\1" if kernel.order == "big" else b"\0"
        return MAGIC + version.encode() + b"\0" + order + bytes([kernel.word]) + kernel.pack("I", kernel.page)

    def options(self) -> list[tuple[int, bytes]]:
        uname = (5, b"Linux test 6.1 x\0")
        count = [] if self.said_cpus is None else [(8, self.kernel.pack("I", len(self.cpus)))]
        return [uname, *count, *((2, text.encode() + b"\0") for text in self.stats), (99, b"unknown")]

    def v6(self) -> bytes:
        """Version 6. Offsets are known only at the end, so all is laid out twice."""
        pack = self.kernel.pack

        def lay(places: list[int]) -> tuple[bytes, list[int]]:
            found: list[int] = []
            at = iter(places)
            said = len(self.cpus) if self.said_cpus is None else self.said_cpus
            data = self.start("6") + b"".join(self.parts().values()) + pack("I", said) + b"options  \0"
            buffers = [(3, pack("Q", next(at)) + name.encode() + b"\0") for name, _ in self.instances]
            for number, content in self.options() + buffers:
                data += pack("H", number) + self.sized("I", content)
            data += pack("H", 0)
            for i, (_, cpus) in enumerate([("", self.cpus), *self.instances]):
                found += [len(data)] if i else []
                data += b"flyrecord\0"
                table = len(data)
                data += bytes(16 * len(cpus))
                for j, pages in enumerate(cpus):
                    data = data.ljust(-(-len(data) // 4096) * 4096, b"\0")
                    entry = pack("QQ", len(data), len(pages))
                    data = data[: table + 16 * j] + entry + data[table + 16 * j + 16 :] + pages
            return data, found

        _, places = lay([0] * len(self.instances))
        return lay(places)[0]

    def v7(self, compression: str = "none") -> bytes:
        """Version 7; "zlib" and "zstd" compress sections and the processors' data, two pages to a chunk."""
        pack, small = self.kernel.pack, compression in ("zlib", "zstd")

        def packed(content: bytes) -> bytes:
            squeezed = zlib.compress(content) if compression == "zlib" else zstandard.compress(content)
            return pack("II", len(squeezed), len(content)) + squeezed

        def section(number: int, content: bytes) -> bytes:
            content = packed(content) if small else content
            return pack("HHIQ", number, small, 0, len(content)) + content

        data = self.start("7") + f"{compression}\0{'1' if small else ''}\0".encode() + pack("Q", 0)
        first = len(data) - 8
        options = self.options()
        for number, content in self.parts().items():
            options.append((number, pack("Q", len(data))))
            data += section(number, content)
        for name, cpus in [("", self.cpus), *self.instances]:
            option = (
                pack("Q", len(data)) + f"{name}\0local\0".encode() + pack("II", self.kernel.page, len(cpus))
            )
            data += pack("HHIQ", 3, small, 0, 0)
            for i, pages in enumerate(cpus):
                step = 2 * self.kernel.page
                chunks = [packed(pages[at : at + step]) for at in range(0, len(pages), step)]
                written = pack("I", len(chunks)) + b"".join(chunks) if small else pages
                data = data.ljust(-(-len(data) // 4096) * 4096, b"\0")
                option += pack("IQQ", i, len(data), len(written) - (4 if small and written else 0))
                data += written
            options.append((3, option))
        # Two sections of options, the second one written first.
        last = 0
        for half in (options[3:], options[:3]):
            content = b"".join(pack("H", n) + self.sized("I", t) for n, t in half)
            content += pack("H", 0) + self.sized("I", pack("Q", last))
            last = len(data)
            data += section(0, content)
        return data[:first] + pack("Q", last) + data[first + 8 :]
