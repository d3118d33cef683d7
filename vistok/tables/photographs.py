"""Rate and distortion on whole photographs: files of generators' runs beside those of the codecs that everybody has.

    python -m vistok.tables.photographs data/kodak runs/<generator> runs/<another>

writes what JPEG, WebP and AVIF make of the photographs of a folder, and what the files of `python -m vistok.compress` make of
them, to `photographs-<folder>.json` among the runs. Those files are of squares as large as the generator knows, each by
itself; at no other size are its tokens worth anything.
"""

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vistok.system.files import make_folder, replace_file, say
from vistok.system.interrupts import run_command
from vistok.system.paths import resolve_path, runs_root
from vistok.system.progress import progress_bar

if TYPE_CHECKING:
    from torch import Tensor

    from vistok.generation.codec import Codec
    from vistok.tables.codecs import Points

WAYS = ("nominal", "entropy", "file")  # to count the bits of a run's tokens


def photograph_points(name: str, metric: str = "psnr") -> "tuple[dict[str, dict[str, tuple[float, float]]], Points]":
    """Return what was recorded of a folder of photographs, as `plots.rate_and_distortion` takes it.

    Args:
        name: of the folder.
        metric: "psnr", in dB, or "ssim".

    Returns:
        run to way of counting its bits to (bits a pixel, dB or SSIM): "nominal", log2 K a token; "entropy", that of the codes
            as frequent as they are in these photographs; "file", that of the files, headers and all.
        codec to its curve.

    Raises:
        FileNotFoundError: there is no such record.
    """
    from vistok.tables.codecs import curves

    file = _record_file(name)
    if not file.is_file():
        raise FileNotFoundError(f"There is no {file}: write it by python -m vistok.tables.photographs data/{name} RUN.")
    record = json.loads(file.read_bytes())
    rows = {
        run: {way: (found["bits_per_pixel"][way], found[metric]) for way in WAYS}
        for run, found in record["runs"].items()
    }
    return rows, curves(record, metric)


def photographs_markdown(name: str) -> str:
    """Return as Markdown what was recorded of a folder of photographs: each run's bits, and codecs at as many.

    What a codec keeps at a rate is read off its curve, linear between two qualities over the logarithm of the bits.
    """
    from vistok.tables.showing import COLUMNS, rows_markdown

    if not _record_file(name).is_file():
        return f"No photographs of {name} are recorded."
    rows, of_codecs = photograph_points(name)
    similar, _ = photograph_points(name, "ssim")
    lines = [
        ["run", "bits", "bits a pixel", "PSNR ↑", "SSIM ↑", *(f"PSNR ↑<br>{codec} at as many" for codec in of_codecs)]
    ]
    lines.append(["---"] * 2 + ["---:"] * (len(lines[0]) - 2))
    psnr, ssim = (COLUMNS[metric][1] for metric in ("psnr", "ssim"))
    for run, ways in rows.items():
        for way, (bits, quality) in ways.items():
            beside = [_at_rate(curve, bits) for curve in of_codecs.values()]
            cells = [run, way, f"{bits:.3f}", psnr.format(quality), ssim.format(similar[run][way][1])]
            lines.append(cells + ["–" if found is None else psnr.format(found) for found in beside])
    return rows_markdown(lines)


def _at_rate(curve: "Sequence[tuple[float, float]]", bits: float) -> float | None:
    """Return what a codec keeps at a rate; None: it was not measured at rates around it."""
    import numpy as np

    rates, kept = zip(*curve, strict=True)
    if not rates[0] <= bits <= rates[-1]:
        return None
    return float(np.interp(np.log(bits), np.log(rates), kept))


def _record_file(name: str) -> Path:
    return runs_root() / f"photographs-{name}.json"


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure codecs and generators' files on a folder of photographs from the command line, and write the record."""
    parser = argparse.ArgumentParser(
        prog="python -m vistok.tables.photographs",
        description="Measure JPEG, WebP, AVIF and the files of generators on a folder of photographs.",
    )
    parser.add_argument("folder", help="the photographs, each as large as it is")
    parser.add_argument("runs", nargs="*", metavar="RUN", help="a run that trained an autoregressive generator")
    parser.add_argument("--overwrite", action="store_true", help="replace a record that is there")
    given = parser.parse_args(arguments)
    folder = resolve_path(given.folder)
    file = _record_file(folder.name)
    try:
        if file.exists() and not given.overwrite:
            raise ValueError(f"{file} is there already; --overwrite replaces it.")
        record = _measured(folder, given.runs)
    except (ValueError, TypeError, OSError) as error:
        parser.error(str(error))
    make_folder(file.parent)
    replace_file(file, json.dumps(record, indent=2).encode())
    say(f"{record['num_images']} photographs: {file}")
    return 0


def _measured(folder: Path, runs: Sequence[str]) -> dict[str, Any]:
    import numpy as np
    import torch

    from vistok.data.files import FolderFiles
    from vistok.generation.codec import Codec
    from vistok.tables.codecs import measured_points

    if not folder.is_dir():
        raise FileNotFoundError(f"There is no folder {folder}.")
    files = FolderFiles.scan(folder)
    if not len(files):
        raise ValueError(f"There are no images in {folder}.")
    codecs = {Path(run).name: Codec.load(run) for run in runs}  # before minutes are spent on what comes first
    if len(codecs) < len(runs):
        raise ValueError(f"Several of the runs have one name, which tells them apart here: {', '.join(runs)}.")
    pictures = [torch.from_numpy(np.array(files.image(number))).permute(2, 0, 1) for number in range(len(files))]
    found = {name: _measured_run(name, codec, pictures) for name, codec in codecs.items()}
    return measured_points(pictures) | {
        "runs": found,
        "num_images": len(files),
        "num_pixels": sum(picture[0].numel() for picture in pictures),
        "fingerprint": files.fingerprint("photographs"),
    }


def _measured_run(name: str, codec: "Codec", pictures: "Sequence[Tensor]") -> dict[str, Any]:
    """Return what the files of one generator take, and what comes back, over some pictures, uint8 [3, H, W] each."""
    import torch

    from vistok.evaluation.codecs import rate_and_distortion

    sizes = codec.generator.layout.codebook_sizes
    counts = [torch.zeros(size, dtype=torch.float64) for size in sizes]

    def through(images: "Tensor") -> "tuple[int, Tensor]":
        file = codec.encode(images[0])
        places, size = codec.tokens(file)  # [squares, S, L]
        for level, count in enumerate(counts):
            count += torch.bincount(places[..., level].flatten(), minlength=len(count))
        return len(file), codec.picture(places, size)[None]

    shown = progress_bar([picture[None] for picture in pictures], desc=name, unit=" photographs")
    bits, psnr, ssim = rate_and_distortion(shown, through)
    tokens = float(counts[0].sum()) / sum(picture[0].numel() for picture in pictures)  # a pixel
    of_codes = [torch.special.entr(count / count.sum()).sum() / torch.tensor(2.0).log() for count in counts]
    rates = {
        "nominal": tokens * sum(torch.tensor(sizes, dtype=torch.float64).log2().tolist()),
        "entropy": tokens * float(sum(of_codes)),
        "file": bits,
    }
    return {"bits_per_pixel": rates, "psnr": psnr, "ssim": ssim}


if __name__ == "__main__":
    run_command(main)
