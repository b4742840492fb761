"""Servers on which opening a connection fails."""

from __future__ import annotations

import socket
from collections.abc import Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from functools import partial
from typing import TYPE_CHECKING, Literal, TypeAlias
from urllib.parse import urlsplit

import attrs
import pytest
import trio
import trio.testing

from galaxy_trio import ConnectFailed, ConnectionOptions, DeviceInfo, open_connection
from galaxy_trio.testing import PEER_URL, FaultyStream
from tests.connection.support.sockets import open_sockets

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator


Handler: TypeAlias = Callable[[trio.SocketStream], Awaitable[None]]
Answer: TypeAlias = Callable[[bytes], bytes]


async def fail_to_open(
    url: str,
    *,
    token: str | None = None,
    stream: trio.abc.Stream | None = None,
    connect_timeout: float = 600.0,
    register_timeout: float = 600.0,
    within: float = 60.0,
) -> ConnectFailed:
    """Open a connection that must fail, by default long before its timeouts."""
    with trio.fail_after(within), pytest.raises(ConnectFailed) as caught:
        async with open_connection(
            url,
            "device_001",
            token=token,
            stream=stream,
            options=ConnectionOptions(connect_timeout=connect_timeout, register_timeout=register_timeout),
        ):
            raise AssertionError("not reached")
    return caught.value


@attrs.define(eq=False)
class Listener:
    """A raw listener on loopback.

    Attributes:
        url: Its URL.
        accepted: The number of accepted clients.
        gone: The number of clients that have ended their connection.
    """

    url: str
    accepted: int = 0
    gone: int = 0
    _one_gone: trio.Event = attrs.field(factory=trio.Event)

    @property
    def port(self) -> int:
        return urlsplit(self.url).port or 0

    async def serve(self, handler: Handler, stream: trio.SocketStream) -> None:
        self.accepted += 1
        async with stream:
            # A handler that has closed its end cannot read the client's.
            with suppress(trio.BrokenResourceError, trio.ClosedResourceError):
                await handler(stream)
                while await stream.receive_some():
                    pass
        self.gone += 1
        self._one_gone.set()

    async def wait_all_gone(self) -> None:
        with trio.fail_after(60):
            while self.gone < self.accepted:
                self._one_gone = trio.Event()
                await self._one_gone.wait()


@asynccontextmanager
async def listen(handler: Handler) -> AsyncGenerator[Listener]:
    """Pass each client to the handler, then wait for its end. After the block, no client's socket may be open."""
    before = open_sockets()
    [listener] = await trio.open_tcp_listeners(0, host="127.0.0.1")
    listening = Listener(f"ws://127.0.0.1:{listener.socket.getsockname()[1]}/ws")
    async with trio.open_nursery() as nursery:
        await nursery.start(trio.serve_listeners, partial(listening.serve, handler), [listener])
        yield listening
        await listening.wait_all_gone()
        nursery.cancel_scope.cancel()
    assert open_sockets() <= before


class ClientLeft(Exception):
    """The client has ended its connection within its request."""


async def read_head(stream: trio.abc.ReceiveStream) -> bytes:
    head = b""
    while b"\r\n\r\n" not in head:
        data = await stream.receive_some()
        if not data:
            raise ClientLeft("the client left before its request was complete")
        head += data
    return head


Address: TypeAlias = (
    tuple[Literal[socket.AddressFamily.AF_INET], socket.SocketKind, int, str, tuple[str, int]]
    | tuple[
        Literal[socket.AddressFamily.AF_INET6],
        socket.SocketKind,
        int,
        str,
        tuple[str, int, int, int] | tuple[int, bytes],
    ]
)


class Resolver(trio.abc.HostnameResolver):
    """A resolver that returns the same addresses for every name, knows no name, or never answers."""

    def __init__(self, *addresses: str, answers: bool = True, code: int = socket.EAI_NONAME) -> None:
        self._addresses = addresses
        self._code = code
        self._answers = answers

    async def getaddrinfo(
        self,
        host: bytes | None,
        port: bytes | str | int | None,
        family: int = 0,
        type: int = 0,
        proto: int = 0,
        flags: int = 0,
    ) -> list[Address]:
        del host, family, type, proto, flags
        await trio.lowlevel.checkpoint()
        if not self._answers:
            await trio.sleep_forever()
        if not self._addresses:
            raise socket.gaierror(self._code, "Name or service not known")
        assert isinstance(port, int)
        found: list[Address] = []
        for address in self._addresses:
            if ":" in address:
                found.append((socket.AF_INET6, socket.SOCK_STREAM, socket.IPPROTO_TCP, "", (address, port, 0, 0)))
            else:
                found.append((socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP, "", (address, port)))
        return found

    async def getnameinfo(self, sockaddr: tuple[str, int] | tuple[str, int, int, int], flags: int) -> tuple[str, str]:
        raise NotImplementedError


async def fail_on_answer(answer: Answer, *, token: str | None = None, then_close: bool = False) -> ConnectFailed:
    """Open a connection to a server that gives this answer. The client must fail and leave without time passing."""
    client_end, server_end = trio.testing.memory_stream_pair()
    stream = FaultyStream(client_end)

    async def serve() -> None:
        await server_end.send_all(answer(await read_head(server_end)))
        if then_close:
            await server_end.send_eof()
        assert await server_end.receive_some() == b""

    start = trio.current_time()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(serve)
        error = await fail_to_open(PEER_URL, token=token, stream=stream)
        assert stream.closed
    assert trio.current_time() == start
    return error


INFO = DeviceInfo("device_001", "linux")
