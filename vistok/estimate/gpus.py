"""Graphics cards as their makers describe them."""

import dataclasses

from vistok.system.words import nearest


@dataclasses.dataclass(frozen=True)
class GPU:
    """A graphics card as NVIDIA's data sheets and architecture papers describe it.

    Attributes:
        name: of the card.
        memory_gib: memory.
        bfloat16_tflops: peak of dense bfloat16 matrix products that accumulate in float32, in 10^12 operations a second.
        float32_tflops: peak in float32 proper, without TF32.
    """

    name: str
    memory_gib: int
    bfloat16_tflops: float
    float32_tflops: float


GPUS = {
    "rtx-3090": GPU("RTX 3090", 24, 71.0, 35.6),
    "rtx-4090": GPU("RTX 4090", 24, 165.2, 82.6),
    "a100-40": GPU("A100 40 GB", 40, 312.0, 19.5),
    "a100-80": GPU("A100 80 GB", 80, 312.0, 19.5),
    "h100-80": GPU("H100 SXM 80 GB", 80, 989.4, 66.9),
}


def find_gpu(name: str) -> GPU:
    """Return a GPU of `GPUS`; raises ValueError, naming the nearest, where there is none of that name."""
    if name not in GPUS:
        raise ValueError(f"There is no GPU {name!r}; {nearest(name, GPUS)}")
    return GPUS[name]
