"""The rows of the quantizers' table: each trains, and each says what its method needs."""

import math
from pathlib import Path

import pytest
import torch
from test_training import trained

from vistok.config import TrainConfig
from vistok.networks import simple_cnn
from vistok.quantizers import QUANTIZERS
from vistok.tables import load_table

ROWS = load_table("quantizers64").rows


def test_every_quantizer_has_a_row() -> None:
    assert {row.settings["quantizer"] for row in ROWS.values()} == set(QUANTIZERS)


@pytest.mark.parametrize("row", ROWS)
def test_every_row_trains_at_smoke_scale(row: str, tmp_path: Path) -> None:
    config = TrainConfig.from_row(f"quantizers64/{row}", "smoke", dataset="photos", steps=3, report_every=3)
    trainer = trained(config, tmp_path / "run")
    (line,) = trainer.run.log()
    assert line["losses"].keys() == {"reconstruction", "total", *trainer.tokenizer.quantizer.loss_names}
    assert all(math.isfinite(value) for value in line["losses"].values())
    assert 0 < line["usage"] <= 1


def test_rows_of_one_table_have_equal_bits_a_token_unless_their_name_says_otherwise() -> None:
    for name, row in ROWS.items():
        parts = row.settings.get("quantizer_options", {})
        codes = row.settings["codebook_size"] ** (parts.get("num_levels") or parts.get("num_groups") or 1)
        assert codes == (1000 if name == "fsq-8555" else 512), name


def test_norm_out_makes_the_encoder_blind_to_the_scale_of_its_features() -> None:
    torch.manual_seed(0)
    encoder, _ = simple_cnn.build(9, hidden_dim=8, norm_out=True)
    images = torch.rand(2, 3, 16, 16)
    with torch.no_grad():
        for block in encoder.res_blocks:
            block.conv2.weight.zero_()  # a residual block is then ReLU, which commutes with a positive scale
        encoder.down[-1].weight.mul_(1e3)  # far above the normalisation's epsilon
        encoder.down[-1].bias.mul_(1e3)
        z = encoder(images)
        encoder.down[-1].weight.mul_(100)
        encoder.down[-1].bias.mul_(100)
        assert torch.allclose(encoder(images), z, atol=1e-3)
    plain, _ = simple_cnn.build(9, hidden_dim=8)
    assert not any(name.startswith("norm_out") for name in plain.state_dict())
