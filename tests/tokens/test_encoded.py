"""Images beside their tokens: where codes are, which images use them, how usage grows; what is refused."""

import copy
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from vistok import VisualTokenizer
from vistok.data import to_float
from vistok.evaluation import evaluate
from vistok.images import to_uint8
from vistok.runs import EXAMPLE_RUN
from vistok.tokens import encode_dataset
from vistok.tokens.encoded import QUEUE_SIZE, EncodedImages


def tokenizer(codebook_size: int = 16) -> VisualTokenizer:
    torch.manual_seed(0)
    options = {"codebook_size": codebook_size, "codebook_dim": 4}
    return VisualTokenizer(network_options={"hidden_dim": 8}, quantizer_options=options, image_size=16).eval()


def given(indices: torch.Tensor, codebook_size: int = 16) -> EncodedImages:
    images = torch.randint(0, 256, (len(indices), 3, 16, 16), generator=torch.Generator().manual_seed(0))
    return EncodedImages(tokenizer(codebook_size), images.to(torch.uint8), indices)


@pytest.fixture(scope="module")
def example() -> EncodedImages:
    return EncodedImages.open(EXAMPLE_RUN, "photos", max_images=96, device="cpu", progress=False)


def test_its_numbers_are_those_of_an_evaluation(example: EncodedImages) -> None:
    options = {"max_images": 96, "rfid": False, "lpips": "off", "device": "cpu", "progress": False}
    record = evaluate(example.tokenizer, "photos", **options)
    assert torch.equal(example.counts(), record.counts[0])
    assert example.usage() == {name: record[name] for name in ("usage", "usage_queue", "perplexity", "entropy_bits")}
    assert example.psnr(range(96)).mean() == pytest.approx(record.psnr, abs=0.02)  # pixels here are whole numbers


def test_its_repr_says_what_it_holds(example: EncodedImages) -> None:
    assert repr(example).startswith("96 images of photos test as 24,576 tokens of 512 codes (ema-d4)")


@pytest.mark.parametrize(("trained", "marked"), [("photos", 5), ("imagenet-sample", 0)])
def test_a_scene_that_was_trained_on_is_marked(
    trained: str, marked: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("vistok.tokens.encoded.load_pretrained", lambda _: tokenizer())
    (tmp_path / "config.json").write_text(json.dumps({"config": {"dataset": trained}}))
    names = EncodedImages.open(tmp_path, "scenes", max_images=14, device="cpu", progress=False).image_names
    assert "chelsea.png" in names and len(set(names)) == 14
    assert sum(name.endswith(" (trained on)") for name in names) == marked


def test_reconstructions_are_what_the_tokenizer_makes(example: EncodedImages) -> None:
    images = to_float(example.pixels([5, 2]))
    with torch.no_grad():
        direct = example.tokenizer(images).reconstruction
    assert (example.reconstructions([5, 2]).int() - to_uint8(direct).int()).abs().max() <= 1


def test_places_and_images_of_a_code() -> None:
    indices = torch.zeros(3, 4, 4, dtype=torch.int64)
    indices[1, 2, 3] = indices[2, 0, 1] = indices[2, 3, 3] = 7
    encoded = given(indices)
    assert encoded.places(7).tolist() == [[1, 2, 3], [2, 0, 1], [2, 3, 3]]
    images, counts = encoded.most_using(7, 5)
    assert images.tolist() == [2, 1] and counts.tolist() == [2, 1]
    assert encoded.places(3).shape == (0, 3) and encoded.counts()[[0, 3, 7]].tolist() == [45, 0, 3]
    assert encoded.grid_counts(7).tolist() == [[0, 1, 0, 0], [0] * 4, [0, 0, 0, 1], [0, 0, 0, 1]]
    with pytest.raises(ValueError, match=r"There is no code 16: codes are 0 to 15\."):
        encoded.places(16)


def test_pictures_that_are_no_squares_have_tokens_places_and_patches() -> None:
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (3, 3, 12, 20), generator=generator, dtype=torch.uint8)
    encoded = EncodedImages.open(tokenizer(), images, device="cpu", progress=False)
    assert encoded.tokens[0].shape == (3, 3, 5)
    assert torch.equal(torch.from_numpy(encoded.tokens[0]).long(), encoded.tokenizer.encode(to_float(images)))
    assert encoded.reconstructions([1]).shape == (1, 3, 12, 20)
    patches = encoded.patches(np.array([[1, 2, 4], [0, 0, 3]]), margin=0)
    assert torch.equal(patches, torch.stack([images[1, :, 8:12, 16:20], images[0, :, 0:4, 12:16]]))
    with pytest.raises(
        ValueError, match="Images of 12x20 pixels have a grid of 3x5 tokens here, but the indices are of a"
    ):
        EncodedImages(encoded.tokenizer, images, torch.zeros(3, 5, 3, dtype=torch.int64))


