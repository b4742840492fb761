"""The timeouts and limits of a connection to a server, for every role that opens one."""

from __future__ import annotations

from typing import Final, Literal

import attrs

from galaxy_trio._arguments import MAX_MESSAGE_SIZE, MAX_VALUES, MEMORY_BUDGET, check_positive
from galaxy_trio._concurrency.memory_budget import MemoryBudget
from galaxy_trio._transport.proxy import parse_proxy
from galaxy_trio.errors import ConfigError

HEARTBEAT_INTERVAL: Final = 30.0
"""Seconds between heartbeats by default."""


def _proxy_without_credentials(proxy: object) -> str:
    return repr(parse_proxy(proxy).shown if isinstance(proxy, str) else proxy)


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
        memory_budget: Bytes that all connections of a constellation or an agent together, or a single connection, may hold; or a
            `MemoryBudget` that several of them share.
        proxy: The HTTP proxy through which servers are reached: ``http://[USER:PASSWORD@]HOST[:PORT]``, or ``https://…`` for TLS to the
            proxy as well. True for the proxy that the environment names for the server, as the command line and the daemon do:
            ``HTTPS_PROXY`` for ``wss``, ``HTTP_PROXY`` for ``ws``, else ``ALL_PROXY``, and none for hosts in ``NO_PROXY`` and for
            loopback addresses. None, the default, for direct connections. A stream that you open yourself leads to the proxy if this
            is a URL, and to the server otherwise. User and password are never shown.

    Raises:
        ConfigError: A value is not a positive number, or the proxy's URL cannot be used.
    """

    connect_timeout: float = 60.0
    register_timeout: float = 30.0
    heartbeat_interval: float | None = None
    liveness_timeout: float = 180.0
    ping_interval: float | None = None
    max_message_size: int = MAX_MESSAGE_SIZE
    max_values: int = MAX_VALUES
    memory_budget: int | MemoryBudget = MEMORY_BUDGET
    proxy: str | Literal[True] | None = attrs.field(default=None, repr=_proxy_without_credentials)

    def __attrs_post_init__(self) -> None:
        numbers = attrs.asdict(self, filter=lambda field, _: field.name != "proxy")
        check_positive(**{name: value for name, value in numbers.items() if not isinstance(value, MemoryBudget)})
        if isinstance(self.proxy, str):
            parse_proxy(self.proxy)
        elif self.proxy is not None and self.proxy is not True:
            raise ConfigError("proxy must be a URL, True for the proxy of the environment, or None")

    def make_budget(self) -> MemoryBudget:
        """Return the memory budget, a new one if only its size is given."""
        budget = self.memory_budget
        return budget if isinstance(budget, MemoryBudget) else MemoryBudget(budget)
