"""The run directory: opened, resumed or refused; its log, its checkpoints and its metrics."""

import dataclasses
import json
import re
import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from PIL import Image

from vistok.config import TrainConfig
from vistok.data import find_run_dir, open_dataset
from vistok.runs import Report, Run, short_names
from vistok.system.files import replace_file
from vistok.system.paths import repository_root
from vistok.system.provenance import provenance

Toy = Callable[..., TrainConfig]


def report(step: int) -> Report:
    return Report(step, {"total": 1.0 / step}, usage=0.5, perplexity=8.0, images_per_second=100.0, data_share=0.1)


def begun(config: TrainConfig, *steps: int, checkpoint: int | None = None) -> Run:
    """A run that wrote its configuration, a log of these steps and perhaps a checkpoint."""
    run = Run.open(None, config)
    run.write_config("cpu")
    for step in steps:
        run.append_log(report(step))
    if checkpoint:
        run.checkpoints.save({"step": checkpoint, "weight": torch.arange(3.0)}, checkpoint)
    return run


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_a_new_run_is_made_and_the_same_configuration_opens_it_again(toy: Toy) -> None:
    run = begun(toy(), 2, 4, checkpoint=4)
    assert run.path == toy().run_dir
    before = contents(run.path)
    again = Run.open(run.path, toy(num_workers=3, report_every=1))
    assert again.checkpoints.load()[0]["step"] == 4
    assert [line["step"] for line in again.log()] == [2, 4]
    assert Run.open(run.path).config == toy()
    assert contents(run.path) == before


def test_a_run_of_another_configuration_is_refused_with_the_fields_that_differ(toy: Toy) -> None:
    run = begun(toy(), 2)
    before = contents(run.path)
    with pytest.raises(ValueError) as error:
        Run.open(run.path, toy(lr=0.5, codebook_size=8, report_every=1))
    assert "lr is 0.001 there, 0.5 here" in str(error.value)
    assert "codebook_size is 16 there, 8 here" in str(error.value)
    assert "report_every" not in str(error.value)
    with pytest.raises(ValueError, match="lr is"):
        Run.open(run.path, toy(lr=0.5), start_over=True)
    assert contents(run.path) == before


def test_nothing_to_open_is_said(toy: Toy, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=re.escape(f"There is no run in {tmp_path / 'none'}")):
        Run.open(tmp_path / "none")
    with pytest.raises(ValueError, match="needs a path, a configuration, or both"):
        Run.open()
    assert not (tmp_path / "none").exists()


def test_a_record_without_weights_is_read_but_not_resumed(toy: Toy) -> None:
    run = begun(toy(), 2, 4, 6)
    before = contents(run.path)
    assert len(Run.open(run.path).log()) == 3
    with pytest.raises(ValueError, match=r"record without weights.*start_over.*another run_dir"):
        Run.open(run.path, toy())
    assert contents(run.path) == before


def test_a_run_killed_before_its_first_checkpoint_begins_again(toy: Toy) -> None:
    run = begun(toy(), 2)
    assert Run.open(run.path, toy()).checkpoints.load() is None


def test_starting_over_sets_everything_aside(toy: Toy) -> None:
    run = begun(toy(), 2, 4, 6, checkpoint=6)
    (run.path / "metrics.json").write_text("{}")
    before = contents(run.path)
    for number in (1, 2):
        over = Run.open(run.path, toy(), start_over=True)
        assert contents(over.path) == {}
        assert over.log() == []
        assert contents(run.path.with_name(f"{run.path.name}.before-{number}")) == before
        for name, content in before.items():
            (run.path / name).parent.mkdir(exist_ok=True)
            (run.path / name).write_bytes(content)


@pytest.mark.parametrize("text", ["false", "no", "", 0, None])
def test_what_is_no_bool_neither_sets_aside_nor_replaces(toy: Toy, text: object) -> None:
    run = begun(toy(), 2, 4, 6, checkpoint=6)
    record = {"psnr": 20.0, "dataset": {"name": "folder", "split": "test"}, "settings": {"max_images": None}}
    run.save_metrics(record)
    before = contents(run.path)
    with pytest.raises(TypeError, match=re.escape(f"start_over is {text!r} (") + r"\w+\), but must be of type bool\."):
        Run.open(run.path, toy(), start_over=text)
    with pytest.raises(TypeError, match=re.escape(f"overwrite is {text!r} (") + r"\w+\), but must be of type bool\."):
        run.save_metrics(record | {"psnr": 30.0}, overwrite=text)
    assert contents(run.path) == before
    assert list(run.path.parent.glob("*.before-*")) == []


def test_starting_over_where_nothing_is_just_starts(toy: Toy) -> None:
    run = Run.open(None, toy(), start_over=True)
    assert [path.name for path in run.path.parent.iterdir()] == [run.path.name]


