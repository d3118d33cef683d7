"""Figures of the notebooks: curves, reconstructions, codebook usage. Each function returns a matplotlib figure.

They are drawn in black on white; `vistok.figures` shows and saves them so that they are readable anywhere.
"""

import math
import textwrap
from collections.abc import Sequence
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Rectangle
from matplotlib.ticker import LogLocator, MaxNLocator
from torch import Tensor

from vistok.collapse import Moment
from vistok.figures import DPI as DPI
from vistok.figures import NORMAL, SMALL, WIDTH
from vistok.figures import save as save
from vistok.figures import show as show
from vistok.figures import show_photographs as show_photographs
from vistok.labels import write_names
from vistok.plane import EXTENT, Partition
from vistok.runs import Run
from vistok.tokens.codebook import poster
from vistok.tokens.encoded import UsageCurve

ADVERSARIAL_NAMES = ("adversarial", "discriminator", "logits_real", "logits_fake", "lecam", "r1")  # of `Report.losses`
# Okabe and Ito's hues, told apart by colour-blind readers too, some darkened: those of `LINES` in widgets/js/common.js.
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#b87f00", "#1f8fd0", "#767676", "#8f8400")
_DASHES = ("-", "--", ":", "-.")  # four lines each
_MARKERS = "osD^v<>phX*"
_ALIKE = 0.02  # losses that never differ by more of their size are one line to the eye
_MAX_CROSSES = 4096  # on a map of more codes they would be specks: its dead codes are grey only


