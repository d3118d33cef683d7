"""An image as a file of as many bits as its tokens take under a generator, and the file as an image again.

    python -m vistok.compress photo.jpg photo.vtk --generator runs/my-generator
    python -m vistok.compress --decode photo.vtk photo.png --generator runs/my-generator

What comes back is what the tokenizer makes of its tokens: the file, whose format is `vistok.generation.codec`'s, keeps these
exactly, and not the picture.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from vistok.system.files import check_writable, make_folder, replace_file, say
from vistok.system.interrupts import run_command
from vistok.system.paths import beside_caller, resolve_path


def compress(
    picture: str | Path,
    file: str | Path,
    generator: str | Path,
    tokenizer: str | Path | None = None,
    label: str | None = None,
    *,
    overwrite: bool = False,
) -> int:
    """Write an image as a file, and return how many bytes it has.

    Args:
        picture: an image of any format that datasets may have; it is turned as the camera was held.
        file: where to write; its folder is made where it is missing.
        generator, tokenizer: as of `Codec.load`.
        label: name of its class; None: none.
        overwrite: replace a file that is there.

    Raises:
        ValueError, FileNotFoundError: one of them is not there, or not what it should be.
    """
    import numpy as np
    import torch
    from PIL import Image

    from vistok.data.transforms import LARGEST, decode, unusual_range
    from vistok.generation.codec import Codec

    given, picture, file = picture, resolve_path(picture), resolve_path(file)
    if not picture.is_file():
        raise FileNotFoundError(f"There is no image {picture}.{beside_caller(given)}")
    _check_target(file, picture, overwrite)
    if file.suffix.lower() in Image.registered_extensions():
        raise ValueError(f"{file} has the suffix of an image, which it would not be: call it {file.stem}.vtk.")
    codec = Codec.load(generator, tokenizer)
    number = None if label is None else codec.generator.label_of(label)
    image = decode(picture.read_bytes(), str(picture), is_upright=True)
    if LARGEST in image.info:
        say(f"{picture} has {unusual_range(picture.name, image.info[LARGEST])}", warning=True)
    pixels = torch.from_numpy(np.array(image))  # [H, W, 3]
    _make_folder(file)
    data = codec.encode(pixels.permute(2, 0, 1).contiguous(), number)
    replace_file(file, data)
    return len(data)


def decompress(
    file: str | Path,
    picture: str | Path,
    generator: str | Path,
    tokenizer: str | Path | None = None,
    *,
    overwrite: bool = False,
) -> None:
    """Write the picture of a file as an image.

    Args:
        file: what `compress` wrote.
        picture: where to write; its suffix says the format, as .png. Its folder is made where it is missing.
        generator, tokenizer: as of `Codec.load`.
        overwrite: replace an image that is there.

    Raises:
        ValueError, FileNotFoundError: one of them is not there, or not what it should be.
    """
    import io

    from PIL import Image

    from vistok.data.transforms import FORMATS
    from vistok.generation.codec import Codec

    given, file, picture = file, resolve_path(file), resolve_path(picture)
    if not file.is_file():
        raise FileNotFoundError(f"There is no file {file}.{beside_caller(given)}")
    kind = Image.registered_extensions().get(picture.suffix.lower())
    if kind not in FORMATS or kind not in Image.SAVE:  # others would be made smaller, as .ico, or cannot be read again
        raise ValueError(f"{picture} has no suffix of an image: call it {picture.stem}.png.")
    _check_target(picture, file, overwrite)
    codec = Codec.load(generator, tokenizer)
    _make_folder(picture)
    pixels = codec.decode(file.read_bytes(), str(file))
    content = io.BytesIO()
    image = Image.fromarray(pixels.permute(1, 2, 0).contiguous().numpy())
    try:
        image.save(content, format=kind)
    except (ValueError, OSError) as error:  # it has more pixels than the format may have
        raise ValueError(
            f"A picture of {image.width}x{image.height} pixels cannot be written as {kind}: call it {picture.stem}.png."
        ) from error
    replace_file(picture, content.getvalue())


def _check_target(target: Path, source: Path, overwrite: bool) -> None:
    """Raise ValueError where writing would destroy what is there."""
    if target.is_dir():
        raise ValueError(f"{target} is a folder: name the file that is to be written there.")
    if target.exists() and not target.is_file():
        raise ValueError(f"{target} is a device or a pipe: name the file that is to be written.")
    if target.exists() and target.samefile(source):
        raise ValueError(f"{target} is what is to be read: give what is written another name.")
    if (target.exists() or target.is_symlink()) and not overwrite:
        raise ValueError(f"{target} is there already; --overwrite replaces it.")


def _make_folder(target: Path) -> None:
    """Make the folder of a file, before any work is done for that; OSError where nothing can be written there."""
    make_folder(target.parent)
    check_writable(target.parent)


def main(arguments: Sequence[str] | None = None) -> int:
    """Write an image as a file, or a file as an image, from the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m vistok.compress",
        description="Write an image as a file of its tokens, as many bits as they take under a generator; or the file as the "
        "image that the tokenizer makes of these.",
    )
    parser.add_argument("source", help="the image; with --decode the file")
    parser.add_argument("target", help="the file, .vtk; with --decode the image, .png")
    parser.add_argument(
        "--generator", required=True, metavar="RUN", help="a run that trained an autoregressive generator"
    )
    parser.add_argument(
        "--tokenizer",
        metavar="TOKENIZER",
        help="a run, an official checkpoint's name, ... (default: the one that the generator's run keeps)",
    )
    parser.add_argument("--label", metavar="CLASS", help="name of the image's class, where the generator knows classes")
    parser.add_argument("--decode", action="store_true", help="write the image of a file")
    parser.add_argument("--overwrite", action="store_true", help="replace a target that is there")
    given = parser.parse_args(arguments)
    try:
        if given.decode:
            if given.label is not None:
                raise ValueError("label is given, but a file says its class itself: leave it out.")
            decompress(given.source, given.target, given.generator, given.tokenizer, overwrite=given.overwrite)
            return 0
        paths = given.source, given.target, given.generator, given.tokenizer
        num_bytes = compress(*paths, given.label, overwrite=given.overwrite)
    except (ValueError, OSError) as error:
        print(f"{parser.prog}: {error}", file=sys.stderr)
        return 1
    say(f"{num_bytes:,} bytes in {resolve_path(given.target)}")
    return 0


if __name__ == "__main__":
    run_command(main)
