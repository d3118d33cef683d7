"""`TryPicture`: one's own picture as tokens, and what tokenizers make of it."""

import io
import math
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import torch
import traitlets
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from torch import Tensor

from vistok.images import psnr, to_float, to_uint8
from vistok.plots import DPI
from vistok.pretrained import load_pretrained
from vistok.runs import numbered, short_names
from vistok.system.devices import computing, usable_device
from vistok.tokenizer import VisualTokenizer
from vistok.tokens.encoded import EncodedImages
from vistok.widgets.pictures import Picture, example_picture, picture_of, sent_picture
from vistok.widgets.reconstructions import ERROR_SCALE, decibels, draw_picture, error_map
from vistok.widgets.tokenview import Edit, Edits, NearCodes, TokenView
from vistok.widgets.view import ANSWERED, Refusal, answering, check_level, image_png, script

PREVIEW = 320  # pixels of the longer side of the whole picture as it is shown
ZOOM = 4  # times a crop may be enlarged with nothing lost
Named = str | Path | VisualTokenizer | EncodedImages | Refusal


class Trial:
    """A tokenizer and what it makes of the picture.

    Attributes:
        tokenizer, name: it, and what it is called.
        title: what captions call it.
        seen: what it sees, uint8 [3, H, W]; None before there is a picture.
        decoded: what the tokens decode to now, uint8 [3, H, W].
        edits: of the tokens.
    """

    def __init__(self, tokenizer: VisualTokenizer, name: str) -> None:
        tokenizer.quantizer.check_codebook()
        self.tokenizer, self.name, self.title, self.near = tokenizer, name, name, NearCodes(tokenizer)
        self.seen: Tensor | None = None
        self.decoded: Tensor | None = None
        self.edits: Edits | None = None

    @torch.no_grad()
    def take(self, picture: Picture) -> None:
        """Encode what is seen of a picture, and decode it.

        Raises:
            ValueError: it is seen whole, and is too long, or the network takes squares of its own size only.
        """
        seen = picture.seen(self.tokenizer.image_size, self.tokenizer.downsample_factor)
        device = next(self.tokenizer.parameters()).device
        with computing(device, exact=True):
            levels = self.tokenizer.encode_levels(to_float(seen[None].to(device)))
        self.seen = seen
        self.edits = Edits(Edit(tuple(level.cpu() for level in levels)))
        self.decode()

    def decode(self) -> None:
        """Decode the tokens as they are now."""
        self.decoded = to_uint8(self.tokenizer.decode(self.edits.now.mine))[0].cpu()

    @property
    def size(self) -> tuple[int, int]:
        """Height and width, in pixels, of what is seen; before there is a picture, of the tokenizer's square."""
        return (self.tokenizer.image_size,) * 2 if self.seen is None else tuple(self.seen.shape[1:])

    @property
    def grids(self) -> list[tuple[int, ...]]:
        """Height and width of each level's grid, in tokens; before there is a picture, for the tokenizer's square."""
        return (
            self.tokenizer.token_grids()
            if self.edits is None
            else [tuple(level.shape[1:]) for level in self.edits.first.mine]
        )

    @property
    def num_tokens(self) -> int:
        return sum(math.prod(grid) for grid in self.grids)

    @property
    def bits(self) -> float:
        """Bits of all tokens: each is one of K codes."""
        levels = zip(self.grids, self.tokenizer.quantizer.codebook_sizes, strict=True)
        return sum(math.prod(grid) * math.log2(size) for grid, size in levels)

    @property
    def bits_per_pixel(self) -> float:
        return self.bits / math.prod(self.size)

    @property
    def psnr(self) -> float:
        """PSNR of the picture as it is decoded now, in dB; infinite where nothing differs."""
        return float(psnr(self.seen[None], self.decoded[None]))


