"""Images as people give them: taken where it is plain what is meant, else refused in one sentence that says what is expected
and what was given."""

import math

import numpy as np
import torch
from torch import Tensor

# Resampling takes [-1, 1] to 1.89 at most (bicubic: the absolute values of its weights sum to 1.375 along a side). Images in
# [0, 255] go much farther, and those normalised by ImageNet's mean and deviation a little, where they are black or white.
FARTHEST = 2.0


def as_images(images: Tensor | np.ndarray, like: Tensor | None = None) -> Tensor:
    """Return images as a network takes them; their range is not looked at.

    Args:
        images: float [B, 3, H, W], a tensor or an array.
        like: a weight of the network, whose device and dtype they get; None: they stay as they are.

    Raises:
        ValueError: they have another shape or dtype; the sentence says what makes [B, 3, H, W] of the usual others.
    """
    if isinstance(images, np.ndarray) and images.dtype.kind in "fu":
        images = torch.from_numpy(images.astype(images.dtype.newbyteorder("=")))
    if not isinstance(images, Tensor):
        given = f"{images.dtype} {list(images.shape)}" if isinstance(images, np.ndarray) else type(images).__name__
        raise ValueError(f"Images must be a float tensor [B, 3, H, W] in [-1, 1], not {given}.")
    if images.ndim != 4 or images.shape[1] != 3 or not images.is_floating_point():
        raise ValueError(
            f"Images must be float [B, 3, H, W] in [-1, 1], not {images.dtype} {list(images.shape)}."
            + _what_helps(images)
        )
    return images if like is None else images.to(like.device, like.dtype)


def _what_helps(images: Tensor) -> str:
    """Return a sentence that says how images of another dtype or shape become float [B, 3, H, W], where that is plain."""
    steps = ""
    if images.ndim == 4:
        second, last = images.shape[1], images.shape[3]
        if second != 3 and last == 3:
            steps = ".permute(0, 3, 1, 2)"
        elif second == 1:
            steps = ".expand(-1, 3, -1, -1)"
        elif second == 4:
            steps = "[:, :3]"
    elif images.ndim == 3:
        if images.shape[0] == 3:
            steps = "[None]"
        elif images.shape[2] == 3:
            steps = ".permute(2, 0, 1)[None]"
        elif images.shape[0] == 1:
            steps = ".expand(3, -1, -1)[None]"
    if not (images.is_floating_point() or images.is_complex() or images.dtype == torch.bool):
        name = str(images.dtype).removeprefix("torch.")
        given = name if name == "uint8" else f"{name} in [0, 255]"
        return f" vistok.data.to_float converts {given}{f': to_float(images{steps})' if steps else ''}."
    return f" These become it by images{steps}." if steps else ""


def begin_range_check(images: Tensor) -> Tensor | None:
    """Look for values clearly out of [-1, 1]: on a CPU at once, elsewhere without waiting for the device.

    Args:
        images: float [B, 3, H, W].

    Returns:
        what `end_range_check` takes once the work on these images is on its way to the device.

    Raises:
        ValueError: on a CPU, as of `end_range_check`.
    """
    # Of tensors that hold no numbers yet (meta, fake, traced, captured as a graph) nothing can be said.
    if torch.compiler.is_compiling() or type(images) is not Tensor or images.is_meta or images.numel() == 0:
        return None
    if images.device.type == "cuda" and torch.cuda.is_current_stream_capturing():
        return None
    bounds = torch.stack(images.detach().aminmax())
    if images.device.type != "cpu":
        return bounds
    return end_range_check(bounds)


def end_range_check(bounds: Tensor | None) -> None:
    """Raise ValueError where images reach clearly beyond [-1, 1], or hold NaN; waits for the device.

    Args:
        bounds: what `begin_range_check` returned.
    """
    if bounds is None:
        return
    low, high = bounds.tolist()
    if low >= -FARTHEST and high <= FARTHEST:
        return
    if math.isnan(low):
        raise ValueError("Images must be in [-1, 1], but these hold NaN.")
    if max(-low, high) < 3:
        helps = "mean 0.5 and standard deviation 0.5 map [0, 1] there, ImageNet's do not"
    elif low >= 0 and high <= 256:
        helps = "images / 127.5 - 1 maps [0, 255] there"
    else:
        helps = "map them there first"
    raise ValueError(f"Images must be in [-1, 1], but these reach from {low:.4g} to {high:.4g}: {helps}.")
