"""Generators on the tokens of a table's rows: planned whole, run one by one, shown, and ranked at each size."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from vistok import tables
from vistok.generator_config import GeneratorConfig
from vistok.system.paths import repository_root
from vistok.tables import PlannedGenerator, generating, with_tables
from vistok.tables import generators as command
from vistok.tokenizer import VisualTokenizer

TABLE = "generation32"
TINY = {"network_options": {"hidden_dim": 16, "depth": 1, "num_heads": 2}, "steps": 3, "report_every": 1}


def plan(rows: list[str], **arguments: Any) -> list[PlannedGenerator]:
    return tables.plan_generators(TABLE, rows, arguments.pop("scale", "smoke"), **arguments)


@pytest.fixture
def of_two_classes(tmp_path: Path) -> str:
    rng = np.random.default_rng(0)
    for split, number in (("train", 8), ("test", 6)):
        for name in ("cat", "dog"):
            folder = tmp_path / "images" / split / name
            folder.mkdir(parents=True)
            for image in range(number):
                pixels = rng.integers(0, 256, (4, 4, 3), dtype=np.uint8)
                Image.fromarray(pixels).resize((32, 32)).save(folder / f"{image}.png")
    return str(tmp_path / "images")


def train_row(run: tables.PlannedRun) -> None:
    """Leave what a trained row leaves: a tokenizer, here with random weights, and what was measured."""
    run.run_dir.mkdir(parents=True)
    VisualTokenizer.from_config(run.config).save(run.run_dir / "tokenizer")
    metrics = {"psnr": 20.0, "bits_per_pixel": 0.5625, "dataset": {"image_size": 32}}
    (run.run_dir / "metrics.json").write_text(json.dumps(metrics))


def test_each_row_has_one_generator_of_each_size_and_seed() -> None:
    planned = plan(["vq-d4", "titok-32"], scale="laptop", seeds=[0, 1])
    assert [(run.tokenizer.row.name, run.config.seed, run.config.size) for run in planned] == [
        (row, seed, size) for row in ("vq-d4", "titok-32") for seed in (0, 1) for size in ("1m", "3m")
    ]
    assert len({run.run_dir for run in planned}) == 8
    for run in planned:
        assert run.config.by_class and run.tokenizer.config.seed == run.config.seed
        assert run.config.tokens == f"{generating.TOKENS}/{run.tokenizer.run_dir.name}"
    (larger,) = plan(["vq-d4"], sizes="10m", overrides={"steps": "20"})
    assert larger.config.size == "10m" and larger.config.steps == 20


def test_the_name_of_a_generators_run_is_the_same_on_any_machine() -> None:
    names = [GeneratorConfig(tokens=tokens).run_name for tokens in ("data/tokens/a", "data/tokens/b", "elsewhere/a")]
    full = GeneratorConfig(tokens=str(repository_root() / "data/tokens/a")).run_name
    assert names[0] == full and len(set(names)) == 3
    assert names[0].replace("-a-", "-b-") == names[1] and names[0][-8:] != names[2][-8:]


def test_a_generator_is_trained_weighed_and_measured_and_then_complete(of_two_classes: str) -> None:
    arguments = {"dataset": "folder", "data_root": of_two_classes, "seeds": 0, "sizes": "1m", "overrides": TINY}
    planned = plan(["vq-d4", "ema-d4"], **arguments)
    train_row(planned[0].tokenizer)
    done, failed = tables.run_generators(planned)
    assert done.status == "done" and planned[0].rate["num_images"] == 12
    assert planned[0].rate["nominal_bits"] == 64 * 9 > 0 < planned[0].rate["bits_per_image"]
    assert planned[0].quality["samples"]["swd"] > 0
    assert planned[0].quality["settings"]["by_class"]
    assert failed.status == "failed" and "is not complete: train the row first" in failed.reason
    assert [outcome.status for outcome in tables.run_generators(planned[:1])] == ["complete"]
    config = json.loads((planned[0].run_dir / "config.json").read_text())["config"]
    assert config["tokens"] == f"{generating.TOKENS}/{planned[0].tokenizer.run_dir.name}"


@pytest.fixture(autouse=True)
def tokens_of_ones_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`data/tokens` is not the checkout's here."""
    monkeypatch.setattr("vistok.tables.generating.TOKENS", str(tmp_path / "tokens"))


