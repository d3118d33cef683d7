"""Every notebook runs and prints what it printed when it was committed (nbval): with its defaults, but for those that train.

Of four the training is cut short, which nothing that is compared depends on; with VISTOK_EXTENDED=1 they too train as they
are committed.
"""

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import nbformat
import numpy as np
import pytest
from helpers.generators import class_images
from PIL import Image

from vistok import plots, widgets
from vistok.config import TrainConfig
from vistok.data import open_dataset, to_float
from vistok.notebooks.cells import parameter_types
from vistok.notebooks.cleaning import WIDGET_VIEW
from vistok.runs import Run
from vistok.system.paths import repository_root, runs_root
from vistok.tokenizer import VisualTokenizer
from vistok.tokens.encoded import EncodedImages
from vistok.training.trainer import Trainer
from vistok.widgets.view import Refusal

NOTEBOOKS = sorted((repository_root() / "notebooks").glob("*.ipynb"))
SHORTER = {  # parameters of a minute or more that nothing depends on which is compared here
    "00_start": {"num_steps": 20},
    "02_train": {"steps": 20},
    "05_table": {"overrides": {"steps": 20}},
    "07_quantizers": {"num_steps": 10, "num_tokens": 2048, "num_turns": 1},
}
SANITIZE = Path(__file__).with_name("sanitize.cfg")


@pytest.fixture(scope="module")
def environment(tmp_path_factory: pytest.TempPathFactory, kernels: dict[str, str]) -> dict[str, str]:
    """Runs go into a copy of the records, pixels into a cache of their own: what a checkout beside this one has cached of
    the same photographs is said to be built again, and that would be a notebook's output."""
    folder = tmp_path_factory.mktemp("notebooks")
    runs = folder / "runs"
    records = repository_root() / "runs"
    committed = shutil.ignore_patterns("checkpoint", "*-smoke-*", "*-quick-*")
    shutil.copytree(records, runs, ignore=committed)
    return os.environ | kernels | {"VISTOK_RUNS": str(runs), "VISTOK_CACHE": str(folder / "cache")}


