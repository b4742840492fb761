"""JSON values to messages and back: one cattrs converter that takes nothing for what it is not.

Left to itself, cattrs turns a value of the wrong type into one of the right type: each field has a check of its own here.
"""

from __future__ import annotations

import reprlib
from enum import StrEnum
from itertools import islice
from types import NoneType, UnionType
from typing import TYPE_CHECKING, Union, cast, get_args, get_origin

import attrs
from cattrs import Converter
from cattrs.fns import identity
from cattrs.gen import make_dict_structure_fn, make_dict_unstructure_fn, override

from galaxy_trio.messages import DeviceInfo

if TYPE_CHECKING:
    from collections.abc import Callable

    # What cattrs hands to a hook: the value, and the type that it is to become.
    Structure = Callable[[object, object], object]

SHOWN = 60
"""How many characters of a bad value an error shows."""


class Mismatch(Exception):
    """A value is not what its place in the message asks for."""

    def __init__(self, expected: str, came: str) -> None:
        super().__init__(expected, came)
        self.expected = expected
        self.came = came
        self.path = ""

    def __str__(self) -> str:
        if not self.came:
            return f"{self.path} is missing"
        where = f"{self.path}: " if self.path else ""
        return f"{where}expected {self.expected}, got {self.came}"

    def within(self, part: str) -> Mismatch:
        """The same, seen from one level further out."""
        separator = "" if self.path.startswith("[") or not self.path else "."
        self.path = f"{part}{separator}{self.path}"
        return self


def _mismatch(expected: str, value: object) -> Mismatch:
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
"""The types whose values are taken as they are, and what error messages call them."""


_short_repr = reprlib.Repr()
_short_repr.maxstring = _short_repr.maxlong = _short_repr.maxother = 40
_short_repr.maxlist = _short_repr.maxdict = 2
_short_repr.maxlevel = 1


def shorten(value: object) -> str:
    """At most `SHOWN` characters that show a JSON value, in time that does not depend on its size."""
    if type(value) is dict:
        # reprlib sorts all keys to show two of them.
        value = dict(islice(cast("dict[str, object]", value).items(), 3))
    try:
        shown = _short_repr.repr(value)
    except ValueError:
        # Python refuses to write integers as long as this.
        shown = "of very many digits"
    return shown if len(shown) <= SHOWN else f"{shown[: SHOWN - 1]}…"


def _exactly(kind: type, expected: str) -> Structure:
    def check(value: object, _: object) -> object:
        # Not isinstance: a boolean is no integer here.
        if type(value) is kind:
            return value
        raise _mismatch(expected, value)

    return check


def _exactly_or_null(kind: type, expected: str) -> Structure:
    """What `_or_null` makes of `_exactly`, in one call instead of two: most fields are of this sort."""

    def check(value: object, _: object) -> object:
        if value is None or type(value) is kind:
            return value
        raise _mismatch(f"{expected} or null", value)

    return check


def _number(value: object, _: object) -> float:
    if type(value) is float:
        return value
    if type(value) is int and abs(value) < 1e300:
        return float(value)
    raise _mismatch("a number", value)


def _member(enum: type[StrEnum]) -> Structure:
    members: dict[object, StrEnum] = {member.value: member for member in enum}
    expected = "one of " + ", ".join(repr(member.value) for member in enum)

    def check(value: object, _: object) -> object:
        member = members.get(value) if type(value) is str else None
        if member is None:
            raise _mismatch(expected, value)
        return member

    return check


def _member_or_text(enum: type[StrEnum]) -> Structure:
    members: dict[str, str] = {member.value: member for member in enum}

    def check(value: object, _: object) -> object:
        if type(value) is str:
            return members.get(value, value)
        raise _mismatch("a string", value)

    return check


def _or_null(check: Structure) -> Structure:
    def check_unless_null(value: object, wanted: object) -> object:
        if value is None:
            return None
        try:
            return check(value, wanted)
        except Mismatch as mismatch:
            if not mismatch.path:
                mismatch.expected += " or null"
            raise

    return check_unless_null


def _list_of(check: Structure, item: object) -> Structure:
    as_they_are = {item} if item in _EXPECTED else None

    def check_each(value: object, _: object) -> object:
        if type(value) is not list:
            raise _mismatch("a list", value)
        if as_they_are is not None and as_they_are.issuperset(map(type, cast("list[object]", value))):
            return cast("list[object]", value)
        items: list[object] = []
        for index, element in enumerate(cast("list[object]", value)):
            try:
                items.append(check(element, item))
            except Mismatch as mismatch:
                raise mismatch.within(f"[{index}]") from None
        return items

    return check_each


