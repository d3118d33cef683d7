"""Texts in which tables stand between marks, and are made anew from the records."""

import re
from typing import Any

from vistok.system.values import literal
from vistok.tables.cost import cost_markdown
from vistok.tables.generating import plan_generators
from vistok.tables.lengths import lengths_markdown, plan_lengths
from vistok.tables.photographs import photographs_markdown
from vistok.tables.planning import plan
from vistok.tables.ranking import generators_markdown, ranking_markdown
from vistok.tables.showing import conclusions_markdown, markdown, notes_on_images, remedies_markdown

_MARKED = {
    "table": markdown,
    "conclusions": conclusions_markdown,
    "remedies": remedies_markdown,
    "cost": cost_markdown,
}
_OF_RECORDS = {"photographs": photographs_markdown}
_OF_GENERATORS = {"generators": generators_markdown, "ranking": ranking_markdown}
_KINDS = "|".join([*_MARKED, *_OF_RECORDS, *_OF_GENERATORS, "lengths"])
MARK = re.compile(rf"(<!-- ({_KINDS}) ([\w-]+)(.*?) -->\n).*?(<!-- /\2 -->)", re.DOTALL)


def with_tables(text: str) -> str:
    """Return a Markdown text with all that stands between its marks made anew from the records.

    `<!-- table NAME key=value ... -->` to `<!-- /table -->` holds a table, the same with `conclusions`, `remedies` or `cost`
    these; the keys are arguments of `plan`, the values literals without spaces. With `lengths` it is the conclusions after each
    length, the keys those of `plan_lengths`; with `generators` and `ranking` what was trained on the rows' tokens, the keys
    those of `plan_generators`; with `photographs` what was recorded of a folder of that name. Below what was measured stands
    what must be said of the images.
    """

    def render(match: re.Match[str]) -> str:
        opening, what, table, arguments, closing = match.groups()
        texts = dict(item.partition("=")[::2] for item in arguments.split())
        given: dict[str, Any] = {name: literal(value) for name, value in texts.items()}
        if what in _OF_RECORDS:
            planned, made = [], _OF_RECORDS[what](table)
        elif what == "lengths":
            lengths = plan_lengths(table, **given)
            planned, made = [run for runs in lengths.values() for run in runs], lengths_markdown(lengths)
        elif what in _OF_GENERATORS:
            of_rows = plan_generators(table, **given)
            planned, made = [run.tokenizer for run in of_rows], _OF_GENERATORS[what](of_rows)
        else:
            planned = plan(table, **given)
            made = _MARKED[what](planned)
        notes = [] if what == "cost" else notes_on_images(planned)
        below = "".join(f"\n{note}\n" for note in notes)
        return f"{opening}{made}\n{below}{closing}"

    return MARK.sub(render, text)
