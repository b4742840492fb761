"""Strict checks of JSON values: one for each type, without coercion.

By itself, cattrs coerces values of the wrong type. The converters of converters.py use these checks instead.
"""

from __future__ import annotations

import reprlib
from enum import Enum, StrEnum
from itertools import islice
from types import NoneType, UnionType
from typing import TYPE_CHECKING, Annotated, Any, ForwardRef, Literal, Union, cast, get_args, get_origin

import attrs

from galaxy_trio.messages import JSON

if TYPE_CHECKING:
    from collections.abc import Callable, Collection

    from cattrs import Converter

    # A cattrs hook: takes the value and the wanted type.
    Structure = Callable[[object, object], object]

LARGEST_NUMBER = 1e300
"""The limit below which an integer is accepted as a number: soon above it, floats overflow."""
SHOWN = 60
"""Characters of a bad value that an error shows."""


class Mismatch(Exception):
    """A value does not have the type that its place in the message requires."""

    def __init__(self, expected: str, came: str) -> None:
        super().__init__(expected, came)
        self.expected = expected
        self.came = came
        self.path: str = ""

    def __str__(self) -> str:
        if not self.came:
            return f"{self.path} is missing"
        where = f"{self.path}: " if self.path else ""
        return f"{where}expected {self.expected}, got {self.came}"

    def within(self, part: str) -> Mismatch:
        """Return the same error with `part` in front of its path."""
        separator = "" if self.path.startswith("[") or not self.path else "."
        self.path = f"{part}{separator}{self.path}"
        return self


class _Unknown(Mismatch):
    """An object has a member that its class does not define."""

    def __str__(self) -> str:
        return f"{self.path} is not known: expected {self.expected}"


def check_members(members: dict[str, object], known: Collection[str]) -> None:
    """Raise `Mismatch` for an unknown member."""
    for name in members:
        if name not in known:
            raise _Unknown(f"no more than {', '.join(known) or 'nothing'}", "").within(shorten(name))


def mismatch(expected: str, value: object) -> Mismatch:
    """Make the error for a value of the wrong type."""
    return Mismatch(expected, f"{_KINDS[type(value)]} {shorten(value)}" if value is not None else "null")


_KINDS: dict[type, str] = {
    bool: "the boolean",
    int: "the integer",
    float: "the number",
    str: "the string",
    list: "the list",
    dict: "the object",
}

_EXPECTED: dict[object, str] = {str: "a string", int: "an integer", bool: "a boolean"}
"""The types whose values are used unchanged, and their names in error messages."""
_SCALARS = (str, int, float, bool, NoneType)


class _ShortRepr(reprlib.Repr):
    def repr_int(self, x: int, level: int) -> str:
        # Raises for very long integers, of which reprlib shows the address since Python 3.14.
        repr(x)
        return super().repr_int(x, level)


_short_repr = _ShortRepr()
_short_repr.maxstring = _short_repr.maxlong = _short_repr.maxother = 40
_short_repr.maxlist = _short_repr.maxdict = 2
_short_repr.maxlevel = 1


def shorten(value: object) -> str:
    """Show a JSON value in at most `SHOWN` characters, in time that does not depend on its size."""
    if type(value) is dict:
        # reprlib sorts all keys to show two of them.
        value = dict(islice(cast("dict[str, object]", value).items(), 3))
    try:
        shown = _short_repr.repr(value)
    except ValueError:
        # Python refuses to write very long integers.
        shown = "of very many digits"
    return shown if len(shown) <= SHOWN else f"{shown[: SHOWN - 1]}…"


def _exactly(kind: type, expected: str) -> Structure:
    def check(value: object, _: object) -> object:
        # Not isinstance: a boolean does not count as an integer.
        if type(value) is kind:
            return value
        raise mismatch(expected, value)

    return check


def _exactly_or_null(kind: type, expected: str) -> Structure:
    """Combine `_exactly` and `_or_null` in one call instead of two: most fields have such a type."""

    def check(value: object, _: object) -> object:
        if value is None or type(value) is kind:
            return value
        raise mismatch(f"{expected} or null", value)

    return check


def _number(value: object, _: object) -> float:
    if type(value) is float:
        return value
    if type(value) is int and abs(value) < LARGEST_NUMBER:
        return float(value)
    raise mismatch("a number", value)


def _member(enum: type[StrEnum]) -> Structure:
    members: dict[object, StrEnum] = {member.value: member for member in enum}
    expected = "one of " + ", ".join(repr(member.value) for member in enum)

    def check(value: object, _: object) -> object:
        member = members.get(value) if type(value) is str else None
        if member is None:
            raise mismatch(expected, value)
        return member

    return check


def _member_or_text(enum: type[StrEnum]) -> Structure:
    members: dict[str, str] = {member.value: member for member in enum}

    def check(value: object, _: object) -> object:
        if type(value) is str:
            return members.get(value, value)
        raise mismatch("a string", value)

    return check


def _or_null(check: Structure) -> Structure:
    def check_unless_null(value: object, wanted: object) -> object:
        if value is None:
            return None
        try:
            return check(value, wanted)
        except Mismatch as found:
            if not found.path:
                found.expected += " or null"
            raise

    return check_unless_null


