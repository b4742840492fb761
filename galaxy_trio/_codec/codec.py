"""Text to message and back: the standard library's JSON, and the strict converter of converters.py.

Decoding is strict in what AIP says (types, enums, required fields) and ignores fields that it does not name. Whatever comes in, the
outcome is a message or `InvalidMessage`. Nothing here does I/O. How long a message at the size limit holds the event loop is measured in
docs/performance.md.
"""

from __future__ import annotations

import json
import math
import re
from enum import StrEnum
from json.encoder import encode_basestring
from typing import TYPE_CHECKING, TypeVar, cast

from cattrs import Converter

from galaxy_trio._codec.converters import make_converter
from galaxy_trio._codec.generated_structure import generate_structure
from galaxy_trio._codec.strict_types import Mismatch, shorten
from galaxy_trio.errors import InvalidMessage
from galaxy_trio.messages import (
    JSON,
    ClientMessage,
    ClientMessageType,
    DeviceInfo,
    ServerMessage,
    ServerMessageType,
    TransferMessage,
    TransferType,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from attrs import AttrsInstance

T = TypeVar("T")

_IDS = 140
"""How many characters of ids an error keeps, to tell whose reply was broken. With the 60 of a bad value: at most 200 of the input."""
_SEARCHED = 65_536
"""How many characters of a broken text are searched for its ids: it bounds the time that a broken message takes."""
_TYPES = frozenset({*ServerMessageType, *ClientMessageType, *TransferType})

_converter = make_converter()
_plain = Converter(unstruct_collection_overrides={tuple: list})


_server_message = generate_structure(ServerMessage)
_client_message = generate_structure(ClientMessage)
_transfer_message = generate_structure(TransferMessage)
_device_info = generate_structure(DeviceInfo, keeps_extra=True)


class _Unreadable(Exception):
    """A text says what JSON cannot mean."""


def _refuse_constant(constant: str) -> float:
    raise _Unreadable(f"{constant} is not JSON")


def _finite_float(digits: str) -> float:
    number = float(digits)
    if math.isinf(number):
        raise _Unreadable(f"the number {shorten(digits)} is out of range")
    return number


_SURROGATE = re.compile(r"\\u[dD][89a-fA-F]")
"""As a regular expression it is found several times as fast as by `in`, which looks for its last, frequent letter."""

_decoder = json.JSONDecoder(parse_constant=_refuse_constant, parse_float=_finite_float)
_encoder = json.JSONEncoder(ensure_ascii=False, allow_nan=False, separators=(",", ":"))


_NOT_SPACE = re.compile(r"[^ \t\n\r]")


def _decode_json(text: str) -> object:
    """The same as `json.JSONDecoder.decode`, without looking for the white space around a message that hardly ever is there."""
    if not text.startswith("{"):
        return _decoder.decode(text)
    value, end = _decoder.raw_decode(text)
    if end < len(text) and (extra := _NOT_SPACE.search(text, end)):
        raise json.JSONDecodeError("Extra data", text, extra.start())
    return value


def _parse(text: str) -> object:
    """What a JSON text says.

    Raises:
        _Unreadable: Why not, in one line with no more of the text than an error may show.
    """
    try:
        value = _decode_json(text)
        # Only an escape can bring a lone surrogate in, for the text came as UTF-8. Pairs, as in emoji, are well; writing tells.
        if "\\" in text and _SURROGATE.search(text):
            _encoder.encode(value).encode()
    except json.JSONDecodeError as error:
        problem = f"not JSON: {error.msg} at character {error.pos}, in {shorten(text[max(0, error.pos - 10) : error.pos + 20])}"
    except UnicodeEncodeError:
        problem = "a lone surrogate in a string"
    except RecursionError:
        problem = "nested too deep"
    except ValueError:
        # Not ours, which are no ValueError: Python's own limit, which keeps a long integer from taking quadratic time.
        problem = "an integer of too many digits"
    else:
        return value
    # Outside of the handlers: what was caught holds the whole text, and would be kept as this error's context.
    raise _Unreadable(problem)


_TOKEN = re.compile(r'"((?:[^"\\]|\\.)*+)("?)|[{}\[\]:,]', re.DOTALL)


def _ids_in(text: str) -> dict[str, object]:
    """The members at the top of a text that may be no JSON at all, as far as they are strings and stand near its beginning."""
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
            # A string that is cut off is none: the rest of an id could be another request's.
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
    """The error for a broken message, with whatever tells whose reply it was."""
    type_ = members.get("type")
    ids: dict[str, str] = {}
    for name, member in (("response_id", reply_to), ("session_id", "session_id")):
        value = members.get(member)
        if type(value) is str and sum(map(len, ids.values())) + len(value) <= _IDS:
            ids[name] = value
    return InvalidMessage(
        f"invalid {kind}: {problem}", type=type_ if type(type_) is str and type_ in _TYPES else None, **ids
    )


def _structure(value: object, cls: type[T], generated: Callable[[object], T | None]) -> T:
    """The message that a JSON value stands for.

    Raises:
        Mismatch: There is none.
    """
    instance = generated(value)
    return _converter.structure(value, cls) if instance is None else instance


def _decode(
    text: str | bytes,
    cls: type[T],
    generated: Callable[[object], T | None],
    kind: str,
    reply_to: str = "response_id",
) -> T:
    if not isinstance(text, str):
        raise InvalidMessage(f"invalid {kind}: a binary frame of {len(text)} bytes, where AIP has text")
    try:
        value = _parse(text)
    except _Unreadable as error:
        invalid = _invalid(kind, str(error), _ids_in(text), reply_to)
    else:
        try:
            return _structure(value, cls, generated)
        except Mismatch as mismatch:
            members = cast("dict[str, object]", value) if type(value) is dict else {}
            invalid = _invalid(kind, str(mismatch), members, reply_to)
    raise invalid


def decode_server_message(text: str | bytes) -> ServerMessage:
    """Read a message from the server.

    Args:
        text: A frame's payload; bytes are a binary frame, which AIP does not use here.

    Raises:
        InvalidMessage: It is none. Says which field, what came and what was expected.

    See "ServerMessage" in docs/reference/wire.md.
    """
    return _decode(text, ServerMessage, _server_message, "message from the server")


def decode_client_message(text: str | bytes) -> ClientMessage:
    """Read a message to the server; otherwise like `decode_server_message`.

    See "ClientMessage" in docs/reference/wire.md.
    """
    return _decode(text, ClientMessage, _client_message, "message to the server", "prev_response_id")


def decode_transfer_message(text: str | bytes) -> TransferMessage:
    """Read a text frame of a binary transfer; otherwise like `decode_server_message`.

    See "Binary transfer" in docs/reference/wire.md.
    """
    return _decode(text, TransferMessage, _transfer_message, "transfer message")


def structure_device_info(value: JSON) -> DeviceInfo:
    """Read a device's information out of a reply's ``result``.

    Raises:
        InvalidMessage: It is none. Says which field, what came and what was expected.

    See "Device information" in docs/reference/wire.md.
    """
    try:
        return _structure(value, DeviceInfo, _device_info)
    except Mismatch as mismatch:
        problem = str(mismatch)
    raise InvalidMessage(f"invalid device information: {problem}")


def unstructure_device_info(info: DeviceInfo) -> dict[str, JSON]:
    """A device's information as AIP writes it; what is None is left out."""
    unstructured = cast("dict[str, JSON]", _converter.unstructure(info))
    # Members of enums are strings to json, but not to the strict reader.
    members = {name: value.value if isinstance(value, StrEnum) else value for name, value in unstructured.items()}
    extra = members.pop("extra", None)
    return {**extra, **members} if isinstance(extra, dict) else members


def unstructure_statistics(statistics: AttrsInstance) -> dict[str, JSON]:
    """What a ``statistics()`` method returns, as plain JSON: objects, lists, strings, numbers; what is None stays null."""
    return cast("dict[str, JSON]", _plain.unstructure(statistics))


def encode(message: ClientMessage | ServerMessage | TransferMessage) -> str:
    """Write a message; fields that are None are left out, which means the same.

    Raises:
        InvalidMessage: It holds what JSON or UTF-8 cannot: another type, NaN, an infinity, a lone surrogate, a cycle.
    """
    return _written(lambda: _encoder.encode(_converter.unstructure(message)), f"cannot send a {message.type} message: ")


class Template:
    """The text of messages that differ in a few ids and times only, made once.

    Args:
        message: One of them, with any text in the fields that differ.
        varying: The names of those fields.
    """

    def __init__(self, message: ClientMessage | ServerMessage, *varying: str) -> None:
        self._problem = f"cannot send a {message.type} message: "
        members = cast("dict[str, object]", _converter.unstructure(message))
        written = {name: encode_value(value).replace("%", "%%") for name, value in members.items()}
        written |= {name: f"%({name})s" for name in varying}
        self._format = "{" + ",".join(f'"{name}":{value}' for name, value in written.items()) + "}"

    def text(self, **values: str) -> str:
        """The text of a message.

        Args:
            values: One for each field that differs.

        Raises:
            InvalidMessage: A value is no text, or holds what UTF-8 cannot.
        """
        return _written(
            lambda: self._format % {name: encode_basestring(value) for name, value in values.items()}, self._problem
        )


def encode_value(value: object) -> str:
    """Write what is to be part of a message; errors are those of `encode`."""
    return _written(lambda: _encoder.encode(value))


def decode_value(text: str) -> JSON:
    """Read what `encode_value` has written."""
    return cast("JSON", _decoder.decode(text))


_UNWRITABLE = (AttributeError, TypeError, ValueError, RecursionError)


def _written(write: Callable[[], str], problem: str = "") -> str:
    """The text that `write` makes, if UTF-8 can hold it; `problem` begins the error otherwise."""
    try:
        text = write()
        if not text.isascii():
            text.encode()
    except _UNWRITABLE as error:
        why = _why_unwritable(error)
    else:
        return text
    # Not from within: the error's traceback would keep what may be large.
    raise InvalidMessage(f"{problem}{why}")


def _why_unwritable(error: Exception) -> str:
    if isinstance(error, UnicodeEncodeError):
        return "a lone surrogate in a string, which UTF-8 has not"
    return "nested too deep" if isinstance(error, RecursionError) else str(error)
