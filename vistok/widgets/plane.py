"""Widgets of the notebooks: what changes when one chooses, with a picture where no kernel runs."""

import base64
import io
from typing import Any

import ipywidgets
import matplotlib.pyplot as plt

from vistok import plane, plots


class PlaneExplorer(ipywidgets.VBox):
    """Choose a quantizer and a step, and see how it divides the plane (`vistok.plane`).

    Without a kernel, on GitHub for instance, the picture of the first choice is shown.

    Attributes:
        method, step: the two controls; their `value` may be set.
        picture: PNG of the partition.
        caption: what the picture shows, as a sentence.
    """

    def __init__(self, method: str = "vq", step: int = plane.STEPS[-1], seed: int = 0) -> None:
        """Show a method after a step of learning.

        Args:
            method: a key of `plane.METHODS`.
            step: one of `plane.STEPS`.
            seed: of the codes' first values.

        Raises:
            ValueError: there is no such method or step.
        """
        if step not in plane.STEPS:
            raise ValueError(f"step is {step}, but must be one of {', '.join(map(str, plane.STEPS))}.")
        plane.learn(method, seed)  # refuses an unknown one
        self._seed = seed
        self.method = ipywidgets.Dropdown(options=list(plane.METHODS), value=method, description="quantizer")
        self.step = ipywidgets.SelectionSlider(options=plane.STEPS, value=step, description="step")
        self.picture = ipywidgets.Image(format="png", layout={"align_self": "flex-start"})  # as large as it is
        self.caption = ipywidgets.Label()
        for control in (self.method, self.step):
            control.observe(self._draw, names="value")
        self._draw()
        super().__init__([ipywidgets.HBox([self.method, self.step]), self.picture, self.caption])

    @property
    def partition(self) -> plane.Partition:
        """What is shown."""
        return plane.learn(self.method.value, self._seed)[plane.STEPS.index(self.step.value)]

    def _draw(self, change: Any = None) -> None:
        figure = plots.partitions({self.method.value: self.partition}, plane.points())
        buffer = io.BytesIO()
        figure.savefig(buffer, format="png")
        plt.close(figure)
        self.picture.value = buffer.getvalue()
        self.caption.value = f"{self.method.value}, {self.partition}"

    def __repr__(self) -> str:
        return f"PlaneExplorer({self.method.value!r}, {self.partition})"

    def _repr_mimebundle_(self, **options: Any) -> dict[str, Any]:
        picture = base64.b64encode(self.picture.value).decode()
        return super()._repr_mimebundle_(**options) | {"text/plain": repr(self), "image/png": picture}
