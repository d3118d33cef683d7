"""What a step does while it runs: bytes saved for the backward pass, bytes alive at once, operations; and a GPU's autocast."""

import weakref
from collections.abc import Callable, Iterable
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import flop_registry, sdpa_backward_flop, sdpa_flop


class LiveStorages:
    """The bytes of all tensors added that are still alive, each storage once.

    Attributes:
        bytes: alive now.
        peak: most of them so far.
    """

    def __init__(self) -> None:
        self.bytes = self.peak = 0
        self._alive: set[int] = set()

    def add(self, tensor: Tensor) -> None:
        """Count a tensor's storage until it is freed."""
        storage = tensor.untyped_storage()
        key, size = storage._cdata, storage.nbytes()
        if key in self._alive:
            return
        self._alive.add(key)
        self.bytes += size
        self.peak = max(self.peak, self.bytes)
        weakref.finalize(storage, self._free, key, size).atexit = False

    def _free(self, key: int, size: int) -> None:
        self._alive.discard(key)
        self.bytes -= size


class StepMeter(TorchDispatchMode):
    """Counts the operations of what runs inside, and the bytes of the tensors that it makes.

    `torch.utils.flop_counter.FlopCounterMode` has the same formulas, but neither the bytes nor a CPU's attention.

    Attributes:
        flops: operations so far.
        live: the bytes.
    """

    formulas: ClassVar[dict[Any, Callable[..., int]]] = flop_registry | {
        torch.ops.aten._scaled_dot_product_flash_attention_for_cpu: sdpa_flop,
        torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward: sdpa_backward_flop,
    }

    def __init__(self, tensors: Iterable[Tensor]) -> None:
        """Begin with these tensors alive."""
        super().__init__()
        self.flops = 0
        self.live = LiveStorages()
        for tensor in tensors:
            self.live.add(tensor)

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        out = func(*args, **kwargs)
        if func._overloadpacket in self.formulas:
            self.flops += self.formulas[func._overloadpacket](*args, **kwargs, out_val=out)
        for leaf in tree_leaves(out):
            if isinstance(leaf, Tensor):
                self.live.add(leaf)
        return out


class SavedTensors(torch.autograd.graph.saved_tensors_hooks):
    """Counts what autograd keeps of the operations inside, parameters and buffers left out.

    Attributes:
        bytes: kept now, each storage once.
    """

    def __init__(self, parameters: Iterable[Tensor]) -> None:
        """Leave these tensors out."""
        self._left_out = {tensor.untyped_storage()._cdata for tensor in parameters}
        self._kept = LiveStorages()
        super().__init__(self._pack, lambda tensor: tensor)

    @property
    def bytes(self) -> int:
        return self._kept.bytes

    def __enter__(self) -> "SavedTensors":
        super().__enter__()
        return self

    def _pack(self, tensor: Tensor) -> Tensor:
        if tensor.untyped_storage()._cdata not in self._left_out:
            self._kept.add(tensor)
        return tensor


class CudaAutocast(TorchFunctionMode):
    """Autocast on a CPU's tensors by a GPU's rule: what a GPU computes in float32 is computed in float32.

    Source: pytorch.org/docs/stable/amp.html, "CUDA Ops that can autocast to float32".
    """

    float32: ClassVar[frozenset[str]] = frozenset(
        {
            *("__pow__", "__rpow__", "pow", "square", "reciprocal", "__rtruediv__", "rsqrt", "exp", "expm1"),
            *("log", "log10", "log1p", "log2", "softplus", "softmax", "log_softmax"),
            *("sum", "prod", "cumsum", "cumprod", "norm", "normalize", "dist", "cosine_similarity"),
            *(
                "group_norm",
                "layer_norm",
                "mse_loss",
                "l1_loss",
                "smooth_l1_loss",
                "kl_div",
                "nll_loss",
                "cross_entropy",
            ),
            "binary_cross_entropy_with_logits",
        }
    )

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        if func.__name__ not in self.float32 or not torch.is_autocast_enabled("cpu"):
            return func(*args, **kwargs)
        wide = [a.float() if isinstance(a, Tensor) and a.dtype in (torch.bfloat16, torch.float16) else a for a in args]
        with torch.autocast("cpu", enabled=False):
            return func(*wide, **kwargs)
