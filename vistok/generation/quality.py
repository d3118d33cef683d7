"""Measure the samples of a run from the command line; `python -m vistok.generation.quality --help` says how.

What is measured, and how the numbers are to be read, says `measuring.py`, whose names are found here too.
"""

import argparse
import dataclasses
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from vistok.system.files import check_writable, say
from vistok.system.interrupts import run_command
from vistok.system.lazy import lazily
from vistok.system.values import as_given

if TYPE_CHECKING:
    from vistok.generation.measuring import CONTROLS, Quality, controls, draw_samples, measure_run, measure_samples

__all__ = ["CONTROLS", "Quality", "controls", "draw_samples", "measure_run", "measure_samples"]
__getattr__, __dir__ = lazily(__name__, {"vistok.generation.measuring": __all__})

FILE = "quality.json"


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure the samples of a run from the command line, and write its record."""
    parser = argparse.ArgumentParser(
        prog="python -m vistok.generation.quality",
        description="Draw samples of a finished run that trained a generator, by class where it knows classes; measure them "
        f"beside real images, reconstructions and shuffled tokens; print the record, and write it to {FILE} in the run.",
    )
    parser.add_argument("run", help="a run that trained a generator and keeps its tokenizer")
    parser.add_argument("--samples", type=int, metavar="N", help="(default: half of the test images)")
    parser.add_argument("--data-root", metavar="DIR", help="folder of the dataset (default: data/<dataset>)")
    parser.add_argument("--test-fraction", type=float, metavar="SHARE", help="of a folder without split subfolders")
    parser.add_argument("--seed", type=int, default=0, help="(default: %(default)s)")
    parser.add_argument(
        *("-p", "--sampling"),
        nargs=2,
        action="append",
        default=[],
        metavar=("NAME", "VALUE"),
        help="as of Sampling, such as top_p 0.9; may be given several times",
    )
    parser.add_argument("--quantile", type=float, default=0.05, metavar="SHARE", help="(default: %(default)s)")
    parser.add_argument("--no-inception", action="store_true", help="leave out gFID and IS, which take longest")
    parser.add_argument("--inception-weights", metavar="FILE", help="torch-fidelity's Inception weights")
    parser.add_argument("--device", help="cpu, cuda, cuda:1, mps (default: a GPU where there is one)")
    parser.add_argument("--overwrite", action="store_true", help="replace a record that is there")
    given = parser.parse_args(arguments)
    # Not above, so that `--help` does not wait for PyTorch.
    from vistok.generation.measuring import measure_run
    from vistok.runs import Run

    try:
        if given.no_inception and given.inception_weights is not None:
            raise ValueError("inception_weights is given, but Inception is left out; leave one of them out.")
        run = Run.open(given.run)
        if (run.path / FILE).exists() and not given.overwrite:
            raise ValueError(f"{run.path / FILE} is there already; --overwrite replaces it.")
        check_writable(run.path)
        record = measure_run(
            run,
            num_samples=given.samples,
            data_root=given.data_root,
            test_fraction=given.test_fraction,
            seed=given.seed,
            device=given.device,
            sampling=_sampling(given.sampling),
            quantile=given.quantile,
            inception=given.inception_weights or not given.no_inception,
        )
        say(record.to_json())
        run.save_metrics(record.to_dict(), FILE, overwrite=given.overwrite)
    except (ValueError, TypeError, OSError) as error:
        print(f"{parser.prog}: {error}", file=sys.stderr)
        return 1
    return 0


def _sampling(given: Sequence[tuple[str, str]]) -> dict[str, Any]:
    """Return fields of `Sampling` as people give them; names that are no fields are left for the generator to refuse."""
    from vistok.generation.sampling import Sampling

    types = {field.name: field.type for field in dataclasses.fields(Sampling)}
    return {name: as_given(name, types.get(name, Any), value) for name, value in given}


if __name__ == "__main__":
    run_command(main)
