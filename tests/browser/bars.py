"""Bars of progress on a page: every state that one had while cells ran, and the lines that they left."""

import re
from typing import Any

SECONDS = 300
STEPS = re.compile(r"(\d[\d,]*) of \d")
# A bar is drawn anew with each state: what is added is noted, even if it is gone before one can look.
KEEP_BARS = """() => {
    window.barsSeen = [];
    new MutationObserver((changes) => {
        for (const added of changes.flatMap((change) => [...change.addedNodes])) {
            if (added.nodeType !== Node.ELEMENT_NODE) continue;
            for (const bar of added.querySelectorAll("[role=progressbar]")) {
                window.barsSeen.push([bar.getAttribute("aria-label"), bar.getAttribute("aria-valuetext")]);
            }
        }
    }).observe(document.body, { childList: true, subtree: true });
}"""


def watch(notebook: Any, seconds: float = SECONDS) -> dict[str, set[int]]:
    """Wait for what `start` started; return the names of the bars that there were, each with the numbers that it showed."""
    assert notebook.finish(seconds) is True, notebook.failures()
    seen: dict[str, set[int]] = {}
    for name, text in notebook.page.evaluate("window.barsSeen"):
        if (number := STEPS.match(text or "")) is not None:
            seen.setdefault(name, set()).add(int(number[1].replace(",", "")))
    return seen


def start(notebook: Any) -> None:
    """Start all cells; from now on the page keeps every state of every bar, however short it was to be seen."""
    notebook.page.evaluate(KEEP_BARS)
    notebook.start("notebook:run-all-cells")


def lines_left(notebook: Any) -> list[str]:
    """Check that no output is saved on standard error, empty or as a bar; return the lines that bars have become."""
    lines = []
    for output in (output for cell in notebook.cells() for output in cell.get("outputs", [])):
        assert output.get("name") != "stderr", output
        if output["output_type"] == "display_data":
            assert output["data"] and "progressbar" not in str(output["data"].get("text/html", "")), output
            if output["metadata"].get("vistok") == "progress":
                assert list(output["data"]) == ["text/plain"], output
                lines.append("".join(output["data"]["text/plain"]))
    return lines


def run_with_bar(notebook: Any, name: str) -> list[str]:
    """Run all cells; a bar of this name moved meanwhile, and what is left are lines, which are returned."""
    start(notebook)
    seen, lines = watch(notebook), lines_left(notebook)
    # The line that a bar becomes is its last state: of a short one the page may show only one number before.
    for line in lines:
        shown, _, ending = line.partition(": ")
        if (number := STEPS.match(ending)) is not None and shown in seen:
            seen[shown].add(int(number[1].replace(",", "")))
    assert any(shown.startswith(name) and len(numbers) > 1 for shown, numbers in seen.items()), seen
    assert all(":" in line for line in lines)
    return lines
