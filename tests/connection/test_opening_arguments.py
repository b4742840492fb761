"""Unusable arguments are refused before anything is opened."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from typing import TypeAlias

import pytest
import trio
import trio.testing

from galaxy_trio import ConfigError, GalaxyError, open_connection
from galaxy_trio.agent import open_device_connection
from galaxy_trio.testing import FaultyStream
from tests.connection.support.opening import INFO


class NoSockets(trio.abc.SocketFactory):
    """A socket factory that must not be used."""

    def socket(self, family: int = 0, type: int = 0, proto: int = 0) -> trio.socket.SocketType:
        del family, type, proto
        raise AssertionError("a socket was opened")


Opening: TypeAlias = Callable[[trio.abc.Stream | None], AbstractAsyncContextManager[object]]


def _connect_to(url: str) -> Opening:
    return lambda stream: open_connection(url, "device_001", stream=stream)


def _connect_with(header: tuple[str, str]) -> Opening:
    return lambda stream: open_connection("ws://127.0.0.1:9/", "device_001", stream=stream, headers=[header])


_URL = "ws://127.0.0.1:9/ws"
_UNUSABLE: list[tuple[Opening, str]] = [
    (_connect_to("http://127.0.0.1:9/ws"), "begins with ws:// or wss://"),
    (_connect_to("127.0.0.1:9"), "begins with ws:// or wss://"),
    (_connect_to(""), "begins with ws:// or wss://"),
    (_connect_to("ws:///ws"), "names no host"),
    (_connect_to("ws://127.0.0.1:99999/ws"), "use a number from 1 to 65535"),
    (_connect_to("ws://127.0.0.1:0/ws"), "port"),
    (_connect_to("ws://user:password@127.0.0.1:9/ws"), "no user and password"),
    (_connect_to("ws://127.0.0.1:9/ws#there"), "no fragment"),
    (_connect_to("ws://[::1/ws"), "cannot be read"),
    (_connect_to("ws://..:9/ws"), "is not a valid host name"),
    (lambda s: open_connection(_URL, "d", stream=s, max_pending=0), "max_pending must be above 0"),
    (lambda s: open_connection(_URL, "d", stream=s, client_name="x" * 65), "client_name has 1 to 64 characters"),
    (lambda s: open_connection(_URL, "d", stream=s, client_name=""), "client_name has 1 to 64 characters"),
    (_connect_with(("X-Note", "one\r\nX-Other: two")), "the value of the header 'X-Note'"),
    (_connect_with(("X-Note", "one\nX-Other: two")), "the value of the header 'X-Note'"),
    (_connect_with(("X-Note", "nul\0")), "the value of the header 'X-Note'"),
    (_connect_with(("X-Note\r\nX-Other", "one")), "has a name that HTTP does not allow"),
    (_connect_with(("Host", "elsewhere")), "belongs to the handshake"),
    (lambda s: open_device_connection("http://h/", "d", system_info=INFO, stream=s), "begins with ws://"),
]


@pytest.mark.parametrize(("opening", "why"), _UNUSABLE)
async def test_unusable_arguments_are_refused_before_anything_is_opened(opening: Opening, why: str) -> None:
    trio.socket.set_custom_socket_factory(NoSockets())
    with pytest.raises(ConfigError, match=why) as caught:
        async with opening(None):
            raise AssertionError("not reached")
    assert isinstance(caught.value, ValueError)
    assert isinstance(caught.value, GalaxyError)
    # A given stream is closed, and nothing was sent on it.
    client_end, server_end = trio.testing.memory_stream_pair()
    stream = FaultyStream(client_end)
    with pytest.raises(ConfigError, match=why):
        async with opening(stream):
            raise AssertionError("not reached")
    assert stream.closed
    assert await server_end.receive_some() == b""