def test_the_settings_of_a_tokenizer_are_not_taken_for_a_runs(toy: Toy) -> None:
    run = begun(toy(), 2)
    (run.path / "config.json").write_text('{"network": "titok", "image_size": 64}')
    with pytest.raises(ValueError, match="can read: it has no entry 'config', as a run's has."):
        Run.open(run.path)


@pytest.mark.parametrize("content", ["{", "[]", '{"config": {"colour": 1}}', '{"config": {"lr": "fast"}}', "\x00"])
def test_an_unreadable_configuration_is_named(toy: Toy, content: str) -> None:
    run = begun(toy(), 2)
    (run.path / "config.json").write_text(content)
    with pytest.raises(ValueError, match=re.escape(f"{run.path / 'config.json'} is not a configuration")):
        Run.open(run.path, toy())
    assert (run.path / "config.json").read_text() == content


def test_a_last_line_cut_short_is_left_out_and_dropped_on_resuming(toy: Toy) -> None:
    run = begun(toy(), 2, 4)
    with (run.path / "log.jsonl").open("a") as file:
        file.write('{"step": 6, "los')
    assert [line["step"] for line in run.log()] == [2, 4]
    run.truncate_log(4)
    run.append_log(report(6))
    assert [line["step"] for line in run.log()] == [2, 4, 6]


def test_truncating_keeps_the_other_lines_exactly(toy: Toy) -> None:
    run = begun(toy(), 2, 4, 6)
    lines = run.log()
    assert Report(**lines[0]) == report(2)
    run.truncate_log(4)
    assert run.log() == lines[:2]


def test_the_last_two_checkpoints_are_kept(toy: Toy) -> None:
    run = Run.open(None, toy())
    for step in (2, 4, 8, 10):
        file = run.checkpoints.save({"step": step}, step)
        assert file.name == f"step-{step:09d}.pt"
    assert [path.name for path in run.checkpoints.folder.iterdir() if path.suffix != ".pt"] == []
    assert [path.name for path in run.checkpoints.files()] == ["step-000000008.pt", "step-000000010.pt"]
    assert run.checkpoints.load() == ({"step": 10}, file)


class Unwritable:
    """Fails with words of its own, where those of Python's pickler differ from version to version."""

    def __reduce__(self) -> tuple[object, ...]:
        raise TypeError("this has no bytes")


def test_a_checkpoint_that_cannot_be_written_leaves_the_ones_before(toy: Toy) -> None:
    run = begun(toy(), 2, checkpoint=2)
    before = contents(run.path)
    with pytest.raises(TypeError, match="this has no bytes"):
        run.checkpoints.save({"step": 4, "bad": Unwritable()}, 4)
    assert contents(run.path) == before


