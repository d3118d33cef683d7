"""`SortableTable`: a table of results that a click on a heading sorts; plain Markdown where no script runs."""

import html
import re
from typing import Any

from vistok.widgets.view import SCRIPTS

_RULE = re.compile(r":?-+:?")
_BAR, _LAST_BAR = re.compile(r"(?<!\\)\|"), re.compile(r"(?<!\\)\|$")  # between cells; a bar of a cell's text is "\|"
_BOLD, _CODE = re.compile(r"\*\*(.+?)\*\*"), re.compile(r"`(.+?)`")

_WITH_ARROW, _TOGETHER = re.compile(r"\S+ [↑↓]"), r'<span class="together">\g<0></span>'  # no line begins with an arrow


class SortableTable:
    """A table that is sorted by a click on a heading, or Enter on it: best first, worst first, as it was.

    It needs no kernel, and so is sorted in a notebook that was reopened too. Numbers are compared as numbers, the mean before
    its range, and 1.2 M after 900 k; what was not measured, and NaN, comes last.
    """

    def __init__(self, markdown: str) -> None:
        """Show a table.

        Args:
            markdown: a table alone, a heading row, a rule and rows, all cells between bars; in cells `**bold**`, `` `code` ``
                and `<br>`.

        Raises:
            ValueError: it is no such table.
        """
        lines = [_cells(line) for line in markdown.strip().splitlines()]
        if len(lines) < 2 or not lines[1] or not all(map(_RULE.fullmatch, lines[1])):
            raise ValueError(f"{markdown[:60]!r} is no Markdown table: a heading row, a rule of dashes, and rows.")
        if wrong := [line for line in lines if len(line) != len(lines[0])]:
            raise ValueError(f"A row has {len(wrong[0])} cells, but the heading {len(lines[0])}: {wrong[0]}.")
        self.markdown = markdown
        self._heading, rules, *self._rows = lines
        self._right = [rule.endswith(":") for rule in rules]

    def __repr__(self) -> str:
        names = ", ".join(name.replace("<br>", " ") or "(row)" for name in self._heading)
        return f"SortableTable: {len(self._rows)} rows of {names}"

    def _repr_mimebundle_(self, **options: Any) -> dict[str, str]:
        return {"text/plain": repr(self), "text/markdown": self.markdown, "text/html": self._html()}

    def _html(self) -> str:
        style, script = ((SCRIPTS / f"sortable.{kind}").read_text(encoding="utf-8") for kind in ("css", "js"))
        sides = [' class="right"' if right else "" for right in self._right]
        heading = "".join(
            f'<th scope="col"{side}><button type="button">{_WITH_ARROW.sub(_TOGETHER, _inline(text))}</button></th>'
            for side, text in zip(sides, self._heading, strict=True)
        )
        rows = "\n".join(
            f'<tr><th scope="row"{sides[0]}>{_inline(row[0])}</th>'
            + "".join(f"<td{side}>{_inline(text)}</td>" for side, text in zip(sides[1:], row[1:], strict=True))
            + "</tr>"
            for row in self._rows
        )
        return (
            f"<style>\n{style}</style>\n"
            '<div class="vistok-table" data-lm-suppress-shortcuts="true"><table>\n'
            f"<thead><tr>{heading}</tr></thead>\n<tbody>\n{rows}\n</tbody></table></div>\n<script>\n{script}</script>"
        )


def _cells(line: str) -> list[str]:
    cells = _BAR.split(_LAST_BAR.sub("", line.strip().removeprefix("|")))
    return [cell.strip().replace("\\|", "|") for cell in cells]


def _inline(text: str) -> str:
    """Return a cell's Markdown as HTML."""
    escaped = html.escape(text, quote=False)
    first, *more = _CODE.sub(r"<code>\1</code>", _BOLD.sub(r"<strong>\1</strong>", escaped)).split("&lt;br&gt;")
    return first + (f"<br><small>{'<br>'.join(more)}</small>" if more else "")
