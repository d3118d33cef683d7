"""Executed copies that are fit to commit."""

import re
from pathlib import Path

import nbformat

from vistok.system.paths import repository_root, runs_root
from vistok.system.progress import MARK

WIDGET_VIEW = "application/vnd.jupyter.widget-view+json"


def clean(path: Path) -> None:
    """Make an executed notebook fit to commit, in place.

    Timestamps, papermill's metadata, paths and what a progress bar has left go; of a bar that is not ours the last state
    stays. Pictures stay, also those of widgets, which without their state would be an error in JupyterLab in their place.
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
            kept = [output for output in cell.outputs if not MARK.items() <= output.get("metadata", {}).items()]
            cell.outputs = _merge_streams(kept)
            for output in cell.outputs:
                output.get("data", {}).pop(WIDGET_VIEW, None)
                _remove_paths(output)
    nbformat.write(notebook, path)


def _merge_streams(outputs: list[nbformat.NotebookNode]) -> list[nbformat.NotebookNode]:
    """Return the outputs with all pieces of one stream in one, as a terminal would show it at the end."""
    merged: list[nbformat.NotebookNode] = []
    streams: dict[str, nbformat.NotebookNode] = {}
    for output in outputs:
        if output.output_type != "stream":
            merged.append(output)
        elif output.name in streams:
            streams[output.name].text += output.text
        else:
            streams[output.name] = output
            merged.append(output)
    for stream in streams.values():
        stream.text = without_paths(_last_states(stream.text))
    return [output for output in merged if output.output_type != "stream" or output.text.strip()]


def without_paths(text: str) -> str:
    """Return a text with the absolute paths of the repository and of the folder of runs, and the kernel's files, taken out."""
    text = text.replace(f"{repository_root()}/", "").replace(f"{runs_root()}/", "runs/")
    return re.sub(r"/\S*/ipykernel_\d+/\d+\.py", "<cell>", text)


def _remove_paths(output: nbformat.NotebookNode) -> None:
    """Take the machine's paths out of an error or of shown text, in place."""
    if output.output_type == "error":
        output.evalue = without_paths(output.evalue)
        output.traceback = [without_paths(line) for line in output.traceback]
    data = output.get("data", {})
    for kind in data:
        if kind.startswith("text/") and isinstance(data[kind], str):
            data[kind] = without_paths(data[kind])


def _last_states(text: str) -> str:
    """Return what a terminal would show: after a carriage return the line is written anew, and a bar stands once."""
    lines = [line.strip("\r").rpartition("\r")[2] for line in text.split("\n")]
    bars = [number for number, line in enumerate(lines) if re.search(r"\d+%\|", line)]
    if not bars:  # the notebook's own lines, blank ones included, are compared when it is run again
        return "\n".join(lines)
    kept = [line for number, line in enumerate(lines) if number not in bars[:-1] and line.strip()]
    return "\n".join(kept) + "\n"
