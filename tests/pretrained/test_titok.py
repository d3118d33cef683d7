"""TiTok's checkpoints: every name of the official files, parity with the original, damaged and hostile files."""

import json
import re
from pathlib import Path

import pytest
import torch
from helpers.golden import GOLDEN
from safetensors.torch import load_file, save_file
from torch import Tensor

from vistok.pretrained import find_format, load_pretrained, reference_checkpoints
from vistok.tokenizer import VisualTokenizer

MANIFESTS = {
    "manifest_titok_l32": (32, 1024, 24),
    "manifest_titok_b64": (64, 768, 12),
    "manifest_titok_s128": (128, 512, 8),
}


def of_file(name: str) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """The original's outputs, and its state dict, its images made 256 pixels large as all published ones are for."""
    golden = load_file(GOLDEN / f"model_{name}.safetensors")
    state = {k.removeprefix("state."): v for k, v in golden.items() if k.startswith("state.")}
    for side in ("encoder", "decoder"):
        positions = state[f"{side}.positional_embedding"]
        state[f"{side}.positional_embedding"] = torch.cat([positions, positions[1:].repeat(15, 1)])  # 4x4 to 16x16
    return golden, state


@pytest.mark.parametrize("manifest", MANIFESTS)
def test_every_name_and_shape_of_the_official_files_is_accepted(manifest: str, tmp_path: Path) -> None:
    tokens, width, depth = MANIFESTS[manifest]
    shapes = json.loads((GOLDEN / f"{manifest}.json").read_text())["tensors"]
    assert find_format(shapes) == "titok"
    state = {name: torch.zeros(()).expand(shape) for name, shape in shapes.items()}  # one number a tensor
    torch.save(state, tmp_path / "titok.bin")
    tokenizer = load_pretrained(tmp_path / "titok.bin", device="meta")
    assert (tokenizer.quantizer.codebook_size, tokenizer.quantizer.codebook_dim) == (4096, 12)
    assert tokenizer.quantizer.l2_norm and tokenizer.encoder.legacy and tokenizer.image_size == 256
    assert tokenizer.token_grids() == [(1, tokens)] and len(tokenizer.state_dict()) == len(shapes)
    blocks = tokenizer.decoder.side.blocks
    assert (len(blocks), blocks[0].num_heads, blocks[0].norm1.normalized_shape) == (depth, width // 64, (width,))
    assert sum(value.numel() for value in tokenizer.state_dict().values()) == sum(
        torch.Size(shape).numel() for shape in shapes.values()
    )
    del state[name := "encoder.transformer.1.mlp.c_fc.bias"]
    torch.save(state, tmp_path / "titok.bin")
    with pytest.raises(ValueError, match=re.escape(f"{name} is missing")):
        load_pretrained(tmp_path / "titok.bin", device="meta")


@pytest.mark.parametrize(("name", "format"), [("titok_stage2", "titok"), ("titok_pixels", "titok-pixels")])
def test_a_file_is_the_original_and_goes_round(name: str, format: str, tmp_path: Path) -> None:
    golden, state = of_file(name)
    save_file(state, tmp_path / "file.safetensors")
    assert find_format(state) == format
    tokenizer = load_pretrained(tmp_path / "file.safetensors", l2_norm=True)
    own = tokenizer.state_dict()
    assert len(own) == len(state) and sum(map(torch.numel, own.values())) == sum(map(torch.numel, state.values()))
    # The golden files have heads of 16 channels and images of 64 pixels, which no published file has.
    options = tokenizer.settings["network_options"] | {"num_heads": 4, "decoder_num_heads": 4}
    small = VisualTokenizer(**tokenizer.settings | {"network_options": options, "image_size": 64})
    for side in ("encoder.side.", "decoder.side."):
        own[f"{side}patch_positions"] = own[f"{side}patch_positions"][:17]
    small.load_state_dict(own)
    small.eval()
    images = golden["x"] * 2 - 1
    with torch.no_grad():
        output = small(images)
    torch.testing.assert_close(output.z, golden["z"], atol=1e-4, rtol=0)
    assert torch.equal(output.indices, golden["indices"])
    expected = (2 * golden["reconstruction"] - 1).clamp(-1, 1)
    torch.testing.assert_close(small.decode(golden["indices"]), expected, atol=2e-4, rtol=0)
    tokenizer.save(tmp_path / "own")
    pictures = torch.rand(2, 3, 256, 256, generator=torch.Generator().manual_seed(0)) * 2 - 1
    again = load_pretrained(tmp_path / "own")
    indices = tokenizer.encode(pictures)
    assert torch.equal(again.encode(pictures), indices) and torch.equal(
        again.decode(indices), tokenizer.decode(indices)
    )


def test_of_a_downloaded_folder_the_file_is_to_be_given(tmp_path: Path) -> None:
    save_file(of_file("titok_pixels")[1], tmp_path / "model.safetensors")
    (tmp_path / "config.json").write_text('{"model": {"vq_model": {"codebook_size": 4096}}}')
    with pytest.raises(FileNotFoundError, match=r"holds model.safetensors: give a file, as .*/model.safetensors\.$"):
        load_pretrained(tmp_path)
    assert load_pretrained(tmp_path / "model.safetensors").token_grids() == [(1, 8)]


def test_codes_of_those_that_paint_pixels_are_plain_unless_it_is_said(tmp_path: Path) -> None:
    save_file(of_file("titok_pixels")[1], tmp_path / "file.safetensors")
    assert not load_pretrained(tmp_path / "file.safetensors").quantizer.l2_norm


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"latent_tokens": torch.zeros(8)}, "latent_tokens of .* is \\[8\\]: no network has that"),
        (
            {"pixel_quantize.embedding.weight": None},
            "The tensor pixel_quantize.embedding.weight is missing in",
        ),  # stage 1
        ({"pixel_decoder.up.2.block.0.conv2.weight": None}, "pixel_decoder.up.2.block.0.conv2.weight is missing in"),
        (
            {"encoder.patch_embed.weight": torch.zeros(64, 3, 7, 7)},
            "image_size is 256, but must be a multiple of patch_size 7",
        ),
        ({"encoder.patch_embed.weight": torch.zeros(0, 3, 16, 16)}, "no network has that"),
        ({"decoder.mask_token": torch.zeros(1, 64)}, "decoder.mask_token is \\[1, 64\\], not \\[1, 1, 64\\]"),
        ({"decoder.transformer.2.ln_1.bias": torch.zeros(64)}, "decoder.transformer.2.ln_1.bias is not expected"),
        (
            {"decoder.positional_embedding": torch.zeros(17, 64)},
            "decoder.positional_embedding is \\[17, 64\\], not \\[257, 64\\]",
        ),
        (
            {"pixel_decoder.up.0.block.0.conv2.weight": torch.zeros(3, 32, 3, 3)},
            "hidden_dim is 3, but group normalisation",
        ),
    ],
)
def test_damaged_files_are_refused_in_a_sentence(
    change: dict[str, Tensor | None], sentence: str, tmp_path: Path
) -> None:
    state = {name: value for name, value in (of_file("titok_stage2")[1] | change).items() if value is not None}
    save_file(state, tmp_path / "file.safetensors")
    with pytest.raises(ValueError, match=sentence) as error:
        load_pretrained(tmp_path / "file.safetensors")
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("length", range(120, 144, 8))
def test_a_header_whose_length_begins_as_a_pickle_does_is_read(length: int, tmp_path: Path) -> None:
    state, file = of_file("titok_pixels")[1], tmp_path / "file.safetensors"
    for more in range(0, 512, 8):  # until the header has the length that is wanted, modulo 256
        save_file(state, file, metadata={"note": more * "x"})
        if file.read_bytes()[0] == length:
            break
    assert file.read_bytes()[0] == length  # 128 is what a pickle begins with
    assert load_pretrained(file).token_grids() == [(1, 8)]


