"""The tables of rows and scales, `tables/*.toml`, read and checked."""

import tomllib
import typing
from typing import Any

from vistok.system.files import TOO_DEEP, check_nesting, shown
from vistok.system.paths import PACKAGE
from vistok.system.words import nearest

T = typing.TypeVar("T")

TABLES = PACKAGE / "tables"


def read_table(name: str) -> dict[str, Any]:
    """Return a results table, `tables/<name>.toml`, complete.

    A table that is `based_on` another has its recipe and scales; a row that is the `same_as` one of another table, named
    "table/row", has all of that row.

    Raises:
        ValueError: there is no such table, or its file does not hold one.
    """
    return _read_table(name, ())


def _read_table(name: str, readers: tuple[str, ...]) -> dict[str, Any]:
    """Return a table that the tables `readers` refer to, one after the other."""
    known = [p.stem for p in TABLES.glob("*.toml")]
    if name not in known:  # so that no name leads out of the folder
        raise ValueError(f"There is no table {shown(name)}; {nearest(name, known)}")
    if name in readers:
        raise ValueError(
            f"The table {name!r} refers to itself, by {' -> '.join((*readers, name))}: name one row there."
        )
    readers = (*readers, name)
    try:
        table = tomllib.loads((TABLES / f"{name}.toml").read_bytes().decode())
        check_nesting(table)
    except (ValueError, RecursionError) as error:  # no UTF-8, no TOML; nested deeper than the parser can call itself
        reason = TOO_DEEP if isinstance(error, RecursionError) else str(error)
        raise ValueError(f"The table {name!r} is not TOML that can be read: {reason}.") from error
    if "based_on" in table:
        base = _read_table(table["based_on"], readers)
        table |= {"recipe": base["recipe"], "scales": base["scales"]}
    rows = _part(table, "rows", list, f"table {name!r}")
    for number, row in enumerate(rows):
        if type(row) is not dict:
            raise ValueError(f"Row {number} of table {name!r} is {shown(row)}, but must be a table: [[rows]].")
        if "same_as" in row:
            same_as = _part(row, "same_as", str, f"row {number} of table {name!r}")
            other_table, _, other_name = same_as.partition("/")
            others = {r["name"]: r for r in _read_table(other_table, readers)["rows"]}
            if other_name not in others:
                raise ValueError(f"Table {other_table!r} has no row {shown(other_name)}; {nearest(other_name, others)}")
            row |= others[other_name]
    _check_table(name, table)
    return table


def _check_table(name: str, table: dict[str, Any]) -> None:
    """Raise ValueError where a part of a table that `TrainConfig.from_row` needs is missing or of another kind."""
    what = f"table {name!r}"
    for text in ("title", "source", "note"):
        _part(table, text, str, what)
    _part(table, "recipe", dict, what)
    scales = _part(table, "scales", dict, what)
    families = _part(table, "families", dict, what) if "families" in table else {}
    by_scale = {f"scales of {what}": scales}
    for family in families:
        by_scale[f"family {shown(family)} of {what}"] = _part(families, family, dict, f"families of {what}")
    for part_of, part in by_scale.items():
        for scale in scales:
            _part(part, scale, dict, part_of)
    names = [_part(row, "name", str, f"a row of {what}") for row in table["rows"]]
    for number, row in enumerate(table["rows"]):
        row_of = f"row {shown(names[number])} of {what}"
        if names.index(names[number]) < number:
            raise ValueError(f"The {row_of} stands there twice; every row has a name of its own.")
        for part in ("settings", "published", *(part for part in ("recipe", "paper") if part in row)):
            _part(row, part, dict, row_of)
        if "family" in row and _part(row, "family", str, row_of) not in families:
            raise ValueError(f"The {row_of} has family {shown(row['family'])}; {nearest(row['family'], families)}")


def _part(table: dict[str, Any], key: str, kind: type[T], what: str) -> T:
    """Return `table[key]`, or raise ValueError where it is missing or not of this kind; `what` names the table."""
    if key not in table:
        raise ValueError(f"There is no {key!r} in {what}: it must be there, a {kind.__name__}.")
    if type(table[key]) is not kind:
        raise ValueError(f"{key!r} of {what} is {shown(table[key])}, but must be a {kind.__name__}.")
    return table[key]
