"""VisualTokenizer: encode, decode, save, load."""

import copy
import dataclasses
import re
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from vistok.config import TrainConfig
from vistok.lessons.collapse import CollapseWatch
from vistok.networks import NETWORKS
from vistok.pretrained import load_pretrained
from vistok.quantizers import QUANTIZERS, has_codebook
from vistok.system.devices import eval_view
from vistok.tokenizer import VisualTokenizer
from vistok.tokens import encode_dataset
from vistok.tokens.codebook import interpolate
from vistok.tokens.encoded import EncodedImages

TOY = {
    "network_options": {"hidden_dim": 8, "num_res_blocks": 1},
    "quantizer_options": {"codebook_size": 16, "codebook_dim": 4},
    "image_size": 16,
}


def toy(quantizer: str = "vq") -> VisualTokenizer:
    torch.manual_seed(0)
    return VisualTokenizer(quantizer=quantizer, **TOY)


OPTIONS = {"fsq": {"codebook_dim": 2}, "multiscale": {"scales": [1, 2, 4]}}  # beside K = 16 and D = 4
NETWORK_OPTIONS = {
    "simple_cnn": {"hidden_dim": 8, "norm_out": True},
    "vit": {"hidden_dim": 32, "depth": 1, "num_heads": 2, "mlp_dim": 32, "patch_size": 4},
    "titok": {"hidden_dim": 32, "depth": 1, "num_heads": 2, "num_tokens": 5, "patch_size": 4},
}
every_quantizer = pytest.mark.parametrize("quantizer", [name for name in QUANTIZERS if has_codebook(name)])
every_bottleneck = pytest.mark.parametrize("quantizer", [name for name in QUANTIZERS if not has_codebook(name)])


def with_quantizer(quantizer: str, **options: Any) -> VisualTokenizer:
    torch.manual_seed(0)
    settings = TOY["quantizer_options"] | OPTIONS.get(quantizer, {}) | options
    return VisualTokenizer(quantizer=quantizer, **TOY | {"quantizer_options": settings})


def with_network(network: str) -> VisualTokenizer:
    torch.manual_seed(0)
    options = NETWORK_OPTIONS.get(network, {"hidden_dim": 32, "ch_mult": [1, 2]})
    return VisualTokenizer(network=network, **TOY | {"network_options": options})


def same(levels: tuple[Tensor, ...], others: tuple[Tensor, ...]) -> bool:
    return all(map(torch.equal, levels, others)) and len(levels) == len(others)


@pytest.fixture
def default_dtype() -> Iterator[Callable[[torch.dtype], None]]:
    """Set torch's default dtype, which is put back at the end."""
    before = torch.get_default_dtype()
    yield torch.set_default_dtype
    torch.set_default_dtype(before)


def images(count: int = 2) -> torch.Tensor:
    return torch.rand(count, 3, 16, 16, generator=torch.Generator().manual_seed(1)) * 2 - 1


@pytest.mark.parametrize("quantizer", ["vq", "ema"])
def test_encode_then_decode_is_the_forward_pass(quantizer: str) -> None:
    tokenizer = toy(quantizer).eval()
    output = tokenizer(images())
    assert torch.equal(tokenizer.encode(images()), output.indices)
    assert torch.equal(tokenizer.decode(output.indices), output.reconstruction.clamp(-1, 1))
    assert output.reconstruction.shape == (2, 3, 16, 16) and output.indices.shape == (2, 4, 4)


# Looking: as in eval mode, and nothing is touched.


