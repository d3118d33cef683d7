"""Every notebook runs with its defaults and prints what it printed when it was committed (nbval)."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest

from vistok.config import repository_root

NOTEBOOKS = sorted((repository_root() / "notebooks").glob("*.ipynb"))
SANITIZE = Path(__file__).parent / "sanitize.cfg"


@pytest.fixture(scope="module")
def environment(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Runs go into a copy of the records: a test changes nothing in the checkout."""
    runs = tmp_path_factory.mktemp("notebooks") / "runs"
    records = repository_root() / "runs"
    committed = shutil.ignore_patterns("checkpoint", "*-smoke-*", "*-quick-*")
    shutil.copytree(records, runs, ignore=committed)
    return os.environ | {"VISTOK_RUNS": str(runs)}


def nbval(notebook: Path, environment: dict[str, str]) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--nbval-lax"]
    command += ["--nbval-sanitize-with", str(SANITIZE), "--nbval-cell-timeout=1200", "--rootdir", str(notebook.parent)]
    return subprocess.run([*command, str(notebook)], env=environment, capture_output=True, text=True)


@pytest.mark.parametrize("notebook", NOTEBOOKS, ids=lambda path: path.stem)
def test_it_runs_and_prints_what_was_committed(notebook: Path, environment: dict[str, str]) -> None:
    result = nbval(notebook, environment)
    assert result.returncode == 0, result.stdout[-6000:]
    assert " passed" in result.stdout


def test_a_changed_number_fails(tmp_path: Path, environment: dict[str, str]) -> None:
    notebook = nbformat.v4.new_notebook()
    cell = nbformat.v4.new_code_cell("# NBVAL_CHECK_OUTPUT\nprint(2 * 21)")
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
    assert notebook.stat().st_size < 1_000_000
    assert "papermill" not in content.metadata
    assert str(repository_root()) not in notebook.read_text(encoding="utf-8")


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
