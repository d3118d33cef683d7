"""Names beside the points of a figure, where they cover neither a point nor each other."""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from matplotlib.axes import Axes

from vistok.figures import SMALL, style

_ROOM = 4  # points of text: half the size of a marker, and the least gap between two names
_FAR = 12  # points from marker to name, beyond which a line joins them
_DISTANCES = (6, 10, 15, 21, 28, 36, 46, 58)
_DIRECTIONS = np.arange(24) * np.pi / 12


class _Box(NamedTuple):
    """A rectangle on the page, in pixels."""

    left: float
    bottom: float
    right: float
    top: float

    def shared(self, other: "_Box") -> float:
        """Return the area that two boxes share, in square pixels."""
        width = min(self.right, other.right) - max(self.left, other.left)
        height = min(self.top, other.top) - max(self.bottom, other.bottom)
        return max(0.0, width) * max(0.0, height)

    def nearest(self, place: np.ndarray) -> np.ndarray:
        """Return the point of the box that is nearest to one."""
        return np.clip(place, (self.left, self.bottom), (self.right, self.top))

    @property
    def area(self) -> float:
        return (self.right - self.left) * (self.top - self.bottom)


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
    markers = [_around(x, y, _ROOM * scale, _ROOM * scale) for points in places.values() for x, y in points]
    lines = [_around(x, y, scale, scale) for points in places.values() for x, y in _along(points, 3 * scale)]
    frame, taken = _Box(*axis.get_window_extent().extents), markers + lines
    for name in sorted(named, key=lambda name: -_crowd(places[name], markers, 60 * scale)):  # the least room first
        text = axis.text(0, 0, name, fontsize=SMALL)
        width, height = text.get_window_extent().size + _ROOM * scale / 2
        text.remove()
        found = (
            (_cost(box, place, distance > _FAR, taken, frame) + distance, number, offset, box)
            for number, place in enumerate(places[name])
            for distance, offset, box in _candidates(place, width / 2, height / 2, scale)
        )
        _, number, offset, box = min(found, key=lambda one: one[0])
        nearest = box.nearest(places[name][number])
        far = np.linalg.norm(nearest - places[name][number]) > _FAR * scale
        taken.append(box)
        taken += [_around(x, y, 1, 1) for x, y in _along(np.stack([places[name][number], nearest]), 2) if far]
        end = (nearest - (box.left, box.bottom)) / (width, height)  # of the line, where on the name
        axis.annotate(
            name,
            named[name][number],
            offset / scale,
            textcoords="offset points",
            ha="center",
            va="center",
            fontsize=SMALL,
            arrowprops={"arrowstyle": "-", "color": "0.5", "lw": 0.6, "relpos": end, "shrinkA": 0, "shrinkB": 4}
            if far
            else None,
        )


def _candidates(place: np.ndarray, half_width: float, half_height: float, scale: float) -> Iterator[tuple]:
    """Yield where a name may be: its distance from the point, its centre's offset, and its box, all in pixels."""
    for distance in _DISTANCES:
        for angle in _DIRECTIONS:
            reach = np.array([half_width, half_height]) + distance * scale
            offset = reach * (np.cos(angle), np.sin(angle))
            yield distance, offset, _around(*(place + offset), half_width, half_height)


def _around(x: float, y: float, half_width: float, half_height: float) -> _Box:
    return _Box(x - half_width, y - half_height, x + half_width, y + half_height)


def _cost(box: _Box, place: np.ndarray, joined: bool, taken: list[_Box], frame: _Box) -> float:
    """Return how bad a place is: what the name covers, or loses beyond the frame, and what the line to it crosses."""
    covered = sum(box.shared(other) for other in taken) + box.area - box.shared(frame)
    if covered or not joined:
        return 10 * covered
    dots = [_around(x, y, 2, 2) for x, y in _along(np.stack([place, box.nearest(place)]), 3)]
    near = _around(*place, 6, 6)  # where the line begins
    return 100 * sum(bool(dot.shared(other)) and not dot.shared(near) for dot in dots for other in taken)


def _along(points: np.ndarray, step: float) -> np.ndarray:
    """Return points on the line that joins these in their order, float [m, 2], about `step` apart."""
    parts = [points[:1]]
    for start, end in zip(points[:-1], points[1:], strict=True):
        number = max(1, round(np.linalg.norm(end - start) / step))
        parts.append(start + (end - start) * np.linspace(0, 1, number + 1)[1:, None])
    return np.concatenate(parts)


def _crowd(points: np.ndarray, markers: list[_Box], reach: float) -> int:
    """Return how many markers lie within reach of the point of these that has the fewest."""
    centres = np.array([[(box.left + box.right) / 2, (box.bottom + box.top) / 2] for box in markers])
    return int((np.linalg.norm(points[:, None] - centres, axis=-1) < reach).sum(1).min())
