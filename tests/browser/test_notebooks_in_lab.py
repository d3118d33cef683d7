"""The notebooks in a real JupyterLab: run all, look at the page; interrupt a training, go on."""

import json
import re
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nbformat
import pytest
from browser.bars import lines_left, run_with_bar
from browser.lab import MAKING_SCREENSHOTS, keep_screenshot

from vistok.config import TrainConfig
from vistok.lessons import pictures, plane
from vistok.recipes import load_table
from vistok.tables import plan

OpenNotebook = Callable[..., Any]
SECONDS = 300  # until a notebook has surely run; they take 10 to 30 where nothing else runs
FOREVER = 1_000_000  # steps: no test waits for them
SMOKE = {"scale": "smoke", "dataset": "photos", "row": "celeba64"}


def check_figures(notebook: Any, number: int) -> None:
    figures = notebook.figures()
    assert len(figures) == number, figures
    for figure in figures:
        width, height = figure["natural"]
        assert width >= 200 and height >= 100, figure
        assert figure["shown"][0] >= 200 and figure["shown"][1] >= 100, figure  # on the page, not collapsed
        assert figure["colours"] > 20, figure  # something is drawn


def run_directory(runs: Path, **settings: Any) -> Path:
    config = TrainConfig.from_row("celeba64", "smoke", **settings)
    return runs / config.run_name


def log_steps(run: Path) -> list[int]:
    file = run / "log.jsonl"
    lines = file.read_text().split("\n")[:-1] if file.is_file() else []
    return [json.loads(line)["step"] for line in lines]


def wait_for_step(notebook: Any, run: Path, step: int, seconds: float) -> None:
    end = time.monotonic() + seconds
    while max(log_steps(run), default=0) < step:
        assert not notebook.failures(), notebook.failures()
        assert time.monotonic() < end, f"step {step} not reached: {log_steps(run)[-3:]}"
        time.sleep(0.2)


def training_cell(notebook: Any) -> int:
    """Return the cell that waits for the training; the one before it starts it."""
    (number,) = [i for i, cell in enumerate(notebook.cells()) if "dashboard.wait()" in "".join(cell["source"])]
    return number


def wait_for_bar(notebook: Any, cell: int) -> int:
    """Wait until the cell that waits for the training runs, and return the step that its bar tells."""
    expect = pytest.importorskip("playwright.sync_api").expect
    bar = notebook.page.locator(".jp-Notebook .jp-Cell").nth(cell).get_by_role("progressbar")
    expect(bar).to_have_attribute("aria-valuetext", re.compile("steps/s|s each"), timeout=1000 * SECONDS)
    return int(bar.get_attribute("aria-valuetext").split()[0].replace(",", ""))


def saved_steps(run: Path) -> list[int]:
    return sorted(int(file.stem.removeprefix("step-")) for file in (run / "checkpoint").glob("step-*.pt"))


def output_text(notebook: Any, cell: int) -> str:
    """Return the text under one cell as the page shows it."""
    notebook_cell = notebook.page.locator(".jp-Notebook .jp-Cell").nth(cell)
    return "\n".join(notebook_cell.locator(".jp-OutputArea-output").all_inner_texts())


def test_02_train_runs_to_the_end_and_shows_it(lab: Any, open_notebook: OpenNotebook) -> None:
    notebook = open_notebook("02_train", **SMOKE, steps=120)
    run = run_directory(lab.runs, dataset="photos", steps=120)
    # Its line, and not its bar: the training goes on while the page is busy, and may be over before the cell that waits for it
    # begins. Tests below stop it while its bar moves.
    notebook.run_all(seconds=SECONDS)
    line = lines_left(notebook)[-1]
    assert re.fullmatch(rf"{run.name}: 120 of 120 steps in \d+ s · loss .* usage .*%", line)
    assert log_steps(run)[-1] == 120
    check_figures(notebook, number=3)  # reconstructions in the dashboard and below it, codebook usage
    assert notebook.page.locator(".training-dashboard").get_attribute("data-phase") == "finished"
    assert re.search(rf"{run.name}: 120 of 120 steps in \d+ s", notebook.text())
    last_cell = len(notebook.cells()) - 1
    files = output_text(notebook, last_cell).split()
    assert {"config.json", "log.jsonl", "curves.png", "reconstructions.jpg", "tokenizer/model.safetensors"} <= set(
        files
    )
    for file in files:
        assert (run / file).stat().st_size > 0, file
    assert not notebook.errors, notebook.errors


