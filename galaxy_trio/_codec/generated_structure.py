"""Generated structure functions: straight-line code that accepts the valid values of a class, without explaining errors.

The checks of strict_types.py explain errors at the cost of a call for each field. Nearly every message is valid and takes half the time
here. The strict function of the class decides about every other value: it refuses it with an explanation, or accepts it after all.
"""

from __future__ import annotations

from enum import StrEnum
from types import NoneType, UnionType
from typing import TYPE_CHECKING, Final, TypeVar, Union, cast, get_args, get_origin

import attrs

from galaxy_trio._codec.strict_types import LARGEST_NUMBER, is_any

if TYPE_CHECKING:
    from collections.abc import Callable

T = TypeVar("T")

_EXACT: Final[dict[object, str]] = {str: "str", int: "int", bool: "bool"}
"""The types whose values are used unchanged."""


def generate_structure(cls: type[T], *, keeps_extra: bool = False) -> Callable[[object], T | None]:
    """Make a function that returns the instance for a JSON value, or None if the strict function must decide.

    Args:
        cls: An attrs class, with fields of the types that AIP's messages have.
        keeps_extra: Whether null means absent and unknown members are kept in the last field, `extra`.

    Raises:
        TypeError: A field's type has no check.
    """
    attrs_class = cast("type[attrs.AttrsInstance]", cls)
    attrs.resolve_types(attrs_class)
    fields = [field for field in attrs.fields(attrs_class) if not (keeps_extra and field.name == "extra")]
    scope: dict[str, object] = {"cls": cls, "names": frozenset(field.name for field in fields), "only_str": {str}}
    lines = ["if value.__class__ is not dict:", " return None", "get = value.get"]
    for field in fields:
        lines += _read(field, keeps_extra, scope)
    arguments = [f"{field.name}_" for field in fields]
    if keeps_extra:
        unknown = "{name: value[name] for name in value if name not in names}"
        arguments.append(f"{{}} if names.issuperset(value) else {unknown}")
    body = "\n ".join([*lines, f"return cls({', '.join(arguments)})"])
    # The code contains the names of the class's fields, and no input.
    exec(f"def structure(value):\n {body}", scope)  # noqa: S102
    return cast("Callable[[object], T | None]", scope["structure"])


def _read(field: attrs.Attribute[object], null_is_absent: bool, scope: dict[str, object]) -> list[str]:
    """Return the lines that put a field's value into a variable."""
    name, variable = field.name, f"{field.name}_"
    lines = [f"{variable} = get({name!r})"]
    if not is_any(field.type):
        lines += [f"if {variable} is not None:", *_indented(_check(field.type, variable, scope))]
    if field.default is None:
        return lines
    lines += [f"if {variable} is None:"]
    if field.default is attrs.NOTHING:
        return [*lines, " return None"]
    if not null_is_absent:
        lines += [f" if {name!r} in value:", "  return None"]
    factory = cast("Callable[[], object] | None", getattr(field.default, "factory", None))
    scope[f"{name}_default"] = factory or (lambda: field.default)
    return [*lines, f" {variable} = {name}_default()"]


def _check(wanted: object, variable: str, scope: dict[str, object]) -> list[str]:
    """Return the lines that convert a value other than null, or return None if its type is wrong."""
    union = get_args(wanted) if get_origin(wanted) in (Union, UnionType) else (wanted,)
    kinds = [kind for kind in union if kind is not NoneType]
    enums = [kind for kind in kinds if isinstance(kind, type) and issubclass(kind, StrEnum)]
    if len(kinds) == 1 + (str in kinds and len(enums) == 1):
        kind = enums[0] if enums else kinds[0]
        origin, arguments = get_origin(kind) or kind, cast("tuple[object, ...]", get_args(kind))
        if kind in _EXACT:
            return _refuse_unless(f"{variable}.__class__ is {_EXACT[kind]}")
        if kind is float:
            exact_integer = f"{variable}.__class__ is int and abs({variable}) < {LARGEST_NUMBER!r}"
            return [
                f"if {variable}.__class__ is not float:",
                *_indented(_refuse_unless(exact_integer)),
                f" {variable} = float({variable})",
            ]
        if enums:
            members = f"{variable}members"
            scope[members] = {member.value: member for member in enums[0]}
            found = f"{variable} = {members}.get({variable}, {variable if str in kinds else None})"
            return [*_refuse_unless(f"{variable}.__class__ is str"), found, f"if {variable} is None:", " return None"]
        if origin is dict and is_any(arguments[1]):
            return _refuse_unless(f"{variable}.__class__ is dict")
        if origin is list and arguments[0] is str:
            return _refuse_unless(f"{variable}.__class__ is list and only_str.issuperset(map(type, {variable}))")
        if origin is list and attrs.has(cast("type", arguments[0])):
            scope[f"{variable}item"] = generate_structure(cast("type", arguments[0]))
            found = f"{variable} = [{variable}item(each) for each in {variable}]"
            refuse = [f"if any(each is None for each in {variable}):", " return None"]
            return [*_refuse_unless(f"{variable}.__class__ is list"), found, *refuse]
    raise TypeError(f"no generated check for fields of type {wanted!r}")


def _refuse_unless(condition: str) -> list[str]:
    return [f"if not ({condition}):", " return None"]


def _indented(lines: list[str]) -> list[str]:
    return [f" {line}" for line in lines]
