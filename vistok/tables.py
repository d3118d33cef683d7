"""Results tables: rows as data, run through the notebooks, measured beside published.

A table is `tables/<name>.toml`. A row at a scale, with a dataset and a seed, is one configuration and so one run directory;
it is complete when that directory has its `metrics.json`. Everything shown is read from there.

    python -m vistok.tables celeba64 --rows vq-d4 vq-d64 --scale laptop --dataset photos --seeds 0 1 2
"""

import argparse
import dataclasses
import functools
import json
import math
import re
import shlex
import sys
import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from statistics import mean
from typing import Any

import torch
import yaml

from vistok.config import TrainConfig, settings_as_given
from vistok.data import DATASETS, find_run_dir, with_batch_that_fits
from vistok.notebooks import execute, notebook_path, read_parameters
from vistok.quantizers import Quantizer
from vistok.recipes import read_table
from vistok.system.files import replace_file, say
from vistok.system.paths import in_repository, repository_root, resolve_path, runs_root
from vistok.system.progress import KernelBars
from vistok.system.values import as_given, literal
from vistok.system.words import nearest
from vistok.tokenizer import VisualTokenizer

# What a table can show: key of metrics.json to heading, and how a value is written.
COLUMNS = {
    "usage": ("codebook usage ↑", "{:.1%}"),
    "usage_queue": ("usage, last 65,536 ↑", "{:.1%}"),
    "psnr": ("PSNR ↑", "{:.2f}"),
    "ssim": ("SSIM ↑", "{:.4f}"),
    "ssim_uniform7": ("SSIM 7x7 ↑", "{:.4f}"),
    "lpips_alex": ("LPIPS Alex ↓", "{:.4f}"),
    "rfid": ("rFID ↓", "{:.2f}"),
    "perplexity": ("perplexity ↑", "{:.0f}"),
}
COMPARED = {
    "psnr": ("PSNR ↑", "{:.2f}"),
    "ssim": ("SSIM ↑", "{:.4f}"),
    "lpips_alex": ("LPIPS Alex ↓", "{:.4f}"),
    "lpips_vgg": ("LPIPS VGG ↓", "{:.4f}"),
    "rfid": ("rFID ↓", "{:.2f}"),
    "usage": ("usage ↑", "{:.1%}"),
    "usage_queue": ("usage, last 65,536 ↑", "{:.1%}"),
}
USUAL_COLUMNS = ("usage_queue", "psnr", "ssim", "rfid")

# What is asked for beside the overrides of a plan.
OWN_ARGUMENTS = {name: name for name in ("table", "rows", "scale", "seeds", "dataset", "data_root", "evaluation")}
OWN_ARGUMENTS |= {"row": "rows"}

# Datasets whose pictures the figures of a row show. Records are committed, and pictures of the others may not be.
OWN_PICTURES = ("photos", "folder")

METRIC_FORMS = {
    "psnr": "{:.2f} dB",
    "ssim": "{:.4f}",
    "ssim_uniform7": "{:.4f}",
    "lpips_alex": "{:.4f}",
    "lpips_vgg": "{:.4f}",
    "rfid": "{:.2f}",
    "usage": "{:.1%}",
    "usage_queue": "{:.1%}",
    "perplexity": "{:.1f}",
    "entropy_bits": "{:.2f} bits a token",
    "bits_per_pixel": "{:.3f}",
    "num_images": "{:,}",
}


@dataclasses.dataclass(frozen=True)
class Row:
    """One row: its name in the table, what it fixes, the numbers published for it, and those of its method's paper."""

    name: str
    settings: dict[str, Any]
    published: dict[str, float]
    paper: dict[str, float]


@dataclasses.dataclass(frozen=True)
class Conclusion:
    """What a table is said to show: in `metrics`, row `better` is above row `worse`."""

    text: str
    better: str
    worse: str
    metrics: tuple[str, ...]


