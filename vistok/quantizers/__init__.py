"""Quantizers by name, all under the contract of `base.Quantizer`."""

from vistok.quantizers.base import Quantized, Quantizer
from vistok.quantizers.bsq import BSQQuantizer
from vistok.quantizers.composite import GroupedQuantizer, MultiScaleQuantizer, ResidualQuantizer
from vistok.quantizers.fsq import FSQQuantizer
from vistok.quantizers.gumbel import GumbelQuantizer
from vistok.quantizers.ibq import IBQQuantizer
from vistok.quantizers.lfq import LFQQuantizer
from vistok.quantizers.search import nearest_code
from vistok.quantizers.simvq import SimVQQuantizer
from vistok.quantizers.vq import EMAQuantizer, VectorQuantizer
from vistok.system.values import call_with_options
from vistok.system.words import nearest

QUANTIZERS: dict[str, type[Quantizer]] = {
    "vq": VectorQuantizer,
    "ema": EMAQuantizer,
    "ibq": IBQQuantizer,
    "lfq": LFQQuantizer,
    "fsq": FSQQuantizer,
    "bsq": BSQQuantizer,
    "simvq": SimVQQuantizer,
    "gumbel": GumbelQuantizer,
    "residual": ResidualQuantizer,
    "grouped": GroupedQuantizer,
    "multiscale": MultiScaleQuantizer,
}

__all__ = [
    "QUANTIZERS",
    "BSQQuantizer",
    "EMAQuantizer",
    "FSQQuantizer",
    "GroupedQuantizer",
    "GumbelQuantizer",
    "IBQQuantizer",
    "LFQQuantizer",
    "MultiScaleQuantizer",
    "Quantized",
    "Quantizer",
    "ResidualQuantizer",
    "SimVQQuantizer",
    "VectorQuantizer",
    "build",
    "nearest_code",
]


def build(name: str, **options: object) -> Quantizer:
    """Return a new quantizer.

    Args:
        name: a key of `QUANTIZERS`.
        **options: arguments of that class.

    Raises:
        ValueError: the quantizer, or an option of it, is unknown; the sentence names the nearest known one.
    """
    if name not in QUANTIZERS:
        raise ValueError(f"There is no quantizer {name!r}; {nearest(name, QUANTIZERS)}")
    return call_with_options(f"quantizer {name!r}", QUANTIZERS[name], options)
