"""`Generator`: what is trained on tokens of images, autoregressive or masked; tokens of new images, and how likely they are.

A saved generator is a directory with `model.safetensors` and `config.json`; nothing in it is executed when it is loaded.

    generator = Generator.load("runs/my-generator")
    tokenizer = VisualTokenizer.load("runs/my-generator")
    images = tokenizer.decode(generator.sample(range(16), top_p=0.9))
"""

import abc
import math
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vistok.generation.layout import Layout
from vistok.generation.sampling import Sampling, draw, guide, probabilities, uniform_numbers
from vistok.generation.transformer import Shape, Transformer
from vistok.pretrained.loading import load_pretrained
from vistok.quantizers.levels import is_whole
from vistok.system.devices import eval_view, usable_device
from vistok.system.files import shown
from vistok.system.paths import beside_caller, resolve_path
from vistok.system.values import Seed, call_with_options, checked, whole_numbers
from vistok.system.weights import check_weights, first_line, read_saved, write_saved
from vistok.system.words import differences_between, nearest
from vistok.tokenizer import VisualTokenizer
from vistok.tokens.store import describe

AT_ONCE = 64  # images that are drawn together
UNKNOWN = -1  # stands for a token that is not drawn yet


class Generator(nn.Module, abc.ABC):
    """Base of the generators.

    Attributes:
        settings: what it was made with, as `config.json` holds it.
        layout: how tokens lie in its sequence.
        transformer: the network.
        classes: names of the classes; empty: it knows none.
        image_size: pixels, height and width of the images whose tokens it was trained on.
    """

    MODEL: ClassVar[str]
    IDLE: ClassVar[frozenset[str]] = frozenset()  # fields of `Sampling` without effect
    causal: ClassVar[bool]

    def __init__(
        self,
        *,
        codebook_sizes: list[int],
        level_shapes: list[list[int]],
        image_size: int,
        classes: list[str] | None = None,
        class_dropout: float = 0.0,
        tokenizer: dict[str, Any] | None = None,
        hidden_dim: int = 192,
        depth: int = 7,
        num_heads: int = 6,
        dropout: float = 0.0,
    ) -> None:
        """Build a generator with random weights.

        Args:
            codebook_sizes: K of each level.
            level_shapes: height and width, in tokens, of each level's grid.
            image_size: pixels, height and width.
            classes: names; None: unconditional.
            class_dropout: share of images trained without their class; 0: it cannot go without one.
            tokenizer: settings and weights_sha256 of the one whose tokens they are.
            hidden_dim, depth, num_heads: of the transformer.
            dropout: while training.

        Raises:
            ValueError: a number is out of range.
        """
        super().__init__()
        self.settings = {
            "model": self.MODEL,
            "codebook_sizes": codebook_sizes,
            "level_shapes": level_shapes,
            "image_size": image_size,
            "classes": list(classes or []),
            "class_dropout": class_dropout,
            "tokenizer": tokenizer,
            **{"hidden_dim": hidden_dim, "depth": depth, "num_heads": num_heads, "dropout": dropout},
        }
        self.layout = Layout(codebook_sizes, level_shapes)
        self.classes: list[str] = self.settings["classes"]
        self.class_dropout, self.image_size = class_dropout, image_size
        self.register_buffer("mask_tokens", torch.tensor(self.layout.sizes), persistent=False)  # K_l, beyond the codes
        self.transformer = Transformer(
            self.layout,
            len(self.classes),
            Shape(hidden_dim, depth, num_heads),
            dropout=dropout,
            causal=self.causal,
            with_mask=not self.causal,
        )

    # What is learned.

    @abc.abstractmethod
    def forward(self, places: Tensor, labels: Tensor | None = None) -> Tensor:
        """Return the loss that it is trained by, the mean cross entropy in nats a token.

        Args:
            places: int64 [B, S, L], as `layout` has them.
            labels: int64 [B], the classes; None where it knows none.
        """

    def class_numbers(self, labels: Tensor | None, batch: int) -> Tensor:
        """Return the classes of a batch as the transformer takes them, int64 [B]; while training some are left out."""
        none = len(self.classes)
        if labels is None:
            return torch.full((batch,), none, device=self.device)
        if self.training and self.class_dropout:
            return labels.masked_fill(torch.rand(batch, device=labels.device) < self.class_dropout, none)
        return labels

    @property
    def device(self) -> torch.device:
        """Where it is."""
        return self.transformer.norm.weight.device

    # What is drawn.

    @torch.no_grad()
    def sample(
        self,
        seeds: Sequence[int],
        labels: int | Sequence[int] | None = None,
        *,
        given: Tensor | Sequence[Tensor] | None = None,
        known: Tensor | Sequence[Tensor] | None = None,
        **how: Any,
    ) -> Tensor | tuple[Tensor, ...]:
        """Return the tokens of new images, or of images completed, as in eval mode; changes no state and no mode.

        An image is a function of its seed, class and what is given of it, not of those beside it; the sums that its logits are
        round with the number of images, though, and where a random number lies within a millionth of a probability's end that
        decides.

        Args:
            seeds: one for each image, in [0, 2**32); `range(16)` makes 16.
            labels: the class of all images, or of each, in [0, C); None: none.
            given: int64 [B, h, w], or a tuple of one a level, tensors or arrays: tokens of images to complete.
            known: bool of the same shape or of one image, True where `given` holds; None: everywhere none. An autoregressive
                generator draws a token from those before it alone, known or drawn; a masked one from all.
            **how: fields of `Sampling`.

        Returns:
            int64 [B, h, w] in [0, K), or a tuple of one a level, as `VisualTokenizer.decode` takes them.

        Raises:
            ValueError: a number is out of range, `given` is of another shape or dtype, `seeds` are no integers, or there is no
                such class.
            TypeError: a class is no integer.
        """
        how, parts = self.sampling(labels is not None, **how), []
        seeds = [checked("seeds", Seed, seed) for seed in whole_numbers("seeds", seeds)]
        all_labels = self.label_numbers(labels, len(seeds))
        held = self._held(given, known, len(seeds))
        for first in range(0, len(seeds), AT_ONCE):
            part = slice(first, first + AT_ONCE)
            chosen = None if all_labels is None else all_labels[part]
            for places in self.steps(seeds[part], chosen, held[part], how):
                last = places
            parts.append(last)
        return self.layout.to_indices(torch.cat(parts) if parts else held)

    def sampling(self, with_class: bool, **how: Any) -> Sampling:
        """Return how to draw, of fields of `Sampling`; ValueError or TypeError where this generator cannot draw so.

        Args:
            with_class: whether images are of a class.
        """
        for name in how.keys() & self.IDLE:
            raise ValueError(
                f"{name} is {shown(how[name])}, but the {self.MODEL} generator has no such thing; leave it out."
            )
        sampling = call_with_options("sampling", Sampling, how)
        if sampling.guided and not (with_class and self.class_dropout):
            why = "it was trained with class_dropout 0" if with_class else "no class is given"
            raise ValueError(
                f"guidance is {sampling.guidance}, but {why}, so that there is nothing to guide; leave it 1."
            )
        return sampling

    @torch.no_grad()
    def steps(self, seeds: Sequence[int], labels: Tensor | None, held: Tensor, how: Sampling) -> Iterator[Tensor]:
        """Draw some images at once, step by step.

        Args:
            seeds: one for each.
            labels: int64 [B]; None: none.
            held: int64 [B, S, L], UNKNOWN where a token is to be drawn.
            how: how.

        Yields:
            int64 [B, S, L] after each step, UNKNOWN where a token is not drawn yet.
        """
        view = eval_view(self)
        classes = view.class_numbers(labels, len(seeds))
        if how.guided:
            classes = torch.cat([classes, view.class_numbers(None, len(seeds))])
        yield from view._steps(seeds, classes, held, how)

    @abc.abstractmethod
    def _steps(self, seeds: Sequence[int], classes: Tensor, held: Tensor, how: Sampling) -> Iterator[Tensor]:
        """Do what `steps` does, in eval mode, for classes, int64 [B], or [2B] of guided logits."""

    def _draw_place(self, state: Tensor, uniform: Tensor, held: Tensor, how: Sampling) -> tuple[Tensor, Tensor]:
        """Draw the tokens of places, one level after the other.

        Args:
            state: [B, T, dim], outputs of the transformer; [2B, T, dim] of guided logits.
            uniform: [B, T, L], numbers in [0, 1).
            held: int64 [B, T, L], UNKNOWN where a token is to be drawn.
            how: how.

        Returns:
            the tokens, int64 [B, T, L], and the logarithm of the probability that they were drawn with together, [B, T]; at
            temperature 0, where all are certain, of the probability that was learned.
        """
        heads, tokens, likely = self.transformer.heads, [], 0.0
        for level, output in enumerate(heads.outputs):
            logits = guide(output(state), how.guidance) if how.guided else output(state)
            shares = probabilities(logits, how)  # [B, T, K]
            drawn = draw(shares, uniform[..., level])
            drawn = torch.where(held[..., level] == UNKNOWN, drawn, held[..., level])
            learned = probabilities(logits, Sampling()) if how.temperature == 0 else shares
            likely = likely + learned.gather(-1, drawn.unsqueeze(-1)).squeeze(-1).log()
            tokens.append(drawn)
            if level + 1 < len(heads.outputs):
                state = heads.next_state(state, level, torch.cat([drawn, drawn]) if how.guided else drawn)
        return torch.stack(tokens, dim=-1), likely

    def label_numbers(self, labels: int | Sequence[int] | None, number: int) -> Tensor | None:
        """Return the class of all of some images, or of each, as int64 [B].

        Raises:
            ValueError: there is no such class, or no class where one is needed; there are more or fewer than images.
            TypeError: a class is no integer.
        """
        if labels is None:
            if self.classes and not self.class_dropout:
                raise ValueError("This generator was trained with class_dropout 0 and needs a class: give labels.")
            return None
        labels = labels.tolist() if isinstance(labels, Tensor | np.ndarray | np.generic) else labels
        several = isinstance(labels, Iterable) and not isinstance(labels, str)
        given = [checked("labels", int, label) for label in (labels if several else [labels] * number)]
        if len(given) != number:
            raise ValueError(f"labels holds {len(given)} classes, but there are {number} seeds.")
        if not self.classes:
            raise ValueError("labels are given, but this generator knows no classes; leave them None.")
        for label in given:
            if not 0 <= label < len(self.classes):
                most = len(self.classes) - 1
                raise ValueError(f"labels holds {shown(label)}, but a class must be at least 0 and at most {most}.")
        return torch.tensor(given, device=self.device)

    def label_of(self, name: str) -> int:
        """Return the number of a class; ValueError where there is none of this name."""
        if name not in self.classes:
            known = nearest(name, self.classes) if self.classes else "this generator knows no classes."
            raise ValueError(f"There is no class {name!r}; {known}")
        return self.classes.index(name)

    def _held(
        self, given: Tensor | Sequence[Tensor] | None, known: Tensor | Sequence[Tensor] | None, batch: int
    ) -> Tensor:
        """Return the tokens that are known, int64 [B, S, L], UNKNOWN elsewhere."""
        layout, nothing = self.layout, torch.full((batch, self.layout.num_places, len(self.layout.sizes)), UNKNOWN)
        if (given is None) != (known is None):
            raise ValueError("given and known go together: tokens, and where they hold.")
        if given is None:
            return nothing.to(self.device)
        tokens = layout.from_levels(self._levels("given", given, batch))
        where = layout.from_levels(self._levels("known", known, batch)).bool()
        for level, size in enumerate(layout.sizes):
            values = tokens[..., level][where[..., level]]
            if len(values) and (int(values.min()) < 0 or int(values.max()) >= size):
                raise ValueError(f"given holds a token outside of this generator's codebook, [0, {size}).")
        return torch.where(where, tokens, nothing).to(self.device)

    def _levels(self, name: str, given: Tensor | Sequence[Tensor], batch: int) -> tuple[Tensor, ...]:
        levels = (given,) if isinstance(given, Tensor | np.ndarray) else tuple(given)
        if not all(isinstance(level, Tensor | np.ndarray) for level in levels):
            raise ValueError(f"{name} is {shown(given)}, but must be a tensor or an array, or a tuple of one a level.")
        levels = tuple(torch.as_tensor(level) for level in levels)
        shapes = [tuple(level.shape) for level in levels]
        fitting = [{shape, (1, *shape), (batch, *shape)} for shape in self.layout.level_shapes]
        if len(shapes) != len(fitting) or any(s not in which for s, which in zip(shapes, fitting, strict=True)):
            raise ValueError(
                f"{name} has shapes {shapes}, but must be {[(batch, *s) for s in self.layout.level_shapes]}."
            )
        if name == "known" and any(level.dtype != torch.bool for level in levels):
            raise ValueError(f"known is {levels[0].dtype}, but must be bool, True where a token is given.")
        if name == "given" and not all(map(is_whole, levels)):
            raise ValueError(f"given is {levels[0].dtype}, but tokens are integers.")
        return tuple(level.cpu().expand(batch, *level.shape[-2:]).long() for level in levels)

    # Where it is kept.

    def save(self, path: str | Path) -> None:
        """Write `model.safetensors` and `config.json` into a directory, each replaced whole or not at all."""
        write_saved(resolve_path(path), self.state_dict(), self.settings)

    @staticmethod
    def load(path: str | Path, device: str | torch.device = "cpu") -> "Generator":
        """Load a generator, in eval mode.

        Args:
            path: a directory written by `save`, or the directory of a run that trained it.
            device: where to put it.

        Raises:
            FileNotFoundError: there is no generator in `path`.
            ValueError: the weights do not fit the configuration beside them; there is no such device.
        """
        device, given, path = usable_device(device), path, resolve_path(path)
        directory = path / "generator" if (path / "generator").is_dir() else path
        if not (directory / "model.safetensors").is_file() or not (directory / "config.json").is_file():
            raise FileNotFoundError(
                f"There is no generator in {path}: model.safetensors and config.json are expected there or in its generator/."
                f"{beside_caller(given)}"
            )
        settings, state = read_saved(directory, "generator")
        model = settings.pop("model", None)
        if not isinstance(model, str) or model not in GENERATORS:
            raise ValueError(
                f"The model of the generator in {directory} is {shown(model)}; {nearest(model, GENERATORS)}"
            )
        build = GENERATORS[model]
        try:
            with torch.device("meta"):  # shapes only: a file of unknown origin may describe more than there is memory
                check_weights(call_with_options("generator", build, settings).state_dict(), state, directory)
        except (RuntimeError, OverflowError, LookupError, TypeError) as error:  # sizes beyond what any tensor has
            raise ValueError(f"The generator in {directory} cannot be built: {first_line(error)}.") from error
        generator = call_with_options("generator", build, settings)
        generator.load_weights(state, source=directory)
        return generator.to(device).eval()

    def load_weights(self, state: dict[str, Tensor], source: object) -> None:
        """Take over a state dict whose names and shapes are this generator's own; ValueError where they are not."""
        check_weights(self.state_dict(), state, source)
        self.load_state_dict(state)

    def check_tokenizer(self, tokenizer: VisualTokenizer) -> None:
        """Raise ValueError unless it was trained on tokens of `tokenizer`: of its settings and its very weights."""
        if differences := differences_between(self.settings["tokenizer"] or {}, describe(tokenizer)):
            raise ValueError(
                f"The generator was trained on tokens of another tokenizer ({differences}): take the one that encoded them."
            )


