"""What is measured by its name: found before anything is loaded, and recorded where it is said."""

import json
import re
import urllib.error
from pathlib import Path

import pytest
import torch
from helpers.golden import put_official

from vistok.evaluation import check_results, evaluate, open_subject, save_record
from vistok.evaluation.__main__ import main
from vistok.pretrained import load_pretrained
from vistok.tokenizer import VisualTokenizer

FEW = ["--no-rfid", "--lpips", "off", "--max-images", "2", "--batch-size", "2"]
QUICK = {"rfid": False, "lpips": "off", "max_images": 2, "progress": False}


@pytest.fixture(autouse=True)
def repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A repository of the test's own, and no network."""

    def refuse(*_: object, **__: object) -> None:
        raise urllib.error.URLError("no network in this test")

    monkeypatch.setattr("urllib.request.urlopen", refuse)
    monkeypatch.setattr("vistok.system.paths.repository_root", lambda: tmp_path)
    return tmp_path


@pytest.fixture
def saved(repository: Path) -> Path:
    """A saved tokenizer of images of 16 pixels."""
    torch.manual_seed(0)
    options = {"codebook_size": 16, "codebook_dim": 4}
    network = {"hidden_dim": 8, "num_res_blocks": 1}
    tokenizer = VisualTokenizer(network_options=network, quantizer_options=options, image_size=16)
    tokenizer.save(repository / "saved")
    return repository / "saved"


def record_of(folder: Path, prefix: str = "") -> tuple[str, dict[str, object]]:
    """The one record in a folder: how it is called, and what it holds."""
    (file,) = folder.glob(f"{prefix}metrics-*.json")
    return file.name, json.loads(file.read_text(encoding="utf-8"))


def test_a_saved_tokenizer_has_its_records_in_its_directory(
    saved: Path, images_root: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = [str(saved), "--dataset", "folder", "--data-root", str(images_root), *FEW]
    assert main(command) == 0
    output = capsys.readouterr()
    name, record = record_of(saved)
    assert json.loads(output.out) == record  # nothing else is printed there
    assert name == f"metrics-folder-test-{record['dataset']['fingerprint'][:8]}-part.json" and name in output.err
    assert record["provenance"]["checkpoint"] == "saved" and "seed" not in record["provenance"]
    expected = evaluate(VisualTokenizer.load(saved), "folder", data_root=images_root, **QUICK)
    assert record["psnr"] == pytest.approx(expected.psnr)
    assert main(command) == 0
    assert "already recorded, and stays" in capsys.readouterr().err
    assert main([*command, "--overwrite"]) == 0
    assert f"written to {saved / name}" in capsys.readouterr().err


def test_an_official_checkpoint_is_measured_by_its_name(
    repository: Path, images_root: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    file = put_official(monkeypatch)
    options = ["--dataset", "folder", "--data-root", str(images_root), *FEW]
    assert main(["llamagen-ds16", *options]) == 0
    output = capsys.readouterr()
    _, record = record_of(repository / "checkpoints/llamagen-ds16")
    assert json.loads(output.out) == record and "llamagen, model weights, K = " in output.err
    assert record["dataset"]["image_size"] == load_pretrained("llamagen-ds16").image_size == 256
    assert record["provenance"]["checkpoint"] == "llamagen-ds16"
    capsys.readouterr()

    assert main([str(file), *options]) == 0  # the same file by its place: beside it, and after its name
    name, record = record_of(file.parent, "vq_ds16_c2i.")
    assert record["provenance"]["checkpoint"] == "vq_ds16_c2i.pt" and str(repository) not in json.dumps(record)
    assert name.startswith("vq_ds16_c2i.metrics-folder-test-")


def test_each_choice_has_a_record_of_its_own(
    repository: Path, images_root: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    torch.manual_seed(0)
    network = {"hidden_dim": 8, "depth": 1, "num_heads": 2, "num_tokens": 6, "patch_size": 4}
    codes = {"codebook_size": 16, "codebook_dim": 4}
    VisualTokenizer(network="titok", network_options=network, quantizer_options=codes, image_size=24).save(
        repository / "titok"
    )
    command = [str(repository / "titok"), "--dataset", "folder", "--data-root", str(images_root), *FEW[:3]]
    for options in ([], ["--num-tokens", "2"], ["--crop", "none"], ["--max-images", "1", "--num-tokens", "2"]):
        assert main([*command, *options]) == 0
        assert "written to" in capsys.readouterr().err
    assert {file.stem.partition("-test-")[2][8:] for file in (repository / "titok").glob("metrics-*")} == {
        *("", "-2tokens", "-whole", "-2tokens-part")
    }


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["llamagen-ds61", "--dataset", "photos"], r"checkpoint \S+/llamagen-ds61\. Did you mean 'llamagen-ds16'\?$"),
        (["llamagen-ds16"], "llamagen-ds16 is no run, which would say .*: give a dataset, one of photos, .*imagenet"),
        (["llamagen-ds16", "--dataset", "imagnet"], "There is no dataset 'imagnet'; did you mean 'imagenet'"),
        (
            ["llamagen-ds16", "--dataset", "photos"],
            r"could not be downloaded \(no network in this test\)\. It is to be had from https://\S+: put it there\.$",
        ),
        (["runs/none"], r"There is no run, tokenizer or checkpoint \S+runs/none\.$"),
    ],
)
def test_what_cannot_be_measured_is_refused_in_one_sentence(
    arguments: list[str], sentence: str, repository: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*arguments, *FEW]) == 1
    (line,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith("python -m vistok.evaluation")]
    assert re.search(sentence, line), line
    assert not list(repository.rglob("*.json"))


def test_a_subject_says_its_images_and_is_loaded_once(saved: Path, images_root: Path) -> None:
    subject = open_subject(saved)
    check_results(subject)
    assert (subject.path, subject.prefix, subject.row) == (saved, "", None)
    assert subject.images("folder", images_root, "test") == {
        "name": "folder",
        "split": "test",
        "data_root": images_root,
    }
    with pytest.raises(TypeError, match="^dataset is 3 "):
        subject.images(3, None, "test")
    assert subject.load() is subject.load()
    record = subject.evaluate("folder", images_root, image_size=32, **QUICK)
    assert save_record(subject, record) == saved / record.file_name
    assert record.file_name.endswith("-32px-part.json") and save_record(subject, record) is None
