"""Results tables, `tables/*.toml`, as checked and typed rows; and what a row sets at a scale."""

import copy
import dataclasses
import functools
import tomllib
import typing
from collections.abc import Iterable
from typing import Annotated, Any

from vistok.system.files import TOO_DEEP, check_nesting, shown
from vistok.system.paths import PACKAGE
from vistok.system.values import check_known, checked, must_be, not_empty, plain_types, type_name

TABLES = PACKAGE / "tables"
T = typing.TypeVar("T")
USUAL_COLUMNS = ["usage_queue", "psnr", "ssim", "rfid"]
Settings = dict[str, Any]
OF_A_TABLE = (
    *("title", "source", "note", "based_on", "families", "rows", "columns", "conclusions", "remedies"),
    "generators",
)
OF_A_ROW = ("name", "settings", "published", "paper", "at", "family")


@dataclasses.dataclass(frozen=True)
class Row:
    """One row of a table.

    Attributes:
        name: in its table.
        label: "table/row"; a row that stands in a second table too is labelled as in the first.
        settings: what it fixes, whatever the scale.
        at_scale: for each scale all settings: those of the table's recipe, of the scale, and its own.
        published: the numbers that the table's source reports for it.
        paper: those of its method's paper.
    """

    name: str
    label: str
    settings: Settings
    at_scale: dict[str, Settings]
    published: dict[str, float]
    paper: dict[str, float]


@dataclasses.dataclass(frozen=True)
class Conclusion:
    """What a table is said to show: in `metrics`, row `better` is above row `worse`."""

    text: str
    better: str
    worse: str
    metrics: list[str]


@dataclasses.dataclass(frozen=True)
class Remedies:
    """Rows that each change one thing about a row that has gone wrong.

    Attributes:
        baseline: name of that row.
        rows: name of each remedy's row to what it changes.
        metrics: keys of `tables.COLUMNS` in which it is to be better.
    """

    baseline: str
    rows: dict[str, str]
    metrics: list[str]


@dataclasses.dataclass(frozen=True)
class Generators:
    """What is trained on the tokens of every row.

    Attributes:
        sizes: keys of `generator_config.SIZES`, each a generator of its own.
        settings: fields of `GeneratorConfig` that all share.
        scales: name of the table's scale to further ones.
    """

    sizes: list[str]
    settings: dict
    scales: dict


@dataclasses.dataclass(frozen=True)
class Table:
    """A results table.

    Attributes:
        name: of the file.
        title, source, note: what it shows, where the published numbers come from, and under which conditions.
        recipe: settings that all rows and scales share.
        scales: name to settings.
        rows: name to row, in order.
        columns: keys of `tables.COLUMNS`.
        conclusions: comparisons of two rows that its authors draw from it.
        remedies: what helps against what is wrong with one row, or None.
        generators: what is trained on the rows' tokens, or None.
    """

    name: str
    title: str
    source: str
    note: str
    recipe: Settings
    scales: dict[str, Settings]
    rows: dict[str, Row]
    columns: tuple[str, ...]
    conclusions: tuple[Conclusion, ...]
    remedies: Remedies | None
    generators: Generators | None


def row_settings(label: str, scale: str) -> tuple[Settings, Settings]:
    """Return all settings of a row at a scale, and those that the row fixes at every scale.

    Args:
        label: "table/row"; or a table's name alone: its recipe, nothing fixed by a row.
        scale: one of the table's.

    Raises:
        ValueError: the table, row or scale is unknown; the sentence names the nearest known one.
    """
    name, _, row_name = label.partition("/")
    table = load_table(name)
    check_known("There is no scale", scale, table.scales)
    if not row_name:
        return table.recipe | table.scales[scale] | {"row": None, "scale": scale}, {}
    row = _row_of(table, row_name)
    check_known("There is no scale", scale, row.at_scale)
    return row.at_scale[scale] | {"row": row.label if row.settings else None, "scale": scale}, row.settings


def _row_of(table: Table, name: str) -> Row:
    check_known(f"Table {table.name!r} has no row", name, table.rows)
    return table.rows[name]


