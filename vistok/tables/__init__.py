"""Results tables: rows as data, run through the notebooks, measured beside published.

A table is `<name>.toml` in this folder. A row at a scale, with a dataset and a seed, is one configuration and so one run
directory; it is complete when that directory has its `metrics.json`. Everything shown is read from there.

    python -m vistok.tables celeba64 --rows vq-d4 vq-d64 --scale laptop --dataset photos --seeds 0 1 2
"""

from vistok.recipes import load_table
from vistok.tables.planning import PlannedRun, check_overrides, plan
from vistok.tables.running import outcome_line, run_all
from vistok.tables.showing import (
    COLUMNS,
    METRIC_FORMS,
    beside_published,
    bits_in_use,
    comparison_markdown,
    conclusions_markdown,
    markdown,
    measured,
    quantizers_markdown,
    remedies_markdown,
    with_tables,
)

__all__ = [
    "COLUMNS",
    "METRIC_FORMS",
    "PlannedRun",
    "beside_published",
    "bits_in_use",
    "check_overrides",
    "comparison_markdown",
    "conclusions_markdown",
    "load_table",
    "markdown",
    "measured",
    "outcome_line",
    "plan",
    "quantizers_markdown",
    "remedies_markdown",
    "run_all",
    "with_tables",
]
