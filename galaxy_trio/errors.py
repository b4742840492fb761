"""Every exception of the package.

Each message is one sentence that says what happened to which device. If another library's error caused it, that one is its ``__cause__``.
No exception ever contains a token.
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
    """An argument or a file cannot be used: a bad URL, header, limit or file. Trying again does not help.

    Attributes:
        problems: All problems in a file, each with its place; empty if the message says everything.
    """

    def __init__(self, message: str, *, problems: Iterable[str] = ()) -> None:
        super().__init__(message)
        self.problems: tuple[str, ...] = tuple(problems)


class ConnectFailed(GalaxyError):
    """Connecting failed: network, DNS, TLS, or the peer ended the connection before it confirmed the registration.

    Attributes:
        proxy: The HTTP proxy that failed or refused, as its URL without credentials; None if it was not the proxy.
    """

    def __init__(self, message: str, *, proxy: str | None = None) -> None:
        super().__init__(message)
        self.proxy = proxy


class ConnectTimeout(ConnectFailed, trio.TooSlowError):
    """Connecting or registering took longer than allowed."""


class HandshakeRejected(ConnectFailed):
    """The server answered the WebSocket handshake with an HTTP status other than 101.

    Attributes:
        status_code: The HTTP status; 403 for a wrong or missing token.
        retry_after: Seconds after which a busy server (429 or 503) asks to try again; None if it does not say.
    """

    def __init__(self, message: str, *, status_code: int = 0, retry_after: float | None = None) -> None:
        super().__init__(message)
        self.status_code = status_code
        self.retry_after = retry_after


class RegistrationRejected(ConnectFailed):
    """The server refused the registration.

    Attributes:
        words: The server's reason, in its words.
    """

    def __init__(self, message: str, *, words: str = "") -> None:
        super().__init__(message)
        self.words = words


class ConnectionLost(GalaxyError, trio.BrokenResourceError):
    """The connection ended before the request did. It is unknown whether the server carried out the request.

    Attributes:
        reason: The reason of its end, in words.
        code: The WebSocket close code; 1006 when the peer sent no close frame, 1005 when its close frame had no code.
    """

    def __init__(self, message: str, *, reason: str = "", code: int = 1006) -> None:
        super().__init__(message)
        self.reason = reason
        self.code = code


class RequestRejected(GalaxyError):
    """The server refused a request and did not carry it out.

    Attributes:
        words: The server's reason, in its words.
    """

    def __init__(self, message: str, *, words: str = "") -> None:
        super().__init__(message)
        self.words = words


class RequestTimeout(GalaxyError, trio.TooSlowError):
    """No reply arrived in time."""


class TaskFailed(GalaxyError):
    """A task failed.

    Raised by :meth:`TaskResult.unwrap`. If a server's session function raises it, the session ends as ``failed`` with `result`.

    Attributes:
        result: The value that the session returned despite the failure: any JSON, often None.
    """

    def __init__(self, message: str, *, result: object = None) -> None:
        super().__init__(message)
        self.result = result


class InvalidMessage(GalaxyError):
    """A message violates the protocol. The error contains at most 200 characters of it.

    Attributes:
        type: The message's ``type``, if it is readable.
        response_id: The id of the request that the message answers, if it is readable: a server's ``response_id``, a client's
            ``prev_response_id``.
        session_id: The message's ``session_id``, if it is readable.
    """

    def __init__(
        self, message: str, *, type: str | None = None, response_id: str | None = None, session_id: str | None = None
    ) -> None:
        super().__init__(message)
        self.type = type
        self.response_id = response_id
        self.session_id = session_id


class MessageTooLarge(GalaxyError):
    """A message is larger than the connection's limit. No part of it was sent."""


class QueueFull(GalaxyError):
    """A queue or table is at its limit. Nothing was sent."""


class NoSuchDevice(GalaxyError):
    """No device has the given name, or no device can meet the requirements."""


class ToolError(GalaxyError):
    """A tool cannot do what a command asks. A tool raises it, and its text is sent to the peer unchanged, as one line.

    Any other exception of a tool fails its command too, and is logged with its traceback as a bug of the device.
    """


def fresh(error: GalaxyError) -> GalaxyError:
    """Copy an error for another caller: a raised exception refers to the frames that it passed through."""
    another = copy.copy(error)
    another.__cause__ = error.__cause__
    return another


class GraphError(GalaxyError, ValueError):
    """A task graph, or a change of one, is invalid. Nothing was changed."""


class GraphFileError(GraphError):
    """A file or another document of a graph cannot be read or written.

    Attributes:
        problems: All problems of the document, each with its path in it; empty if the message says everything.
    """

    def __init__(self, message: str, *, problems: Iterable[str] = ()) -> None:
        super().__init__(message)
        self.problems: tuple[str, ...] = tuple(problems)


class CycleError(GraphError):
    """The edges of a graph form a cycle.

    Attributes:
        nodes: The ids of the cycle's nodes, in its order.
    """

    def __init__(self, message: str, *, nodes: Iterable[str] = ()) -> None:
        super().__init__(message)
        self.nodes: tuple[str, ...] = tuple(nodes)


class NoSuchNode(GraphError):
    """A graph has no node with the given id."""


class NotEditable(GraphError):
    """A node cannot be changed in its state.

    Attributes:
        state: The node's state.
    """

    def __init__(self, message: str, *, state: str) -> None:
        super().__init__(message)
        self.state = state


class GraphTooLarge(GraphError):
    """A graph, or a part of it, is above a limit."""


class GraphFailed(GalaxyError):
    """A graph did not complete. Raised by :meth:`GraphResult.unwrap`.

    Attributes:
        result: The graph's `GraphResult`.
    """

    def __init__(self, message: str, *, result: object = None) -> None:
        super().__init__(message)
        self.result = result


class PlannerFailed(GalaxyError):
    """A graph's planner took too long, or its edits were refused. The graph has continued without its edit."""


class VersionConflict(GraphError):
    """A graph was edited in the meantime. Nothing was changed.

    Attributes:
        version: The graph's current version.
    """

    def __init__(self, message: str, *, version: int) -> None:
        super().__init__(message)
        self.version = version
