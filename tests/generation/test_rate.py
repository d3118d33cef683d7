"""Bits of images: against probabilities multiplied step by step, and the plain ones of a generator that knows nothing."""

import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers.generators import class_images, generator, toy_tokenizer, toy_tokens

from vistok.generation.generator import Generator
from vistok.generation.rate import measure_rate
from vistok.tokens import TokenFile


@pytest.fixture(scope="module")
def tokens(tmp_path_factory: pytest.TempPathFactory) -> TokenFile:
    """32 images of two classes."""
    folder = tmp_path_factory.mktemp("tokens")
    return toy_tokens(toy_tokenizer(), class_images(folder / "images"), folder / "tokens")


def of(tokens: TokenFile, **options: object) -> Generator:
    header = json.loads(json.dumps(tokens.header))
    return generator(**({name: header[name] for name in ("codebook_sizes", "level_shapes", "tokenizer")} | options))


def test_a_generator_that_knows_nothing_takes_the_nominal_bits(tokens: TokenFile) -> None:
    made = of(tokens)
    torch.nn.init.zeros_(made.transformer.heads.outputs[0].weight)
    rate = measure_rate(made, tokens)
    assert rate.nominal_bits == 16 * 4 and rate.num_tokens == 16 and rate.num_pixels == 256
    torch.testing.assert_close(rate.bits, torch.full((32,), 64.0, dtype=torch.float64), rtol=1e-6, atol=0)
    assert rate.bits_per_pixel == pytest.approx(0.25) and rate.bits_per_token == pytest.approx(4)


@pytest.mark.parametrize("by_class", [False, True])
def test_bits_are_those_of_the_tokens_one_after_the_other(tokens: TokenFile, by_class: bool) -> None:
    made = of(tokens, classes=tokens.classes if by_class else None)
    rate = measure_rate(made, tokens, batch_size=5)
    assert len(rate.bits) == 32 and rate.bits.std() > 1
    for image in (0, 31):
        label, likely, row = int(tokens.labels[image]) if by_class else 0, 0.0, tokens[image].flatten()
        for place, token in enumerate(row):
            before = row[:place].view(1, -1, 1) if place else None
            state = made.transformer(torch.tensor([label]), before)[:, -1].detach()
            likely += float((state @ made.transformer.heads.outputs[0].weight.T).log_softmax(-1)[0, token].detach())
        assert float(rate.bits[image]) == pytest.approx(-likely / math.log(2), rel=1e-5)


def test_what_has_no_rate(tokens: TokenFile, tmp_path: Path) -> None:
    header = tokens.header
    masked = generator("masked", **{n: header[n] for n in ("codebook_sizes", "level_shapes", "tokenizer")})
    with pytest.raises(ValueError, match="The generator is masked: it has no order of tokens"):
        measure_rate(masked, tokens)
    with pytest.raises(ValueError, match="have another tokenizer than those this generator was trained on"):
        measure_rate(of(tokens, tokenizer={"settings": {}, "weights_sha256": "00"}), tokens)
    with pytest.raises(
        ValueError, match=r"have the classes \['dark', 'light'\], but this generator was trained on \['a'\]"
    ):
        measure_rate(of(tokens, classes=["a"]), tokens)
    beyond = TokenFile(tokens.path, header, np.where(np.arange(32)[:, None, None] == 30, 16, tokens.tokens))
    with pytest.raises(ValueError, match="is damaged: it holds the code 16"):
        measure_rate(of(tokens), beyond)
    with pytest.raises(FileNotFoundError, match="There are no tokens in"):
        measure_rate(of(tokens), tmp_path / "none")
