"""A notebook that one comes back to, in a real JupyterLab: after a restart, a kernel that died, an earlier version of the file.

(`test_every_view_in_lab.py` opens again what was saved of every view.)
"""

from collections.abc import Callable
from typing import Any

import nbformat
import pytest
from browser.lab import Lab, write_notebook
from browser.views import ENCODED, TRAINER, saved_models, shows_what_it_knows, view_classes
from nbclient import NotebookClient
from nbformat.sign import NotebookNotary

from vistok.widgets import PlaneExplorer

SECONDS = 300
FOREVER = TRAINER.format(settings="hidden_dim=8, batch_size=4, steps=1_000_000, seed=7") + "\ndashboard.start()"


def expect(target: Any) -> Any:
    return pytest.importorskip("playwright.sync_api").expect(target)


def test_every_class_is_looked_at_once_whatever_views_live() -> None:
    """Views that other tests have made and that still live once filled these notebooks with dozens of theirs."""
    living = PlaneExplorer()
    assert view_classes().count(type(living).__name__) == 1


def test_a_copy_that_was_run_without_a_page_opens_trusted_or_not(lab: Lab, open_notebook: Callable[..., Any]) -> None:
    write_notebook(lab, "executed", ENCODED, "PlaceExplorer(encoded)")
    file = lab.root / "executed.ipynb"
    content = nbformat.read(file, as_version=4)
    NotebookClient(content, timeout=SECONDS).execute()
    nbformat.write(content, file)
    notebook = open_notebook("executed", again=True)
    expect(notebook.page.locator(".jp-OutputArea-output img")).to_have_count(1)
    notebook.page.context.close()
    NotebookNotary(data_dir=str(lab.root.parent / "data")).sign(content)
    shows_what_it_knows(open_notebook("executed", again=True), 1)


def test_reloaded_with_its_kernel_restarted_and_opened_the_next_day(
    lab: Lab, open_notebook: Callable[..., Any]
) -> None:
    write_notebook(lab, "trains", ENCODED, "PlaceExplorer(encoded)", FOREVER)
    notebook = open_notebook("trains")
    notebook.run_all(SECONDS)
    page = notebook.page
    dashboard, stop = page.locator(".training-dashboard"), page.locator(".training-dashboard button.stop")
    expect(stop).to_be_visible()
    notebook.save()  # amid the training

    page.reload()
    page.wait_for_selector(".vistok.training-dashboard[data-live=true][data-phase=training]")
    expect(page.locator(".place-explorer[data-live=true]")).to_have_count(1)
    step = dashboard.locator(".steps").inner_text()
    expect(dashboard.locator(".steps")).not_to_have_text(step)  # it goes on

    page.evaluate("() => window.jupyterapp.shell.currentWidget.sessionContext.session.kernel.restart()")
    expect(dashboard.locator(".phase")).to_contain_text("the training ended with its kernel at about step")
    expect(dashboard.locator(".phase")).to_contain_text(
        "of 1,000,000; running the cell again goes on from its last checkpoint"
    )
    expect(stop).to_be_hidden()
    expect(dashboard.locator(".speed")).not_to_contain_text("left")
    shows_what_it_knows(notebook, 2)
    notebook.save()  # restarted, and nothing run

    lab.shut_down_kernels()
    page.context.close()
    notebook = open_notebook("trains", again=True)
    shows_what_it_knows(notebook, 2)
    expect(notebook.page.locator(".phase")).to_contain_text("the training ended with its kernel")
    expect(notebook.page.locator("button.stop")).to_be_hidden()
    notebook.run_all(SECONDS)
    expect(notebook.page.locator(".vistok[data-live=true]")).to_have_count(2)
    notebook.page.locator("button.stop").click()
    expect(notebook.page.locator(".phase")).to_contain_text("stopped: saved at step")


def test_a_kernel_that_dies_takes_the_training_with_it(lab: Lab, open_notebook: Callable[..., Any]) -> None:
    write_notebook(
        lab,
        "dies",
        ENCODED,
        "PlaceExplorer(encoded)",
        "import os, threading\nthreading.Timer(1, os._exit, (1,)).start()",
    )
    notebook = open_notebook("dies")
    notebook.run_all(SECONDS)
    expect(notebook.page.locator(".vistok[data-live=false]")).to_have_count(1)
    notebook.page.locator(".jp-Dialog").get_by_role("button").last.click()
    notebook.save()
    assert any(model["model_name"] == "AnyModel" for model in saved_models(lab.root / "dies.ipynb").values())


def test_a_view_that_an_output_displays_comes_back_too(lab: Lab, open_notebook: Callable[..., Any]) -> None:
    inside = "import ipywidgets\nout = ipywidgets.Output()\nwith out: display(PlaneExplorer())\nout"
    write_notebook(lab, "inside", ENCODED, inside, "ipywidgets.VBox([PlaneExplorer()])")
    notebook = open_notebook("inside")
    notebook.run_all(SECONDS)
    expect(notebook.page.locator(".vistok[data-live=true]")).to_have_count(2)
    notebook.save()
    lab.shut_down_kernels()
    notebook.page.context.close()
    shows_what_it_knows(open_notebook("inside", again=True), 2)


def test_an_earlier_version_of_the_file_brings_its_views(lab: Lab, open_notebook: Callable[..., Any]) -> None:
    """As `git checkout` does, or a return to JupyterLab's checkpoint, while the notebook is open."""
    write_notebook(lab, "versions", ENCODED, "step = globals().get('step', 0) + 1\nPlaneExplorer(step=step)")
    file = lab.root / "versions.ipynb"
    notebook = open_notebook("versions")
    notebook.run_all(SECONDS)
    notebook.save()
    earlier, before = file.read_bytes(), saved_models(file)
    notebook.run_all(SECONDS)
    notebook.save()
    assert not before.keys() & saved_models(file).keys()
    lab.shut_down_kernels()
    notebook.page.context.close()
    notebook = open_notebook("versions", again=True)
    expect(notebook.page.locator(".vistok .description")).to_contain_text("after step 2 of")
    file.write_bytes(earlier)
    notebook.start("docmanager:reload")
    expect(notebook.page.locator(".vistok .description")).to_contain_text("after step 1 of")
    notebook.save()
    assert saved_models(file) == before
