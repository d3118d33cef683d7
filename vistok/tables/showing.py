"""Tables of what was measured, beside what was published, as Markdown."""

import math
from collections.abc import Sequence
from statistics import mean
from typing import Any

from vistok.config import TrainConfig
from vistok.quantizers.usage import USAGES
from vistok.recipes import Table, load_table
from vistok.system.values import check_known
from vistok.tables.planning import PlannedRun, table_of

METRIC_FORMS = {  # how the value of a metric is written; key of metrics.json to form
    "psnr": "{:.2f} dB",
    "ssim": "{:.4f}",
    "ssim_uniform7": "{:.4f}",
    "lpips_alex": "{:.4f}",
    "lpips_vgg": "{:.4f}",
    "rfid": "{:.2f}",
    "usage": "{:.1%}",
    "usage_queue": "{:.1%}",
    "perplexity": "{:.1f}",
    "entropy_bits": "{:.2f} bits a token",
    "bits_per_pixel": "{:.3f}",
    "num_images": "{:,}",
}
# The columns a table can show: key of metrics.json to heading, and how a value is written below it.
COLUMNS = {
    "usage": ("codebook usage ↑", "{:.1%}"),
    "usage_queue": ("usage, last 65,536 ↑", "{:.1%}"),
    "psnr": ("PSNR ↑", "{:.2f}"),
    "ssim": ("SSIM ↑", "{:.4f}"),
    "ssim_uniform7": ("SSIM 7x7 ↑", "{:.4f}"),
    "lpips_alex": ("LPIPS Alex ↓", "{:.4f}"),
    "rfid": ("rFID ↓", "{:.2f}"),
    "perplexity": ("perplexity ↑", "{:.0f}"),
    "bits_per_pixel": ("bits a pixel", "{:.3f}"),
}
# The columns of a comparison of tokenizers.
COMPARED = {name: COLUMNS[name] for name in ("psnr", "ssim", "lpips_alex")} | {
    "lpips_vgg": ("LPIPS VGG ↓", "{:.4f}"),
    "rfid": COLUMNS["rfid"],
    "usage": ("usage ↑", "{:.1%}"),
    "usage_queue": COLUMNS["usage_queue"],
}


def check_metrics(table: Table) -> None:
    """Raise ValueError where a table names a metric that cannot be shown; the sentence names the nearest one."""
    concluded = [key for conclusion in table.conclusions for key in conclusion.metrics]
    published = [key for row in table.rows.values() for key in (*row.published, *row.paper)]
    compared = table.remedies.metrics if table.remedies else ()
    for keys, known in (((*table.columns, *compared), COLUMNS), ((*concluded, *published), METRIC_FORMS)):
        for key in keys:
            check_known(f"Table {table.name!r} names a metric that cannot be shown,", key, known)


def checked_table(planned: Sequence[PlannedRun]) -> Table:
    """Return the table of planned runs; ValueError where it names a metric that cannot be shown."""
    table = table_of(planned)
    check_metrics(table)
    return table


def measured(planned: Sequence[PlannedRun], key: str) -> dict[str, list[float]]:
    """Return for each row the values of a metric over the seeds that are complete; a row without any has an empty list."""
    values: dict[str, list[float]] = {}
    for run in planned:
        row = values.setdefault(run.row.name, [])
        if (metrics := run.metrics) is not None and metrics.get(key) is not None:
            row.append(metrics[key])
    return values


def bits_in_use(planned: Sequence[PlannedRun]) -> dict[str, list[float]]:
    """Return for each row, over the seeds that are complete, which share of a token's bits the use of its codes amounts to.

    It is the entropy of the codes over log2 K; of several codebooks, the sum of entropies over that of bits; 1 where a token
    has no bits, K being 1; and nothing where there is no codebook.
    """
    shares: dict[str, list[float]] = {}
    for run in planned:
        row = shares.setdefault(run.row.name, [])
        if (metrics := run.metrics) is not None and metrics["codebooks"]:
            row.append(share_in_use(metrics["codebooks"]))
    return shares


def share_in_use(codebooks: Sequence[dict[str, Any]]) -> float:
    """Return which share of a token's bits the use of its codes amounts to, by the codebooks of an evaluation."""
    used = sum(codebook["entropy_bits"] for codebook in codebooks)
    bits = sum(math.log2(codebook["codebook_size"]) for codebook in codebooks)
    return used / bits if bits else 1.0