class Autoregressive(Generator):
    """Predicts each token from those before it (GPT; of images LlamaGen, arXiv:2406.06525, section 3.2)."""

    MODEL, IDLE, causal = "autoregressive", frozenset({"num_steps", "noise"}), True

    def forward(self, places: Tensor, labels: Tensor | None = None) -> Tensor:
        return self.token_losses(places, labels).mean()

    def token_losses(self, places: Tensor, labels: Tensor | None = None) -> Tensor:
        """Return the cross entropy of each token, float32 [B, S, L], in nats; arguments as of `forward`."""
        classes = self.class_numbers(labels, len(places))
        state = self.transformer(classes, places[:, :-1])  # [B, S, dim]
        return cross_entropies(self.transformer.heads(state, places), places)

    def _steps(self, seeds: Sequence[int], classes: Tensor, held: Tensor, how: Sampling) -> Iterator[Tensor]:
        layout = self.layout
        uniform = uniform_numbers(seeds, (layout.num_places, len(layout.sizes)), self.device)
        places, cache = held.clone(), self.transformer.new_cache(len(classes))
        state = self.transformer(classes, None, cache)  # [B or 2B, 1, dim]
        for place in range(layout.num_places):
            here = slice(place, place + 1)
            tokens, _ = self._draw_place(state, uniform[:, here], held[:, here], how)
            places[:, here] = tokens
            yield places.clone()
            if place + 1 < layout.num_places:
                tokens = torch.cat([tokens, tokens]) if how.guided else tokens
                state = self.transformer(None, tokens, cache, first=place)


