"""The codebook as points of a plane, and the choice that all views of the same images share."""

import sys
import types
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch
from matplotlib import pyplot as plt

from vistok import VisualTokenizer
from vistok.runs import COLLAPSED_RUN, EXAMPLE_RUN
from vistok.tokens.codebook import decode_alone, principal_components, project, usual_projection
from vistok.tokens.encoded import Choice, Chosen, EncodedImages
from vistok.widgets import CodebookExplorer, CodebookSpace, PlaceExplorer, Refusal, TokenEditor, show_maps


@pytest.fixture(scope="module")
def opened() -> EncodedImages:
    return EncodedImages.open(EXAMPLE_RUN, "scenes", max_images=512, device="cpu", progress=False)


@pytest.fixture
def encoded(opened: EncodedImages) -> EncodedImages:
    """Images of which nothing is chosen yet."""
    opened.choice = Choice(opened.codebook_sizes)
    return opened


def two_levels() -> EncodedImages:
    torch.manual_seed(0)
    options = {"num_levels": 2, "codebook_size": 16, "codebook_dim": 4}
    model = VisualTokenizer(
        quantizer="residual", quantizer_options=options, network_options={"hidden_dim": 8}, image_size=16
    )
    with torch.no_grad():
        for weight in model.quantizer.parameters():
            weight.mul_(100)  # at first all codes are near zero
    images = torch.randint(0, 256, (4, 3, 16, 16), dtype=torch.uint8)
    return EncodedImages.open(model, images, progress=False)


def of_dimension(dim: int, size: int = 32) -> EncodedImages:
    torch.manual_seed(0)
    options = {"codebook_size": size, "codebook_dim": dim}
    model = VisualTokenizer(quantizer_options=options, network_options={"hidden_dim": 8}, image_size=16)
    return EncodedImages.open(model, torch.randint(0, 256, (2, 3, 16, 16), dtype=torch.uint8), progress=False)


# The plane.


def test_components_are_those_of_a_singular_value_decomposition() -> None:
    codes = torch.randn(200, 6, generator=torch.Generator().manual_seed(0)) * torch.tensor([1.0, 5, 1, 3, 1, 1]) + 7
    points, shares = principal_components(codes)
    centred = codes.double() - codes.double().mean(0)
    values = torch.linalg.svdvals(centred)
    assert torch.allclose(points.square().sum(0).sqrt(), values[:2])
    assert torch.allclose(shares, values[:2].square() / values.square().sum())
    assert torch.allclose((points.T @ points)[0, 1], torch.tensor(0.0, dtype=torch.float64), atol=1e-6)


def test_components_of_tokens_are_those_of_every_token_written_out() -> None:
    generator = torch.Generator().manual_seed(0)
    codes, counts = torch.randn(30, 5, generator=generator), torch.randint(0, 9, (30,), generator=generator)
    points, shares = principal_components(codes, counts)
    written, expected = principal_components(codes.repeat_interleave(counts, dim=0))
    assert torch.allclose(points.repeat_interleave(counts, dim=0), written) and torch.allclose(shares, expected)


def test_codes_of_a_grid_are_laid_out_by_their_tokens() -> None:
    grid = torch.cartesian_prod(*[torch.tensor([-1.0, 1.0])] * 10)  # LFQ of 1,024 codes
    counts = (100 * (grid @ torch.arange(10.0)).sigmoid()).long()
    assert len(project(grid, counts, "codes").points.unique(dim=0)) < 100
    assert usual_projection(grid, counts) == "tokens"
    points = project(grid, counts, "tokens").points
    assert len((points * 1e4).round().unique(dim=0)) > 900
    assert usual_projection(torch.randn(100, 4), torch.ones(100, dtype=torch.int64)) == "codes"
    for counts in (torch.zeros(1024), torch.eye(1024)[7]):  # no tokens, or those of one code alone: nothing better
        assert usual_projection(grid, counts.long()) == "codes"


@pytest.mark.parametrize("dim", [1, 2])
def test_codebooks_of_few_dimensions(dim: int) -> None:
    space = CodebookSpace(of_dimension(dim))
    points = space._projected.points
    assert points.shape == (32, 2) and points.isfinite().all() and len(points.unique(dim=0)) == 32
    assert space.axes[1] == "index of the code" if dim == 1 else "second component" in space.axes[1]
    assert space.figure() is not None


class FakeMethod:
    """In place of another package's method: what it was given, and points that say which row they are of."""

    def __init__(self, **options: Any) -> None:
        self.options = options

    def fit_transform(self, codes: np.ndarray) -> np.ndarray:
        return np.stack([np.arange(len(codes)), np.zeros(len(codes))], axis=1)


