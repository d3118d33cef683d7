"""Every view of the package, as a cell of a notebook makes it: what laws that hold for all views are tested on."""

import importlib
import json
import pkgutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import vistok.widgets
from vistok.widgets.view import View

STATE = "application/vnd.jupyter.widget-state+json"
ENCODED = """import vistok
from vistok.runs import EXAMPLE_RUN
from vistok.widgets import *
encoded = open_encoded(EXAMPLE_RUN, "photos", max_images=32, device="cpu", progress=False)"""
TRAINER = """config = vistok.TrainConfig.from_row("celeba64", "smoke", dataset="photos", {settings})
trainer = vistok.Trainer(vistok.Run.open(None, config), progress=False)
from vistok.data import open_dataset, to_float
images = to_float(open_dataset("photos", "test", config.image_size).images(range(4)))
dashboard = TrainingDashboard(trainer, images)"""
DASHBOARD = f"{TRAINER.format(settings='hidden_dim=8, batch_size=4, steps=20')}\ndashboard.start(); dashboard.wait()"
SEQUENCE = """import torch
torch.manual_seed(0)
options = {"hidden_dim": 32, "depth": 1, "num_heads": 2, "num_tokens": 12, "patch_size": 8}
codes = {"codebook_size": 64, "codebook_dim": 4}
sequence = vistok.VisualTokenizer(network="titok", network_options=options, quantizer_options=codes, image_size=32).eval()
sequences = open_encoded(sequence, "photos", max_images=8, device="cpu", progress=False)"""
OTHERS = {  # class of a view to the cell that shows it; of those that are not here: made of `encoded` alone
    "CoarseToFine": f"{SEQUENCE}\nCoarseToFine(sequences)",
    "PlaneExplorer": "PlaneExplorer()",
    "QuantizerGallery": "QuantizerGallery(['vq-d64', 'ema-d64'])",
    "RunComparison": "RunComparison(encoded, encoded)",
    "RunCurves": "RunCurves(EXAMPLE_RUN)",
    "Sampler": "from vistok.runs import EXAMPLE_GENERATOR\nSampler(EXAMPLE_GENERATOR, device='cpu')",
    "TrainingDashboard": DASHBOARD,
}


def view_classes() -> list[str]:
    """Return the names of all classes of views of the package that are shown, wherever they are defined."""
    for module in pkgutil.iter_modules(vistok.widgets.__path__):
        importlib.import_module(f"vistok.widgets.{module.name}")
    own = (found for found in _below(View) if found.__module__.startswith("vistok.") and "_esm" in vars(found))
    # By name, for traitlets gives a view that lives a class of its own, of the name and module of its parent.
    return sorted({found.__name__ for found in own})


def source(name: str) -> str:
    """Return the cell that shows a view."""
    return OTHERS.get(name, f"{name}(encoded)")


def _below(parent: type[View]) -> Iterator[type[View]]:
    for child in parent.__subclasses__():
        yield child
        yield from _below(child)


def saved_models(file: Path) -> dict[str, Any]:
    """Return the models of widgets that a notebook was saved with, by their ids."""
    return json.loads(file.read_text())["metadata"]["widgets"][STATE]["state"]


def shows_what_it_knows(notebook: Any, number: int) -> None:
    """Check that a page shows a number of views, all of them without Python, and no error in place of one."""
    expect = pytest.importorskip("playwright.sync_api").expect
    views = notebook.page.locator(".vistok")
    expect(views).to_have_count(number)
    expect(notebook.page.locator(".vistok[data-live=false]")).to_have_count(number)
    assert "Error displaying widget" not in notebook.text() and "Loading widget" not in notebook.text()
    assert not notebook.errors, notebook.errors