def test_whole_pictures_of_a_dataset_are_looked_into_where_they_have_one_size(tmp_path: Path) -> None:
    for split, size in (("train", (9, 9)), ("test", (22, 14))):
        (tmp_path / split).mkdir()
        for number in range(3):
            Image.effect_noise(size, 90).save(tmp_path / split / f"{number}.png")
    options = {"data_root": tmp_path, "crop": "none", "device": "cpu", "progress": False}
    encoded = EncodedImages.open(tokenizer(), "folder", **options)
    assert encoded.tokens[0].shape == (3, 3, 5)
    original = np.asarray(Image.open(tmp_path / "test" / "2.png"))
    assert np.array_equal(encoded.pixels([2])[0, 0].numpy(), original[1:13, 1:21])
    Image.effect_noise((14, 22), 90).save(tmp_path / "test" / "3.png")
    with pytest.raises(ValueError, match="The 4 whole pictures have 2 sizes, 20x12 and 12x20 pixels among them"):
        EncodedImages.open(tokenizer(), "folder", **options)
    assert len(EncodedImages.open(tokenizer(), "folder", max_images=3, **options)) == 3


def test_patches_are_cut_where_the_tokens_are() -> None:
    encoded = given(torch.zeros(2, 4, 4, dtype=torch.int64))
    places = np.array([[1, 2, 1], [0, 0, 3]])
    bare = encoded.patches(places, margin=0)
    assert torch.equal(bare[0], encoded.pixels([1])[0, :, 8:12, 4:8])
    wide = encoded.patches(places, margin=1)
    assert torch.equal(wide[0], encoded.pixels([1])[0, :, 4:16, 0:12])
    assert wide[1, :, :4].eq(128).all() and wide[1, :, :, 8:].eq(128).all()  # beyond the image
    assert torch.equal(wide[1, :, 4:8, 4:8], bare[1])
    decoded = encoded.patches(places, margin=0, decoded=True)
    assert torch.equal(decoded[0], encoded.reconstructions([1])[0, :, 8:12, 4:8])


def test_patches_of_a_grid_that_does_not_divide_the_image() -> None:
    torch.manual_seed(0)
    options = {"scales": [1, 3, 5, 6, 16], "codebook_size": 16, "codebook_dim": 4}
    model = VisualTokenizer(
        quantizer="multiscale", quantizer_options=options, network_options={"hidden_dim": 8}, image_size=64
    )
    rows = torch.arange(64, dtype=torch.uint8)  # a pixel says where it is
    images = torch.stack([rows[:, None].expand(64, 64), rows.expand(64, 64), rows[:, None].expand(64, 64)])[None]
    encoded = EncodedImages.open(model, images, device="cpu", progress=False)
    for level, tokens in enumerate(options["scales"]):
        for margin in (0, 1):
            places = np.array([[0, number, tokens - 1 - number] for number in range(tokens)])
            for (_, *place), patch in zip(places, encoded.patches(places, level, margin=margin), strict=True):
                side = patch.shape[1] // (2 * margin + 1)
                middle = patch[:2, margin * side : (margin + 1) * side, margin * side : (margin + 1) * side]
                for axis, number in enumerate(place):
                    seen = middle[axis].unique()
                    assert abs(int(seen[0]) - number * 64 / tokens) <= 1  # half a pixel, or a whole one at the edge
                    assert abs(int(seen[-1]) + 1 - (number + 1) * 64 / tokens) <= 1