def _line_style(number: int) -> dict[str, Any]:
    """Return colour and dashes of a figure's line, counted from 0; no two of 16 are alike."""
    return {"color": COLOURS[number % len(COLOURS)], "ls": _DASHES[number // 4 % len(_DASHES)]}


def _point_style(number: int) -> dict[str, Any]:
    return {"color": COLOURS[number % len(COLOURS)], "marker": _MARKERS[number % len(_MARKERS)], "ls": ""}


def check_zoom(zoom: Sequence[float]) -> None:
    """Raise ValueError where a detail to enlarge is not three numbers, before what it is to show is computed."""
    if len(zoom) != 3:
        raise ValueError(
            f"zoom is {list(zoom)}, but must be top, left and side of the detail; [0.3, 0.3, 0.25] is usual."
        )


def indices_shown(wanted: Sequence[int], length: int) -> list[int]:
    """Return which images of a dataset a figure shows: those wanted, or as many others, spread evenly, where it is smaller.

    Args:
        wanted: indices, at least 0; not empty.
        length: images in the dataset, at least 1.

    Returns:
        indices in [0, length); fewer than wanted where there are fewer images.

    Raises:
        ValueError: an index is below 0.
    """
    if min(wanted) < 0:
        raise ValueError(f"The index of a figure's image is {min(wanted)}, but must be at least 0.")
    if max(wanted) < length:
        return list(wanted)
    number = min(len(wanted), length)
    return [place * length // number for place in range(number)]


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
    side = min(1.1, (WIDTH - 0.2) / len(images))
    size = (side * len(images) + 0.2, 1.05 * side * (len(rows) + 1) + 0.2)
    figure, axes = plt.subplots(len(rows) + 1, len(images), figsize=size, dpi=DPI, squeeze=False)
    for column in range(len(images)):
        for axis, shown in zip(axes[:-1, column], rows.values(), strict=True):
            axis.imshow(_pixels(shown[column]))
        axes[-1, column].imshow(error[column].cpu(), cmap="magma", vmin=0, vmax=0.5)
        if titles:
            axes[0, column].set_title(titles[column], fontsize=SMALL)
    for axis, label in zip(axes[:, 0], (*rows, "error, 0 to 0.5"), strict=True):
        axis.set_ylabel(label, fontsize=SMALL)
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
        zoom: top, left and side of the square detail, as fractions of the image's side; it is of a pixel at least, and moved
            to lie within the image.
    """
    shown = {"original": image} | reconstructions
    side = min(2.2, WIDTH / len(shown))
    size = (side * len(shown), 2 * side + 0.35)
    figure, axes = plt.subplots(2, len(shown), figsize=size, dpi=DPI, squeeze=False)
    for column, (name, picture) in enumerate(shown.items()):
        pixels = _pixels(picture.clamp(-1, 1))
        top, left, side = (round(part * pixels.shape[0]) for part in zoom)
        side = min(max(1, side), pixels.shape[0])
        top, left = (min(max(0, place), pixels.shape[0] - side) for place in (top, left))
        axes[0, column].imshow(pixels)
        axes[0, column].add_patch(Rectangle((left - 0.5, top - 0.5), side, side, fill=False, ec="white", lw=1.5))
        axes[1, column].imshow(pixels[top : top + side, left : left + side])
        axes[0, column].set_title(textwrap.fill(name, round(13 * side)), fontsize=SMALL)
    for axis in axes.flat:
        axis.set(xticks=[], yticks=[])
    figure.tight_layout(pad=0.3)
    return figure


def training_curves(log: Sequence[dict[str, Any]], steps: int) -> Figure:
    """Draw the unweighted losses, and the codebook usage and perplexity, over the steps of a run's log.

    What the discriminator and the tokenizer make of each other has a panel of its own, where there is a discriminator.

    Args:
        log: `run.log()`.
        steps: length of the run, the right end of the axis.
    """
    played = _loss_names(log, played=True)
    rows = 2 if played else 1
    figure = plt.figure(figsize=(WIDTH, 3.1 * rows), dpi=DPI, layout="constrained")
    grid = figure.add_gridspec(rows, 2)
    axes = [figure.add_subplot(grid[place]) for place in range(3 if played else 2)]
    _draw_losses(axes[0], log, _loss_names(log), steps)
    if played:
        _draw_players(axes[1], log, played, steps)
    _draw_usage(axes[-1], log, steps)
    return figure


def _loss_names(log: Sequence[dict[str, Any]], *, played: bool = False) -> list[str]:
    """Return the losses of a log, or what the discriminator and the tokenizer make of each other (`played`), in their order.

    The adversarial weight is neither: it is a factor, of another size than any loss.
    """
    names = dict.fromkeys(name for entry in log for name in entry["losses"] if name != "adversarial_weight")
    return [name for name in names if (name in ADVERSARIAL_NAMES) == played]


def _draw_usage(axis: Axes, log: Sequence[dict[str, Any]], steps: int) -> None:
    step = [entry["step"] for entry in log]
    twin = axis.twinx()
    lines = axis.plot(step, [100 * entry["usage"] for entry in log], color=COLOURS[2], label="usage")
    lines += twin.plot(step, [entry["perplexity"] for entry in log], "--", color=COLOURS[3], label="perplexity")
    axis.set(ylabel="codebook usage, % of codes", ylim=(0, 103))
    twin.set_ylabel("perplexity, codes")
    twin.set_ylim(bottom=0)
    _finish_steps(axis, steps, lines)


def _draw_losses(axis: Axes, log: Sequence[dict[str, Any]], names: Sequence[str], steps: int) -> None:
    """Draw losses on a log axis; where one is zero or negative, as a hinge loss may be, with a linear part around zero."""
    _draw_lines(axis, log, names, steps)
    values = np.array([value for line in axis.lines for value in line.get_ydata()])
    values = values[np.isfinite(values)]
    if (values > 0).all():
        axis.set(yscale="log", ylabel="loss")
    else:
        within = 10 ** np.floor(np.log10(np.quantile(abs(values[values != 0]), 0.1))) if values.any() else 1
        axis.set_yscale("symlog", linthresh=within)
        axis.axhline(0, color="0.5", lw=0.6)
        axis.set_ylabel(f"loss, linear within ±{within:g}", fontsize=NORMAL)


def _draw_players(axis: Axes, log: Sequence[dict[str, Any]], names: Sequence[str], steps: int) -> None:
    _draw_lines(axis, log, names, steps)
    axis.set_ylabel("loss, or mean logit")
    axis.set_title("tokenizer and discriminator", fontsize=NORMAL)


def _draw_lines(axis: Axes, log: Sequence[dict[str, Any]], names: Sequence[str], steps: int) -> None:
    for number, name in enumerate(name for name in names if name != "total"):
        entries = [entry for entry in log if name in entry["losses"]]  # the adversarial terms begin amid a run
        values = [entry["losses"][name] for entry in entries]
        axis.plot([entry["step"] for entry in entries], values, label=name, lw=1.4, **_line_style(number))
    _interleave(axis.lines)
    if "total" in names:
        values = [entry["losses"]["total"] for entry in log]
        axis.plot([entry["step"] for entry in log], values, label="total", color="black", lw=2.5, alpha=0.5, zorder=1)
    _finish_steps(axis, steps, axis.lines)


def _interleave(lines: Sequence[Line2D]) -> None:
    """Dash lines that lie on each other so that each shows in the gaps of the others; of VQ two losses are equal."""
    left = list(lines)
    while left:
        points = left[0].get_xydata()
        alike = [line for line in left if np.array_equal(line.get_xdata(), points[:, 0])]
        alike = [line for line in alike if np.allclose(line.get_ydata(), points[:, 1], rtol=_ALIKE, atol=0)]
        for place, line in enumerate(alike if len(alike) > 1 else []):
            line.set_linestyle((4 * place, (4, 4 * (len(alike) - 1))))
            line.set_dash_capstyle("butt")
        left = [line for line in left if line is not left[0] and line not in alike]


def _finish_steps(axis: Axes, steps: int, lines: Sequence[Line2D]) -> None:
    """Give an axis of steps its end, whole numbers, and below them the legend, where it covers no line."""
    axis.set(xlabel="step", xlim=(0, steps))
    axis.xaxis.set_major_locator(MaxNLocator(6, integer=True))
    axis.legend(handles=lines, fontsize=SMALL, ncols=2, frameon=False, loc="upper center", bbox_to_anchor=(0.5, -0.22))


def codebook_curves(runs: Sequence[Run]) -> Figure:
    """Draw usage, perplexity, codebook loss and reconstruction loss of several runs over their steps, one line a run.

    Steps are on a log axis: a codebook collapses in the first hundred of thousands. The reconstruction loss hardly shows it,
    and stands beside the others to be compared. A run without a codebook loss has no line there.

    Args:
        runs: with a log; they are called by their rows where those differ, or else by their directories.
    """
    panels = {
        "usage": "codebook usage, % of codes",
        "perplexity": "perplexity, codes",
        "codebook": "codebook loss",
        "reconstruction": "reconstruction loss",
    }
    figure, axes = plt.subplots(2, 2, figsize=(WIDTH, 5.6), dpi=DPI, layout="constrained", sharex=True)
    names = _run_names(runs)
    for number, (name, run) in enumerate(zip(names, runs, strict=True)):
        entries = [entry["losses"] | entry | {"usage": 100 * entry["usage"]} for entry in run.log()]
        for axis, key in zip(axes.flat, panels, strict=True):
            if found := [(entry["step"], entry[key]) for entry in entries if key in entry]:
                axis.plot(*zip(*found, strict=True), label=name, lw=1.4, **_line_style(number))
    for axis, label in zip(axes.flat, panels.values(), strict=True):
        axis.set(xscale="log", yscale="log", ylabel=label)
        axis.grid(alpha=0.3)
    axes[0, 0].set(yscale="linear", ylim=(0, 103))
    for axis in axes[1]:
        axis.set_xlabel("step")
    for numbers in (axes[1, 0].xaxis, axes[1, 1].xaxis, axes[0, 1].yaxis, axes[1, 1].yaxis):
        numbers.set_major_locator(LogLocator(subs=(1, 2, 5)))
        numbers.set_major_formatter("{x:,g}")
        numbers.set_minor_formatter("")
    columns = max(1, 110 // (max(map(len, names), default=0) + 8))  # as many as the figure is wide enough for
    handles = axes[0, 0].get_legend_handles_labels()
    figure.legend(*handles, loc="outside lower center", ncols=columns, fontsize=SMALL, frameon=False)
    return figure


def collapse(moments: dict[str, Sequence[Moment]]) -> Figure:
    """Draw how far out encoder outputs and codes are, how the outputs spread, and how many codes move, as trainings begin.

    Args:
        moments: name of a run to what was seen of it, from step 0 on.
    """
    figure, axes = plt.subplots(1, 3, figsize=(WIDTH, 3.6), dpi=DPI, layout="constrained")
    for number, (name, seen) in enumerate(moments.items()):
        steps, colour = [moment.step for moment in seen], COLOURS[number % len(COLOURS)]
        lines = (
            (axes[0], "outputs", "encoder outputs", "-"),
            (axes[0], "codes", "the codes they choose", "--"),
            (axes[1], "dimensions", "dimensions", "-"),
            (axes[1], "brightness", "correlation with brightness", "--"),
            (axes[2], "moved", "moved so far", "-"),
            (axes[2], "chosen", "chosen now", "--"),
        )
        for axis, field, what, dashes in lines:
            values = [getattr(moment, field) for moment in seen]
            axis.plot(steps, values, label=f"{name}, {what}", color=colour, ls=dashes, lw=1.4)
    labels = ("distance from the origin", "spread of the encoder outputs", "codes")
    for axis, label, scale in zip(axes, labels, ("log", "linear", "linear"), strict=True):
        axis.set(xlabel="step", ylabel=label, yscale=scale)
        axis.grid(alpha=0.3)
        axis.legend(loc="upper center", bbox_to_anchor=(0.5, -0.2), fontsize=SMALL, frameon=False)
    axes[1].set_ylim(bottom=0)
    axes[2].set_ylim(bottom=0)
    return figure


def _run_names(runs: Sequence[Run]) -> list[str]:
    rows = [(run.config.row or run.path.name).split("/")[-1] for run in runs]
    return rows if len(set(rows)) == len(rows) else [run.path.name for run in runs]


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
    played = _loss_names(log, played=True)
    beside = not played and len(counts) == 1  # its map has the place of the panel that there is not
    heights = [6.0] + ([2.4] if len(counts) and not beside else []) + ([2.2] if pictures is not None else [])
    figure = Figure(figsize=(WIDTH, sum(heights)), dpi=DPI, layout="constrained")
    above, *below = figure.add_gridspec(len(heights), 1, height_ratios=heights)
    above = above.subgridspec(2, 2)
    axes = [figure.add_subplot(above[place]) for place in range(4 if played else 3)]
    weighted = weighted_losses(log, weights)
    _draw_losses(axes[0], log, _loss_names(log), steps)
    axes[0].set_title("losses, raw", fontsize=NORMAL)
    terms = {name for entry in weighted for name in entry["losses"]}
    in_order = [name for name in _loss_names(log) + played if name in terms]  # a loss has one colour in both
    _draw_losses(axes[1], weighted, in_order, steps)
    axes[1].set_title("losses × weights: what each adds to the total", fontsize=NORMAL)
    if played:
        _draw_players(axes[2], log, played, steps)
    _draw_usage(axes[-1], log, steps)
    if len(counts):
        maps = [above[3]] if beside else below[0].subgridspec(1, len(counts))
        for level, (place, of_codes) in enumerate(zip(maps, counts, strict=True)):
            axis = figure.add_subplot(place)
            draw_code_map(axis, of_codes, math.ceil(math.sqrt(len(of_codes))))
            if len(counts) > 1:
                axis.set_ylabel(f"level {level}", fontsize=SMALL)
    if pictures is not None:
        axis = figure.add_subplot(below[-1])
        strip = pictures.permute(2, 0, 3, 1).flatten(1, 2)  # [2H, N * W, 3]
        axis.imshow(strip.cpu().numpy(), interpolation="nearest")
        axis.set(xticks=[], yticks=[])
        axis.set_title("originals over their reconstructions", fontsize=NORMAL)
    return figure


def pixel_values(images: Tensor) -> Figure:
    """Draw how the values of the three channels are distributed.

    Args:
        images: float [N, 3, H, W] in [-1, 1].
    """
    figure, axis = plt.subplots(figsize=(WIDTH, 2.8), dpi=DPI, layout="constrained")
    channels = (("red", COLOURS[1], "-"), ("green", COLOURS[2], "--"), ("blue", COLOURS[0], ":"))
    for values, (name, colour, dashes) in zip(images.transpose(0, 1), channels, strict=True):
        density, edges = np.histogram(values.flatten().cpu().numpy(), bins=64, range=(-1, 1), density=True)
        axis.stairs(density, edges, label=f"{name} channel", color=colour, ls=dashes, lw=1.4)
    axis.set(xlabel="pixel value, −1 to 1", ylabel="density", xlim=(-1.02, 1.02), ylim=(0, None))
    _legend_beside(axis)
    return figure


def codebook_usage(counts: Tensor, source: str = "") -> Figure:
    """Draw how often each code was chosen, most frequent first, and the share of tokens that the first n codes cover.

    Args:
        counts: int64 [K].
        source: what the tokens are of, for the title: "8 images", "the test split, level 0"; empty: not said.
    """
    ordered = counts.sort(descending=True).values.cpu().numpy()
    rank = np.arange(1, len(ordered) + 1)
    used, tokens = int((ordered > 0).sum()), int(ordered.sum())
    figure, (left, right) = plt.subplots(1, 2, figsize=(WIDTH, 2.9), dpi=DPI, layout="constrained")
    left.step(rank[:used], ordered[:used], where="mid", marker=".", ms=3, color=COLOURS[2])
    if used < len(ordered):
        left.axvspan(used + 0.5, len(ordered) + 0.5, color="0.5", alpha=0.25, lw=0)
    left.set(xlabel="code, most frequent first", ylabel="tokens", xscale="log", yscale="log")
    left.set(xlim=(0.9, len(ordered) + 0.5), ylim=(0.8, None))
    right.plot(rank, 100 * np.cumsum(ordered) / max(1, tokens), color=COLOURS[2])
    right.set(xlabel="number of most frequent codes", ylabel="% of tokens", xscale="log")
    right.set(xlim=(0.9, len(ordered) + 0.5), ylim=(0, 103))
    # How many tokens were looked at belongs to the number: a few images cannot use every code of a large codebook.
    of = f"{tokens:,} tokens" + (f" of {source}" if source else "")
    unused = f"; grey: {len(ordered) - used:,} that none of these tokens chose" if used < len(ordered) else ""
    figure.suptitle(f"{of}: {used:,} of {len(ordered):,} codes used{unused}", fontsize=NORMAL)
    return figure


def usage_and_quality(points: dict[str, tuple[Sequence[float], Sequence[float]]]) -> Figure:
    """Draw PSNR against codebook usage, one point a run and one colour and marker a row, its name beside it.

    Args:
        points: row name to (usage in [0, 1], PSNR in dB), one value a seed.
    """
    figure, axis = plt.subplots(figsize=(WIDTH, 4.4), dpi=DPI, layout="constrained")
    drawn = {name: np.stack([100 * np.asarray(usage), psnr], 1) for name, (usage, psnr) in points.items() if usage}
    for number, (name, seeds) in enumerate(drawn.items()):
        drawn[name] = seeds[seeds[:, 0].argsort()]
        axis.plot(*drawn[name].T, label=name, **_point_style(number) | {"ls": "-", "lw": 0.8})
    axis.set(xlabel="codebook usage, %", ylabel="PSNR, dB", xlim=(-2, 103))
    axis.margins(y=0.1)
    axis.grid(alpha=0.3)
    write_names(axis, drawn)
    return figure


def partitions(found: dict[str, Partition], points: Tensor) -> Figure:
    """Draw how quantizers divide the plane: regions of one code each, the points, codes in use as dots and others as crosses.

    Args:
        found: title to partition.
        points: float32 [N, 2].
    """
    columns = min(4, len(found))
    rows = -(-len(found) // columns)
    size = (WIDTH / 4 * columns, (WIDTH / 4 + 0.4) * rows) if len(found) > 1 else (5.2, 5.6)
    figure, axes = plt.subplots(rows, columns, figsize=size, dpi=DPI, squeeze=False)
    for axis in axes.flat[len(found) :]:
        axis.remove()
    for axis, (title, partition) in zip(axes.flat, found.items(), strict=False):
        _draw_partition(axis, partition, points, dots=1 if len(found) > 1 else 2)
        axis.set_title(
            f"{title}\n{partition.num_used} of {len(partition.codes)} codes used, MSE {partition.error:.3f}",
            fontsize=SMALL,
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
    """Draw PSNR against the share of its bits that a token's use amounts to, one point a row, its name beside it.

    Args:
        points: row to (share in [0, 1], PSNR in dB).
        groups: row to what its kind is called; one colour and marker each.
    """
    figure, axis = plt.subplots(figsize=(WIDTH, max(3.6, 0.24 * len(points) + 1.2)), dpi=DPI, layout="constrained")
    kinds = list(dict.fromkeys(groups[name] for name in points))
    drawn = {name: np.array([[100 * share, psnr]]) for name, (share, psnr) in points.items()}
    for name, point in drawn.items():
        axis.plot(*point.T, label=name, **_point_style(kinds.index(groups[name])))
    axis.set(xlabel="entropy of the codes, % of a token's bits", ylabel="PSNR, dB")
    axis.margins(x=0.12, y=0.1)
    axis.grid(alpha=0.3)
    write_names(axis, drawn)
    return figure


def _legend_beside(axis: Axes) -> None:
    handles = axis.get_legend_handles_labels()
    axis.legend(*handles, fontsize=SMALL, frameon=False, loc="upper left", bbox_to_anchor=(1.01, 1.02))


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
    figure = plt.figure(figsize=(WIDTH, 5.2 if patches is None else 6.4), dpi=DPI, layout="constrained")
    layout = figure.add_gridspec(
        2 if patches is None else 4, 2, height_ratios=[4, 4] + ([] if patches is None else [0.9, 0.9])
    )
    draw_code_map(
        figure.add_subplot(layout[:2, 0]), counts[order], columns, (order == code).nonzero().flatten().tolist()
    )
    ranked = counts.sort(descending=True).values.numpy()
    axis = figure.add_subplot(layout[0, 1])
    rank = np.arange(1, len(ranked) + 1)
    axis.plot(rank, np.where(ranked > 0, ranked, np.nan), color=COLOURS[0])
    axis.set(xscale="log", yscale="log", xlabel="code, most frequent first", ylabel="tokens")
    axis.set_title("tokens of each code; dashed: share up to there", fontsize=NORMAL)
    share = axis.twinx()
    share.plot(rank, 100 * np.cumsum(ranked) / max(1, ranked.sum()), "--", color=COLOURS[1])
    share.set(ylabel="% of tokens", ylim=(0, 103))
    axis = figure.add_subplot(layout[1, 1])
    seen = {"images in order": curve.seen, "tokens at random": curve.expected}
    if curve.tokens[-1] > queue_size:  # up to there the first line is this one too
        seen[f"last {queue_size:,} only"] = curve.in_queue
        axis.axvline(queue_size, color="0.5", lw=1)
    # They may lie on each other: the first one is wide, the others are drawn over it.
    for (name, values), colour, dashes, width in zip(
        seen.items(), COLOURS, ("-", "--", ":"), (3, 1.4, 1.4), strict=False
    ):
        axis.plot(curve.tokens, 100 * values / len(counts), dashes, color=colour, label=name, lw=width)
    axis.set(xscale="log", xlabel="tokens seen", ylabel="codes seen, %", ylim=(0, 103))
    axis.legend(fontsize=SMALL, frameon=False, handlelength=1.4)
    for number, (shown, label) in enumerate(((patches, f"code {code}"), (decoded, "decoded"))):
        if shown is not None:
            axis = figure.add_subplot(layout[2 + number, :])
            axis.imshow(poster(shown, columns=len(shown), gap=2).numpy(), interpolation="nearest")
            axis.set(xticks=[], yticks=[])
            axis.set_ylabel(label, fontsize=SMALL, rotation=0, ha="right", va="center")
    return figure


def draw_code_map(axis: Axes, counts: Tensor, columns: int, marked: Sequence[int] = ()) -> None:
    """Draw one cell a code, coloured by its count on a log scale; codes that are never chosen are grey, with a cross.

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
    colours = plt.get_cmap("cividis").with_extremes(bad=(0, 0, 0, 0))  # beyond the last code is no cell
    shown = axis.imshow(np.ma.masked_less(cells, 1), cmap=colours, norm=LogNorm(1, max(2, np.nanmax(cells))))
    axis.imshow(np.ma.masked_where(cells != 0, np.full_like(cells, 0.8)), cmap="gray", vmin=0, vmax=1)
    dead_y, dead_x = np.nonzero(cells == 0)
    crossed = len(counts) <= _MAX_CROSSES
    if crossed:
        axis.scatter(dead_x, dead_y, marker="x", s=3000 / columns**2 * 4, color="#8a3ffc", lw=0.7)
    for place in marked:
        corner = (place % columns - 0.5, place // columns - 0.5)
        axis.add_patch(Rectangle(corner, 1, 1, fill=False, ec="#d55e00", lw=1.5))
    used = int((counts > 0).sum())
    axis.set(xticks=[], yticks=[])
    dead = f"\n{'crosses' if crossed else 'grey'}: never chosen" if used < len(counts) else ""
    axis.set_title(f"{used:,} of {len(counts):,} codes used{dead}", fontsize=NORMAL)
    axis.figure.colorbar(shown, ax=axis, label="tokens", fraction=0.046, pad=0.02)


def places(perplexity: np.ndarray) -> Figure:
    """Draw the perplexity of the codes at each place of the grid, float [h, w]."""
    figure, axis = plt.subplots(figsize=(4.6, 3.8), dpi=DPI)
    shown = axis.imshow(perplexity, cmap="cividis")
    axis.set(xlabel="column", ylabel="row")
    for cells in (axis.xaxis, axis.yaxis):
        cells.set_major_locator(MaxNLocator("auto", integer=True))
    figure.colorbar(shown, ax=axis, label="perplexity of the codes")
    figure.tight_layout()
    return figure
