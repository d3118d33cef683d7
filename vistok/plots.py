"""Figures of the notebooks: curves, reconstructions, codebook usage. Each function returns a matplotlib figure."""

import io
import math
import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
from IPython.display import Image, display
from matplotlib.axes import Axes
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from torch import Tensor

from vistok.codebook import poster
from vistok.encoded import UsageCurve
from vistok.plane import EXTENT, Partition

DPI = 80
ADVERSARIAL_NAMES = ("adversarial", "discriminator", "logits_real", "logits_fake", "lecam", "r1")  # of `Report.losses`


def reconstructions(
    images: Tensor, reconstruction: Tensor, titles: Sequence[str] | None = None, before: Tensor | None = None
) -> Figure:
    """Draw images over their reconstructions over the error.

    Args:
        images: float [N, 3, H, W] in [-1, 1].
        reconstruction: float [N, 3, H, W], clamped to [-1, 1] as the metrics do.
        titles: one for each image.
        before: reconstructions of the same images before training, for a row of their own; None: without.
    """
    reconstruction = reconstruction.clamp(-1, 1)
    rows = {"original": images} | ({} if before is None else {"before": before}) | {"reconstruction": reconstruction}
    error = (images - reconstruction).abs().mean(1)  # [N, H, W], 0 to 2
    size = (1.1 * len(images), 1.2 * (len(rows) + 1))
    figure, axes = plt.subplots(len(rows) + 1, len(images), figsize=size, dpi=DPI, squeeze=False)
    for column in range(len(images)):
        for axis, shown in zip(axes[:-1, column], rows.values(), strict=True):
            axis.imshow(_pixels(shown[column]))
        axes[-1, column].imshow(error[column].cpu(), cmap="magma", vmin=0, vmax=0.5)
        if titles:
            axes[0, column].set_title(titles[column], fontsize=8)
    for axis, label in zip(axes[:, 0], (*rows, "error"), strict=True):
        axis.set_ylabel(label, fontsize=8)
    for axis in axes.flat:
        axis.set(xticks=[], yticks=[])
    figure.tight_layout(pad=0.3)
    return figure


def side_by_side(
    image: Tensor, reconstructions: dict[str, Tensor], zoom: tuple[float, float, float] = (0.3, 0.3, 0.25)
) -> Figure:
    """Draw an image and what several tokenizers make of it, and the same detail of each enlarged below.

    Args:
        image: float [3, H, W] in [-1, 1].
        reconstructions: name to float [3, h, w]; sizes may differ.
        zoom: top, left and side of the square detail, as fractions of the image's side.
    """
    shown = {"original": image} | reconstructions
    figure, axes = plt.subplots(2, len(shown), figsize=(2.2 * len(shown), 4.7), dpi=DPI, squeeze=False)
    for column, (name, picture) in enumerate(shown.items()):
        pixels = _pixels(picture.clamp(-1, 1))
        top, left, side = (round(part * pixels.shape[0]) for part in zoom)
        axes[0, column].imshow(pixels)
        axes[0, column].add_patch(Rectangle((left - 0.5, top - 0.5), side, side, fill=False, ec="white", lw=1.5))
        axes[1, column].imshow(pixels[top : top + side, left : left + side])
        axes[0, column].set_title(textwrap.fill(name, 28), fontsize=8)
    for axis in axes.flat:
        axis.set(xticks=[], yticks=[])
    figure.tight_layout(pad=0.3)
    return figure


def show_photographs(figure: Figure, path: Path | None = None) -> None:
    """Show a figure of photographs in the notebook, and save it; as JPEG, a fifth of a PNG's size.

    Args:
        figure: what to show; it is closed.
        path: a `.jpg` file; None: show only.
    """
    buffer = io.BytesIO()
    figure.savefig(buffer, format="jpeg", pil_kwargs={"quality": 90})
    plt.close(figure)
    display(Image(buffer.getvalue(), format="jpeg"))
    if path is not None:
        path.write_bytes(buffer.getvalue())


