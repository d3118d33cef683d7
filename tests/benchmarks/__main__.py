"""Run every benchmark, print its table, and write all of them to RESULTS.md beside this file."""

import contextlib
import io
from pathlib import Path

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

BENCHMARKS = (
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

text = f"# Benchmarks\n\n`make bench` on {machine()}.\n\nRatios are within one run; memory is what a process adds to its own.\n"
for benchmark in BENCHMARKS:
    table = io.StringIO()
    with contextlib.redirect_stdout(table):
        print_rows(benchmark.run())
    section = f"\n## {benchmark.__doc__.splitlines()[0]}\n\n{table.getvalue()}"
    if hasattr(benchmark, "FIGURE"):
        section += f"\n![{benchmark.FIGURE.removesuffix('.png')}]({benchmark.FIGURE})\n"
    print(section, flush=True)
    text += section
    (Path(__file__).parent / "RESULTS.md").write_text(text)