def nbval(notebook: Path, environment: dict[str, str]) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "pytest", "-q", "-p", "nbval.plugin", "-p", "no:cacheprovider", "--nbval-lax"]
    command += ["--nbval-sanitize-with", str(SANITIZE), "--nbval-cell-timeout=1200", "--rootdir", str(notebook.parent)]
    alone = environment | {"PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}  # the other plugins take a second to import
    return subprocess.run([*command, str(notebook)], env=alone, capture_output=True, text=True)


@pytest.mark.slow
@pytest.mark.parametrize("notebook", NOTEBOOKS, ids=lambda path: path.stem)
def test_it_runs_and_prints_what_was_committed(notebook: Path, environment: dict[str, str], tmp_path: Path) -> None:
    if notebook.stem in SHORTER and not os.environ.get("VISTOK_EXTENDED"):
        content = nbformat.read(notebook, as_version=4)
        (cell,) = [cell for cell in content.cells if "parameters" in cell.metadata.get("tags", [])]
        cell.source += "".join(f"\n{name} = {value!r}" for name, value in SHORTER[notebook.stem].items())
        notebook = tmp_path / notebook.name
        nbformat.write(content, notebook)
    result = nbval(notebook, environment)
    assert result.returncode == 0, result.stdout[-6000:]
    assert " passed" in result.stdout


def run_cells(name: str, **parameters: Any) -> None:
    """Run a notebook's code in this process, with these parameters: a kernel takes ten times as long."""
    namespace: dict[str, Any] = {"__name__": "__main__"}
    for cell in nbformat.read(repository_root() / "notebooks" / f"{name}.ipynb", as_version=4).cells:
        if cell.cell_type == "code":
            exec(cell.source, namespace)
            if "parameters" in cell.metadata.get("tags", []):
                assert parameters.keys() <= parameter_types(cell.source).keys()
                namespace |= parameters
    plt.close("all")


@pytest.mark.parametrize("number", [1, 3, 9])
@pytest.mark.parametrize("notebook", ["01_data", "02_train", "04_evaluate", "06_pretrained"])
@pytest.mark.filterwarnings("ignore:FigureCanvasAgg is non-interactive", "ignore:.*differs? from row")
def test_figures_show_what_there_is(
    notebook: str, number: int, toy: Callable[..., TrainConfig], tmp_path: Path
) -> None:
    rng = np.random.default_rng(0)
    for split in ("train", "test"):
        (tmp_path / "few" / split).mkdir(parents=True)
        for place in range(number):
            pixels = rng.integers(0, 256, (20, 24, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(tmp_path / "few" / split / f"{place}.png")
    figures = {"figure_dataset": "folder", "figure_data_root": str(tmp_path / "few")}
    few = {"dataset": "folder", "data_root": str(tmp_path / "few")}
    if notebook == "01_data":
        run_cells(notebook, **few, image_size=16)
    elif notebook == "02_train":
        settings = toy(data_root=str(tmp_path / "few"), batch_size=1, steps=2, codebook_size=1).to_dict()
        settings |= {"row": "celeba64", "scale": "smoke", "run_dir": str(tmp_path / "run")}
        run_cells(notebook, **settings, **figures)
        assert (tmp_path / "run" / "reconstructions.jpg").is_file() and (tmp_path / "run" / "curves.png").is_file()
    elif notebook == "04_evaluate":
        run = Run.open(None, toy())
        for _ in Trainer(run, progress=False):
            pass
        run_cells(notebook, **few, **figures, run_dir=str(run.path), rfid=False, lpips="off")
        assert (run.path / "best-and-worst.jpg").is_file()
    else:
        one_code = VisualTokenizer(quantizer_options={"codebook_size": 1, "codebook_dim": 2}, image_size=16)
        one_code.save(tmp_path / "one_code")
        options = {"checkpoints": [str(tmp_path / "one_code")], "rfid": False, "lpips": "off"}
        run_cells(notebook, **few, **figures, **options)


def test_an_unset_variable_is_not_the_usual_choice(monkeypatch: pytest.MonkeyPatch) -> None:
    opened: list[str] = []

    def open_encoded(path: str, *_: Any, **__: Any) -> Refusal:
        opened.append(path)
        return Refusal("not opened")

    monkeypatch.setattr("vistok.widgets.open_encoded", open_encoded)
    run_cells("03_codebook", run_dir="", compare_with="", without_grid="")
    assert opened == ["", "", ""]
    with pytest.raises(ValueError, match="There is no dataset ''"):
        run_cells("04_evaluate", dataset="")


def test_a_detail_of_two_numbers_is_refused_before_anything_is_loaded_and_measured() -> None:
    with pytest.raises(ValueError, match=r"zoom is \[0.1, 0.2\], but must be top, left and side"):
        run_cells("06_pretrained", zoom=[0.1, 0.2], checkpoints=["nowhere"])


@pytest.mark.slow
def test_a_changed_number_fails(tmp_path: Path, environment: dict[str, str]) -> None:
    notebook = nbformat.v4.new_notebook()
    cell = nbformat.v4.new_code_cell("print(2 * 21)", metadata={"tags": ["nbval-check-output"]})
    cell.outputs = [nbformat.v4.new_output("stream", name="stdout", text="43\n")]
    notebook.cells = [cell]
    notebook.metadata["kernelspec"] = {"name": "python3", "display_name": "Python 3", "language": "python"}
    nbformat.write(notebook, tmp_path / "changed.ipynb")
    assert nbval(tmp_path / "changed.ipynb", environment).returncode == 1


@pytest.mark.parametrize("notebook", NOTEBOOKS, ids=lambda path: path.stem)
def test_it_is_fit_for_a_reader(notebook: Path) -> None:
    content = nbformat.read(notebook, as_version=4)
    code = [cell for cell in content.cells if cell.cell_type == "code"]
    outputs = [output for cell in code for output in cell.outputs]
    assert content.cells[0].cell_type == "markdown"
    assert sum("parameters" in cell.metadata.get("tags", []) for cell in code) == 1
    assert outputs and not any(output.output_type == "error" for output in outputs)
    assert any("image/png" in o.get("data", {}) or "image/jpeg" in o.get("data", {}) for o in outputs)
    assert not any(output.get("name") == "stderr" for output in outputs)  # a red box where all is well
    assert not any(WIDGET_VIEW in output.get("data", {}) for output in outputs)  # an error without its kernel
    assert notebook.stat().st_size < 1_000_000
    assert "papermill" not in content.metadata
    assert str(repository_root()) not in notebook.read_text(encoding="utf-8")


@pytest.mark.parametrize("notebook", NOTEBOOKS, ids=lambda path: path.stem)
def test_its_figures_are_shown_by_the_package(notebook: Path) -> None:
    for cell in nbformat.read(notebook, as_version=4).cells:
        if cell.cell_type == "code":  # matplotlib's own way is dull on dense screens and white on dark pages
            assert not re.search(r"plt\.show\(|set_matplotlib_formats|rcParams", cell.source), cell.source


def test_executed_notebooks_name_no_place_of_a_machine() -> None:
    executed = [*NOTEBOOKS, *(repository_root() / "runs").rglob("*.ipynb")]
    assert len(executed) > 50
    for path in executed:
        texts = []
        for cell in nbformat.read(path, as_version=4).cells:
            texts.append(cell.source)
            for output in cell.get("outputs", []):
                shown = output.get("data", {})
                texts += [output.get("text", ""), *(shown[kind] for kind in shown if kind.startswith("text/"))]
        found = re.search(r"(?<![\w.:/~])/(home|root|work|tmp|var|opt|Users|private)/\S*", "\n".join(map(str, texts)))
        assert not found, f"{path}: {found[0]}"


def own_pictures(folder: Path, number: int) -> None:
    """Write pictures as people have them: odd sizes, grey, transparent, of a palette, of 16 bits, tiny, large, any name."""
    folder.mkdir(parents=True)
    rng = np.random.default_rng(number)
    for place in range(number):
        size = [(90, 70), (64, 201), (131, 97), (300, 77), (33, 47)][place % 5]
        picture = Image.fromarray(rng.integers(0, 256, (5, 6, 3), dtype=np.uint8)).resize(size)
        name = f"bild {place:02}.png"
        if place == 1:
            picture, name = picture.convert("L"), "grau ü.png"
        elif place == 2:
            picture.putalpha(120)
            name = "透明.png"
        elif place == 3:
            picture, name = picture.convert("P"), "palette.gif"
        elif place == 4:
            picture, name = Image.fromarray(np.asarray(picture.convert("L")).astype(np.uint16) * 257), "sixteen.tiff"
        elif place == 5:
            picture, name = picture.resize((5, 3)), "tiny.png"
        elif place == 6:
            picture, name = picture.resize((2400, 1800)), "large.jpg"
        picture.save(folder / name)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["12", "40", "15 in train and test"])
@pytest.mark.filterwarnings("ignore:FigureCanvasAgg is non-interactive", "ignore:.*are enlarged, which adds no detail")
def test_pictures_of_ones_own_go_through_the_notebooks_by_parameters_alone(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("matplotlib_inline.backend_inline.set_matplotlib_formats", lambda *_, **__: None)
    folder, number = tmp_path / "pictures", int(kind.split()[0])
    if "train" in kind:
        own_pictures(folder / "train", 12)
        own_pictures(folder / "test", 3)
    else:
        own_pictures(folder, number)
    num_train, num_test = {12: (11, 1), 40: (36, 4), 15: (12, 3)}[number]
    own = {"dataset": "folder", "data_root": str(folder)}
    run = {"run_dir": str(tmp_path / "run")}
    shown: list[np.ndarray] = []  # the images of every figure
    draw = plots.reconstructions
    monkeypatch.setattr(plots, "reconstructions", lambda images, *a, **k: shown.append(images) or draw(images, *a, **k))

    run_cells("01_data", **own, image_size=32)
    run_cells("02_train", **own, **run, row="celeba64", scale="smoke", image_size=32, hidden_dim=8, steps=2)
    said = capsys.readouterr().out
    assert f"training images: {num_train}; test images for the figures: {num_test}" in said
    assert Run.open(tmp_path / "run").config.batch_size == min(16, num_train)
    run_cells("04_evaluate", **own, **run, rfid=False, lpips="off")
    test = to_float(open_dataset("folder", "test", 32, data_root=folder).images(range(num_test)))
    for images in shown:  # of the trained dataset, each once
        assert len(images) == num_test
        assert sorted(image.sum().item() for image in images) == sorted(image.sum().item() for image in test)
    assert len(shown) == 2
    for split in ("test", "train"):
        run_cells("03_codebook", **own, **run, split=split, compare_with=str(tmp_path / "run"))
    run_cells("06_pretrained", **own, checkpoints=[str(tmp_path / "run")], rfid=False, lpips="off")


def test_a_tokenizer_that_is_no_run_is_measured_and_looked_into(tmp_path: Path) -> None:
    own_pictures(tmp_path / "pictures", 12)
    own = {"dataset": "folder", "data_root": str(tmp_path / "pictures")}
    tokenizer = VisualTokenizer(quantizer_options={"codebook_size": 4, "codebook_dim": 2}, image_size=16)
    tokenizer.save(tmp_path / "saved")
    saved = str(tmp_path / "saved")
    run_cells("04_evaluate", **own, run_dir=saved, rfid=False, lpips="off")
    (record,) = (tmp_path / "saved").glob("metrics-folder-test-*.json")
    assert json.loads(record.read_text())["provenance"]["checkpoint"] == "saved"
    assert (tmp_path / "saved" / "best-and-worst.jpg").is_file()
    run_cells("03_codebook", **own, run_dir=saved, compare_with=saved)
    run_cells("06_pretrained", **own, checkpoints=[saved], rfid=False, lpips="off")


def test_a_default_image_that_a_small_folder_lacks_is_said(tmp_path: Path) -> None:
    own_pictures(tmp_path / "pictures", 12)
    tokenizer = VisualTokenizer(quantizer_options={"codebook_size": 4, "codebook_dim": 2}, image_size=16)
    encoded = EncodedImages.open(tokenizer, "folder", data_root=tmp_path / "pictures", progress=False)
    assert repr(encoded).startswith("1 image of your folder's test split as 16 tokens")
    editor = widgets.TokenEditor(encoded, image=30, other=11)
    assert editor.message.startswith("There is no image 30") and editor.image == 0
    assert widgets.TokenEditor(encoded, image=0, other=11).message == ""


@pytest.mark.parametrize(
    ("notebook", "wrong", "sentence"),
    [
        ("02_train", {"dataset": "photo"}, "did you mean 'photos'"),
        ("02_train", {"dataset": "folder", "data_root": "nowhere"}, "does not exist"),
        ("02_train", {"figure_dataset": "folder", "figure_data_root": "nowhere"}, "does not exist"),
        ("02_train", {"quantizer": "fqs"}, "did you mean 'fsq'"),
        ("02_train", {"network_options": {"ch": 1}}, "has no option 'ch'"),
        ("02_train", {"log_with": "wandbb"}, "did you mean 'wandb'"),
        ("02_train", {"batch_size": 5000}, "fewer than one batch of 5000"),
        ("04_evaluate", {"lpips": "of"}, "Did you mean 'off'"),
        ("04_evaluate", {"rfid_weights": "nowhere"}, "there is no such file"),
        ("04_evaluate", {"dataset": "folder", "data_root": "nowhere"}, "does not exist"),
        ("04_evaluate", {"run_dir": "llamagen-ds61"}, "Did you mean 'llamagen-ds16'"),
        ("04_evaluate", {"run_dir": "llamagen-ds16"}, "llamagen-ds16 is no run, which would say"),
        ("05_table", {"rows": ["vqd4"]}, "did you mean 'vq-d4'"),
        ("05_table", {"overrides": {"stepps": 3}}, "did you mean 'steps'"),
        ("05_table", {"evaluation": {"rfdi": False}}, "did you mean 'rfid'"),
        ("06_pretrained", {"checkpoints": ["llamagen-ds61"]}, "Did you mean 'llamagen-ds16'"),
        ("06_pretrained", {"dataset": "folder", "data_root": "nowhere"}, "does not exist"),
        ("07_quantizers", {"table": "quantizer64"}, "did you mean 'quantizers64'"),
        ("08_generate", {"run_dir": "nowhere"}, "There is no generator in"),
        ("08_generate", {"completed_as": "kat"}, "did you mean 'cat'"),
        ("08_generate", {"tokens": "nowhere"}, "There are no tokens in"),
        ("08_generate", {"class_name": None}, "no class is given, so that there is nothing to guide"),
    ],
)
def test_what_cannot_be_is_refused_by_the_first_cell_and_leaves_nothing(
    notebook: str, wrong: dict[str, Any], sentence: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cells = nbformat.read(repository_root() / "notebooks" / f"{notebook}.ipynb", as_version=4).cells
    parameters, first = [cell.source for cell in cells if cell.cell_type == "code"][:2]
    namespace: dict[str, Any] = {"__name__": "__main__"}
    exec(parameters, namespace)
    with pytest.raises((ValueError, FileNotFoundError), match=re.escape(sentence)):
        exec(first, namespace | wrong)
    assert not runs_root().exists() or not any(runs_root().iterdir())


def test_08_completes_a_photograph_of_a_small_folder_too(tmp_path: Path) -> None:
    cells = nbformat.read(repository_root() / "notebooks" / "08_generate.ipynb", as_version=4).cells
    parameters, first = [cell.source for cell in cells if cell.cell_type == "code"][:2]
    namespace: dict[str, Any] = {"__name__": "__main__"}
    exec(parameters, namespace)
    namespace |= {"dataset": "folder", "data_root": str(class_images(tmp_path / "images", 2))}
    exec(first, namespace)
    assert len(namespace["photos"]) < namespace["photograph"] and len(namespace["photo"]) == 1
