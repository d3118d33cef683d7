"""A generator at work: one sequence of tokens drawn step by step, and the codes that it was drawn from."""

from collections.abc import Mapping, Sequence

import matplotlib.pyplot as plt
import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.offsetbox import AnnotationBbox, OffsetImage
from matplotlib.patches import Rectangle
from torch import Tensor

from vistok.generation.layout import Layout
from vistok.generation.trace import Trace, decode_so_far
from vistok.images import to_uint8
from vistok.plots.figures import DPI, SMALL, WIDTH
from vistok.plots.pictures import image_rows
from vistok.plots.styles import COLOURS
from vistok.tokenizer import VisualTokenizer
from vistok.tokens.codebook import decode_alone

LIKELIEST = 8  # codes of a step
EMPTY = 128  # grey level of what is not given
COLOURS_OF_BITS = "cividis"  # as in the views


def drawn_step_by_step(
    tokenizer: VisualTokenizer, trace: Trace, steps: Sequence[int] | None = None, chosen: int | None = None
) -> Figure:
    """Draw one image as its tokens came.

    Above, the picture after some steps, what is not drawn yet left empty and the next token's place outlined; under each the
    probabilities of the next token, likeliest code first. Below, over the places of the picture, the entropy of each token
    before it was drawn and the surprise of what was drawn; and the likeliest codes of one place, with what each decodes to
    alone.

    Args:
        tokenizer: of the tokens.
        trace: the image, as `vistok.generation.trace.trace` returns it.
        steps: after how many of the S tokens it is looked at, each in [0, S]; None: six, spread evenly from the first.
        chosen: number of the place whose likeliest codes are shown; None: the one that is next in the middle of `steps`.

    Raises:
        ValueError: there is no such step or place.
    """
    number = len(trace.places)
    steps = [round(part * number / 5) for part in range(6)] if steps is None else list(steps)
    chosen = min(steps[(len(steps) - 1) // 2], number - 1) if chosen is None and steps else chosen
    for what, step, most in [*(("steps holds", step, number) for step in steps), ("chosen is", chosen, number - 1)]:
        if step is None or not 0 <= step <= most:
            raise ValueError(f"{what} {step}, but must be at least 0 and at most {most}.")
    figure = plt.figure(figsize=(WIDTH, 5.6), dpi=DPI, layout="constrained")
    above, below = figure.subfigures(2, 1, height_ratios=(1.25, 1))
    _draw_steps(above.subplots(2, len(steps), squeeze=False, height_ratios=(1, 0.62)), tokenizer, trace, steps)
    axes = below.subplots(1, 3, width_ratios=(1.15, 1.15, 1))
    most = sum(np.log2(size) for size in trace.layout.sizes)
    draw_bits(axes[0], on_plane(trace.layout, trace.entropy_bits.numpy()), most, chosen)
    draw_bits(
        axes[1], on_plane(trace.layout, trace.surprise_bits.numpy()), None, chosen, "surprise of what was drawn, bits"
    )
    codes, shares = trace.likeliest(chosen, LIKELIEST)
    drawn = trace.places[chosen, :1]
    if drawn not in codes:
        codes, shares = torch.cat([codes, drawn]), torch.cat([shares, trace.shares[0][chosen, drawn]])
    tiles = torch.cat(list(decode_alone(tokenizer, codes)))
    draw_likeliest(axes[2], list(tiles), shares.tolist(), codes.tolist(), drawn=int(drawn))
    axes[2].set_title(f"codes of token {chosen}, likeliest first", fontsize=SMALL)
    return figure


def completions(
    tokenizer: VisualTokenizer, photograph: Tensor, given: Tensor | tuple[Tensor, ...], drawn: Mapping[str, Tensor]
) -> Figure:
    """Draw a photograph whose upper half's tokens were given, and what was drawn below them.

    Args:
        tokenizer: of the tokens.
        photograph: uint8 [3, H, W].
        given: its tokens, as `encode` returns them of one image.
        drawn: what a row is called -> tokens of its completions, as a generator's `sample` returns them.
    """
    half = to_uint8(tokenizer.decode(given)).cpu()[0]
    half[:, half.shape[1] // 2 :] = EMPTY
    rows, titles = [[photograph, half]], [["photograph", "its upper half, decoded"]]
    for name, tokens in drawn.items():
        rows.append([*to_uint8(tokenizer.decode(tokens)).cpu()])
        titles.append([name] * len(rows[-1]))
    return image_rows(rows, titles)


def _draw_steps(axes: np.ndarray, tokenizer: VisualTokenizer, trace: Trace, steps: Sequence[int]) -> None:
    """Draw the picture after each step, and under it what the next token is drawn from, [2, steps] axes."""
    number = len(trace.places)
    pictures = decode_so_far(tokenizer, trace.layout, torch.cat([trace.so_far(step) for step in steps]))
    most = max(float(trace.shares[0][step].max()) for step in steps if step < number) if min(steps) < number else 1.0
    for (above, below), picture, step in zip(axes.T, pictures, steps, strict=True):
        known = None if trace.layout.grid is None else (torch.arange(number) < step).view(*trace.layout.grid)
        draw_so_far(above, picture, known, step if step < number else None)
        above.set_title(f"{step} of {number} tokens", fontsize=SMALL)
        if step == number:
            below.remove()
            continue
        falling = trace.shares[0][step].sort(descending=True).values.numpy()
        ranks = range(1, 1 + len(falling))
        below.plot(ranks, falling, lw=1.4, color=COLOURS[0])
        below.fill_between(ranks, falling, alpha=0.2, color=COLOURS[0])
        below.set(xscale="log", ylim=(0, 1.05 * most))
        below.set_xlabel("code, by rank", fontsize=SMALL)
        if step != steps[0]:
            below.set_yticklabels([])
    axes[1, 0].set_ylabel("probability of\nthe next token", fontsize=SMALL)


def draw_so_far(axis: Axes, picture: Tensor, known: Tensor | None = None, next_place: int | None = None) -> None:
    """Draw a picture, uint8 [3, H, W], empty where tokens are not drawn yet.

    Args:
        axis: where.
        picture: as it decodes.
        known: bool [h, w], which tokens are drawn; None: they lie nowhere in the picture, and all of it is shown.
        next_place: number of the place to outline; None: none.
    """
    height, width = picture.shape[1:]
    pixels = picture.permute(1, 2, 0).numpy()
    axis.set(xticks=[], yticks=[], xlim=(-0.5, width - 0.5), ylim=(height - 0.5, -0.5), aspect="equal")
    if known is None:
        axis.imshow(pixels)
        return
    rows, columns = known.shape
    high, wide = height / rows, width / columns
    shown = known.numpy().repeat(-(-height // rows), 0).repeat(-(-width // columns), 1)[:height, :width]
    axis.imshow(np.concatenate([pixels, 255 * shown[..., None].astype(np.uint8)], axis=2))
    if next_place is not None:
        corner = (next_place % columns * wide - 0.5, next_place // columns * high - 0.5)
        axis.add_patch(Rectangle(corner, wide, high, fill=False, ec=COLOURS[1], lw=1.5))


def draw_bits(
    axis: Axes,
    bits: np.ndarray,
    most: float | None,
    chosen: int | None = None,
    title: str = "entropy of the next token, bits",
) -> None:
    """Draw a number of bits of each token over the places of the picture.

    Args:
        axis: where.
        bits: float [h, w]; NaN: it is left empty.
        most: where the colours end; None: at the largest.
        chosen: number of the place to outline; None: none.
        title: of the axis.
    """
    drawn = axis.imshow(bits, cmap="cividis", vmin=0, vmax=most, interpolation="nearest")  # as the views have it
    axis.set(xticks=[], yticks=[])
    axis.set_title(title, fontsize=SMALL)
    if chosen is not None:
        corner = (chosen % bits.shape[1] - 0.5, chosen // bits.shape[1] - 0.5)
        axis.add_patch(Rectangle(corner, 1, 1, fill=False, ec=COLOURS[1], lw=1.5))
    axis.figure.colorbar(drawn, ax=axis, fraction=0.046, pad=0.03).outline.set_visible(False)


def draw_likeliest(
    axis: Axes, tiles: Sequence[Tensor], shares: Sequence[float], codes: Sequence[int], drawn: int | None = None
) -> None:
    """Draw codes as bars of their probabilities, each beside what it decodes to alone.

    Args:
        axis: where.
        tiles: uint8 [3, p, p] of each code.
        shares: probability of each.
        codes: their numbers.
        drawn: the code that was drawn, whose bar has another colour.
    """
    places = range(len(codes))
    colours = [COLOURS[1] if code == drawn else COLOURS[0] for code in codes]
    axis.barh(places, shares, color=colours, height=0.7)
    axis.set(yticks=list(places), xlim=(0, None), ylim=(len(codes) - 0.4, -0.6))
    axis.set_yticklabels([str(code) for code in codes])
    axis.set_xlabel("probability", fontsize=SMALL)
    axis.tick_params(axis="y", length=0, pad=16)
    for place, tile in zip(places, tiles, strict=True):
        image = OffsetImage(tile.permute(1, 2, 0).numpy(), zoom=12 / tile.shape[1], interpolation="nearest")
        beside = {"xycoords": axis.get_yaxis_transform(), "box_alignment": (1.15, 0.5), "frameon": False, "pad": 0}
        axis.add_artist(AnnotationBbox(image, (0, place), **beside))
    for side in ("top", "right", "left"):
        axis.spines[side].set_visible(False)


def on_plane(layout: Layout, values: np.ndarray) -> np.ndarray:
    """Return a number of each place, [S], as rows: where they lie, or, of a sequence, in lines as text is, NaN at the end."""
    if layout.grid is not None:
        return values.reshape(layout.grid)
    columns = int(np.ceil(np.sqrt(len(values))))
    padded = np.full(columns * -(-len(values) // columns), np.nan)
    padded[: len(values)] = values
    return padded.reshape(-1, columns)
