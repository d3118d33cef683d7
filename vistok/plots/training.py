"""Curves of a training: losses, codes in use, a collapse as it happens, and what the dashboard leaves behind."""

import math
from collections.abc import Sequence
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import LogLocator, MaxNLocator
from torch import Tensor

from vistok.lessons.collapse import Moment
from vistok.plots.codebook import draw_code_map
from vistok.plots.figures import DPI, NORMAL, SMALL, WIDTH
from vistok.plots.styles import COLOURS, legend_below, line_style
from vistok.runs import Run

# Keys of `Report.losses`: the game of tokenizer and discriminator.
ADVERSARIAL_NAMES = ("adversarial", "discriminator", "logits_real", "logits_fake", "lecam", "r1")
_ALIKE = 0.02  # losses that never differ by more of their size are one line to the eye


def training_curves(log: Sequence[dict[str, Any]], steps: int) -> Figure:
    """Draw the unweighted losses, and the codebook usage and perplexity, over the steps of a run's log.

    What the discriminator and the tokenizer make of each other has a panel of its own, where there is a discriminator.

    Args:
        log: `run.log()`.
        steps: length of the run, the right end of the axis.
    """
    adversarial = _loss_names(log, adversarial=True)
    rows = 2 if adversarial else 1
    figure = plt.figure(figsize=(WIDTH, 3.1 * rows), dpi=DPI, layout="constrained")
    grid = figure.add_gridspec(rows, 2)
    axes = [figure.add_subplot(grid[place]) for place in range(3 if adversarial else 2)]
    _draw_losses(axes[0], log, _loss_names(log), steps)
    if adversarial:
        _draw_players(axes[1], log, adversarial, steps)
    _draw_usage(axes[-1], log, steps)
    return figure


def _loss_names(log: Sequence[dict[str, Any]], *, adversarial: bool = False) -> list[str]:
    """Return the losses of a log, or those that discriminator and tokenizer make of each other (`adversarial`), in their order.

    The adversarial weight is neither: it is a factor, of another size than any loss.
    """
    names = dict.fromkeys(name for entry in log for name in entry["losses"] if name != "adversarial_weight")
    return [name for name in names if (name in ADVERSARIAL_NAMES) == adversarial]


def _draw_usage(axis: Axes, log: Sequence[dict[str, Any]], steps: int) -> None:
    step = [entry["step"] for entry in log]
    if all(entry["usage"] is None for entry in log):
        axis.text(0.5, 0.5, "no codebook, and so no usage", ha="center", va="center", transform=axis.transAxes)
        axis.set_axis_off()
        return
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
        axis.plot([entry["step"] for entry in entries], values, label=name, lw=1.4, **line_style(number))
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
    and stands beside the others to be compared. A run without a codebook loss, or without a codebook, has no line there.

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
    rows = [(run.config.row or run.path.name).split("/")[-1] for run in runs]
    names = rows if len(set(rows)) == len(rows) else [run.path.name for run in runs]
    for number, (name, run) in enumerate(zip(names, runs, strict=True)):
        entries = [
            entry["losses"] | {name: value for name, value in entry.items() if value is not None} for entry in run.log()
        ]
        for axis, key in zip(axes.flat, panels, strict=True):
            scale = 100 if key == "usage" else 1
            if found := [(entry["step"], scale * entry[key]) for entry in entries if key in entry]:
                axis.plot(*zip(*found, strict=True), label=name, lw=1.4, **line_style(number))
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
    legend_below(figure, axes[0, 0])
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
    pictured: str = "originals over their reconstructions",
) -> Figure:
    """Draw a training at a glance: losses raw and weighted, codebook usage, a map of each codebook, pictures.

    It is no figure of pyplot's, which would not be safe in the thread that trains; there is nothing to close.

    Args:
        log: `run.log()`, or fewer points that stand for it; not empty.
        weights: loss name to weight.
        steps: length of the run, the right end of the axes.
        counts: tokens of each code, int64 [K], one a level; empty: without.
        pictures: uint8 [N, 3, h, w]; None: without.
        pictured: what they are, in words.
    """
    adversarial = _loss_names(log, adversarial=True)
    beside = not adversarial and len(counts) == 1  # its map has the place of the panel that there is not
    heights = [6.0] + ([2.4] if len(counts) and not beside else []) + ([2.2] if pictures is not None else [])
    figure = Figure(figsize=(WIDTH, sum(heights)), dpi=DPI, layout="constrained")
    above, *below = figure.add_gridspec(len(heights), 1, height_ratios=heights)
    above = above.subgridspec(2, 2)
    axes = [figure.add_subplot(above[place]) for place in range(4 if adversarial else 3)]
    weighted = weighted_losses(log, weights)
    _draw_losses(axes[0], log, _loss_names(log), steps)
    axes[0].set_title("losses, raw", fontsize=NORMAL)
    terms = {name for entry in weighted for name in entry["losses"]}
    in_order = [name for name in _loss_names(log) + adversarial if name in terms]  # a loss has one colour in both
    _draw_losses(axes[1], weighted, in_order, steps)
    axes[1].set_title("losses × weights: what each adds to the total", fontsize=NORMAL)
    if adversarial:
        _draw_players(axes[2], log, adversarial, steps)
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
        strip = pictures.permute(2, 0, 3, 1).flatten(1, 2)  # [h, N * w, 3]
        axis.imshow(strip.cpu().numpy(), interpolation="nearest")
        axis.set(xticks=[], yticks=[])
        axis.set_title(pictured, fontsize=NORMAL)
    return figure