@every_quantizer
def test_looking_in_training_mode_is_as_in_eval_mode_and_changes_nothing(
    quantizer: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    tokenizer = with_quantizer(quantizer)
    expected = copy.deepcopy(tokenizer).eval()
    state = {name: value.clone() for name, value in tokenizer.train().state_dict().items()}
    tokenizer.quantizer.eval()  # a freeze, which is its owner's
    modes = [module.training for module in tokenizer.modules()]
    numbers = torch.get_rng_state()

    def fail(*_: object) -> None:
        raise AssertionError("a mode is set")

    monkeypatch.setattr(nn.Module, "train", fail)  # `eval()` calls it too
    for part in ("the freeze", "in training"):
        indices = tokenizer.encode(images())
        levels = tokenizer.encode_levels(images())
        assert same(levels, expected.encode_levels(images()))
        assert torch.equal(tokenizer.decode(indices), expected.decode(indices))
        torch.testing.assert_close(interpolate(tokenizer, levels, levels, 0.0), tokenizer.decode(indices))
        interpolate(tokenizer, levels, levels, 0.5, to_codes=True)
        if len(tokenizer.quantizer.codebook_sizes) == 1:
            CollapseWatch(tokenizer, images())
        assert [module.training for module in tokenizer.modules()] == modes, part
        for module in tokenizer.quantizer.modules():
            module.training = True
        modes = [module.training for module in tokenizer.modules()]
    assert all(torch.equal(value, state[name]) for name, value in tokenizer.state_dict().items())
    assert torch.equal(torch.get_rng_state(), numbers)


def test_networks_whose_training_differs_are_looked_at_as_in_eval_mode() -> None:
    tokenizer = toy()
    last = nn.Sequential(nn.BatchNorm2d(4), nn.Dropout(0.5))
    last.downsample_factor = 4
    grid, tokenizer.encoder = tokenizer.encoder.grid, nn.Sequential(tokenizer.encoder, last)
    tokenizer.encoder.grid = grid
    tokenizer.train()
    expected = copy.deepcopy(tokenizer).eval().encode(images())
    assert torch.equal(tokenizer.encode(images()), expected)
    assert int(last[0].num_batches_tracked) == 0
    tokenizer.encoder = torch.compile(tokenizer.encoder, backend="eager")  # its forward pass is bound to what it wraps
    assert torch.equal(tokenizer.encode(images()), expected)
    assert int(last[0].num_batches_tracked) == 0


def test_a_view_shares_weights_and_not_what_is_hooked_to_it() -> None:
    tokenizer = toy().train()
    view = eval_view(tokenizer)
    assert all(a is b for a, b in zip(view.parameters(), tokenizer.parameters(), strict=True))
    view.encoder.register_forward_hook(lambda *_: pytest.fail("the hook of a view"))
    tokenizer.encode(images())


def test_a_training_beside_four_threads_that_look_is_a_training_alone() -> None:
    def trained(looks: int) -> dict[str, Tensor]:
        tokenizer = with_quantizer("ema", revive_after=3).train()
        optimizer = torch.optim.SGD(tokenizer.parameters(), lr=0.1)
        ended, begun = threading.Event(), threading.Barrier(looks + 1)
        errors: list[BaseException] = []

        def look() -> None:
            begun.wait()
            try:
                while not ended.is_set():
                    tokenizer.decode(tokenizer.encode(images()))
            except BaseException as error:
                errors.append(error)

        threads = [threading.Thread(target=look) for _ in range(looks)]
        for thread in threads:
            thread.start()
        begun.wait()
        torch.manual_seed(0)  # revival draws
        for step in range(40):
            batch = torch.rand(4, 3, 16, 16, generator=torch.Generator().manual_seed(step)) * 2 - 1
            output = tokenizer(batch)
            (output.reconstruction.sub(batch).square().mean() + output.losses["commitment"]).backward()
            optimizer.step()
            optimizer.zero_grad()
        ended.set()
        for thread in threads:
            thread.join()
        assert not errors
        return tokenizer.state_dict()

    alone, beside = trained(0), trained(4)
    assert all(torch.equal(value, alone[name]) for name, value in beside.items())


# What is taken, and what is refused.


DTYPES = [torch.bfloat16, torch.float16, torch.float64]


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@every_quantizer
def test_every_quantizer_works_in_networks_of_another_precision(quantizer: str, dtype: torch.dtype) -> None:
    tokenizer = with_quantizer(quantizer).to(dtype).eval()
    assert all(
        value.dtype == torch.float32 for value in tokenizer.quantizer.state_dict().values() if value.is_floating_point()
    )
    indices = tokenizer.encode(images())
    decoded = tokenizer.decode(indices)
    assert decoded.dtype == dtype and decoded.shape == (2, 3, 16, 16)
    output = tokenizer.train()(images())
    assert output.reconstruction.dtype == dtype and output.codes.dtype == torch.float32
    output.reconstruction.float().mean().backward()
    assert all(value.isfinite().all() for value in tokenizer.state_dict().values())


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("network", NETWORKS)
def test_every_network_works_in_another_precision(network: str, dtype: torch.dtype) -> None:
    exact = with_network(network)
    tokenizer = copy.deepcopy(exact).to(dtype)
    output, expected = tokenizer(images()), exact(images())
    assert output.reconstruction.dtype == dtype
    torch.testing.assert_close(output.z.float(), expected.z, atol=0.1, rtol=0.1)
    output.reconstruction.float().mean().backward()
    assert tokenizer.decode(tokenizer.encode(images()[:0])).shape == (0, 3, 16, 16)


@pytest.mark.parametrize("quantizer", ["vq", "residual"])
def test_tokens_of_a_sequence(quantizer: str, tmp_path: Path) -> None:
    torch.manual_seed(0)
    settings = TOY | {"network": "titok", "network_options": NETWORK_OPTIONS["titok"], "quantizer": quantizer}
    tokenizer = VisualTokenizer(**settings).eval()
    assert tokenizer.is_sequence and not toy().is_sequence
    levels, output = tokenizer.encode_levels(images()), tokenizer(images())
    assert [level.shape for level in levels] == [(2, 1, 5)] * len(tokenizer.quantizer.codebook_sizes)
    assert tokenizer.token_grids() == [(1, 5)] * len(levels) and output.z.shape == (2, 4, 1, 5)
    decoded = tokenizer.decode(levels)
    assert torch.equal(decoded, output.reconstruction.clamp(-1, 1))
    assert torch.equal(tokenizer.decode(torch.cat([level.flatten(1) for level in levels], dim=1)), decoded)
    tokenizer.save(tmp_path)
    again = VisualTokenizer.load(tmp_path)
    assert same(again.encode_levels(images()), levels) and torch.equal(again.decode(levels), decoded)
    encoded = EncodedImages.open(again, images(), progress=False)
    assert [level.shape for level in encoded.tokens] == [(2, 1, 5)] * len(levels) and np.isfinite(
        encoded.psnr([0])
    ).all()


def test_the_first_tokens_of_a_sequence_are_a_picture() -> None:
    tokenizer = with_network("titok").eval()
    indices = tokenizer.encode(images())
    part = tokenizer.decode(indices[..., :2])
    assert part.shape == (2, 3, 16, 16) and not torch.equal(part, tokenizer.decode(indices))
    for given in (indices[:, 0, :2], indices[:, 0, :2].tolist(), indices[..., :2].numpy().astype(np.uint16)):
        assert torch.equal(tokenizer.decode(given), part)
    output = tokenizer(images(), num_tokens=2)
    assert torch.equal(output.reconstruction.clamp(-1, 1), part) and torch.equal(output.indices, indices)
    assert torch.equal(tokenizer(images(), num_tokens=5).reconstruction, tokenizer(images()).reconstruction)


@pytest.mark.parametrize(
    ("network", "num_tokens", "sentence"),
    [
        ("titok", 6, "num_tokens is 6, but an image is 5 tokens: the most is 5."),
        ("titok", 0, "num_tokens is 0, but must be at least 1."),
        (
            "simple_cnn",
            3,
            "num_tokens is 3, but tokens of 'simple_cnn' lie on a grid, which has no beginning: leave it out.",
        ),
    ],
)
def test_numbers_of_tokens_that_there_are_not(network: str, num_tokens: int, sentence: str) -> None:
    tokenizer = with_network(network)
    with pytest.raises(ValueError, match=re.escape(sentence)):
        tokenizer(images(), num_tokens=num_tokens)


@pytest.mark.parametrize("network", ["simple_cnn", "titok"])
def test_proxies_of_a_network_that_predicts_none(network: str) -> None:
    with pytest.raises(ValueError, match=f"proxies are .* and network '{network}' has none here: a titok has one by"):
        with_network(network)(images(), proxies=True)


def sequence_of(quantizer: str, quantizer_options: dict[str, Any], **network_options: Any) -> VisualTokenizer:
    options = NETWORK_OPTIONS["titok"] | network_options
    return VisualTokenizer(
        network="titok",
        network_options=options,
        quantizer=quantizer,
        quantizer_options=quantizer_options,
        image_size=16,
    )


def test_the_beginning_of_a_sequence_without_a_codebook() -> None:
    tokenizer = sequence_of("none", {"codebook_dim": 4}, prefixes="uniform").eval()
    whole, part = tokenizer(images()), tokenizer(images(), num_tokens=2)
    assert torch.equal(part.reconstruction.clamp(-1, 1), tokenizer.decode_codes(whole.codes[..., :2]))
    with pytest.raises(ValueError, match="num_tokens is 6, but an image is 5 tokens: the most is 5"):
        tokenizer(images(), num_tokens=6)


def test_levels_of_several_lengths_are_not_trained_on_their_beginnings() -> None:
    codes = {"codebook_size": 16, "codebook_dim": 4}
    sequence_of("residual", codes | {"num_levels": 2}, prefixes="powers")
    with pytest.raises(ValueError, match="prefixes is 'powers', but the levels of quantizer 'multiscale' have several"):
        sequence_of("multiscale", codes, prefixes="powers")


@pytest.mark.parametrize("name", ["image_size", "codebook_dim"])
def test_settings_of_their_own_are_no_options_of_the_network(name: str) -> None:
    with pytest.raises(ValueError, match=f"network_options holds '{name}', which is a setting of its own"):
        VisualTokenizer(network_options={name: 16}, quantizer_options={"codebook_size": 16, "codebook_dim": 4})


def test_more_tokens_than_a_sequence_has_are_refused() -> None:
    tokenizer = with_network("titok")
    for shape in ((2, 6), (2, 1, 6), (2, 2, 3)):
        with pytest.raises(ValueError, match=r"\[B, 1, 5\] or \[B, 5\]|1x1 to 1x5 are"):
            tokenizer.decode(torch.zeros(shape, dtype=torch.int64))
    with pytest.raises(ValueError, match="Images of 20x20 pixels have no learned positions, only 16x16 have"):
        tokenizer.encode(torch.zeros(1, 3, 20, 20))


def test_images_and_the_default_dtype_may_be_float64(default_dtype: Callable[[torch.dtype], None]) -> None:
    tokenizer = toy().eval()
    indices = tokenizer.encode(images())
    assert torch.equal(tokenizer.encode(images().double()), indices)
    for dtype in DTYPES:
        default_dtype(dtype)
        assert torch.equal(tokenizer.encode(images().double()), indices)
        new = toy().eval()
        assert {value.dtype for value in new.state_dict().values()} == {torch.float32}
        assert new(images()).reconstruction.dtype == torch.float32


@every_quantizer
def test_no_images_have_no_tokens(quantizer: str) -> None:
    tokenizer = with_quantizer(quantizer).eval()
    full, empty = tokenizer.encode_levels(images()), tokenizer.encode_levels(images(0))
    assert [(0, *level.shape[1:]) for level in full] == [tuple(level.shape) for level in empty]
    assert tokenizer.decode(tokenizer.encode(images(0))).shape == (0, 3, 16, 16)


@every_bottleneck
def test_without_a_codebook_images_go_through_and_tokens_are_refused(quantizer: str, tmp_path: Path) -> None:
    config = TrainConfig(quantizer=quantizer, codebook_dim=4, hidden_dim=8, num_res_blocks=1, image_size=16)
    torch.manual_seed(0)
    tokenizer = VisualTokenizer.from_config(config)
    assert tokenizer.config_settings()["codebook_dim"] == 4 and "codebook_size" not in tokenizer.config_settings()
    tokenizer.train()(images()).reconstruction.mean().backward()
    assert all(parameter.grad is not None for parameter in tokenizer.encoder.parameters())
    tokenizer.eval().save(tmp_path)
    output, loaded = tokenizer(images()), VisualTokenizer.load(tmp_path)
    assert (output.levels, output.indices) == ((), ())
    assert torch.equal(loaded(images()).reconstruction, output.reconstruction)
    torch.testing.assert_close(tokenizer.decode_codes(output.codes), output.reconstruction.clamp(-1, 1))
    for wrong in (output.codes[0], output.codes[:, :1]):
        with pytest.raises(ValueError, match=rf"Codes are .*, but must be \[B, {output.codes.shape[1]}, h, w\]"):
            tokenizer.decode_codes(wrong)
    for ask in (
        lambda: tokenizer.encode(images()),
        lambda: tokenizer.encode_levels(images()),
        lambda: tokenizer.decode(torch.zeros(2, 4, 4, dtype=torch.int64)),
        lambda: EncodedImages.open(tokenizer, images()),
        lambda: EncodedImages(tokenizer, images(), ()),
        lambda: encode_dataset(tokenizer, "photos", tmp_path / "tokens"),
    ):
        with pytest.raises(ValueError, match="has no codebook, and so there are no tokens") as refused:
            ask()
        assert "\n" not in str(refused.value)
    assert not (tmp_path / "tokens").exists()
    with pytest.raises(ValueError, match=f"quantizer '{quantizer}' has no option 'codebook_size'"):
        VisualTokenizer.from_config(dataclasses.replace(config, codebook_size=1024))


GIVEN: dict[str, Callable[[Tensor], Any]] = {
    "rows": lambda indices: indices.flatten(1),
    "uint16": lambda indices: indices.to(torch.uint16),
    "int32": lambda indices: indices.int(),
    "an array": lambda indices: indices.numpy(),
    "an array of uint16": lambda indices: indices.numpy().astype(np.uint16),
    "a read-only array of rows": lambda indices: np.broadcast_to(indices.numpy().reshape(2, 16), (2, 16)),
    "lists": lambda indices: indices.tolist(),
    "lists of rows": lambda indices: indices.flatten(1).tolist(),
    "a list of grids": list,
    "a list of rows": lambda indices: list(indices.flatten(1).numpy()),
    "a tuple of one level": lambda indices: (indices,),
    "a list of one level": lambda indices: [indices.numpy()],
}


@pytest.mark.parametrize("given", GIVEN)
def test_decode_takes_what_generators_give(given: str) -> None:
    tokenizer = toy()
    indices = tokenizer.encode(images())
    expected = tokenizer.decode(indices)
    assert torch.equal(tokenizer.decode(GIVEN[given](indices)), expected)


def test_decode_takes_one_image_of_the_tokenizers_own_grid() -> None:
    tokenizer = toy()
    indices = tokenizer.encode(images())
    expected = tokenizer.decode(indices[:1])
    for one in (
        indices[0],
        indices[0].numpy(),
        indices[0].tolist(),
        indices[0].flatten(),
        indices[0].flatten().tolist(),
    ):
        assert torch.equal(tokenizer.decode(one), expected)


LEVELS: dict[str, Callable[[tuple[Tensor, ...]], Any]] = {
    "a list": list,
    "arrays": lambda levels: [level.numpy().astype(np.uint16) for level in levels],
    "lists": lambda levels: [level.tolist() for level in levels],
    "rows of each level": lambda levels: tuple(level.flatten(1) for level in levels),
    "rows of all levels": lambda levels: torch.cat([level.flatten(1) for level in levels], 1).to(torch.uint16),
    "an array of them": lambda levels: torch.cat([level.flatten(1) for level in levels], 1).numpy().astype(np.uint16),
    "lists of them": lambda levels: torch.cat([level.flatten(1) for level in levels], 1).tolist(),
}


@pytest.mark.parametrize("given", LEVELS)
@pytest.mark.parametrize("quantizer", ["residual", "grouped", "multiscale"])
def test_decode_takes_several_levels_as_generators_give_them(quantizer: str, given: str) -> None:
    tokenizer = with_quantizer(quantizer)
    count = len(tokenizer.quantizer.codebook_sizes)  # as many images as levels: rows are not mistaken for levels
    levels = tokenizer.encode(images(count))
    assert torch.equal(tokenizer.decode(LEVELS[given](levels)), tokenizer.decode(levels))


def test_one_level_of_a_quantizer_that_can_have_several_is_a_tuple_or_not() -> None:
    tokenizer = with_quantizer("residual", num_levels=1)
    indices, levels = tokenizer.encode(images()), tokenizer.encode_levels(images())
    assert len(levels) == 1 and torch.equal(indices, levels[0])
    assert torch.equal(tokenizer.decode(indices), tokenizer.decode(levels))


def test_what_is_no_beginning_of_a_sequence_is_told_what_one_is() -> None:
    options = {"hidden_dim": 8, "depth": 1, "num_heads": 2, "patch_size": 4, "num_tokens": 5}
    quantizer = {"codebook_size": 16, "codebook_dim": 4}
    tokenizer = VisualTokenizer(network="titok", network_options=options, quantizer_options=quantizer, image_size=8)
    for wrong in (torch.zeros(1, 0, dtype=torch.int64), [1, 2], torch.zeros(1, 3)):
        with pytest.raises(
            ValueError, match=r"\[B, 1, 5\] or \[B, 5\] or the first n, \[B, 1, n\] or \[B, n\] with n from 1 to 5"
        ):
            tokenizer.decode(wrong)


ONE_LEVEL = r"Indices must be integers in \[0, 16\), \[B, 4, 4\] or \[B, 16\] or another \[B, h, w\], not "


@pytest.mark.parametrize(
    ("wrong", "sentence"),
    [
        (torch.zeros(2, 4, 4), ONE_LEVEL + r"torch\.float32 \[2, 4, 4\]\. Whole numbers become indices"),
        (np.zeros((2, 16)), ONE_LEVEL + r"float64 \[2, 16\]"),
        (torch.zeros(2, 4, 4, dtype=torch.bool), ONE_LEVEL + r"torch\.bool \[2, 4, 4\]"),
        (torch.zeros(2, 25, dtype=torch.int64), ONE_LEVEL + r"torch\.int64 \[2, 25\]"),
        (torch.zeros(2, 1, 4, 4, dtype=torch.int64), ONE_LEVEL + r"torch\.int64 \[2, 1, 4, 4\]"),
        (torch.zeros(2, 4, 0, dtype=torch.int64), ONE_LEVEL + r"torch\.int64 \[2, 4, 0\]"),
        (torch.zeros(2, 0, 4, dtype=torch.int64), ONE_LEVEL + r"torch\.int64 \[2, 0, 4\]"),
        (torch.tensor(3), ONE_LEVEL + r"torch\.int64 \[\]"),
        (3, ONE_LEVEL + "int"),
        (None, ONE_LEVEL + "NoneType"),
        ([], ONE_LEVEL + "an empty list"),
        ([[1, 2], [3]], ONE_LEVEL + "2 parts"),
        ([["a"]], ONE_LEVEL),
        ([torch.zeros(2, 4, 4, dtype=torch.int64)] * 2, "There are 2 levels of indices, but the tokenizer has 1"),
        (np.full((1, 4, 4), 2**63, np.uint64), "is outside of this tokenizer's codebook"),
    ],
)
def test_indices_that_mean_nothing_plain_are_refused(wrong: object, sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        toy().decode(wrong)


def test_levels_that_do_not_fit_are_refused() -> None:
    tokenizer = with_quantizer("multiscale")
    coarse, middle, fine = tokenizer.encode(images())
    several = r"a tuple of 3, \[B, 1, 1\], \[B, 2, 2\], \[B, 4, 4\], or one \[B, 21\], not "
    for wrong, sentence in (
        (fine, several + r"torch\.int64 \[2, 4, 4\]"),
        ([level.float() for level in (coarse, middle, fine)], several + r"3 parts: torch\.float32 \[2, 1, 1\]"),
        ((coarse, fine), "There are 2 levels of indices, but the tokenizer has 3"),
        ((coarse[:1], middle, fine), "The levels are of 1 and 2 and 2 images"),
        ((fine, middle, coarse), r"The levels of indices are \[2, 4, 4\], .* but those whose last is \[2, 1, 1\]"),
    ):
        with pytest.raises(ValueError, match=sentence):
            tokenizer.decode(wrong)


def test_images_may_be_arrays_and_go_a_little_beyond() -> None:
    tokenizer = toy()
    expected = tokenizer.encode(images())
    for given in (
        images().numpy(),
        images().double().numpy(),
        np.flip(images().flip(3).numpy(), 3),
        images().numpy().astype(">f4"),  # as some formats of files have it
    ):
        assert torch.equal(tokenizer.encode(given), expected)
    checked = torch.ones(1, 1, 8, 8)
    checked[..., ::2, ::2] = checked[..., 1::2, 1::2] = -1
    enlarged = nn.functional.interpolate(checked.expand(-1, 3, -1, -1), (16, 16), mode="bicubic")
    assert enlarged.max() > 1.05
    tokenizer.encode(enlarged)


@pytest.mark.parametrize(
    ("wrong", "sentence"),
    [
        ((images() + 1) * 127.5, r"reach from .* to 25\d.*: images / 127\.5 - 1 maps \[0, 255\] there"),
        (torch.full((1, 3, 16, 16), -2.1), "mean 0.5 and standard deviation 0.5"),
        (images() * 127, r"Images must be in \[-1, 1\], but these reach from -12"),
        (images() * torch.nan, "hold NaN"),
        (images() / 0, "reach from -inf to inf"),
    ],
)
def test_images_clearly_out_of_range_are_refused(wrong: Tensor, sentence: str) -> None:
    for look in (toy().encode, toy().eval(), toy().train(), toy().check_images, toy().half().encode):
        with pytest.raises(ValueError, match=sentence):
            look(wrong)


@pytest.mark.parametrize("quantizer", ["vq", "ema"])
def test_saving_and_loading_keeps_every_index(tmp_path: Path, quantizer: str) -> None:
    tokenizer = toy(quantizer).to(memory_format=torch.channels_last)
    tokenizer.save(tmp_path / "saved")
    loaded = VisualTokenizer.load(tmp_path / "saved")
    assert not loaded.training and loaded.settings == tokenizer.settings
    assert torch.equal(loaded.encode(images(8)), tokenizer.encode(images(8)))
    assert sorted(p.name for p in (tmp_path / "saved").iterdir()) == ["config.json", "model.safetensors"]


def test_a_run_directory_can_be_loaded(tmp_path: Path) -> None:
    toy().save(tmp_path / "tokenizer")
    assert VisualTokenizer.load(tmp_path).image_size == 16


def test_loading_from_nowhere_says_what_is_expected(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"There is no tokenizer in .*model\.safetensors and config\.json"):
        VisualTokenizer.load(tmp_path)


def test_weights_of_another_architecture_are_refused_by_name(tmp_path: Path) -> None:
    tokenizer = toy()
    tokenizer.save(tmp_path)
    config = (tmp_path / "config.json").read_text()
    (tmp_path / "config.json").write_text(config.replace('"codebook_dim": 4', '"codebook_dim": "4"'))
    with pytest.raises(
        ValueError, match=f"The tokenizer in {tmp_path} cannot be built: .*codebook_dim is '4' \\(str\\)"
    ):
        VisualTokenizer.load(tmp_path)
    (tmp_path / "config.json").write_text(config.replace('"codebook_dim": 4', '"codebook_dim": 5'))
    with pytest.raises(ValueError, match=r"another architecture: .*quantizer\.weight is \[16, 4\], not \[16, 5\]"):
        VisualTokenizer.load(tmp_path)


@pytest.mark.parametrize(
    ("wrong", "sentence"),
    [
        (torch.zeros(2, 3, 16, 16, dtype=torch.uint8), "to_float converts uint8"),
        (torch.zeros(2, 16, 16, 3, dtype=torch.uint8), r"to_float\(images\.permute\(0, 3, 1, 2\)\)"),
        (torch.zeros(2, 3, 16, 16, dtype=torch.int64), r"to_float converts int64 in \[0, 255\]"),
        (np.zeros((2, 3, 16, 16), np.uint8), "to_float converts uint8"),
        (torch.zeros(3, 16, 16), r"must be float \[B, 3, H, W\] .* not .* \[3, 16, 16\]\. .* images\[None\]"),
        (torch.zeros(2, 1, 16, 16), r"must be float \[B, 3, H, W\] .* images\.expand\(-1, 3, -1, -1\)"),
        (torch.zeros(2, 4, 16, 16), r"images\[:, :3\]"),
        (torch.zeros(2, 16, 16, 3), r"images\.permute\(0, 3, 1, 2\)"),
        (torch.zeros(16, 16, 3), r"images\.permute\(2, 0, 1\)\[None\]"),
        ([1.0], r"must be a float tensor \[B, 3, H, W\] in \[-1, 1\], not list"),
        (torch.zeros(2, 3, 18, 16), "18 is not divisible by the downsample factor 4 .* nearest that is: 16"),
    ],
)
def test_images_that_do_not_fit_are_refused(wrong: torch.Tensor, sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        toy().encode(wrong)


@pytest.mark.parametrize("index", [-1, 16])
def test_indices_outside_of_the_codebook_are_refused(index: int) -> None:
    with pytest.raises(ValueError, match=rf"Index {index} is outside of this tokenizer's codebook: \[0, 16\)"):
        toy().decode(torch.full((1, 4, 4), index))


def test_other_multiples_of_the_factor_work() -> None:
    assert toy().encode(torch.zeros(1, 3, 24, 32)).shape == (1, 6, 8)


def test_an_image_size_that_cannot_be_halved_is_refused_with_the_nearest() -> None:
    with pytest.raises(ValueError, match="image_size 66 is not divisible .* nearest that is: 64"):
        VisualTokenizer.from_config(TrainConfig(image_size=66))


def test_an_odd_width_is_refused() -> None:
    with pytest.raises(ValueError, match="hidden_dim is 7, but simple_cnn halves it: take 8"):
        VisualTokenizer.from_config(TrainConfig(hidden_dim=7))


def test_the_hubs_mixin_reads_what_it_wrote(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    tokenizer = VisualTokenizer(
        network_options={"hidden_dim": 8},
        quantizer_options={"codebook_size": 16, "codebook_dim": 4, "l2_norm": True},
        image_size=16,
    ).eval()
    images = torch.rand(2, 3, 16, 16) * 2 - 1
    tokenizer.save_pretrained(tmp_path / "saved")
    assert {"config.json", "model.safetensors"} <= {path.name for path in (tmp_path / "saved").iterdir()}
    again = VisualTokenizer.from_pretrained(tmp_path / "saved")
    assert torch.equal(again.encode(images), tokenizer.encode(images))
    assert again.settings == tokenizer.settings
    assert not again.training
    monkeypatch.chdir(tmp_path)  # a relative folder is the caller's, as everywhere on the Hub
    assert torch.equal(VisualTokenizer.from_pretrained("saved").encode(images), tokenizer.encode(images))
    plain = VisualTokenizer.load(tmp_path / "saved")
    assert torch.equal(plain.encode(images), tokenizer.encode(images))


@pytest.mark.parametrize("name", ["{}/nowhere", "runs/vq-d8/tokenizer", "~/nowhere", "{}/model.safetensors"])
def test_a_folder_that_is_not_there_is_no_name_on_the_hub(tmp_path: Path, name: str) -> None:
    toy().save(tmp_path)
    with pytest.raises(FileNotFoundError, match="There is no directory .*, and on the Hub a name is 'owner/name'"):
        VisualTokenizer.from_pretrained(name.format(tmp_path))


def test_from_pretrained_finds_the_repositorys_folders_from_anywhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """From notebooks/, say, where runs/<run> would be asked for on the Hub."""
    toy().save(tmp_path / "repository" / "runs" / "mine")
    monkeypatch.setattr("vistok.system.paths.repository_root", lambda: tmp_path / "repository")
    monkeypatch.setattr("vistok.system.hub.snapshot_download", lambda *_, **__: pytest.fail("the Hub was asked"))
    monkeypatch.chdir(tmp_path)
    assert VisualTokenizer.from_pretrained("runs/mine").image_size == toy().image_size


def test_loading_puts_the_networks_into_another_precision(tmp_path: Path) -> None:
    tokenizer = toy("ema")
    tokenizer.save(tmp_path)
    for loaded in (
        VisualTokenizer.load(tmp_path, dtype=torch.bfloat16),
        load_pretrained(tmp_path, dtype="bfloat16"),
        VisualTokenizer.from_pretrained(tmp_path, dtype=torch.bfloat16, device="cpu"),
        VisualTokenizer.from_pretrained(tmp_path, torch_dtype="torch.bfloat16", device_map="auto"),
        VisualTokenizer.from_pretrained(tmp_path, torch_dtype="bfloat16", dtype=torch.bfloat16),
    ):
        assert {parameter.dtype for parameter in loaded.encoder.parameters()} == {torch.bfloat16}
        assert loaded.quantizer.ema_sum.dtype == torch.float32 and not loaded.training
    assert all(weight.is_meta for weight in VisualTokenizer.from_pretrained(tmp_path, device="meta").parameters())


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"torch_dtyp": torch.float16}, "from_pretrained has no option 'torch_dtyp'; did you mean 'torch_dtype'?"),
        ({"typo": 1}, "from_pretrained has no option 'typo'; .*Known: .*device"),
        ({"image_size": 32}, "from_pretrained has no option 'image_size'"),  # of config.json, which holds another
        ({"dtype": "float61"}, "dtype is 'float61'; did you mean 'float16'?"),
        ({"torch_dtype": torch.int64}, "dtype is 'int64'; .*Known: bfloat16"),
        (
            {"dtype": "float16", "torch_dtype": "float32"},
            "dtype is .*float16.* and torch_dtype is .*float32.*: give one",
        ),
        ({"device": "gpu"}, "device is 'gpu', but there is no such one here"),
        ({"device": "cpu", "device_map": "meta"}, "device is 'cpu' and device_map is 'meta': give one"),
        ({"device_map": {"": 0}}, "device is .*, but there is no such one here"),
    ],
)
def test_options_of_from_pretrained_are_heard_or_refused(tmp_path: Path, options: dict, sentence: str) -> None:
    toy().save(tmp_path)
    with pytest.raises(ValueError, match=sentence):
        VisualTokenizer.from_pretrained(tmp_path, **options)


def test_the_fields_of_the_configuration_that_describe_a_tokenizer() -> None:
    config = TrainConfig.from_row("imagenet256/llamagen", "smoke", dataset="photos")
    fields = VisualTokenizer.from_config(config).config_settings()
    assert fields == {name: getattr(config, name) for name in fields}
    again = VisualTokenizer.from_config(TrainConfig(**fields))
    assert again.settings == VisualTokenizer.from_config(config).settings


def test_options_without_a_default_are_asked_for_by_name() -> None:
    with pytest.raises(ValueError, match="The quantizer 'vq' needs codebook_size and codebook_dim: no value is given."):
        VisualTokenizer()
    with pytest.raises(ValueError, match="The quantizer 'vq' needs codebook_dim: no value is given."):
        VisualTokenizer(quantizer_options={"codebook_size": 4})