@dataclasses.dataclass(frozen=True)
class Remedies:
    """Rows that each change one thing about a row that has gone wrong.

    Attributes:
        baseline: name of that row.
        rows: name of each remedy's row to what it changes.
        metrics: keys of `COLUMNS` in which it is to be better.
    """

    baseline: str
    rows: dict[str, str]
    metrics: tuple[str, ...]


@dataclasses.dataclass(frozen=True)
class Table:
    """A results table.

    Attributes:
        name: of the file.
        title, source, note: what it shows, where the published numbers come from, and under which conditions.
        rows: name to row, in order.
        scales: the names of its scales.
        columns: keys of `COLUMNS`.
        conclusions: comparisons of two rows that its authors draw from it.
        remedies: what helps against what is wrong with one row, or None.
    """

    name: str
    title: str
    source: str
    note: str
    rows: dict[str, Row]
    scales: tuple[str, ...]
    columns: tuple[str, ...]
    conclusions: tuple[Conclusion, ...]
    remedies: Remedies | None


def load_table(name: str) -> Table:
    """Return a results table; raises ValueError, naming the nearest, where there is none of that name."""
    raw = read_table(name)
    rows = {r["name"]: Row(r["name"], r["settings"], r["published"], r.get("paper", {})) for r in raw["rows"]}
    conclusions = [
        Conclusion(c["text"], c["better"], c["worse"], tuple(c["metrics"])) for c in raw.get("conclusions", ())
    ]
    columns = tuple(raw.get("columns", USUAL_COLUMNS))
    remedies = None
    if "remedies" in raw:
        remedies = Remedies(**raw["remedies"] | {"metrics": tuple(raw["remedies"]["metrics"])})
    return Table(
        name,
        raw["title"],
        raw["source"],
        raw["note"],
        rows,
        tuple(raw["scales"]),
        columns,
        tuple(conclusions),
        remedies,
    )


@dataclasses.dataclass(frozen=True)
class PlannedRun:
    """One row with one seed: its configuration, and the notebook parameters that lead to it."""

    row: Row
    config: TrainConfig
    quantizer: Quantizer  # its sizes and losses; it has no weights
    train_parameters: dict[str, Any]
    evaluate_parameters: dict[str, Any]

    @functools.cached_property
    def run_dir(self) -> Path:
        """Where it runs."""
        return find_run_dir(self.config)

    @property
    def metrics(self) -> dict[str, Any] | None:
        """What was measured, or None while the run is not complete."""
        file = self.run_dir / "metrics.json"
        return json.loads(file.read_bytes()) if file.is_file() else None

    @property
    def command(self) -> str:
        """The shell command, from the repository root, that trains and evaluates it: one job of a cluster's job array."""
        run_dir = self.run_dir
        if run_dir.is_relative_to(repository_root()):
            run_dir = run_dir.relative_to(repository_root())
        steps = (
            ("02_train", self.train_parameters),
            ("04_evaluate", self.evaluate_parameters | {"run_dir": str(run_dir)}),
        )
        commands = [f"mkdir -p {shlex.quote(str(run_dir))}"]
        for notebook, parameters in steps:
            given = " ".join(_argument(name, value) for name, value in parameters.items())
            commands.append(
                f"papermill notebooks/{notebook}.ipynb {shlex.quote(f'{run_dir}/{notebook}.ipynb')} {given}"
            )
        return " && ".join(commands)


def _argument(name: str, value: Any) -> str:
    """Return a parameter for papermill's command line; its -p makes numbers of texts and texts of lists and tables."""
    if isinstance(value, str):
        return f"-r {name} {shlex.quote(value)}"
    if isinstance(value, list | tuple | dict):
        text = yaml.safe_dump({name: value}, default_flow_style=True, width=10**6)
        return f"-y {shlex.quote(text.strip())}"
    return f"-p {name} {value}"


