"""Results tables: planned whole, run one by one, shown beside what was published."""

import errno
import io
import json
import re
import shlex
import shutil
import subprocess
from pathlib import Path
from typing import Any

import nbformat
import papermill.cli
import pytest
from click.testing import CliRunner

from vistok import recipes, tables
from vistok.config import TrainConfig
from vistok.data import open_dataset
from vistok.losses import loss_weights
from vistok.notebooks.cells import notebook_path, parameter_types, parameters_source
from vistok.pretrained import reference_checkpoints
from vistok.runs import Run
from vistok.system.paths import repository_root, resolve_path, runs_root
from vistok.tables import (
    PlannedRun,
    conclusions_markdown,
    load_table,
    markdown,
    measured,
    plan,
    remedies_markdown,
    run_all,
    running,
    with_tables,
)
from vistok.tables import __main__ as command

TABLES = sorted(path.stem for path in recipes.TABLES.glob("*.toml"))
VQ_ROWS = ["vq-d4", "vq-d8", "vq-d16", "vq-d32", "vq-d64", "vq-d64-k1024", "vq-d64-k2048", "vq-d4-l2", "vq-d64-l2"]
ROWS = [*VQ_ROWS, "ema-d4", "ema-d64"]
RECORD = dict.fromkeys(tables.METRIC_FORMS, None) | {"unavailable": {"rfid": "no weights here"}}


def complete(run: PlannedRun, **values: float | None) -> None:
    run.run_dir.mkdir(parents=True, exist_ok=True)
    (run.run_dir / "metrics.json").write_text(json.dumps(RECORD | values))


@pytest.fixture
def executed(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, dict[str, Any]]]:
    """Record the notebooks that would be executed; measuring one leaves metrics."""
    calls: list[tuple[str, dict[str, Any]]] = []

    def execute(notebook: Path, output: Path, parameters: dict[str, Any], **_: Any) -> None:
        calls.append((notebook.stem, parameters))
        if parameters.get("seed") == 13:
            raise RuntimeError("\x1b[31mTraceback\x1b[0m\n\nValueError: an unlucky seed\n\n")
        if notebook.stem == "04_evaluate":
            file = Path(parameters["run_dir"]) / "metrics.json"
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(json.dumps(RECORD))

    monkeypatch.setattr(running, "execute", execute)
    return calls


def test_the_table_has_its_rows_with_all_published_numbers() -> None:
    table = load_table("celeba64")
    assert list(table.rows) == ROWS
    later = {"ssim_uniform7", "lpips_alex"}  # which its author has added since, to all rows but one
    for row in table.rows.values():
        assert row.published.keys() - later == {"usage", "usage_queue", "psnr", "ssim", "rfid"}
        assert later <= row.published.keys() or (row.name == "vq-d4-l2" and not later & row.published.keys())
        assert row.published.get("ssim_uniform7", 1) > row.published["ssim"]
    assert {name for c in table.conclusions for name in (c.better, c.worse)} <= set(ROWS)


def test_usage_stands_under_the_convention_that_it_was_counted_by() -> None:
    used = {
        table: {
            name: {key: value for key, value in (row.paper | row.published).items() if key.startswith("usage")}
            for name, row in load_table(table).rows.items()
        }
        for table in TABLES
    }
    assert used["imagenet256"] == {
        "taming": {"usage_queue": 0.999},
        "taming-corrected": {"usage": 0.375},
        "llamagen": {"usage_queue": 0.941, "usage": 1.0},  # counted again later, over all images
        "llamagen-corrected": {"usage_queue": 0.97, "usage": 1.0},  # the former is the paper's
        "vit-small": {},
        "vit-base": {},
        "titok-one-stage": {"usage": 1.0},
        **dict.fromkeys([f"titok-{size}{stage}" for size in ("l32", "b64", "s128") for stage in ("-stage1", "")], {}),
    }
    for table, rows in used.items():
        for numbers in rows.values():  # the queue holds some of the tokens: never more codes than all of them
            assert 0 < numbers.get("usage_queue", 1e-9) <= numbers.get("usage", 1) <= 1
            assert not numbers or numbers.keys() & set(load_table(table).columns)
    later = {name: numbers for name, numbers in used["quantizers64"].items() if name not in ROWS and numbers}
    assert later == dict.fromkeys(["vq-d64-entropy", "simvq-d64", "fsq-888", "fsq-8555", "lfq-9"], {"usage": 1.0})
    assert len({heading for heading, _ in tables.COLUMNS.values()}) == len(tables.COLUMNS)
    reported = [entry for known in reference_checkpoints().values() for entry in known["reported"]]
    assert [entry["usage_queue"] for entry in reported if "usage_queue" in entry] == [0.97]  # LlamaGen's paper


@pytest.mark.parametrize(("table", "scale"), [(table, scale) for table in TABLES for scale in load_table(table).scales])
def test_every_row_of_every_table_builds_at_every_scale(table: str, scale: str) -> None:
    """Configuration, network, quantizer and the weight of each of its losses; a number has a column to stand in."""
    about = load_table(table)
    planned = plan(table, scale=scale)
    assert [run.config.row for run in planned] == [row.label for row in about.rows.values()]
    assert len({run.run_dir for run in planned}) == len(about.rows)
    for run in planned:
        assert set(run.quantizer.loss_names) <= loss_weights(run.config, run.quantizer).keys()
        shown = {"usage", "usage_queue", *about.columns}
        assert (run.row.published.keys() | run.row.paper.keys()) <= shown & tables.COLUMNS.keys()
    named = {name for c in about.conclusions for name in (c.better, c.worse)}
    assert named <= about.rows.keys() and {key for c in about.conclusions for key in c.metrics} <= set(about.columns)


