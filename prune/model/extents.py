"""Whether an ELF file has all that it says of itself, before any of it is read.

pyelftools asks for as many bytes as a header says, and Python sets aside memory for them.
"""

from __future__ import annotations

import os
from typing import BinaryIO

from elftools.common.exceptions import ELFError
from elftools.elf.elffile import ELFFile


def open_whole(stream: BinaryIO) -> ELFFile:
    """An ELF file none of whose sections and segments ends behind it.

    Raises:
        ELFError: one does, or it is no ELF file.
    """
    file = ELFFile(stream)
    size = os.fstat(stream.fileno()).st_size
    ends = [each["p_offset"] + each["p_filesz"] for each in file.iter_segments()]
    ends += [
        each["sh_offset"] + each["sh_size"]
        for each in file.iter_sections()
        if each["sh_type"] != "SHT_NOBITS"
    ]
    if max(ends, default=0) > size:
        raise ELFError("a part of it ends behind the file")
    return file
