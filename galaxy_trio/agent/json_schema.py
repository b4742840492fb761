"""The JSON Schemas of a function's parameters and result, of the same types that its signature checks."""

from __future__ import annotations

from contextlib import suppress
from enum import Enum
from types import NoneType, UnionType
from typing import TYPE_CHECKING, Annotated, Final, Literal, Union, cast, get_args, get_origin

import attrs
from cattrs import Converter

from galaxy_trio._codec.codec import decode_value, encode_value
from galaxy_trio._codec.strict_types import is_any
from galaxy_trio.agent.docstring import read_docstring
from galaxy_trio.errors import InvalidMessage

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from galaxy_trio.messages import JSON

    Schema = dict[str, JSON]

NO_DEFAULT: Final = object()
"""The default of a parameter that has none."""

_NAMES: Final[dict[object, str]] = {
    str: "string",
    int: "integer",
    float: "number",
    bool: "boolean",
    None: "null",
    NoneType: "null",
    list: "array",
    dict: "object",
}
_plain: Final = Converter()


@attrs.frozen
class Member:
    """A parameter of a function, or a field of a class.

    Attributes:
        annotation: Its resolved annotation, with `Annotated`.
        default: Its default; `NO_DEFAULT` if it has none.
        required: Whether it must be given.
    """

    name: str
    annotation: object
    default: object = NO_DEFAULT
    required: bool = True


def schema_of_members(
    members: Iterable[Member], descriptions: Mapping[str, str], begun: tuple[object, ...] = ()
) -> Schema:
    """The schema of an object with these members; `begun` as for `schema_of`.

    Raises:
        TypeError: A member's type has no schema.
    """
    properties: dict[str, JSON] = {}
    required: list[JSON] = []
    for member in members:
        properties[member.name] = _property(member, descriptions.get(member.name), begun)
        if member.required:
            required.append(member.name)
    schema: Schema = {"type": "object", "properties": properties}
    return {**schema, "required": required} if required else schema


def schema_of_result(annotation: object, description: str | None) -> Schema | None:
    """The schema of a function's result. A result that is not an object becomes the member ``result`` of one, as in MCP.

    Returns:
        None if the annotation says nothing about the result.
    """
    try:
        schema = schema_of(annotation)
    except TypeError:
        # A result may have types that a parameter cannot have.
        return None
    if not schema or schema == {"type": "null"}:
        return None
    if schema.get("type") == "object":
        return {**schema, "description": description} if description else schema
    wrapped = _property(Member("result", annotation), description)
    return {"type": "object", "properties": {"result": wrapped}, "required": ["result"]}


def schema_of(wanted: object, begun: tuple[object, ...] = ()) -> Schema:
    """The schema of a type.

    Args:
        wanted: The type.
        begun: The classes that contain it.

    Raises:
        TypeError: The type has no schema.
    """
    origin, arguments = get_origin(wanted), cast("tuple[object, ...]", get_args(wanted))
    if origin is Annotated:
        # First, because what it contains may have no hash.
        described = _described(arguments[1:])
        return schema_of(arguments[0], begun) | ({"description": described} if described else {})
    if is_any(wanted):
        return {}
    if wanted in _NAMES:
        return {"type": _NAMES[wanted]}
    if isinstance(wanted, type) and attrs.has(wanted):
        return _schema_of_class(wanted, begun)
    if isinstance(wanted, type) and issubclass(wanted, Enum):
        return _choice([member.value for member in wanted])
    if origin is Literal:
        return _choice(arguments)
    if origin is list:
        return {"type": "array", "items": schema_of(arguments[0], begun)}
    if origin is dict:
        values = schema_of(arguments[1], begun)
        return {"type": "object", "additionalProperties": values} if values else {"type": "object"}
    if origin in (Union, UnionType):
        return {"anyOf": [schema_of(argument, begun) for argument in arguments]}
    raise TypeError(f"no schema for type {wanted!r}")


def _schema_of_class(cls: type[attrs.AttrsInstance], begun: tuple[object, ...]) -> Schema:
    if cls in begun:
        raise TypeError(f"{cls.__name__} holds itself")
    attrs.resolve_types(cls)
    documented = read_docstring(cls.__doc__)
    members = [
        Member(
            field.name,
            field.type,
            # A factory, which may have side effects, is not called: `_property` leaves it out.
            NO_DEFAULT if field.default is attrs.NOTHING else field.default,
            field.default is attrs.NOTHING,
        )
        for field in attrs.fields(cls)
        if field.init
    ]
    schema = schema_of_members(members, documented.parameters, (*begun, cls))
    described: Schema = {} if documented.text is None else {"description": documented.text}
    return {**schema, "additionalProperties": False, **described}


def _property(member: Member, description: str | None, begun: tuple[object, ...] = ()) -> Schema:
    schema = schema_of(member.annotation, begun)
    schema["title"] = " ".join(member.name.replace("_", " ").split()).title()
    if description and not _is_described(member.annotation):
        schema["description"] = description
    if member.default is not NO_DEFAULT:
        # A default that JSON cannot represent is left out.
        with suppress(InvalidMessage):
            schema["default"] = decode_value(encode_value(_plain.unstructure(member.default)))
    return schema


def _choice(values: Iterable[object]) -> Schema:
    values = list(values)
    names = {_NAMES.get(type(value)) for value in values}
    schema: Schema = {"enum": cast("list[JSON]", values)}
    return {**schema, "type": names.pop()} if len(names) == 1 else schema


def _is_described(annotation: object) -> bool:
    return get_origin(annotation) is Annotated and _described(get_args(annotation)[1:]) is not None


def _described(metadata: Iterable[object]) -> str | None:
    """The description in an annotation: a text, or an object with one, such as pydantic's ``Field`` and PEP 727's ``Doc``."""
    for each in metadata:
        for found in (each, getattr(each, "description", None), getattr(each, "documentation", None)):
            if isinstance(found, str):
                return found
    return None
