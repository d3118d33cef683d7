"""Names beside the points of a figure, where they cover neither a point nor each other."""

import numpy as np
from matplotlib.axes import Axes
from matplotlib.text import Text

from vistok.plots.figures import SMALL, style

_ROOM = 4  # points of text: half the size of a marker, and the gap between two names
_FAR = 12  # points from marker to name, beyond which a line joins them
_DISTANCES = np.array([6, 10, 15, 21, 28, 36, 46, 58])  # points
_DIRECTIONS = np.arange(24) * np.pi / 12
# Boxes are float [n, 4]: left, bottom, right, top in pixels of the page.


def write_names(axis: Axes, named: dict[str, np.ndarray]) -> None:
    """Write each name beside one of its points, and join them by a line where there was room farther away only.

    Args:
        axis: its points are drawn, and its limits final.
        named: name to float [n, 2], n > 0 points in the axis' own numbers, joined in this order by a line.
    """
    style(axis.figure)
    axis.figure.draw_without_rendering()  # from here on it is known where on the page the points lie
    scale = axis.figure.dpi / 72  # pixels a point of text
    places = {name: axis.transData.transform(points) for name, points in named.items()}
    markers = np.concatenate([*places.values(), np.zeros((0, 2))])
    lines = [_boxes(_along(points, 3 * scale), scale) for points in places.values()]
    taken = np.concatenate([_boxes(markers, _ROOM * scale), *lines])
    frame = axis.get_window_extent().extents

    def crowd(name: str) -> int:  # how many markers are near the one of its points that has the fewest around it
        return (np.linalg.norm(places[name][:, None] - markers, axis=-1) < 60 * scale).sum(1).min()

    for name in sorted(named, key=crowd, reverse=True):
        half = (_size(axis, name) + _ROOM * scale) / 2
        best = [_best_offset(place, half, scale, taken, frame) for place in places[name]]
        number = min(range(len(best)), key=lambda number: best[number][0])
        point, place, (_, offset) = named[name][number], places[name][number], best[number]
        box = _boxes((place + offset)[None], half)
        nearest = np.clip(place, box[0, :2], box[0, 2:])
        far = np.linalg.norm(nearest - place) > _FAR * scale
        joint = _along(np.stack([place, nearest]), 2 * scale) if far else np.zeros((0, 2))
        taken = np.concatenate([taken, box, _boxes(joint, 1)])
        line = {"arrowstyle": "-", "color": "0.5", "lw": 0.6, "shrinkA": 0, "shrinkB": 4}
        line["relpos"] = (nearest - box[0, :2]) / (2 * half)  # where on the name it ends
        where = {"textcoords": "offset points", "ha": "center", "va": "center", "fontsize": SMALL}
        axis.annotate(name, point, offset / scale, **where, arrowprops=line if far else None)


def _best_offset(
    place: np.ndarray, half: np.ndarray, scale: float, taken: np.ndarray, frame: np.ndarray
) -> tuple[float, np.ndarray]:
    """Return how bad the best place for a name is, and from its point to the name's centre, in pixels.

    Args:
        place: float [2], the point.
        half: float [2], half the name's width and height.
        scale: pixels a point of text.
        taken: boxes to keep clear of.
        frame: float [4], the box to stay in.
    """
    distance = np.repeat(_DISTANCES, len(_DIRECTIONS))
    angle = np.tile(_DIRECTIONS, len(_DISTANCES))
    offsets = (half + distance[:, None] * scale) * np.stack([np.cos(angle), np.sin(angle)], 1)
    boxes = _boxes(place + offsets, half)
    lost = 4 * half.prod() - _shared(boxes, frame[None])[:, 0]
    cost = distance + 10 * (_shared(boxes, taken).sum(1) + lost)
    around = _boxes(place[None], 2 * _ROOM * scale)  # around the point itself its line begins
    others = taken[_shared(taken, around)[:, 0] == 0]
    for candidate in np.flatnonzero(distance > _FAR):
        end = np.clip(place, boxes[candidate, :2], boxes[candidate, 2:])
        cost[candidate] += 50 * (_shared(_boxes(_along(np.stack([place, end]), 3), 1), others) > 0).sum()
    best = cost.argmin()
    return float(cost[best]), offsets[best]


def _size(axis: Axes, name: str) -> np.ndarray:
    """Return the width and height of a name on the page, in pixels."""
    text: Text = axis.text(0, 0, name, fontsize=SMALL)
    size = text.get_window_extent().size
    text.remove()
    return size


def _boxes(centres: np.ndarray, half: np.ndarray | float) -> np.ndarray:
    return np.concatenate([centres - half, centres + half], axis=1)


def _shared(some: np.ndarray, others: np.ndarray) -> np.ndarray:
    """Return the area that each of some boxes shares with each of others, float [n, m]."""
    low, high = np.maximum(some[:, None, :2], others[:, :2]), np.minimum(some[:, None, 2:], others[:, 2:])
    return (high - low).clip(0).prod(-1)


def _along(points: np.ndarray, step: float) -> np.ndarray:
    """Return points on the line that joins these in their order, float [m, 2], about `step` apart."""
    parts = [points[:1]]
    for start, end in zip(points[:-1], points[1:], strict=True):
        number = max(1, round(np.linalg.norm(end - start) / step))
        parts.append(start + (end - start) * np.linspace(0, 1, number + 1)[1:, None])
    return np.concatenate(parts)
