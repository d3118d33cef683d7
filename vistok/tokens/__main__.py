"""Encode a dataset from the command line; `python -m vistok.tokens --help` says how."""

import argparse
from collections.abc import Sequence

from vistok.system.files import say
from vistok.system.interrupts import run_command


def main(arguments: Sequence[str] | None = None) -> int:
    """Encode a dataset from the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m vistok.tokens",
        description="Encode a dataset into one memory-mapped file of tokens, for training a generator. Run the same command "
        "again to go on where it was stopped.",
    )
    parser.add_argument(
        "tokenizer",
        help="a run directory, one written by VisualTokenizer.save, a weights file, an official checkpoint's name "
        "(llamagen-ds16, ...; downloaded where it is not here), or owner/name on the Hugging Face Hub",
    )
    parser.add_argument("--dataset", required=True, help="photos, celeba, imagenet, ...")
    parser.add_argument("--split", default="train", help="train, test or val (default: %(default)s)")
    parser.add_argument("--out", required=True, metavar="DIR", help="folder to write tokens.npy and tokens.json into")
    parser.add_argument("--data-root", metavar="DIR", help="folder of the dataset (default: data/<dataset>)")
    parser.add_argument("--image-size", type=int, metavar="PIXELS", help="(default: the tokenizer's)")
    parser.add_argument("--crop", help="cached or adm, how training images are cropped (default: the dataset's usual)")
    parser.add_argument("--test-fraction", type=float, metavar="SHARE", help="of a folder without split subfolders")
    parser.add_argument("--on-bad-image", default="raise", help="raise or skip (default: %(default)s)")
    parser.add_argument("--batch-size", type=int, default=64, metavar="IMAGES", help="(default: %(default)s)")
    parser.add_argument("--device", help="cpu, cuda, cuda:1, mps (default: a GPU where there is one)")
    parser.add_argument("--num-workers", type=int, default=0, help="loading processes (default: %(default)s)")
    parser.add_argument("--flips", action="store_true", help="encode the mirror image of each image too")
    given = vars(parser.parse_args(arguments))
    # Not above, so that `--help` does not wait for PyTorch.
    from vistok.pretrained import load_pretrained
    from vistok.tokens.store import encode_dataset

    try:
        tokenizer = load_pretrained(given.pop("tokenizer"))
        file = encode_dataset(tokenizer, given.pop("dataset"), given.pop("out"), **given)
    except (ValueError, OSError) as error:
        parser.error(str(error))
    shape = "x".join(str(length) for length in file.tokens.shape)
    say(f"{shape} tokens ({file.tokens.dtype}, {file.tokens.nbytes / 1e6:.1f} MB) in {file.path}")
    return 0


if __name__ == "__main__":
    run_command(main)