def test_the_dashboard_of_a_run_on_photos(lab: Any, open_notebook: OpenNotebook) -> None:
    row = {"scale": "quick", "row": "celeba64/ema-d4", "steps": 600} if MAKING_SCREENSHOTS else {"scale": "smoke"}
    notebook = open_notebook("02_train", **(SMOKE | row), seed=3, report_every=10)
    notebook.run_all(seconds=SECONDS)
    dashboard = notebook.page.locator(".training-dashboard")
    dashboard.scroll_into_view_if_needed()
    for canvas in dashboard.locator("canvas[data-points]").all():
        assert int(canvas.get_attribute("data-points")) > 3
    keep_screenshot(dashboard, "dashboard")
    assert not notebook.errors, notebook.errors


def test_05_table_shows_the_records_and_the_row_it_runs(lab: Any, open_notebook: OpenNotebook) -> None:
    notebook = open_notebook("05_table", overrides={"steps": 120})
    run_with_bar(notebook, "vq-d4-smoke-photos-s0")

    rows = list(load_table("celeba64").rows)
    assert len(rows) == 11
    committed, conclusions, longer, sequences, stages, *published, ran = notebook.tables()
    assert [row[0] for row in sequences[1:]] == list(load_table("one_dimensional64").rows)
    assert stages[1][1] == "titok-32-stage2 over titok-32" and stages[1][-1] != "not measured"
    assert longer[0][2:] == ["2,500 steps", "10,000 steps"] and len(longer) == 9
    for name, shown_rows in zip(["imagenet64", "imagenet256"], published, strict=True):
        assert [row[0] for row in shown_rows[1:]] == list(load_table(name).rows)
    assert [row[0] for row in committed[1:]] == rows
    assert len(conclusions) > 1
    assert {row[-1] for row in conclusions[1:]} <= {"holds", "does not hold", "open"}
    check_figures(notebook, number=2)

    header = [cell.replace("\n", " ") for cell in committed[0]]
    psnr = header.index("PSNR ↑")
    for name, cells in zip(rows, committed[1:], strict=True):  # the records that come with the repository, if any
        planned = plan("celeba64", [name], "laptop", [0, 1, 2], dataset="imagenet-sample")
        files = [lab.runs / run.config.run_name / "metrics.json" for run in planned]
        values = [json.loads(file.read_text())["psnr"] for file in files if file.is_file()]
        assert cells[psnr].split("\n")[0] == (f"{sum(values) / len(values):.2f}" if values else "–"), name
    assert committed[1][psnr + 1] == "32.21"  # published

    (file,) = lab.runs.glob("vq-d4-smoke-photos-s0-*/metrics.json")
    measured = json.loads(file.read_text())
    assert measured["rfid"] is None and "Inception" in measured["unavailable"]["rfid"]  # there is no network here
    assert len(ran) == 2
    shown = dict(zip([cell.replace("\n", " ") for cell in ran[0]], ran[1], strict=True))
    assert shown["row"] == "vq-d4"
    assert shown["usage, last 65,536 ↑"] == f"{measured['usage_queue']:.1%}"
    assert shown["PSNR ↑"] == f"{measured['psnr']:.2f}"
    assert shown["SSIM ↑"] == f"{measured['ssim']:.4f}"
    assert shown["rFID ↓ published"] == "16.32" and "rFID ↓" not in shown
    assert "1 planned, 1 complete, 0 failed" in notebook.text()
    assert {"02_train.ipynb", "04_evaluate.ipynb"} <= {path.name for path in file.parent.iterdir()}
    assert not notebook.errors, notebook.errors


def test_06_pretrained_measures_the_committed_tokenizer_and_shows_it(lab: Any, open_notebook: OpenNotebook) -> None:
    notebook = open_notebook("06_pretrained", max_images=128)
    run_with_bar(notebook, "evaluating on photos")
    text = " ".join(notebook.page.locator(".jp-Notebook").inner_text().split())
    assert "checkpoints/llamagen-ds16/vq_ds16_c2i.pt" in text  # what can be had, and where it goes
    assert "here: photos, 128 images" in text
    check_figures(notebook, number=1)
    assert not notebook.errors, notebook.errors


