"""The classes of the wire, described from their type hints without the package's converter."""

from __future__ import annotations

import json
from enum import StrEnum
from types import NoneType, UnionType
from typing import TYPE_CHECKING, ForwardRef, TypeAlias, Union, cast, get_args, get_origin, get_type_hints

import attrs
import pytest

from galaxy_trio._codec.codec import decode_client_message, decode_server_message, structure_device_info
from galaxy_trio.messages import JSON, ClientMessage, Command, CommandResult, DeviceInfo, ServerMessage

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping


Message: TypeAlias = ClientMessage | ServerMessage
Class: TypeAlias = type[attrs.AttrsInstance]
DECODERS: dict[type[Message], Callable[[str | bytes], Message]] = {
    ServerMessage: decode_server_message,
    ClientMessage: decode_client_message,
}
every_decoder = pytest.mark.parametrize("decode", DECODERS.values(), ids=[cls.__name__ for cls in DECODERS])


def alternatives(hint: object) -> tuple[object, ...]:
    return get_args(hint) if get_origin(hint) in (Union, UnionType) else (hint,)


def hints_of(cls: Class) -> dict[str, object]:
    """Return the types of the fields that are on the wire under their own names."""
    return {name: hint for name, hint in get_type_hints(cls).items() if name != "extra"}


def required(cls: Class) -> list[str]:
    return [field.name for field in attrs.fields(cls) if field.default is attrs.NOTHING]


def fits(hint: object, value: object) -> bool:
    """Whether a field of this type may have a JSON value."""
    return any(fits_one(alternative, value) for alternative in alternatives(hint))


def fits_one(hint: object, value: object) -> bool:
    if isinstance(hint, ForwardRef):
        return True  # inside any JSON value
    if hint is NoneType:
        return value is None
    if hint is float:
        return type(value) in (int, float)
    if hint is bool or hint is int or hint is str:
        return type(value) is hint
    if get_origin(hint) is list:
        return isinstance(value, list) and all(fits(get_args(hint)[0], item) for item in cast("list[object]", value))
    if get_origin(hint) is dict:
        return isinstance(value, dict)
    assert isinstance(hint, type)
    if issubclass(hint, StrEnum):
        return isinstance(value, str) and value in [member.value for member in hint]
    return isinstance(value, dict) and fits_class(cast("Class", hint), cast("dict[str, object]", value))


def fits_class(cls: Class, value: Mapping[str, object]) -> bool:
    return set(required(cls)) <= value.keys() and all(
        fits(hint, value[name]) for name, hint in hints_of(cls).items() if name in value
    )


def words_for(hint: object) -> str:
    """Return the expectation that an error names for a type."""
    kinds = [alternative for alternative in alternatives(hint) if alternative is not NoneType]
    null = " or null" if NoneType in alternatives(hint) else ""
    named = {
        bool: "a boolean",
        str: "a string",
        int: "an integer",
        float: "a number",
        list: "a list",
        dict: "an object",
    }
    for kind in kinds:
        known = named.get(cast("type", get_origin(kind) or kind))
        if known is not None:
            return known + null
    enum = kinds[0]
    assert isinstance(enum, type)
    assert issubclass(enum, StrEnum)
    return "one of " + ", ".join(f"'{member.value}'" for member in enum) + null


def minimal(cls: Class) -> dict[str, JSON]:
    """Return the JSON of an instance with only its required fields."""
    document: dict[str, JSON] = {}
    for name in required(cls):
        enums = [kind for kind in alternatives(hints_of(cls)[name]) if kind is not str]
        document[name] = next(iter(cast("type[StrEnum]", enums[0]))).value if enums else "x"
    return document


SERVER, CLIENT = minimal(ServerMessage), minimal(ClientMessage)
READERS: dict[Class, tuple[Callable[[dict[str, JSON]], object], str]] = {
    ServerMessage: (lambda value: decode_server_message(json.dumps(value)), "invalid message from the server: "),
    ClientMessage: (lambda value: decode_client_message(json.dumps(value)), "invalid message to the server: "),
    Command: (
        lambda value: decode_server_message(json.dumps({**SERVER, "actions": [minimal(Command), value]})),
        "invalid message from the server: actions[1].",
    ),
    CommandResult: (
        lambda value: decode_client_message(json.dumps({**CLIENT, "action_results": [minimal(CommandResult), value]})),
        "invalid message to the server: action_results[1].",
    ),
    DeviceInfo: (structure_device_info, "invalid device information: "),
}
"""A function that reads an instance of each class, and the start of an error about its fields."""
ONE_OF_EACH: list[tuple[str, JSON]] = [
    ("null", None),
    ("the boolean True", True),
    ("the boolean False", False),
    ("the integer 5", 5),
    ("the integer 0", 0),
    ("the number 1.5", 1.5),
    ("the number 5.0", 5.0),
    ("the string 'x'", "x"),
    ("the string '5'", "5"),
    ("the list []", []),
    ("the object {}", {}),
]
"""JSON values of every kind, with their names in errors."""


def means_absent(cls: Class, value: JSON) -> bool:
    """Whether null means an absent key although the type does not allow it: only in device information."""
    return cls is DeviceInfo and value is None


every_class = pytest.mark.parametrize("cls", READERS, ids=[cls.__name__ for cls in READERS])


def instance_of(cls: Class, document: dict[str, JSON]) -> object:
    """Read an instance from a document, or from the message that contains the document."""
    instance = READERS[cls][0](document)
    match instance:
        case ServerMessage(actions=[_, command]) if cls is Command:
            return command
        case ClientMessage(action_results=[_, result]) if cls is CommandResult:
            return result
        case _:
            return instance


DEEP = 100_000