def test_imagenet64_has_every_published_row_and_a_correction_of_each_that_is_reported_as_failed() -> None:
    rows = load_table("imagenet64").rows
    published = [name for name, row in rows.items() if row.published]
    assert len(published) == 21 and published == list(rows)[:21]
    assert all(rows[name].published.keys() == set(load_table("imagenet64").columns) for name in published)
    failed = [name for name in published if name.startswith(("lfq", "ibq"))]
    assert list(rows)[21:] == [f"{name}-corrected" for name in failed]
    for name in failed:
        as_published, corrected = (
            TrainConfig.from_row(f"imagenet64/{row}", "paper") for row in (name, f"{name}-corrected")
        )
        assert corrected.network_options == {"norm_out": True} and as_published.network_options == {}
        changed = set(corrected.differences(as_published)) - {"row", "network_options", "quantizer_options"}
        assert changed <= {"codebook_weight", "commitment_weight", "entropy_weight"}
    for name in rows:  # the recipe of all
        paper = TrainConfig.from_row(f"imagenet64/{name}", "paper")
        assert (paper.batch_size, paper.steps, paper.lr, paper.optimizer) == (256, 500_000, 4e-4, "adam")
        assert (paper.network, paper.hidden_dim, paper.num_res_blocks, paper.image_size) == ("simple_cnn", 256, 2, 64)
    l2 = TrainConfig.from_row("imagenet64/vq-d64-k16384-l2", "paper")
    assert l2.l2_norm and l2.quantizer_options == {"l2_search_only": True}


def test_a_plan_is_rows_times_seeds_with_the_overrides_in_each() -> None:
    planned = plan("celeba64", ["vq-d4", "ema-d4"], "smoke", [3, 4], steps=5, dataset="folder")
    assert [(run.row.name, run.config.seed) for run in planned] == [
        ("vq-d4", 3),
        ("vq-d4", 4),
        ("ema-d4", 3),
        ("ema-d4", 4),
    ]
    for run in planned:
        assert (run.config.steps, run.config.dataset) == (5, "folder")
        given = {k: v for k, v in run.train_parameters.items() if k not in ("row", "scale", "figure_dataset")}
        assert TrainConfig.from_row(run.train_parameters["row"], run.train_parameters["scale"], **given) == run.config
        assert run.run_dir == run.config.run_dir
        assert run.run_dir.parent == runs_root()


def test_no_seeds_is_the_scales_own_and_an_empty_list_is_none() -> None:
    assert [run.config.seed for run in plan("celeba64", ["vq-d4"], "paper")] == [8888]
    assert plan("celeba64", ["vq-d4"], "paper", []) == []
    with pytest.raises(ValueError, match=r"rows or seeds is \[\], but must hold at least one"):
        markdown([])


@pytest.mark.parametrize(
    ("text", "sentence"), [('{"psnr": 3', "metrics.json is damaged, or no JSON: "), ("[]", r"metrics.json holds \[\]")]
)
def test_a_damaged_record_is_named(text: str, sentence: str) -> None:
    (run,) = plan("celeba64", "vq-d4")
    complete(run)
    (run.run_dir / "metrics.json").write_text(text)
    with pytest.raises(ValueError, match=sentence):
        markdown([run])


def test_what_an_older_record_lacks_was_not_measured() -> None:
    (run,) = plan("celeba64", "vq-d4")
    complete(run, psnr=30.0)
    record = json.loads((run.run_dir / "metrics.json").read_bytes())
    del record["lpips_alex"]
    (run.run_dir / "metrics.json").write_text(json.dumps(record))
    assert measured([run], "lpips_alex") == {"vq-d4": []} and measured([run], "psnr") == {"vq-d4": [30.0]}


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ({"table": "celeba46"}, "There is no table 'celeba46'; did you mean 'celeba64'?"),
        ({"rows": ["vq-d4", "vq-d5"]}, "Table 'celeba64' has no row 'vq-d5'; did you mean 'vq-d"),
        ({"scale": "labtop"}, "There is no scale 'labtop'; did you mean 'laptop'?"),
        ({"dataset": "celebra"}, "There is no dataset 'celebra'; did you mean 'celeba'?"),
        ({"stepps": 4}, "There is no setting 'stepps'; did you mean 'steps'?"),
        ({"steps": 0}, "steps is 0, but must be at least 1."),
        ({"steps": "many"}, "steps is 'many' (str), but must be of type int."),
        ({"image_size": 30}, "image_size 30 is not divisible by the downsample factor 4"),
        ({"network": "simple_cn"}, "There is no network 'simple_cn'; did you mean 'simple_cnn'?"),
        ({"evaluation": {"rfid_weight": "x"}}, "04_evaluate has no parameter 'rfid_weight'; did you mean"),
        ({"evaluation": {"rfid": "maybe"}}, "rfid is 'maybe' (str), but must be of type bool."),
        ({"evaluation": {"batch_size": 2.5}}, "batch_size is 2.5 (float), but must be of type int."),
        ({"rows": 4}, "rows is 4 (int), but must be of type str."),
        ({"seeds": ["a"]}, "seeds[0] is 'a' (str), but must be of type int."),
        ({"seeds": [0, 1], "seed": 7}, "seed is 7, but seeds is [0, 1]: leave one of them out."),
        (
            {"rows": "ema-d4", "quantizer_options": {"decay": "0.9"}},
            "quantizer 'ema': decay is '0.9' (str), but",
        ),
        ({"evaluation": {"split": "train"}}, "evaluation holds 'split'"),
        ({"evaluation": {"run_dir": "x"}}, "evaluation holds 'run_dir'"),
    ],
)
def test_a_plan_is_refused_before_anything_starts(
    arguments: dict[str, Any], sentence: str, executed: list[Any]
) -> None:
    with pytest.raises((ValueError, TypeError), match=re.escape(sentence)) as error:
        run_all(plan(**({"table": "celeba64"} | arguments)))
    assert "\n" not in str(error.value)
    assert executed == []
    assert not runs_root().exists()


