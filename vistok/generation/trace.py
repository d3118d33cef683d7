"""One image as it is drawn, token by token: what the picture is so far, and which codes could have come next, how likely.

An autoregressive generator gives each token a probability from those before it. One pass over the tokens of an image gives all
of these again, without a cache; that they are those it was drawn with is a test.
"""

import dataclasses
from typing import Any

import torch
from torch import Tensor

from vistok.generation.generator import UNKNOWN, Generator
from vistok.generation.layout import Layout
from vistok.generation.rate import check_orders
from vistok.generation.sampling import Sampling, guide, probabilities
from vistok.images import to_uint8
from vistok.system.devices import computing, eval_view
from vistok.tokenizer import VisualTokenizer
from vistok.tokens.codebook import middle_codes


@dataclasses.dataclass(frozen=True)
class Trace:
    """An image's tokens in the order in which they were drawn, and what each was drawn from.

    Attributes:
        layout: of the places.
        places: int64 [S, L], the tokens.
        shares: of each of the L tokens of a place, float64 [S, K_l]: how likely each code was after the tokens before it, with
            the temperature, top-k, top-p and guidance that it was drawn with.
    """

    layout: Layout
    places: Tensor
    shares: tuple[Tensor, ...]

    @property
    def entropy_bits(self) -> Tensor:
        """How unsure the generator was of each place, float64 [S]: the entropy of its tokens, in bits, 0 to sum of log2 K."""
        return sum(torch.special.entr(of_level).sum(1) for of_level in self.shares) / torch.log(torch.tensor(2.0))

    @property
    def surprise_bits(self) -> Tensor:
        """How unlikely what was drawn was, float64 [S]: -log2 of the probability of each place's tokens."""
        drawn = [of.gather(1, self.places[:, level, None]) for level, of in enumerate(self.shares)]
        return -torch.cat(drawn, dim=1).log2().sum(1)

    def so_far(self, number: int) -> Tensor:
        """Return the places once the first `number` are drawn, int64 [1, S, L], UNKNOWN where a token is not."""
        places = self.places.clone()
        places[number:] = UNKNOWN
        return places[None]

    def likeliest(self, place: int, number: int, level: int = 0) -> tuple[Tensor, Tensor]:
        """Return the codes that were likeliest at a place, likeliest first, int64 [n], and how likely, float64 [n]."""
        shares, codes = self.shares[level][place].topk(min(number, self.shares[level].shape[1]))
        return codes, shares


@torch.no_grad()
def trace(generator: Generator, seed: int, label: int | None = None, **how: Any) -> Trace:
    """Draw an image and say what each of its tokens was drawn from.

    Args:
        generator: an autoregressive one.
        seed: of the image.
        label: its class, in [0, C); None: none.
        **how: fields of `Sampling`.

    Raises:
        ValueError: the generator is masked, or as of `Generator.sample`.
    """
    check_orders(generator)
    levels = generator.sample([seed], label, **how)
    places = generator.layout.from_levels(levels if isinstance(levels, tuple) else (levels,))
    sampling = generator.sampling(label is not None, **how)
    return trace_of(generator, places[0], generator.label_numbers(label, 1), sampling)


@torch.no_grad()
def trace_of(generator: Generator, places: Tensor, label: Tensor | None, how: Sampling) -> Trace:
    """Say what each token of an image is drawn from after those before it.

    Args:
        generator: an autoregressive one.
        places: int64 [S, L], as `layout` has them; UNKNOWN where a token is not drawn yet: what comes after the first such
            place means nothing.
        label: int64 [1], the class; None: none.
        how: how tokens are drawn.

    Raises:
        ValueError: the generator is masked.
    """
    check_orders(generator)
    view = eval_view(generator)
    batch = places[None].to(view.device).clamp(min=0)  # [1, S, L]
    classes = view.class_numbers(label, 1)
    if how.guided:
        classes, batch = torch.cat([classes, view.class_numbers(None, 1)]), torch.cat([batch, batch])
    with computing(view.device, exact=True):
        state = view.transformer(classes, batch[:, :-1])  # [1 or 2, S, dim]
        logits = view.transformer.heads(state, batch)
    logits = [guide(of_level, how.guidance) if how.guided else of_level for of_level in logits]
    shares = tuple(probabilities(of_level[0], how).cpu() for of_level in logits)  # [S, K_l]
    return Trace(generator.layout, places.cpu(), shares)


@torch.no_grad()
def decode_so_far(tokenizer: VisualTokenizer, layout: Layout, places: Tensor) -> Tensor:
    """Decode images of which some tokens are not drawn yet.

    In place of these stands the code nearest to the mean of its codebook. Its patches are no part of the picture, and
    whoever shows it leaves them empty; the decoder sees them at the edges of what is drawn, though.

    Args:
        tokenizer: of the tokens.
        layout: of the places.
        places: int64 [B, S, L], UNKNOWN where a token is not drawn.

    Returns:
        uint8 [B, 3, H, W], on the CPU.
    """
    device = next(tokenizer.parameters()).device
    levels = layout.to_indices(places)
    levels = levels if isinstance(levels, tuple) else (levels,)
    filled = tuple(
        level.masked_fill(level == UNKNOWN, code).to(device)
        for level, code in zip(levels, middle_codes(tokenizer), strict=True)
    )
    with computing(device, exact=True):
        return to_uint8(tokenizer.decode(filled)).cpu()