class Hostile:
    """Writes a file where it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, tuple[Path]]:
        return Path.touch, (self.path,)


def test_nothing_in_a_file_is_executed(tmp_path: Path) -> None:
    state = of_file("titok_pixels")[1]
    torch.save(state | {"latent_tokens.hook": Hostile(tmp_path / "executed")}, tmp_path / "file.bin")
    tokenizer = load_pretrained(tmp_path / "file.bin")
    assert tokenizer.token_grids() == [(1, 8)] and not (tmp_path / "executed").exists()


def test_a_file_that_claims_more_than_there_is_is_refused(tmp_path: Path) -> None:
    state = of_file("titok_pixels")[1]
    for name in ("latent_tokens", "encoder.latent_token_positional_embedding"):
        state[name] = torch.zeros(()).expand(2**40, 64)  # 256 TiB, of one number
    torch.save(state, tmp_path / "file.bin")
    with pytest.raises(ValueError, match="are not those of the format 'titok-pixels'"):
        load_pretrained(tmp_path / "file.bin")


def test_what_is_known_of_them() -> None:
    known = {name: entry for name, entry in reference_checkpoints().items() if name.startswith("titok-")}
    rfid = {name: entry["reported"][0]["rfid"] for name, entry in known.items()}
    assert rfid == {
        **{"titok-l32": 2.21, "titok-b64": 1.70, "titok-s128": 1.71},
        **{"titok-bl64": 2.06, "titok-bl128": 1.49, "titok-sl256": 1.03},
    }
    for name, entry in known.items():
        assert entry["format"] == ("titok" if entry["codebook_size"] == 4096 else "titok-pixels")
        assert name.endswith(str(entry["num_tokens"])) and "Apache-2.0" in entry["licence"]
        assert re.fullmatch(r"https://huggingface\.co/yucornetto/\w+/resolve/main/model\.safetensors", entry["address"])
