"""Executed copies that are fit to commit."""

import re
from pathlib import Path

import nbformat

from vistok.system.paths import repository_root, runs_root
from vistok.system.progress import MARK

WIDGET_VIEW = "application/vnd.jupyter.widget-view+json"


def clean(path: Path) -> None:
    """Make an executed notebook fit to commit, in place.

    Timestamps, papermill's metadata, paths, blank streams and what a progress bar has left go. Pictures stay, also those of
    widgets, which without their state would be an error in JupyterLab in their place.
    """
    notebook = nbformat.read(path, as_version=4)
    notebook.metadata.pop("papermill", None)
    notebook.metadata.pop("widgets", None)
    notebook.metadata.get("language_info", {}).pop("version", None)
    for number, cell in enumerate(notebook.cells):
        cell.id = f"cell-{number}"
        cell.metadata.pop("papermill", None)
        cell.metadata.pop("execution", None)
        if "injected-parameters" in cell.metadata.get("tags", []):
            cell.source = without_paths(cell.source)
        if "outputs" in cell:
            cell.outputs = [output for output in cell.outputs if not _says_nothing(output)]
            for output in cell.outputs:
                output.get("data", {}).pop(WIDGET_VIEW, None)
                _remove_paths(output)
    nbformat.write(notebook, path)


def _says_nothing(output: nbformat.NotebookNode) -> bool:
    if output.output_type == "stream":
        return not output.text.strip()
    return MARK.items() <= output.get("metadata", {}).items()


def without_paths(text: str) -> str:
    """Return a text with the absolute paths of the repository and of the folder of runs, and the kernel's files, taken out."""
    text = text.replace(f"{repository_root()}/", "").replace(f"{runs_root()}/", "runs/")
    return re.sub(r"/\S*/ipykernel_\d+/\d+\.py", "<cell>", text)


def _remove_paths(output: nbformat.NotebookNode) -> None:
    """Take the machine's paths out of an error, a stream or shown text, in place."""
    if output.output_type == "stream":
        output.text = without_paths(output.text)
    if output.output_type == "error":
        output.evalue = without_paths(output.evalue)
        output.traceback = [without_paths(line) for line in output.traceback]
    data = output.get("data", {})
    for kind in data:
        if kind.startswith("text/") and isinstance(data[kind], str):
            data[kind] = without_paths(data[kind])