class Masked(Generator):
    """Predicts masked tokens from all others (MaskGIT, Chang et al. 2022, arXiv:2202.04200, section 3).

    A place is masked with all of its levels. Deviations: no label smoothing; the share of masked places is drawn from the same
    cosine schedule, but its loss is the mean over the masked tokens of the batch (over several processes the mean of theirs).
    """

    MODEL, causal = "masked", False

    def forward(self, places: Tensor, labels: Tensor | None = None) -> Tensor:
        batch, num_places, _ = places.shape
        shares = torch.cos(math.pi / 2 * torch.rand(batch, 1, device=places.device))  # gamma(r), section 3.1
        numbers = (shares * num_places).ceil().clamp(min=1)  # masked places of each image
        ranks = torch.rand(batch, num_places, device=places.device).argsort(1).argsort(1)
        masked = ranks < numbers  # [B, S]
        losses = self.token_losses(places, masked, labels)
        return (losses * masked.unsqueeze(2)).sum() / (masked.sum() * losses.shape[2])

    def token_losses(self, places: Tensor, masked: Tensor, labels: Tensor | None = None) -> Tensor:
        """Return the cross entropy of each token, float32 [B, S, L], in nats, where some places, bool [B, S], are masked."""
        classes = self.class_numbers(labels, len(places))
        state = self.transformer(classes, self.hidden(places, masked))[:, 1:]  # [B, S, dim]
        return cross_entropies(self.transformer.heads(state, places), places)

    def hidden(self, places: Tensor, masked: Tensor) -> Tensor:
        """Return places, int64 [B, S, L], with the mask's token, K_l, where they are masked, bool [B, S]."""
        return torch.where(masked.unsqueeze(2), self.mask_tokens, places)

    def _steps(self, seeds: Sequence[int], classes: Tensor, held: Tensor, how: Sampling) -> Iterator[Tensor]:
        num_steps, (num_places, num_levels) = how.num_steps, held.shape[1:]
        uniform = uniform_numbers(seeds, (num_steps, num_places, num_levels + 1), self.device)
        places = held.clone()
        masked = (held == UNKNOWN).any(2)  # [B, S]
        at_first = masked.sum(1, keepdim=True)
        for step in range(num_steps):
            done = (step + 1) / num_steps
            hidden = self.hidden(places, masked)
            state = self.transformer(classes, torch.cat([hidden, hidden]) if how.guided else hidden)[:, 1:]
            numbers = uniform[:, step]  # [B, S, L + 1]
            tokens, sure = self._draw_place(state, numbers[..., :num_levels], held, how)
            gumbel = -torch.log(-torch.log(numbers[..., num_levels].clamp(1e-7, 1 - 1e-7)))
            sure = (sure + how.noise * (1 - done) * gumbel).masked_fill(~masked, torch.inf)
            places = torch.where(masked.unsqueeze(2), tokens, places)
            left = (math.cos(math.pi / 2 * done) * at_first).floor() if step + 1 < num_steps else 0 * at_first
            masked = masked & (sure.argsort(1).argsort(1) < left)  # the least sure are drawn again
            yield places.masked_fill(masked.unsqueeze(2), UNKNOWN)


