"""What generators make of the tokens of a table's rows, and whether a larger one ranks the rows otherwise, as Markdown."""

import itertools
import math
from collections.abc import Sequence
from statistics import mean
from typing import Any

from vistok.tables.generating import PlannedGenerator
from vistok.tables.showing import COLUMNS, rows_markdown, spread, verdict_of

# Key of what is measured of samples to heading and form; the first is that by which rows are ranked.
MEASURED = {
    "swd": ("Wasserstein ↓", "{:.1f}"),
    "precision": ("precision ↑", "{:.2f}"),
    "recall": ("recall ↑", "{:.2f}"),
}
RANKED = "swd"


def qualities(planned: Sequence[PlannedGenerator], key: str = RANKED) -> dict[str, dict[str, list[float]]]:
    """Return size to row name to what was measured of the samples, over the seeds that are complete."""
    return _by_size(planned, lambda run: run.quality and run.quality["samples"][key])


def rates(planned: Sequence[PlannedGenerator]) -> dict[str, dict[str, list[float]]]:
    """Return size to row name to bits of a test image, over the seeds that are complete."""
    return _by_size(planned, lambda run: run.rate and run.rate["bits_per_image"])


def _by_size(planned: Sequence[PlannedGenerator], value_of: Any) -> dict[str, dict[str, list[float]]]:
    found: dict[str, dict[str, list[float]]] = {}
    for run in planned:
        row = found.setdefault(run.config.size, {}).setdefault(run.tokenizer.row.name, [])
        if (value := value_of(run)) is not None:
            row.append(value)
    return found


def generators_markdown(planned: Sequence[PlannedGenerator]) -> str:
    """Return as Markdown, for each row and size: bits of an image, nominal and as weighed, and its samples beside controls.

    Several seeds are shown as their mean with their range. Reconstructions and real images are measured as samples are:
    the one is the ceiling of a row, the other what nothing exceeds.
    """
    headings = [f"{heading}<br>samples" for heading, _ in MEASURED.values()]
    swd, form = MEASURED[RANKED]
    headings[1:1] = [f"{swd}<br>{control}" for control in ("reconstructions", "real")]
    header = ["row", "tokens", "PSNR ↑", "bits", "generator", "bits, weighed ↓", *headings]
    lines = [header, ["---"] * 2 + ["---:"] * 2 + ["---"] + ["---:"] * (len(header) - 5)]
    of_rows: dict[tuple[str, str], list[PlannedGenerator]] = {}
    for run in planned:
        of_rows.setdefault((run.tokenizer.row.name, run.config.size), []).append(run)
    for (name, size), runs in of_rows.items():
        metrics = [found for run in runs if (found := run.tokenizer.metrics) is not None]
        records = [found for run in runs if (found := run.quality) is not None]
        bits = _nominal_bits(metrics[0]) if metrics else None
        cells = [name, _tokens(runs[0]), spread([found["psnr"] for found in metrics], COLUMNS["psnr"][1])]
        cells += ["–" if bits is None else f"{bits:.0f}", size]
        cells.append(spread([rate["bits_per_image"] for run in runs if (rate := run.rate) is not None], "{:.0f}"))
        samples = [
            spread([found["samples"][key] for found in records], of_key) for key, (_, of_key) in MEASURED.items()
        ]
        samples[1:1] = [
            spread([found["controls"][control][RANKED] for found in records], form)
            for control in ("reconstructions", "real")
        ]
        lines.append(cells + samples)
    return rows_markdown(lines)


def _nominal_bits(metrics: dict[str, Any]) -> float:
    return metrics["bits_per_pixel"] * metrics["dataset"]["image_size"] ** 2


def _tokens(run: PlannedGenerator) -> str:
    """Return "64 x 512", an image's tokens by the codes of each, as far as its row is complete."""
    sizes = run.tokenizer.quantizer.codebook_sizes
    if (metrics := run.tokenizer.metrics) is None:
        return f"K = {sizes[0]}"
    return f"{_nominal_bits(metrics) / sum(math.log2(size) for size in sizes):.0f} x {sizes[0]:,}"


def ranking_markdown(planned: Sequence[PlannedGenerator]) -> str:
    """Return as Markdown how samples rank the rows at each size of the generator, and whether two sizes rank any otherwise.

    Two rows are apart at a size where the worst seed of one is better than the best of the other. Only then is there an order
    that a larger generator could turn round.
    """
    found = qualities(planned)
    complete = [row for row in next(iter(found.values()), {}) if all(values.get(row) for values in found.values())]
    if len(complete) < 2:
        return "Fewer than two rows are complete."
    form = MEASURED[RANKED][1]
    lines = [["generator", "rows, best samples first"], ["---"] * 2]
    for size, values in found.items():
        order = sorted(complete, key=lambda row: mean(values[row]))
        lines.append([size, ", ".join(f"{row} ({form.format(mean(values[row]))})" for row in order)])
    same, turned, open_pairs = [], [], 0
    for pair in itertools.combinations(complete, 2):
        verdicts = {verdict_of(*([-value for value in values[row]] for row in pair)) for values in found.values()}
        if "open" in verdicts:
            open_pairs += 1
        else:
            (same if len(verdicts) == 1 else turned).append(pair)
    number = len(same) + len(turned) + open_pairs
    said = f"Of {number} pairs of rows, {len(same)} are apart in the same order at every size, {len(turned)} in another order"
    named = f" ({'; '.join(' and '.join(pair) for pair in turned)})" if turned else ""
    return f"{rows_markdown(lines)}\n\n{said}{named}, and {open_pairs} are not apart at one size at least."