def measured(run: PlannedGenerator, swd: float, bits: float) -> None:
    run.run_dir.mkdir(parents=True)
    of_all = {"swd": swd, "precision": 0.5, "recall": 0.25}
    controls = {"real": {"swd": 5.0}, "reconstructions": {"swd": 20.0}}
    (run.run_dir / "quality.json").write_text(json.dumps({"samples": of_all, "controls": controls}))
    (run.run_dir / "rate.json").write_text(json.dumps({"bits_per_image": bits}))


def test_the_table_and_the_ranking_are_made_of_the_records() -> None:
    planned = plan(["vq-d4", "ema-d4", "fsq-888"], seeds=[0, 1])
    swd = {  # vq-d4 and ema-d4 change places, each is apart from fsq-888 at one size only
        ("vq-d4", "1m"): (40, 41),
        ("ema-d4", "1m"): (30, 31),
        ("fsq-888", "1m"): (40, 30),
        ("vq-d4", "3m"): (20, 21),
        ("ema-d4", "3m"): (25, 26),
        ("fsq-888", "3m"): (28, 29),
    }
    assert tables.ranking_markdown(planned) == "Fewer than two rows are complete."
    for run in planned:
        measured(run, swd[run.tokenizer.row.name, run.config.size][run.config.seed], 500)
    assert tables.qualities(planned)["3m"]["vq-d4"] == [20, 21] and tables.rates(planned)["1m"]["ema-d4"] == [500, 500]
    ranking = tables.ranking_markdown(planned)
    assert "| 1m | ema-d4 (30.5), fsq-888 (35.0), vq-d4 (40.5) |" in ranking
    assert "| 3m | vq-d4 (20.5), ema-d4 (25.5), fsq-888 (28.5) |" in ranking
    assert ranking.endswith(
        "Of 3 pairs of rows, 0 are apart in the same order at every size, 1 in another order (vq-d4 and ema-d4), and 2 are "
        "not apart at one size at least."
    )
    train_row_of = planned[0].tokenizer
    train_row(train_row_of)
    mark = f'<!-- generators {TABLE} rows=["vq-d4","ema-d4","fsq-888"] seeds=[0,1] -->'
    made = with_tables(f"{mark}\nstale\n<!-- /generators -->\n")
    assert "| vq-d4 | 64 x 512 | 20.00 | 576 | 1m | 500 | 40.5<br>(40.0 to 41.0) | 20.0 |" in made
    assert "| fsq-888 | K = 512 | – | – | 3m | 500" in made and "stale" not in made


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        ({"table": "celeba64"}, r"Table 'celeba64' has no \[generators\]"),
        ({"scale": "laptop", "sizes": "2m"}, "There is no size '2m'; Known: 10m, 1m"),
        ({"scale": "quick"}, "There is no scale 'quick'"),
        ({"overrides": {"size": "1m"}}, "'size' is no override: row, size and seed say it"),
        ({"overrides": {"step": 3}}, "There is no setting 'step'; did you mean 'steps'"),
        ({"rows": "vq-d5"}, "Table 'generation32' has no row 'vq-d5'; did you mean 'vq-d4'"),
    ],
)
def test_what_cannot_be_planned_is_one_sentence(given: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        tables.plan_generators(**{"table": TABLE} | given)


def test_the_command_says_what_is_wrong(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        command.main([TABLE, "--rows", "vq-d4", "--set", "dropout=2"])
    assert "dropout" in capsys.readouterr().err
