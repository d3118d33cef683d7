"""Pictures as files: exact tokens back, of the bits that the generator says; whatever is wrong is said, never shown."""

import math
from pathlib import Path

import pytest
import torch
from helpers.generators import GRIDS, generator, places_of, toy_tokenizer
from torch import Tensor

from vistok.generation import coding
from vistok.generation.codec import HEADER_BYTES, Codec, _squares
from vistok.generation.coding import checksum, decode_tokens, encode_tokens, weights_of
from vistok.generation.generator import Generator
from vistok.images import to_float, to_uint8
from vistok.system import progress
from vistok.tokenizer import VisualTokenizer
from vistok.tokens.store import describe


def fitted(tokenizer: VisualTokenizer, **options: object) -> Generator:
    shapes = tokenizer.quantizer.grids(4, 4)
    sizes = {
        "codebook_sizes": list(tokenizer.quantizer.codebook_sizes),
        "level_shapes": [list(shape) for shape in shapes],
    }
    return generator(**(sizes | {"tokenizer": describe(tokenizer)} | options))


@pytest.fixture(scope="module")
def codec() -> Codec:
    tokenizer = toy_tokenizer()
    return Codec(fitted(tokenizer, classes=["a", "b"], class_dropout=0.1), tokenizer)


def picture(height: int, width: int, seed: int = 0) -> Tensor:
    """uint8 [3, height, width], coarse."""
    drawn = torch.randint(0, 256, (3, height // 4 + 1, width // 4 + 1), generator=torch.Generator().manual_seed(seed))
    return drawn.repeat_interleave(4, 1).repeat_interleave(4, 2)[:, :height, :width].to(torch.uint8)


def cross_entropy_bits(made: Generator, places: Tensor, labels: Tensor | None = None) -> float:
    return float(made.token_losses(places, labels).detach().double().sum()) / math.log(2)


@pytest.mark.parametrize("grid", GRIDS)
@pytest.mark.parametrize("batch", [1, 3])
def test_tokens_come_back_and_take_the_cross_entropy(grid: str, batch: int) -> None:
    made = generator(grid=grid)
    places = places_of(made, batch)
    data = encode_tokens(made, places)
    assert torch.equal(decode_tokens(made, data, batch), places)
    bits = cross_entropy_bits(made, places)
    assert bits - 1 < 8 * len(data) < 1.01 * bits + 64


def test_of_one_code_alone_nothing_is_written() -> None:
    alone = generator(codebook_sizes=[1])
    places = places_of(alone)
    assert encode_tokens(alone, places) == b"" and torch.equal(decode_tokens(alone, b"", 3), places)
    beside = generator(grid="levels", codebook_sizes=[16, 1, 4])
    places = places_of(beside)
    assert torch.equal(decode_tokens(beside, encode_tokens(beside, places), 3), places)


def test_many_images_take_their_cross_entropy_to_a_percent(monkeypatch: pytest.MonkeyPatch) -> None:
    made = generator()
    labels = None
    places = torch.cat([made.layout.from_levels((made.sample(range(100)),)), places_of(made, 28)])
    monkeypatch.setattr(coding, "AT_ONCE", 50)  # so that there are several turns
    data = encode_tokens(made, places, labels)
    assert torch.equal(decode_tokens(made, data, len(places)), places)
    assert 8 * len(data) == pytest.approx(cross_entropy_bits(made, places), rel=0.01)
    assert 8 * len(data) < 0.97 * 4 * places.numel() + 28 * 64, "less than the nominal bits"


def test_the_class_counts(codec: Codec) -> None:
    made = codec.generator
    places, labels = places_of(made, 40), torch.zeros(40, dtype=torch.int64)
    files = [encode_tokens(made, places, which) for which in (labels, labels + 1, None)]
    for file, which in zip(files, (labels, labels + 1, None), strict=True):
        assert 8 * len(file) == pytest.approx(cross_entropy_bits(made, places, which), abs=64, rel=0.01)
        assert torch.equal(decode_tokens(made, file, 40, which), places)
    assert len(set(files)) == 3


def test_the_number_of_threads_changes_nothing() -> None:
    made = generator(hidden_dim=64)
    places = places_of(made, 5)
    data = encode_tokens(made, places)
    torch.set_num_threads(2)
    assert encode_tokens(made, places) == data
    assert torch.equal(decode_tokens(made, data, 5), places)
    assert torch.get_num_threads() == 2, "the caller's stay"


def test_a_bar_is_shown_while_many_images_are_coded(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    made = generator()
    places = places_of(made, 6)
    monkeypatch.setattr(coding, "AT_ONCE", 2)
    encode_tokens(made, places)
    assert capsys.readouterr().err == ""  # in no time
    monkeypatch.setattr(coding, "PATIENCE_SECONDS", 0)
    monkeypatch.setattr(progress, "FIRST_LINE_SECONDS", 0)
    monkeypatch.setattr(progress, "UPDATE_SECONDS", 0)
    encode_tokens(made, places)
    assert "coding: 2 of 6 images" in capsys.readouterr().err


def test_every_token_has_a_weight_and_the_likeliest_the_most() -> None:
    logits = torch.tensor([[0.0, -200.0, 1.0, math.log(2.0)]], dtype=torch.float64)
    weights = weights_of(logits)[0]
    assert weights.min() == 1 and weights.argmax() == 2 and all(weight == int(weight) for weight in weights)
    assert weights[3] / weights[0] == pytest.approx(2, rel=1e-3)
    nearly = logits + torch.tensor([0, 0, 1e-12, -1e-12])
    assert (weights_of(nearly) == weights_of(logits)).all(), "a rounding elsewhere changes no table"


@pytest.mark.parametrize(("height", "width"), [(16, 16), (33, 50), (1, 7)])
@pytest.mark.parametrize("label", [None, 1])
def test_a_picture_comes_back_as_the_tokenizer_has_it(codec: Codec, height: int, width: int, label: int | None) -> None:
    given = picture(height, width)
    file = codec.encode(given, label)
    squares = _squares(given, 16)
    assert len(squares) == -(-height // 16) * -(-width // 16)
    assert torch.equal(squares[0][:, : min(16, height), : min(16, width)], given[:, :16, :16])
    indices = codec.tokenizer.encode(to_float(squares))
    places, shape = codec.tokens(file)
    assert torch.equal(codec.generator.layout.to_indices(places), indices) and shape == (height, width)
    shown = codec.decode(file)
    assert shown.dtype == torch.uint8 and shown.shape == given.shape
    last = to_uint8(codec.tokenizer.decode(indices))[-1]
    rows, columns = (height - 1) % 16 + 1, (width - 1) % 16 + 1
    assert torch.equal(shown[:, height - rows :, width - columns :], last[:, :rows, :columns])
    labels = None if label is None else torch.full((len(squares),), label)
    bits = cross_entropy_bits(codec.generator, places, labels)
    assert 8 * (len(file) - HEADER_BYTES) < 1.01 * bits + 64


@pytest.mark.parametrize("quantizer", ["residual", "multiscale"])
def test_levels_are_kept_too(quantizer: str) -> None:
    options = {"num_levels": 2} if quantizer == "residual" else {"scales": [1, 2, 4]}
    tokenizer = toy_tokenizer(quantizer=quantizer, **options)
    codec, given = Codec(fitted(tokenizer), tokenizer), picture(32, 16)
    expected = to_uint8(tokenizer.decode(tokenizer.encode(to_float(_squares(given, 16)))))
    assert torch.equal(codec.decode(codec.encode(given)), torch.cat([expected[0], expected[1]], dim=1))


def test_a_damaged_file_is_never_shown(codec: Codec) -> None:
    file = codec.encode(picture(20, 20))
    with pytest.raises(ValueError, match="my.vtk is no file that `python -m vistok.compress` wrote"):
        codec.decode(b"PNG" + file, "my.vtk")
    with pytest.raises(ValueError, match="wrote"):
        codec.decode(b"")
    for place in range(4, len(file)):
        wrong = file[:place] + bytes([file[place] ^ 1]) + file[place + 1 :]
        with pytest.raises(ValueError, match="my.vtk is damaged"):
            codec.decode(wrong, "my.vtk")
        with pytest.raises(ValueError, match="damaged"):
            codec.decode(file[:place])


def test_a_file_of_another_generator_or_tokenizer_is_refused(codec: Codec) -> None:
    file = codec.encode(picture(16, 16))
    other = Codec(fitted(codec.tokenizer, seed=1, classes=["a", "b"], class_dropout=0.1), codec.tokenizer)
    with pytest.raises(ValueError, match="was written with another generator"):
        other.decode(file)
    another = Codec(codec.generator, toy_tokenizer(seed=1))
    with pytest.raises(ValueError, match="was written with another tokenizer"):
        another.decode(file)


def test_another_rounding_is_found_and_said(codec: Codec, monkeypatch: pytest.MonkeyPatch) -> None:
    """As on a processor whose sums differ so much that a table does."""
    file = codec.encode(picture(16, 16))

    def rounded_otherwise(logits: Tensor) -> object:
        return weights_of(logits * (1 + 1e-2))

    monkeypatch.setattr(coding, "weights_of", rounded_otherwise)
    with pytest.raises(
        ValueError, match="my.vtk is whole and this generator's, but its tokens come out otherwise here"
    ):
        codec.decode(file, "my.vtk")
    monkeypatch.undo()
    codec.decode(file)


def test_what_cannot_be_written(codec: Codec) -> None:
    with pytest.raises(ValueError, match=r"A picture is uint8 \[3, H, W\], not torch.float32 \[3, 8, 8\]"):
        codec.encode(torch.zeros(3, 8, 8))
    with pytest.raises(ValueError, match=r"A picture is a tensor, uint8 \[3, H, W\], not ndarray"):
        codec.encode(picture(16, 16).numpy())
    for height, width in ((1, 65_536), (20_000, 20_000)):
        with pytest.raises(ValueError, match=f"The picture has {width}x{height} pixels, but must have at most 65535 a"):
            codec.encode(torch.zeros(1, 1, 1, dtype=torch.uint8).expand(3, height, width))
    with pytest.raises(ValueError, match="labels holds 2, but a class must be at least 0 and at most 1"):
        codec.encode(picture(16, 16), 2)
    with pytest.raises(ValueError, match="The generator is masked"):
        encode_tokens(generator("masked"), places_of(generator("masked")))


def test_both_are_loaded_from_the_run(codec: Codec, tmp_path: Path) -> None:
    codec.generator.save(tmp_path / "generator")
    with pytest.raises(FileNotFoundError, match="keeps no tokenizer: name the one"):
        Codec.load(tmp_path)
    codec.tokenizer.save(tmp_path / "tokenizer")
    toy_tokenizer(seed=1).save(tmp_path / "other")
    loaded, given = Codec.load(tmp_path), picture(16, 16)
    assert loaded.marks == codec.marks and loaded.encode(given) == codec.encode(given)
    with pytest.raises(ValueError, match="was trained on tokens of another tokenizer"):
        Codec.load(tmp_path, tmp_path / "other")


def test_the_checksum_sees_every_token() -> None:
    places = places_of(generator())
    changed = places.clone()
    changed[2, 15, 0] ^= 1
    assert checksum(places) == checksum(places.clone()) != checksum(changed)
