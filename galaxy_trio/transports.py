"""Which package a WebSocket is made with."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, Protocol, TypeAlias

from galaxy_trio import transport
from galaxy_trio.errors import ConfigError

if TYPE_CHECKING:
    import trio

    from galaxy_trio.websocket import WebSocket

TransportName: TypeAlias = Literal["trio-websocket", "websockets"]
"""The package's name. `websockets` costs less for each message, and takes the extra ``fast``."""


class MakeWebSocket(Protocol):
    """Makes one end of a WebSocket over a stream, not yet open."""

    def __call__(self, stream: trio.abc.Stream, *, peer: str, client: bool, max_message_size: int) -> WebSocket:
        """Make it.

        Args:
            stream: Belongs to the WebSocket from now on.
            peer: Who is at the other end, for error messages.
            client: Whether this is the client's end, which masks its frames.
            max_message_size: Bytes of a message, both ways.
        """
        ...


def find_transport(name: TransportName) -> MakeWebSocket:
    """What makes WebSockets with a package.

    Raises:
        ConfigError: No such package can be used, or it is not installed.
    """
    if name == "trio-websocket":
        return transport.Transport
    if name != "websockets":
        raise ConfigError(f"a transport is 'trio-websocket' or 'websockets', and {name!r} is neither")
    try:
        # It is imported when it is asked for, and not before.
        from galaxy_trio.websockets_transport import WebsocketsTransport  # noqa: PLC0415
    except ImportError as error:
        raise ConfigError("the transport 'websockets' needs an extra: pip install 'galaxy_trio[fast]'") from error
    return WebsocketsTransport
