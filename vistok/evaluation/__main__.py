"""Measure a run or a checkpoint from the command line; `python -m vistok.evaluation --help` says how."""

import argparse
import contextlib
import sys
from collections.abc import Sequence

from vistok.system.files import say
from vistok.system.interrupts import run_command


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure a tokenizer from the command line, and write its record."""
    parser = argparse.ArgumentParser(
        prog="python -m vistok.evaluation",
        description="Measure a tokenizer, print the record and write it: of a finished run on its own test images to "
        "metrics.json in its directory, and of anything else to metrics-DATASET-SPLIT-....json: in the run's or the saved "
        "tokenizer's directory, beside a weights file and after its name, or in checkpoints/NAME/ of what is given by name.",
    )
    parser.add_argument(
        "tokenizer",
        help="a run directory, one written by VisualTokenizer.save, a weights file, an official checkpoint's name "
        "(llamagen-ds16, ...; downloaded where it is not here), or owner/name on the Hugging Face Hub",
    )
    parser.add_argument(
        "--dataset", help="photos, celeba, imagenet, ... (default: the run's own; a checkpoint has none)"
    )
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
        "--on-bad-image",
        choices=["raise", "skip"],
        default=argparse.SUPPRESS,
        help="skip: leave such files out, and list them",
    )
    parser.add_argument(
        "--batch-size", type=int, default=64, metavar="IMAGES", help="of a process (default: %(default)s)"
    )
    parser.add_argument("--max-images", type=int, metavar="N", help="measure the first so many only")
    parser.add_argument(
        "--num-tokens", type=int, metavar="N", help="decode the first so many tokens of a sequence only"
    )
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
    name, overwrite = given.pop("tokenizer"), given.pop("overwrite")
    # Not above, so that `--help` does not wait for PyTorch.
    from vistok.evaluation.run_records import check_results, save_record
    from vistok.evaluation.subjects import open_subject
    from vistok.system.processes import process_state

    try:
        processes = process_state()
        subject = open_subject(name)
        check_results(subject)
        with contextlib.redirect_stdout(sys.stderr):  # where the record goes, nothing else is printed
            record = subject.evaluate(device=processes.device, **given)
    except (ValueError, OSError) as error:
        print(f"{parser.prog}: {error}", file=sys.stderr)
        return 1
    if processes.is_main_process:
        try:
            saved = save_record(subject, record, overwrite=overwrite)
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
    run_command(main)
