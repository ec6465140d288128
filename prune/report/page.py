"""``report.html``: one file that needs nothing else, made from a template and data.

Names and logs come from outside. In the page they are JSON in which nothing can end the element that holds
it, and the scripts put them into the document as text.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

_FOLDER = Path(__file__).with_name("web")
_SCRIPTS = (
    "dom.js", "base.js", "tree.js", "map.js", "search.js", "security.js", "holdout.js", "soak.js",
    "tables.js",
)  # fmt: skip
# JSON may have these as escapes anywhere in a string; HTML and JavaScript then see none of them.
_ESCAPED = {ord(sign): f"\\u{ord(sign):04x}" for sign in "<>&\u2028\u2029"}


def make_page(data: Mapping[str, Any]) -> str:
    """The page of one run as HTML."""
    return fill("page.html", ("page.css",), _SCRIPTS, data)


def fill(body: str, styles: Sequence[str], scripts: Sequence[str], data: Mapping[str, Any]) -> str:
    """A page of its body, styles, scripts and data; the data last, so that no mark in it counts."""
    parts = {
        "@CSS@": "\n".join((_FOLDER / name).read_text() for name in styles),
        "@BODY@": (_FOLDER / body).read_text(),
        "@JS@": "\n".join((_FOLDER / name).read_text() for name in scripts),
        "@DATA@": as_script(data),
    }
    page = (_FOLDER / "frame.html").read_text()
    for mark, text in parts.items():
        head, _, tail = page.partition(mark)
        page = head + text + tail
    return page


def as_script(data: Mapping[str, Any]) -> str:
    """JSON that may stand inside a script element."""
    text = json.dumps(data, separators=(",", ":"), ensure_ascii=False).translate(_ESCAPED)
    # A name can hold half a character, which no file can.
    return text.encode("utf-8", "replace").decode()
