"""What figures say: their lines, labels and colours. What they look like, a person has to see."""

import dataclasses
import re
from collections.abc import Iterator
from pathlib import Path
from statistics import mean

import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch
from matplotlib.axes import Axes
from matplotlib.colors import to_hex
from matplotlib.figure import Figure
from matplotlib.text import Text
from PIL import Image

from vistok import TrainConfig, plots, tables
from vistok.plots import figures
from vistok.runs import Report, Run
from vistok.system.paths import repository_root
from vistok.tokens.encoded import UsageCurve

PLAIN = {"reconstruction": 0.2, "codebook": 0.02, "commitment": 0.02, "total": 0.225}
PLAYED = {"discriminator": 0.5, "logits_real": 1.0, "logits_fake": -1.0}
WEIGHTS = {"reconstruction": 1.0, "codebook": 1.0, "commitment": 0.25}


@pytest.fixture(autouse=True)
def _close() -> Iterator[None]:
    yield
    plt.close("all")


def log_of(*losses: dict[str, float]) -> list[dict]:
    return [
        dataclasses.asdict(Report(10 * number, entry, 0.1 * number, 2.0 * number, 30.0, 0.0))
        for number, entry in enumerate(losses, start=1)
    ]


ADVERSARIAL = log_of(PLAIN | PLAYED, PLAIN | PLAYED | {"adversarial": -3.0, "adversarial_weight": 0.01})


def lines(axis: Axes) -> dict[str, np.ndarray]:
    """Return what the labelled lines of an axis show."""
    return {line.get_label(): line.get_ydata() for line in axis.lines if not line.get_label().startswith("_")}


def check_nothing_is_covered_or_cut(figure: Figure) -> None:
    """Check that legends lie outside the axes, and titles, labels and legends on the page and not over each other."""
    figures.style(figure)
    figure.draw_without_rendering()
    axes = [axis for axis in figure.findobj(Axes) if axis.axison]
    legends = [box.get_window_extent() for box in figure.findobj(plt.matplotlib.legend.Legend)]
    for legend in legends:
        assert not any(legend.overlaps(axis.get_window_extent()) for axis in axes)
    texts = [text for axis in axes for text in (axis.title, axis.xaxis.label, axis.yaxis.label) if text.get_text()]
    boxes = legends + [text.get_window_extent() for text in texts]
    for number, box in enumerate(boxes):
        assert figure.bbox.x0 - 1 <= box.x0 and box.x1 <= figure.bbox.x1 + 1, number
        assert figure.bbox.y0 - 1 <= box.y0 and box.y1 <= figure.bbox.y1 + 1, number
        assert not any(box.overlaps(other) for other in boxes[:number]), number


def test_the_colours_are_those_of_the_page() -> None:
    script = (Path(plots.__file__).parent.parent / "widgets" / "js" / "common.js").read_text()
    (colours,) = re.findall(r"const LINES = \[([^\]]*)\]", script)
    assert re.findall(r'"(#\w{6})"', colours) == list(plots.COLOURS)


@pytest.mark.parametrize("draw", ["curves", "dashboard"])
def test_the_adversarial_weight_is_not_drawn_as_a_loss(draw: str) -> None:
    if draw == "curves":
        figure = plots.training_curves(ADVERSARIAL, 20)
        raw, played, usage = figure.axes[:3]
    else:
        figure = plots.dashboard(ADVERSARIAL, WEIGHTS, 20)
        raw, weighted, played, usage = figure.axes[:4]
        assert lines(weighted).keys() == PLAIN.keys() | {"adversarial"}
        assert lines(weighted)["adversarial"] == pytest.approx([-0.03])
        colours = [{line.get_label(): line.get_color() for line in axis.lines} for axis in (raw, weighted)]
        assert all(colours[0][name] == colours[1][name] for name in PLAIN)
    assert lines(raw).keys() == PLAIN.keys()
    assert lines(played).keys() == PLAYED.keys() | {"adversarial"}
    assert usage.get_ylabel() == "codebook usage, % of codes"
    check_nothing_is_covered_or_cut(figure)