def _list_of(check: Structure, item: object) -> Structure:
    as_they_are = {item} if item in _EXPECTED else None

    def check_each(value: object, _: object) -> object:
        if type(value) is not list:
            raise mismatch("a list", value)
        if as_they_are is not None and as_they_are.issuperset(map(type, cast("list[object]", value))):
            return cast("list[object]", value)
        items: list[object] = []
        for index, element in enumerate(cast("list[object]", value)):
            try:
                items.append(check(element, item))
            except Mismatch as found:
                raise found.within(f"[{index}]") from None
        return items

    return check_each


def _object_of(check: Structure, item: object) -> Structure:
    def check_each(value: object, _: object) -> object:
        if type(value) is not dict:
            raise mismatch("an object", value)
        members: dict[str, object] = {}
        for name, member in cast("dict[str, object]", value).items():
            try:
                members[name] = check(member, item)
            except Mismatch as found:
                raise found.within(shorten(name)) from None
        return members

    return check_each


def _one_of(choices: list[tuple[object, object]]) -> Structure:
    """Make a check for a fixed set of values, each of which stands for itself or for an enum member."""
    if not all(type(value) in _SCALARS for value, _ in choices):
        raise TypeError("choices must be strings, numbers, booleans or null")
    # Keyed by type too: as a key, True equals 1.
    members = {(type(value), value): member for value, member in choices}
    expected = "one of " + ", ".join("null" if value is None else repr(value) for value, _ in choices)

    def check(value: object, _: object) -> object:
        if type(value) in _SCALARS and (type(value), value) in members:
            return members[type(value), value]
        raise mismatch(expected, value)

    return check


def _any_of(alternatives: list[tuple[Structure, object]]) -> Structure:
    """Make a check that uses the first alternative that fits. If none fits, the error is that of the one whose kind fits, or names all."""

    def check(value: object, _: object) -> object:
        mismatches: list[Mismatch] = []
        for check_one, wanted in alternatives:
            try:
                return check_one(value, wanted)
            except Mismatch as found:
                mismatches.append(found)
        inside = [found for found in mismatches if found.path]
        if len(inside) == 1:
            raise inside[0]
        raise mismatch(" or ".join(dict.fromkeys(found.expected for found in mismatches)), value)

    return check


def _any_json(value: object, _: object) -> object:
    return value


def _null(value: object, _: object) -> object:
    if value is not None:
        raise mismatch("null", value)
    return value


def is_any(wanted: object) -> bool:
    """Whether a type accepts any JSON value."""
    if wanted is Any or wanted is object:
        return True
    # JSON resolves to a union whose list and object contain unresolved references to JSON.
    inner = [each for member in get_args(wanted) for each in get_args(member)]
    return any(isinstance(each, ForwardRef) and each.__forward_arg__ == JSON for each in inner)


def strict_hook(wanted: object, converter: Converter) -> Structure:
    """Return the check for a type. Called once for each field or parameter, when its class or function is first read.

    Raises:
        TypeError: The type has no check.
    """
    origin, arguments = get_origin(wanted), cast("tuple[object, ...]", get_args(wanted))
    if origin is Annotated:
        return strict_hook(arguments[0], converter)
    if isinstance(wanted, type) and attrs.has(wanted):
        return cast("Structure", converter.get_structure_hook(wanted))
    hook = _simple_hook(wanted)
    if hook is not None:
        return hook
    if origin is Literal:
        return _one_of([(argument, argument) for argument in arguments])
    if origin is list:
        return _list_of(strict_hook(arguments[0], converter), arguments[0])
    if origin is dict and is_any(arguments[1]):
        return _exactly(dict, "an object")
    if origin is dict and arguments[0] is str:
        return _object_of(strict_hook(arguments[1], converter), arguments[1])
    if origin in (Union, UnionType):
        return _union_hook(arguments, converter)
    raise TypeError(f"no check for fields of type {wanted!r}")


def _simple_hook(wanted: object) -> Structure | None:
    """Return the check for a type that contains no other type."""
    hook: Structure | None = None
    if is_any(wanted):
        hook = _any_json
    elif wanted in _EXPECTED:
        hook = _exactly(cast("type", wanted), _EXPECTED[wanted])
    elif wanted is float:
        hook = _number
    elif wanted in (None, NoneType):
        hook = _null
    elif wanted is list:
        hook = _exactly(list, "a list")
    elif wanted is dict:
        hook = _exactly(dict, "an object")
    elif isinstance(wanted, type) and issubclass(wanted, StrEnum):
        hook = _member(wanted)
    elif isinstance(wanted, type) and issubclass(wanted, Enum):
        hook = _one_of([(member.value, member) for member in wanted])
    return hook


def _union_hook(arguments: tuple[object, ...], converter: Converter) -> Structure:
    others = [argument for argument in arguments if argument is not NoneType]
    if len(others) == 1 and others[0] in _EXPECTED:
        return _exactly_or_null(cast("type", others[0]), _EXPECTED[others[0]])
    enums = [other for other in others if isinstance(other, type) and issubclass(other, StrEnum)]
    if len(others) == 1:
        hook = strict_hook(others[0], converter)
    elif len(others) == 2 and len(enums) == 1 and str in others:
        hook = _member_or_text(enums[0])
    else:
        # An integer is also accepted as a number, and an enum member as a string, so the more specific type is first.
        ordered = sorted(others, key=lambda other: (other is float, other is str))
        hook = _any_of([(strict_hook(other, converter), other) for other in ordered])
    return _or_null(hook) if len(others) < len(arguments) else hook
