"""An image drawn step by step, as a figure: what is not drawn is empty, and the bars are the probabilities."""

import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch
from helpers.generators import generator, toy_tokenizer
from matplotlib.figure import Figure

from vistok.generation.trace import decode_so_far, trace
from vistok.images import to_uint8
from vistok.plots.generation import EMPTY, completions, draw_bits, draw_so_far, drawn_step_by_step, on_plane
from vistok.tokens.store import describe


@pytest.fixture
def drawn() -> Figure:
    tokenizer = toy_tokenizer()
    found = trace(generator(tokenizer=describe(tokenizer)), 3)
    figure = drawn_step_by_step(tokenizer, found, steps=[0, 6, 16], chosen=6)
    figure.found, figure.decoded = found, decode_so_far(tokenizer, found.layout, found.so_far(6))[0]
    yield figure
    plt.close(figure)


def test_the_picture_is_empty_where_nothing_is_drawn(drawn: Figure) -> None:
    titles = {axis.get_title(): axis for axis in drawn.findobj(plt.Axes)}
    pictures = [titles[f"{step} of 16 tokens"].images[0].get_array() for step in (0, 6, 16)]
    assert [int((picture[..., 3] > 0).sum()) for picture in pictures] == [0, 6 * 16, 16 * 16]
    shown = pictures[1][..., 3] > 0
    assert shown[:4].all() and shown[4:8, :8].all() and not shown[4:8, 8:].any()
    np.testing.assert_array_equal(pictures[1][..., :3][shown], drawn.decoded.permute(1, 2, 0).numpy()[shown])


def test_the_bars_are_the_likeliest_codes_and_the_maps_their_entropy_and_surprise(drawn: Figure) -> None:
    found = drawn.found
    titles = {axis.get_title(): axis for axis in drawn.findobj(plt.Axes)}
    bars = titles["codes of token 6, likeliest first"]
    codes = [int(label.get_text()) for label in bars.get_yticklabels()]
    expected, _ = found.likeliest(6, 8)
    assert codes[:8] == expected.tolist() and int(found.places[6, 0]) in codes
    widths = [bar.get_width() for bar in bars.patches]
    np.testing.assert_allclose(widths, found.shares[0][6, codes])
    for name, values in (
        ("entropy of the next token, bits", found.entropy_bits),
        ("surprise of what was drawn, bits", found.surprise_bits),
    ):
        np.testing.assert_allclose(titles[name].images[0].get_array(), values.view(4, 4))


def test_a_completion_stands_below_what_was_given() -> None:
    tokenizer = toy_tokenizer()
    made = generator(tokenizer=describe(tokenizer))
    given = made.sample([7])
    drawn = made.sample(range(3), given=given, known=made.layout.first(8))
    photograph = torch.full((3, 16, 16), 9, dtype=torch.uint8)
    figure = completions(tokenizer, photograph, given, {"as none": drawn})
    shown = {axis.get_title(): axis.images[0].get_array() for axis in figure.axes if axis.images}
    decoded = to_uint8(tokenizer.decode(given))[0].permute(1, 2, 0).numpy()
    np.testing.assert_array_equal(shown["its upper half, decoded"][:8], decoded[:8])
    assert (shown["its upper half, decoded"][8:] == EMPTY).all() and (shown["photograph"] == 9).all()
    last = to_uint8(tokenizer.decode(drawn))[2].permute(1, 2, 0).numpy()  # of three with one title
    np.testing.assert_array_equal(shown["as none"], last)
    plt.close(figure)


def test_a_sequence_is_shown_in_lines_and_its_picture_whole() -> None:
    lines = on_plane(generator(grid="sequence").layout, np.arange(12.0))
    assert lines.shape == (3, 4) and (lines[1] == [4, 5, 6, 7]).all()
    assert (
        np.isnan(on_plane(generator(grid="scales").layout, np.arange(14.0)).ravel()).tolist()
        == [False] * 14 + [True] * 2
    )
    figure, (above, below) = plt.subplots(1, 2)
    draw_so_far(above, torch.zeros(3, 8, 8, dtype=torch.uint8))
    assert above.images[0].get_array().shape == (8, 8, 3)
    draw_bits(below, np.full((2, 3), np.nan), 4.0)
    assert np.ma.getmaskarray(below.images[0].get_array()).all()
    plt.close(figure)


@pytest.mark.parametrize(
    ("steps", "chosen", "sentence"),
    [
        ([3, 17], 0, "steps holds 17, but must be at least 0 and at most 16"),
        ([3], 16, "chosen is 16, but must be at least 0 and at most 15"),
    ],
)
def test_a_step_that_is_not_there_is_refused(steps: list[int], chosen: int, sentence: str) -> None:
    tokenizer = toy_tokenizer()
    with pytest.raises(ValueError, match=sentence):
        drawn_step_by_step(tokenizer, trace(generator(), 3), steps, chosen)
