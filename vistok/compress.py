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

from vistok.system.files import replace_file, say
from vistok.system.paths import resolve_path


def compress(
    picture: str | Path,
    file: str | Path,
    generator: str | Path,
    tokenizer: str | Path | None = None,
    label: str | None = None,
) -> int:
    """Write an image as a file, and return how many bytes it has.

    Args:
        picture: an image of any format that datasets may have.
        file: where to write.
        generator, tokenizer: as of `Codec.load`.
        label: name of its class; None: none.

    Raises:
        ValueError, FileNotFoundError: one of them is not there, or not what it should be.
    """
    import numpy as np
    import torch

    from vistok.data.transforms import decode
    from vistok.generation.codec import Codec

    picture, file = resolve_path(picture), resolve_path(file)
    if not picture.is_file():
        raise FileNotFoundError(f"There is no image {picture}.")
    codec = Codec.load(generator, tokenizer)
    number = None if label is None else codec.generator.label_of(label)
    pixels = torch.from_numpy(np.array(decode(picture.read_bytes(), str(picture))))  # [H, W, 3]
    data = codec.encode(pixels.permute(2, 0, 1).contiguous(), number)
    replace_file(file, data)
    return len(data)


def decompress(
    file: str | Path, picture: str | Path, generator: str | Path, tokenizer: str | Path | None = None
) -> None:
    """Write the picture of a file as an image.

    Args:
        file: what `compress` wrote.
        picture: where to write; its suffix says the format, as .png.
        generator, tokenizer: as of `Codec.load`.

    Raises:
        ValueError, FileNotFoundError: one of them is not there, or not what it should be.
    """
    import io

    from PIL import Image

    from vistok.generation.codec import Codec

    file, picture = resolve_path(file), resolve_path(picture)
    if not file.is_file():
        raise FileNotFoundError(f"There is no file {file}.")
    kind = Image.registered_extensions().get(picture.suffix.lower())
    if kind not in Image.SAVE:
        raise ValueError(f"{picture} has no suffix of an image: call it {picture.stem}.png.")
    pixels = Codec.load(generator, tokenizer).decode(file.read_bytes(), str(file))
    content = io.BytesIO()
    image = Image.fromarray(pixels.permute(1, 2, 0).contiguous().numpy())
    image.save(content, format=kind)
    replace_file(picture, content.getvalue())


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
    parser.add_argument("--tokenizer", metavar="DIR", help="(default: the one that the generator's run keeps)")
    parser.add_argument("--label", metavar="CLASS", help="name of the image's class, where the generator knows classes")
    parser.add_argument("--decode", action="store_true", help="write the image of a file")
    given = parser.parse_args(arguments)
    try:
        if given.decode:
            if given.label is not None:
                raise ValueError("label is given, but a file says its class itself: leave it out.")
            decompress(given.source, given.target, given.generator, given.tokenizer)
            return 0
        num_bytes = compress(given.source, given.target, given.generator, given.tokenizer, given.label)
    except (ValueError, OSError) as error:
        print(f"{parser.prog}: {error}", file=sys.stderr)
        return 1
    say(f"{num_bytes:,} bytes in {resolve_path(given.target)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