def test_one_row_and_one_seed_are_lists_of_one_and_texts_are_read() -> None:
    (run,) = plan("celeba64", "vq-d4", seeds=3, steps="7", flip="false", evaluation={"rfid": "no", "max_images": "10"})
    assert (run.row.name, run.config.seed, run.config.steps, run.config.flip) == ("vq-d4", 3, 7, False)
    assert run.train_parameters["flip"] is False
    assert run.evaluate_parameters == {"rfid": False, "max_images": 10}
    assert plan("celeba64", []) == []


def test_complete_runs_are_skipped_and_a_failed_one_stops_no_other(
    executed: list[tuple[str, dict[str, Any]]], capsys: pytest.CaptureFixture[str]
) -> None:
    planned = plan("celeba64", ["vq-d4"], "smoke", [1, 13, 2], evaluation={"rfid": False})
    complete(planned[0], psnr=20.0)
    before = (planned[0].run_dir / "metrics.json").read_bytes()
    outcomes = run_all(planned)
    assert [outcome.status for outcome in outcomes] == ["complete", "failed", "done"]
    assert outcomes[1].reason == "02_train: ValueError: an unlucky seed"
    assert [name for name, _ in executed] == ["02_train", "02_train", "04_evaluate"]
    assert executed[2][1] == {"rfid": False, "run_dir": str(planned[2].run_dir)}
    assert (planned[0].run_dir / "metrics.json").read_bytes() == before
    assert f"{planned[1].config.run_name}: failed: 02_train: ValueError: an unlucky seed" in "".join(
        capsys.readouterr()
    )
    assert [outcome.status for outcome in run_all(planned)] == ["complete", "failed", "complete"]


