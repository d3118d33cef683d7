"""Golden files: what the original implementations computed."""

from torch import Tensor

from vistok.system.paths import repository_root

GOLDEN = repository_root() / "tests" / "golden"


def relative_error(value: Tensor, expected: Tensor) -> float:
    return ((value - expected).norm() / expected.norm()).item()
