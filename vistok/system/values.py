"""Values that people give, against the annotation of what takes them: its type, its choices and its bounds.

Choices are a `Literal`; bounds are metadata, functions that take a name and a value and raise ValueError:
`Annotated[int, at_least(1)]`.
"""

import ast
import contextlib
import functools
import inspect
import json
import math
import numbers
import operator
import os
import re
import types
import typing
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Annotated, Any

import yaml

from vistok.system.files import check_nesting, shown
from vistok.system.words import nearest

T = typing.TypeVar("T")
_SEQUENCES = (list, tuple, Sequence)
_ANY = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)  # of a signature
_PLAIN = (bool, int, float, str, dict, types.NoneType, *_SEQUENCES)
_UNIONS = (types.UnionType, typing.Union)
Bound = Callable[[str, Any], None]
MAX_NAME = 64  # characters of a value that is part of a folder's name, which may have 255
_FOLDER_NAME = re.compile(rf"[A-Za-z0-9_.+-]{{1,{MAX_NAME}}}")


def checked(name: str, annotation: Any, value: Any) -> Any:
    """Return a setting as the type of its annotation: an int is a float, NumPy's numbers are Python's, a bool is no int.

    Args:
        name: of the setting, for the error.
        annotation: plain types, literals, None, dicts, and sequences of one type, or a union of them, with or without bounds;
            anything else is not checked.
        value: of the setting.

    Raises:
        TypeError: it has another type.
        ValueError: it is none of the choices or out of bounds, a number is not finite or beyond 64 bits, or a dict is not fit
            for JSON.
    """
    value = _of_type(name, annotation, value)
    if value is not None:
        for option in _members(annotation):
            if typing.get_origin(option) is typing.Literal:
                check_known(f"{name} is", value, typing.get_args(option))
            for bound in getattr(option, "__metadata__", ()):
                bound(name, value)
    return value


def _of_type(name: str, annotation: Any, value: Any) -> Any:
    options = plain_types(annotation)
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
        wanted = " or ".join(map(type_name, options))
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
    options = plain_types(annotation)
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
        read = _yaml(text)  # YAML's numbers are not taken: in it 010 is 8, and 1:30 is 90
        return read if isinstance(read, bool | list | dict) else text


def _yaml(text: str) -> Any:
    try:
        return yaml.safe_load(text)
    except (yaml.YAMLError, ValueError, RecursionError):
        return None


def plain_types(annotation: Any) -> tuple[Any, ...]:
    """Return the types that an annotation allows, without bounds, and for choices their type."""
    found: dict[Any, None] = {}
    for option in _members(annotation):
        if typing.get_origin(option) is typing.Literal:
            found |= dict.fromkeys(map(type, typing.get_args(option)))
        else:
            inner = typing.get_args(option)[0] if hasattr(option, "__metadata__") else option
            found |= dict.fromkeys(plain_types(inner) if inner is not option else (option,))
    return tuple(found)


def _members(annotation: Any) -> tuple[Any, ...]:
    return typing.get_args(annotation) if typing.get_origin(annotation) in _UNIONS else (annotation,)


def type_name(option: Any) -> str:
    """Return what an error sentence calls a plain type."""
    kind = typing.get_origin(option) or option
    if kind in _SEQUENCES:
        return " of ".join(["list", *(type_name(of_one) for of_one in typing.get_args(option)[:1])])
    return "None" if kind is types.NoneType else kind.__name__


def must_be(bound: str, holds: Callable[[Any], bool]) -> Bound:
    """Return a bound in words, which end the sentence of a value, or of a list with one, that does not hold."""

    def check(name: str, value: Any) -> None:
        if not all(map(holds, value if isinstance(value, list) else [value])):
            raise ValueError(f"{name} is {shown(value)}, but must be {bound}.")

    return check


def at_least(least: int) -> Bound:
    """Return the bound of a number, or of each in a list."""
    return must_be(f"at least {least}", lambda value: value >= least)


def above_zero(usual: float) -> Bound:
    """Return the bound of a number whose usual value an error names."""
    return must_be(f"above 0; {usual} is usual", lambda value: value > 0)