def markdown(planned: Sequence[PlannedRun]) -> str:
    """Return the table as Markdown: for each row its settings and, for each metric, measured and published.

    Several seeds are shown as their mean with their range; what was not measured or published as a dash. Published numbers
    and those of a method's paper have a column of their own where the table has any, and a metric that was measured for none of
    the rows has these only. Perplexity of several codebooks is their mean, "each"; a row without one says so.
    """
    rows = {run.row.name: run for run in planned}
    table = checked_table(planned)
    header, columns = ["row", "quantizer", "dim", "size", "l2"], []
    values = {key: measured(planned, key) for key in table.columns}
    unmeasured = not any(any(rows_values.values()) for rows_values in values.values())
    for key in table.columns:
        heading, form = COLUMNS[key]
        sources = [s for s in ("published", "paper") if any(key in getattr(row, s) for row in table.rows.values())]
        here = any(values[key].values()) or (unmeasured and not sources)
        if not here and not sources:
            continue
        columns.append((key, form, here, sources))
        header += [*([heading] if here else []), *(f"{heading}<br>{source}" for source in sources)]
    lines = [header, ["---"] * 5 + ["---:"] * (len(header) - 5)]
    for name, run in rows.items():
        config = run.config
        sizes = run.quantizer.codebook_sizes
        cells = [name, config.quantizer, str(config.codebook_dim), _sizes(sizes), _l2(config)]
        for key, form, here, sources in columns:
            if here and not sizes and key in USAGES:
                cells.append("no codebook")
            elif here:
                each = " each" if key == "perplexity" and len(sizes) > 1 else ""
                cells.append(spread(values[key][name], form) + each)
            numbers = [getattr(run.row, source) for source in sources]
            cells += [form.format(found[key]) if key in found else "–" for found in numbers]
        lines.append(cells)
    return rows_markdown(lines)


def notes_on_images(planned: Sequence[PlannedRun]) -> list[str]:
    """Return what must be said beside the numbers of the runs that are complete: a line for each dataset of which it is."""
    datasets = [(run.metrics or {}).get("dataset", {}) for run in planned]
    return list(dict.fromkeys(f"{data['name']}: {data['note']}" for data in datasets if "note" in data))


def quantizers_markdown(planned: Sequence[PlannedRun]) -> str:
    """Return as Markdown what each row's quantizer is: its class, its dimension, its codebooks and its losses."""
    lines = [["row", "class", "D", "K", "losses"], ["---"] * 5]
    for name, quantizer in {run.row.name: run.quantizer for run in planned}.items():
        sizes, losses = _sizes(quantizer.codebook_sizes), ", ".join(quantizer.loss_names) or "none"
        lines.append([name, f"`{type(quantizer).__name__}`", str(quantizer.codebook_dim), sizes, losses])
    return rows_markdown(lines)


def rows_markdown(lines: Sequence[Sequence[str]]) -> str:
    """Return rows of cells as Markdown, the first two the heading and what stands below it."""
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


def _sizes(codebook_sizes: Sequence[int]) -> str:
    """Return K, or "levels x K" of several codebooks of one size, or a dash where there is none."""
    if not codebook_sizes:
        return "–"
    if len(codebook_sizes) > 1 and len(set(codebook_sizes)) == 1:
        return f"{len(codebook_sizes)} x {codebook_sizes[0]}"
    return " + ".join(map(str, codebook_sizes))


def _l2(config: TrainConfig) -> str:
    """Return whether vectors and codes are on the unit sphere, the vectors perhaps for the search only."""
    if not config.l2_norm:
        return "no"
    return "search" if config.quantizer_options.get("l2_search_only") else "yes"


def spread(values: Sequence[float], form: str) -> str:
    """Return the mean of values over seeds and their range, if any, written as `form` says; a dash where there are none."""
    if not values:
        return "–"
    middle, least, most = (form.format(value) for value in (mean(values), min(values), max(values)))
    return middle if least == most else f"{middle}<br>({least} to {most})"


def conclusions_markdown(planned: Sequence[PlannedRun]) -> str:
    """Return as Markdown whether each of the table's conclusions holds in what was measured.

    A comparison *holds* where the worst seed of the better row is above the best seed of the other, *does not hold* where
    it is the other way round, and is *open* where the seeds overlap.
    """
    table = checked_table(planned)
    values = {key: measured(planned, key) for conclusion in table.conclusions for key in conclusion.metrics}
    lines = [["conclusion", "rows", "metric", "measured", "verdict"], ["---"] * 5]
    for conclusion in table.conclusions:
        for key in conclusion.metrics:
            better, worse = values[key].get(conclusion.better, []), values[key].get(conclusion.worse, [])
            spreads = f"{spread(better, METRIC_FORMS[key])} against {spread(worse, METRIC_FORMS[key])}".replace(
                "<br>", " "
            )
            rows = f"{conclusion.better} over {conclusion.worse}"
            lines.append([conclusion.text, rows, key, spreads, f"**{verdict_of(better, worse)}**"])
    return rows_markdown(lines)