def plan(
    table: str,
    rows: Sequence[str] | str | None = None,
    scale: str = "smoke",
    seeds: Sequence[int] | int | None = None,
    *,
    evaluation: dict[str, Any] | None = None,
    **overrides: Any,
) -> list[PlannedRun]:
    """Return the runs of some rows of a table, every configuration checked before any of them starts.

    Args:
        table: name of the table.
        rows: names of rows, or one name; None: all.
        scale: one of the table's scales.
        seeds: one run each, or one seed; None: the scale's own seed.
        evaluation: further parameters of 04_evaluate, for instance `rfid_weights`.
        **overrides: fields of `TrainConfig`, the same for every row.

    Raises:
        ValueError: a row, scale, setting or parameter is unknown or out of range.
        TypeError: one has another type.
        FileNotFoundError: there is `evaluation`, but no 04_evaluate.
    """
    known = load_table(table)
    rows, seeds = as_given("rows", list[str] | None, rows), as_given("seeds", list[int] | None, seeds)
    overrides = settings_as_given(overrides)
    if seeds is not None and "seed" in overrides:
        raise ValueError(f"seed is {overrides['seed']}, but seeds is {seeds}: leave one of them out.")
    for name in rows or ():
        if name not in known.rows:
            raise ValueError(f"Table {table!r} has no row {name!r}; {nearest(name, known.rows)}")
    evaluation = read_parameters(evaluation, notebook_path("04_evaluate")) if evaluation else {}
    for name in ("run_dir", "dataset", "split"):
        if name in evaluation:
            raise ValueError(f"evaluation holds {name!r}, but a row is measured on the test split of its own dataset.")
    for name in ("rfid_weights", "lpips"):
        if isinstance(evaluation.get(name), str):
            resolve_path(evaluation[name])  # an empty one is refused before the training, not after it
    planned = []
    # Each once: a seed that is named twice would count twice in a mean.
    for name in known.rows if rows is None else dict.fromkeys(rows):
        for seed in [None] if seeds is None else dict.fromkeys(seeds):
            settings = overrides | ({} if seed is None else {"seed": seed})
            config = TrainConfig.from_row(f"{table}/{name}", scale, **settings)
            if "batch_size" not in settings:  # as 02_train does
                config = with_batch_that_fits(config)
            if config.dataset not in DATASETS:
                raise ValueError(f"There is no dataset {config.dataset!r}; {nearest(config.dataset, DATASETS)}")
            with torch.device("meta"):  # shapes only
                quantizer = VisualTokenizer.from_config(config).quantizer
            figures = {} if config.dataset in OWN_PICTURES else {"figure_dataset": "photos"}
            train_parameters = {"row": f"{table}/{name}", "scale": scale} | settings | figures
            planned.append(PlannedRun(known.rows[name], config, quantizer, train_parameters, figures | evaluation))
    return planned


def check_overrides(names: Iterable[str]) -> None:
    """Raise ValueError for one of `plan`'s overrides that has a place of its own, where it would say something else."""
    for name in names:
        if name in OWN_ARGUMENTS:
            raise ValueError(f"{name!r} is no override: {OWN_ARGUMENTS[name]} says it.")


@dataclasses.dataclass(frozen=True)
class Outcome:
    """What became of a planned run: "done", "complete" (before, so not run again) or "failed", with the reason."""

    run: PlannedRun
    status: str
    seconds: float
    reason: str = ""


