"""The base of all widgets: its script, a sentence in place of a traceback, a picture without a kernel, a text alternative."""

import base64
import functools
import importlib.resources
import threading
from collections.abc import Callable
from typing import Any

import anywidget
import matplotlib.pyplot as plt
import torch
import traitlets
from matplotlib.figure import Figure
from torch import Tensor
from torch.nn import functional as F

from vistok.images import image_png as image_png
from vistok.images import strip_png as strip_png
from vistok.plots.figures import page_width, png
from vistok.system.files import shown
from vistok.tokens.encoded import EncodedImages

SCRIPTS = importlib.resources.files("vistok.widgets") / "js"
SHARED = ("common", "connection", "frame")
ANSWERED = (ValueError, FileNotFoundError)  # raised by bad input: the sentence is shown


def script(*names: str) -> str:
    """Return one ES module made of files of `js/`, the shared helpers first; anywidget loads a widget from one module."""
    return "\n".join((SCRIPTS / f"{name}.js").read_text(encoding="utf-8") for name in (*SHARED, *names))


class Refusal:
    """Why there is nothing to look at, as a sentence; widgets take it in place of `EncodedImages`, and show it."""

    def __init__(self, sentence: str) -> None:
        self.sentence = sentence

    def __repr__(self) -> str:
        return self.sentence


def open_encoded(*arguments: Any, **options: Any) -> EncodedImages | Refusal:
    """Return `EncodedImages.open(...)`; where that refuses its input, why, for the widgets to show."""
    try:
        return EncodedImages.open(*arguments, **options)
    except ANSWERED as error:
        return Refusal(str(error))


class View(anywidget.AnyWidget):
    """Base of the widgets.

    A subclass names its script, fills `description`, and draws `figure`. What cannot be shown is said in `message`.

    JupyterLab saves the views that a notebook shows with it, so that they are there without a kernel. Traits of bytes that
    are large and of no use then are tagged `saved=False`.

    Attributes:
        message: a sentence for the reader: what was wrong with the input, or what is being done; empty: nothing.
        description: what is seen, in sentences: the text alternative.
        unsaved: names of the traits whose bytes are not saved with the notebook.
    """

    _css = (SCRIPTS / "style.css").read_text(encoding="utf-8")
    message = traitlets.Unicode("").tag(sync=True)
    description = traitlets.Unicode("").tag(sync=True)
    unsaved = traitlets.List(traitlets.Unicode()).tag(sync=True)

    @traitlets.default("unsaved")
    def _tagged(self) -> list[str]:
        return list(self.traits(saved=False))

    def __init__(self, **traits: Any) -> None:
        super().__init__(**traits)
        # JupyterLab handles what the page asks for in a thread of its own, beside a cell that runs: one at a time.
        self._turn = threading.RLock()
        self._refused = False

    def _refuse(self, refusal: Refusal) -> None:
        """Show why there is nothing to look at, from now on."""
        self.message, self._refused = refusal.sentence, True

    def _opened(self, encoded: EncodedImages | Refusal) -> EncodedImages | None:
        """Return the images to look at, or None where there are none, and show why."""
        if isinstance(encoded, EncodedImages):
            return encoded
        if not isinstance(encoded, Refusal):
            what = f"{type(self).__name__} looks at images that a tokenizer has encoded, not at {shown(encoded)}"
            encoded = Refusal(f"{what}: open_encoded(run, dataset) returns them.")
        self._refuse(encoded)
        return None

    def _known_number(self, proposal: Any, number: int) -> int:
        """Return the image, or whatever the trait numbers, that is proposed; if there is none, say so and keep the former."""
        name = proposal.trait.name
        if 0 <= proposal.value < number:
            self.message = ""
            return proposal.value
        if number:
            self.message = f"There is no {name} {proposal.value}: {name}s are 0 to {number - 1}."
        return getattr(self, name)

    def _answer_beside_cells(self) -> None:
        """Let clicks reach Python while a cell runs, also after a thread of ours has sent something to the page.

        ipykernel from 7.4 on sends a click where the last message came from: to the main thread, which the cell keeps busy.
        Left alone, JupyterLab's go to a subshell, which is free.
        """
        if self.comm is not None:
            self.comm._reply_subshell_for = lambda _data, asked_for: asked_for

    def figure(self) -> Figure | None:
        """Return the widget as a figure, for readers without a kernel; None where there is only the message."""
        raise NotImplementedError

    def __repr__(self) -> str:
        return f"{type(self).__name__}: {self.message or self.description}"

    def _repr_mimebundle_(self, **options: Any) -> tuple[dict[str, Any], dict[str, Any]]:
        bundle = super()._repr_mimebundle_(**options)
        data, metadata = bundle if isinstance(bundle, tuple) else (bundle or {}, {})
        data = dict(data or {}) | {"text/plain": repr(self)}
        figure = self.figure()
        if figure is not None:
            metadata = dict(metadata or {}) | {"image/png": {"alt": self.description, "width": page_width(figure)}}
            data["image/png"] = base64.b64encode(figure_png(figure)).decode()
        return data, metadata


class AskedView(View):
    """Base of the views whose page asks for what Python does: `{do: "replace", code: 5}` calls `replace(code=5)`.

    A subclass names in `ACTS` what its page may ask for, and listens by `self.on_msg(self._asked)`.

    Attributes:
        answered: how many requests of the page were dealt with.
    """

    ACTS: tuple[str, ...] = ()
    answered = traitlets.Int(0).tag(sync=True)

    def _asked(self, widget: Any, content: dict[str, Any], buffers: Any) -> None:
        """Do what the page asks for."""
        arguments = dict(content)
        act = arguments.pop("do", None)
        if buffers:
            arguments["data"] = bytes(buffers[0])
        with self._turn:
            try:
                if act in self.ACTS:
                    getattr(self, act)(**arguments)
            finally:  # whatever came of it: the page waits for it
                self.answered += 1


def answering(act: Callable[..., None]) -> Callable[..., None]:
    """Make a method of a `View` put the sentence of refused input into `message`, and empty `message` if it succeeds.

    Such methods of one widget run one after the other, whichever thread calls them. Of a widget that has nothing to look at
    they do nothing: its sentence stays.
    """

    @functools.wraps(act)
    def answered(self: View, *arguments: Any, **options: Any) -> None:
        if self._refused:
            return
        with self._turn:
            try:
                act(self, *arguments, **options)
            except ANSWERED as error:
                self.message = str(error)
            else:
                self.message = ""

    return answered


def check_level(level: int, number: int) -> None:
    """Raise ValueError where there is no such one of `number` levels."""
    if not 0 <= level < number:
        raise ValueError(f"There is no level {level}: levels are 0 to {number - 1}.")


def figure_png(figure: Figure) -> bytes:
    """Return a figure as the bytes of a PNG file, and close it."""
    content = png(figure)
    plt.close(figure)
    return content


def smaller(images: Tensor, side: int) -> Tensor:
    """Return images, uint8 [n, 3, H, W], made smaller: their longer side is `side` pixels, or as it is where that is less."""
    sizes, longer = images.shape[2:], max(images.shape[2:])
    if longer <= side:
        return images
    made = [max(1, round(size * side / longer)) for size in sizes]
    return F.interpolate(images.float(), made, mode="area").round().to(torch.uint8)