@pytest.fixture
def with_umap(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    module = types.ModuleType("umap")
    module.UMAP, module.__spec__ = FakeMethod, types.SimpleNamespace(name="umap")
    monkeypatch.setitem(sys.modules, "umap", module)
    yield


def test_umap_leaves_the_rarest_codes_out_and_says_so(with_umap: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("vistok.tokens.codebook.MOST_EMBEDDED", 4)
    counts = torch.tensor([0, 5, 1, 9, 7, 0])
    found = project(torch.randn(6, 3), counts, "umap")
    assert found.points[[3, 4, 1, 2], 0].tolist() == [0, 1, 2, 3] and found.points[[0, 5]].isnan().all()
    assert "the 4 most frequent of 6 codes" in found.note and found.axes == ("UMAP, first axis", "UMAP, second axis")


def test_a_method_that_is_not_there_is_named_with_its_package(
    encoded: EncodedImages, monkeypatch: pytest.MonkeyPatch
) -> None:
    find = sys.modules["importlib.util"].find_spec
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None if name in ("umap", "sklearn") else find(name))
    space = CodebookSpace(encoded)
    missing = {name: package for name, _, package in space.methods}
    assert missing == {"codes": "", "tokens": "", "umap": "umap-learn", "tsne": "scikit-learn"}
    before = space.points
    space.projection = "tsne"
    assert space.message == "t-SNE needs a package that is missing: pip install scikit-learn"
    assert (space.projection, space.points) == ("codes", before)
    space.projection = "tokens"
    assert space.message == "" and space.points != before
    space.projection = "isomap"
    assert space.message == "There is no projection 'isomap': there are codes, tokens, umap, tsne."
    assert CodebookSpace(encoded, "isomap").message == space.message


def test_what_another_package_raises_is_said(encoded: EncodedImages, with_umap: None) -> None:
    space = CodebookSpace(encoded)

    def fail(*_: Any) -> None:
        raise RuntimeError("numba is too old\nTraceback")

    FakeMethod.fit_transform, kept = fail, FakeMethod.fit_transform
    try:
        space.projection = "umap"
    finally:
        FakeMethod.fit_transform = kept
    assert space.message == "RuntimeError: numba is too old." and space.projection == "codes"
    space.projection = "umap"
    assert space.message == "" and space.projection == "umap"


# What 03_codebook says of the tokenizers that come with the repository.


def test_across_codes_go_from_bright_to_dark_and_downwards_from_brown_to_blue(encoded: EncodedImages) -> None:
    space = CodebookSpace(encoded)
    x, y = space._projected.points.numpy().T
    colours = torch.cat(list(decode_alone(encoded.tokenizer, torch.arange(512)))).float().mean((2, 3)).numpy()
    assert np.corrcoef(x, colours.mean(1))[0, 1] < -0.98
    assert np.corrcoef(y, colours[:, 0] - colours[:, 2])[0, 1] > 0.55
    assert space.axes[0].startswith("first component, 49%") and space.axes[1].startswith("second component, 33%")


def test_dead_codes_of_the_collapsed_codebook_lie_on_one_point() -> None:
    collapsed = EncodedImages.open(COLLAPSED_RUN, "scenes", max_images=512, device="cpu", progress=False)
    dead = collapsed.counts() == 0
    assert dead.sum() == 447
    points = CodebookSpace(collapsed)._projected.points
    spread = points.amax(0) - points.amin(0)
    near = ((points - points[dead].median(0).values).abs() / spread).amax(1) < 0.01
    assert (near & dead).sum() > 0.95 * dead.sum()


# The choice.


def test_what_is_chosen_stays_until_another_level_or_a_code_beside_it() -> None:
    choice = Choice((16, 8))
    heard: list[Chosen] = []
    choice.observe(lambda change: heard.append(change.new), names="chosen")
    choice.choose(3)
    choice.choose(codes=[9, 2, 2, 5])
    assert choice.chosen == Chosen(0, 3, (2, 5, 9))
    choice.choose(5)  # one of them
    assert choice.chosen == Chosen(0, 5, (2, 5, 9))
    choice.choose(4)
    assert choice.chosen == Chosen(0, 4, ())
    choice.choose(4)
    choice.choose(level=1)
    assert choice.chosen == Chosen(1)
    assert len(heard) == 5  # nobody hears of what is chosen already
    for wrong in ({"code": 8}, {"code": -2}, {"codes": [0, 8]}, {"codes": [-1]}):
        with pytest.raises(ValueError, match="There is no code"):
            choice.choose(**wrong)
    with pytest.raises(ValueError, match=r"There is no level 2: levels are 0 to 1\."):
        choice.choose(level=2)
    for wrong in ({"code": 1.5}, {"code": "seven"}, {"codes": [1, 2.5]}, {"level": 0.5}):
        with pytest.raises(ValueError, match="but must be a whole number"):
            choice.choose(**wrong)
    assert choice.chosen == Chosen(1)
    choice.choose(np.int64(2), codes=torch.tensor([2, 3]))
    assert choice.chosen == Chosen(1, 2, (2, 3))


def test_a_code_chosen_in_one_view_is_chosen_in_all(encoded: EncodedImages) -> None:
    views = CodebookExplorer(encoded), CodebookSpace(encoded), PlaceExplorer(encoded), TokenEditor(encoded)
    explorer, space, places, editor = views
    most = int(encoded.counts().argmax())
    assert explorer.selected == space.selected == editor.offered == most and places.whose == f"code {most}"

    def all_show(code: int) -> None:
        assert explorer.detail["code"] == explorer.selected == space.selected == code
        assert places.whose == f"code {code}"
        assert np.frombuffer(places.where, "<u4").sum() == encoded.counts()[code]

    explorer.selected = 5  # as the page does
    all_show(5)
    assert editor.offered == 5
    space.selected = 77
    all_show(77)
    places._handle_custom_msg({"do": "choose", "code": 8}, [])
    all_show(8)
    encoded.choice.choose(9)
    all_show(9)
    assert editor.offered == 9
    editor._handle_custom_msg({"do": "select", "top": 2, "left": 3, "bottom": 4, "right": 5}, [])
    all_show(int(encoded.tokens[0][0, 2, 3]))
    assert editor.offered == 9  # to paint with, where one has just chosen a place


def test_a_view_that_comes_later_shows_what_is_chosen(encoded: EncodedImages) -> None:
    encoded.choice.choose(7, codes=[7, 8])
    assert CodebookExplorer(encoded).detail["code"] == CodebookSpace(encoded).selected == 7
    assert PlaceExplorer(encoded).whose == "any of the 2 selected codes" and encoded.choice.chosen.codes == (7, 8)
    CodebookExplorer(encoded, selected=11)
    assert encoded.choice.chosen == Chosen(0, 11)


def test_a_box_selects_what_lies_in_it(encoded: EncodedImages) -> None:
    space, explorer, places = CodebookSpace(encoded), CodebookExplorer(encoded), PlaceExplorer(encoded)
    x, y = np.frombuffer(space.points, "<f4").reshape(-1, 2).astype(float).T
    left, right, low, high = x[17], x.max(), y.min(), y[17]  # a corner is a code
    space._handle_custom_msg({"do": "box", "left": left, "right": right, "low": low, "high": high}, [])
    inside = np.flatnonzero((x >= left) & (y <= high))
    assert 17 in inside and 1 < len(inside) < 512
    for view in (space, explorer):
        assert np.frombuffer(view.marked, "<u4").tolist() == inside.tolist()
    assert np.array_equal(np.frombuffer(places.where, "<u4"), np.isin(encoded.tokens[0], inside).sum(0).ravel())
    assert f"Selected are {len(inside)} codes" in space.description
    space._handle_custom_msg({"do": "codes", "codes": []}, [])
    assert encoded.choice.chosen.codes == () and places.whose == f"code {space.selected}"


def test_levels_are_shared_too() -> None:
    encoded = two_levels()
    explorer, space, places, editor = (
        view(encoded) for view in (CodebookExplorer, CodebookSpace, PlaceExplorer, TokenEditor)
    )
    first, counts = space.points, explorer.counts
    explorer.level = 1
    assert np.frombuffer(explorer.counts, "<u4").tolist() == encoded.counts(1).tolist() and explorer.counts != counts
    assert space.level == places.level == editor.level == 1 and space.points != first
    assert explorer.detail["level"] == 1 and "of level 1" in places.description
    space.level = 0
    assert explorer.level == places.level == editor.level == 0 and space.points == first
    editor._handle_custom_msg({"do": "look_at", "level": 1}, [])
    assert explorer.level == space.level == 1 and explorer.selected == int(encoded.tokens[1][0, 0, 0])
    space.level = 2
    assert space.message == "There is no level 2: levels are 0 to 1." and space.level == 1


def test_patches_are_decoded_ahead_where_that_is_cheap(encoded: EncodedImages, monkeypatch: pytest.MonkeyPatch) -> None:
    assert len(CodebookSpace(encoded).patches["codes"]) == 4 * 512
    monkeypatch.setattr("vistok.widgets.space.DECODED_AHEAD", 1000)
    space = CodebookSpace(encoded)
    assert space.patches == {}
    space._handle_custom_msg({"do": "patches", "codes": list(range(100))}, [])
    assert np.frombuffer(space.patches["codes"], "<u4").tolist() == list(range(64)) and space.patches["columns"] == 8


def test_maps_side_by_side_and_what_cannot_be_opened(
    encoded: EncodedImages, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    shown: list[Any] = []
    monkeypatch.setattr("vistok.plots.show", shown.append)
    show_maps(encoded, encoded)
    titles = [axis.get_title() for axis in shown[0].axes if axis.get_title()]
    used = int((encoded.counts() > 0).sum())
    assert len(titles) == 2 and f"{used} of 512 codes used" in titles[0]
    plt.close(shown[0])
    show_maps(Refusal("There is nothing."))
    assert capsys.readouterr().out.strip() == "There is nothing." and len(shown) == 1