def test_nothing_is_cut_from_a_dashboard_of_several_levels() -> None:
    counts = [torch.arange(16)] * 4
    pictures = torch.zeros(8, 3, 32, 16, dtype=torch.uint8)
    entropy = log_of(*[PLAIN | {"entropy": -1.0, "lpips": 0.5}] * 2)
    check_nothing_is_covered_or_cut(plots.dashboard(entropy, WEIGHTS, 20, counts, pictures))
    check_nothing_is_covered_or_cut(plots.dashboard(ADVERSARIAL, WEIGHTS, 20, counts[:1], pictures))


def test_a_loss_that_is_not_positive_is_drawn_and_the_axis_says_where_it_is_linear() -> None:
    positive, signed = plots.dashboard(ADVERSARIAL, WEIGHTS, 20).axes[:2]
    assert (positive.get_yscale(), positive.get_ylabel()) == ("log", "loss")
    assert (signed.get_yscale(), signed.get_ylabel()) == ("symlog", "loss, linear within ±0.001")
    assert signed.get_ylim()[0] < -0.03
    (zero, _) = plots.training_curves(log_of({"kl": 0.0, "total": 0.0}), 20).axes[:2]
    assert zero.get_yscale() == "symlog"


def test_lines_differ_in_colour_or_dashes() -> None:
    entry = {f"loss {number}": 1.0 + number for number in range(12)}
    drawn = plots.training_curves(log_of(entry, entry), 20).axes[0].lines
    styles = [(line.get_color(), line.get_linestyle()) for line in drawn]
    assert len(set(styles)) == 12
    assert [style for _, style in styles] == ["-"] * 4 + ["--"] * 4 + [":"] * 4
    assert {colour for colour, _ in styles} == set(plots.COLOURS)


def test_steps_are_whole_numbers() -> None:
    axis = plots.training_curves(log_of(PLAIN), 3).axes[0]
    assert all(tick == round(tick) for tick in axis.get_xticks())


def test_places_count_whole_cells() -> None:
    axis = plots.places(np.ones((3, 3))).axes[0]
    assert all(tick == round(tick) for tick in (*axis.get_xticks(), *axis.get_yticks()))


@pytest.mark.parametrize(
    ("size", "dead", "title"),
    [
        (16, 3, "13 of 16 codes used\ncrosses: never chosen"),
        (16, 0, "16 of 16 codes used"),
        (16384, 3, "16,381 of 16,384 codes used\ngrey: never chosen"),
    ],
)
def test_the_code_map_says_how_dead_codes_look(size: int, dead: int, title: str) -> None:
    counts = torch.ones(size, dtype=torch.int64)
    counts[:dead] = 0
    _, axis = plt.subplots()
    plots.draw_code_map(axis, counts, columns=int(size**0.5))
    crosses = sum(len(marks.get_offsets()) for marks in axis.collections)
    assert axis.get_title() == title and crosses == (dead if "crosses" in title else 0)


@pytest.mark.parametrize(
    ("wanted", "length", "shown"),
    [
        (range(0, 88, 11), 78, list(range(0, 88, 11))),
        (range(0, 88, 11), 40, [0, 5, 10, 15, 20, 25, 30, 35]),
        (range(0, 88, 11), 3, [0, 1, 2]),
        (range(5), 1, [0]),
        ([300], 301, [300]),
        ([300], 200, [0]),
    ],
)
def test_a_figure_shows_as_many_images_as_there_are(wanted: list[int], length: int, shown: list[int]) -> None:
    assert plots.indices_shown(wanted, length) == shown
    with pytest.raises(ValueError, match="index of a figure's image is -1, but must be at least 0"):
        plots.indices_shown([*wanted, -1], length)


@pytest.mark.parametrize("size", [1, 2, 64])
@pytest.mark.parametrize("zoom", [(0.35, 0.35, 0.3), (0.9, 0.9, 0.5), (3.0, -1.0, 0.0), (0.0, 0.0, 7.0)])
def test_a_detail_lies_within_its_image(size: int, zoom: tuple[float, float, float]) -> None:
    figure = plots.side_by_side(torch.zeros(3, size, size), {"a": torch.zeros(3, 64, 64)}, zoom)
    for axis in figure.axes[2:]:
        height, width = axis.images[0].get_array().shape[:2]
        assert 1 <= height == width <= 64
    plt.close(figure)