def training_curves(log: Sequence[dict[str, Any]], steps: int) -> Figure:
    """Draw the unweighted losses, and the codebook usage and perplexity, over the steps of a run's log.

    What the discriminator and the tokenizer make of each other has a panel of its own, where there is a discriminator.

    Args:
        log: `run.log()`.
        steps: length of the run, the right end of the axis.
    """
    names = list(dict.fromkeys(name for entry in log for name in entry["losses"]))
    played = [name for name in names if name in ADVERSARIAL_NAMES]
    panels = 3 if played else 2
    figure, axes = plt.subplots(1, panels, figsize=(4.5 * panels, 2.6), dpi=DPI)
    left, right = axes[0], axes[-1]
    _draw_losses(left, log, [name for name in names if name not in ADVERSARIAL_NAMES], steps)
    left.set_yscale("log")
    if played:
        _draw_losses(axes[1], log, played, steps)
        axes[1].set_ylabel("tokenizer and discriminator")
    _draw_usage(right, log, steps)
    figure.tight_layout()
    return figure


def _draw_usage(axis: Axes, log: Sequence[dict[str, Any]], steps: int) -> None:
    step = [entry["step"] for entry in log]
    axis.plot(step, [100 * entry["usage"] for entry in log], color="C2")
    axis.set(xlabel="step", xlim=(0, steps), ylim=(0, 103))
    axis.set_ylabel("codebook usage, % of codes", color="C2")
    twin = axis.twinx()
    twin.plot(step, [entry["perplexity"] for entry in log], color="C4", lw=1)
    twin.set_ylabel("perplexity, codes", color="C4")
    twin.set_ylim(bottom=0)


def _draw_losses(axis: Axes, log: Sequence[dict[str, Any]], names: Sequence[str], steps: int) -> None:
    for name in names:
        style = {"color": "black", "lw": 2, "alpha": 0.4} if name == "total" else {"lw": 1.2}
        if name == "commitment":  # of VQ it equals the codebook loss, and would hide it
            style["ls"] = "--"
        entries = [entry for entry in log if name in entry["losses"]]  # the adversarial terms begin amid a run
        axis.plot(
            [entry["step"] for entry in entries], [entry["losses"][name] for entry in entries], label=name, **style
        )
    axis.set(xlabel="step", ylabel="loss", xlim=(0, steps))
    if names:
        axis.legend(fontsize=7)


def weighted_losses(log: Sequence[dict[str, Any]], weights: dict[str, float]) -> list[dict[str, Any]]:
    """Return a log whose losses are what each adds to the total: those without a weight of their own are left out.

    Args:
        log: `run.log()`.
        weights: loss name to weight, `trainer.objective.weights`; the adversarial loss has its own, step by step, in the log.
    """
    weighted = []
    for entry in log:
        losses = entry["losses"]
        own = weights | ({"adversarial": losses["adversarial_weight"]} if "adversarial_weight" in losses else {})
        terms = {name: losses[name] * weight for name, weight in own.items() if name in losses}
        weighted.append(entry | {"losses": terms | {"total": losses["total"]}})
    return weighted


