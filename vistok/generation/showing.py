"""What was measured of a generator, as Markdown tables."""

from typing import Any

from vistok.generation.rate import Rate

COLUMNS = {  # value of a measured set -> what a table calls it, and how it is written
    "swd": ("sliced Wasserstein distance ↓", ".1f"),
    "precision": ("precision ↑", ".3f"),
    "recall": ("recall ↑", ".3f"),
    "nearest_distance": ("to the nearest training image, grey levels", ".1f"),
    "nearer_share": ("nearer to one than {:.0%} of test images", ".1%"),
}


def quality_markdown(record: dict[str, Any]) -> str:
    """Return a record, as `quality.json` holds it, as a table: the samples, and the controls that they are read beside."""
    headings = [heading.format(1 - record["settings"]["quantile"]) for heading, _ in COLUMNS.values()]
    lines = ["| images | " + " | ".join(headings) + " |", "|---|" + "---:|" * len(COLUMNS)]
    for name, values in ({"samples": record["samples"]} | record["controls"]).items():
        cells = [_cell(values and values[column], kind) for column, (_, kind) in COLUMNS.items()]
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return "\n".join(lines)


def rate_markdown(rate: Rate) -> str:
    """Return a rate beside the nominal one, as a table."""
    lines = [f"| {len(rate.bits):,} images | bits an image | bits a token | bits a pixel |", "|---|---:|---:|---:|"]
    for name, bits in (("nominal", rate.nominal_bits), ("under the generator", rate.bits_per_image)):
        lines.append(f"| {name} | {bits:.0f} | {bits / rate.num_tokens:.2f} | {bits / rate.num_pixels:.3f} |")
    return "\n".join(lines)


def _cell(value: float | None, kind: str) -> str:
    return "–" if value is None else format(value, kind)
