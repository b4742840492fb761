"""JSON decoding in slices, for texts with so many values that decoding them in one step would hold the event loop.

The standard library's decoder cannot be interrupted, and takes up to a microsecond for a value: a text of 1 MiB may have 350,000.
"""

from __future__ import annotations

import re
from json.decoder import JSONDecodeError, scanstring  # type: ignore[attr-defined]  # typeshed lacks it
from typing import TYPE_CHECKING, Final, TypeAlias, cast

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterable

Container: TypeAlias = "list[object] | dict[str, object]"

MAX_DEPTH: Final = 500
"""How deep lists and objects may be nested."""
_SLICE: Final = 4_000
"""Values and keys of a slice: a few milliseconds."""
_SLICE_SIZE: Final = 2**20
"""Characters of a slice."""
_CONTAINERS: Final = frozenset({list, dict})
TOO_DEEP: Final = "nested too deep"
MAX_NUMBER: Final = 1_000
"""Characters that a number may have."""
_MAX_SPACE: Final = 2**16
"""Characters of white space between two symbols."""
_SHOWN_KEY: Final = 60
"""Characters of a key that an error shows."""

_NOT_SPACE: Final = re.compile(r"[^ \t\n\r]")
_NUMBER: Final = re.compile(r"(-?(?:0|[1-9][0-9]*))(\.[0-9]+)?([eE][-+]?[0-9]+)?")
_SHORT_STRING: Final = re.compile(r'"[^"\\]*+(?:\\.[^"\\]*+)*+"', re.DOTALL)
_CUT_ESCAPE: Final = re.compile(r"\\(?:u(?:[0-9a-fA-F]{0,3}|[dD][89abAB][0-9a-fA-F]{2}))?\Z")
"""The end of a text within an escape, or between the two escapes of a surrogate pair."""
_CONSTANT: Final = re.compile(r"true|false|null|NaN|-?Infinity")
_CONSTANTS: Final[dict[str, object]] = {"true": True, "false": False, "null": None}


class Refused(ValueError):
    """A text has too many values, they are nested too deep, or a key is given twice."""


def is_too_deep(value: object, text: str, limit: int = MAX_DEPTH) -> bool:
    """Whether a text's value is nested deeper than a limit. The standard library's own limit depends on Python's version."""
    if len(text) <= limit or text.count("[") + text.count("{") <= limit:
        return False
    level: list[Iterable[object]] = [[value]]
    for _ in range(limit + 1):
        found = cast("list[Container]", [each for members in level for each in members if type(each) in _CONTAINERS])
        if not found:
            return False
        level = [container.values() if isinstance(container, dict) else container for container in found]
    return True


