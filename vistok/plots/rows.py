"""Rows of a table as points: usage, bits and quality."""

from collections.abc import Sequence

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.figure import Figure

from vistok.plots.figures import DPI, WIDTH
from vistok.plots.labels import write_names
from vistok.plots.styles import legend_below, legend_beside, point_style


def usage_and_quality(points: dict[str, tuple[Sequence[float], Sequence[float]]]) -> Figure:
    """Draw PSNR against codebook usage, one point a run and one colour and marker a row, its name beside it.

    Args:
        points: row name to (usage in [0, 1], PSNR in dB), one value a seed.
    """
    figure, axis = plt.subplots(figsize=(WIDTH, 4.4), dpi=DPI, layout="constrained")
    drawn = {name: np.stack([100 * np.asarray(usage), psnr], 1) for name, (usage, psnr) in points.items() if usage}
    for number, (name, seeds) in enumerate(drawn.items()):
        drawn[name] = seeds[seeds[:, 0].argsort()]
        axis.plot(*drawn[name].T, label=name, **point_style(number) | {"ls": "-", "lw": 0.8})
    axis.set(xlabel="codebook usage, %", ylabel="PSNR, dB", xlim=(-2, 103))
    axis.margins(y=0.1)
    axis.grid(alpha=0.3)
    write_names(axis, drawn)
    return figure


def by_length(points: dict[str, dict[int, tuple[Sequence[float], Sequence[float]]]]) -> Figure:
    """Draw codebook usage and PSNR against the steps of training, one line a row through the means over its seeds.

    Args:
        points: row name to steps to (usage in [0, 1], PSNR in dB), one value a seed.
    """
    figure, axes = plt.subplots(1, 2, figsize=(WIDTH, 3.8), dpi=DPI, layout="constrained", sharex=True)
    for number, (name, lengths) in enumerate(points.items()):
        style = point_style(number)
        for axis, column, factor in ((axes[0], 0, 100), (axes[1], 1, 1)):
            measured = {
                steps: factor * np.asarray(values[column]) for steps, values in lengths.items() if values[column]
            }
            axis.plot(list(measured), [seeds.mean() for seeds in measured.values()], label=name, **style | {"ls": "-"})
            for steps, seeds in measured.items():  # a thin line over the range of the seeds
                axis.plot([steps, steps], [seeds.min(), seeds.max()], color=style["color"], lw=0.8)
    lengths = sorted({steps for row in points.values() for steps in row})
    for axis, label in zip(axes, ("codebook usage, %", "PSNR, dB"), strict=True):
        axis.set(xlabel="steps", ylabel=label, xscale="log", xticks=lengths)
        axis.set_xticks(lengths, [f"{steps:,}" for steps in lengths])
        axis.set_xticks([], minor=True)
        axis.grid(alpha=0.3)
    axes[0].set_ylim(-2, 103)
    legend_below(figure, axes[0])
    return figure


def rate_and_distortion(
    rows: dict[str, dict[str, tuple[float, float]]],
    codecs: dict[str, Sequence[tuple[float, float]]],
    quality: str = "PSNR, dB",
) -> Figure:
    """Draw what rows cost and what they keep of an image, beside curves of codecs; the rate is logarithmic.

    Args:
        rows: row to name of a way to count its bits to (bits a pixel, quality): a marker each, joined by a line.
        codecs: name to its curve of (bits a pixel, quality).
        quality: what the axis says.
    """
    figure, axis = plt.subplots(figsize=(WIDTH, 4.6), dpi=DPI, layout="constrained")
    for (name, curve), dashes in zip(codecs.items(), ("-", "--", ":", "-."), strict=False):
        axis.plot(*zip(*curve, strict=True), color="tab:gray", ls=dashes, lw=1.2, label=name)
    ways = list(dict.fromkeys(way for row in rows.values() for way in row))
    for number, (name, row) in enumerate(rows.items()):
        colour = {"color": point_style(number)["color"]}
        axis.plot(*zip(*row.values(), strict=True), lw=1.2, label=name, **colour)
        for way, point in row.items():
            axis.plot(*point, ms=5, **point_style(ways.index(way)) | colour)
    for number, way in enumerate(ways):
        axis.plot([], [], ms=5, label=way, **point_style(number) | {"color": "tab:gray"})
    axis.set(xlabel="bits a pixel", ylabel=quality, xscale="log")
    axis.grid(alpha=0.3, which="both")
    legend_beside(axis)
    return figure


def bits_and_quality(points: dict[str, tuple[float, float]], groups: dict[str, str]) -> Figure:
    """Draw PSNR against the share of its bits that a token's use amounts to, one point a row, its name beside it.

    Args:
        points: row to (share in [0, 1], PSNR in dB).
        groups: row to what its kind is called; one colour and marker each.
    """
    figure, axis = plt.subplots(figsize=(WIDTH, max(3.6, 0.24 * len(points) + 1.2)), dpi=DPI, layout="constrained")
    kinds = list(dict.fromkeys(groups[name] for name in points))
    drawn = {name: np.array([[100 * share, psnr]]) for name, (share, psnr) in points.items()}
    for name, point in drawn.items():
        axis.plot(*point.T, label=name, **point_style(kinds.index(groups[name])))
    axis.set(xlabel="entropy of the codes, % of a token's bits", ylabel="PSNR, dB")
    axis.margins(x=0.12, y=0.1)
    axis.grid(alpha=0.3)
    write_names(axis, drawn)
    return figure
