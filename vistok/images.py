"""Images: their ranges, PSNR, PNG files and grids, and what people give as images.

Networks see float images in [-1, 1], metrics float images in [0, 1], files and pages uint8; no other module converts between
these. What people give is taken where it is plain what is meant, else refused in one sentence that says what is expected and
what was given.
"""

import io
import math

import numpy as np
import torch
from PIL import Image
from torch import Tensor

# Resampling takes [-1, 1] to 1.89 at most (bicubic: the absolute values of its weights sum to 1.375 along a side). Images in
# [0, 255] go much farther, and those normalised by ImageNet's mean and deviation a little, where they are black or white.
FARTHEST = 2.0


def to_float(images_uint8: Tensor) -> Tensor:
    """Map uint8 images of any shape and device to float32 in [-1, 1]."""
    return images_uint8.to(torch.float32).div_(127.5).sub_(1.0)


def to_uint8(images: Tensor) -> Tensor:
    """Map float images in [-1, 1] of any shape to uint8, those beyond clamped."""
    return images.float().add(1).mul(127.5).round().clamp(0, 255).to(torch.uint8)


def to_unit(images: Tensor, clamp: bool = True) -> Tensor:
    """Map float images in [-1, 1] of any shape to float32 in [0, 1]; those beyond are clamped, or stay beyond."""
    return (images.float().clamp(-1, 1) if clamp else images.float().clone()).add_(1).div_(2)


def from_unit(images: Tensor) -> Tensor:
    """Map float images in [0, 1] of any shape to [-1, 1]."""
    return images * 2 - 1


def unit_to_uint8(images: Tensor) -> Tensor:
    """Map float images in [0, 1] of any shape to uint8, rounded as torchvision's `save_image` does."""
    return images.float().mul(255).add_(0.5).clamp_(0, 255).to(torch.uint8)


def psnr(images: Tensor, reconstructions: Tensor, data_range: float = 2.0) -> Tensor:
    """Return the peak signal-to-noise ratio of each pair in dB, -10 log10(MSE / range^2); infinite where nothing differs.

    Args:
        images: [B, 3, H, W], float in a range of `data_range`, or uint8, whose range is 255.
        reconstructions: the same, clamped to that range.
        data_range: 2 of images in [-1, 1], 1 of images in [0, 1].

    Returns:
        float64 [B]; the squared error is in float32 or the images' own precision, whichever is higher, of uint8 in float64.

    Raises:
        ValueError: they differ in shape, or uint8 images stand beside float ones, whose range is another.
    """
    of_bytes = images.dtype == torch.uint8
    if images.shape != reconstructions.shape or of_bytes != (reconstructions.dtype == torch.uint8):
        given = " and ".join(f"{batch.dtype} {list(batch.shape)}" for batch in (images, reconstructions))
        raise ValueError(f"Images and reconstructions are {given}, but must be of one shape, both uint8 or both float.")
    on_mps = images.device.type == "mps"  # Apple's GPUs have no float64
    wide = torch.float64 if of_bytes and not on_mps else torch.promote_types(images.dtype, torch.float32)
    mse = (images.to(wide) - reconstructions.to(wide)).square().mean(dim=(1, 2, 3))  # [B]
    mse = mse.cpu() if on_mps else mse
    data_range = 255 if of_bytes else data_range
    return -10 * (mse.double() / data_range**2).log10()


def check_unit_pair(images: Tensor, reconstructions: Tensor, smallest: int) -> None:
    """Raise ValueError unless both are float [B, 3, H, W] in [0, 1], of one shape and at least `smallest` pixels."""
    if images.shape != reconstructions.shape:
        raise ValueError(
            f"Images are {list(images.shape)}, but their reconstructions {list(reconstructions.shape)}: "
            "both must have one shape."
        )
    for name, batch in (("Images", images), ("Reconstructions", reconstructions)):
        if batch.ndim != 4 or batch.shape[1] != 3 or len(batch) == 0 or not batch.is_floating_point():
            raise ValueError(
                f"{name} are {batch.dtype} {list(batch.shape)}, but must be float [B, 3, H, W], B above 0."
            )
        if min(batch.shape[2:]) < smallest:
            raise ValueError(
                f"{name} are {batch.shape[2]}x{batch.shape[3]} pixels, but must be at least {smallest}x{smallest}."
            )
        low, high = batch.aminmax()
        if not (low >= 0 and high <= 1):  # so written that NaN fails
            raise ValueError(f"{name} have values from {low:.4g} to {high:.4g}, but must be in [0, 1].")


def image_png(image: Tensor) -> bytes:
    """Return an image, uint8 [3, H, W], as the bytes of a PNG file; of low compression, as it travels to a page nearby."""
    buffer = io.BytesIO()
    Image.fromarray(image.permute(1, 2, 0).contiguous().numpy()).save(buffer, format="png", compress_level=1)
    return buffer.getvalue()


def strip_png(images: Tensor) -> bytes:
    """Return images, uint8 [n, 3, H, W] with n > 0, side by side as the bytes of a PNG file."""
    return image_png(images.permute(1, 2, 0, 3).reshape(3, images.shape[2], -1))


def poster(tiles: Tensor, columns: int, order: Tensor | None = None, gap: int = 0) -> Tensor:
    """Lay out small images, such as the patches of all codes, as one picture.

    Args:
        tiles: uint8 [K, 3, p, p].
        columns: tiles a row.
        order: int64 [K], the tile of each place; None: by index.
        gap: white pixels between two tiles.

    Returns:
        uint8 [H, W, 3].
    """
    if order is not None:
        tiles = tiles[order]
    rows = -(-len(tiles) // columns)
    cells = tiles.new_full((rows * columns, 3, tiles.shape[2] + gap, tiles.shape[3] + gap), 255)
    cells[: len(tiles), :, : tiles.shape[2], : tiles.shape[3]] = tiles
    height, width = cells.shape[2:]
    picture = cells.view(rows, columns, 3, height, width).permute(0, 3, 1, 4, 2).reshape(rows * height, -1, 3)
    return picture[: len(picture) - gap, : picture.shape[1] - gap]


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
    # Nothing can be said of tensors that hold no numbers yet (meta, fake, traced, captured as a graph).
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
