"""Measure a run from the command line; `python -m vistok.evaluation --help` says how."""

import argparse
import sys
from collections.abc import Sequence

from vistok.system.files import say


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure a run from the command line, and write its record."""
    parser = argparse.ArgumentParser(
        prog="python -m vistok.evaluation",
        description="Measure the tokenizer of a finished run, and write metrics.json beside it.",
    )
    parser.add_argument("run", help="a run directory")
    parser.add_argument("--dataset", help="photos, celeba, imagenet, ... (default: the run's own)")
    parser.add_argument(
        "--data-root", metavar="DIR", help="folder of the dataset (default: the run's, or data/<dataset>)"
    )
    parser.add_argument("--split", default="test", help="train, test or val (default: %(default)s)")
    parser.add_argument(
        "--crop",
        choices=["none"],
        default=argparse.SUPPRESS,
        help="none: whole pictures, each of its own size, not the centre squares of the protocol",
    )
    parser.add_argument(
        "--batch-size", type=int, default=64, metavar="IMAGES", help="of a process (default: %(default)s)"
    )
    parser.add_argument("--max-images", type=int, metavar="N", help="measure the first so many only")
    parser.add_argument("--no-rfid", dest="rfid", action="store_false", help="leave out rFID, which takes longest")
    parser.add_argument("--rfid-weights", metavar="FILE", help="torch-fidelity's Inception weights")
    parser.add_argument(
        "--lpips", default="if-present", help="if-present, download, off or a folder (default: %(default)s)"
    )
    parser.add_argument(
        "--save-images", metavar="DIR", help="write originals and reconstructions there as PNG, for other programs"
    )
    parser.add_argument("--num-workers", type=int, default=0, help="loading processes (default: %(default)s)")
    parser.add_argument("--overwrite", action="store_true", help="replace an evaluation that is there")
    given = vars(parser.parse_args(arguments))
    path, overwrite = given.pop("run"), given.pop("overwrite")
    # Not above, so that `--help` does not wait for PyTorch.
    from vistok.evaluation.run_records import check_results, evaluate_run, save_record
    from vistok.runs import Run
    from vistok.system.processes import process_state

    try:
        processes = process_state()
        run = Run.open(path)
        check_results(run)
        record = evaluate_run(run, device=processes.device, **given)
    except (ValueError, OSError) as error:
        print(f"{parser.prog}: {error}", file=sys.stderr)
        return 1
    if processes.is_main_process:
        try:
            saved = save_record(run, record, overwrite=overwrite)
        except OSError as error:
            print(f"{parser.prog}: {error}", file=sys.stderr)
            return 1
        say(record.to_json())
        print(
            f"written to {saved}" if saved else "an evaluation is already recorded, and stays; --overwrite replaces it",
            file=sys.stderr,
        )
    return 0


if __name__ == "__main__":
    sys.exit(main())
