"""Checks that a document is JSON, of a size and depth that every program can read."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Final, TypeAlias, cast

from galaxy_trio._config.reader import MAX_PROBLEMS, describe, member_path

if TYPE_CHECKING:
    from collections.abc import Iterable, Sized

MAX_VALUES: Final = 10_000_000
"""The number of values and keys of a graph's document."""
MAX_DEPTH: Final = 550
"""The number of lists and objects of a document that may be inside of each other. Messages, and so results, have at most 500."""
MAX_DIGITS: Final = 300
"""The number of digits of an integer, as in messages."""

_BOUND: Final = 10**MAX_DIGITS
_Place: TypeAlias = "tuple[_Place | None, str | int]"


def find_unfit_values(document: object, *, without_null: str | None = None) -> list[str]:
    """Return a problem with its path for each value that JSON cannot hold, or that no message may contain.

    Takes a time that grows with the number of values, up to `MAX_VALUES`, and no recursion. A value that occurs several times, as YAML's
    aliases allow, is counted each time.

    Args:
        document: Any value.
        without_null: What to say about a null, where it cannot be written; None where it can.
    """
    problems: list[str] = []
    values = 1
    remaining: list[tuple[object, _Place | None, int]] = [(document, None, 1)]
    while remaining and len(problems) < MAX_PROBLEMS:
        container, place, depth = remaining.pop()
        inner: list[tuple[object, _Place | None, int]] = []
        items: Iterable[tuple[str | int, object]]
        if isinstance(container, dict):
            items = cast("dict[str, object]", container).items()
            problems += _problems_of_keys(cast("dict[object, object]", container), place)
        else:
            items = enumerate(cast("list[object]", container))
        values += 2 * len(cast("Sized", container))
        if values > MAX_VALUES:
            return [f"{_path(place) or 'the file'}: there are more than {MAX_VALUES:,} values"]
        for key, value in items:
            kind = type(value)
            # Most values are short texts.
            if kind is str and cast("str", value).isascii():
                continue
            if kind is dict or kind is list:
                if depth >= MAX_DEPTH:
                    return [
                        f"{_path((place, key))[:200]}…: there are more than {MAX_DEPTH} levels of lists and objects"
                    ]
                inner.append((value, (place, key), depth + 1))
            elif problem := _problem_of(value, without_null):
                problems.append(f"{_path((place, key))}: {problem}")
        remaining += reversed(inner)
    return problems[:MAX_PROBLEMS]


def _problems_of_keys(members: dict[object, object], place: _Place | None) -> list[str]:
    problems: list[str] = []
    for key in members:
        if type(key) is not str:
            problems.append(f"{member_path(_path(place), key)}: a key must be a string: put it in quotes")
        elif has_lone_surrogate(key):
            problems.append(f"{_path(place) or 'the file'}: a key contains a lone surrogate, which cannot be sent")
    return problems


def _problem_of(value: object, without_null: str | None) -> str | None:
    kind = type(value)
    if kind is str:
        return "contains a lone surrogate, which cannot be sent" if has_lone_surrogate(cast("str", value)) else None
    if kind is int and not -_BOUND < cast("int", value) < _BOUND:
        return f"a whole number of more than {MAX_DIGITS} digits"
    if kind is float and not math.isfinite(cast("float", value)):
        return "a number that JSON does not have: infinite, or none"
    if value is None:
        return without_null
    if kind in (bool, int, float):
        return None
    return f"{describe(value)} is a value that JSON does not have: write it as text, in quotes"


def has_lone_surrogate(text: str) -> bool:
    """Whether a text contains half of a pair of surrogates, which UTF-8 cannot encode."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return True
    return False


def _path(place: _Place | None) -> str:
    keys: list[str | int] = []
    while place is not None:
        place, key = place
        keys.append(key)
    path = ""
    for key in reversed(keys):
        path = f"{path}[{key}]" if isinstance(key, int) else member_path(path, key)
    return path