@pytest.mark.parametrize(("height", "width"), [(64, 16), (16, 64)])
def test_a_detail_of_no_square_lies_where_it_is_asked_for(height: int, width: int) -> None:
    image = torch.zeros(3, height, width)
    image[:, height // 2 :, width // 2 :] = 1  # at the lower right
    figure = plots.side_by_side(image, {"a": image}, (0.5, 0.5, 0.5))
    for axis in figure.axes[2:]:
        detail = axis.images[0].get_array()
        assert detail.shape == (8, 8, 3) and (detail == 1).all()
    plots.side_by_side(image, {"a": image}, (0.9, 0.9, 0.5))
    plt.close("all")


def test_long_names_are_broken_to_the_width_of_their_pictures() -> None:
    image = torch.zeros(3, 64, 64)
    names = [f"ema-d4-laptop-imagenet-sample-s0-{number}" for number in range(4)]
    figure = plots.side_by_side(image, dict.fromkeys([*names, "$no$_$formula"], image))
    figure.draw_without_rendering()
    for axis, name in zip(figure.axes[1:5], names, strict=True):
        assert axis.get_title().replace("\n", "") == name
        assert max(map(len, axis.get_title().splitlines())) <= 13 * 7.5 / 6
    plt.close(figure)


@pytest.mark.parametrize("number", [1, 3, 5])
def test_rows_of_images_are_of_any_length_and_size_each_under_its_title(number: int) -> None:
    photographs = [Image.new("RGB", (30, 40 + place)) for place in range(number)]
    small = torch.zeros(number + 3, 3, 16, 16, dtype=torch.uint8)
    titles = [[f"30x{40 + place}" for place in range(number)], ["3000x3000 to 256x256"]]
    figure = plots.image_rows([photographs, small], titles, [(2, 3, 12, 23)] * number)
    above, below = np.array(figure.axes).reshape(2, number + 3)
    assert [len(axis.images) for axis in above] == [1] * number + [0] * 3
    assert all(axis.images[0].get_array().shape == (16, 16, 3) for axis in below)
    assert [axis.get_title() for axis in above] == [*titles[0], "", "", ""]
    for axis in above[:number]:
        (box,) = axis.patches
        assert box.get_bbox().extents.tolist() == [2, 3, 12, 23]
    assert not any(axis.axison for axis in figure.axes)
    assert figure.get_figwidth() <= 7.5
    figure.draw_without_rendering()
    for row in (above, below):
        title, image = row[0].title.get_window_extent(), row[0].get_window_extent()
        assert image.y1 < title.y0 and title.y1 < figure.bbox.y1
    assert below[0].title.get_window_extent().y1 < above[0].get_window_extent().y0


def test_a_figure_is_saved_into_a_folder_that_was_missing(tmp_path: Path) -> None:
    plots.save(plots.places(np.ones((2, 2))), tmp_path / "runs" / "figure.png")
    assert plt.imread(tmp_path / "runs" / "figure.png").ndim == 3
    assert [path.name for path in (tmp_path / "runs").iterdir()] == ["figure.png"]


def test_one_code_and_one_token_are_drawn() -> None:
    one, nothing = torch.ones(1, dtype=torch.int64), np.ones(1, dtype=np.int64)
    curve = UsageCurve(nothing, nothing, nothing.astype(float), nothing)
    drawn = [
        plots.codebook_usage(one),
        plots.codebook_overview(one, torch.zeros(1, dtype=torch.int64), 1, curve, queue_size=65_536, code=0),
        plots.places(np.ones((1, 1))),
    ]
    for figure in drawn:
        figure.canvas.draw()
        plt.close(figure)


def test_codebook_usage_says_of_how_many_tokens_it_is() -> None:
    counts = torch.tensor([1500, 0, 500, 0])
    few = "2,000 tokens of 8 images: 2 of 4 codes used; grey: 2 that none of these tokens chose"
    assert plots.codebook_usage(counts, "8 images").get_suptitle() == few
    assert plots.codebook_usage(counts[::2]).get_suptitle() == "2,000 tokens: 2 of 2 codes used"


def test_every_axis_of_the_overview_is_named() -> None:
    tokens = np.array([1, 10, 100])
    curve = UsageCurve(tokens, tokens // 25, tokens / 25, tokens // 25)
    patches = torch.zeros(4, 3, 8, 8, dtype=torch.uint8)
    for queue_size, num_lines in ((1000, 2), (50, 3)):
        figure = plots.codebook_overview(torch.arange(16), torch.arange(16), 4, curve, queue_size, 3, patches, patches)
        assert "% of tokens" in [axis.get_ylabel() for axis in figure.axes]
        (seen,) = (axis for axis in figure.axes if axis.get_xlabel() == "tokens seen")
        assert len(lines(seen)) == num_lines  # without a queue's worth of tokens its line would be the first one again
        figure.draw_without_rendering()
        labels = [axis.yaxis.label.get_window_extent() for axis in figure.axes[-2:]]
        assert not labels[0].overlaps(labels[1])


def test_the_curves_of_channels_are_named_and_integrate_to_one() -> None:
    figure = plots.pixel_values(torch.rand(2, 3, 8, 8) * 2 - 1)
    (axis,) = figure.axes
    assert [text.get_text() for text in axis.get_legend().get_texts()] == [
        "red channel",
        "green channel",
        "blue channel",
    ]
    for curve in axis.patches:
        values, edges, _ = curve.get_data()
        assert (values * np.diff(edges)).sum() == pytest.approx(1)
    assert axis.get_xlabel() == "pixel value, −1 to 1"
    check_nothing_is_covered_or_cut(figure)


def committed_scatters() -> dict[str, Figure]:
    """Return the two figures with a name at each point, of the committed records."""
    rows = [
        tables.plan(name, None, "laptop", [0, 1, 2], dataset="imagenet-sample") for name in ("celeba64", "quantizers64")
    ]
    usage, psnr = (tables.measured(rows[0], key) for key in ("usage_queue", "psnr"))
    bits, quality = tables.bits_in_use(rows[1]), tables.measured(rows[1], "psnr")
    kinds = {run.row.name: run.config.quantizer for run in rows[1]}
    found = {name: (mean(bits[name]), mean(quality[name])) for name in kinds if bits[name] and quality[name]}
    return {
        "usage": plots.usage_and_quality({name: (usage[name], psnr[name]) for name in usage}),
        "bits": plots.bits_and_quality(found, kinds),
    }


def check_names_lie_on_nothing(figure: Figure) -> None:
    (axis,) = figure.axes
    figure.draw_without_rendering()
    boxes = {text.get_text(): Text.get_window_extent(text) for text in axis.texts}  # without lines to points
    assert len(boxes) == len(axis.texts)
    frame = axis.get_window_extent()
    for name, box in boxes.items():
        assert frame.x0 <= box.x0 and box.x1 <= frame.x1 and frame.y0 <= box.y0 and box.y1 <= frame.y1, name
        assert not [other for other in boxes if other != name and box.overlaps(boxes[other])], name
    for line in axis.lines:
        for x, y in axis.transData.transform(line.get_xydata()):
            assert not [name for name, box in boxes.items() if box.x0 <= x <= box.x1 and box.y0 <= y <= box.y1]


def test_points_of_committed_records_are_named_where_they_are(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VISTOK_RUNS", str(repository_root() / "runs"))
    drawn = committed_scatters()
    assert [len(figure.axes[0].texts) for figure in drawn.values()] == [11, 18]
    for figure in drawn.values():
        check_names_lie_on_nothing(figure)
        assert figure.axes[0].get_legend() is None  # nothing has to be looked up
    styles = [(line.get_color(), line.get_marker()) for line in drawn["usage"].axes[0].lines]
    assert len(set(styles)) == 11  # no two rows share both


def test_names_of_crowded_points_lie_on_nothing_and_each_belongs_to_a_point() -> None:
    rng = np.random.default_rng(3)
    points = {f"quantizer-{n}": tuple(rng.normal((0.7, 24), (0.08, 0.5))) for n in range(20)} | {"gumbel": (0.2, 19.0)}
    figure = plots.bits_and_quality(points, {name: name.split("-")[0] for name in points})
    check_names_lie_on_nothing(figure)
    assert {text.get_text(): text.xy for text in figure.axes[0].texts} == {
        name: pytest.approx((100 * share, psnr)) for name, (share, psnr) in points.items()
    }
    assert len({to_hex(line.get_color()) for line in figure.axes[0].lines}) == 2  # one a kind
    assert not plots.bits_and_quality({}, {}).axes[0].texts


def test_usage_and_quality_leaves_out_what_was_not_measured() -> None:
    figure = plots.usage_and_quality({"vq-d4": ([0.6, 0.5], [24.0, 24.1]), "ema-d4": ([], [])})
    assert lines(figure.axes[0])["vq-d4"].tolist() == [24.1, 24.0] and len(lines(figure.axes[0])) == 1
    check_nothing_is_covered_or_cut(figure)


def test_by_length_draws_means_over_seeds_and_leaves_out_what_was_not_measured() -> None:
    points = {
        "vq-d4": {2500: ([0.5, 0.7], [22.0, 24.0]), 10_000: ([0.8], [25.0]), 40_000: ([], [])},
        "ema-d4": {2500: ([], []), 10_000: ([], []), 40_000: ([0.9], [26.0])},
    }
    figure = plots.by_length(points)
    usage, psnr = ({name: line for name, line in lines(axis).items() if name in points} for axis in figure.axes)
    assert usage["vq-d4"].tolist() == pytest.approx([60, 80]) and psnr["vq-d4"].tolist() == [23.0, 25.0]
    assert usage["ema-d4"].tolist() == [90] and psnr["ema-d4"].tolist() == [26.0]
    assert [label.get_text() for label in figure.axes[0].get_xticklabels()] == ["2,500", "10,000", "40,000"]
    check_nothing_is_covered_or_cut(figure)
    many = plots.by_length({f"a-row-with-a-name-{number}": points["vq-d4"] for number in range(12)})
    check_nothing_is_covered_or_cut(many)


def test_losses_that_coincide_show_in_each_others_gaps() -> None:
    raw, weighted = plots.dashboard(log_of(PLAIN, PLAIN), WEIGHTS, 20).axes[:2]
    drawn = {line.get_label(): line for line in raw.lines}
    patterns = {name: drawn[name]._unscaled_dash_pattern for name in ("codebook", "commitment")}
    (first, (dash, gap)), (second, same) = patterns["codebook"], patterns["commitment"]
    assert (dash, gap) == tuple(same) and dash == gap and abs(first - second) == dash
    assert drawn["reconstruction"].get_linestyle() == "-"
    assert {line.get_linestyle() for line in weighted.lines} == {"-"}  # times their weights they are apart


def a_run(path: Path, losses: dict[str, float], row: str | None = None) -> Run:
    config = (
        TrainConfig(dataset="photos") if row is None else TrainConfig.from_row(row, scale="smoke", dataset="photos")
    )
    run = Run.open(path, config)
    for number in (1, 2):
        run.append_log(Report(25 * number, losses, 0.5 / number, 8.0 / number, 30.0, 0.0))
    return run


def test_codebook_curves_have_one_line_a_run_and_none_for_a_loss_it_lacks(tmp_path: Path) -> None:
    runs = [
        a_run(tmp_path / "first", PLAIN, "celeba64/vq-d64"),
        a_run(tmp_path / "second", {"reconstruction": 0.2, "total": 0.2}, "celeba64/ema-d4"),
        a_run(tmp_path / "mine", PLAIN | {"codebook": 3.0}),
    ]
    figure = plots.codebook_curves(runs)
    usage, perplexity, loss, reconstruction = figure.axes
    assert [axis.get_ylabel() for axis in figure.axes] == [
        "codebook usage, % of codes",
        "perplexity, codes",
        "codebook loss",
        "reconstruction loss",
    ]
    for axis in (usage, perplexity, reconstruction):
        assert lines(axis).keys() == {"vq-d64", "ema-d4", "mine"}
    assert lines(usage)["mine"] == pytest.approx([50, 25])
    assert {name: list(values) for name, values in lines(loss).items()} == {"vq-d64": [0.02] * 2, "mine": [3.0] * 2}
    assert loss.lines[1].get_color() == usage.lines[2].get_color()  # a run keeps its colour where another has no line
    assert all(axis.get_xscale() == "log" for axis in figure.axes) and loss.get_yscale() == "log"
    check_nothing_is_covered_or_cut(figure)


def test_runs_of_one_row_are_called_by_their_directories(tmp_path: Path) -> None:
    runs = [a_run(tmp_path / name, PLAIN, "celeba64/vq-d64") for name in ("seed-0", "seed-1")]
    assert lines(plots.codebook_curves(runs).axes[0]).keys() == {"seed-0", "seed-1"}
