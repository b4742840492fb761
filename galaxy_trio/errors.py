"""Every exception of the package.

Each is one sentence on what happened to which device; where another library's error lies behind it, that one is its ``__cause__``.
No exception ever holds a token.
"""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING

import trio

if TYPE_CHECKING:
    from collections.abc import Iterable


class GalaxyError(Exception):
    """The base of every error that this package raises."""


class ConfigError(GalaxyError, ValueError):
    """What was asked for cannot be right: a bad URL, header, limit or file. Trying again does not help.

    Attributes:
        problems: All that is wrong with a file, each with its place; empty where there is nothing but the sentence.
    """

    def __init__(self, message: str, *, problems: Iterable[str] = ()) -> None:
        super().__init__(message)
        self.problems: tuple[str, ...] = tuple(problems)


class ConnectFailed(GalaxyError):
    """No connection came about: network, DNS, TLS, or the peer ended it before it had confirmed the registration."""


class ConnectTimeout(ConnectFailed, trio.TooSlowError):
    """Connecting or registering took longer than allowed."""


class HandshakeRejected(ConnectFailed):
    """The server answered the WebSocket handshake with another HTTP status than 101.

    Attributes:
        status_code: The HTTP status; 403 for a wrong or missing token.
    """

    def __init__(self, message: str, *, status_code: int = 0) -> None:
        super().__init__(message)
        self.status_code = status_code


class RegistrationRejected(ConnectFailed):
    """The server refused the registration.

    Attributes:
        words: What the server said.
    """

    def __init__(self, message: str, *, words: str = "") -> None:
        super().__init__(message)
        self.words = words


class ConnectionLost(GalaxyError, trio.BrokenResourceError):
    """The connection ended before the request did. Whether the request was carried out is not known.

    Attributes:
        reason: Why it ended, in words.
        code: The WebSocket close code; 1006 when the peer sent no close frame, 1005 when its close frame had no code.
    """

    def __init__(self, message: str, *, reason: str = "", code: int = 1006) -> None:
        super().__init__(message)
        self.reason = reason
        self.code = code


class RequestRejected(GalaxyError):
    """The server refused a request. It was not carried out.

    Attributes:
        words: What the server said.
    """

    def __init__(self, message: str, *, words: str = "") -> None:
        super().__init__(message)
        self.words = words


class RequestTimeout(GalaxyError, trio.TooSlowError):
    """No reply came in time."""


class TaskFailed(GalaxyError):
    """A task ended, and not well.

    Raised by :meth:`TaskResult.unwrap`; raised inside a server's session function, it ends the session as ``failed`` with `result`.

    Attributes:
        result: What the session gave back all the same: any JSON, often None.
    """

    def __init__(self, message: str, *, result: object = None) -> None:
        super().__init__(message)
        self.result = result


class InvalidMessage(GalaxyError):
    """A message is not what the protocol says. Holds at most 200 characters of it.

    Attributes:
        type: The message's ``type``, where that can still be read.
        response_id: What it answers, likewise: a server's ``response_id``, a client's ``prev_response_id``.
        session_id: Its ``session_id``, likewise.
    """

    def __init__(
        self, message: str, *, type: str | None = None, response_id: str | None = None, session_id: str | None = None
    ) -> None:
        super().__init__(message)
        self.type = type
        self.response_id = response_id
        self.session_id = session_id


class MessageTooLarge(GalaxyError):
    """A message is larger than the connection's limit. Nothing of it was sent."""


class QueueFull(GalaxyError):
    """So much is waiting already that nothing more is taken. Nothing was sent."""


class NoSuchDevice(GalaxyError):
    """No device fits what was asked for, and none that could."""


class ToolError(GalaxyError):
    """A tool of a device cannot do what a command asks. Raised by a tool, its text goes to the peer as it is, in one line.

    Any other exception of a tool fails its command too, and is logged with its traceback: a device's own bug, not the peer's.
    """


def fresh(error: GalaxyError) -> GalaxyError:
    """The same error for another who raises it: an exception keeps the frames that it came through."""
    another = copy.copy(error)
    another.__cause__ = error.__cause__
    return another