class TryPicture(TokenView):
    """Give tokenizers a picture of one's own: its tokens over it, to click and change, and its reconstruction by each of them.

    A picture is dropped, pasted, chosen as a file, taken by the camera, or given from Python with `show`. It goes to the
    notebook's kernel and nowhere else. A notebook that is saved with its widgets keeps what the view shows: the picture made
    small (`preview`, at most 320 pixels), what the tokenizers see of it and their reconstructions, never the file itself; its
    output keeps the picture that was there when the cell ran.

    Attributes:
        active: number of the tokenizer whose tokens are shown and changed; `look_at` changes it.
        tokenizers: of each its name, its title in captions, image size in pixels, and of what it sees height and width in
            pixels, how many tokens, bits, and bits a pixel.
        picture_name, picture_size: what the picture is called, and its width and height in pixels.
        extent: width and height in pixels of the picture that is kept; zeros: there is none.
        crop: left, top and side of the square that is seen, in these pixels; `crop_to` changes it.
        whole: whether not the square but the whole picture is seen, its short side of the tokenizer's size; `see_whole`
            changes it.
        seen, reconstructions: PNG of what each tokenizer sees and what its tokens decode to; empty while it is made.
        psnr: of each reconstruction in dB; None where it is made or nothing differs.
    """

    ACTS = (*TokenView.ACTS, "take", "crop_to", "see_whole")
    _esm = script("errors", "tokens", "camera", "intake", "cropper", "try_picture")
    active = traitlets.Int(0).tag(sync=True)
    tokenizers = traitlets.List(traitlets.Dict()).tag(sync=True)
    picture_name = traitlets.Unicode("").tag(sync=True)
    picture_size = traitlets.List(traitlets.Int(), [0, 0]).tag(sync=True)
    preview = traitlets.Bytes().tag(sync=True)  # JPEG of the whole picture, made small
    extent = traitlets.List(traitlets.Int(), [0, 0]).tag(sync=True)
    crop = traitlets.List(traitlets.Int(), [0, 0, 0]).tag(sync=True)
    whole = traitlets.Bool(False).tag(sync=True)
    short = traitlets.Int(0).tag(sync=True)  # pixels of the short side that the page sends
    seen = traitlets.List(traitlets.Bytes()).tag(sync=True)
    reconstructions = traitlets.List(traitlets.Bytes()).tag(sync=True)
    psnr = traitlets.List(traitlets.Float(allow_none=True)).tag(sync=True)
    error_scale = traitlets.Float(ERROR_SCALE).tag(sync=True)

    def __init__(self, tokenizer: Named, *others: Named, picture: Any = None, device: str | None = None) -> None:
        """Load the tokenizers, once, and show a picture.

        Args:
            tokenizer: a run directory, a saved tokenizer, an official checkpoint (its file or its name), a tokenizer, or
                `EncodedImages`, of which their tokenizer is taken; or why there is none.
            others: that make something of the picture too; of what cannot be loaded it is said why, and it is left out.
            picture: as `show` takes it; None: a photograph that comes with scikit-image.
            device: of what is loaded; None: a GPU where there is one, or else the CPU.
        """
        super().__init__()
        self._trials: list[Trial] = []
        self._picture: Picture | None = None
        refused = self._load((tokenizer, *others), device)
        if not self._trials:
            self._refuse(Refusal(refused[0]))
            return
        sizes = [trial.tokenizer.image_size for trial in self._trials]
        self.short = ZOOM * max(sizes)
        self.tokenizers = [self._facts(trial) for trial in self._trials]
        self.codebook_sizes = list(self._trial.tokenizer.quantizer.codebook_sizes)
        if picture is not None:
            self.show(picture)
        if self._picture is None:  # none was given, or it could not be shown: `message` says why
            self._begin_with_example(self.message)
        self.message = " ".join(filter(None, [self.message, *refused]))
        self.on_msg(self._asked)

    # Done by the buttons.

    @answering
    def show(self, picture: Any, name: str | None = None) -> None:
        """Show a picture.

        Args:
            picture: a file, an image of Pillow, or a tensor or an array: uint8, [3, H, W] or [H, W, 3] or [H, W]; or floats,
                channels first in [-1, 1], channels last or none in [0, 1].
            name: what to call it; None: as the file is called.
        """
        self._take(picture_of(picture, self.short, name))

    @answering
    def take(self, data: bytes, width: int, height: int, name: str, size: list[int]) -> None:
        """Take a picture that the page has decoded: 3 bytes a pixel."""
        self._take(sent_picture(data, width, height, name, (size[0], size[1])))

    @answering
    def crop_to(self, left: float, top: float, side: float) -> None:
        """Show tokenizers another square of the picture: its left, top and side in pixels of `extent`."""
        self._known_picture().crop_to(left, top, side)
        self._encode()

    @answering
    def see_whole(self, whole: bool = True) -> None:
        """Show tokenizers the whole picture, whatever its shape, or its square again."""
        picture = self._known_picture()
        before, picture.is_whole = picture.is_whole, bool(whole)
        try:
            self._encode()
        except ValueError:
            picture.is_whole = before
            self._encode()
            raise

    @answering
    def look_at(self, level: int = 0, tokenizer: int | None = None) -> None:
        """Show and change the tokens of a level, and of another tokenizer; edits of others stay."""
        number = self.active if tokenizer is None else tokenizer
        if not 0 <= number < len(self._trials):
            raise ValueError(f"There is no tokenizer {number}: they are 0 to {len(self._trials) - 1}.")
        sizes = list(self._trials[number].tokenizer.quantizer.codebook_sizes)
        check_level(level, len(sizes))
        with self.hold_sync():
            self.active, self.level, self.codebook_sizes, self.selection = number, level, sizes, [0, 0, 1, 1]
            self._tell()

    @property
    def decoded(self) -> list[Tensor]:
        """The picture as each tokenizer decodes it now, uint8 [3, H, W]."""
        return [trial.decoded.clone() for trial in self._trials]

    # How it is done.

    @property
    def _trial(self) -> Trial:
        return self._trials[self.active]

    @property
    def _edits(self) -> Edits:
        self._known_picture()
        return self._trial.edits

    @property
    def _near(self) -> NearCodes:
        return self._trial.near

    def _load(self, named: tuple[Named, ...], device: str | None) -> list[str]:
        """Load tokenizers; returns why those that cannot be loaded cannot. Without the first nothing is loaded."""
        refused = []
        for given in named:
            try:
                self._trials.append(_trial_of(given, device))
            except ANSWERED as error:
                refused.append(str(error))
                if not self._trials:
                    break
        for trial, title in zip(self._trials, _titles([trial.name for trial in self._trials]), strict=True):
            trial.title = title
        return refused

    def _facts(self, trial: Trial) -> dict[str, Any]:
        return {
            "name": trial.name,
            "title": trial.title,
            "image_size": trial.tokenizer.image_size,
            "size": list(trial.size),
            "num_tokens": trial.num_tokens,
            "bits": trial.bits,
            "bits_per_pixel": trial.bits_per_pixel,
        }

    def _begin_with_example(self, because: str) -> None:
        try:
            self._take(example_picture(self.short))
        except ANSWERED as error:
            because = because or str(error)
        self.message = because

    def _known_picture(self) -> Picture:
        if self._picture is None:
            raise ValueError("There is no picture yet: drop one, paste one or choose a file.")
        return self._picture

    def _take(self, picture: Picture) -> None:
        self._picture = picture
        with self.hold_sync():
            self.picture_name, self.picture_size = picture.name, list(picture.size)
            self.extent, self.preview = list(picture.image.size), _preview(picture)
        self._encode()

    def _encode(self) -> None:
        """Give all tokenizers what is seen of the picture: the one whose tokens are shown first, for it may take some time."""
        for trial in self._trials:
            trial.seen = trial.decoded = trial.edits = None
        with self.hold_sync():
            self.crop, self.whole, self.selection = list(self._picture.crop), self._picture.is_whole, [0, 0, 1, 1]
            self._trial.take(self._picture)
            self._tell()
        for trial in self._trials:
            if trial.seen is None:
                trial.take(self._picture)
                self._tell_pictures()
        self.description = self._describe()

    def _update(self) -> None:
        self._trial.decode()
        with self.hold_sync():
            self._tell()

    def _tell(self) -> None:
        self._tell_pictures()
        self._tell_tokens()
        self.description = self._describe()

    def _tell_pictures(self) -> None:
        """Tell the page what each tokenizer sees and makes of it, as far as that is known."""
        made = [trial for trial in self._trials if trial.seen is not None]
        with self.hold_sync():
            self.tokenizers = [self._facts(trial) for trial in self._trials]
            self.seen = [image_png(trial.seen) if trial in made else b"" for trial in self._trials]
            self.reconstructions = [image_png(trial.decoded) if trial in made else b"" for trial in self._trials]
            psnr = [trial.psnr if trial in made else math.inf for trial in self._trials]
            self.psnr = [value if math.isfinite(value) else None for value in psnr]

    def _describe(self) -> str:
        (width, height), (_, _, side), (rows, columns) = self.picture_size, self.crop, self.grid
        made = [trial for trial in self._trials if trial.decoded is not None]
        number = self._num_edited()
        edited = f" {number} {'token is' if number == 1 else 'tokens are'} not as encoded." if number else ""
        seen = "the whole of it" if self.whole else f"a square, {side / min(self.extent):.0%} of its short side"
        return (
            f"The picture {self.picture_name}, {width} x {height} pixels: {seen}, as {rows} x {columns} tokens of "
            f"{self._trial.title}. {'. '.join(map(_made_of_it, made))}.{edited}"
        )

    def figure(self) -> Figure | None:
        """Return the picture, its tokens, and in a row the reconstructions over their errors."""
        if self._picture is None:
            return None
        columns = 2 + len(self._trials)
        figure = plt.figure(figsize=(2.6 * columns, 5.8), dpi=DPI, layout="constrained")
        axes = figure.subplots(2, columns)
        left, top, side = self._picture.crop
        whole = torch.from_numpy(np.array(self._picture.image)).permute(2, 0, 1)
        draw_picture(axes[0, 0], whole, _short(self._picture.name))
        if not self.whole:
            axes[0, 0].add_patch(Rectangle((left, top), side - 1, side - 1, fill=False, ec="white", lw=2))
        seen = self._trial.seen
        draw_picture(axes[0, 1], seen, f"{self.grid[0]} x {self.grid[1]} tokens")
        self._draw_grid(axes[0, 1], *seen.shape[1:])
        for axis, trial in zip(axes[:, 2:].T, self._trials, strict=True):
            about = f"{decibels(trial.psnr)}, {trial.bits:,.0f} bits"
            draw_picture(axis[0], trial.decoded, f"{_short(trial.title)}\n{about}")
            draw_picture(axis[1], error_map(trial.seen, trial.decoded), f"error, colours 0 to {ERROR_SCALE:g}")
        axes[1, 0].remove()
        axes[1, 1].remove()
        return figure