def run_all(planned: Sequence[PlannedRun], *, pass_on_warnings: bool = False) -> list[Outcome]:
    """Train and evaluate each planned run through 02_train and 04_evaluate; a failed one does not stop the others.

    Args:
        planned: the runs; complete ones are skipped.
        pass_on_warnings: what the notebooks say on standard error is said here too.

    Raises:
        FileNotFoundError: the notebooks are not there, as beside an installed package; or the `rfid_weights`.
    """
    notebooks = {name: notebook_path(name) for name in ("02_train", "04_evaluate")}  # are there, before anything runs
    for run in planned:
        weights = run.evaluate_parameters.get("rfid_weights")
        if weights is not None and not resolve_path(weights).exists():
            raise FileNotFoundError(f"rfid_weights is {weights!r}, but there is no such file.")
    outcomes = []
    with KernelBars(f"{len(planned)} of the table's runs" if len(planned) > 1 else "one run") as kernels:
        for number, run in enumerate(planned, 1):
            start = time.perf_counter()
            if run.metrics is not None:
                outcomes.append(Outcome(run, "complete", 0.0))
                continue
            steps = (
                ("02_train", run.train_parameters),
                ("04_evaluate", run.evaluate_parameters | {"run_dir": str(run.run_dir)}),
            )
            status, reason = "done", ""
            try:
                for notebook, parameters in steps:
                    of_all = f"{number} of {len(planned)}, " if len(planned) > 1 else ""
                    kernels.begin(f"{run.config.run_name}: starting {notebook}", prefix=of_all)
                    output = run.run_dir / f"{notebook}.ipynb"
                    execute(notebooks[notebook], output, parameters, pass_on_warnings=pass_on_warnings)
            except Exception as error:  # whatever a cell raised: it is reported, and the next row runs
                status, reason = "failed", f"{notebook}: {_last_line(error)}"
            outcomes.append(Outcome(run, status, time.perf_counter() - start, reason))
            say(outcome_line(outcomes[-1]))
    return outcomes


def outcome_line(outcome: Outcome) -> str:
    """Return one line: the run, what became of it, in how long or why."""
    after = f" in {outcome.seconds:.0f} s" if outcome.status == "done" else ""
    return f"{outcome.run.config.run_name}: {outcome.status}{after}{': ' if outcome.reason else ''}{outcome.reason}"


def _last_line(error: Exception) -> str:
    lines = [line for line in re.sub(r"\x1b\[[0-9;]*m", "", str(error)).splitlines() if line.strip()]
    return lines[-1].strip() if lines else type(error).__name__


def measured(planned: Sequence[PlannedRun], key: str) -> dict[str, list[float]]:
    """Return for each row the values of a metric over the seeds that are complete; a row without any has an empty list."""
    values: dict[str, list[float]] = {}
    for run in planned:
        row = values.setdefault(run.row.name, [])
        if (metrics := run.metrics) is not None and metrics[key] is not None:
            row.append(metrics[key])
    return values


def bits_in_use(planned: Sequence[PlannedRun]) -> dict[str, list[float]]:
    """Return for each row, over the seeds that are complete, which share of a token's bits the use of its codes amounts to.

    It is the entropy of the codes over log2 K; of several codebooks, the sum of entropies over that of bits; 1 where a token
    has no bits, K being 1.
    """
    shares: dict[str, list[float]] = {}
    for run in planned:
        row = shares.setdefault(run.row.name, [])
        if (metrics := run.metrics) is not None:
            used = sum(codebook["entropy_bits"] for codebook in metrics["codebooks"])
            bits = sum(math.log2(codebook["codebook_size"]) for codebook in metrics["codebooks"])
            row.append(used / bits if bits else 1.0)
    return shares


