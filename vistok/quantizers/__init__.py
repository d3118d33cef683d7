"""Quantizers by name, all under the contract of `base.Quantizer`."""

from typing import Any

from vistok.quantizers.base import Quantized, Quantizer
from vistok.quantizers.composite import Composite, GroupedQuantizer, MultiScaleQuantizer, ResidualQuantizer
from vistok.quantizers.continuous import Continuous, KLQuantizer, NoQuantizer
from vistok.quantizers.fsq import FSQQuantizer
from vistok.quantizers.gumbel import GumbelQuantizer
from vistok.quantizers.ibq import IBQQuantizer
from vistok.quantizers.search import nearest_code
from vistok.quantizers.signs import BSQQuantizer, LFQQuantizer
from vistok.quantizers.simvq import SimVQQuantizer
from vistok.quantizers.vq import EMAQuantizer, VectorQuantizer
from vistok.system.values import call_with_options, refuse_settings_among
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
    "none": NoQuantizer,
    "kl": KLQuantizer,
}

__all__ = [
    "QUANTIZERS",
    "BSQQuantizer",
    "EMAQuantizer",
    "FSQQuantizer",
    "GroupedQuantizer",
    "GumbelQuantizer",
    "IBQQuantizer",
    "KLQuantizer",
    "LFQQuantizer",
    "MultiScaleQuantizer",
    "NoQuantizer",
    "Quantized",
    "Quantizer",
    "ResidualQuantizer",
    "SimVQQuantizer",
    "VectorQuantizer",
    "build",
    "has_codebook",
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


def has_codebook(name: str) -> bool:
    """Return whether a quantizer, a key of `QUANTIZERS`, has a codebook, and so a `codebook_size`; of an unknown one True."""
    return not issubclass(QUANTIZERS.get(name, Quantizer), Continuous)


def build_member(member: str, options: dict[str, Any] | None, codebook_size: int, codebook_dim: int) -> Quantizer:
    """Return a new quantizer to stand inside another.

    Args:
        member: a key of `QUANTIZERS`, not itself made of members.
        options: of that class, sizes aside; None: its defaults.
        codebook_size: K.
        codebook_dim: D of the member.

    Raises:
        ValueError: there is no such member, or an option of it is unknown or out of range.
    """
    plain = [name for name, kind in QUANTIZERS.items() if has_codebook(name) and not issubclass(kind, Composite)]
    if member not in plain:
        raise ValueError(f"member is {member!r}, but must be a quantizer of one codebook; {nearest(member, plain)}")
    options = options or {}
    refuse_settings_among("member_options", options, ("codebook_size", "codebook_dim"))
    return build(member, codebook_size=codebook_size, codebook_dim=codebook_dim, **options)


# `composite` cannot look members up: this registry imports it.
Composite.build_member = staticmethod(build_member)