def dashboard(
    log: Sequence[dict[str, Any]],
    weights: dict[str, float],
    steps: int,
    counts: Sequence[Tensor] = (),
    pictures: Tensor | None = None,
) -> Figure:
    """Draw a training at a glance: losses raw and weighted, codebook usage, a map of each codebook, reconstructions.

    It is no figure of pyplot's, which would not be safe in the thread that trains; there is nothing to close.

    Args:
        log: `run.log()`, or fewer points that stand for it; not empty.
        weights: loss name to weight.
        steps: length of the run, the right end of the axes.
        counts: tokens of each code, int64 [K], one a level; empty: without.
        pictures: uint8 [N, 3, 2H, W], originals over their reconstructions; None: without.
    """
    names = list(dict.fromkeys(name for entry in log for name in entry["losses"]))
    played = [name for name in names if name in ADVERSARIAL_NAMES]
    figure = Figure(figsize=(13.5, 2.9 + (3.3 if len(counts) or pictures is not None else 0)), dpi=DPI)
    above, *below = figure.subfigures(1 if not len(counts) and pictures is None else 2, 1, squeeze=False)[:, 0]
    axes = above.subplots(1, 4 if played else 3)
    for axis, entries, title in (
        (axes[0], log, "losses, raw"),
        (axes[1], weighted_losses(log, weights), "losses, weighted: what each adds to the total"),
    ):
        of_these = dict.fromkeys(name for entry in entries for name in entry["losses"])
        _draw_losses(axis, entries, [name for name in of_these if axis is axes[1] or name not in played], steps)
        axis.set_yscale("log")
        axis.set_title(title, fontsize=8)
    if played:
        _draw_losses(axes[2], log, played, steps)
        axes[2].set_title("tokenizer and discriminator", fontsize=8)
    _draw_usage(axes[-1], log, steps)
    above.subplots_adjust(left=0.055, right=0.95, bottom=0.17, top=0.9, wspace=0.3)
    if below:
        widths = [1] * len(counts) + ([] if pictures is None else [max(1, 3 - len(counts))])
        panels = below[0].subplots(1, len(widths), width_ratios=widths, squeeze=False)[0]
        for level, (axis, of_codes) in enumerate(zip(panels, counts, strict=False)):
            draw_code_map(axis, of_codes, math.ceil(math.sqrt(len(of_codes))))
            if len(counts) > 1:
                axis.set_ylabel(f"level {level}", fontsize=8)
        if pictures is not None:
            strip = pictures.permute(2, 0, 3, 1).flatten(1, 2)  # [2H, N * W, 3]
            panels[-1].imshow(strip.cpu().numpy(), interpolation="nearest")
            panels[-1].set(xticks=[], yticks=[])
            panels[-1].set_title("originals, and below them their reconstructions", fontsize=8)
        below[0].subplots_adjust(left=0.03, right=0.98, bottom=0.04, top=0.9, wspace=0.25)
    return figure


def codebook_usage(counts: Tensor) -> Figure:
    """Draw how often each code was chosen, most frequent first, and the share of tokens that the first n codes cover.

    Args:
        counts: int64 [K].
    """
    ordered = counts.sort(descending=True).values.cpu().numpy()
    rank = np.arange(1, len(ordered) + 1)
    used = int((ordered > 0).sum())
    figure, (left, right) = plt.subplots(1, 2, figsize=(9, 2.4), dpi=DPI)
    left.step(rank[:used], ordered[:used], where="mid", marker=".", ms=3, color="C2")
    if used < len(ordered):
        left.axvspan(used + 0.5, len(ordered) + 0.5, color="0.85", label=f"{len(ordered) - used} codes never chosen")
        left.legend(fontsize=8, loc="lower left")
    left.set(xlabel="code, most frequent first", ylabel="tokens", xscale="log", yscale="log")
    left.set(xlim=(0.9, len(ordered) + 0.5), ylim=(0.8, None))
    left.set_title(f"{used} of {len(ordered)} codes used", fontsize=9)
    right.plot(rank, 100 * np.cumsum(ordered) / max(1, ordered.sum()), color="C2")
    right.set(xlabel="most frequent codes", ylabel="% of tokens", xscale="log")
    right.set(xlim=(0.9, len(ordered) + 0.5), ylim=(0, 103))
    figure.tight_layout()
    return figure


def usage_and_quality(points: dict[str, tuple[Sequence[float], Sequence[float]]]) -> Figure:
    """Draw PSNR against codebook usage, one point a run and one colour a row.

    Args:
        points: row name to (usage in [0, 1], PSNR in dB), one value a seed.
    """
    figure, axis = plt.subplots(figsize=(7, 3.6), dpi=DPI)
    markers = "osD^v<>phX*"
    for number, (name, (usage, psnr)) in enumerate((name, values) for name, values in points.items() if values[0]):
        axis.plot(100 * np.asarray(usage), psnr, markers[number % len(markers)], color=f"C{number % 10}", label=name)
    axis.set(xlabel="codebook usage, %", ylabel="PSNR, dB", xlim=(-2, 103))
    axis.grid(alpha=0.3)
    axis.legend(fontsize=7, ncols=2, loc="lower right")
    figure.tight_layout()
    return figure


