"""Conditions of edges: data that survives JSON, evaluated on a node's result."""

from __future__ import annotations

import re
from typing import Final, Literal, TypeAlias, TypeVar, cast

import attrs

from galaxy_trio.errors import GraphError
from galaxy_trio.messages import JSON

T = TypeVar("T", float, str)

Comparison: TypeAlias = Literal["eq", "ne", "lt", "le", "gt", "ge", "in", "exists", "truthy"]
"""The test of a `Condition`."""

_ABSENT: Final = object()
_WITHOUT_VALUE: Final = ("exists", "truthy")
_ORDERED: Final = ("lt", "le", "gt", "ge")
_POINTER: Final = re.compile(r"(?:/(?:[^/~]|~[01])*)*", re.DOTALL)
_INDEX: Final = re.compile(r"0|[1-9][0-9]{0,9}")
_KINDS: Final = ("eq", "ne", *_ORDERED, "in", *_WITHOUT_VALUE)


@attrs.frozen
class Condition:
    """A comparison of one place in a node's result. A missing place and an incomparable type do not meet it.

    Attributes:
        at: The place, as a JSON pointer (RFC 6901), such as ``/exit_code``; empty for the whole result.
        test: ``eq``, ``ne``, ``lt``, ``le``, ``gt``, ``ge``: compare with `value`; numbers with numbers and strings with strings. ``in``:
            equal to an item of the list `value`. ``exists``: the place is there. ``truthy``: it is there, and not null, false, 0 or empty.
        value: The value to compare with.
    """

    at: str
    test: Comparison
    value: JSON = None

    def __attrs_post_init__(self) -> None:
        if not _POINTER.fullmatch(self.at):
            raise GraphError(f"a condition's place is a JSON pointer such as '/exit_code', not {self.at!r}")
        if self.test not in _KINDS:
            raise GraphError(f"a condition's test is one of {', '.join(_KINDS)}, not {self.test!r}")
        if self.test == "in" and not isinstance(self.value, list):
            raise GraphError("a condition with the test 'in' has a list of values")

    def is_met(self, result: JSON) -> bool:
        """Whether a result meets the condition."""
        found = _resolve(self.at, result)
        if found is _ABSENT:
            return False
        match self.test:
            case "exists":
                return True
            case "truthy":
                return bool(found)
            case "in":
                return any(_equal(found, item) for item in cast("list[object]", self.value))
            case "eq":
                return _equal(found, self.value)
            case "ne":
                return not _equal(found, self.value)
            case _:
                return _in_order(self.test, found, self.value)


def _resolve(pointer: str, value: object) -> object:
    """Return the value at a JSON pointer, or `_ABSENT`."""
    for token in pointer.split("/")[1:]:
        key = token.replace("~1", "/").replace("~0", "~")
        if isinstance(value, dict):
            value = cast("dict[str, object]", value).get(key, _ABSENT)
        elif isinstance(value, list) and _INDEX.fullmatch(key) and int(key) < len(cast("list[object]", value)):
            value = cast("list[object]", value)[int(key)]
        else:
            return _ABSENT
    return value


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _in_order(test: str, left: object, right: object) -> bool:
    """Compare two numbers or two strings; other values are in no order."""
    if _is_number(left) and _is_number(right):
        return _compare(test, cast("float", left), cast("float", right))
    return isinstance(left, str) and isinstance(right, str) and _compare(test, left, right)


def _compare(test: str, left: T, right: T) -> bool:
    match test:
        case "lt":
            return left < right
        case "le":
            return left <= right
        case "gt":
            return left > right
        case _:
            return left >= right


def _equal(left: object, right: object) -> bool:
    """Compare as JSON: 1 equals 1.0, and not true."""
    if isinstance(left, bool) or isinstance(right, bool):
        return left is right
    if isinstance(left, list) and isinstance(right, list):
        pairs = zip(cast("list[object]", left), cast("list[object]", right), strict=False)
        return len(cast("list[object]", left)) == len(cast("list[object]", right)) and all(
            _equal(*pair) for pair in pairs
        )
    if isinstance(left, dict) and isinstance(right, dict):
        ours, theirs = cast("dict[str, object]", left), cast("dict[str, object]", right)
        return ours.keys() == theirs.keys() and all(_equal(value, theirs[key]) for key, value in ours.items())
    return left == right