def load_table(name: str) -> Table:
    """Return a results table, `tables/<name>.toml`; files are read anew, and parsed where one has changed.

    A table that is `based_on` another has its recipe and scales; a row that is the `same_as` one of another table, named
    "table/row", is that row, with its published numbers where both tables have one source.

    Raises:
        ValueError: there is no such table, or its file does not hold one.
    """
    # Not what editors and file systems leave beside a table: a hidden lock, which may be a link to nothing, or a folder.
    files = {path.stem: path for path in sorted(TABLES.glob("[!.]*.toml")) if path.is_file()}
    check_known("There is no table", name, list(files))  # so that no name leads out of the folder
    # A copy, since whoever changes a row's settings would change them for all who ask next.
    return copy.deepcopy(_load(name, tuple((stem, path.read_bytes()) for stem, path in files.items()), ()))


@functools.lru_cache
def _load(name: str, files: tuple[tuple[str, bytes], ...], readers: tuple[str, ...]) -> Table:
    """Return one of the tables in `files`, which the tables `readers` refer to, one after the other."""
    readers = (*readers, name)

    def other(name: str) -> Table:
        check_known("There is no table", name, dict(files))
        if name in readers:
            raise ValueError(
                f"The table {name!r} refers to itself, by {' -> '.join((*readers, name))}: name one row there."
            )
        return _load(name, files, readers)

    table, what = _parsed(name, dict(files)[name]), f"table {name!r}"
    if "based_on" in table:
        _check_parts(table, OF_A_TABLE, f"{what}, which is based on another,")
        base = other(_part(table, "based_on", str, what))
        table |= {"recipe": base.recipe, "scales": base.scales}
    _check_parts(table, (*OF_A_TABLE, "recipe", "scales"), what)
    recipe, scales = _part(table, "recipe", dict, what), _part(table, "scales", dict, what)
    scales = _each(scales, scales, f"scales of {what}")
    families = _part(table, "families", dict, what, {})
    for family, parts in _each(families, families, f"families of {what}").items():
        families[family] = _each(parts, scales, f"family {shown(family)} of {what}")
    title, source, note = (_part(table, text, str, what) for text in ("title", "source", "note"))
    rows: dict[str, Row] = {}
    for number, entry in enumerate(_entries(table, "rows", what)):
        if "same_as" in entry:
            _check_parts(entry, ("same_as",), f"row {number} of {what}, which is the same as another,")
            other_table, _, row_name = _part(entry, "same_as", str, f"row {number} of {what}").partition("/")
            first = other(other_table)
            row = _row_of(first, row_name)
            if first.source != source:  # which has published nothing of it
                row = dataclasses.replace(row, published={})
        else:
            row = _row(entry, name, recipe, scales, families)
        if row.name in rows:
            raise ValueError(
                f"The row {shown(row.name)} of {what} stands there twice; every row has a name of its own."
            )
        rows[row.name] = row
    columns = tuple(_part(table, "columns", list[str], what, USUAL_COLUMNS))
    concluded = _entries(table, "conclusions", what) if "conclusions" in table else []
    conclusions = tuple(_typed(Conclusion, entry, f"a conclusion of {what}") for entry in concluded)
    remedies = _part(table, "remedies", dict, what, None)
    remedies = None if remedies is None else _typed(Remedies, remedies, f"the remedies of {what}")
    for row_name in [name for one in conclusions for name in (one.better, one.worse)]:
        check_known(f"The {what} has a conclusion, but no row", row_name, rows)
    for row_name in [] if remedies is None else [remedies.baseline, *remedies.rows]:
        _part({remedies.baseline: ""} | remedies.rows, row_name, str, f"rows of the remedies of {what}")
        check_known(f"The {what} has remedies, but no row", row_name, rows)
    generators = _part(table, "generators", dict, what, None)
    if generators is not None:
        generators = _typed(Generators, generators, f"the generators of {what}")
        for scale in _each(generators.scales, generators.scales, f"scales of the generators of {what}"):
            check_known(f"The {what} has generators, but no scale", scale, scales)
    return Table(name, title, source, note, recipe, scales, rows, columns, conclusions, remedies, generators)