def test_07_quantizers_shows_the_tables_and_its_explorer_follows_a_choice(
    lab: Any, open_notebook: OpenNotebook
) -> None:
    notebook = open_notebook("07_quantizers", num_tokens=2048, num_turns=1, num_steps=10)
    run_with_bar(notebook, "measuring the quantizers")
    rows = list(load_table("quantizers64").rows)
    contract, records, remedies, costs = notebook.tables()
    assert [row[0] for row in contract[1:]] == [row[0] for row in records[1:]] == [row[0] for row in costs[1:]] == rows
    assert remedies[1][0] == "vq-d64" and len(remedies) > 7
    check_figures(notebook, number=4)  # all methods in the plane, bits and quality, two of collapses

    expect = pytest.importorskip("playwright.sync_api").expect
    explorer = notebook.page.locator(".vistok.plane-explorer")
    explorer.scroll_into_view_if_needed()
    error, step = explorer.locator("[data-role=error]"), explorer.locator("[data-role=step]")
    expect(error).to_have_text(f"{plane.learn('vq')[-1].error:.3f}")
    explorer.get_by_label("quantizer").select_option("ema")  # learnt for the figure: it is there without the kernel
    expect(error).to_have_text(f"{plane.learn('ema')[-1].error:.3f}")
    explorer.get_by_label("step of learning").focus()
    notebook.page.keyboard.press("ArrowLeft")  # the keyboard is enough
    expect(step).to_have_text(f"step {plane.FRAMES[-2]}")
    expect(error).to_have_text(f"{plane.learn('ema', steps=(plane.FRAMES[-2],))[0].error:.3f}")

    gallery = notebook.page.locator(".vistok.quantizer-gallery")
    gallery.scroll_into_view_if_needed()
    found = pictures.load(rows, lab.runs / "pictures")
    if found.rows:
        expect(gallery.locator("[data-row]")).to_have_count(1 + len(found.rows))  # and the original
    else:
        expect(gallery.locator(".message")).to_contain_text("There are no pictures of vq-d64")
    assert not notebook.errors, notebook.errors


def test_08_generate_shows_samples_rate_and_quality_and_its_widget_draws_on(open_notebook: OpenNotebook) -> None:
    notebook = open_notebook("08_generate", num_samples=2)
    notebook.run_all(SECONDS)
    rate, quality = notebook.tables()
    assert [row[0] for row in rate[1:]] == ["nominal", "under the generator"]
    nominal, measured = (float(row[1]) for row in rate[1:])
    assert 0.5 * nominal < measured < 0.9 * nominal
    assert [row[0] for row in quality[1:]] == ["samples", "real", "reconstructions", "shuffled"]
    check_figures(notebook, number=3)  # samples, one of them step by step, a photograph completed

    expect = pytest.importorskip("playwright.sync_api").expect
    view = notebook.page.locator(".vistok.sampler")
    view.scroll_into_view_if_needed()
    expect(view.locator("[data-role=title]")).to_have_text("seed 0, ship, guidance 1.5")
    view.get_by_label("class", exact=True).select_option("frog")
    view.get_by_label("pace").select_option("0")
    view.get_by_role("button", name="sample").click()
    expect(view.locator("[data-role=title]")).to_have_text("seed 1, frog, guidance 1.5")
    expect(view).to_have_attribute("data-phase", "finished")
    assert not notebook.errors, notebook.errors


