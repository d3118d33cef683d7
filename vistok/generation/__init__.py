"""What is trained on the tokens of images: generators, what they draw and how good it is, and how many bits an
image takes under them."""

from typing import TYPE_CHECKING

from vistok.system.lazy import lazily

if TYPE_CHECKING:
    from vistok.generation.generator import Generator
    from vistok.generation.measuring import measure_run, measure_samples
    from vistok.generation.rate import measure_rate
    from vistok.generation.trainer import GeneratorTrainer
    from vistok.generator_config import GeneratorConfig

__all__ = ["Generator", "GeneratorConfig", "GeneratorTrainer", "measure_rate", "measure_run", "measure_samples"]
__getattr__, __dir__ = lazily(
    __name__,
    {
        "vistok.generation.generator": ["Generator"],
        "vistok.generation.measuring": ["measure_run", "measure_samples"],
        "vistok.generation.rate": ["measure_rate"],
        "vistok.generation.trainer": ["GeneratorTrainer"],
        "vistok.generator_config": ["GeneratorConfig"],
    },
)
