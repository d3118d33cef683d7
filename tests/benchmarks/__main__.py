"""Run every benchmark, or those that are named, print their tables, and write them to RESULTS.md beside this file.

PYTHONPATH=tests python -m benchmarks training generation
"""

import contextlib
import io
import re
import sys
from pathlib import Path
from types import ModuleType

from benchmarks import (
    bench_checkpoints,
    bench_dashboard,
    bench_evaluation,
    bench_generation,
    bench_index,
    bench_loading,
    bench_metrics,
    bench_search,
    bench_training,
    bench_widgets,
)
from benchmarks.harness import machine, print_rows

from vistok.system.values import check_known

BENCHMARKS = {
    benchmark.__name__.rpartition("bench_")[2]: benchmark
    for benchmark in (
        bench_loading,
        bench_index,
        bench_metrics,
        bench_search,
        bench_training,
        bench_checkpoints,
        bench_evaluation,
        bench_dashboard,
        bench_widgets,
        bench_generation,
    )
}
RESULTS = Path(__file__).parent / "RESULTS.md"


def heading(benchmark: ModuleType) -> str:
    return f"\n## {benchmark.__doc__.splitlines()[0]}\n"


def section(benchmark: ModuleType) -> str:
    """Run one, and return its part of the results."""
    table = io.StringIO()
    with contextlib.redirect_stdout(table):
        print_rows(benchmark.run())
    figure = getattr(benchmark, "FIGURE", None)
    return f"{heading(benchmark)}\n{table.getvalue()}" + (
        f"\n![{figure.removesuffix('.png')}]({figure})\n" if figure else ""
    )


def main(names: list[str]) -> None:
    for name in names:
        check_known("There is no benchmark", name, BENCHMARKS)
    text = f"# Benchmarks\n\n`make bench` on {machine()}.\n\n"
    text += "Ratios are within one run; memory is what a process adds to its own.\n"
    of_before = {}
    if names:
        before = RESULTS.read_text(encoding="utf-8")
        if not before.startswith(text):
            raise SystemExit(f"{RESULTS} is of another machine or other versions: run all benchmarks.")
        of_before = {part.partition("\n")[0]: f"\n## {part}" for part in re.split(r"\n## ", before)[1:]}
    for name, benchmark in BENCHMARKS.items():
        if name in names or not names:
            of_this = section(benchmark)
            print(of_this, flush=True)
        else:
            of_this = of_before.get(heading(benchmark)[4:-1], "")
        text += of_this
        if not names:
            RESULTS.write_text(text, encoding="utf-8")
    RESULTS.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main(sys.argv[1:])
