"""`Sampler`: what it draws is the generator's, kept where it is to be kept; stopped, refused, shown without a kernel."""

import json
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from helpers.generators import generator, pictures, toy_tokenizer
from torch import Tensor

from vistok.generation.generator import Generator
from vistok.generation.trace import trace
from vistok.images import to_float, to_uint8
from vistok.tokenizer import VisualTokenizer
from vistok.tokens.store import describe
from vistok.widgets import Sampler
from vistok.widgets.sampler import NOT_DRAWN

CLASSES = {"classes": ["dark", "light"], "class_dropout": 0.1}


@pytest.fixture(scope="module")
def tokenizer() -> VisualTokenizer:
    return toy_tokenizer()


@pytest.fixture(scope="module")
def by_class(tokenizer: VisualTokenizer) -> Generator:
    return generator(tokenizer=describe(tokenizer), **CLASSES)


@pytest.fixture
def sampler(by_class: Generator, tokenizer: VisualTokenizer) -> Sampler:
    return Sampler(by_class, tokenizer, picture=pictures(1, 40)[0])


def shown(sampler: Sampler) -> np.ndarray:
    """The tokens that the page has."""
    return np.frombuffer(sampler.token_values, "<u4").reshape(sampler.grid)


def drawn(sampler: Sampler, **how: Any) -> Tensor:
    sampler.sample(pace=0, **how)
    sampler.wait()
    assert (sampler.phase, sampler.message) == ("finished", "")
    return sampler.tokens


def test_what_it_draws_is_what_the_generator_samples(
    sampler: Sampler, by_class: Generator, tokenizer: VisualTokenizer
) -> None:
    assert torch.equal(sampler.tokens, by_class.sample([0], 0)), "it is never empty"
    how = {"temperature": 0.8, "top_k": 6, "top_p": 0.9, "guidance": 1.5}
    made = drawn(sampler, seed=9, label="light", **how)
    assert torch.equal(made, by_class.sample([9], 1, **how))
    assert (shown(sampler) == made[0].numpy()).all()
    assert torch.equal(sampler.image, to_uint8(tokenizer.decode(made))[0])
    found = trace(by_class, 9, 1, **how)
    np.testing.assert_allclose(np.frombuffer(sampler.entropy, "<f4"), found.entropy_bits, atol=1e-5)
    assert sampler.title == "seed 9, light, temperature 0.8, top-p 0.9, top-k 6, guidance 1.5"


def test_each_drawing_takes_the_next_seed_unless_it_is_to_stay(sampler: Sampler) -> None:
    first = drawn(sampler, seed=4)
    assert sampler.settings["seed"] == 5 and not torch.equal(drawn(sampler), first)
    assert torch.equal(drawn(sampler, seed=4, advance=False), first)
    assert torch.equal(drawn(sampler), first) and sampler.settings["seed"] == 4


def test_from_a_place_on_what_comes_before_it_is_kept(sampler: Sampler, by_class: Generator) -> None:
    before = drawn(sampler, seed=4)
    sampler.begin_at(6, seed=20)
    sampler.wait()
    known = by_class.layout.first(6)
    assert torch.equal(sampler.tokens, by_class.sample([20], 0, given=before, known=known))
    assert torch.equal(sampler.tokens[known], before[known]) and not torch.equal(sampler.tokens, before)
    assert sampler.title == "seed 20, dark, from place 6 on"


@pytest.mark.parametrize("kind", ["autoregressive", "masked"])
def test_of_a_region_all_around_it_is_kept(kind: str, tokenizer: VisualTokenizer) -> None:
    made = generator(kind, tokenizer=describe(tokenizer))
    sampler = Sampler(made, tokenizer)
    before = sampler.tokens
    sampler.draw_region(1, 1, 3, 4, seed=5, pace=0)
    sampler.wait()
    outside = torch.ones(1, 4, 4, dtype=torch.bool)
    outside[:, 1:3, 1:4] = False
    assert torch.equal(sampler.tokens, made.sample([5], given=before, known=outside))
    assert torch.equal(sampler.tokens[outside], before[outside]) and not torch.equal(sampler.tokens, before)
    assert bool(sampler.entropy) == (kind == "autoregressive"), "a masked one has no order"
    assert sampler.figure() is not None


