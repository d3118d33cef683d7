"""What each token was drawn from: the very probabilities, without a cache; pictures of which some tokens are missing."""

import math

import pytest
import torch
from helpers.generators import GRIDS, generator, toy_tokenizer

from vistok.generation.generator import UNKNOWN
from vistok.generation.sampling import draw, uniform_numbers
from vistok.generation.trace import decode_so_far, trace
from vistok.images import to_uint8

CLASSES = {"classes": ["dark", "light"], "class_dropout": 0.1}
HOWS = [{}, {"temperature": 0.7, "top_k": 5}, {"top_p": 0.8}, {"guidance": 2.0}, {"temperature": 0.0}]


@pytest.mark.parametrize("how", HOWS, ids=str)
@pytest.mark.parametrize("grid", GRIDS)
def test_the_tokens_are_those_that_its_probabilities_draw(grid: str, how: dict[str, float]) -> None:
    made = generator(grid=grid, **CLASSES)
    found = trace(made, 7, 1, **how)
    drawn = made.sample([7], 1, **how)
    assert torch.equal(found.places[None], made.layout.from_levels(drawn if isinstance(drawn, tuple) else (drawn,)))
    numbers = uniform_numbers([7], found.places.shape, torch.device("cpu"))[0]
    for level, (shares, size) in enumerate(zip(found.shares, made.layout.sizes, strict=True)):
        assert shares.shape == (made.layout.num_places, size)
        assert (shares.sum(1) - 1).abs().max() < 1e-12
        assert torch.equal(draw(shares, numbers[:, level]), found.places[:, level])


def test_surprise_adds_up_to_the_likelihood_and_entropy_is_of_what_was_possible() -> None:
    made = generator(grid="levels")
    found = trace(made, 3)
    losses = made.token_losses(found.places[None]).detach().double().sum() / math.log(2)
    assert float(found.surprise_bits.sum()) == pytest.approx(float(losses), rel=1e-5)
    assert (found.entropy_bits > 0).all() and (found.entropy_bits < math.log2(16 * 8 * 4)).all()
    sure = trace(made, 3, temperature=0.0)
    assert sure.entropy_bits.abs().max() == 0 == sure.surprise_bits.abs().max()


def test_the_likeliest_come_first_and_what_is_not_drawn_yet_is_unknown() -> None:
    found = trace(generator(), 0)
    codes, shares = found.likeliest(5, 3)
    assert torch.equal(shares, found.shares[0][5].sort(descending=True).values[:3])
    assert torch.equal(found.shares[0][5][codes], shares)
    assert len(found.likeliest(5, 100)[0]) == 16
    some = found.so_far(6)
    assert torch.equal(some[0, :6], found.places[:6]) and (some[0, 6:] == UNKNOWN).all()
    assert (found.places >= 0).all(), "it is left as it is"


def test_a_class_that_is_not_there_and_a_masked_generator_are_refused() -> None:
    with pytest.raises(ValueError, match="labels holds 2, but a class must be at least 0 and at most 1"):
        trace(generator(**CLASSES), 0, 2)
    with pytest.raises(ValueError, match="take an autoregressive one"):
        trace(generator("masked"), 0)


def test_a_picture_so_far_is_decoded_with_codes_from_the_middle_in_the_rest() -> None:
    tokenizer, found = toy_tokenizer(), trace(generator(), 0)
    book = tokenizer.quantizer.codebook
    middle = int((book - book.mean(0)).square().sum(1).argmin())
    places = torch.cat([found.so_far(6), found.so_far(16)])
    filled = torch.where(places == UNKNOWN, middle, places).view(2, 4, 4)
    made = decode_so_far(tokenizer, found.layout, places)
    assert made.dtype == torch.uint8 and made.shape == (2, 3, 16, 16)
    assert torch.equal(made, to_uint8(tokenizer.decode(filled)))
    assert not torch.equal(made[0], made[1])
