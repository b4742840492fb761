"""Conversion between JSON text and messages, with the standard library's JSON and the strict converter of converters.py.

Decoding is strict about types, enums and required fields, and ignores fields that AIP does not name. Any input results in a message or
`InvalidMessage`. Nothing here does I/O. docs/performance.md shows how long a message at the size limit blocks the event loop.
"""

from __future__ import annotations

import json
import re
from enum import StrEnum
from json.encoder import encode_basestring
from typing import TYPE_CHECKING, Generic, TypeVar, cast

from cattrs import Converter

from galaxy_trio._arguments import MAX_PARTS
from galaxy_trio._codec.converters import make_converter
from galaxy_trio._codec.generated_structure import generate_structure
from galaxy_trio._codec.json_text import Unreadable, parse, parse_in_slices
from galaxy_trio._codec.strict_types import Mismatch
from galaxy_trio.errors import InvalidMessage
from galaxy_trio.messages import (
    JSON,
    ClientMessage,
    ClientMessageType,
    DeviceInfo,
    ServerMessage,
    ServerMessageType,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Generator

    from attrs import AttrsInstance

T = TypeVar("T")

_IDS = 140
"""Characters of ids that an error keeps, to attribute a broken reply. With the 60 of a bad value, at most 200 of the input."""
_SEARCHED = 65_536
"""Characters of a broken text that are searched for ids. Bounds the time that a broken message takes."""
_DENSE = 20_000
"""Values and keys that are decoded in one step, within about 10 ms."""
_LARGE = 2**20
"""Characters that are decoded in one step, whatever they are, within a few milliseconds."""
_TYPES = frozenset({*ServerMessageType, *ClientMessageType})

_converter = make_converter()
_plain = Converter(unstruct_collection_overrides={tuple: list})

_device_info = generate_structure(DeviceInfo, keeps_extra=True)


_encoder = json.JSONEncoder(ensure_ascii=False, allow_nan=False, separators=(",", ":"))

_TOKEN = re.compile(r'"((?:[^"\\]|\\.)*+)("?)|[{}\[\]:,]', re.DOTALL)


def _ids_in(text: str) -> dict[str, object]:
    """Find the top-level string members near the beginning of a text that may not be JSON."""
    found: dict[str, object] = {}
    depth, key, previous = 0, "", ""
    for token in _TOKEN.finditer(text[:_SEARCHED]):
        symbol = token[0]
        if symbol in "{[":
            depth += 1
        elif symbol in "}]":
            depth -= 1
        elif depth == 1 and symbol == ":":
            key = previous
        elif depth == 1 and symbol == ",":
            key = ""
        elif depth == 1 and token[2]:
            # A truncated string does not count: the beginning of an id could match another request's.
            if key:
                found.setdefault(key, _unescape(token[1]))
                key = ""
            previous = token[1]
    return found


def _unescape(string: str) -> str | None:
    try:
        return cast("str", json.loads(f'"{string}"'))
    except ValueError:
        return None


def _invalid(kind: str, problem: str, members: dict[str, object], reply_to: str) -> InvalidMessage:
    """Make the error for a broken message, with the ids that attribute it to a request."""
    type_ = members.get("type")
    ids: dict[str, str] = {}
    # The session's id first: a client needs no other to fail a task, and both together may be too long.
    for name, member in (("session_id", "session_id"), ("response_id", reply_to)):
        value = members.get(member)
        if type(value) is str and sum(map(len, ids.values())) + len(value) <= _IDS:
            ids[name] = value
    return InvalidMessage(
        f"invalid {kind}: {problem}", type=type_ if type(type_) is str and type_ in _TYPES else None, **ids
    )


def _structure(value: object, cls: type[T], generated: Callable[[object], T | None]) -> T:
    """Make a message from a JSON value.

    Raises:
        Mismatch: The value is not such a message.
    """
    instance = generated(value)
    return _converter.structure(value, cls) if instance is None else instance


def _members_of(value: object) -> dict[str, object]:
    return cast("dict[str, object]", value) if type(value) is dict else {}


class MessageDecoder(Generic[T]):
    """Decodes the messages of one direction.

    Args:
        cls: The messages' class.
        kind: What the messages are, for errors.
        reply_to: The member with the id of the message that is replied to.
        parts: The member with a list of commands or results. Each takes microseconds, so their number is limited.
    """

    def __init__(self, cls: type[T], kind: str, reply_to: str, parts: str) -> None:
        self._cls = cls
        self._generated = generate_structure(cls)
        self._kind = kind
        self._reply_to = reply_to
        self._parts = parts

    def __call__(self, text: str | bytes) -> T:
        """Read a message in one step.

        Args:
            text: A frame's payload. Bytes are a binary frame, which is always invalid.

        Raises:
            InvalidMessage: The text is not a message. The error names the field, its value and what was expected.
        """
        if not isinstance(text, str):
            raise InvalidMessage(f"invalid {self._kind}: a binary frame of {len(text)} bytes, where AIP expects text")
        try:
            value = parse(text)
        except Unreadable as error:
            invalid = self._unreadable(error, text)
        else:
            return self._structure(value)
        raise invalid

    def needs_slices(self, text: str | bytes, max_values: int) -> bool:
        """Whether reading a message in one step could hold the event loop for long, or its values could be too many."""
        values = min(_DENSE, max_values)
        if len(text) < values or isinstance(text, bytes):
            return False
        # At least one of these symbols belongs to each value and key but the first. Counting them in a MiB takes a millisecond.
        return len(text) > _LARGE or sum(map(text.count, ",:[{")) >= values

    def in_slices(self, text: str | bytes, max_values: int) -> Generator[int, None, T]:
        """Read a message as calling the decoder does, one slice of a few milliseconds with each `next`.

        Args:
            text: A text for which `needs_slices` is true.
            max_values: The number of values and keys that it may have.

        Raises:
            InvalidMessage: The text is not a message, has too many values, or they are nested too deep.
        """
        try:
            value = yield from parse_in_slices(cast("str", text), max_values)
        except Unreadable as error:
            invalid = self._unreadable(error, cast("str", text))
        else:
            return self._structure(value)
        raise invalid

    def _unreadable(self, error: Unreadable, text: str) -> InvalidMessage:
        return _invalid(self._kind, str(error), _ids_in(text), self._reply_to)

    def _structure(self, value: object) -> T:
        members = _members_of(value)
        parts = members.get(self._parts)
        if isinstance(parts, list) and len(cast("list[object]", parts)) > MAX_PARTS:
            raise _invalid(self._kind, f"more than {MAX_PARTS:,} {self._parts}", members, self._reply_to)
        try:
            return _structure(value, self._cls, self._generated)
        except Mismatch as mismatch:
            invalid = _invalid(self._kind, str(mismatch), members, self._reply_to)
        raise invalid


decode_server_message = MessageDecoder(ServerMessage, "message from the server", "response_id", "actions")
"""Reads messages from the server. See "ServerMessage" in docs/reference/wire.md."""

decode_client_message = MessageDecoder(ClientMessage, "message to the server", "prev_response_id", "action_results")
"""Reads messages to the server. See "ClientMessage" in docs/reference/wire.md."""


def structure_device_info(value: JSON) -> DeviceInfo:
    """Read a device's information from a reply's ``result``.

    Raises:
        InvalidMessage: The value is not device information. The error names the field, its value and what was expected.

    See "Device information" in docs/reference/wire.md.
    """
    try:
        return _structure(value, DeviceInfo, _device_info)
    except Mismatch as mismatch:
        problem = str(mismatch)
    raise InvalidMessage(f"invalid device information: {problem}")


def unstructure_device_info(info: DeviceInfo) -> dict[str, JSON]:
    """Convert a device's information to AIP's form, without the fields that are None."""
    unstructured = cast("dict[str, JSON]", _converter.unstructure(info))
    # The json module writes enum members as strings, but the strict reader refuses them.
    members = {name: value.value if isinstance(value, StrEnum) else value for name, value in unstructured.items()}
    extra = members.pop("extra", None)
    return {**extra, **members} if isinstance(extra, dict) else members


def unstructure_statistics(statistics: AttrsInstance) -> dict[str, JSON]:
    """Convert the result of a ``statistics()`` method to plain JSON: objects, lists, strings, numbers. None becomes null."""
    return cast("dict[str, JSON]", _plain.unstructure(statistics))


def encode(message: ClientMessage | ServerMessage) -> str:
    """Write a message without the fields that are None: absent means the same.

    Raises:
        InvalidMessage: JSON or UTF-8 cannot express a value: another type, NaN, an infinity, a lone surrogate, a cycle.
    """
    return _written(lambda: _encoder.encode(_converter.unstructure(message)), f"cannot send a {message.type} message: ")


class Template:
    """The text of messages that differ only in a few fields, such as ids and times. Encoded once, for speed.

    Args:
        message: One of the messages, with any text in the varying fields.
        varying: The names of the varying fields.
    """

    def __init__(self, message: ClientMessage | ServerMessage, *varying: str) -> None:
        self._problem = f"cannot send a {message.type} message: "
        members = cast("dict[str, object]", _converter.unstructure(message))
        written = {name: encode_value(value).replace("%", "%%") for name, value in members.items()}
        written |= {name: f"%({name})s" for name in varying}
        self._format = "{" + ",".join(f'"{name}":{value}' for name, value in written.items()) + "}"

    def text(self, **values: str) -> str:
        """Write one message.

        Args:
            values: A text for each varying field.

        Raises:
            InvalidMessage: A value is not text, or UTF-8 cannot encode it.
        """
        return _written(
            lambda: self._format % {name: encode_basestring(value) for name, value in values.items()}, self._problem
        )


def encode_value(value: object) -> str:
    """Write a value that becomes part of a message; raises as `encode` does."""
    return _written(lambda: _encoder.encode(value))


def decode_value(text: str) -> JSON:
    """Read the text that `encode_value` returned.

    Raises:
        InvalidMessage: No receiver would read it, such as an integer of very many digits.
    """
    try:
        return cast("JSON", parse(text))
    except Unreadable as error:
        raise InvalidMessage(str(error)) from None


_UNWRITABLE = (AttributeError, TypeError, ValueError, RecursionError)


def _written(write: Callable[[], str], problem: str = "") -> str:
    """Return the text that `write` makes, if UTF-8 can encode it; otherwise raise an error that begins with `problem`."""
    try:
        text = write()
        if not text.isascii():
            text.encode()
    except _UNWRITABLE as error:
        why = _why_unwritable(error)
    else:
        return text
    # Raised outside the handler: the caught error's traceback would keep a value that may be large.
    raise InvalidMessage(f"{problem}{why}")


def _why_unwritable(error: Exception) -> str:
    if isinstance(error, UnicodeEncodeError):
        return "a lone surrogate in a string, which UTF-8 cannot encode"
    return "nested too deep" if isinstance(error, RecursionError) else str(error)
