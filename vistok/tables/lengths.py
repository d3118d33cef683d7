"""The same rows trained for longer and longer: what was measured at each length, and what becomes of the conclusions."""

from collections.abc import Sequence
from typing import Any

from vistok.tables.planning import PlannedRun, plan
from vistok.tables.showing import METRIC_FORMS, checked_table, measured, rows_markdown, spread, verdict_of


def plan_lengths(table: str, scales: Sequence[str], **arguments: Any) -> dict[int, list[PlannedRun]]:
    """Return the runs of a table at several scales, by their steps, the shortest first.

    Args:
        table: name of the table.
        scales: names of its scales, each with another number of steps.
        **arguments: further ones of `plan`, the same for all.

    Raises:
        ValueError: two scales have the same number of steps, or rows of one scale different ones; or what `plan` raises.
    """
    lengths: dict[int, list[PlannedRun]] = {}
    for scale in scales:
        planned = plan(table, scale=scale, **arguments)
        steps = {run.config.steps for run in planned}
        if len(steps) != 1 or steps & lengths.keys():
            raise ValueError(
                f"scales is {list(scales)}, but {scale!r} has {', '.join(f'{number:,}' for number in sorted(steps))} steps: "
                "each scale must have one length, and another than the others."
            )
        lengths[steps.pop()] = planned
    return dict(sorted(lengths.items()))


def points_by_length(
    lengths: dict[int, list[PlannedRun]], keys: tuple[str, str] = ("usage", "psnr")
) -> dict[str, dict[int, tuple[list[float], list[float]]]]:
    """Return row name to steps to two metrics over the seeds that are complete, as `plots.by_length` draws them."""
    points: dict[str, dict[int, tuple[list[float], list[float]]]] = {}
    for steps, planned in lengths.items():
        first, second = (measured(planned, key) for key in keys)
        for row in first:
            points.setdefault(row, {})[steps] = (first[row], second[row])
    return points


def lengths_markdown(lengths: dict[int, list[PlannedRun]]) -> str:
    """Return as Markdown whether each conclusion of a table holds after each length of training, and by which numbers.

    Verdicts are those of `conclusions_markdown`; of one seed each there are two numbers to compare, and no range.
    """
    table = checked_table(next(iter(lengths.values())))
    lines = [["conclusion", "metric", *(f"{steps:,} steps" for steps in lengths)], ["---"] * (2 + len(lengths))]
    for conclusion in table.conclusions:
        for key in conclusion.metrics:
            cells = [f"{conclusion.text} ({conclusion.better} over {conclusion.worse})", key]
            for planned in lengths.values():
                values = measured(planned, key)
                better, worse = values.get(conclusion.better, []), values.get(conclusion.worse, [])
                numbers = f"{spread(better, METRIC_FORMS[key])}<br>against {spread(worse, METRIC_FORMS[key])}"
                cells.append(f"**{verdict_of(better, worse)}**" + (f"<br>{numbers}" if better and worse else ""))
            lines.append(cells)
    return rows_markdown(lines)
