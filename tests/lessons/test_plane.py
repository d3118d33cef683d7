"""How quantizers divide the plane, and the widget that shows it.

(`tests/browser/test_plane_js.py` has what its script draws.)
"""

import base64
import io

import numpy as np
import pytest
import torch
from PIL import Image

from vistok import plots
from vistok.lessons import plane
from vistok.widgets import PlaneExplorer


def test_points_lie_where_the_text_says() -> None:
    points = plane.points()
    assert points.shape == (plane.NUM_POINTS, 2) and points.abs().max() < plane.EXTENT
    ring, blob = points[: 3 * len(points) // 4], points[3 * len(points) // 4 :]
    assert (ring.norm(dim=1) - 1.6).abs().max() < 0.7 and (blob - torch.tensor([0.5, 0.4])).norm(dim=1).max() < 1.2


@pytest.mark.parametrize("method", plane.METHODS)
def test_a_region_is_the_code_of_its_places(method: str) -> None:
    before, after = plane.learn(method, steps=(0, 20), resolution=24)
    for partition in (before, after):
        assert partition.labels.shape == (24, 24) and partition.codes.shape[1] == 2
        assert partition.labels.min() >= 0 and partition.labels.max() < len(partition.codes)
        assert partition.counts.sum() == plane.NUM_POINTS and 0 < partition.num_used <= len(partition.codes)
    learns = method not in ("fsq", "lfq", "bsq")
    assert (after.error < before.error) == learns and torch.equal(after.codes, before.codes) != learns


def test_regions_of_a_plain_codebook_are_voronoi_cells_with_the_first_row_at_the_top() -> None:
    (partition,) = plane.learn("vq, k-means", steps=(5,), resolution=40)
    axis = torch.linspace(-plane.EXTENT, plane.EXTENT, 40)
    for row, column in ((0, 0), (3, 31), (20, 7), (39, 39)):
        place = torch.stack([axis[column], axis[39 - row]])
        assert partition.labels[row, column] == (partition.codes - place).norm(dim=1).argmin()
    nearest = torch.cdist(plane.points(), partition.codes).argmin(1)
    assert torch.equal(partition.counts, torch.bincount(nearest, minlength=16))


def test_several_codebooks_are_one_with_the_sum_of_their_codes() -> None:
    (partition,) = plane.learn("residual", steps=(5,), resolution=8)
    codes = partition.codes.view(4, 4, 2)  # first level, second level
    between = codes[:, 1:] - codes[:, :1]  # of the second level alone
    assert torch.allclose(between, between[:1].expand_as(between), atol=1e-6)


def test_a_collapse_and_its_remedies_show() -> None:
    step = plane.STEPS.index(30)
    used = {method: plane.learn(method)[step].num_used for method in ("vq", "vq, k-means", "vq, revival")}
    assert used["vq"] < 12 and used["vq, k-means"] == used["vq, revival"] == 16


def test_learning_leaves_the_random_state_alone() -> None:
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    plane.learn("ema", steps=(2,), resolution=4)
    assert torch.equal(torch.rand(3), expected)


def test_an_unknown_method_is_refused_with_the_nearest() -> None:
    with pytest.raises(ValueError, match="did you mean 'vq, entropy'"):
        plane.learn("vq entropy")


def test_a_step_that_was_not_kept_is_refused_with_the_nearest() -> None:
    with pytest.raises(ValueError, match="step is 23, but that was not kept; the nearest that was: 22"):
        plane.learn("vq", steps=(23,))


@pytest.mark.parametrize("method", plane.METHODS)
def test_a_rule_holds_the_codes_of_every_frame(method: str) -> None:
    rule = plane.rule(method)
    assert len(rule.books) == len(plane.FRAMES) and set(plane.STEPS) <= set(plane.FRAMES)
    partition = plane.learn(method, steps=(30,))[0]
    book = rule.books[plane.FRAMES.index(30)]
    if rule.kind == "residual":
        first, second = book.view(2, 4, 2)
        codes = (first[:, None] + second[None]).flatten(0, 1)
    elif rule.kind == "grouped":
        codes = torch.cartesian_prod(*book.view(2, 4))
    else:
        codes = book.view(-1, 2)
    assert torch.allclose(codes, partition.codes, atol=1e-6)


def test_borders_of_a_grid_are_where_its_codes_change() -> None:
    assert plane.rule("lfq").borders == plane.rule("bsq").borders == ((pytest.approx(0, abs=1e-4),),) * 2
    first, second = plane.rule("fsq").borders
    assert first == pytest.approx(second) and len(first) == 3


def test_the_explorer_shows_what_is_chosen_and_says_it() -> None:
    explorer = PlaneExplorer("ema", step=3)
    assert repr(explorer) == f"PlaneExplorer('ema', {plane.learn('ema')[2]})"
    explorer.step = 300
    assert repr(explorer) == f"PlaneExplorer('ema', {plane.learn('ema')[-1]})"
    explorer.method = "lfq"
    assert (
        "lfq" in explorer.rules
        and "How lfq divides the plane: after step 300 of learning 3 of 4" in explorer.description
    )
    assert explorer.rules["lfq"]["kind"] == "grid" and len(explorer.points) == 4 * 2 * plane.NUM_POINTS


def test_without_a_kernel_the_explorer_is_a_picture_and_a_sentence() -> None:
    explorer = PlaneExplorer("fsq")
    bundle, metadata = explorer._repr_mimebundle_()
    picture = np.asarray(Image.open(io.BytesIO(base64.b64decode(bundle["image/png"]))).convert("RGB"))
    assert len(np.unique(picture.reshape(-1, 3), axis=0)) > 16 and bundle["text/plain"] == repr(explorer)
    assert metadata["image/png"]["alt"] == explorer.description


def test_the_explorer_refuses_what_there_is_not() -> None:
    with pytest.raises(ValueError, match="There is no method 'vqq'; did you mean 'vq'"):
        PlaneExplorer("vqq")
    with pytest.raises(ValueError, match="step is 299, but that was not kept; the nearest that was: 300"):
        PlaneExplorer(step=299)
    explorer = PlaneExplorer("fsq", step=3)
    explorer.method = "vqq"
    assert explorer.method == "fsq" and explorer.message.startswith("There is no method 'vqq'")
    explorer.step = 23
    assert explorer.step == 3 and explorer.message == "step is 23, but that was not kept; the nearest that was: 22."
    explorer.step = 22
    assert explorer.message == ""


def test_dead_codes_are_crosses() -> None:
    """A mark of another shape, for who does not see the colour."""
    figure = plots.partitions({"ema": plane.learn("ema")[-1]}, plane.points())
    points, dead, used = figure.axes[0].collections
    partition = plane.learn("ema")[-1]
    assert len(points.get_offsets()) == plane.NUM_POINTS
    assert len(used.get_offsets()) == partition.num_used
    assert len(dead.get_offsets()) == len(partition.codes) - partition.num_used > 0
    assert len(dead.get_paths()[0].vertices) != len(used.get_paths()[0].vertices)
