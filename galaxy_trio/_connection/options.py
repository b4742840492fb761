"""The timeouts and limits of a connection to a server, for every role that opens one."""

from __future__ import annotations

from typing import Final

import attrs

from galaxy_trio._arguments import MAX_MESSAGE_SIZE, MAX_VALUES, check_positive

HEARTBEAT_INTERVAL: Final = 30.0
"""Seconds between heartbeats by default."""


@attrs.frozen(kw_only=True)
class ConnectionOptions:
    """The timeouts and limits of a connection to a server.

    One object serves `open_connection`, `open_constellation` and `open_agent`. Times are in seconds, and `math.inf` is no limit.

    Args:
        connect_timeout: The longest time for DNS, TCP, TLS and the WebSocket handshake together.
        register_timeout: The longest time until the server confirms the registration.
        heartbeat_interval: The time between heartbeats. None, the default, for 30 s, or what a constellation's file says.
        liveness_timeout: The time without a single byte from the server after which the connection is lost.
        ping_interval: The time between WebSocket pings. None, the default, for no pings: the server answers heartbeats.
        max_message_size: Bytes that a message may have, in both directions.
        max_values: Values and keys that a message from the server may have. A longer list is sent as text, or in parts.

    Raises:
        ConfigError: A value is not a positive number.
    """

    connect_timeout: float = 60.0
    register_timeout: float = 30.0
    heartbeat_interval: float | None = None
    liveness_timeout: float = 180.0
    ping_interval: float | None = None
    max_message_size: int = MAX_MESSAGE_SIZE
    max_values: int = MAX_VALUES

    def __attrs_post_init__(self) -> None:
        check_positive(**attrs.asdict(self))
