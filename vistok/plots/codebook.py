"""A codebook: how often its codes are chosen, what they look like, where they are used."""

from collections.abc import Sequence

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.ticker import MaxNLocator
from torch import Tensor

from vistok.images import poster
from vistok.plots.figures import DPI, NORMAL, SMALL, WIDTH
from vistok.plots.styles import COLOURS
from vistok.tokens.encoded import UsageCurve

_MAX_CROSSES = 4096  # on a map of more codes they would be specks: its dead codes are grey only


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
    heights = [4, 4] if patches is None else [4, 4, 0.9, 0.9]
    layout = figure.add_gridspec(len(heights), 2, height_ratios=heights)
    chosen = (order == code).nonzero().flatten().tolist()
    draw_code_map(figure.add_subplot(layout[:2, 0]), counts[order], columns, chosen)
    _draw_frequencies(figure.add_subplot(layout[0, 1]), counts)
    _draw_growth(figure.add_subplot(layout[1, 1]), curve, len(counts), queue_size)
    for number, (shown, label) in enumerate(((patches, f"code {code}"), (decoded, "decoded"))):
        if shown is not None:
            axis = figure.add_subplot(layout[2 + number, :])
            axis.imshow(poster(shown, columns=len(shown), gap=2).numpy(), interpolation="nearest")
            axis.set(xticks=[], yticks=[])
            axis.set_ylabel(label, fontsize=SMALL, rotation=0, ha="right", va="center")
    return figure


def _draw_frequencies(axis: Axes, counts: Tensor) -> None:
    """Draw the tokens of each code, int64 [K], the most frequent first, and the share of all up to there."""
    ranked = counts.sort(descending=True).values.numpy()
    rank = np.arange(1, len(ranked) + 1)
    axis.plot(rank, np.where(ranked > 0, ranked, np.nan), color=COLOURS[0])
    axis.set(xscale="log", yscale="log", xlabel="code, most frequent first", ylabel="tokens")
    axis.set_title("tokens of each code; dashed: share up to there", fontsize=NORMAL)
    share = axis.twinx()
    share.plot(rank, 100 * np.cumsum(ranked) / max(1, ranked.sum()), "--", color=COLOURS[1])
    share.set(ylabel="% of tokens", ylim=(0, 103))


def _draw_growth(axis: Axes, curve: UsageCurve, num_codes: int, queue_size: int) -> None:
    """Draw how many of the codes are seen, the more tokens are looked at."""
    seen = {"images in order": curve.seen, "tokens at random": curve.expected}
    if curve.tokens[-1] > queue_size:  # up to there the first line is this one too
        seen[f"last {queue_size:,} only"] = curve.in_queue
        axis.axvline(queue_size, color="0.5", lw=1)
    # They may lie on each other: the first one is wide, the others are drawn over it.
    styles = zip(COLOURS, ("-", "--", ":"), (3, 1.4, 1.4), strict=False)
    for (name, values), (colour, dashes, width) in zip(seen.items(), styles, strict=False):
        axis.plot(curve.tokens, 100 * values / num_codes, dashes, color=colour, label=name, lw=width)
    axis.set(xscale="log", xlabel="tokens seen", ylabel="codes seen, %", ylim=(0, 103))
    axis.legend(fontsize=SMALL, frameon=False, handlelength=1.4)


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


def places(perplexity: np.ndarray, is_sequence: bool = False) -> Figure:
    """Draw the perplexity of the codes at each place of the grid, float [h, w], or at each token of a sequence, [1, N]."""
    figure, axis = plt.subplots(figsize=(4.6, 3.8), dpi=DPI)
    if is_sequence:
        axis.bar(np.arange(perplexity.shape[1]), perplexity[0], color=COLOURS[0])
        axis.set(xlabel="token of the sequence", ylabel="perplexity of the codes")
        axis.xaxis.set_major_locator(MaxNLocator("auto", integer=True))
        figure.tight_layout()
        return figure
    shown = axis.imshow(perplexity, cmap="cividis")
    axis.set(xlabel="column", ylabel="row")
    for cells in (axis.xaxis, axis.yaxis):
        cells.set_major_locator(MaxNLocator("auto", integer=True))
    figure.colorbar(shown, ax=axis, label="perplexity of the codes")
    figure.tight_layout()
    return figure
