"""Reads what comes from a daemon's address, where another server may be: bodies and events of limited size, JSON, ids. No I/O."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Final, NoReturn, cast

import attrs

from galaxy_trio._arguments import MAX_MESSAGE_SIZE
from galaxy_trio._codec.sliced_json import TOO_DEEP, is_too_deep
from galaxy_trio.errors import InvalidMessage
from galaxy_trio.graph.files.json_values import MAX_DEPTH
from galaxy_trio.messages import JSON

if TYPE_CHECKING:
    from collections.abc import Iterator

MAX_RESULT: Final = 6 * MAX_MESSAGE_SIZE
"""Bytes of a task's result: in the daemon's JSON, which is ASCII, a byte of a device's message may take six."""
MAX_BODY: Final = 256 * 2**20
"""Bytes of any other answer. The largest is a graph, with 8 MiB of texts, 4 MiB of results and the errors of its nodes."""
MAX_LINE: Final = 2**20
"""Bytes of a line of events. Those of a daemon have a tenth of that."""
_MAX_SHOWN: Final = 300
"""Characters of what cannot be read that an error shows."""
_ID: Final = re.compile(r"[0-9a-f]{32}")
_EVENT_ID: Final = re.compile(r"[0-9]{1,18}")


def is_id(value: object) -> bool:
    """Whether a value can be the id of a task or of a graph. It may stand in a command that is printed, or in a path."""
    return isinstance(value, str) and _ID.fullmatch(value) is not None


def unreadable(shown: str, what: str) -> InvalidMessage:
    """Return the error for what a daemon never sends.

    Args:
        shown: The daemon's address.
        what: What was sent instead. The beginning of a long text is shown.
    """
    return InvalidMessage(f"the daemon at {shown} sent {what if len(what) <= _MAX_SHOWN else f'{what[:_MAX_SHOWN]}…'}")


def parse_json(text: bytes | bytearray) -> JSON:
    """Parse JSON.

    Raises:
        ValueError: It is not JSON in UTF-8, or nested too deep.
    """
    decoded = text.decode()
    try:
        found = cast("JSON", json.loads(decoded, parse_constant=_refuse))
    except RecursionError:
        raise ValueError(TOO_DEEP) from None
    # What may be read where little of the stack is used is printed where there is more.
    if is_too_deep(found, decoded, MAX_DEPTH):
        raise ValueError(TOO_DEEP)
    return found


def _refuse(constant: str) -> NoReturn:
    raise ValueError(f"{constant} is not JSON")


class BodyReader:
    """Collects the body of an answer.

    Args:
        shown: The daemon's address, for the error.
        limit: The largest number of bytes.
    """

    def __init__(self, shown: str, limit: int) -> None:
        self._shown = shown
        self._limit = limit
        self.body = bytearray()

    def feed(self, data: bytes) -> None:
        """Add the next bytes.

        Raises:
            InvalidMessage: There are too many.
        """
        if len(self.body) + len(data) > self._limit:
            raise unreadable(self._shown, f"an answer of more than {self._limit:,} bytes")
        self.body += data


@attrs.frozen
class DaemonEvent:
    """An event of the daemon.

    Attributes:
        kind: What it is about. That of a comment, which the daemon sends so that a silent connection is known to live, is empty.
        data: What it says.
        id: Continues the stream after it; None for `reset` and for comments, which have none.
    """

    kind: str
    data: JSON = None
    id: str | None = None


class EventReader:
    """Reads server-sent events: bytes in, events out.

    Args:
        shown: The daemon's address, for errors.
    """

    def __init__(self, shown: str) -> None:
        self._shown = shown
        self._line = bytearray()
        self._fields: dict[str, bytes] = {}

    def feed(self, data: bytes) -> Iterator[DaemonEvent]:
        """Yield the events that end within the next bytes.

        Raises:
            InvalidMessage: A line is too long, or an event cannot be read.
        """
        *ends, rest = data.split(b"\n")
        for end in ends:
            self._add(end)
            line = bytes(self._line)
            self._line.clear()
            event = self._read(line.removesuffix(b"\r"))
            if event is not None:
                yield event
        self._add(rest)

    def _add(self, part: bytes) -> None:
        if len(self._line) + len(part) > MAX_LINE:
            raise unreadable(self._shown, f"an event of more than {MAX_LINE:,} bytes")
        self._line += part

    def _read(self, line: bytes) -> DaemonEvent | None:
        """Return the event that ends with a line, if one does."""
        if line.startswith(b":"):
            return DaemonEvent("")
        name, _, value = line.partition(b": ")
        if line:
            if name in (b"event", b"data", b"id"):
                self._fields[name.decode()] = value
            return None
        fields, self._fields = self._fields, {}
        if "data" not in fields:
            return None
        event_id = fields["id"].decode("utf-8", "replace") if "id" in fields else None
        # It is sent back in a header.
        if event_id is not None and not _EVENT_ID.fullmatch(event_id):
            raise unreadable(self._shown, "an event whose id is not a number")
        try:
            return DaemonEvent(
                (fields.get("event") or b"message").decode("utf-8", "replace"), parse_json(fields["data"]), event_id
            )
        except ValueError:
            raise unreadable(self._shown, "an event that is not JSON") from None
