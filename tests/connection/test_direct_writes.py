"""Single frames are written in the sender's step over plain TCP, and many frames are written together."""

from __future__ import annotations

import json
import ssl
from collections import Counter
from contextlib import suppress

import pytest
import trio
import trio.testing
import trustme

from galaxy_trio import Connection, DeviceInfo, RequestRejected, open_connection
from galaxy_trio._transport.direct_socket import DirectSocketStream
from galaxy_trio.agent import open_device_connection
from galaxy_trio.server import Server, open_server
from tests.connection.support.raw_peer import open_raw_peer
from tests.server.support.raw_client import open_raw_client

_INFO = DeviceInfo("device_001", "linux", hostname="here")


@pytest.fixture
def written(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """Count the writes to sockets by their kind."""
    counter: Counter[str] = Counter()
    send_nowait, send_all = DirectSocketStream.send_nowait, DirectSocketStream.send_all

    def directly(self: DirectSocketStream, data: bytes | bytearray) -> int:
        counter["directly"] += 1
        return send_nowait(self, data)

    async def by_the_writer(self: DirectSocketStream, data: bytes | bytearray | memoryview) -> None:
        counter["by the writer"] += 1
        await send_all(self, data)

    monkeypatch.setattr(DirectSocketStream, "send_nowait", directly)
    monkeypatch.setattr(DirectSocketStream, "send_all", by_the_writer)
    return counter


async def _ask(connection: Connection, times: int) -> None:
    async with trio.open_nursery() as nursery:
        for _ in range(times):
            nursery.start_soon(connection.device_info)


async def test_single_requests_are_written_directly_and_many_together(written: Counter[str]) -> None:
    async with (
        open_server() as server,
        open_device_connection(server.url, "device_001", system_info=_INFO),
        open_connection(server.url, "device_001") as connection,
    ):
        written.clear()
        for _ in range(10):
            assert (await connection.device_info()).hostname == "here"
        assert written == {"directly": 20}
        written.clear()
        await _ask(connection, 500)
        # The client's first frames are written directly, and the rest and the replies in few writes.
        assert written["directly"] <= 30
        assert written["by the writer"] <= 30


async def test_a_server_answers_requests_that_arrived_together_in_one_write(written: Counter[str]) -> None:
    async with open_server() as server:
        port = int(server.url.rsplit(":", 1)[1].split("/")[0])
        async with open_raw_client(await trio.open_tcp_stream("127.0.0.1", port)) as client:
            client.send(type="register", status="ok", client_type="device", client_id="d")
            await client.receive()
            written.clear()
            for _ in range(20):
                client.send(type="heartbeat", status="ok", client_type="device", client_id="d")
            for _ in range(20):
                await client.receive()
            assert written == {"by the writer": 1}


async def _use(server: Server, context: ssl.SSLContext | None, streams: list[trio.SocketStream | None]) -> None:
    async with (
        open_device_connection(server.url, "device_001", system_info=_INFO, ssl_context=context, stream=streams[0]),
        open_connection(server.url, "device_001", ssl_context=context, stream=streams[1]) as connection,
    ):
        await _ask(connection, 3)
        assert (await connection.run_task("x")).status == "completed"


async def test_over_tls_nothing_is_written_directly(written: Counter[str]) -> None:
    authority, server_context = trustme.CA(), ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    with authority.issue_cert("127.0.0.1").private_key_and_cert_chain_pem.tempfile() as path:
        server_context.load_cert_chain(path)
    context = ssl.create_default_context()
    context.load_verify_locations(cadata=authority.cert_pem.bytes().decode())
    async with open_server(ssl_context=server_context) as server:
        await _use(server, context, [None, None])
    assert not written


async def test_a_given_stream_is_not_written_directly(written: Counter[str]) -> None:
    [listener] = await trio.open_tcp_listeners(0, host="127.0.0.1")
    async with open_server() as server, trio.open_nursery() as nursery:
        nursery.start_soon(trio.serve_listeners, server.serve_stream, [listener])
        port = listener.socket.getsockname()[1]
        await _use(server, None, [await trio.open_tcp_stream("127.0.0.1", port) for _ in range(2)])
        nursery.cancel_scope.cancel()
    assert not written


async def test_whole_frames_follow_a_partly_written_one_after_cancelled_requests_and_a_pong(
    written: Counter[str],
) -> None:
    with trio.fail_after(60):
        async with open_raw_peer(20_000) as peer, open_connection(peer.url, "device_001") as connection:
            await peer.connected.wait()
            sent: list[str] = []
            is_full = False
            while not is_full:
                # One more request than the partly written one.
                is_full = connection.statistics().bytes_held > 0
                sent.append(f"{len(sent)}".ljust(60_000))
                with trio.CancelScope() as scope:
                    async with trio.open_nursery() as nursery:
                        nursery.start_soon(_run_refused_task, connection, sent[-1])
                        await trio.testing.wait_all_tasks_blocked(0.01)
                        scope.cancel()
                # Errors answer the oldest requests, so that few are unanswered.
                await peer.reply(type="error", status="error", error="no")
            assert written["directly"] >= len(sent) - 2
            await peer.ping()
            await peer.read_until(1 + len(sent))
            while not peer.pongs:
                await peer.read_some()
            assert [json.loads(text)["request"] for text in peer.texts[1:]] == sent
            assert peer.closed_with is None
            await peer.hang_up()


async def _run_refused_task(connection: Connection, request: str) -> None:
    with suppress(RequestRejected):
        await connection.run_task(request)
