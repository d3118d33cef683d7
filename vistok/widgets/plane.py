"""`PlaneExplorer`: how a quantizer divides the plane, as it learns and as one moves its codes."""

from typing import Any

import traitlets
from matplotlib.figure import Figure

from vistok import plots
from vistok.lessons import plane
from vistok.widgets.view import View, answering, script


class PlaneExplorer(View):
    """Watch a quantizer divide the plane as it learns (`lessons/plane.py`), and drag its codes: the drawing follows.

    Methods that have been learnt before come along, and are there at once; others are learnt when they are chosen.

    Attributes:
        method: a key of `plane.METHODS`; may be set.
        step: of learning, one of `plane.FRAMES`; may be set.
        methods: all that there are.
        frames: the steps that were kept.
    """

    _esm = script("errors", "curves", "plane")
    method = traitlets.Unicode("vq").tag(sync=True)
    step = traitlets.Int(plane.STEPS[-1]).tag(sync=True)
    methods = traitlets.List(traitlets.Unicode()).tag(sync=True)
    frames = traitlets.List(traitlets.Int()).tag(sync=True)
    rules = traitlets.Dict().tag(sync=True)  # one for each method that is learnt, as `_rule` makes it
    points = traitlets.Bytes().tag(sync=True)  # float32, x and y of each
    extent = traitlets.Float(plane.EXTENT).tag(sync=True)

    def __init__(self, method: str = "vq", step: int = plane.STEPS[-1], seed: int = 0) -> None:
        """Show a method after a step of learning.

        Args:
            method: a key of `plane.METHODS`.
            step: one of `plane.FRAMES`.
            seed: of the codes' first values.

        Raises:
            ValueError: there is no such method, or the step was not kept.
        """
        plane.check_method(method)
        plane.check_step(step)
        self._seed = seed
        super().__init__(method=method, step=step)
        self.methods, self.frames = list(plane.METHODS), list(plane.FRAMES)
        self.points = plane.points().numpy().astype("<f4").tobytes()
        self.rules = {name: self._rule(name) for name in plane.METHODS if name == method or plane.is_learnt(name, seed)}
        self._describe()

    def _rule(self, method: str) -> dict[str, Any]:
        """Return a method's `plane.Rule` for the page, its tensors as bytes of float32."""
        rule = plane.rule(method, self._seed)
        as_bytes = {name: getattr(rule, name).numpy().astype("<f4").tobytes() for name in ("books", "maps")}
        return {"kind": rule.kind, "sizes": list(rule.sizes), "borders": list(map(list, rule.borders))} | as_bytes

    @property
    def partition(self) -> plane.Partition:
        """The partition learnt by the step that is shown; codes that were dragged are the page's own."""
        return plane.learn(self.method, self._seed, (self.step,))[0]

    @traitlets.validate("method")
    def _known_method(self, proposal: Any) -> str:
        return self._checked(plane.check_method, proposal.value, self.method)

    @traitlets.validate("step")
    def _known_step(self, proposal: Any) -> int:
        return self._checked(plane.check_step, proposal.value, self.step)

    def _checked(self, check: Any, value: Any, former: Any) -> Any:
        """Return the value, or, where it is refused, what was there before; and say why."""
        try:
            check(value)
        except ValueError as error:
            self.message = str(error)
            return former
        self.message = ""
        return value

    @traitlets.observe("method", "step")
    def _follow(self, change: Any) -> None:
        if self.frames:  # not before there is something to see
            self._learn()

    @answering
    def _learn(self) -> None:
        if self.method not in self.rules:
            self.rules = self.rules | {self.method: self._rule(self.method)}
        self._describe()

    def _describe(self) -> None:
        self.description = (
            f"How {self.method} divides the plane: after step {self.step} of learning {self.partition.num_used} of "
            f"{len(self.partition.codes)} codes are used, and the mean squared error is {self.partition.error:.3f}. Points "
            "lie on half a ring and in a blob; each region is what one code stands for. Codes can be moved."
        )

    def figure(self) -> Figure:
        """Return the partition that is shown."""
        return plots.partitions({self.method: self.partition}, plane.points())

    def __repr__(self) -> str:
        return f"PlaneExplorer({self.method!r}, {self.partition})"
