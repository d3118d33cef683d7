"""A real JupyterLab on loopback and a headless Chromium: the notebooks as a reader meets them.

They need Debian's `chromium` and a font (`apt-get install --no-install-recommends chromium fonts-dejavu-core`) and
Playwright's Python package (in the `test` extra; never `playwright install`). Where one of them is missing, the tests here
are skipped with the reason.
"""

import shutil
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from browser.lab import FLAGS, Lab, NotebookPage, opened_notebooks, running_lab


@pytest.fixture(scope="session")
def browser() -> Iterator[Any]:
    """A headless Chromium."""
    playwright = pytest.importorskip(
        "playwright.sync_api", reason="Playwright's Python package is missing: pip install playwright"
    )
    chromium = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if chromium is None:
        pytest.skip("Chromium is missing: apt-get install --no-install-recommends chromium fonts-dejavu-core")
    playwright.expect.set_options(
        timeout=60_000
    )  # a kernel on a busy machine answers late; the usual 5 s were too few once
    with playwright.sync_playwright() as started:
        browser = started.chromium.launch(executable_path=chromium, args=FLAGS)
        yield browser
        browser.close()


@pytest.fixture(scope="session")
def lab(browser: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    """A JupyterLab of its own; without a browser it is not started."""
    with running_lab(tmp_path_factory.mktemp("lab")) as running:
        yield running


@pytest.fixture
def open_notebook(lab: Lab, browser: Any) -> Iterator[Callable[..., NotebookPage]]:
    """A function that opens a copy of a notebook, `open_notebook("02_train", scale="smoke")`, or one in `lab.root`."""
    with opened_notebooks(lab, browser) as open_copy:
        yield open_copy