def one_of(names: Iterable[str]) -> Bound:
    """Return the bound of a name that is one of a registry's."""

    return lambda name, value: check_known(f"{name} is", value, names)


def check_known(lead: str, name: object, known: Iterable[str]) -> None:
    """Raise ValueError for a name that is not known: the lead of the sentence, the name, and the nearest that is known."""
    if name not in known:
        raise ValueError(f"{lead} {shown(name)}; {nearest(name, known)}")


def not_empty(name: str, value: list[Any]) -> None:
    """Raise ValueError for an empty list."""
    if not value:
        raise ValueError(f"{name} is [], but must hold at least one.")


def not_blank(name: str, value: str) -> None:
    """Raise ValueError for the path that a shell variable which is unset leaves."""
    if not value.strip():
        raise ValueError(
            f"{name} is {value!r}, an empty path; is a shell variable unset? Give the path, or leave it None."
        )


def folder_name(name: str, value: str, slash: str = "") -> None:
    """Raise ValueError where a value, or a part of it beside a slash that it may have, could be no part of a folder's name."""
    parts = value.split("/") if slash else [value]
    if len(parts) <= 2 and all(_FOLDER_NAME.fullmatch(part) and part not in (".", "..") for part in parts):
        return
    near = re.sub(r"[^A-Za-z0-9_.+-]+", "-", parts[-1][:MAX_NAME]).strip("-.") or name
    raise ValueError(
        f"{name} is {shown(value)}, but names a folder: it must be letters, digits and any of _ . - +{slash}, at most "
        f"{MAX_NAME} of them and not only dots; {near!r} can be."
    )


PositiveInt = Annotated[int, at_least(1)]
NonNegativeInt = Annotated[int, at_least(0)]
NonNegativeFloat = Annotated[float, at_least(0)]
Decay = Annotated[float, must_be("in [0, 1)", lambda decay: 0 <= decay < 1)]
Seed = Annotated[int, at_least(0), must_be("below 2**32", lambda seed: seed < 2**32)]
FolderName = Annotated[str, folder_name]
RowName = Annotated[str, functools.partial(folder_name, slash=', and one "/" as in "table/row"')]
FilePath = Annotated[str, not_blank]


def refuse_settings_among(name: str, options: Mapping[str, Any], settings: Iterable[str]) -> None:
    """Raise ValueError where options, called `name`, hold one of the settings that are given beside them."""
    for setting in settings:
        if setting in options:
            raise ValueError(f"{name} holds {setting!r}, which is a setting of its own: set {setting} instead.")


def whole_numbers(name: str, values: Any) -> list[int]:
    """Return whole numbers of any kind, in a list, an array or a tensor, as ints; ValueError where one is none, or a bool."""
    with contextlib.suppress(TypeError):  # one of them is no number, or they are no list
        given = list(values)
        if not any(isinstance(value, bool) or str(getattr(value, "dtype", "")) == "torch.bool" for value in given):
            return [operator.index(value) for value in given]  # of a mask they would be 0 and 1
    raise ValueError(f"{name} is {shown(values)}, but must be a list of whole numbers.")


def call_with_options(what: str, build: Callable[..., T], options: dict[str, Any], **known_anyway: Any) -> T:
    """Return `build(**options)` once every option is known to be one that `build` takes, of the type that it names.

    Args:
        what: what is built, for the error.
        build: a class or function.
        options: arguments of it.
        **known_anyway: further arguments, for those that take them.

    Raises:
        ValueError: an option is not in the signature, and the sentence names `what` and the nearest option; or one that has no
            default is not given.
        TypeError: an option has another type than its annotation.
    """
    known = inspect.signature(build).parameters
    for key in options:
        check_known(f"The {what} has no option", key, known)
    given = {key: checked(f"{what}: {key}", known[key].annotation, value) for key, value in options.items()}
    arguments = {key: value for key, value in known_anyway.items() if key in known} | given
    missing = [
        key for key, of in known.items() if of.default is of.empty and of.kind not in _ANY and key not in arguments
    ]
    if missing:
        raise ValueError(f"The {what} needs {' and '.join(missing)}: no value is given.")
    return build(**arguments)
