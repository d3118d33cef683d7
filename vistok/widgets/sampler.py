"""`Sampler`: a generator that draws while one watches, from its first token or from wherever one clicks."""

import math
import textwrap
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import torch
import traitlets
from matplotlib.figure import Figure
from torch import Tensor

from vistok.generation.generator import UNKNOWN, Generator, load_with_tokenizer
from vistok.generation.sampling import Sampling
from vistok.generation.trace import Trace, decode_so_far, trace_of
from vistok.images import to_float
from vistok.plots.figures import DPI, SMALL
from vistok.plots.generation import draw_bits, draw_likeliest, draw_so_far, on_plane
from vistok.pretrained.loading import load_pretrained
from vistok.runs import short_names
from vistok.system.devices import computing, usable_device
from vistok.system.threads import release_idle_threads
from vistok.system.values import NonNegativeInt, Seed, checked
from vistok.tokenizer import VisualTokenizer
from vistok.tokens.codebook import decode_alone
from vistok.widgets.pictures import picture_of
from vistok.widgets.view import ANSWERED, AskedView, Refusal, answering, image_png, script, strip_png

PUSH_SECONDS = 0.1  # at least between two messages to the page, and four times as long as it takes to make one
LIKELIEST = 8  # codes shown of a place
NOT_DRAWN = 2**32 - 1  # in place of a token's code, on the page
ENLARGED = 4  # times the tokenizer's side, of a picture that is kept for it
PACE = 20  # tokens a second, to begin with
IN_WORDS = {"temperature": "temperature", "top_p": "top-p", "top_k": "top-k", "guidance": "guidance"}


