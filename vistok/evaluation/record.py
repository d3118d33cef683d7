"""The record of an evaluation: what `metrics.json` holds."""

import dataclasses
import json
from typing import Any

from torch import Tensor


@dataclasses.dataclass(frozen=True, kw_only=True)
class Evaluation:
    """What `evaluate` found; `record["psnr"]` is `record.psnr`, and `to_json` is what `metrics.json` holds.

    Attributes:
        psnr: dB, mean over images.
        ssim: mean over images, 11x11 Gaussian window.
        ssim_uniform7: mean over images, 7x7 uniform window (scikit-image's default).
        lpips_alex, lpips_vgg: mean over images.
        rfid: Frechet distance between images and reconstructions.
        usage, usage_queue: fractions of the codebook, over all indices and over the last 65,536; mean over codebooks. These and
            the next three are None where there is no codebook.
        perplexity: exp of the entropy of the codes; mean over codebooks.
        entropy_bits: bits a token; mean over codebooks.
        bits_per_pixel: sum over codebooks of tokens x log2 K, over pixels.
        num_images: how many images were measured.
        images_per_second: over the pass and the metrics, loading of weights aside.
        unavailable: metric to the reason why it is None.
        notes: metric to what must be said beside it, such as rFID's bias at few images.
        codebooks: for each codebook its size, usage, usage_queue, perplexity and entropy_bits.
        dataset: the record of the images that were measured.
        settings: the choices made in calling `evaluate` that bear on the numbers.
        seconds: spent in "network" (tokenizer, Inception, LPIPS), "data", "metrics" (the rest of them) and "total".
        provenance: versions, commit, device, threads, day, processes, the data, time; of a run its seed; `kept_statistics`, the
            metrics for which an earlier evaluation had looked at the images.
        counts: for each codebook the tokens that chose each code, int64 [K]; for figures, not part of the record.
        file_name: how the file of a run's record is called; empty where `evaluate` measured a tokenizer. It is not part of it.
    """

    psnr: float | None
    ssim: float | None
    ssim_uniform7: float | None
    lpips_alex: float | None
    lpips_vgg: float | None
    rfid: float | None
    usage: float | None
    usage_queue: float | None
    perplexity: float | None
    entropy_bits: float | None
    bits_per_pixel: float | None
    num_images: int
    images_per_second: float
    unavailable: dict[str, str]
    notes: dict[str, str]
    codebooks: list[dict[str, float]]
    dataset: dict[str, Any]
    settings: dict[str, Any]
    seconds: dict[str, float]
    provenance: dict[str, Any]
    counts: list[Tensor] = dataclasses.field(repr=False, compare=False)
    file_name: str = dataclasses.field(default="", repr=False, compare=False)

    def __getitem__(self, key: str) -> Any:
        """Return a value by its name; raises KeyError where there is none of that name."""
        if key not in self.keys():
            raise KeyError(f"An evaluation has no {key!r}; it has {', '.join(self.keys())}.")
        return getattr(self, key)

    def keys(self) -> list[str]:
        """Return the names of all values, in the order of the record."""
        return [field.name for field in dataclasses.fields(self) if field.compare]

    def choices(self, usual_size: int) -> str:
        """Return what the name of its file says of choices that make it another measurement; empty where there are none.

        Args:
            usual_size: pixels, of the images that the tokenizer is usually measured on.
        """
        size, num_tokens = self.dataset["image_size"], self.settings.get("num_tokens")
        found = "" if size == usual_size else "-whole" if size is None else f"-{size}px"
        found += "" if num_tokens is None else f"-{num_tokens}tokens"
        return found + ("" if self.settings["max_images"] is None else "-part")

    def to_dict(self) -> dict[str, Any]:
        """Return every value by name, fit for JSON."""
        return {key: self[key] for key in self.keys()}

    def to_json(self) -> str:
        """Return the record as JSON text."""
        return json.dumps(self.to_dict(), indent=2, allow_nan=False)