class SlicedDecoder:
    """Decodes JSON texts as `json.JSONDecoder` does, a few thousand values at a time.

    Args:
        parse_int: Makes a number from its digits.
        parse_float: Makes a number with a fraction or an exponent from its text.
        parse_constant: Makes a value from ``NaN``, ``Infinity`` or ``-Infinity``, or raises.
        unique_keys: Refuse an object in which a key is given twice.
    """

    def __init__(
        self,
        parse_int: Callable[[str], int],
        parse_float: Callable[[str], float],
        parse_constant: Callable[[str], object],
        *,
        unique_keys: bool = False,
    ) -> None:
        self._parse_int = parse_int
        self._parse_float = parse_float
        self._parse_constant = parse_constant
        self._unique_keys = unique_keys

    def decode(self, text: str, max_values: int, check_string: Callable[[str], object]) -> Generator[int, None, object]:
        """Decode a text, one slice with each `next`, which returns the slice's number of values and keys.

        Args:
            text: The text. It may have white space around its value.
            max_values: The number of values and keys that it may have.
            check_string: Called with each string that is not ASCII; raises to refuse it.

        Returns:
            The text's value.

        Raises:
            json.JSONDecodeError: The text is not JSON.
            Refused: It has too many values, they are nested too deep, or a key is given twice.
            Exception: What one of the given functions raises.
        """
        decoded: list[object] = []
        try:
            yield from self._decode(text, max_values, check_string, decoded)
        except Exception as error:  # noqa: BLE001  # raised again
            # Its traceback would keep the innermost containers.
            refusal = error.with_traceback(None)
        else:
            return decoded[0]
        # Freeing 500,000 lists in the step that found the error would take longer than any slice.
        yield from free(decoded)
        raise refusal

    def _decode(  # noqa: C901  # one state machine: its parts would hand all variables to each other
        self, text: str, max_values: int, check_string: Callable[[str], object], decoded: list[object]
    ) -> Generator[int, None, None]:
        """Decode a text as `decode` does, and append its value to an empty list, from which everything is reached at any time."""
        container: Container = decoded
        around: list[Container] = []
        key = ""
        count, next_count, next_position = 0, _SLICE, _SLICE_SIZE
        position = _skip_space(text, 0)
        while container is not decoded or not decoded:
            # A value begins here.
            count += 1 if isinstance(container, list) else 2
            if count > max_values:
                raise Refused(f"more than {max_values:,} values")
            if count >= next_count or position >= next_position:
                yield count - next_count + _SLICE
                next_count, next_position = count + _SLICE, position + _SLICE_SIZE
            opened = _opened(text, position)
            value: object
            if opened is not None:
                value, position = opened, position + 1
            elif _is_long_string(text, position):
                value, position = yield from _long_string(text, position, check_string)
            else:
                value, position = self._scalar(text, position, check_string)
            if isinstance(container, list):
                container.append(value)
            else:
                container[key] = value
            if opened is not None and not _is_closed(text, position := _skip_space(text, position), opened):
                if len(around) == MAX_DEPTH:
                    raise Refused(TOO_DEEP)
                around.append(container)
                container = opened
            else:
                container, position = _after_value(text, position + (opened is not None), container, around)
            if isinstance(container, dict):
                if _is_long_string(text, position):
                    key, position = yield from _long_string(text, position, check_string)
                else:
                    key, position = _key(text, position, check_string)
                if self._unique_keys:
                    _check_unique(key, container, around)
                position = _skip_colon(text, position)
        if position < len(text):
            raise JSONDecodeError("Extra data", text, position)

    def _scalar(self, text: str, position: int, check_string: Callable[[str], object]) -> tuple[object, int]:
        """Read the string, number or constant at a position; return it with the position after it."""
        if text.startswith('"', position):
            return _string(text, position, check_string)
        if number := _NUMBER.match(text, position, position + MAX_NUMBER + 1):
            if number.end() > position + MAX_NUMBER:
                raise Refused(f"a number of more than {MAX_NUMBER:,} characters")
            whole, fraction, exponent = number.groups()
            if fraction or exponent:
                return self._parse_float(number[0]), number.end()
            return self._parse_int(whole), number.end()
        if constant := _CONSTANT.match(text, position):
            name = constant[0]
            return _CONSTANTS[name] if name in _CONSTANTS else self._parse_constant(name), constant.end()
        raise JSONDecodeError("Expecting value", text, position)


def _check_unique(key: str, members: dict[str, object], around: list[Container]) -> None:
    """Refuse a key that an object has. The containers around it, all of which are incomplete, tell its path."""
    if key not in members:
        return
    path = ""
    for outer in around[1:]:
        path += f"[{len(outer) - 1}]" if isinstance(outer, list) else f".{next(reversed(outer))[:_SHOWN_KEY]}"
    where = f" in {path.removeprefix('.')}" if path else ""
    raise Refused(f"the key {key[:_SHOWN_KEY]!r} is given twice{where}")


def free(container: Container) -> Generator[int, None, None]:
    """Empty a container and all in it, one slice with each `next`."""
    not_empty = [container]
    room = _SLICE
    while not_empty:
        container = not_empty[-1]
        size = min(room, len(container))
        if isinstance(container, list):
            values = container[-size:]
            del container[-size:]
        else:
            values = [container.popitem()[1] for _ in range(size)]
        if not container:
            not_empty.pop()
        not_empty += [value for value in values if isinstance(value, (list, dict)) and value]
        room -= size
        if not room:
            room = _SLICE
            # What is freed here would otherwise stay until the next slice.
            values.clear()
            yield 0


def _key(text: str, position: int, check_string: Callable[[str], object]) -> tuple[str, int]:
    """Read the key at a position; return it with the position after it."""
    if not text.startswith('"', position):
        raise JSONDecodeError("Expecting property name enclosed in double quotes", text, position)
    return _string(text, position, check_string)


