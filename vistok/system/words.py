"""Parts of sentences: the nearest of the names that there are, to one that is not; in what two descriptions differ."""

import reprlib
from collections.abc import Iterable, Iterator
from typing import Any

LONGEST = 64  # characters that are compared: names are shorter
FEW = 12  # names, that a sentence lists beside the one it suggests


def nearest(name: object, known: Iterable[str]) -> str:
    """Return the end of an error sentence: the known name that `name` misspells, if it does one, and what may be chosen.

    All known names are listed where they are few, or where none is near.
    """
    known = sorted(known)
    near = misspelt(name, known)
    listed = f"Known: {', '.join(known)}." if near is None or len(known) <= FEW else ""
    return " ".join(part for part in ("" if near is None else f"did you mean {near!r}?", listed) if part)


def misspelt(name: object, known: Iterable[str]) -> str | None:
    """Return the known name that `name` is a slip of, or its beginning or one of its words; None: none is near enough.

    A slip is at most one letter in three left out, added or replaced, or two neighbours exchanged.
    """
    wrong, candidates = _plain(name), sorted(known)
    slips = [(slips_between(wrong, _plain(right)), right) for right in candidates]
    slips = [(count, right) for count, right in slips if count <= max(len(wrong), len(right)) // 3]
    if slips:
        return min(slips)[1]
    part_of = [right for right in candidates if len(wrong) > 2 and _is_word_of(wrong, _plain(right))]
    return min(part_of, key=len, default=None)


def slips_between(wrong: str, right: str) -> int:
    """Return how many letters were left out, added, replaced or exchanged with their neighbour.

    The optimal string alignment distance (Damerau 1964): unlike Levenshtein's, "fqs" is one slip away from "fsq".
    """
    above: list[int] = []
    row = list(range(len(right) + 1))
    for i, letter in enumerate(wrong, 1):
        before, above, row = above, row, [i]
        for j, other in enumerate(right, 1):
            count = min(above[j] + 1, row[j - 1] + 1, above[j - 1] + (letter != other))
            if i > 1 and j > 1 and (wrong[i - 2], letter) == (other, right[j - 2]):
                count = min(count, before[j - 2] + 1)
            row.append(count)
    return row[-1]


def differences_between(there: dict[str, Any], here: dict[str, Any]) -> str:
    """Return in what two descriptions differ, fit to stand inside a sentence; empty where they do not."""
    theirs, ours = dict(_flat(there)), dict(_flat(here))
    return "; ".join(
        f"{name} is {reprlib.repr(theirs.get(name))} there, {reprlib.repr(ours.get(name))} here"
        for name in theirs | ours
        if theirs.get(name) != ours.get(name)
    )


def _plain(name: object) -> str:
    return str(name).casefold().replace("-", "_")[:LONGEST]


def _is_word_of(part: str, whole: str) -> bool:
    return f"_{part}_" in f"_{whole}_" or whole.startswith(part)


def _flat(entries: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Iterate over the entries of nested dicts, under names like "dataset.split"."""
    for name, value in entries.items():
        if isinstance(value, dict):
            yield from _flat(value, f"{prefix}{name}.")
        else:
            yield prefix + name, value