def test_a_picture_is_shown_and_completed(sampler: Sampler, by_class: Generator, tokenizer: VisualTokenizer) -> None:
    sampler.show_picture()
    given = tokenizer.encode(to_float(sampler._picture.square(16)[None]))
    assert torch.equal(sampler.tokens, given) and sampler.title == "your picture, decoded from its tokens"
    sampler.begin_at(8, seed=3, pace=0)
    sampler.wait()
    known = by_class.layout.first(8)
    assert torch.equal(sampler.tokens, by_class.sample([3], 0, given=given, known=known))
    without = Sampler(by_class, tokenizer)
    without.show_picture()
    assert without.message.startswith("There is no picture to complete")


def test_tokens_come_one_after_the_other_and_a_stop_leaves_the_rest_empty(sampler: Sampler) -> None:
    seen: list[tuple[int, int]] = []
    sampler.observe(lambda change: seen.append((change.new[0], int((shown(sampler) == NOT_DRAWN).sum()))), "drawn_of")
    sampler.sample(pace=10)  # a second and a half
    assert sampler.phase == "drawing"
    end = time.monotonic() + 60
    while sampler.drawn_of[0] < 4 and time.monotonic() < end:
        time.sleep(0.01)
    assert threading.current_thread() is threading.main_thread() and sampler.phase == "drawing"
    sampler.stop()
    sampler.wait()
    number = sampler.drawn_of[0]
    assert sampler.phase == "stopped" and 4 <= number < 16
    assert (shown(sampler).ravel() == NOT_DRAWN).tolist() == [False] * number + [True] * (16 - number)
    assert (sampler.tokens.flatten()[number:] == -1).all()
    counts = [count for count, _ in seen]
    assert counts == sorted(counts) and len(counts) > 2
    unsure = np.frombuffer(sampler.entropy, "<f4")
    assert np.isfinite(unsure[: number + 1]).all() and np.isnan(unsure[number + 1 :]).all()
    assert f"{number} of 16 places are drawn" in sampler.description
    sampler.begin_at(0, pace=0)
    sampler.wait()
    assert sampler.phase == "finished" and (sampler.tokens >= 0).all()


def test_another_drawing_ends_the_one_under_way(sampler: Sampler, by_class: Generator) -> None:
    sampler.sample(pace=1)
    begun = time.monotonic()
    assert torch.equal(drawn(sampler, seed=8), by_class.sample([8], 0))
    assert time.monotonic() - begun < 10, "it would take 16 seconds"


def test_the_likeliest_codes_are_those_of_the_chosen_place(sampler: Sampler, by_class: Generator) -> None:
    drawn(sampler, seed=2)
    sampler.select(1, 2, 2, 3)
    codes, shares = trace(by_class, 2, 0).likeliest(6, 8)
    assert sampler.likely_codes == codes.tolist()
    assert sampler.likely_shares == pytest.approx(shares.tolist(), abs=1e-6)
    assert sampler.likely_tiles.startswith(b"\x89PNG")


