"""Write kallsyms as scripts/kallsyms.c does, in assembly: for kernels of every layout that there has been."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

_MARKED = 256
_PAIRS = 40  # two letters that become one code


@dataclass(frozen=True)
class Layout:
    """``addresses``: "relative", "percpu" (distances are negative), "near" (each from itself), "values" (of
    32 bits) or "words"; ``late``: addresses stand behind the names (since 6.4); ``by_name``: there is an
    order by name (since 6.2)."""

    addresses: str = "relative"
    late: bool = False
    by_name: bool = True


LAYOUTS = {
    "6.1": Layout(),
    "6.12": Layout(late=True),
    "6.0, SMP": Layout("percpu", by_name=False),
    "no BASE_RELATIVE": Layout("words"),
    "7.x": Layout("near", late=True),
    "7.x, 32 bit": Layout("values", late=True),
}


def write_kallsyms(symbols: Sequence[tuple[int, str, str]], layout: Layout, word: str, align: int) -> str:
    """The assembly of these (address, letter of nm, name), sorted by address.

    Args:
        word: the directive for an address; ``align``: its bytes.
    """
    texts = [f"{kind}{name}" for _, kind, name in symbols]
    codes = _codes(texts)
    rows = [_compress(text, codes) for text in texts]
    starts = [0]
    for row in rows:
        starts.append(starts[-1] + len(row))
    tokens = [codes.get(code, "") for code in range(256)]
    index = [sum(len(token) + 1 for token in tokens[:code]) for code in range(256)]
    base = min(address for address, _, _ in symbols)
    text = next((address for address, _, name in symbols if name == "start"), 0)
    order = sorted(range(len(symbols)), key=lambda number: (symbols[number][2], symbols[number][0]))
    place = {
        "words": [("addresses", [f"{word} {address:#x}" for address, _, _ in symbols])],
        "relative": [
            ("offsets", [f".long {address - base:#x}" for address, _, _ in symbols]),
            ("relative_base", [f"{word} {base:#x}"]),
        ],
        "percpu": [
            ("offsets", [f".long {base - address - 1}" for address, _, _ in symbols]),
            ("relative_base", [f"{word} {base:#x}"]),
        ],
        "near": [("offsets", [f".long start - . + ({address - text})" for address, _, _ in symbols])],
        "values": [("offsets", [f".long {address:#x}" for address, _, _ in symbols])],
    }[layout.addresses]
    names = [
        ("num_syms", [f".long {len(symbols)}"]),
        ("names", [_bytes(row) for row in rows]),
        ("markers", [f".long {start}" for start in starts[:-1:_MARKED]]),
    ]
    by_name = [("seqs_of_names", [_bytes(number.to_bytes(3, "big")) for number in order])]
    coded = [
        ("token_table", [f'.asciz "{token}"' for token in tokens]),
        ("token_index", [f".short {at}" for at in index]),
    ]
    by_name = by_name if layout.by_name else []
    tables = [*names, *coded, *place, *by_name] if layout.late else [*place, *names, *by_name, *coded]
    lines = ['.section .rodata, "a"']
    for name, content in tables:
        lines += [f".globl kallsyms_{name}", f".balign {align}", f"kallsyms_{name}:", *content]
    return "\n".join([*lines, '.section .note.GNU-stack, ""', ""])


def _codes(texts: Sequence[str]) -> dict[int, str]:
    """Code -> what it stands for: letters by their own, common pairs by codes that no letter has; none is
    there that no name needs."""
    free = (code for code in range(255, 0, -1) if not 0x20 <= code < 0x7F)
    pairs = Counter(text[at : at + 2] for text in texts for at in range(len(text) - 1))
    codes = {ord(letter): letter for letter in {*"".join(texts)}}
    codes |= {next(free): pair for pair, _ in pairs.most_common(_PAIRS)}
    used = {code for text in texts for code in _coded(text, codes)}
    assert 255 in used, "what is behind the last token in use is padding, and looks like it"
    return {code: token for code, token in codes.items() if code in used}


def _coded(text: str, codes: dict[int, str]) -> bytes:
    of = {token: code for code, token in codes.items()}
    coded, at = bytearray(), 0
    while at < len(text):
        width = 2 if text[at : at + 2] in of and at + 1 < len(text) else 1
        coded.append(of[text[at : at + width]])
        at += width
    return bytes(coded)


def _compress(text: str, codes: dict[int, str]) -> bytes:
    """A name with its length before it, in up to two bytes of ULEB128."""
    coded = _coded(text, codes)
    size = len(coded)
    return (bytes([size]) if size < 0x80 else bytes([size & 0x7F | 0x80, size >> 7])) + coded


def _bytes(row: bytes) -> str:
    return ".byte " + ", ".join(f"{byte:#x}" for byte in row)
