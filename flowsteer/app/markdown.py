"""The Markdown that `flowsteer reproduce` writes, as HTML with sortable tables.

Headings, paragraphs, lists, tables, pictures, bold, italics and code: what the report uses.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from itertools import groupby

from flowsteer.app.html import escape, table_html

Picture = Callable[[str, str], str]
"""(name, address) -> HTML, empty if it is not to be shown."""
_PICTURE = re.compile(r"!\[(?P<name>[^\]]*)\]\((?P<address>[^)]*)\)")
_INLINE = (
    (re.compile(r"`([^`]+)`"), r"<code>\1</code>"),
    (re.compile(r"\*\*([^*]+)\*\*"), r"<strong>\1</strong>"),
    (re.compile(r"(?<![\\*\w])\*([^*\n]+)\*(?!\w)"), r"<em>\1</em>"),
    (re.compile(r"\\([*_|])"), r"\1"),
)


def markdown_html(text: str, picture: Picture = lambda name, address: "") -> str:
    """A report as HTML.

    Args:
        text: Markdown.
        picture: makes the HTML of a picture that stands on a line of its own.
    """
    parts: list[str] = []
    heading = ""
    for kind, group in groupby(text.splitlines(), _kind):
        lines = list(group)
        if kind == "heading":
            for line in lines:
                level = min(len(line) - len(line.lstrip("#")) + 1, 4)
                heading = line.lstrip("#").strip()
                parts.append(f"<h{level}>{_inline(heading)}</h{level}>")
        elif kind == "table":
            parts.append(_table(lines, heading))
        elif kind == "list":
            items = "".join(f"<li>{_inline(line.lstrip('-* '))}</li>" for line in lines)
            parts.append(f"<ul>{items}</ul>")
        elif kind == "picture":
            for line in lines:
                found = _PICTURE.match(line)
                parts.append(picture(found["name"], found["address"]) if found else "")
        elif kind == "text":
            parts.append(f"<p>{_inline(' '.join(lines))}</p>")
    return "".join(parts)


def _kind(line: str) -> str:
    if not line.strip():
        return "blank"
    if line.startswith("#"):
        return "heading"
    if line.startswith("|"):
        return "table"
    if line.startswith(("- ", "* ")):
        return "list"
    return "picture" if _PICTURE.fullmatch(line.strip()) else "text"


def _table(lines: list[str], heading: str) -> str:
    rows = [[cell.strip() for cell in line.strip().strip("|").split("|")] for line in lines]
    head, body = rows[0], rows[2:]
    width = len(head)
    cells = [[_inline(cell) for cell in (row + [""] * width)[:width]] for row in body]
    return table_html(heading or "Table", [_plain(name) for name in head], cells)


def _inline(text: str) -> str:
    quoted = escape(text)
    for pattern, becomes in _INLINE:
        quoted = pattern.sub(becomes, quoted)
    return quoted


def _plain(text: str) -> str:
    return re.sub(r"[*`]|\\", "", text)
