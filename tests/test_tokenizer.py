"""VisualTokenizer: encode, decode, save, load."""

from pathlib import Path

import pytest
import torch

from vistok.config import TrainConfig
from vistok.tokenizer import VisualTokenizer

TOY = {
    "network_options": {"hidden_dim": 8, "num_res_blocks": 1},
    "quantizer_options": {"codebook_size": 16, "codebook_dim": 4},
    "image_size": 16,
}


def toy(quantizer: str = "vq") -> VisualTokenizer:
    torch.manual_seed(0)
    return VisualTokenizer(quantizer=quantizer, **TOY)


def images(count: int = 2) -> torch.Tensor:
    return torch.rand(count, 3, 16, 16, generator=torch.Generator().manual_seed(1)) * 2 - 1


@pytest.mark.parametrize("quantizer", ["vq", "ema"])
def test_encode_then_decode_is_the_forward_pass(quantizer: str) -> None:
    tokenizer = toy(quantizer).eval()
    output = tokenizer(images())
    assert torch.equal(tokenizer.encode(images()), output.indices)
    assert torch.equal(tokenizer.decode(output.indices), output.reconstruction.clamp(-1, 1))
    assert output.reconstruction.shape == (2, 3, 16, 16) and output.indices.shape == (2, 4, 4)


def test_encoding_changes_no_state_even_in_training_mode() -> None:
    tokenizer = toy("ema").train()
    before = {name: value.clone() for name, value in tokenizer.state_dict().items()}
    tokenizer.encode(images())
    assert tokenizer.training
    assert all(torch.equal(value, before[name]) for name, value in tokenizer.state_dict().items())


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
    (tmp_path / "config.json").write_text(config.replace('"codebook_dim": 4', '"codebook_dim": 5'))
    with pytest.raises(ValueError, match=r"another architecture: .*quantizer\.weight is \[16, 4\], not \[16, 5\]"):
        VisualTokenizer.load(tmp_path)


@pytest.mark.parametrize(
    ("wrong", "sentence"),
    [
        (torch.zeros(2, 3, 16, 16, dtype=torch.uint8), "to_float converts uint8"),
        (torch.zeros(3, 16, 16), r"must be float \[B, 3, H, W\]"),
        (torch.zeros(2, 1, 16, 16), r"must be float \[B, 3, H, W\]"),
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


def test_the_fields_of_the_configuration_that_describe_a_tokenizer() -> None:
    config = TrainConfig.from_row("imagenet256/llamagen", "smoke", dataset="photos")
    fields = VisualTokenizer.from_config(config).config_settings()
    assert fields == {name: getattr(config, name) for name in fields}
    again = VisualTokenizer.from_config(TrainConfig(**fields))
    assert again.settings == VisualTokenizer.from_config(config).settings