def test_02_train_interrupted_goes_on_where_it_stopped(lab: Any, open_notebook: OpenNotebook) -> None:
    settings = {"dataset": "photos", "hidden_dim": 8, "batch_size": 4, "steps": FOREVER}
    run = run_directory(lab.runs, **settings)
    notebook = open_notebook("02_train", **(SMOKE | settings), report_every=5, checkpoint_every=FOREVER)
    cell = training_cell(notebook)

    def interrupt_after(step: int) -> int:
        """Interrupt once the log holds `step`; check that it was saved, and return the step that the page says."""
        wait_for_step(notebook, run, step, seconds=SECONDS)
        wait_for_bar(notebook, cell)
        notebook.page.evaluate("window.jupyterapp.commands.execute('notebook:interrupt-kernel')")
        assert notebook.finish(seconds=SECONDS) is True
        assert not notebook.failures(), notebook.failures()
        text = output_text(notebook, cell)
        said = re.search(rf"Interrupted: saved at step (\d+) of {FOREVER}; the same command goes on", text)
        assert said, text
        saved_step = int(said[1])
        assert saved_step >= step
        newest = sorted((run / "checkpoint").glob("step-*.pt"))[-1]
        assert newest.name == f"step-{saved_step:09d}.pt"
        assert log_steps(run) == list(range(5, saved_step + 1, 5))  # every report once: nothing lost, nothing repeated
        return saved_step

    assert not run.exists()
    notebook.start("notebook:run-all-cells")
    first = interrupt_after(step=20)
    rest = [run / name for name in ("reconstructions.jpg", "tokenizer/model.safetensors")]
    assert all(path.is_file() for path in rest)  # the cells below ran, on what was trained so far

    notebook.start_cell(cell - 1)
    assert notebook.finish(seconds=SECONDS) is True
    notebook.start_cell(cell)
    shown_step = wait_for_bar(notebook, cell)
    second = interrupt_after(step=5 * (first // 5) + 50)
    assert second > first
    assert shown_step >= first  # the bar begins where it stopped
    assert len(sorted((run / "checkpoint").glob("step-*.pt"))) == 2
    assert not notebook.errors, notebook.errors


def test_02_train_is_watched_live_and_a_click_stops_it(lab: Any, open_notebook: OpenNotebook) -> None:
    expect = pytest.importorskip("playwright.sync_api").expect
    settings = {"dataset": "photos", "hidden_dim": 8, "batch_size": 4, "steps": FOREVER, "seed": 1}
    run = run_directory(lab.runs, **settings)
    notebook = open_notebook("02_train", **(SMOKE | settings), report_every=5, checkpoint_every=FOREVER)
    cell = training_cell(notebook)
    box = notebook.page.locator(".training-dashboard")

    def seen() -> tuple[int, int, int]:
        """Return the step that the page says, and how often it has drawn curves and codes."""
        step = int(box.locator(".steps").inner_text().split()[1].replace(",", ""))
        canvas = box.locator("canvas[role=application]")
        return step, int(box.get_attribute("data-paints")), int(canvas.get_attribute("data-paints") or 0)

    def wait_until_more(than: tuple[int, int, int]) -> None:
        end = time.monotonic() + SECONDS
        while not all(now > before for now, before in zip(seen(), than, strict=True)):
            assert time.monotonic() < end, (seen(), than)
            notebook.page.wait_for_timeout(100)

    def click_stop() -> int:
        """Click, and return the step that the page says was saved; check that it was."""
        box.get_by_role("button", name="stop and save").click()
        phase = box.locator(".phase")
        expect(phase).to_have_text(re.compile("saved at step"), timeout=1000 * SECONDS)
        step = int(phase.inner_text().rsplit(" ", 1)[1].replace(",", ""))
        assert saved_steps(run)[-1] == step
        assert log_steps(run) == list(range(5, step + 1, 5))
        return step

    notebook.start("notebook:run-all-cells")
    wait_for_step(notebook, run, 20, seconds=SECONDS)
    wait_for_bar(notebook, cell)
    for _ in range(2):  # while the cell below waits
        wait_until_more(seen())
    first = click_stop()
    assert notebook.finish(seconds=SECONDS) is True and not notebook.failures(), notebook.failures()
    assert f"Interrupted: saved at step {first} of {FOREVER}" in output_text(notebook, cell)

    notebook.start_cell(cell - 1)  # and no cell that waits
    assert notebook.finish(seconds=SECONDS) is True
    wait_for_step(notebook, run, 5 * (first // 5) + 20, seconds=SECONDS)
    expect(box).to_have_attribute("data-phase", "training")
    wait_until_more(seen())
    second = click_stop()
    assert second >= first + 15

    notebook.start_cell(cell - 1)
    assert notebook.finish(seconds=SECONDS) is True
    notebook.start_cell(cell)
    shown_step = wait_for_bar(notebook, cell)
    wait_for_step(notebook, run, 5 * (second // 5) + 20, seconds=SECONDS)
    third = click_stop()
    assert notebook.finish(seconds=SECONDS) is True
    assert shown_step >= second
    assert third > second and not notebook.failures(), notebook.failures()
    assert not notebook.errors, notebook.errors


def test_a_failing_cell_is_noticed(lab: Any, open_notebook: OpenNotebook) -> None:
    """`run_all` can fail: it says what a cell raised."""
    cells = [nbformat.v4.new_code_cell(source) for source in ("print('before')", "1 / 0", "print('after')")]
    kernel = {
        "name": "python3",
        "display_name": "Python 3",
        "language": "python",
    }  # without it, JupyterLab asks for one
    failing = nbformat.v4.new_notebook(cells=cells, metadata={"kernelspec": kernel})
    nbformat.write(failing, lab.root / "failing.ipynb")
    notebook = open_notebook("failing")
    with pytest.raises(AssertionError, match="ZeroDivisionError: division by zero"):
        notebook.run_all(seconds=SECONDS)
    assert "before" in notebook.text() and "after" not in notebook.text()
