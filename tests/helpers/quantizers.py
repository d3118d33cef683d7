"""Every registered quantizer, small: the variants that the laws run over."""

import pytest
import torch
from torch import Tensor

from vistok import quantizers
from vistok.quantizers import Quantizer

K, D = 16, 4
REMEDIES = {"init": "kmeans", "revive_after": 100, "gradient": "rotation"}
VARIANTS = {
    "vq": {},
    "vq-l2": {"l2_norm": True},
    "vq-l2-search": {"l2_norm": True, "l2_search_only": True},
    "vq-remedies": REMEDIES | {"entropy_temperature": 0.1},
    "vq-l2-remedies": REMEDIES | {"entropy_temperature": 0.1, "l2_norm": True},
    "ema": {},
    "ema-remedies": REMEDIES,
    "ibq": {},
    "ibq-uniform": {"init": "uniform"},
    "lfq": {},
    "bsq": {},
    "fsq": {"codebook_dim": 2},
    "fsq-uneven": {"levels": [3, 4], "codebook_size": 12, "codebook_dim": 2},
    "simvq": {},
    "gumbel": {},
    "gumbel-annealed": {"final_temperature": 0.1, "anneal_steps": 3},
    "residual": {},
    "residual-shared": {"shared": True, "member": "ema"},
    "grouped": {},
    "multiscale": {"scales": [1, 2, 4]},
    "none": {},
    "kl": {},
}
CODED = [variant for variant in VARIANTS if quantizers.has_codebook(variant.partition("-")[0])]
UNCODED = [variant for variant in VARIANTS if variant not in CODED]
every_variant = pytest.mark.parametrize("variant", VARIANTS)
every_variant_with_codes = pytest.mark.parametrize("variant", CODED)
every_variant_without_codes = pytest.mark.parametrize("variant", UNCODED)


def options_of(variant: str) -> dict:
    sizes = {"codebook_size": K} if variant in CODED else {}
    return sizes | {"codebook_dim": D} | VARIANTS[variant]


def build(variant: str) -> Quantizer:
    torch.manual_seed(0)
    quantizer = quantizers.build(variant.partition("-")[0], **options_of(variant))
    with torch.no_grad():  # codes of the size of z, so that many of them are chosen
        for part in quantizer.modules():
            if (
                isinstance(part, Quantizer) and "weight" in part.state_dict()
            ):  # lookup-free ones have no codebook to learn
                part.state_dict()["weight"].normal_()
    if variant.endswith("remedies"):
        quantizer(torch.randn(4, quantizer.codebook_dim, 8, 8))  # the first batch, which k-means starts from
    torch.manual_seed(0)
    return quantizer


def direct_entropy_loss(logits: Tensor) -> Tensor:
    """E[H(p)] - H(E[p]) with all N x K probabilities at once, in float64."""
    p = logits.double().softmax(1)
    mean = p.mean(0)
    return -(p * p.clamp(min=1e-300).log()).sum(1).mean() + (mean * (mean + 1e-5).log()).sum()


def largest_allocation(quantizer: Quantizer, z: Tensor) -> tuple[int, int]:
    """Bytes of the largest single allocation, and of the peak of all, in a forward and a backward pass."""
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True) as profile:
        quantized = quantizer(z)
        (quantized.codes.sum() + sum(quantized.losses.values())).backward()
    changes = [
        (event.start_ns(), event.nbytes())
        for event in profile.profiler.kineto_results.events()
        if event.name() == "[memory]"
    ]
    total = peak = 0
    for _, num_bytes in sorted(changes):
        total += num_bytes
        peak = max(peak, total)
    return max(num_bytes for _, num_bytes in changes), peak