@pytest.mark.parametrize(
    ("how", "sentence"),
    [
        ({"label": "drak"}, "There is no class 'drak'; did you mean 'dark'?"),
        ({"label": 2}, "labels holds 2, but a class must be at least 0 and at most 1."),
        ({"top_p": 0}, "top_p is 0.0, but must be in (0, 1]."),
        ({"temperature": "hot"}, "temperature is 'hot' (str), but must be of type float"),
        ({"top_k": 1.5}, "top_k is 1.5"),
        ({"seed": None}, "seed is None"),
        ({"pace": -1}, "pace is -1, but must be at least 0."),
        ({"num_steps": 3}, "num_steps is 3, but the autoregressive generator has no such thing"),
        ({"label": None, "guidance": 2.0}, "no class is given, so that there is nothing to guide"),
    ],
)
def test_what_cannot_be_is_a_sentence_and_changes_nothing(sampler: Sampler, how: dict[str, Any], sentence: str) -> None:
    before, settings = sampler.tokens, sampler.settings
    sampler.sample(**how)
    assert sentence in sampler.message
    assert sampler.settings == settings and sampler.phase == "finished" and torch.equal(sampler.tokens, before)
    sampler.begin_at(16)
    assert sampler.message == "There is no place 16: places are 0 to 15."
    sampler.draw_region(0, 0, 5, 1)
    assert sampler.message.startswith("There is no region of rows 0 to 5")
    for choose in (sampler.draw_region, sampler.select):
        with pytest.raises(TypeError, match=r"left is 0.5 \(float\), but must be of type int"):
            choose(0, 0.5, 1, 1)
    drawn(sampler)


def test_numbers_of_numpy_become_what_the_page_takes(sampler: Sampler) -> None:
    made = drawn(sampler, seed=np.int64(3), label=np.int64(1), temperature=np.float32(0.5), top_k=np.int32(4))
    settings = json.loads(json.dumps(sampler.settings))
    assert (settings["label"], settings["temperature"], settings["top_k"], settings["seed"]) == (1, 0.5, 4, 4)
    assert torch.equal(made, drawn(sampler, seed=3))


def test_the_page_asks_for_what_is_listed_and_is_answered(sampler: Sampler) -> None:
    sampler._asked(sampler, {"do": "sample", "seed": 3, "pace": 0, "top_k": None, "label": 1}, [])
    sampler.wait()
    assert sampler.title == "seed 3, light" and sampler.answered == 1
    sampler._asked(sampler, {"do": "wait"}, [])
    sampler._asked(sampler, {"do": "stop"}, [])
    assert sampler.answered == 3 and sampler.message == ""


@pytest.mark.parametrize("grid", ["sequence", "levels", "scales"])
def test_tokens_of_every_layout_are_drawn(grid: str, tokenizer: VisualTokenizer) -> None:
    """Their pictures are decoded by a tokenizer of the same tokens; here only what the view says of them is looked at."""
    made = generator(grid=grid)
    decoded = torch.zeros(1, 3, 16, 16, dtype=torch.uint8)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("vistok.widgets.sampler.decode_so_far", lambda *_: decoded)
        patch.setattr("vistok.widgets.sampler.decode_alone", lambda _, codes: [torch.zeros(len(codes), 3, 4, 4).byte()])
        patch.setattr(Generator, "check_tokenizer", lambda *_: None)
        sampler = Sampler(made, tokenizer)
        assert sampler.sequence == (made.layout.grid is None)
        assert sampler.grid == list(made.layout.grid or (1, made.layout.num_places))
        assert sampler.figure() is not None
        assert sampler.fields == ["temperature", "top_k", "top_p"], "there is no class to guide to"


def test_why_there_is_nothing_to_draw_is_said(tmp_path: Path, by_class: Generator, tokenizer: VisualTokenizer) -> None:
    by_class.save(tmp_path / "generator")
    for given, sentence in (
        ((tmp_path / "nowhere",), "There is no generator in"),
        ((tmp_path,), "keeps no tokenizer: name the one whose tokens it knows"),
        ((by_class,), "knows no tokenizer: give the one"),
        ((by_class, toy_tokenizer(seed=1)), "was trained on tokens of another tokenizer"),
    ):
        refused = Sampler(*given)
        assert sentence in refused.message and refused.figure() is None
        refused.sample()
        assert sentence in refused.message
    tokenizer.save(tmp_path / "tokenizer")
    assert Sampler(tmp_path, device="cpu").message == ""