def markdown(planned: Sequence[PlannedRun]) -> str:
    """Return the table as Markdown: for each row its settings and, for each metric, measured and published.

    Several seeds are shown as their mean with their range; what was not measured or published as a dash. Published numbers
    and those of a method's paper have a column of their own where the table has any, and a metric that was measured for none of
    the rows has these only. Perplexity of several codebooks is their mean, "each".
    """
    rows = {run.row.name: run for run in planned}
    table = _table_of(planned)
    header, columns = ["row", "quantizer", "dim", "size", "l2"], []
    values = {key: measured(planned, key) for key in table.columns}
    for key in table.columns:
        heading, form = COLUMNS[key]
        sources = [s for s in ("published", "paper") if any(key in getattr(row, s) for row in table.rows.values())]
        here = any(values[key].values()) or not sources
        columns.append((key, form, here, sources))
        header += [*([heading] if here else []), *(f"{heading}<br>{source}" for source in sources)]
    lines = [header, ["---"] * 5 + ["---:"] * (len(header) - 5)]
    for name, run in rows.items():
        config = run.config
        sizes = run.quantizer.codebook_sizes
        cells = [name, config.quantizer, str(config.codebook_dim), _sizes(sizes), "yes" if config.l2_norm else "no"]
        for key, form, here, sources in columns:
            if here:
                each = " each" if key == "perplexity" and len(sizes) > 1 else ""
                cells.append(_spread(values[key][name], form) + each)
            numbers = [getattr(run.row, source) for source in sources]
            cells += [form.format(found[key]) if key in found else "–" for found in numbers]
        lines.append(cells)
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


def quantizers_markdown(planned: Sequence[PlannedRun]) -> str:
    """Return as Markdown what each row's quantizer is: its class, its dimension, its codebooks and its losses."""
    lines = [["row", "class", "D", "K", "losses"], ["---"] * 5]
    for name, quantizer in {run.row.name: run.quantizer for run in planned}.items():
        sizes, losses = _sizes(quantizer.codebook_sizes), ", ".join(quantizer.loss_names) or "none"
        lines.append([name, f"`{type(quantizer).__name__}`", str(quantizer.codebook_dim), sizes, losses])
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


def _sizes(codebook_sizes: Sequence[int]) -> str:
    """Return K, or "levels x K" of several codebooks of one size."""
    if len(codebook_sizes) > 1 and len(set(codebook_sizes)) == 1:
        return f"{len(codebook_sizes)} x {codebook_sizes[0]}"
    return " + ".join(map(str, codebook_sizes))


def _table_of(planned: Sequence[PlannedRun]) -> Table:
    return load_table(planned[0].train_parameters["row"].partition("/")[0])


def _spread(values: Sequence[float], form: str) -> str:
    if not values:
        return "–"
    middle = form.format(mean(values))
    return middle if len(values) == 1 else f"{middle}<br>({form.format(min(values))} to {form.format(max(values))})"


def conclusions_markdown(planned: Sequence[PlannedRun]) -> str:
    """Return as Markdown whether each of the table's conclusions holds in what was measured.

    A comparison *holds* where the worst seed of the better row is above the best seed of the other, *does not hold* where
    it is the other way round, and is *open* where the seeds overlap.
    """
    table = _table_of(planned)
    values = {key: measured(planned, key) for conclusion in table.conclusions for key in conclusion.metrics}
    lines = [["conclusion", "rows", "metric", "measured", "verdict"], ["---"] * 5]
    for conclusion in table.conclusions:
        for key in conclusion.metrics:
            better, worse = values[key].get(conclusion.better, []), values[key].get(conclusion.worse, [])
            spreads = f"{_spread(better, METRIC_FORMS[key])} against {_spread(worse, METRIC_FORMS[key])}".replace(
                "<br>", " "
            )
            rows = f"{conclusion.better} over {conclusion.worse}"
            lines.append([conclusion.text, rows, key, spreads, f"**{_verdict(better, worse)}**"])
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


