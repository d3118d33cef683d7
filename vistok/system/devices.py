"""Where and how exactly something is computed: the device, eval mode and plain float32 on it, and the threads of the CPU."""

import contextlib
import copy
import os
import threading
from collections.abc import Iterator
from typing import TypeVar

import torch
from torch import nn

from vistok.system.words import nearest

Module = TypeVar("Module", bound=nn.Module)

_DTYPES = ("bfloat16", "float16", "float32", "float64")
_SETTINGS = threading.RLock()  # TF32 and the choice of a GPU's algorithms are settings of the process, not of a thread


def usable_device(given: str | torch.device | None = None) -> torch.device:
    """Return the device given, or else CUDA, Apple's GPU or the CPU; raises ValueError for one that is not here."""
    if given is None:
        given = "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
    try:
        return torch.empty(0, device=given).device
    except (RuntimeError, AssertionError, TypeError) as error:  # an unknown name; a PyTorch built without CUDA; no name
        reason = str(error).split("\n")[0].strip().rstrip(".:")
        raise ValueError(f"device is {str(given)!r}, but there is no such one here: {reason}.") from error


def floating_dtype(given: str | torch.dtype | None) -> torch.dtype | None:
    """Return a dtype of networks, given or named ("bfloat16"); None stays None.

    Raises:
        ValueError: there is no such floating dtype; the sentence names the nearest.
    """
    name = str(given).removeprefix("torch.")
    if given is not None and name not in _DTYPES:
        raise ValueError(f"dtype is {name!r}; {nearest(name, _DTYPES)}")
    return None if given is None else getattr(torch, name)


def check_default_dtype() -> None:
    """Raise ValueError where torch's default dtype is not float32, in which weights are drawn and metrics are computed."""
    default = torch.get_default_dtype()
    if default != torch.float32:
        raise ValueError(
            f"torch's default dtype is {default}, but training and metrics are in float32, and would give other numbers: "
            "torch.set_default_dtype(torch.float32) first. Tokenizers encode and decode whatever it is."
        )


def eval_view(module: Module, device: torch.device | None = None) -> Module:
    """Return a module in eval mode on the very weights and buffers of one that is left as it is, whatever its mode.

    `eval()` and `train()` would change a module that another thread trains, and undo the modes that its owner gave to some of
    its parts. What has no batch statistics and no state in eval mode can be looked at through a view while it is trained.

    Args:
        module: it and its parts are copied, their parameters and buffers are not.
        device: where to look from; None: where the module is. On another device the weights are copies.
    """
    module = module._modules.get("_orig_mod", module)  # torch.compile's wrapper would run the module that it compiled
    view = object.__new__(type(module))
    # Dictionaries are copied too: what is hooked to the view stays there.
    attributes = {name: value.copy() if isinstance(value, dict) else value for name, value in vars(module).items()}
    vars(view).update(attributes, training=False, _compiled_call_impl=None)
    for name, part in module._modules.items():
        view._modules[name] = None if part is None else eval_view(part)
    here = next(module.parameters(), None)
    if device is not None and here is not None and here.device != device:
        return copy.deepcopy(view).to(device)
    return view


@contextlib.contextmanager
def computing(device: torch.device, *, exact: bool = False, deterministic: bool = False) -> Iterator[None]:
    """Compute without the autocast that is on outside, under settings of PyTorch that no other thread changes meanwhile.

    They are settings of the process: on a GPU a thread waits for another that computes, a training between two of its steps.

    Args:
        device: where.
        exact: in plain float32, the same at every time: no TF32, which moves codes and Inception's features, and no choice of
            convolutions by their speed, which differs.
        deterministic: use algorithms only that give the same numbers at every time; a RuntimeError names one that has none.
            On a CPU they all do; on a GPU sums by atomic additions are replaced, which costs speed.
    """
    own = contextlib.nullcontext() if device.type == "cpu" else _SETTINGS
    with own, contextlib.ExitStack() as after, torch.autocast(device.type, enabled=False):
        if exact:
            after.callback(torch.set_float32_matmul_precision, torch.get_float32_matmul_precision())
            torch.set_float32_matmul_precision("highest")
        if deterministic:
            os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # read when CUDA is first used
            after.callback(torch.use_deterministic_algorithms, torch.are_deterministic_algorithms_enabled())
            torch.use_deterministic_algorithms(True)
        if exact or deterministic:
            cudnn = torch.backends.cudnn
            tf32 = cudnn.allow_tf32 and not exact
            flags = cudnn.flags(enabled=cudnn.enabled, benchmark=False, deterministic=True, allow_tf32=tf32)
            after.enter_context(flags)
        yield


def in_precision(dtype: torch.dtype, device: torch.device, cached: bool = False) -> torch.autocast:
    """Compute convolutions and matrix products in a dtype: autocast, or, of float32, none, whatever is on outside.

    Args:
        dtype: float32, bfloat16 or float16.
        device: where.
        cached: keep weights that were cast until the end of the outermost autocast. There is one cache for all threads, of
            which another may look at a model that is trained here; and it outlasts the step that moves the weights.
    """
    return torch.autocast(device.type, dtype, enabled=dtype != torch.float32, cache_enabled=cached)


def without_cached_casts(device: torch.device) -> torch.autocast:
    """Leave autocast as it is outside, but without its cache of weights: it is one for all threads, and a training reads it."""
    kind = device.type
    enabled, dtype = torch.is_autocast_enabled(kind), torch.get_autocast_dtype(kind)
    return torch.autocast(kind, dtype=dtype, enabled=enabled, cache_enabled=False)


def resolve_precision(precision: str, device: torch.device) -> torch.dtype:
    """Return the dtype of the convolutions: "auto" is bfloat16 where the hardware computes in it, float32 elsewhere.

    Emulated bfloat16 (a CPU with AVX512 but without its BF16 instructions, a GPU before Ampere) is slower than float32.
    """
    if precision != "auto":
        return getattr(torch, precision)
    if device.type == "cuda":
        native = torch.cuda.is_bf16_supported(including_emulation=False)
    else:
        native = device.type == "cpu" and bool(torch.cpu.get_capabilities().get("avx512_bf16", False))
    return torch.bfloat16 if native else torch.float32


def get_rng_state(device: torch.device) -> torch.Tensor | None:
    """Return the state of a GPU's own random numbers; None for a CPU, whose generator is PyTorch's global one."""
    if device.type == "cuda":
        return torch.cuda.get_rng_state(device)
    return torch.mps.get_rng_state() if device.type == "mps" else None


def set_rng_state(device: torch.device, state: torch.Tensor | None) -> None:
    """Take over what `get_rng_state` returned, on the same kind of device; None changes nothing."""
    if state is None:
        return
    if device.type == "cuda":
        torch.cuda.set_rng_state(state, device)
    elif device.type == "mps":
        torch.mps.set_rng_state(state)