def damage_file(file: Path, how: str) -> None:
    content = bytearray(file.read_bytes())
    if how == "bit":
        content[len(content) // 2] ^= 1
    elif how == "code":
        torch.save({"step": Run}, file)
        return
    file.write_bytes({"cut": content[:-500], "empty": b"", "text": b"not a checkpoint", "bit": content}[how])


DAMAGES = {
    "cut": "is cut off",
    "empty": "is cut off",
    "text": "is cut off",
    "code": "is cut off",
    "bit": "another SHA-256",
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_of_a_damaged_checkpoint_is_told_and_the_one_before_is_used(toy: Toy, damage: str) -> None:
    run = begun(toy(), 2, checkpoint=2)
    file = run.checkpoints.save({"step": 4, "weight": torch.zeros(1000)}, 4)
    damage_file(file, damage)
    content = file.read_bytes()
    with pytest.warns(UserWarning, match=f"step-000000004.pt .*{DAMAGES[damage]}.*: going on from step-000000002.pt"):
        state, found = run.checkpoints.load()
    assert (state["step"], found.name) == (2, "step-000000002.pt")
    run.checkpoints.save({"step": 3}, 3)  # going on from there, the damaged one is set aside, not lost
    assert [path.name for path in run.checkpoints.files()] == ["step-000000002.pt", "step-000000003.pt"]
    assert file.with_name("step-000000004.pt.damaged").read_bytes() == content


@pytest.mark.parametrize("damage", DAMAGES)
def test_where_every_checkpoint_is_damaged_nothing_begins_again_by_itself(toy: Toy, damage: str) -> None:
    run = begun(toy(), 2, checkpoint=2)
    damage_file(run.checkpoints.files()[0], damage)
    with pytest.raises(ValueError, match=f"step-000000002.pt .*{DAMAGES[damage]}.* set start_over") as error:
        run.checkpoints.load()
    assert "\n" not in str(error.value)


def test_a_checkpoint_is_a_zip_archive_that_others_read(toy: Toy) -> None:
    run = begun(toy(), 2, checkpoint=2)
    (file,) = run.checkpoints.files()
    with zipfile.ZipFile(file) as archive:
        assert archive.testzip() is None
        assert re.fullmatch(rb"sha256:[0-9a-f]{64}", archive.comment)
    assert torch.load(file, weights_only=True)["step"] == 2


def test_a_file_is_replaced_whole_or_not_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "file.json"
    replace_file(file, b"old")

    def full_disk(descriptor: int) -> None:
        raise OSError("No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr("os.fsync", full_disk)
        with pytest.raises(OSError, match="No space"):
            replace_file(file, b"new")
    assert file.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [file]
    replace_file(file, b"new")
    assert file.read_bytes() == b"new"


def test_half_a_run_is_not_measured(toy: Toy) -> None:
    run = begun(toy(), 2, 4, checkpoint=4)
    with pytest.raises(ValueError, match="has taken 4 of 6 steps"):
        run.check_finished()
    run.append_log(report(6))
    with pytest.raises(ValueError, match="has taken 4 of 6 steps"):  # the tokenizer is the checkpoint's
        run.check_finished()
    run.checkpoints.save({"step": 6}, 6)
    run.check_finished()


def test_a_finished_record_without_weights_may_be_measured(toy: Toy) -> None:
    begun(toy(), 2, 4, 6).check_finished()
    with pytest.raises(ValueError, match="has taken 0 of 7 steps"):
        Run.open(None, toy(steps=7)).check_finished()


@pytest.mark.parametrize("name", ["metrics.json", "metrics-folder-train.json"])
def test_an_evaluation_that_is_recorded_stays(toy: Toy, name: str) -> None:
    run = begun(toy(), 6)
    record = {"psnr": 20.0}
    assert run.save_metrics(record, name) == run.path / name
    assert run.save_metrics({"psnr": 30.0}, name) is None
    assert json.loads((run.path / name).read_text()) == record
    assert run.metrics == (record if name == "metrics.json" else None)
    assert run.save_metrics({"psnr": 30.0}, name, overwrite=True) == run.path / name
    assert json.loads((run.path / name).read_text())["psnr"] == 30.0


# The data decides which run it is, not the place that it lies in.


def trained_on(config: TrainConfig) -> Run:
    """A run with what is recorded of its images."""
    run = Run.open(None, config)
    images = open_dataset(config.dataset, "train", config.image_size, data_root=config.data_root)
    run.write_config("cpu", data=images.record())
    return run


def test_every_spelling_of_a_folder_is_the_same_run(toy: Toy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = Path(toy().data_root)
    run = trained_on(toy())
    monkeypatch.setattr("vistok.system.paths.repository_root", lambda: root.parent)
    (tmp_path / "link").symlink_to(root)
    for spelling in (f"{root}/", f"{root}//.", f"{root}/../{root.name}", root.name, str(tmp_path / "link")):
        assert toy(data_root=spelling).run_dir == run.path
        assert Run.open(None, toy(data_root=spelling)).path == run.path
        assert Run.open(run.path, toy(data_root=spelling)).path == run.path


def test_the_usual_folder_by_its_name_is_the_same_run(
    toy: Toy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("vistok.system.paths.repository_root", lambda: tmp_path)
    assert (
        toy(data_root=None).run_dir
        == toy(data_root=str(tmp_path / "data/folder")).run_dir
        == toy(data_root="data/folder").run_dir
    )


def test_a_copy_of_the_data_is_the_same_run_and_other_data_is_another(toy: Toy, tmp_path: Path) -> None:
    for number in range(20):
        (tmp_path / "job-1").mkdir(exist_ok=True)
        Image.new("RGB", (20, 20), (number, 0, 0)).save(tmp_path / f"job-1/{number:02}.bmp")
    run = trained_on(toy(data_root=str(tmp_path / "job-1")))
    for name in ("copy", "other", "more"):
        shutil.copytree(tmp_path / "job-1", tmp_path / name, copy_function=shutil.copyfile)
    Image.new("RGB", (20, 20), "blue").save(tmp_path / "other/03.bmp")  # of the same size
    Image.new("RGB", (20, 20), "blue").save(tmp_path / "more/20.bmp")
    (tmp_path / "job-1").rename(tmp_path / "gone")
    copy, other, more = (toy(data_root=str(tmp_path / name)) for name in ("copy", "other", "more"))
    assert Run.open(None, copy).path == run.path
    assert Run.open(None, dataclasses.replace(copy, lr=0.5)).path != run.path
    assert len({run.path, Run.open(None, other).path, Run.open(None, more).path}) == 3
    assert find_run_dir(toy(data_root=str(tmp_path / "nowhere"))) == toy(data_root=str(tmp_path / "nowhere")).run_dir
    record = json.loads((run.path / "config.json").read_text())
    del record["provenance"]["data"]["content"]  # of before it was recorded
    (run.path / "config.json").write_text(json.dumps(record))
    assert find_run_dir(copy) == run.path


def test_files_that_cannot_be_decoded_are_no_other_data(toy: Toy, tmp_path: Path) -> None:
    shutil.copytree(toy().data_root, tmp_path / "job-1")
    (tmp_path / "job-1/03.png").write_bytes(b"nothing")
    config = toy(data_root=str(tmp_path / "job-1"), on_bad_image="skip")
    run = Run.open(None, config)
    images = open_dataset("folder", "train", 16, data_root=config.data_root, on_bad_image="skip")
    run.write_config("cpu", data=images.record())
    shutil.copytree(tmp_path / "job-1", tmp_path / "job-2")
    assert find_run_dir(dataclasses.replace(config, data_root=str(tmp_path / "job-2"))) == run.path


@pytest.mark.parametrize("content", ["{", "[]", '{"config": {}, "provenance": 3}', '{"config": {"colour": 1}}'])
def test_what_is_no_run_is_passed_by(toy: Toy, tmp_path: Path, content: str) -> None:
    shutil.copytree(toy().data_root, tmp_path / "copy")
    run = trained_on(toy())
    (run.path / "config.json").write_text(content)
    copy = toy(data_root=str(tmp_path / "copy"))
    assert find_run_dir(copy) == copy.run_dir


def test_provenance_names_no_path_of_the_machine() -> None:
    text = json.dumps(provenance())
    assert str(repository_root()) not in text
    assert str(Path.home()) not in text
    assert not re.search(r'"/|[A-Z]:\\', text)


def test_provenance_names_versions_threads_and_commit() -> None:
    torch.set_num_threads(2)
    record = provenance("cpu")
    assert record["threads"] == 2
    assert record["versions"]["torch"] == torch.__version__.partition("+")[0] or record["versions"]["torch"]
    assert {"vistok", "accelerate", "torchmetrics"} < set(record["versions"])
    assert re.fullmatch(r"[0-9a-f]{40}", record["commit"]) if record["commit"] else record["dirty"] is None


def test_an_installed_package_does_not_record_the_commit_of_somebody_elses_repository(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(repository_root())  # a repository, whichever it is
    monkeypatch.setattr("vistok.system.paths.PACKAGE", tmp_path / "site-packages" / "vistok")
    assert (provenance()["commit"], provenance()["dirty"]) == (None, None)


def test_a_record_holds_configuration_and_provenance(toy: Toy) -> None:
    run = begun(toy())
    run.write_config("cpu", num_processes=1)
    record = json.loads((run.path / "config.json").read_text())
    assert TrainConfig.from_dict(record["config"]) == toy()
    assert record["provenance"]["num_processes"] == 1
    assert run.provenance == record["provenance"]


def test_runs_side_by_side_are_called_by_their_row_and_what_differs() -> None:
    ema, vq = "ema-d4-laptop-imagenet-sample-s0-754f9643", "vq-d64-laptop-imagenet-sample-s0-9168796a"
    assert short_names([ema, vq]) == ["ema-d4", "vq-d64"]
    assert short_names([ema, "ema-d4-quick-photos-s1-00000000"]) == [
        "ema-d4, laptop, imagenet-sample, seed 0",
        "ema-d4, quick, photos, seed 1",
    ]
    assert short_names([ema, "ema-d4-laptop-imagenet-sample-s0-118fe060"]) == ["ema-d4, 754f9643", "ema-d4, 118fe060"]
    assert short_names([ema, "llamagen-ds16"]) == ["ema-d4", "llamagen-ds16"]


@pytest.mark.parametrize("held", ["another-run/config.json", "picture.png", "weights.pt"])
def test_a_new_run_goes_into_no_folder_that_holds_other_things(toy, tmp_path, held):
    folder = tmp_path / "home"
    (folder / held).parent.mkdir(parents=True)
    (folder / held).write_text("{}")
    for start_over in (False, True):
        with pytest.raises(
            ValueError, match=rf"which holds {held.split('/')[0]}, but no run: .* instance {folder}/my-run"
        ):
            Run.open(folder, toy(), start_over=start_over)
    assert [path.name for path in tmp_path.iterdir()] == ["home"] and (folder / held).read_text() == "{}"
    with pytest.raises(ValueError, match="a file, but must be a folder"):
        Run.open(folder / held, toy())
    (folder / "a").mkdir()
    (folder / "a/02_train.ipynb").write_text("{}")  # the notebook that is being executed, and a log
    (folder / "a/job.log").write_text("")
    assert Run.open(folder / "a", toy()).path == folder / "a"