def remedies_markdown(planned: Sequence[PlannedRun]) -> str:
    """Return as Markdown by how much each of the table's remedies alone is above its baseline.

    The difference is that of the means over seeds. *Better* is a row whose worst seed is above the baseline's best, *worse*
    the other way round, and *open* where the seeds overlap.

    Raises:
        ValueError: the table names no remedies.
    """
    table = _table_of(planned)
    remedies = table.remedies
    if remedies is None:
        raise ValueError(f"Table {table.name!r} names no remedies.")
    values = {key: measured(planned, key) for key in remedies.metrics}
    header = ["row", "what it changes"]
    for key in remedies.metrics:
        header += [COLUMNS[key][0], "difference"]
    lines = [header, ["---"] * 2 + ["---:"] * (len(header) - 2)]
    for name, change in ({remedies.baseline: "nothing: it collapses"} | remedies.rows).items():
        cells = [name, change]
        for key in remedies.metrics:
            these, base = values[key].get(name, []), values[key].get(remedies.baseline, [])
            cells.append(_spread(these, COLUMNS[key][1]))
            if name == remedies.baseline or not these or not base:
                cells.append("–")
            else:
                difference = COLUMNS[key][1].replace(":", ":+").format(mean(these) - mean(base))
                verdict = {"holds": "better", "does not hold": "worse"}.get(_verdict(these, base), "open")
                cells.append(f"{difference}<br>**{verdict}**")
        lines.append(cells)
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


def _verdict(better: Sequence[float], worse: Sequence[float]) -> str:
    if not better or not worse:
        return "not measured"
    if min(better) > max(worse):
        return "holds"
    return "does not hold" if max(better) < min(worse) else "open"


def beside_published(record: dict[str, Any], row: str | None) -> str:
    """Return one evaluation as Markdown, beside the published numbers of its row where it has one.

    Args:
        record: what `evaluate` measured, as in `metrics.json`.
        row: "table/row", or None.
    """
    published: dict[str, float] = {}
    if row:
        table, _, name = row.partition("/")
        published = load_table(table).rows[name].published
    lines = [["metric", "measured", *(["published"] if published else [])]]
    lines.append(["---", "---:", *(["---:"] if published else [])])
    for key, form in METRIC_FORMS.items():
        value = "–" if record[key] is None else form.format(record[key])
        shown = form.format(published[key]) if key in published else ""
        lines.append([key, value, *([shown] if published else [])])
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


def comparison_markdown(records: dict[str, dict[str, Any]], reported: dict[str, list[dict[str, Any]]]) -> str:
    """Return evaluations of several tokenizers as one Markdown table, each over what others report of it.

    Args:
        records: name of a tokenizer to `Evaluation.to_dict()`.
        reported: name to reports, each with `by`, `convention` and any of `COMPARED`; for some of the names.
    """
    header = ["tokenizer", "by", "tokens", "K", "bits a pixel", *(heading for heading, _ in COMPARED.values())]
    lines = [header, ["---"] * 2 + ["---:"] * (len(header) - 2)]
    for name, record in records.items():
        sizes = [codebook["codebook_size"] for codebook in record["codebooks"]]
        bits = record["bits_per_pixel"] * record["dataset"]["image_size"] ** 2
        bits_a_token = sum(math.log2(size) for size in sizes)
        tokens = f"{bits / bits_a_token:.0f}" if bits_a_token else "–"  # of K = 1, bits do not tell
        measured_on = f"here: {record['dataset']['name']}, {record['num_images']:,} images"
        cells = [name, measured_on, tokens, " + ".join(map(str, sizes)), f"{record['bits_per_pixel']:.3f}"]
        lines.append(cells + [_number(record, key) for key in COMPARED])
        for report in reported.get(name, []):
            cells = ["", f"{report['by']} ({report['convention']})", "", "", ""]
            lines.append(cells + [_number(report, key) for key in COMPARED])
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


def _number(record: dict[str, Any], key: str) -> str:
    value = record.get(key)
    return "–" if value is None else COMPARED[key][1].format(value)


_MARKED = {"table": markdown, "conclusions": conclusions_markdown, "remedies": remedies_markdown}
MARK = re.compile(r"(<!-- (table|conclusions|remedies) ([\w-]+)(.*?) -->\n).*?(<!-- /\2 -->)", re.DOTALL)