class Sampler(AskedView):
    """Draw images with a generator, and watch their tokens come.

    A click on a place of the picture begins there: what comes before it in reading order is kept, the rest is drawn anew. A
    region that is dragged over the picture is drawn anew, and all around it is kept; an autoregressive generator sees of that
    only what comes before, though, and a masked one all. So is a photograph completed, if one is given.

    It is drawn in a thread of its own: cells may run meanwhile, and the stop button works. Beside the picture stands how
    unsure the generator was of each token, in bits, and of the chosen place which codes were likeliest (an autoregressive one
    knows both; a masked one draws in no order in which a token had a probability).

    Attributes:
        settings: how the next image is drawn: `label`, number of its class, None: none; fields of `Sampling`; `seed`;
            `advance`, whether the drawing after it takes the next seed; and `pace`, tokens a second, 0: as fast as they come.
        phase: "drawing", "stopped", "finished" or "failed".
        drawn_of: places that are drawn, and all of the image.
        title: what is shown, in words.
    """

    ACTS = ("sample", "begin_at", "draw_region", "show_picture", "select", "stop")
    _esm = script("errors", "tokens", "sampler")
    name = traitlets.Unicode("").tag(sync=True)
    classes = traitlets.List(traitlets.Unicode()).tag(sync=True)
    fields = traitlets.List(traitlets.Unicode()).tag(sync=True)  # of `settings`, that this generator has
    without_class = traitlets.Bool(True).tag(sync=True)  # whether it draws images of no class
    settings = traitlets.Dict().tag(sync=True)
    picture_name = traitlets.Unicode("").tag(sync=True)  # of the picture to complete; empty: there is none
    phase = traitlets.Unicode("finished").tag(sync=True)
    drawn_of = traitlets.List(traitlets.Int(), [0, 0]).tag(sync=True)
    title = traitlets.Unicode("").tag(sync=True)
    grid = traitlets.List(traitlets.Int(), [1, 1]).tag(sync=True)
    sequence = traitlets.Bool(False).tag(sync=True)  # places lie nowhere in the picture
    selection = traitlets.List(traitlets.Int(), [0, 0, 1, 1]).tag(sync=True)  # top, left, bottom, right, as of slices
    picture = traitlets.Bytes().tag(sync=True)  # PNG
    token_values = traitlets.Bytes().tag(sync=True)  # uint32 [h, w], of the first level; NOT_DRAWN
    entropy = traitlets.Bytes().tag(sync=True)  # float32 [h, w], bits; NaN: not known; empty: never known
    most_bits = traitlets.Float(1.0).tag(sync=True)  # a place's nominal bits
    likely_codes = traitlets.List(traitlets.Int()).tag(sync=True)  # at the first selected place, of the first level
    likely_shares = traitlets.List(traitlets.Float()).tag(sync=True)
    likely_tiles = traitlets.Bytes().tag(sync=True)  # PNG of these codes in a row, each decoded alone

    def __init__(
        self,
        generator: str | Path | Generator,
        tokenizer: str | Path | VisualTokenizer | None = None,
        *,
        picture: Any = None,
        device: str | None = None,
        seed: int = 0,
        label: int | str | None = None,
        **how: Any,
    ) -> None:
        """Load a generator and draw a first image, at once.

        Args:
            generator: a run that trained one, a directory written by `Generator.save`, or a generator.
            tokenizer: the one whose tokens it knows, or where it is; None: the run of the generator keeps it.
            picture: to complete, as `TryPicture.show` takes it; None: none.
            device: of what is loaded; None: a GPU where there is one, or else the CPU.
            seed: of the first image.
            label: its class, a number or a name; None: the first, or none where there are none.
            **how: fields of `Sampling`; `advance` and `pace` of `settings`.
        """
        super().__init__()
        self._writing = threading.Lock()  # held by whoever writes what the page shows
        self._thread: threading.Thread | None = None
        self._stop = threading.Event()
        self._trace: Trace | None = None
        self._tiles: dict[int, Tensor] = {}  # code to the patch
        try:
            self._generator, self._tokenizer, self.name = _load(generator, tokenizer, device)
            self._layout = self._generator.layout
            self._begin(seed, label, how)
            self._picture = None if picture is None else picture_of(picture, ENLARGED * self._tokenizer.image_size)
        except ANSWERED as error:
            self._refuse(Refusal(str(error)))
            return
        self.picture_name = "" if self._picture is None else self._picture.name
        self._answer_beside_cells()
        self._start(self._nothing, wait=True)
        self.on_msg(self._asked)

    def _begin(self, seed: int, label: int | str | None, how: dict[str, Any]) -> None:
        """Take up what the generator is, and how to draw; raises what refuses it."""
        generator, layout = self._generator, self._layout
        self.classes, self.sequence = generator.classes, layout.grid is None
        self.without_class = bool(not self.classes or generator.class_dropout)
        self.grid = list(layout.grid or (1, layout.num_places))
        self.most_bits = sum(math.log2(size) for size in layout.sizes)
        own = {name: getattr(Sampling(), name) for name in Sampling.__dataclass_fields__ if name not in generator.IDLE}
        if not (self.classes and generator.class_dropout):
            del own["guidance"]
        self.fields = [*own]
        label = 0 if label is None and self.classes else label
        self._take_up({**own, "label": label, "seed": seed, "advance": True, "pace": PACE} | how)

    # Done by the buttons.

    @answering
    def sample(self, **how: Any) -> None:
        """Draw an image from its first token on. Returns at once; `wait` waits.

        Args:
            **how: what to change of `settings`; `label` may be a name.
        """
        self._take_up(how)
        self._start(self._nothing)

    @answering
    def begin_at(self, place: int, **how: Any) -> None:
        """Draw the picture anew from a place on, keeping what comes before it. Returns at once.

        Args:
            place: number of the place, row by row.
            **how: as of `sample`.
        """
        if not 0 <= checked("place", int, place) < self._layout.num_places:
            raise ValueError(f"There is no place {place}: places are 0 to {self._layout.num_places - 1}.")
        self._take_up(how)
        later = torch.arange(self._layout.num_places) >= place
        self._start(lambda: self._places.masked_fill(later[:, None], UNKNOWN), f"from place {place} on")

    @answering
    def draw_region(self, top: int, left: int, bottom: int, right: int, **how: Any) -> None:
        """Draw a region of the picture anew, keeping all around it. Returns at once.

        Args:
            top, left, bottom, right: of its places, the ends left out, as in a slice; of a sequence the rows are 0 to 1.
            **how: as of `sample`.
        """
        self._check_region(top, left, bottom, right)
        self._take_up(how)
        inside = torch.zeros(*self.grid, dtype=torch.bool)
        inside[top:bottom, left:right] = True
        what = f"{int(inside.sum())} places of it"
        self._start(lambda: self._places.masked_fill(inside.view(1, -1, 1), UNKNOWN), what)

    @answering
    def show_picture(self) -> None:
        """Show the tokens of the picture that was given, to be completed from where one clicks."""
        if self._picture is None:
            raise ValueError("There is no picture to complete: give one as Sampler(generator, picture=...).")
        self._stop_and_join()
        seen = self._picture.square(self._tokenizer.image_size)
        device = next(self._tokenizer.parameters()).device
        with computing(device, exact=True):
            levels = self._tokenizer.encode_levels(to_float(seen[None].to(device)))
        self._places = self._layout.from_levels(tuple(level.cpu() for level in levels))
        with self._writing:
            self._show(phase="finished", title=f"{self._picture.name}, decoded from its tokens")

    @answering
    def select(self, top: int, left: int, bottom: int, right: int) -> None:
        """Choose places, of the first of which the likeliest codes are shown; arguments as of `draw_region`."""
        self._check_region(top, left, bottom, right)
        with self._writing, self.hold_sync():
            self.selection = [top, left, bottom, right]
            self._tell_likeliest()

    def stop(self) -> None:
        """Stop drawing after the step under way; what is not drawn stays empty. Returns at once."""
        self._stop.set()

    def wait(self) -> None:
        """Wait until nothing is drawn any more."""
        if self._thread is not None:
            self._thread.join()

    @property
    def tokens(self) -> Tensor | tuple[Tensor, ...]:
        """The tokens as `VisualTokenizer.decode` takes them, int64 [1, h, w]; -1: not drawn."""
        return self._layout.to_indices(self._places)

    @property
    def image(self) -> Tensor:
        """The picture as it is now, uint8 [3, H, W]; what is not drawn is nothing in particular."""
        return self._image.clone()

    # How it is done.

    def _check_region(self, top: int, left: int, bottom: int, right: int) -> None:
        for name, value in {"top": top, "left": left, "bottom": bottom, "right": right}.items():
            checked(name, int, value)
        height, width = self.grid
        if not (0 <= top < bottom <= height and 0 <= left < right <= width):
            raise ValueError(
                f"There is no region of rows {top} to {bottom} and columns {left} to {right}, ends left out: rows are within "
                f"0 to {height} and columns within 0 to {width}, and at least one of each is selected."
            )

    def _take_up(self, how: dict[str, Any]) -> None:
        """Change settings; ValueError where the generator cannot draw so, and nothing is changed."""
        settings = self.settings | how
        if isinstance(label := settings["label"], str):
            settings["label"] = self._generator.label_of(label)
        own = {"label": int | None, "seed": Seed, "pace": NonNegativeInt, "advance": bool}
        try:
            taken = {name: checked(name, kind, settings[name]) for name, kind in own.items()}
            others = {name: value for name, value in settings.items() if name not in own}
            how = self._generator.sampling(taken["label"] is not None, **others)
        except TypeError as error:
            raise ValueError(str(error)) from error
        self._labels, self._how = self._generator.label_numbers(taken["label"], 1), how
        # As checked: numbers of NumPy's have become Python's, which the page takes.
        self.settings = {name: getattr(how, name) for name in others} | taken

    def _nothing(self) -> Tensor:
        return torch.full((1, self._layout.num_places, len(self._layout.sizes)), UNKNOWN)

    def _start(self, held: Callable[[], Tensor], what: str = "", *, wait: bool = False) -> None:
        """Begin to draw; `held` gives the places that are kept once nothing else is drawn, `wait`: until it is done."""
        self._stop_and_join()
        self._stop.clear()
        places, seed = held(), self.settings["seed"]
        steps = self._generator.steps([seed], self._labels, places.to(self._generator.device), self._how)
        kept = int((places != UNKNOWN).all(2).sum())
        with self._writing:
            self._places = places
            self._show(phase="drawing", title=f"{self._in_words()}{', ' + what if what else ''}")
            if self.settings["advance"]:
                self.settings = self.settings | {"seed": (seed + 1) % 2**32}
        if wait:
            self._draw(steps, kept, 0)
            return
        self._thread = threading.Thread(
            target=self._draw, args=(steps, kept, self.settings["pace"]), daemon=True, name="vistok-sampler"
        )
        release_idle_threads()
        self._thread.start()

    def _stop_and_join(self) -> None:
        self._stop.set()
        self.wait()

    def _draw(self, steps: Iterator[Tensor], kept: int, pace: int) -> None:
        """Draw to the end, or until asked to stop; `kept` places were there before, and take no time."""
        begun = shown = time.monotonic()
        took, phase, message = 0.0, "finished", ""
        try:
            while (places := self._next(steps)) is not None:
                self._places = places.cpu()
                drawn = int((self._places != UNKNOWN).all(2).sum()) - kept
                if pace:
                    self._stop.wait(max(0.0, begun + drawn / pace - time.monotonic()))
                if self._stop.is_set():
                    phase = "stopped" if (self._places == UNKNOWN).any() else "finished"
                    break
                if time.monotonic() - shown >= max(PUSH_SECONDS, 4 * took):
                    shown = time.monotonic()
                    with self._writing:
                        self._show()
                    took = time.monotonic() - shown
        except Exception as error:  # of a thread nobody would see it
            phase, message = "failed", str(error) if isinstance(error, ANSWERED) else f"{type(error).__name__}: {error}"
        with self._writing:
            self._show(phase=phase)
            if message:
                self.message = message

    def _next(self, steps: Iterator[Tensor]) -> Tensor | None:
        """Return the places after the next step; None: there is none."""
        with computing(self._generator.device, exact=True):
            return next(steps, None)

    def _show(self, **traits: str) -> None:
        """Tell the page what is drawn so far, as one message; the caller holds the lock."""
        self._image = decode_so_far(self._tokenizer, self._layout, self._places)[0]
        known = (self._places != UNKNOWN).all(2)[0]  # [S]
        values = self._places[0, :, 0].masked_fill(~known, NOT_DRAWN)
        with self.hold_sync():
            for name, value in traits.items():
                setattr(self, name, value)
            self.drawn_of = [int(known.sum()), len(known)]
            self.picture, self.token_values = image_png(self._image), values.numpy().astype("<u4").tobytes()
            if self._generator.causal:
                self._trace = trace_of(self._generator, self._places[0], self._labels, self._how)
                self._until = int(known.int().cumprod(0).sum())  # the first place that is not drawn
                self.entropy = self._entropy().astype("<f4").tobytes()
                self._tell_likeliest()
            self.description = self._describe()

    def _entropy(self) -> np.ndarray:
        """Return the entropy of each place in bits, float64 [S]; NaN where not all tokens before it are drawn."""
        entropy = self._trace.entropy_bits.clone()
        entropy[self._until + 1 :] = math.nan
        return entropy.numpy()

    def _tell_likeliest(self) -> None:
        """Tell the page which codes were likeliest at the first selected place."""
        codes, shares = self._likeliest()
        self.likely_codes, self.likely_shares = codes, shares
        self.likely_tiles = strip_png(torch.stack([self._tiles[code] for code in codes])) if codes else b""

    def _likeliest(self) -> tuple[list[int], list[float]]:
        """Return codes and probabilities, and see to it that the codes' patches are there; empty where none are known."""
        top, left = self.selection[:2]
        place = top * self.grid[1] + left
        if self._trace is None or place > self._until:
            return [], []
        codes, shares = (found.tolist() for found in self._trace.likeliest(place, LIKELIEST))
        if missing := [code for code in codes if code not in self._tiles]:
            made = torch.cat(list(decode_alone(self._tokenizer, torch.tensor(missing))))
            self._tiles |= dict(zip(missing, made, strict=True))
        return codes, shares

    def _in_words(self) -> str:
        """Return how the next image is drawn: its seed, its class, and what is not as usual."""
        settings, usual = self.settings, Sampling()
        label = settings["label"]
        parts = [f"seed {settings['seed']}", *([] if label is None else [self.classes[label]])]
        return ", ".join(
            parts
            + [
                f"{IN_WORDS[name]} {settings[name]:g}"
                for name in IN_WORDS
                if name in settings and settings[name] != getattr(usual, name)
            ]
        )

    def _describe(self) -> str:
        drawn, number = self.drawn_of
        told = f"A picture drawn by {self.name}: {self.title}. {drawn} of {number} places are drawn."
        if self._trace is None or not drawn:
            return told
        mean = float(np.nanmean(self._entropy()))
        return f"{told} The next token's entropy was {mean:.1f} bits in the mean, of {self.most_bits:.1f} that codes can have."

    def figure(self) -> Figure | None:
        """Return the picture, how unsure the generator was of each token, and the likeliest codes of the chosen place."""
        if self._refused:
            return None
        with self._writing:
            known = (self._places != UNKNOWN).all(2)[0].view(*self.grid)
            entropy = None if self._trace is None else on_plane(self._layout, self._entropy())
            codes, shares = self._likeliest()
            tiles = [self._tiles[code] for code in codes]
        figure = plt.figure(figsize=(7.5, 3.0), dpi=DPI, layout="constrained")
        axes = figure.subplots(1, 3, width_ratios=(1, 1.18, 0.8))
        top, left = self.selection[:2]
        chosen = top * self.grid[1] + left if codes else None
        draw_so_far(axes[0], self._image, None if self.sequence else known, chosen)
        axes[0].set_title(textwrap.fill(self.title, 36), fontsize=SMALL)
        if entropy is None:
            axes[1].remove()
        else:
            draw_bits(axes[1], entropy, self.most_bits, chosen)
        if codes:
            where = f"token {left}" if self.sequence else f"row {top}, column {left}"
            draw_likeliest(axes[2], tiles, shares, codes)
            axes[2].set_title(f"codes at {where}", fontsize=SMALL)
        else:
            axes[2].remove()
        return figure


def _load(
    generator: str | Path | Generator, tokenizer: str | Path | VisualTokenizer | None, device: str | None
) -> tuple[Generator, VisualTokenizer, str]:
    """Return a generator, its tokenizer and what to call it; raises what refuses them."""
    if not isinstance(generator, Generator):
        if isinstance(tokenizer, VisualTokenizer):
            raise ValueError(
                "tokenizer is one that is loaded, but generator is not: give the paths of both, or load both."
            )
        return *load_with_tokenizer(generator, tokenizer, usable_device(device)), short_names([Path(generator).name])[0]
    if tokenizer is None:
        raise ValueError("A generator that is loaded knows no tokenizer: give the one whose tokens it was trained on.")
    if not isinstance(tokenizer, VisualTokenizer):
        tokenizer = load_pretrained(tokenizer, device=generator.device)
    generator.check_tokenizer(tokenizer)
    return generator, tokenizer, "a generator"
