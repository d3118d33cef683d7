"""Tokens as bytes and back: an entropy coder under the probabilities of a generator.

The range coder is that of `constriction` (Bamler 2022, arXiv:2201.01741). It needs the same table of probabilities, to the
last bit, where a token is written and where it is read, while sums of floating-point numbers round as the processor and the
number of threads have it. So both sides compute alike: token by token, with the same shapes, on one thread of the CPU in
float64, and a logit is rounded to a thousandth before it becomes a whole number of 22 bits. Another processor's sums differ in
the fifteenth digit, which changes a rounded logit once in about 10^11. What cannot be promised is that it never does: whoever
keeps such bytes keeps a checksum of the tokens beside them.
"""

import copy
import zlib
from collections.abc import Callable

import constriction
import numpy as np
import torch
from torch import Tensor

from vistok.generation.generator import Generator
from vistok.generation.rate import check_orders
from vistok.system.progress import progress_bar
from vistok.system.threads import on_one_thread

AT_ONCE = 64  # images whose tokens are coded in turns; part of the format
LOGIT_STEPS = 1024  # in 1 nat: logits are rounded to them; part of the format
WEIGHT_BITS = 22  # of the likeliest token's weight; part of the format
PATIENCE_SECONDS = 2  # a reader waits so long without a bar: a photograph may take minutes
_MODEL = constriction.stream.model.Categorical(perfect=False)
Coder = Callable[[slice, int, int, np.ndarray], np.ndarray]  # images, place, level, weights [b, K], K > 1 -> tokens [b]


def encode_tokens(generator: Generator, places: Tensor, labels: Tensor | None = None) -> bytes:
    """Return tokens as bytes, as many as the generator's cross entropy says, and up to eight.

    Args:
        generator: an autoregressive one.
        places: int64 [B, S, L], as its layout has them.
        labels: int64 [B], the classes; None: none.

    Raises:
        ValueError: the generator is masked.
    """
    coder = constriction.stream.queue.RangeEncoder()
    symbols = places.cpu().numpy().astype(np.int32)

    def write(images: slice, place: int, level: int, weights: np.ndarray) -> np.ndarray:
        chosen = np.ascontiguousarray(symbols[images, place, level])
        coder.encode(chosen, _MODEL, weights)
        return chosen

    _code(generator, len(places), labels, write)
    return coder.get_compressed().astype("<u4").tobytes()


def decode_tokens(generator: Generator, data: bytes, batch: int, labels: Tensor | None = None) -> Tensor | None:
    """Return the tokens, int64 [B, S, L], that `encode_tokens` wrote, of `batch` images of these classes.

    Of bytes that it did not write, or with other tables, they are any tokens, or None.
    """
    if len(data) % 4:
        return None
    coder = constriction.stream.queue.RangeDecoder(np.frombuffer(data, "<u4").astype(np.uint32))
    layout = generator.layout
    places = torch.zeros(batch, layout.num_places, len(layout.sizes), dtype=torch.int64)

    def read(images: slice, place: int, level: int, weights: np.ndarray) -> np.ndarray:
        chosen = coder.decode(_MODEL, weights)
        places[images, place, level] = torch.from_numpy(chosen.astype(np.int64))
        return chosen

    try:
        _code(generator, batch, labels, read)
    except AssertionError:  # what constriction says of bytes that were not written with these tables
        return None
    return places


def checksum(places: Tensor) -> int:
    """Return the CRC-32 of tokens, int64 [B, S, L]."""
    return zlib.crc32(places.cpu().contiguous().numpy().astype("<i8").tobytes())


def weights_of(logits: Tensor) -> np.ndarray:
    """Return the probabilities of tokens as whole numbers, float64 [B, K], given their logits, float64 [B, K]."""
    below = logits - logits.amax(dim=-1, keepdim=True)
    nats = torch.round(below * LOGIT_STEPS) / LOGIT_STEPS
    return (torch.floor(nats.exp() * 2**WEIGHT_BITS) + 1).numpy()


def _code(generator: Generator, batch: int, labels: Tensor | None, code: Coder) -> None:
    """Give `code` the table of every token in turn, so that it writes or reads it."""
    check_orders(generator)
    model = copy.deepcopy(generator).cpu().double().eval()
    bar = progress_bar(total=batch, desc="coding", unit=" images", delay=PATIENCE_SECONDS, leave=False)
    with bar:
        for first in range(0, batch, AT_ONCE):
            images = slice(first, min(first + AT_ONCE, batch))
            on_one_thread(lambda images=images: _code_some(model, images, labels, code))
            bar.update(images.stop - first)


@torch.no_grad()
def _code_some(model: Generator, images: slice, labels: Tensor | None, code: Coder) -> None:
    """Do what `_code` does, for some images together."""
    transformer, heads, number = model.transformer, model.transformer.heads, images.stop - images.start
    classes = model.class_numbers(None if labels is None else labels[images].cpu(), number)
    cache = transformer.new_cache(number)
    state = transformer(classes, None, cache)[:, 0]  # [b, dim]
    for place in range(model.layout.num_places):
        tokens = []
        for level, output in enumerate(heads.outputs):
            chosen = np.zeros(number, np.int32)
            if model.layout.sizes[level] > 1:  # else there is nothing to be said, and constriction has no table
                chosen = code(images, place, level, weights_of(output(state)))
            tokens.append(torch.from_numpy(chosen.astype(np.int64)))
            if level + 1 < len(heads.outputs):
                state = heads.next_state(state, level, tokens[-1])
        here = torch.stack(tokens, dim=-1)[:, None]  # [b, 1, L]
        if place + 1 < model.layout.num_places:
            state = transformer(None, here, cache, first=place)[:, 0]