def _parsed(name: str, content: bytes) -> dict[str, Any]:
    try:
        table = tomllib.loads(content.decode())
        check_nesting(table)
    except (ValueError, RecursionError) as error:  # no UTF-8, no TOML; nested deeper than the parser can call itself
        reason = TOO_DEEP if isinstance(error, RecursionError) else str(error)
        raise ValueError(f"The table {name!r} is not TOML that can be read: {reason}.") from error
    return table


def _row(
    entry: Settings, table: str, recipe: Settings, scales: dict[str, Settings], families: dict[str, dict[str, Settings]]
) -> Row:
    name = _part(entry, "name", Annotated[str, must_be("a name", bool)], f"a row of table {table!r}")
    what = f"row {shown(name)} of table {table!r}"
    _check_parts(entry, OF_A_ROW, what)
    settings, own = _part(entry, "settings", dict, what), _part(entry, "at", dict, what, {})
    published, paper = _numbers(entry, "published", what), _numbers(entry, "paper", what, {})
    for scale in own:
        check_known(f"The {what} says what it is at scale", scale, scales)
    own = _each(own, own, f"what {what} is at each scale")
    family = _part(entry, "family", str, what, None)
    if family is not None:
        check_known(f"The {what} has family", family, families)
    at_scale = {scale: recipe | length for scale, length in scales.items()}
    for scale, all_settings in at_scale.items():
        for part in ({} if family is None else families[family][scale], own.get(scale, {}), settings):
            _take(all_settings, part)
    return Row(name, f"{table}/{name}", settings, at_scale, published, paper)


def _take(settings: Settings, part: Settings) -> None:
    """Take over what a part of a row says; of options, as network_options are, those that it names."""
    for name, value in part.items():
        both = isinstance(value, dict) and isinstance(settings.get(name), dict)
        settings[name] = settings[name] | value if both else value


def _typed(kind: type[T], entry: dict[str, Any], what: str) -> T:
    """Return an entry as a dataclass, each field of its type."""
    fields = {field.name: field.type for field in dataclasses.fields(kind)}
    _check_parts(entry, fields, what.removeprefix("a ").removeprefix("the "))
    return kind(**{name: _part(entry, name, type_of, what) for name, type_of in fields.items()})


def _check_parts(entry: dict[str, Any], known: Iterable[str], what: str) -> None:
    """Raise ValueError for a part that an entry cannot have: nobody would read it."""
    for name in entry:
        check_known(f"The {what} has no part", name, known)


def _entries(table: dict[str, Any], key: str, what: str) -> list[dict[str, Any]]:
    entries = _part(table, key, Annotated[list, not_empty], what)
    for number, entry in enumerate(entries):
        if not isinstance(entry, dict):
            raise ValueError(f"Number {number} of {key!r} of {what} is {shown(entry)}, but must be a table: [[{key}]].")
    return entries


def _numbers(entry: dict[str, Any], key: str, what: str, *default: dict[str, float]) -> dict[str, float]:
    found = _part(entry, key, dict, what, *default)
    return {metric: _part(found, metric, float, f"{key} of {what}") for metric in found}


def _each(table: dict[str, Any], keys: Iterable[str], what: str) -> dict[str, dict[str, Any]]:
    return {key: _part(table, key, dict, what) for key in keys}


def _part(table: dict[str, Any], key: str, kind: Any, what: str, *default: Any) -> Any:
    """Return `table[key]`, or the default where it is missing; raises ValueError without one, or for another type."""
    if key not in table and default:
        return default[0]
    if key not in table:
        raise ValueError(f"There is no {key!r} in {what}: it must be there, a {type_name(plain_types(kind)[0])}.")
    if kind is dict and isinstance(table[key], dict):  # its values are for whoever reads them to check, by their names
        return table[key]
    try:
        return checked(f"{key!r} of {what}", kind, table[key])
    except TypeError as error:
        raise ValueError(str(error)) from None
