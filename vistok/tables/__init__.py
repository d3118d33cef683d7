"""Results tables: rows as data, run through the notebooks, measured beside published.

A table is `<name>.toml` in this folder. A row at a scale, with a dataset and a seed, is one configuration and so one run
directory; it is complete when that directory has its `metrics.json`. Everything shown is read from there.

    python -m vistok.tables celeba64 --rows vq-d4 vq-d64 --scale laptop --dataset photos --seeds 0 1 2
"""

from vistok.system.lazy import lazily

_NAMES = {
    "vistok.recipes": ["load_table"],
    "vistok.tables.codecs": ["codec_points", "row_points"],
    "vistok.tables.cost": ["core_hours", "cost_markdown"],
    "vistok.tables.generating": ["PlannedGenerator", "plan_generators", "run_generators"],
    "vistok.tables.lengths": ["lengths_markdown", "plan_lengths", "points_by_length"],
    "vistok.tables.marked": ["with_tables"],
    "vistok.tables.photographs": ["photograph_points", "photographs_markdown"],
    "vistok.tables.planning": ["PlannedRun", "check_overrides", "plan"],
    "vistok.tables.ranking": ["generators_markdown", "qualities", "ranking_markdown", "rates"],
    "vistok.tables.running": ["outcome_line", "run_all"],
    "vistok.tables.showing": [
        *("COLUMNS", "METRIC_FORMS", "beside_published", "bits_in_use", "check_metrics", "comparison_markdown"),
        *("conclusions_markdown", "markdown", "measured", "notes_on_images", "quantizers_markdown"),
        *("remedies_markdown", "share_in_use"),
    ],
}
__all__ = [name for names in _NAMES.values() for name in names]
__getattr__, __dir__ = lazily(__name__, _NAMES)
