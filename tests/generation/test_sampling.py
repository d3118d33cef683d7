"""What tokens are drawn with: probabilities, and random numbers that are an image's own."""

import pytest
import torch

from vistok.generation.sampling import Sampling, draw, guide, probabilities, uniform_numbers

LOGITS = torch.randn(5, 40, generator=torch.Generator().manual_seed(0)) * 3


@pytest.mark.parametrize(
    "how",
    [
        {},
        {"top_k": 1},
        {"top_k": 7},
        {"top_p": 0.5},
        {"top_k": 9, "top_p": 0.8},
        {"temperature": 0.3},
        {"temperature": 0},
    ],
    ids=str,
)
def test_probabilities_sum_to_one(how: dict[str, float]) -> None:
    shares = probabilities(LOGITS, Sampling(**how))
    torch.testing.assert_close(shares.sum(-1), torch.ones(5, dtype=torch.float64), rtol=0, atol=1e-12)
    assert (shares >= 0).all()
    kept = shares > 0
    assert (kept.sum(-1) <= how.get("top_k", 40)).all()
    plain = (LOGITS.double() / (how.get("temperature", 1) or 1e-9)).softmax(-1)
    torch.testing.assert_close(shares, plain * kept / (plain * kept).sum(-1, keepdim=True), rtol=0, atol=1e-9)


def test_all_is_kept_without_top_k_and_top_p() -> None:
    torch.testing.assert_close(probabilities(LOGITS, Sampling()), LOGITS.double().softmax(-1))
    torch.testing.assert_close(probabilities(LOGITS, Sampling(top_k=40)), LOGITS.double().softmax(-1))


def test_top_p_keeps_the_fewest_that_are_so_likely() -> None:
    plain = LOGITS.double().softmax(-1)
    for share in (0.1, 0.5, 0.9, 0.999):
        for row, whole in zip(probabilities(LOGITS, Sampling(top_p=share)), plain, strict=True):
            kept = whole[row > 0].sort(descending=True).values
            assert kept.sum() >= share > kept[:-1].sum()
            assert whole[row == 0].max() <= kept.min()


def test_equal_logits_are_cut_to_k() -> None:
    assert int((probabilities(torch.zeros(1, 10), Sampling(top_k=3)) > 0).sum()) == 3


def test_tokens_are_drawn_as_often_as_they_are_likely() -> None:
    shares = probabilities(LOGITS, Sampling(top_k=12))
    numbers = (torch.arange(20_000) + 0.5) / 20_000
    for row in shares:
        counts = draw(row.expand(20_000, -1), numbers).bincount(minlength=40)
        assert (counts / 20_000 - row).abs().max() <= 1e-4
        assert counts[row == 0].sum() == 0
        ends = torch.tensor([0.0, 1 - 2**-24])  # the least and the greatest number
        first, last = draw(row.expand(2, -1), ends).tolist()
        assert [first, last] == [int((row > 0).nonzero()[0]), int((row > 0).nonzero()[-1])]


def test_numbers_are_those_of_the_seed() -> None:
    cpu = torch.device("cpu")
    together = uniform_numbers([3, 5, 3], (4, 2), cpu)
    assert torch.equal(together[0], together[2]) and not torch.equal(together[0], together[1])
    assert torch.equal(uniform_numbers([5], (4, 2), cpu)[0], together[1])


def test_guidance_goes_beyond_the_class() -> None:
    of_class, of_none = torch.randn(2, 3, 4, generator=torch.Generator().manual_seed(1))
    both = torch.cat([of_class, of_none])
    torch.testing.assert_close(guide(both, 1.0), of_class)
    torch.testing.assert_close(guide(both, 0.0), of_none)
    torch.testing.assert_close(guide(both, 3.0), of_class + 2 * (of_class - of_none))


@pytest.mark.parametrize(
    ("how", "sentence"),
    [
        ({"temperature": -1.0}, "temperature is -1.0, but must be at least 0."),
        ({"top_k": 0}, "top_k is 0, but must be at least 1."),
        ({"top_p": 0.0}, "top_p is 0.0, but must be in (0, 1]."),
        ({"top_p": 1.5}, "top_p is 1.5, but must be in (0, 1]."),
        ({"guidance": -0.5}, "guidance is -0.5, but must be in [0, 1,000,000]; 1 is none."),
        ({"guidance": 1e39}, "guidance is 1e+39, but must be in [0, 1,000,000]; 1 is none."),
        ({"num_steps": 0}, "num_steps is 0, but must be at least 1."),
    ],
)
def test_what_is_out_of_range(how: dict[str, float], sentence: str) -> None:
    with pytest.raises(ValueError) as error:
        Sampling(**how)
    assert str(error.value) == sentence


@pytest.mark.parametrize("temperature", [5e-324, 1e-300, 1e-30])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_at_a_temperature_next_to_0_it_is_the_likeliest(temperature: float, dtype: torch.dtype) -> None:
    logits = torch.tensor([[-3.0, 70.0, 5.0], [-900.0, -800.0, -801.0]], dtype=dtype)
    for top in ({}, {"top_k": 2}, {"top_p": 0.5}):
        shares = probabilities(logits, Sampling(temperature=temperature, **top))
        assert shares.tolist() == [[0, 1, 0], [0, 1, 0]]