def remedies_markdown(planned: Sequence[PlannedRun]) -> str:
    """Return as Markdown by how much each of the table's remedies alone is above its baseline.

    The difference is that of the means over seeds. *Better* is a row whose worst seed is above the baseline's best, *worse*
    the other way round, and *open* where the seeds overlap.

    Raises:
        ValueError: the table names no remedies.
    """
    table = checked_table(planned)
    remedies = table.remedies
    if remedies is None:
        raise ValueError(f"Table {table.name!r} names no remedies.")
    values = {key: measured(planned, key) for key in remedies.metrics}
    header = ["row", "what it changes"]
    for key in remedies.metrics:
        header += [COLUMNS[key][0], "difference"]
    lines = [header, ["---"] * 2 + ["---:"] * (len(header) - 2)]
    for name, change in ({remedies.baseline: "nothing: it collapses"} | remedies.rows).items():
        cells = [name, change]
        for key in remedies.metrics:
            these, base = values[key].get(name, []), values[key].get(remedies.baseline, [])
            cells.append(spread(these, COLUMNS[key][1]))
            if name == remedies.baseline or not these or not base:
                cells.append("–")
            else:
                difference = COLUMNS[key][1].replace(":", ":+").format(mean(these) - mean(base))
                verdict = {"holds": "better", "does not hold": "worse"}.get(verdict_of(these, base), "open")
                cells.append(f"{difference}<br>**{verdict}**")
        lines.append(cells)
    return rows_markdown(lines)


def verdict_of(better: Sequence[float], worse: Sequence[float]) -> str:
    """Return what values of two rows over seeds say of "the one is better", as `conclusions_markdown` describes it."""
    if not better or not worse:
        return "not measured"
    if min(better) > max(worse):
        return "holds"
    return "does not hold" if max(better) < min(worse) else "open"


def beside_published(record: dict[str, Any], row: str | None) -> str:
    """Return one evaluation as Markdown, beside the published numbers of its row where it has one.

    Args:
        record: what `evaluate` measured, as in `metrics.json`.
        row: "table/row", or None.
    """
    published: dict[str, float] = {}
    if row:
        table, _, name = row.partition("/")
        published = load_table(table).rows[name].published
    lines = [["metric", "measured", "published"], ["---", "---:", "---:"]]
    for key, form in METRIC_FORMS.items():
        value = "–" if record[key] is None else form.format(record[key])
        lines.append([key, value, form.format(published[key]) if key in published else ""])
    return rows_markdown(lines if published else [cells[:2] for cells in lines])


def comparison_markdown(records: dict[str, dict[str, Any]], reported: dict[str, list[dict[str, Any]]]) -> str:
    """Return evaluations of several tokenizers as one Markdown table, each over what others report of it.

    Args:
        records: name of a tokenizer to `Evaluation.to_dict()`.
        reported: name to reports, each with `by`, `convention` and any of `COMPARED`; for some of the names.
    """
    header = ["tokenizer", "by", "tokens", "K", "bits a pixel", *(heading for heading, _ in COMPARED.values())]
    lines = [header, ["---"] * 2 + ["---:"] * (len(header) - 2)]
    for name, record in records.items():
        sizes = [codebook["codebook_size"] for codebook in record["codebooks"]]
        # Of several codebooks of one size the tokens of all are counted: their grids may differ, as VAR's scales do.
        bits_a_token = sum(math.log2(size) for size in (set(sizes) if len(set(sizes)) == 1 else sizes))
        bits_per_pixel = record["bits_per_pixel"]
        size = record["dataset"]["image_size"]
        tokens = "–"  # where K is 1, or there is no codebook, the bits do not say it; whole pictures have no number in common
        if bits_a_token and size is not None:
            tokens = f"{bits_per_pixel * size**2 / bits_a_token:.0f}"
        measured_on = f"here: {record['dataset']['name']}, {record['num_images']:,} images"
        bits = "–" if bits_per_pixel is None else f"{bits_per_pixel:.3f}"
        cells = [name, measured_on, tokens, _sizes(sizes), bits]
        lines.append(cells + [_number(record, key) for key in COMPARED])
        for report in reported.get(name, []):
            cells = ["", f"{report['by']} ({report['convention']})", "", "", ""]
            lines.append(cells + [_number(report, key) for key in COMPARED])
    return rows_markdown(lines)


def _number(record: dict[str, Any], key: str) -> str:
    value = record.get(key)
    return "–" if value is None else COMPARED[key][1].format(value)
