"""Where and how exactly something is computed: the device, and plain float32 on it."""

import contextlib
from collections.abc import Iterator

import torch


def usable_device(given: str | torch.device | None = None) -> torch.device:
    """Return the device given, or else CUDA, Apple's GPU or the CPU; raises ValueError for one that is not here."""
    if given is None:
        given = "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
    try:
        return torch.empty(0, device=given).device
    except (RuntimeError, AssertionError) as error:  # an unknown name; a PyTorch built without CUDA
        reason = str(error).split("\n")[0].strip().rstrip(".:")
        raise ValueError(f"device is {str(given)!r}, but there is no such one here: {reason}.") from error


@contextlib.contextmanager
def exact_float32(device: torch.device) -> Iterator[None]:
    """Compute in plain float32, the same at every time.

    No autocast from outside and no TF32, which move codes and Inception's features; no choice of convolutions by their speed,
    which differs.
    """
    precision = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("highest")
    try:
        with (
            torch.autocast(device.type, enabled=False),
            torch.backends.cudnn.flags(
                enabled=torch.backends.cudnn.enabled, benchmark=False, deterministic=True, allow_tf32=False
            ),
        ):
            yield
    finally:
        torch.set_float32_matmul_precision(precision)