def test_codes_by_place() -> None:
    indices = torch.zeros(4, 4, 4, dtype=torch.int64)
    indices[:, 1, 2] = torch.tensor([5, 9, 5, 2])
    codes, counts, perplexity = given(indices).codes_by_place(2)
    assert codes[1, 2].tolist() == [5, 2] and counts[1, 2].tolist() == [2, 1]
    assert codes[0, 0].tolist() == [0, -1] and counts[0, 0].tolist() == [4, 0]
    assert perplexity[0, 0] == 1 and perplexity[1, 2] == pytest.approx(2**1.5)


def test_usage_grows_with_the_tokens_seen() -> None:
    indices = torch.zeros(2, 4, 4, dtype=torch.int64)
    indices[0, 0] = torch.tensor([1, 2, 2, 3])
    indices[1, 3, 3] = 4
    curve = given(indices).usage_curve(points=64)
    seen = dict(zip(curve.tokens.tolist(), curve.seen.tolist(), strict=True))
    assert [seen[m] for m in (1, 2, 3, 4, 5, 32)] == [1, 2, 2, 3, 4, 5]
    assert curve.in_queue.tolist() == curve.seen.tolist()
    assert curve.expected[0] == pytest.approx(1) and curve.expected[-1] == pytest.approx(5)


def test_the_expected_usage_is_the_mean_over_random_orders() -> None:
    rng = np.random.default_rng(0)
    drawn = torch.from_numpy(rng.choice(16, size=(2, 4, 4), p=np.arange(1, 17) / 136))
    curve = given(drawn).usage_curve(points=20)
    flat = drawn.flatten().numpy()
    orders = [rng.permutation(flat) for _ in range(4000)]
    for tokens, expected in zip(curve.tokens, curve.expected, strict=True):
        found = [len(np.unique(order[:tokens])) for order in orders]
        assert np.mean(found) == pytest.approx(expected, abs=4 * np.std(found) / 4000**0.5 + 1e-9)


def test_the_queue_forgets_what_the_whole_set_remembers() -> None:
    number = QUEUE_SIZE // 16 + 100  # images of 16 tokens
    indices = torch.zeros(number, 4, 4, dtype=torch.int64)
    indices[0] = torch.arange(16).view(4, 4)  # all codes in the first image, only one afterwards
    encoded = EncodedImages(
        tokenizer(), torch.zeros(1, 3, 16, 16, dtype=torch.uint8).expand(number, -1, -1, -1), indices
    )
    curve = encoded.usage_curve()
    assert curve.seen[-1] == 16 and curve.in_queue[-1] == 1
    assert encoded.usage()["usage_queue"] == 1 / 16


def test_a_file_of_tokens_stands_for_encoding(example: EncodedImages, tmp_path: Path) -> None:
    options = {"split": "test", "device": "cpu", "progress": False}
    encode_dataset(example.tokenizer, "photos", tmp_path / "tokens", **options)
    read = EncodedImages.open(EXAMPLE_RUN, "photos", tokens=tmp_path / "tokens", max_images=96, device="cpu")
    assert np.array_equal(read.tokens[0], example.tokens[0])
    with pytest.raises(ValueError, match="of another tokenizer"):
        EncodedImages.open(tokenizer(), "photos", image_size=64, tokens=tmp_path / "tokens", device="cpu")


def test_tokens_of_other_images_are_refused_and_those_of_mirror_images_left_out(
    images_root: Path, tmp_path: Path
) -> None:
    model, images = tokenizer(), {"data_root": images_root, "progress": False, "device": "cpu"}
    usual = encode_dataset(model, "folder", tmp_path / "train", **images)
    encode_dataset(model, "folder", tmp_path / "flips", flips=True, **images)
    read = EncodedImages.open(model, "folder", split="train", tokens=tmp_path / "flips", max_images=5, **images)
    assert np.array_equal(read.tokens[0], usual.tokens[:5])
    with pytest.raises(ValueError, match=r"train are of other images .split is .train. there, .test. here"):
        EncodedImages.open(model, "folder", tokens=tmp_path / "train", **images)
    header = json.loads((tmp_path / "train" / "tokens.json").read_bytes())
    del header["dataset"]["content"]  # as in files from before it was recorded
    (tmp_path / "train" / "tokens.json").write_text(json.dumps(header))
    read = EncodedImages.open(model, "folder", split="train", tokens=tmp_path / "train", **images)
    assert len(read) == len(usual)