def _skip_colon(text: str, position: int) -> int:
    """Return the position of the value of a key that ends at a position."""
    position = _skip_space(text, position)
    if not text.startswith(":", position):
        raise JSONDecodeError("Expecting ':' delimiter", text, position)
    return _skip_space(text, position + 1)


def _string(text: str, position: int, check_string: Callable[[str], object]) -> tuple[str, int]:
    string, position = cast("tuple[str, int]", scanstring(text, position + 1, True))
    if not string.isascii():
        check_string(string)
    return string, position


def _is_long_string(text: str, position: int) -> bool:
    """Whether a string begins at a position that does not end within a slice."""
    if len(text) - position <= _SLICE_SIZE or not text.startswith('"', position):
        return False
    limit = position + _SLICE_SIZE
    quote = text.find('"', position + 1, limit)
    if quote > 0 and text[quote - 1] != "\\":
        return False
    return quote < 0 or _SHORT_STRING.match(text, position, limit) is None


def _long_string(text: str, start: int, check_string: Callable[[str], object]) -> Generator[int, None, tuple[str, int]]:
    """Read the string at a position, a slice with each `next`; return it with the position after it."""
    position = start + 1
    # Used from the first escape on: a string without one is a part of the text.
    string: str | None = None
    while True:
        end = _without_cut_escape(text, position, position + _SLICE_SIZE)
        quote = '"' if end < len(text) else ""
        try:
            piece, size = cast("tuple[str, int]", scanstring(text[position:end] + quote, 0, True))
        except JSONDecodeError as error:
            message, at = error.msg, start if error.pos < 0 else position + error.pos
        else:
            if not piece.isascii():
                check_string(piece)
            is_last = size <= end - position
            if string is None and len(piece) < size - 1:
                string = text[start + 1 : position]
            if string is not None:
                # CPython extends the string in place: no step has to copy all of it.
                string += piece
            if is_last:
                position += size
                return text[start + 1 : position - 1] if string is None else string, position
            position = end
            yield 0
            continue
        # Raised outside the handler: the caught error would become its context.
        raise JSONDecodeError(message, text, at)


def _without_cut_escape(text: str, start: int, end: int) -> int:
    """Return the position, at most `end`, up to which a string that is continued at `start` can be read on its own."""
    if end >= len(text):
        return len(text)
    # Twice: the second escape of a surrogate pair may be cut.
    for _ in range(2):
        cut = _CUT_ESCAPE.search(text, end - 6, end)
        if cut is None:
            break
        up_to = text[start : cut.start() + 1]
        # The last of an even number of backslashes begins no escape.
        if (len(up_to) - len(up_to.rstrip("\\"))) % 2 == 0:
            break
        end = cut.start()
    return end


def _opened(text: str, position: int) -> Container | None:
    """Return an empty container if one begins at a position."""
    symbol = text[position : position + 1]
    return [] if symbol == "[" else {} if symbol == "{" else None


def _is_closed(text: str, position: int, container: Container) -> bool:
    return text.startswith("]" if isinstance(container, list) else "}", position)


def _after_value(text: str, position: int, container: Container, around: list[Container]) -> tuple[Container, int]:
    """Read what follows a value: the ends of the containers that end there, and a comma.

    Args:
        text: The text.
        position: The position after the value.
        container: The value's container.
        around: The containers around that one; those that are continued stay in it.

    Returns:
        The container that is continued, and the position of its next value or key. The end of the text, for the outermost container.
    """
    position = _skip_space(text, position)
    while around and _is_closed(text, position, container):
        container = around.pop()
        position = _skip_space(text, position + 1)
    if not around:
        return container, position
    if not text.startswith(",", position):
        raise JSONDecodeError("Expecting ',' delimiter", text, position)
    return container, _skip_space(text, position + 1)


def _skip_space(text: str, position: int) -> int:
    """Return the position of the next character that is not white space, or of the end."""
    if text[position : position + 1] not in " \t\n\r":  # also true of the end
        return position
    found = _NOT_SPACE.search(text, position, position + _MAX_SPACE + 1)
    if found is not None:
        return found.start()
    if len(text) - position > _MAX_SPACE:
        raise Refused(f"more than {_MAX_SPACE:,} characters of white space")
    return len(text)
