"""The plane and the regions that a quantizer makes of it."""

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor

from vistok.lessons.plane import EXTENT, Partition
from vistok.plots.figures import DPI, SMALL, WIDTH


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
