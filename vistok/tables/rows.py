"""A results table as its file says it: rows, the numbers published for them, what they are to show."""

import dataclasses
from typing import Any

from vistok.recipes import read_table

USUAL_COLUMNS = ("usage_queue", "psnr", "ssim", "rfid")


@dataclasses.dataclass(frozen=True)
class Row:
    """One row: its name in the table, what it fixes, the numbers published for it, and those of its method's paper."""

    name: str
    settings: dict[str, Any]
    published: dict[str, float]
    paper: dict[str, float]


@dataclasses.dataclass(frozen=True)
class Conclusion:
    """What a table is said to show: in `metrics`, row `better` is above row `worse`."""

    text: str
    better: str
    worse: str
    metrics: tuple[str, ...]


@dataclasses.dataclass(frozen=True)
class Remedies:
    """Rows that each change one thing about a row that has gone wrong.

    Attributes:
        baseline: name of that row.
        rows: name of each remedy's row to what it changes.
        metrics: keys of `COLUMNS` in which it is to be better.
    """

    baseline: str
    rows: dict[str, str]
    metrics: tuple[str, ...]


@dataclasses.dataclass(frozen=True)
class Table:
    """A results table.

    Attributes:
        name: of the file.
        title, source, note: what it shows, where the published numbers come from, and under which conditions.
        rows: name to row, in order.
        scales: the names of its scales.
        columns: keys of `COLUMNS`.
        conclusions: comparisons of two rows that its authors draw from it.
        remedies: what helps against what is wrong with one row, or None.
    """

    name: str
    title: str
    source: str
    note: str
    rows: dict[str, Row]
    scales: tuple[str, ...]
    columns: tuple[str, ...]
    conclusions: tuple[Conclusion, ...]
    remedies: Remedies | None


def load_table(name: str) -> Table:
    """Return a results table; raises ValueError, naming the nearest, where there is none of that name."""
    raw = read_table(name)
    rows = {r["name"]: Row(r["name"], r["settings"], r["published"], r.get("paper", {})) for r in raw["rows"]}
    conclusions = [
        Conclusion(c["text"], c["better"], c["worse"], tuple(c["metrics"])) for c in raw.get("conclusions", ())
    ]
    columns = tuple(raw.get("columns", USUAL_COLUMNS))
    remedies = None
    if "remedies" in raw:
        remedies = Remedies(**raw["remedies"] | {"metrics": tuple(raw["remedies"]["metrics"])})
    return Table(
        name,
        raw["title"],
        raw["source"],
        raw["note"],
        rows,
        tuple(raw["scales"]),
        columns,
        tuple(conclusions),
        remedies,
    )
