"""A connection shows its token in no exception, log record, repr, event or statistic."""

from __future__ import annotations

import logging
from contextlib import ExitStack
from urllib.parse import quote

import pytest
import trio
import trio.testing

from galaxy_trio import ConnectionLost, ConnectionOptions, RequestTimeout, open_connection
from galaxy_trio._transport.url import parse_url
from galaxy_trio.agent import open_device_connection
from galaxy_trio.events import LateReplyReceived
from galaxy_trio.server import open_server
from galaxy_trio.testing import PEER_URL, MemoryServer, ScriptedPeer, open_bare_peer, open_memory_server
from tests.connection.support.leaks import INFO, TOKENS, assert_not_shown, confirm

pytestmark = pytest.mark.usefixtures("every_log_line")


async def test_the_check_finds_a_token_anywhere(token: str, caplog: pytest.LogCaptureFixture) -> None:
    inner = ValueError("a URL", quote(token, safe="").encode())
    outer = RuntimeError("fine")
    outer.__context__ = inner
    outer.__suppress_context__ = True
    for thing in (
        inner,
        outer,
        ExceptionGroup("fine", [outer]),
        [token],
        {"url": f"/ws?token={quote(token, safe='')}"},
    ):
        with pytest.raises(AssertionError):
            assert_not_shown(token, caplog, thing)
    assert_not_shown(token, caplog, ValueError("fine"))
    logging.getLogger("some.library").debug("%r", token)
    with pytest.raises(AssertionError):
        assert_not_shown(token, caplog)


async def _use_connection(url: str, server: MemoryServer | None, token: str | None, session: str) -> list[object]:
    """Use every feature of a connection, and return all objects that it shows."""
    shown: list[object] = []

    def stream() -> trio.abc.Stream | None:
        return None if server is None else server.connect()

    with ExitStack() as subscription:
        async with (
            open_device_connection(url, "device_001", system_info=INFO, token=token, stream=stream()) as device,
            open_connection(url, "device_001", token=token, stream=stream()) as connection,
        ):
            events = subscription.enter_context(connection.subscribe())
            shown += [await connection.device_info(), await connection.run_task("do it", task_id=session)]
            with pytest.raises(RequestTimeout) as caught:
                await connection.run_task("abandoned", timeout=0)
            shown += [caught.value, device, connection, connection.statistics()]
            # The late reply to the abandoned task is an event.
            published = [await anext(events)]
            while not isinstance(published[-1], LateReplyReceived):
                published.append(await anext(events))
        published += [event async for event in events]
        shown += [device.recent_messages, *published]
    return [*shown, connection, await connection.wait_closed()]


async def test_a_successful_connection_shows_no_token(token: str, caplog: pytest.LogCaptureFixture) -> None:
    with trio.fail_after(60):
        async with open_server(token=token) as server:
            shown = await _use_connection(server.url, None, token, "t1")
            shown += [server, server.url, server.statistics()]
        async with open_memory_server(token=token) as memory_server:
            shown += [*await _use_connection(memory_server.url, memory_server, token, "t2"), memory_server]
    # The records come from the loggers that could contain the token.
    logged = {record.name for record in caplog.records}
    assert {"galaxy_trio._connection.link", "galaxy_trio.server.server", "trio-websocket"} <= logged
    assert_not_shown(token, caplog, *shown)


async def test_a_token_in_the_url_is_not_shown(token: str, caplog: pytest.LogCaptureFixture) -> None:
    with trio.fail_after(60):
        async with open_server(token=token) as server:
            url = f"{server.url}?token={quote(token, safe='')}"
            shown = await _use_connection(url, None, None, "t1")
    assert all(not isinstance(thing, Exception) or isinstance(thing, RequestTimeout) for thing in shown)
    assert_not_shown(token, caplog, *shown, parse_url(url))


async def test_a_target_shows_no_token(token: str, caplog: pytest.LogCaptureFixture) -> None:
    assert_not_shown(token, caplog, parse_url(PEER_URL, token), parse_url(PEER_URL, token).shown)


async def test_a_lost_connection_shows_no_token(
    token: str, caplog: pytest.LogCaptureFixture, autojump_clock: trio.testing.MockClock
) -> None:
    shown: list[object] = []
    for lose in (_reset, _end, _go_silent, _send_garbage, _close):
        async with open_bare_peer() as peer, trio.open_nursery() as nursery:
            nursery.start_soon(confirm, peer)
            async with open_connection(
                PEER_URL,
                "device_001",
                token=token,
                stream=peer.stream,
                options=ConnectionOptions(heartbeat_interval=1000, liveness_timeout=50),
            ) as connection:
                assert quote(token, safe="") in peer.path
                with connection.subscribe() as events:
                    nursery.start_soon(lose, peer)
                    with pytest.raises(ConnectionLost) as caught:
                        await connection.run_task("do it")
                    shown += [caught.value, connection, await connection.wait_closed()]
                    shown += [event async for event in events]
            # Do not wait for a silent peer.
            nursery.cancel_scope.cancel()
    assert_not_shown(token, caplog, *shown)


async def test_an_exception_of_the_block_shows_no_token(token: str, caplog: pytest.LogCaptureFixture) -> None:
    class Bug(Exception):
        pass

    async with open_bare_peer() as peer, trio.open_nursery() as nursery:
        nursery.start_soon(confirm, peer)
        with pytest.raises(Bug) as caught:
            async with open_connection(PEER_URL, "device_001", token=token, stream=peer.stream):
                raise Bug
    assert_not_shown(token, caplog, caught.value)


async def _reset(peer: ScriptedPeer) -> None:
    await peer.receive()
    peer.reset()


async def _end(peer: ScriptedPeer) -> None:
    await peer.abort()


async def _go_silent(peer: ScriptedPeer) -> None:
    await peer.receive()
    peer.go_silent()


async def _send_garbage(peer: ScriptedPeer) -> None:
    await peer.receive()
    await peer.send_raw(b"\xff\xff\xff\xff")


async def _close(peer: ScriptedPeer) -> None:
    await peer.close(1011, "because")


async def test_a_token_in_a_header_is_not_shown(caplog: pytest.LogCaptureFixture) -> None:
    async with open_bare_peer() as peer, trio.open_nursery() as nursery:
        nursery.start_soon(confirm, peer)
        headers = [("Authorization", f"Bearer {TOKENS[0]}")]
        async with open_connection(PEER_URL, "device_001", headers=headers, stream=peer.stream) as connection:
            assert (b"authorization", f"Bearer {TOKENS[0]}".encode()) in peer.headers
    assert_not_shown(TOKENS[0], caplog, connection)
