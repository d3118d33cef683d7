"""The state dicts of tokenizers in what a checkpoint holds: out of containers ({"model": ...}) and wrappers, and which counts.

What stands before the tensors of a tokenizer, such as "state_dict." or "ema.", is called a root here.
"""

import os
import re
from collections import Counter
from collections.abc import Collection
from pathlib import Path

from vistok.pretrained.registry import FORMATS
from vistok.pretrained.unpickling import LazyTensor
from vistok.system.weights import unwrapped
from vistok.system.words import nearest

_AVERAGE = re.compile(r"(^|[._])(ema|averaged?)[._]")  # in the root of a moving average
_PLAIN_ROOTS = ("state_dict.", "model.", "", "ema.")  # where there are several, these are the weights that count
_MOST_VISITS = 4  # to one dict: the same weights under two names, but no dict that contains itself without end
_MOST_NESTING = 16  # dots in the keys that lead to a dict


def choose_weights(
    available: dict[str, dict[str, LazyTensor]], weights: str | None, path: Path
) -> tuple[dict[str, LazyTensor], str]:
    """Return the wanted tensors of a checkpoint, and whose they are.

    Args:
        available: as `state_dicts` returns them.
        weights: one of its keys; None: the moving average's where there is one.
        path: the file, for messages.

    Raises:
        ValueError: there are none, or not these.
    """
    if not available:
        raise ValueError(f"{path} holds no tensors that could be a tokenizer's.")
    chosen = weights or ("ema" if "ema" in available else "model")
    if chosen not in available:
        raise ValueError(f"{path} has no {chosen!r} weights; {nearest(chosen, available)}")
    return available[chosen], chosen


def state_dicts(content: object, path: Path) -> dict[str, dict[str, LazyTensor]]:
    """Return the state dicts of tokenizers in a checkpoint: of the model, and of its moving average; others by their roots.

    Args:
        content: as `reading.open_checkpoint` returns it.
        path: the file, for messages.

    Raises:
        ValueError: two tensors have one name outside of their wrappers.
    """
    tensors = unwrapped(_flat(content), path)
    roots = sorted(_roots(tensors)) or [_common_root(tensors)]
    available = {}
    for name, root in _called(roots).items():
        inner = tuple(other for other in roots if other != root and other.startswith(root))
        own = {n.removeprefix(root): t for n, t in tensors.items() if n.startswith(root) and not n.startswith(inner)}
        available[name] = own
    if "model" in available and "ema" not in available:  # Lightning's: as model_ema.<name without its dots>
        model = available["model"]
        flat = {name: f"model_ema.{name.replace('.', '')}" for name in model}
        available["ema"] = {name: model[flat[name]] for name in model if flat[name] in model}
    return {name: found for name, found in available.items() if found}


def _flat(content: object) -> dict[str, LazyTensor]:
    """Every tensor in a dict and the dicts in it, by the keys that lead to it."""
    found: dict[str, LazyTensor] = {}
    waiting = [("", content)] if isinstance(content, dict) else []
    visits: Counter[int] = Counter()
    for prefix, container in waiting:  # it grows meanwhile
        visits[id(container)] += 1
        for key, value in container.items() if visits[id(container)] <= _MOST_VISITS else ():
            if isinstance(key, str) and isinstance(value, LazyTensor):
                found[prefix + key] = value
            elif isinstance(key, str) and isinstance(value, dict) and prefix.count(".") < _MOST_NESTING:
                waiting.append((f"{prefix}{key}.", value))
    return found


def _roots(names: Collection[str]) -> set[str]:
    """What stands before the tensors of known formats."""
    first = {form.first_tensor for form in FORMATS.values()}
    return {n.removesuffix(t) for t in first for n in names if n == t or n.endswith(f".{t}")}


def _common_root(names: Collection[str]) -> str:
    """What all names begin with, up to a dot."""
    common = os.path.commonprefix([min(names), max(names)]) if names else ""
    return common[: common.rfind(".") + 1]


def _called(roots: list[str]) -> dict[str, str]:
    """The roots by what their tensors are called: "ema" and "model" where it is plain which these are, else as they are."""
    called = {}
    for kind, of_average in (("ema", True), ("model", False)):
        group = [root for root in roots if bool(_AVERAGE.search(root)) == of_average]
        plain = group if len(group) == 1 else [root for root in _PLAIN_ROOTS if root in group]
        called |= {root.rstrip("."): root for root in group if root not in plain[:1]}
        if plain:
            called[kind] = plain[0]
    return called
