"""What training the runs of a table took, from their logs."""

import itertools
from collections.abc import Sequence

from vistok.runs import Run
from vistok.tables.planning import PlannedRun


def core_hours(planned: Sequence[PlannedRun]) -> list[float]:
    """Return for each run that is complete how long its training took, in hours of one core.

    It is the wall-clock time between reports, times threads and processes: what else ran on the machine makes it longer, and
    neither the time until the first step nor that of the evaluation is in it.

    Args:
        planned: runs; those without `metrics.json` are left out.
    """
    hours = []
    for planned_run in planned:
        if planned_run.metrics is None:
            continue
        run = Run.open(planned_run.run_dir)
        made_on = run.provenance
        cores = made_on.get("threads", 1) * made_on.get("num_processes", 1)
        reports = [{"step": 0}, *run.log()]
        seconds = sum(
            (entry["step"] - before["step"]) * run.config.batch_size / entry["images_per_second"]
            for before, entry in itertools.pairwise(reports)
        )
        hours.append(seconds * cores / 3600)
    return hours


def cost_markdown(planned: Sequence[PlannedRun]) -> str:
    """Return in a line of Markdown how many runs are complete, and the core-hours of their training."""
    hours = core_hours(planned)
    if not hours:
        return "No run is complete."
    minutes = [60 * value for value in hours]
    each = f"{min(minutes):.0f} to {max(minutes):.0f} minutes each"
    return f"Training: {len(hours)} runs, {sum(hours):.1f} core-hours in all, {each}."