def partitions(found: dict[str, Partition], points: Tensor) -> Figure:
    """Draw how quantizers divide the plane: regions of one code each, the points, codes in use as dots and others as crosses.

    Args:
        found: title to partition.
        points: float32 [N, 2].
    """
    columns = min(5, len(found))
    rows = -(-len(found) // columns)
    size = (2.1 * columns, 2.55 * rows) if len(found) > 1 else (5.2, 5.6)
    figure, axes = plt.subplots(rows, columns, figsize=size, dpi=DPI, squeeze=False)
    for axis in axes.flat[len(found) :]:
        axis.remove()
    for axis, (title, partition) in zip(axes.flat, found.items(), strict=False):
        _draw_partition(axis, partition, points, dots=1 if len(found) > 1 else 2)
        axis.set_title(
            f"{title}\n{partition.num_used} of {len(partition.codes)} codes, error {partition.error:.3f}", fontsize=8
        )
    figure.tight_layout(pad=0.6, h_pad=1.2)
    return figure


def _draw_partition(axis: Axes, partition: Partition, points: Tensor, dots: float) -> None:
    extent = (-EXTENT, EXTENT, -EXTENT, EXTENT)
    colours = plt.get_cmap("tab20")(np.arange(20))[:, :3] * 0.5 + 0.5  # pale: the marks are what must be seen
    axis.imshow(colours[partition.labels.numpy() % 20], extent=extent, interpolation="nearest")
    axis.scatter(*points.T.numpy(), s=dots, color="0.25", alpha=0.35, lw=0)
    used = partition.counts.numpy() > 0
    codes = partition.codes.numpy()
    axis.scatter(*codes[~used].T, s=22 * dots, marker="x", color="#b2182b", lw=1.2)
    axis.scatter(*codes[used].T, s=14 * dots, marker="o", color="black", edgecolors="white", lw=0.8)
    axis.set(xlim=extent[:2], ylim=extent[2:], xticks=[], yticks=[])


def bits_and_quality(points: dict[str, tuple[float, float]], groups: dict[str, str]) -> Figure:
    """Draw PSNR against the share of its bits that a token's use amounts to, one point a row, the names beside the axes.

    Args:
        points: row to (share in [0, 1], PSNR in dB).
        groups: row to what its kind is called; one colour and marker each.
    """
    figure, axis = plt.subplots(figsize=(8, 0.22 * len(points) + 1.2), dpi=DPI)
    kinds = list(dict.fromkeys(groups[name] for name in points))
    best_first = sorted(points, key=lambda name: -points[name][1])
    for place, name in enumerate(best_first):
        share, psnr = points[name]
        number = kinds.index(groups[name])
        colour = f"C{number % 10}"
        axis.plot(100 * share, psnr, "osD^v<>phX*"[number % 11], color=colour)
        height = 1 - (place + 0.5) / len(points)  # one below the other, so that no two are written over each other
        line = {"arrowstyle": "-", "color": colour, "alpha": 0.4, "lw": 0.7}
        axis.annotate(
            name,
            (100 * share, psnr),
            (1.04, height),
            textcoords="axes fraction",
            va="center",
            fontsize=8,
            arrowprops=line,
        )
    axis.set(xlabel="entropy of the codes, % of a token's bits", ylabel="PSNR, dB")
    axis.margins(x=0.06, y=0.08)
    axis.grid(alpha=0.3)
    figure.tight_layout()
    return figure


def _pixels(image: Tensor) -> np.ndarray:
    return ((image + 1) / 2).clamp(0, 1).permute(1, 2, 0).float().cpu().numpy()


def codebook_overview(
    counts: Tensor,
    order: Tensor,
    columns: int,
    curve: UsageCurve,
    queue_size: int,
    code: int = -1,
    patches: Tensor | None = None,
    decoded: Tensor | None = None,
) -> Figure:
    """Draw a codebook: the map of its codes, their frequencies, how usage grows with the tokens seen, and one code's patches.

    Args:
        counts: int64 [K].
        order: int64 [K], the code of each cell of the map.
        columns: cells a row of the map.
        curve: `EncodedImages.usage_curve()`.
        queue_size: tokens, where the published usage stops counting.
        code: marked on the map; -1: none.
        patches, decoded: uint8 [n, 3, p, p], of that code, and as decoded; None: without.
    """
    figure = plt.figure(figsize=(10, 5.6 if patches is None else 7), dpi=DPI)
    layout = figure.add_gridspec(
        2 if patches is None else 4, 2, height_ratios=[3, 3] + ([] if patches is None else [1, 1])
    )
    draw_code_map(
        figure.add_subplot(layout[:2, 0]), counts[order], columns, (order == code).nonzero().flatten().tolist()
    )
    ranked = counts.sort(descending=True).values.numpy()
    axis = figure.add_subplot(layout[0, 1])
    rank = np.arange(1, len(ranked) + 1)
    axis.plot(rank, np.where(ranked > 0, ranked, np.nan), color="C0")
    axis.set(xscale="log", yscale="log", ylabel="tokens")
    axis.set_title("codes, most frequent first; dashed: % of tokens up to there", fontsize=8)
    share = axis.twinx()
    share.plot(rank, 100 * np.cumsum(ranked) / max(1, ranked.sum()), "--", color="C1")
    share.set_ylim(0, 103)
    axis = figure.add_subplot(layout[1, 1])
    for values, style, name in (
        (curve.seen, "-", "in the images' order"),
        (curve.expected, "--", "tokens drawn at random"),
        (curve.in_queue, ":", f"the last {queue_size:,} tokens only"),
    ):
        axis.plot(curve.tokens, 100 * values / len(counts), style, label=name)
    axis.set(xscale="log", xlabel="tokens seen", ylabel="codes seen, %", ylim=(0, 103))
    if curve.tokens[-1] > queue_size:
        axis.axvline(queue_size, color="0.5", lw=1)
    axis.legend(fontsize=7)
    for number, (shown, label) in enumerate(((patches, f"code {code}"), (decoded, "decoded"))):
        if shown is not None:
            axis = figure.add_subplot(layout[2 + number, :])
            axis.imshow(poster(shown, columns=len(shown), gap=2).numpy(), interpolation="nearest")
            axis.set(xticks=[], yticks=[])
            axis.set_ylabel(label, fontsize=8)
    figure.tight_layout(pad=0.5)
    return figure


def draw_code_map(axis: Axes, counts: Tensor, columns: int, marked: Sequence[int] = ()) -> None:
    """Draw one cell a code, coloured by its count on a log scale; codes that are never chosen are grey with a cross.

    Args:
        axis: where to draw.
        counts: int64 [K], in the order of the cells.
        columns: cells a row.
        marked: cells to outline.
    """
    rows = -(-len(counts) // columns)
    cells = np.full(rows * columns, np.nan)
    cells[: len(counts)] = counts.cpu().numpy()
    cells = cells.reshape(rows, columns)
    colours = plt.get_cmap("cividis").with_extremes(bad="white")
    shown = axis.imshow(np.ma.masked_less(cells, 1), cmap=colours, norm=LogNorm(1, max(2, np.nanmax(cells))))
    axis.imshow(np.ma.masked_where(cells != 0, np.full_like(cells, 0.8)), cmap="gray", vmin=0, vmax=1)
    dead_y, dead_x = np.nonzero(cells == 0)
    if len(counts) <= 4096:
        axis.scatter(dead_x, dead_y, marker="x", s=3000 / columns**2 * 4, color="#8a3ffc", lw=0.7)
    for place in marked:
        corner = (place % columns - 0.5, place // columns - 0.5)
        axis.add_patch(Rectangle(corner, 1, 1, fill=False, ec="#d55e00", lw=1.5))
    used = int((counts > 0).sum())
    axis.set(xticks=[], yticks=[])
    axis.set_title(f"{used:,} of {len(counts):,} codes used; crosses: never chosen", fontsize=8)
    axis.figure.colorbar(shown, ax=axis, label="tokens", fraction=0.046, pad=0.02)


def places(perplexity: np.ndarray) -> Figure:
    """Draw the perplexity of the codes at each place of the grid, float [h, w]."""
    figure, axis = plt.subplots(figsize=(4.6, 3.8), dpi=DPI)
    shown = axis.imshow(perplexity, cmap="cividis")
    axis.set(xlabel="column", ylabel="row")
    figure.colorbar(shown, ax=axis, label="perplexity of the codes")
    figure.tight_layout()
    return figure