def test_a_tokenizer_that_somebody_trains_is_left_as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    model = tokenizer().train()
    expected = EncodedImages.open(copy.deepcopy(model).eval(), torch.zeros(2, 3, 16, 16), progress=False)
    monkeypatch.setattr(torch.nn.Module, "train", None)
    monkeypatch.setattr(torch.nn.Module, "to", None)
    for device in (None, "cpu"):
        found = EncodedImages.open(model, torch.zeros(2, 3, 16, 16), device=device, progress=False)
        assert np.array_equal(found.tokens[0], expected.tokens[0])
        assert torch.equal(found.reconstructions([0, 1]), expected.reconstructions([0, 1]))
    assert all(module.training for module in model.modules())


def test_images_of_ones_own_are_uint8_or_float_in_range() -> None:
    pixels = torch.randint(0, 256, (2, 3, 16, 16), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    expected = EncodedImages.open(tokenizer(), pixels, progress=False)
    for images in (pixels.numpy(), to_float(pixels), to_float(pixels).double().numpy(), to_float(pixels)):
        found = EncodedImages.open(tokenizer(), images, progress=False)
        assert np.array_equal(found.tokens[0], expected.tokens[0])
        assert torch.equal(found.pixels([0, 1]), pixels)
    for images, sentence in (
        (pixels.float(), r"images / 127\.5 - 1 maps \[0, 255\] there"),
        (pixels.long(), "to_float converts int64"),
        (pixels[0], r"to_float\(images\[None\]\)"),
        (to_float(pixels)[:, :1], r"images\.expand"),
        (to_float(pixels) * torch.nan, "NaN"),
    ):
        with pytest.raises(ValueError, match=sentence):
            EncodedImages.open(tokenizer(), images, progress=False)
    given = EncodedImages(tokenizer(), pixels, expected.tokens[0].astype(np.uint16).reshape(2, 16))
    assert np.array_equal(given.tokens[0], expected.tokens[0])


def test_what_does_not_fit_is_refused_in_a_sentence(tmp_path: Path) -> None:
    good = torch.zeros(1, 4, 4, dtype=torch.int64)
    images = torch.zeros(1, 3, 16, 16, dtype=torch.uint8)
    with pytest.raises(ValueError, match=r"Index 99 is outside of this tokenizer's codebook: \[0, 16\)"):
        EncodedImages(tokenizer(), images, good + 99)
    with pytest.raises(ValueError, match="There are no images"):
        EncodedImages(tokenizer(), images[:0], good)
    with pytest.raises(ValueError, match="indices of 2 images, but only 1"):
        EncodedImages(tokenizer(), images, good.expand(2, -1, -1))
    with pytest.raises(ValueError, match="2 levels of indices, but the tokenizer has 1"):
        EncodedImages(tokenizer(), images, (good, good))
    with pytest.raises(ValueError, match="image_size 18 is not divisible by the downsample factor 4.* 16"):
        EncodedImages.open(tokenizer(), torch.zeros(1, 3, 18, 18), device="cpu", progress=False)
    with pytest.raises(ValueError, match="grid of 5x5"):
        EncodedImages(tokenizer(), images, torch.zeros(1, 5, 5, dtype=torch.int64))
    with pytest.raises(ValueError, match="max_images is 0"):
        EncodedImages.open(tokenizer(), "photos", max_images=0)
    with pytest.raises(FileNotFoundError, match="There is no tokenizer in"):
        (tmp_path / "record").mkdir()
        EncodedImages.open(tmp_path / "record", "photos")


@pytest.mark.parametrize(
    ("quantizer", "options"),
    [("fsq", {"levels": [3, 3]}), ("lfq", {"codebook_size": 4}), ("vq", {"codebook_size": 8, "codebook_dim": 4})],
)
def test_weights_that_are_not_finite_are_refused(quantizer: str, options: dict) -> None:
    tokenizer = VisualTokenizer(
        network_options={"hidden_dim": 8}, quantizer=quantizer, quantizer_options=options, image_size=16
    )
    name, weight = list(tokenizer.named_parameters())[-1]
    weight.data.view(-1)[:1] = torch.nan
    images = torch.zeros(2, 3, 16, 16, dtype=torch.uint8)
    with pytest.raises(ValueError, match=f"Not all weights of tokenizer are finite .of {name} 1 of .* diverged"):
        EncodedImages.open(tokenizer, images, progress=False)