@pytest.mark.slow
def test_a_row_runs_through_the_notebooks(
    images_root: Path, kernels: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("JUPYTER_PATH", kernels["JUPYTER_PATH"])
    tiny = {"hidden_dim": 8, "num_res_blocks": 1, "image_size": 16, "batch_size": 4, "steps": 4, "report_every": 2}
    planned = plan(
        "celeba64",
        ["ema-d4"],
        "smoke",
        [5],
        evaluation={"rfid": False, "lpips": "off", "max_images": None},
        dataset="folder",
        data_root=str(images_root),
        precision="float32",
        quantizer_options={"decay": 0.9},
        **tiny,
    )
    (outcome,) = run_all(planned)
    assert (outcome.status, outcome.reason) == ("done", "")
    (run,) = planned
    assert Run.open(run.run_dir).config == run.config
    Run.open(run.run_dir).check_finished()
    assert run.metrics["dataset"]["name"] == "folder"
    assert run.metrics["num_images"] == 2
    assert run.metrics["psnr"] > 5
    names = {path.name for path in run.run_dir.iterdir()}
    assert {"02_train.ipynb", "04_evaluate.ipynb", "config.json", "log.jsonl", "metrics.json", "curves.png"} <= names
    for name in ("02_train", "04_evaluate"):
        text = (run.run_dir / f"{name}.ipynb").read_text()
        assert f"{repository_root()}/" not in text
        notebook = nbformat.reads(text, as_version=4)
        assert "papermill" not in notebook.metadata
        assert sum("injected-parameters" in cell.metadata.get("tags", []) for cell in notebook.cells) == 1
    assert run.row.name in markdown(planned)
    before = {path: path.stat().st_mtime_ns for path in run.run_dir.rglob("*")}
    assert [again.status for again in run_all(planned)] == ["complete"]
    assert {path: path.stat().st_mtime_ns for path in run.run_dir.rglob("*")} == before


def test_commands_are_shell_that_papermill_reads_back(monkeypatch: pytest.MonkeyPatch) -> None:
    planned = plan(
        "celeba64",
        ["ema-d4"],
        "smoke",
        [7],
        evaluation={"rfid_weights": "my weights/$HOME's.pth", "rfid": True, "max_images": None},
        dataset="folder",
        data_root="2024",
        quantizer_options={"decay": 1e-05},
        lr=1e-05,
        flip=False,
    )
    (command,) = (run.command for run in planned)
    assert "\n" not in command
    subprocess.run(["bash", "-n", "-c", command], check=True)
    jobs = [[]]
    for word in shlex.split(command):
        if word == "&&":
            jobs.append([])
        else:
            jobs[-1].append(word)
    make, *notebooks = jobs
    assert make == ["mkdir", "-p", str(planned[0].run_dir)]
    wanted = (planned[0].train_parameters, planned[0].evaluate_parameters | {"run_dir": str(planned[0].run_dir)})
    for job, stem, parameters in zip(notebooks, ("02_train", "04_evaluate"), wanted, strict=True):
        assert job[:3] == ["papermill", f"notebooks/{stem}.ipynb", f"{planned[0].run_dir}/{stem}.ipynb"]
        assert (repository_root() / job[1]).is_file()
        read: dict[str, Any] = {}
        monkeypatch.setattr(papermill.cli, "execute_notebook", lambda read=read, **given: read.update(given))
        result = CliRunner().invoke(papermill.cli.papermill, job[1:])
        assert result.exit_code == 0, result.output
        assert read["parameters"] == parameters
        assert {k: type(v) for k, v in read["parameters"].items()} == {k: type(v) for k, v in parameters.items()}
        assert parameters.keys() <= parameter_types(parameters_source(notebook_path(stem))).keys()


def test_commands_name_the_repositorys_runs_by_relative_paths(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("VISTOK_RUNS")
    (run,) = plan("celeba64", ["vq-d4"], "smoke", [0])
    assert str(repository_root()) not in run.command
    assert run.command.startswith(f"mkdir -p runs/{run.config.run_name} && papermill notebooks/02_train.ipynb ")


def test_the_command_line_prints_commands_and_runs_nothing(
    executed: list[Any], capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["celeba64", "--rows", "vq-d4", "ema-d4", "--seeds", "0", "1", "--set", "steps=7", "--print-commands"]
    assert command.main(arguments) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 4
    assert all("-p steps 7" in line for line in lines)
    assert executed == []


def test_options_given_again_add_to_the_first_and_a_run_is_planned_once(capsys: pytest.CaptureFixture[str]) -> None:
    again = ["--rows", "vq-d4", "--rows", "ema-d4", "vq-d4", "--seeds", "0", "--seeds", "1", "0"]
    assert command.main(["celeba64", *again, "--set", "steps=7", "--set", "flip=no", "--print-commands"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == len(set(lines)) == 4
    assert all("-p steps 7 -p flip False" in line for line in lines)


@pytest.mark.parametrize("name", ["dataset", "row", "table", "evaluation"])
def test_an_override_that_has_a_place_of_its_own_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match=f"'{name}' is no override: "):
        tables.check_overrides(["steps", name])
    assert "tables.check_overrides(overrides)" in notebook_path("05_table").read_text(encoding="utf-8")


def test_rows_trained_on_the_same_images_are_found_wherever_they_lie(images_root: Path, tmp_path: Path) -> None:
    def planned(root: object) -> PlannedRun:
        return plan("celeba64", ["vq-d4"], "smoke", dataset="folder", data_root=str(root), image_size=16)[0]

    first = planned(images_root)
    images = open_dataset("folder", "train", 16, data_root=images_root)
    Run.open(None, first.config).write_config("cpu", data=images.record())
    shutil.copytree(images_root, tmp_path / "copy", copy_function=shutil.copyfile)
    for root in (f"{images_root}/", tmp_path / "copy"):
        assert planned(root).run_dir == first.run_dir and str(first.run_dir) in planned(root).command
    (tmp_path / "copy" / "00.png").unlink()
    assert planned(tmp_path / "copy").run_dir != first.run_dir


def test_the_command_line_runs_and_tells_of_failures(executed: list[Any], capsys: pytest.CaptureFixture[str]) -> None:
    assert command.main(["celeba64", "--rows", "vq-d4", "--seeds", "0"]) == 0
    output = capsys.readouterr().out
    assert "rfid was not measured: no weights here" in output
    assert "| vq-d4 |" in output
    assert command.main(["celeba64", "--rows", "vq-d4", "--seeds", "13", "0"]) == 1
    assert "failed: 02_train: ValueError: an unlucky seed" in capsys.readouterr().out


@pytest.mark.parametrize(
    "wrong",
    [
        ["--rows", "vq-d5"],
        ["--scale", "big"],
        ["--set", "stepps=1"],
        ["--set", "steps"],
        ["--set", "flip=maybe"],
        ["--set", "scale=quick"],
        ["--set", "row=vq-d4"],
        ["--set", "dataset=celeba"],  # beside --dataset
        ["--seeds", "1", "--set", "seed=5"],
        ["--dataset", "folder", "--data-root", ""],  # an unset variable of the shell
        ["--rfid-weights", ""],
        ["--rfid-weights", "no/such/file"],  # before hours of training, not after them
    ],
)
def test_the_command_line_refuses_with_one_sentence(
    wrong: list[str], executed: list[Any], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as stop:
        command.main(["celeba64", *wrong])
    assert stop.value.code == 2
    assert "Traceback" not in capsys.readouterr().err
    assert executed == []


@pytest.mark.parametrize("encoding", ["cp1252", "ascii"])
def test_what_the_output_cannot_encode_ends_no_program(
    encoding: str, executed: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    output = io.BytesIO()
    monkeypatch.setattr("sys.stdout", io.TextIOWrapper(output, encoding=encoding, write_through=True))
    monkeypatch.setenv("VISTOK_RUNS", str(runs_root() / "Läufe 数"))
    assert command.main(["celeba64", "--rows", "vq-d4", "--seeds", "0"]) == 0
    text = output.getvalue().decode(encoding)
    assert r"PSNR \u2191" in text
    assert ": done in " in text
    assert r" \u6570" in text
    assert ("Läufe" if encoding == "cp1252" else r"L\xe4ufe") in text


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (
            ["celeba64", "--rows", "vq-d4"],
            "which an installed package does not bring. Run this in a clone of it; or train",
        ),
        (["celeba64", "--rows", "vq-d4", "--print-commands"], "which an installed package does not bring."),
        (["celeba64", "--rfid-weights", "x"], "04_evaluate.ipynb: rows run through the notebooks of the repository"),
        (["celeba64", "--readme"], "--readme makes the tables in the repository's READMEs anew: run it in a clone."),
    ],
)
def test_an_installed_package_says_what_the_repository_has_and_makes_nothing(
    arguments: list[str],
    sentence: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.delenv("VISTOK_RUNS")
    (tmp_path / "here").mkdir()
    (tmp_path / "here" / "README.md").write_text("somebody's own", encoding="utf-8")
    monkeypatch.chdir(tmp_path / "here")
    monkeypatch.setattr("vistok.system.paths.PACKAGE", tmp_path / "site-packages" / "vistok")
    with pytest.raises(SystemExit) as stop:
        command.main(arguments)
    assert stop.value.code == 2
    assert sentence in capsys.readouterr().err
    assert [path.name for path in Path.cwd().iterdir()] == ["README.md"]
    assert Path("README.md").read_text(encoding="utf-8") == "somebody's own"
    with pytest.raises(FileNotFoundError, match="does not bring"):
        run_all(plan("celeba64", "vq-d4"))
    assert not runs_root().exists()


def test_the_table_shows_measured_beside_published_with_mean_and_range() -> None:
    planned = plan("celeba64", ["vq-d4", "vq-d64-l2", "ema-d4"], "smoke", [0, 1, 2])
    for run, psnr in zip(planned[:3], (20.0, 21.0, 23.5), strict=True):
        complete(run, psnr=psnr, usage_queue=0.5, ssim=0.8)
    complete(planned[3], psnr=19.25, usage_queue=0.25, ssim=None)
    assert measured(planned, "psnr") == {"vq-d4": [20.0, 21.0, 23.5], "vq-d64-l2": [19.25], "ema-d4": []}
    header, _, vq_d4, vq_d64_l2, ema = markdown(planned).splitlines()
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in (header, vq_d4, vq_d64_l2, ema)]
    assert len({len(row) for row in cells}) == 1
    named = dict(zip(cells[0], cells[1], strict=True))
    assert named["row"] == "vq-d4"
    assert (named["quantizer"], named["dim"], named["size"], named["l2"]) == ("vq", "4", "512", "no")
    assert named["PSNR ↑"] == "21.50<br>(20.00 to 23.50)"
    assert named["PSNR ↑<br>published"] == "32.21"
    assert named["usage, last 65,536 ↑"] == "50.0%"  # of all seeds
    assert named["usage, last 65,536 ↑<br>published"] == "100.0%"
    assert named["rFID ↓<br>published"] == "16.32" and "rFID ↓" not in named  # measured for none of them
    one_seed = dict(zip(cells[0], cells[2], strict=True))
    assert (one_seed["PSNR ↑"], one_seed["SSIM ↑"], one_seed["l2"]) == ("19.25", "–", "search")
    assert dict(zip(cells[0], cells[3], strict=True))["PSNR ↑"] == "–"


def test_a_row_of_another_tables_source_stands_without_its_numbers_and_a_metric_of_nobody_without_a_column() -> None:
    planned = plan("one_dimensional64", ["ema-d4", "titok-32"], "smoke", dataset="photos")
    header = markdown(planned).splitlines()[0]
    assert "PSNR ↑" in header and "rFID ↓" in header and "published" not in header
    complete(planned[0], psnr=20.0)
    header = markdown(planned).splitlines()[0]
    assert "PSNR ↑" in header and "rFID ↓" not in header and "published" not in header
    shared = plan("quantizers64", ["vq-d64"], "smoke", dataset="photos")  # a table of the same source
    assert "31.55" in markdown(shared)


def test_a_row_without_a_codebook_says_so_where_usage_would_stand() -> None:
    planned = plan("quantizers64", ["vq-d64", "none"], "smoke", dataset="photos")
    complete(planned[0], usage=0.5, perplexity=6.2, psnr=20.0)
    complete(planned[1], psnr=30.0, codebooks=[])
    header, _, coded, bare = ([c.strip() for c in line.split("|")[1:-1]] for line in markdown(planned).splitlines())
    named = dict(zip(header, bare, strict=True))
    assert (named["dim"], named["size"], named["PSNR ↑"]) == ("64", "–", "30.00")
    assert named["codebook usage ↑"] == named["perplexity ↑"] == "no codebook"
    assert dict(zip(header, coded, strict=True))["codebook usage ↑"] == "50.0%"
    assert tables.bits_in_use(planned[1:]) == {"none": []}
    assert "| none | `NoQuantizer` | 64 | – | none |" in tables.quantizers_markdown(planned)


def test_perplexity_of_several_codebooks_is_that_of_each() -> None:
    planned = plan("quantizers64", ["vq-d64", "residual-3x8"], "smoke", dataset="photos")
    for run in planned:
        complete(run, perplexity=6.2)
    header, _, single, several = (line.split(" | ") for line in markdown(planned).splitlines())
    column = header.index("perplexity ↑")
    assert (single[column], several[column]) == ("6", "6 each")


@pytest.mark.parametrize(
    ("better", "worse", "verdict"),
    [
        ([22.0, 23.0], [20.0, 21.0], "holds"),
        ([20.0, 21.0], [22.0, 23.0], "does not hold"),
        ([20.0, 23.0], [21.0, 22.0], "open"),
        ([21.0], [21.0], "open"),
        ([21.0], [], "not measured"),
        ([], [], "not measured"),
    ],
)
def test_a_conclusion_holds_where_the_seeds_do_not_overlap(
    better: list[float], worse: list[float], verdict: str
) -> None:
    planned = plan("celeba64", ["vq-d4", "vq-d64"], "smoke", [0, 1])
    for runs, values in ((planned[:2], better), (planned[2:], worse)):
        for run, value in zip(runs, values, strict=False):
            complete(run, psnr=value)
    lines = [line for line in conclusions_markdown(planned).splitlines() if "vq-d4 over vq-d64 | psnr" in line]
    assert len(lines) == 1
    assert lines[0].endswith(f"| **{verdict}** |")


@pytest.mark.filterwarnings("ignore:codebook_size differ")
def test_conclusions_are_drawn_for_runs_that_are_no_row_any_more() -> None:
    assert "**not measured**" in conclusions_markdown(plan("celeba64", ["vq-d4", "vq-d64"], "smoke", codebook_size=16))


def test_verdicts_stand_side_by_side_for_each_length() -> None:
    lengths = tables.plan_lengths("cifar10", ["laptop-10k", "laptop"], rows=["vq-d4", "vq-d64"], seeds=[0, 1])
    assert list(lengths) == [2500, 10_000]
    for run, psnr in zip(
        lengths[2500], [24.0, 23.0, 22.0, 21.0], strict=True
    ):  # the seeds of one row, then of the other
        complete(run, psnr=psnr, usage=0.5)
    points = tables.points_by_length(lengths)
    assert points["vq-d4"] == {2500: ([0.5, 0.5], [24.0, 23.0]), 10_000: ([], [])}
    made = tables.lengths_markdown(lengths).splitlines()
    assert made[0] == "| conclusion | metric | 2,500 steps | 10,000 steps |"
    (line,) = [line for line in made if "(vq-d4 over vq-d64) | psnr" in line]
    assert "| **holds**<br>23.50 dB<br>(23.00 dB to 24.00 dB)<br>against 21.50 dB" in line
    assert line.endswith("| **not measured** |")


def test_lengths_between_marks_are_made_anew() -> None:
    mark = '<!-- lengths cifar10 scales=["laptop","laptop-10k"] rows=["vq-d4","vq-d64"] -->'
    made = with_tables(f"{mark}\nstale\n<!-- /lengths -->\n")
    assert made.startswith(f"{mark}\n| conclusion | metric | 2,500 steps | 10,000 steps |") and "stale" not in made


def test_what_a_table_cost_is_the_time_of_its_complete_runs() -> None:
    planned = plan("cifar10", ["vq-d4", "vq-d64"], "laptop", [0, 1])
    for run, rate in zip(
        planned[:2], [64.0, 128.0], strict=True
    ):  # images a second in its first 100 steps of 64 images
        opened = Run.open(run.run_dir, run.config)
        opened.write_config("cpu", threads=2, num_processes=1)
        entry = {"losses": {}, "usage": None}
        lines = [entry | {"step": 100, "images_per_second": rate}, entry | {"step": 2500, "images_per_second": 256.0}]
        (run.run_dir / "log.jsonl").write_text("".join(f"{json.dumps(line)}\n" for line in lines))
        complete(run)
    seconds = [100 + 600, 50 + 600]
    assert tables.core_hours(planned) == pytest.approx([2 * value / 3600 for value in seconds])
    mark = '<!-- cost cifar10 rows=["vq-d4","vq-d64"] scale="laptop" seeds=[0,1] -->'
    line = "Training: 2 runs, 0.8 core-hours in all, 22 to 23 minutes each."
    assert with_tables(f"{mark}\nstale\n<!-- /cost -->\n") == f"{mark}\n{line}\n<!-- /cost -->\n"
    assert tables.cost_markdown(planned[2:]) == "No run is complete."


def test_scales_of_one_length_are_no_lengths() -> None:
    with pytest.raises(ValueError, match=r"'laptop' has 2,500 steps: each scale must have one length, and another"):
        tables.plan_lengths("cifar10", ["laptop", "laptop"], rows=["vq-d4"])


def test_an_evaluation_is_shown_beside_its_rows_published_numbers() -> None:
    record = RECORD | {"psnr": 20.5, "usage": 0.5}
    with_row = tables.beside_published(record, "celeba64/vq-d4")
    assert "| psnr | 20.50 dB | 32.21 dB |" in with_row
    assert "| usage | 50.0% |" in with_row
    without = tables.beside_published(record, None)
    assert "| psnr | 20.50 dB |" in without.splitlines()
    assert "published" not in without


@pytest.mark.parametrize("mark", ["<!-- table celeba64 -->", "<!-- table celeba64 rows=['vq-d4'] seeds=[0,1] -->"])
def test_tables_are_made_anew_between_their_marks(mark: str) -> None:
    for run in plan("celeba64", ["vq-d4"], "smoke"):
        complete(run, psnr=20.25)
    text = f"before\n\n{mark}\nstale\n<!-- /table -->\n\nafter\n"
    made = with_tables(text)
    assert made.startswith(f"before\n\n{mark}\n| row |")
    assert made.endswith("\n<!-- /table -->\n\nafter\n")
    assert "stale" not in made
    assert "20.25" in made
    assert with_tables(made) == made


def test_below_a_table_stands_what_must_be_said_of_its_images() -> None:
    for run in plan("celeba64", ["vq-d4", "vq-d64"], "smoke"):
        complete(run, psnr=20.25, dataset={"name": "cifar10-images", "note": "JPEG copies."})
    made = with_tables('<!-- table celeba64 rows=["vq-d4","vq-d64"] -->\n<!-- /table -->\n')
    assert made.endswith(" |\n\ncifar10-images: JPEG copies.\n<!-- /table -->\n")
    assert with_tables(made) == made


def test_the_tables_of_every_readme_are_made_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(command, "repository_root", lambda: tmp_path)
    monkeypatch.setenv("VISTOK_RUNS", str(tmp_path / "runs"))
    for readme in map(tmp_path.joinpath, command.READMES):
        readme.parent.mkdir(exist_ok=True)
        readme.write_text(
            f"# {readme.parent.name}\n<!-- table celeba64 -->\nstale\n<!-- /table -->\n", encoding="utf-8"
        )
    assert command.main(["celeba64", "--readme"]) == 0
    for readme in map(tmp_path.joinpath, command.READMES):
        text = readme.read_text(encoding="utf-8")
        assert text.startswith(f"# {readme.parent.name}\n<!-- table celeba64 -->\n| row |") and "stale" not in text


def test_a_readme_that_cannot_be_written_is_one_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    (tmp_path / "README.md").write_text("as it was\n")
    monkeypatch.setattr(command, "repository_root", lambda: tmp_path)
    monkeypatch.setenv("VISTOK_RUNS", str(tmp_path / "runs"))
    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(SystemExit):
        command.main(["celeba64", "--readme"])
    assert "README.md cannot be written (No space left on device); it is as it was." in capsys.readouterr().err
    assert [path.read_text() for path in tmp_path.iterdir()] == ["as it was\n"]


def test_a_readme_keeps_its_numbers_where_runs_lie_elsewhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "README.md").write_text("as it was\n")
    monkeypatch.setattr(command, "repository_root", lambda: tmp_path)
    monkeypatch.setenv("VISTOK_RUNS", str(tmp_path / "elsewhere"))
    with pytest.raises(SystemExit):
        command.main(["celeba64", "--readme"])
    assert "but VISTOK_RUNS is set: unset it." in capsys.readouterr().err
    assert (tmp_path / "README.md").read_text() == "as it was\n"


def test_text_without_marks_stays() -> None:
    assert with_tables("# Title\n<!-- tables -->\n") == "# Title\n<!-- tables -->\n"


def test_numbers_of_a_methods_paper_have_a_column_where_there_are_any() -> None:
    planned = plan("imagenet256", ["taming", "vit-base"], "smoke", dataset="photos")
    header, _, taming, vit = (
        [cell.strip() for cell in line.split("|")[1:-1]] for line in markdown(planned).splitlines()
    )
    values = dict(zip(header, taming, strict=True))
    assert (values["rFID ↓<br>published"], values["rFID ↓<br>paper"]) == ("18.91", "7.94")
    assert not {"rFID ↓", "PSNR ↑"} & set(header)
    complete(planned[1], rfid=2.5)
    vit_measured = markdown(planned).splitlines()[3].split("|")
    assert "2.50" in vit_measured[markdown(planned).splitlines()[0].split("|").index(" rFID ↓ ")]
    assert dict(zip(header, vit, strict=True))["rFID ↓<br>paper"] == "1.55"
    assert "PSNR ↑<br>published" in header and "SSIM ↑<br>paper" not in header
    assert "paper" not in markdown(plan("celeba64", ["vq-d4"], "smoke", dataset="photos")).replace("published", "")


def test_a_row_at_paper_scale_is_its_recipe() -> None:
    seed, corrected = (TrainConfig.from_row(f"imagenet256/{name}", "paper") for name in ("taming", "taming-corrected"))
    assert (seed.lr, seed.batch_size, seed.steps, seed.discriminator_start) == (5e-4, 16, 500_000, 250_000)
    assert (corrected.lr, corrected.batch_size, corrected.steps, corrected.discriminator_start) == (
        5.4e-5,
        12,
        10**6,
        0,
    )
    assert corrected.lr == pytest.approx(4.5e-6 * 12)
    base = TrainConfig.from_row("imagenet256/vit-base", "paper")
    assert (base.hidden_dim, base.network_options["depth"], base.network_options["patch_size"]) == (768, 12, 8)
    assert (base.warmup_steps, base.lr_schedule, base.discriminator) == (50_000, "cosine", "stylegan2")
    assert (base.optimizer, base.weight_decay, base.min_lr) == ("adamw", 1e-4, 5e-5)
    for name in ("taming", "taming-corrected", "llamagen", "llamagen-corrected"):  # as their runs started it
        row = TrainConfig.from_row(f"imagenet256/{name}", "paper")
        assert row.discriminator_options == {"init": "default"} and row.commitment_weight == 0.25


@pytest.mark.parametrize(
    ("name", "width", "depth", "heads", "tokens"),
    [("titok-l32", 1024, 24, 16, 32), ("titok-b64", 768, 12, 12, 64), ("titok-s128", 512, 8, 8, 128)],
)
def test_titok_at_paper_scale_is_its_recipe(name: str, width: int, depth: int, heads: int, tokens: int) -> None:
    one, two = (TrainConfig.from_row(f"imagenet256/{row}", "paper") for row in (f"{name}-stage1", name))
    for row in (one, two):
        assert (row.hidden_dim, row.network_options["depth"], row.network_options["num_heads"]) == (width, depth, heads)
        assert (row.network_options["num_tokens"], row.network_options["patch_size"]) == (tokens, 16)
        assert (row.codebook_size, row.codebook_dim, row.l2_norm, row.batch_size) == (4096, 12, True, 256)
        assert (row.lr, row.min_lr, row.gradient_clip, row.weight_decay) == (1e-4, 1e-5, 1.0, 1e-4)
    assert (one.proxy_from, one.steps, one.discriminator) == ("maskgit-vqgan", 1_000_000, None)
    assert (two.steps, two.adversarial_weight, two.adversarial_start, two.lecam_weight) == (
        500_000,
        0.01,
        20_000,
        0.001,
    )
    assert two.train_parts == "decoder" and resolve_path(two.init_from) == one.run_dir
    assert two.network_options == one.network_options and two.row == f"imagenet256/{name}"


@pytest.mark.parametrize("scale", ["smoke", "quick", "laptop", "paper"])
def test_a_row_begins_with_its_own_row_s_run_unless_another_is_given(scale: str) -> None:
    given = {"dataset": "folder", "data_root": "somewhere"}
    planned = {run.row.name: run for run in plan("one_dimensional64", None, scale, [4], **given)}
    grid, one, two = (planned[name] for name in ("maskgit-64", "titok-32-stage1", "titok-32-stage2"))
    assert resolve_path(one.config.proxy_from) == grid.run_dir and resolve_path(two.config.init_from) == one.run_dir
    assert two.config.seed == one.config.seed == grid.config.seed == 4
    (other,) = plan("one_dimensional64", "titok-32-stage2", scale, init_from="runs/other", **given)
    assert (other.config.init_from, other.config.row) == ("runs/other", "one_dimensional64/titok-32-stage2")
    names = list(load_table("one_dimensional64").rows)  # sources come first
    assert names.index("maskgit-64") < names.index("titok-32-stage1") < names.index("titok-32-stage2")


def test_a_comparison_puts_reports_under_what_was_measured() -> None:
    record = {
        "codebooks": [{"codebook_size": 1024}],
        "bits_per_pixel": 10 * 256 / 256**2,
        "dataset": {"name": "photos", "image_size": 256},
        "num_images": 1234,
        **{
            "psnr": 20.5,
            "ssim": 0.5,
            "lpips_alex": None,
            "lpips_vgg": None,
            "rfid": 3.25,
            "usage": 0.5,
            "usage_queue": 0.25,
        },
    }
    reports = {"a": [{"by": "its authors", "convention": "their own", "rfid": 2.19}], "other": [{"by": "x"}]}
    lines = tables.comparison_markdown({"a": record, "b": record}, reports).splitlines()
    assert lines[2] == (
        "| a | here: photos, 1,234 images | 256 | 1024 | 0.039 | 20.50 | 0.5000 | – | – | 3.25 | 50.0% | 25.0% |"
    )
    assert lines[3] == "|  | its authors (their own) |  |  |  | – | – | – | – | 2.19 | – | – |"
    assert lines[4].startswith("| b |") and len(lines) == 5
    one_code = record | {"codebooks": [{"codebook_size": 1}], "bits_per_pixel": 0.0}
    assert "images | – | 1 | 0.000 |" in tables.comparison_markdown({"a": one_code}, {})
    scales = record | {"codebooks": [{"codebook_size": 4096}] * 10, "bits_per_pixel": 12 * 680 / 256**2}  # as VAR's
    assert "images | 680 | 10 x 4096 | 0.125 |" in tables.comparison_markdown({"a": scales}, {})
    whole = record | {"dataset": {"name": "folder", "image_size": None}}  # pictures of several sizes
    assert "images | – | 1024 | 0.039 |" in tables.comparison_markdown({"a": whole}, {})
    groups = record | {"codebooks": [{"codebook_size": 4}, {"codebook_size": 16}], "bits_per_pixel": 6 * 256 / 256**2}
    assert "images | 256 | 4 + 16 | 0.023 |" in tables.comparison_markdown({"a": groups}, {})


def test_remedies_are_told_by_how_much_and_whether_every_seed_agrees() -> None:
    values = {
        "vq-d64": ([0.10, 0.12], [22.0, 22.4]),
        "ema-d64": ([0.20, 0.40], [22.3, 23.3]),  # better in usage, open in PSNR
        "vq-d64-entropy": ([0.05], [21.0]),  # worse
    }
    planned = plan("quantizers64", scale="smoke", seeds=[0, 1])
    for run in planned:
        usage, psnr = values.get(run.row.name, ([], []))
        if run.config.seed < len(usage):
            complete(run, usage=usage[run.config.seed], psnr=psnr[run.config.seed], perplexity=9.0)
    lines = [[cell.strip() for cell in line.strip("|").split("|")] for line in remedies_markdown(planned).splitlines()]
    header, _, baseline, *others = lines
    assert header == [
        "row",
        "what it changes",
        *("codebook usage ↑", "difference", "perplexity ↑"),
        *("difference", "PSNR ↑"),
        "difference",
    ]
    assert [line[0] for line in [baseline, *others]] == ["vq-d64", *load_table("quantizers64").remedies.rows]
    assert baseline[2:4] == ["11.0%<br>(10.0% to 12.0%)", "–"]
    found = {line[0]: line for line in others}
    assert found["ema-d64"][2:4] == ["30.0%<br>(20.0% to 40.0%)", "+19.0%<br>**better**"]
    assert found["ema-d64"][5:8] == ["+0<br>**open**", "22.80<br>(22.30 to 23.30)", "+0.60<br>**open**"]
    assert found["vq-d64-entropy"][3] == "-6.0%<br>**worse**" and found["vq-d64-entropy"][7] == "-1.20<br>**worse**"
    assert set(found["vq-d64-kmeans"][2:]) == {"–"}
    with pytest.raises(ValueError, match="Table 'celeba64' names no remedies"):
        remedies_markdown(plan("celeba64", ["vq-d4"]))


def test_remedies_name_rows_of_their_table() -> None:
    table = load_table("quantizers64")
    assert {table.remedies.baseline, *table.remedies.rows} <= set(table.rows)
    assert set(table.remedies.metrics) <= set(tables.COLUMNS)


def test_several_codebooks_and_columns_without_a_number() -> None:
    lines = markdown(plan("quantizers64", ["vq-d64", "residual-3x8", "multiscale"])).splitlines()
    assert "perplexity ↑" in lines[0] and "perplexity ↑<br>published" not in lines[0]
    assert [line.split(" | ")[3] for line in lines[2:]] == ["512", "3 x 8", "5 x 108"]


def test_bits_in_use_are_the_entropy_of_all_codebooks_over_their_bits() -> None:
    (run,) = plan("quantizers64", ["residual-3x8"], "smoke", [0])
    assert tables.bits_in_use([run]) == {"residual-3x8": []}
    books = [{"codebook_size": 8, "entropy_bits": bits} for bits in (3.0, 1.5, 0.0)]
    complete(run, codebooks=books)
    assert tables.bits_in_use([run]) == {"residual-3x8": [0.5]}
    complete(run, codebooks=[{"codebook_size": 1, "entropy_bits": 0.0}] * 2)  # no bits, and all of them in use
    assert tables.bits_in_use([run]) == {"residual-3x8": [1.0]}


def test_quantizers_are_told_by_class_sizes_and_losses() -> None:
    header, _, entropy, residual, fsq = tables.quantizers_markdown(
        plan("quantizers64", ["vq-d64-entropy", "residual-3x8", "fsq-888"], seeds=[0, 1])
    ).splitlines()
    assert header == "| row | class | D | K | losses |"
    assert entropy == "| vq-d64-entropy | `VectorQuantizer` | 64 | 512 | codebook, commitment, entropy |"
    assert residual == "| residual-3x8 | `ResidualQuantizer` | 4 | 3 x 8 | commitment |"
    assert fsq == "| fsq-888 | `FSQQuantizer` | 3 | 512 | none |"


def test_records_show_pictures_that_may_be_committed_and_own_folders_their_own(images_root: Path) -> None:
    (record,) = plan("celeba64", "vq-d4", "laptop", dataset="imagenet-sample")
    assert record.train_parameters["figure_dataset"] == record.evaluate_parameters["figure_dataset"] == "photos"
    assert "-r figure_dataset photos" in record.command
    (chosen,) = plan("celeba64", "vq-d4", "laptop", dataset="celeba", evaluation={"figure_dataset": "celeba"})
    assert chosen.evaluate_parameters["figure_dataset"] == "celeba"
    (own,) = plan("celeba64", "vq-d4", "quick", dataset="folder", data_root=str(images_root))
    assert "figure_dataset" not in own.train_parameters | own.evaluate_parameters
    assert own.config.batch_size == 18 and "batch_size" not in own.train_parameters  # as 02_train finds it too