def with_tables(text: str) -> str:
    """Return a Markdown text with all that stands between its marks made anew from the records.

    `<!-- table NAME key=value ... -->` to `<!-- /table -->` holds a table, the same with `conclusions` or `remedies` these; the
    keys are arguments of `plan`, the values literals without spaces.
    """

    def render(match: re.Match[str]) -> str:
        opening, what, table, arguments, closing = match.groups()
        given = dict(item.partition("=")[::2] for item in arguments.split())
        planned = plan(table, **{name: literal(value) for name, value in given.items()})
        return f"{opening}{_MARKED[what](planned)}\n{closing}"

    return MARK.sub(render, text)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run rows of a table from the command line; returns 1 where one failed."""
    parser = argparse.ArgumentParser(
        prog="python -m vistok.tables", description="Run rows of a results table and show it."
    )
    parser.add_argument("table", help="name of a table in vistok/tables, for instance celeba64")
    parser.add_argument("--rows", nargs="+", action="extend", help="names of rows (default: all)")
    parser.add_argument("--scale", default="smoke", help="smoke, quick, laptop or paper (default: %(default)s)")
    parser.add_argument(
        "--seeds", nargs="+", action="extend", type=int, help="one run each (default: the scale's seed)"
    )
    parser.add_argument("--dataset", default="photos", help="(default: %(default)s)")
    parser.add_argument("--data-root", help="folder of the dataset (default: data/<dataset>)")
    parser.add_argument(
        "--set", nargs="+", action="extend", default=[], metavar="NAME=VALUE", help="any other field of TrainConfig"
    )
    parser.add_argument("--rfid-weights", help="local file with torch-fidelity's Inception weights")
    parser.add_argument("--print-commands", action="store_true", help="print one shell command a run, and run nothing")
    parser.add_argument("--readme", action="store_true", help="instead: make the tables in README.md anew")
    given = parser.parse_args(arguments)
    if given.readme:
        readme = repository_root() / "README.md"
        if not in_repository():
            parser.error("--readme makes the tables in the repository's README.md anew: run it in a clone.")
        if runs_root() != repository_root() / "runs":  # where the records are not, tables would lose their numbers
            parser.error(
                f"--readme reads the records in {repository_root() / 'runs'}, but VISTOK_RUNS is set: unset it."
            )
        try:
            replace_file(readme, with_tables(readme.read_text(encoding="utf-8")).encode())
        except OSError as error:
            parser.error(f"{readme} cannot be written ({error.strerror or error}); it is as it was.")
        return 0
    overrides: dict[str, Any] = {"dataset": given.dataset}
    overrides |= {"data_root": given.data_root} if given.data_root is not None else {}
    more = {name: value for name, _, value in (item.partition("=") for item in given.set)}
    evaluation = {"rfid_weights": given.rfid_weights} if given.rfid_weights is not None else {}
    try:
        check_overrides(more)
        planned = plan(given.table, given.rows, given.scale, given.seeds, evaluation=evaluation, **overrides | more)
        notebook_path("02_train")  # a command to print names it too
    except (ValueError, TypeError, FileNotFoundError) as error:
        parser.error(str(error))
    if given.print_commands:
        say("\n".join(run.command for run in planned))
        return 0
    try:
        outcomes = run_all(planned, pass_on_warnings=True)
    except FileNotFoundError as error:
        parser.error(str(error))
    say(f"\n{markdown(planned).replace('<br>', ' ')}\n")
    reasons = {
        (name, reason)
        for run in planned
        for name, reason in (run.metrics or {}).get("unavailable", {}).items()
        if name in load_table(given.table).columns
    }
    for name, reason in sorted(reasons):
        say(f"{name} was not measured: {reason}\n")
    for outcome in outcomes:
        say(f"{outcome.run.config.run_name}: pictures and executed notebooks in {outcome.run.run_dir}")
    return int(any(outcome.status == "failed" for outcome in outcomes))


if __name__ == "__main__":
    sys.exit(main())
