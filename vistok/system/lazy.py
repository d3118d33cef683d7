"""Names of a package that are imported when they are first asked for, so that `--help` does not wait for PyTorch."""

import importlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any


def lazily(package: str, names: Mapping[str, Sequence[str]]) -> tuple[Callable[[str], Any], Callable[[], list[str]]]:
    """Return the `__getattr__` and the `__dir__` of a package.

    Args:
        package: its `__name__`.
        names: module to the names that the package has from it; an empty one stands for the module itself.
    """
    places = {name or module.rpartition(".")[2]: module for module, some in names.items() for name in some or ("",)}

    def find(name: str) -> Any:
        if name not in places:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        module = importlib.import_module(places[name])
        return getattr(module, name) if name in names[places[name]] else module

    return find, lambda: sorted({*vars(importlib.import_module(package)), *places})