def _trial_of(given: Named, device: str | None) -> Trial:
    if isinstance(given, Refusal):
        raise ValueError(given.sentence)
    if isinstance(given, EncodedImages):
        return Trial(given.tokenizer, given.name)
    if isinstance(given, VisualTokenizer):
        return Trial(given, "tokenizer")
    if not isinstance(given, str | Path):
        raise ValueError(
            f"A tokenizer is a directory, a checkpoint, its name or a VisualTokenizer, not {type(given).__name__}."
        )
    return Trial(load_pretrained(given).to(usable_device(device)), Path(given).name)


def _made_of_it(trial: Trial) -> str:
    bits = f"{trial.bits:,.0f} bits or {trial.bits_per_pixel:.2f} a pixel"
    return f"{trial.title}: {trial.num_tokens:,} tokens, {bits}, {decibels(trial.psnr)}"


def _titles(names: list[str]) -> list[str]:
    """Return what captions call tokenizers; namesakes are numbered."""
    different = list(dict.fromkeys(names))
    title_of = dict(zip(different, short_names(different), strict=True))
    return numbered([title_of[name] for name in names])


def _short(name: str, most: int = 28) -> str:
    return name if len(name) <= most else f"{name[: most - 1]}…"


def _preview(picture: Picture) -> bytes:
    """Return the whole picture, made small, as the bytes of a JPEG file."""
    small, buffer = picture.image.copy(), io.BytesIO()
    small.thumbnail((PREVIEW, PREVIEW))
    small.save(buffer, "JPEG", quality=85)
    return buffer.getvalue()