def _any_json(value: object, _: object) -> object:
    return value


def _strict_hook(wanted: object, converter: Converter) -> Structure:
    """The check for a value of this type. A type that has none is a mistake in messages.py, found when its class is first read."""
    if isinstance(wanted, type) and attrs.has(wanted):
        return cast("Structure", converter.get_structure_hook(wanted))
    if wanted in _EXPECTED:
        return _exactly(cast("type", wanted), _EXPECTED[wanted])
    if wanted is float:
        return _number
    if isinstance(wanted, type) and issubclass(wanted, StrEnum):
        return _member(wanted)
    origin, arguments = get_origin(wanted), cast("tuple[object, ...]", get_args(wanted))
    if origin is list:
        return _list_of(_strict_hook(arguments[0], converter), arguments[0])
    if origin is dict:
        return _exactly(dict, "an object")
    if origin not in (Union, UnionType):
        raise TypeError(f"no check for fields of type {wanted!r}")
    others: list[object] = [argument for argument in arguments if argument is not NoneType]
    if bool in others and float in others:
        return _any_json
    if len(others) == 1 and others[0] in _EXPECTED:
        hook = _exactly_or_null(cast("type", others[0]), _EXPECTED[others[0]])
    elif len(others) == 1:
        hook = _or_null(_strict_hook(others[0], converter))
    else:
        enum = next(other for other in others if other is not str)
        hook = _member_or_text(cast("type[StrEnum]", enum))
        hook = _or_null(hook) if len(others) < len(arguments) else hook
    return hook


def _strict_class(cls: type[attrs.AttrsInstance], converter: Converter, *, null_is_absent: bool = False) -> Structure:
    attrs.resolve_types(cls)
    fields = [field for field in attrs.fields(cls) if field.name != "extra"]
    names = frozenset(field.name for field in fields)
    keeps_extra = len(fields) < len(attrs.fields(cls))
    # A hook for each field: left to itself, cattrs turns a field of the wrong type into the right one.
    hooks = {field.name: _strict_hook(field.type, converter) for field in fields}
    overrides = {name: override(struct_hook=hook) for name, hook in hooks.items()} | {"extra": override(omit=True)}
    make = cast("Callable[..., Callable[[dict[str, object], object], attrs.AttrsInstance]]", make_dict_structure_fn)
    build = make(cls, converter, _cattrs_detailed_validation=False, **overrides)

    def explain(data: dict[str, object]) -> Mismatch:
        for field in fields:
            if field.name in data:
                try:
                    hooks[field.name](data[field.name], field.type)
                except Mismatch as mismatch:
                    return mismatch.within(field.name)
        missing = next(field.name for field in fields if field.default is attrs.NOTHING and field.name not in data)
        return Mismatch("a value", "").within(missing)

    def structure(value: object, _: object) -> object:
        if type(value) is not dict:
            raise _mismatch("an object", value)
        data = cast("dict[str, object]", value)
        if null_is_absent and None in data.values():
            data = {name: item for name, item in data.items() if item is not None or name not in names}
        try:
            instance = build(data, cls)
        except (Mismatch, KeyError):
            raise explain(data) from None
        if keeps_extra and not data.keys() <= names:
            extra = {name: item for name, item in data.items() if name not in names}
            return cast("Callable[..., object]", attrs.evolve)(instance, extra=extra)
        return instance

    return structure


def _writer_for(cls: type[attrs.AttrsInstance], converter: Converter) -> Callable[[object], dict[str, object]]:
    """Leaves out what is at its default, and hands on enums and JSON values as they are: json can write them."""
    attrs.resolve_types(cls)
    nested = {"actions", "action_results"}
    overrides = {
        # An absent client_type means a device: it is always said, for a reader's sake.
        field.name: override(
            unstruct_hook=None if field.name in nested else identity, omit_if_default=field.name != "client_type"
        )
        for field in attrs.fields(cls)
    }
    make = cast("Callable[..., Callable[[object], dict[str, object]]]", make_dict_unstructure_fn)
    return make(cls, converter, **overrides)


def make_converter() -> Converter:
    """A converter whose `structure` raises `Mismatch` for whatever is not as its class says, and ignores unknown fields."""
    converter = Converter(detailed_validation=False)
    converter.register_structure_hook_factory(attrs.has, _strict_class)
    converter.register_structure_hook_func(
        lambda wanted: wanted is DeviceInfo, _strict_class(DeviceInfo, converter, null_is_absent=True)
    )
    converter.register_unstructure_hook_factory(attrs.has, _writer_for)
    return converter
