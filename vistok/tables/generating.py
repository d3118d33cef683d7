"""Generators of a table: one of each size on the tokens of each row, trained, weighed and measured.

The tokens of a row's run are encoded once, into `data/tokens/<run>` and `data/tokens/<run>-test`; a generator's run has
`rate.json`, the bits of the test images, and `quality.json`, its samples.
"""

import dataclasses
import functools
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from vistok.generator_config import SIZES, GeneratorConfig
from vistok.system.files import say
from vistok.system.paths import repository_root
from vistok.system.values import as_given, check_known
from vistok.tables.planning import PlannedRun, plan, table_of
from vistok.tables.running import Outcome, attempt, outcome_line

RATE, QUALITY = "rate.json", "quality.json"
TOKENS = "data/tokens"  # a folder in it for each row's run


@dataclasses.dataclass(frozen=True)
class PlannedGenerator:
    """One generator on the tokens of one row's run.

    Attributes:
        tokenizer: that run.
        config: of the generator; its seed is that of the tokenizer.
    """

    tokenizer: PlannedRun
    config: GeneratorConfig

    @functools.cached_property
    def run_dir(self) -> Path:
        """Where it runs."""
        return self.config.run_dir

    @property
    def rate(self) -> dict[str, Any] | None:
        """Bits of the test images, `Rate.to_dict()`, or None before they were measured."""
        return _record(self.run_dir / RATE)

    @property
    def quality(self) -> dict[str, Any] | None:
        """What its samples are worth, `Quality.to_dict()`, or None before they were measured; the run is complete then."""
        return _record(self.run_dir / QUALITY)


def _record(file: Path) -> dict[str, Any] | None:
    return json.loads(file.read_bytes()) if file.is_file() else None


def plan_generators(
    table: str,
    rows: Sequence[str] | str | None = None,
    scale: str = "smoke",
    seeds: Sequence[int] | int | None = None,
    *,
    sizes: Sequence[str] | str | None = None,
    overrides: dict[str, Any] | None = None,
    **of_rows: Any,
) -> list[PlannedGenerator]:
    """Return the generators of some rows of a table, every configuration checked before any of them starts.

    Args:
        table: name of a table that says what is trained on the tokens of its rows.
        rows, scale, seeds: as of `plan`.
        sizes: keys of `SIZES`, or one; None: the table's.
        overrides: fields of `GeneratorConfig`, the same for every one.
        **of_rows: further arguments of `plan`, such as `dataset`.

    Raises:
        ValueError: the table has no generators, or none at this scale; an override is unknown, out of range or fixed by row
            and seed; or as of `plan`.
        TypeError: a value has another type.
    """
    planned = plan(table, rows, scale, seeds, **of_rows)
    generators = table_of(planned).generators if planned else None
    if generators is None:
        raise ValueError(f"Table {table!r} has no [generators]: it does not say what is trained on its rows' tokens.")
    check_known(f"The generators of table {table!r} have no scale", scale, generators.scales)
    sizes = as_given("sizes", list[str] | None, sizes)
    for size in sizes or ():
        check_known("There is no size", size, SIZES)
    overrides = GeneratorConfig.as_given(overrides or {})
    settings = generators.settings | generators.scales[scale] | overrides
    found = []
    for run in planned:
        for size in generators.sizes if sizes is None else dict.fromkeys(sizes):
            own = {"size": size, "seed": run.config.seed, "tokens": f"{TOKENS}/{run.run_dir.name}"}
            own["tokenizer"] = _as_written(run.run_dir)
            for name in own.keys() & overrides.keys():
                raise ValueError(f"{name!r} is no override: row, size and seed say it.")
            found.append(PlannedGenerator(run, GeneratorConfig.from_dict(settings | own)))
    return found


def _as_written(path: Path) -> str:
    """Return a path as a record holds it: no place of the machine where it lies in the repository."""
    return str(path.relative_to(repository_root()) if path.is_relative_to(repository_root()) else path)


def run_generators(planned: Sequence[PlannedGenerator], *, batch_size: int = 64) -> list[Outcome]:
    """Train each generator, and measure its rate and its samples; what is complete is not run again.

    One that fails does not stop the others; one that was interrupted goes on where it was.

    Args:
        planned: the generators.
        batch_size: images at a time where they are encoded and measured.
    """
    outcomes = []
    for generator in planned:
        if generator.quality is not None:
            outcomes.append(Outcome(generator, "complete", 0.0))
            continue
        outcomes.append(attempt(generator, _run(generator, batch_size)))
        say(outcome_line(outcomes[-1]))
    return outcomes


def _run(planned: PlannedGenerator, batch_size: int) -> Iterator[str]:
    """Do all that a generator needs; yields the name of each part that begins."""
    from vistok.generation.measuring import measure_run
    from vistok.generation.rate import measure_rate
    from vistok.generation.trainer import GeneratorTrainer
    from vistok.runs import Run
    from vistok.tokenizer import VisualTokenizer
    from vistok.tokens.store import encode_dataset

    of_row = planned.tokenizer
    yield "encoding"
    if of_row.metrics is None:
        raise ValueError(f"{of_row.run_dir.name} is not complete: train the row first, with python -m vistok.tables.")
    tokenizer = VisualTokenizer.load(of_row.run_dir)
    config, images = planned.config, {"data_root": of_row.config.data_root}
    encode_dataset(tokenizer, of_row.config.dataset, config.tokens, batch_size=batch_size, flips=True, **images)
    test = encode_dataset(
        tokenizer, of_row.config.dataset, f"{config.tokens}-test", split="test", batch_size=batch_size, **images
    )
    yield "training"
    run = Run.open(None, config)
    trainer = GeneratorTrainer(run)
    for _ in trainer:
        pass
    if trainer.step < config.steps:
        raise KeyboardInterrupt
    yield "measuring"
    if planned.rate is None and config.model == "autoregressive":
        rate = measure_rate(trainer.result, test, batch_size=batch_size)
        run.save_metrics(rate.to_dict(), RATE)
    run.save_metrics(measure_run(run, data_root=of_row.config.data_root, seed=config.seed).to_dict(), QUALITY)