def cross_entropies(logits: Sequence[Tensor], places: Tensor) -> Tensor:
    """Return the cross entropy of each token, float32 [B, S, L], in nats, of logits [B, S, K_l] and places, int64 [B, S, L]."""
    of_levels = []
    for level, of_level in enumerate(logits):
        tokens = places[..., level]
        losses = F.cross_entropy(of_level.float().flatten(0, 1), tokens.flatten(), reduction="none")
        of_levels.append(losses.view_as(tokens))
    return torch.stack(of_levels, dim=-1)


def load_with_tokenizer(
    generator: str | Path, tokenizer: str | Path | None = None, device: str | torch.device = "cpu"
) -> tuple[Generator, VisualTokenizer]:
    """Load a generator and the tokenizer whose tokens it was trained on.

    Args:
        generator: a run that trained one, or a directory written by `Generator.save`.
        tokenizer: a run or anything else that `load_pretrained` takes; None: the run of the generator keeps it.
        device: where to put them.

    Raises:
        FileNotFoundError: one of them is not there.
        ValueError: the tokenizer is another than the generator's; or as of `load` of either.
    """
    loaded = Generator.load(generator, device)
    place = resolve_path(generator)
    if tokenizer is None and not (place / "tokenizer").is_dir():
        raise FileNotFoundError(f"{place} keeps no tokenizer: name the one whose tokens it knows, as tokenizer.")
    found = load_pretrained(place if tokenizer is None else tokenizer, device=device)
    loaded.check_tokenizer(found)
    return loaded, found


GENERATORS: dict[str, type[Generator]] = {kind.MODEL: kind for kind in (Autoregressive, Masked)}
