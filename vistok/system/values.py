"""Values that people give, against the annotation of what takes them."""

import ast
import inspect
import json
import math
import numbers
import os
import types
import typing
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import yaml

from vistok.system.files import check_nesting, shown
from vistok.system.words import nearest

T = typing.TypeVar("T")
_SEQUENCES = (list, tuple, Sequence)
_PLAIN = (bool, int, float, str, dict, types.NoneType, *_SEQUENCES)


def checked(name: str, annotation: Any, value: Any) -> Any:
    """Return a setting as the type of its annotation: an int is a float, NumPy's numbers are Python's, a bool is no int.

    Args:
        name: of the setting, for the error.
        annotation: plain types, None, dicts, and sequences of one type, or a union of them; anything else is not checked.
        value: of the setting.

    Raises:
        TypeError: it has another type.
        ValueError: a number is not finite or beyond 64 bits, or a dict is not fit for JSON.
    """
    options = _options(annotation)
    plain = tuple(typing.get_origin(option) or option for option in options)
    if not set(plain) <= set(_PLAIN):
        return value
    if isinstance(value, numbers.Integral) and not isinstance(value, bool):
        value = int(value)
        if not -(2**63) <= value < 2**63:
            raise ValueError(f"{name} is {shown(value)}, but must be within 64 bits, at most 2**63 - 1.")
    if float in options and isinstance(value, numbers.Real) and not isinstance(value, bool):
        value = float(value)
    of_sequence = [option for option, kind in zip(options, plain, strict=True) if kind in _SEQUENCES]
    if of_sequence and isinstance(value, list | tuple):
        (of_one, *_) = (*typing.get_args(of_sequence[0]), Any)
        return type(value)(checked(f"{name}[{place}]", of_one, one) for place, one in enumerate(value))
    if type(value) not in plain:
        wanted = " or ".join(map(_type_name, options))
        raise TypeError(f"{name} is {shown(value)} ({type(value).__name__}), but must be of type {wanted}.")
    if isinstance(value, float) and not math.isfinite(value):
        raise ValueError(f"{name} is {value}, but must be a finite number.")
    if isinstance(value, dict):  # a copy, and the same after a round trip: a tuple is a list
        try:
            check_nesting(value)
            value = json.loads(json.dumps(value, allow_nan=False))
        except (ValueError, TypeError) as error:
            raise ValueError(f"{name} is {shown(value)}, but must be fit for JSON ({error}).") from error
    return value


def as_given(name: str, annotation: Any, value: Any) -> Any:
    """Return a setting as people and shells give it: like `checked`, but what plainly says a value of that type is that value.

    A text where no text is expected is read (`literal`), "none" and "null" are None where that may be, a path is a text,
    and one value where a list is expected is the list of that one.
    """
    options = _options(annotation)
    if isinstance(value, os.PathLike) and str in options:
        value = os.fspath(value)
    if isinstance(value, str) and types.NoneType in options and value.lower() in ("none", "null"):
        return None
    of_list = [option for option in options if typing.get_origin(option) is list]
    if of_list and value is not None:
        read = literal(value) if isinstance(value, str) else value
        several = isinstance(read, Iterable) and not isinstance(read, str | dict | os.PathLike)
        (of_one,) = typing.get_args(of_list[0])
        each = list(read) if several else [value]
        value = [as_given(f"{name}[{place}]" if several else name, of_one, one) for place, one in enumerate(each)]
    elif isinstance(value, str) and str not in options and Any not in options:
        value = literal(value)
    return checked(name, annotation, value)


def literal(text: str) -> Any:
    """Return what a text says: a Python literal, or YAML's words for truth, lists and tables; else the text itself."""
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
        read = _yaml(text)  # whose numbers are left: there 010 is 8, and 1:30 is 90
        return read if isinstance(read, bool | list | dict) else text


def _yaml(text: str) -> Any:
    try:
        return yaml.safe_load(text)
    except (yaml.YAMLError, ValueError, RecursionError):
        return None


def _options(annotation: Any) -> tuple[Any, ...]:
    return typing.get_args(annotation) if isinstance(annotation, types.UnionType) else (annotation,)


def _type_name(option: Any) -> str:
    kind = typing.get_origin(option) or option
    if kind in _SEQUENCES:
        return " of ".join(["list", *(_type_name(of_one) for of_one in typing.get_args(option)[:1])])
    return "None" if kind is types.NoneType else kind.__name__


def call_with_options(what: str, build: Callable[..., T], options: dict[str, Any], **known_anyway: Any) -> T:
    """Return `build(**options)` once every option is known to be one that `build` takes, of the type that it names.

    Args:
        what: what is built, for the error.
        build: a class or function.
        options: arguments of it.
        **known_anyway: further arguments, for those that take them.

    Raises:
        ValueError: an option is not in the signature; the sentence names `what` and the nearest option.
        TypeError: an option has another type than its annotation.
    """
    known = inspect.signature(build).parameters
    for key in options:
        if key not in known:
            raise ValueError(f"The {what} has no option {key!r}; {nearest(key, known)}")
    given = {key: checked(f"{what}: {key}", known[key].annotation, value) for key, value in options.items()}
    return build(**{key: value for key, value in known_anyway.items() if key in known} | given)
