"""A server's connections: limits, failures, statistics."""

from __future__ import annotations

import gc
import json
import logging
import math
from typing import TYPE_CHECKING, cast
from urllib.parse import urlsplit

import attrs
import pytest
import trio
import trio.testing

from galaxy_trio import ConfigError, ConnectFailed
from galaxy_trio._transport.inbound_limits import MAX_HEAD
from galaxy_trio._transport.send_buffer import HIGH_WATER_MARK
from galaxy_trio._transport.websocket import TrioWebSocket
from galaxy_trio.server import ServerLimits, ServerStatistics, ServerTask, open_server
from galaxy_trio.server.client_handler import ClientHandler
from galaxy_trio.testing import FaultyStream, open_memory_server
from tests.server.support.clients import (
    CONSTELLATION,
    DEVICE,
    RecordingSessions,
    end_of,
    expect_acknowledgement,
    open_clients,
    register_constellation,
    register_device,
    request_information,
    run_forever,
    start_task,
    submit,
)
from tests.server.support.raw_client import open_raw_client
from tests.support.waiting import SECONDS

if TYPE_CHECKING:
    from galaxy_trio.messages import ClientMessage


@pytest.mark.parametrize("name", [attribute.name for attribute in attrs.fields(ServerLimits)])
@pytest.mark.parametrize("bad", [0, -1, math.nan])
def test_limit_that_is_not_above_0_raises_config_error(name: str, bad: float) -> None:
    with pytest.raises(ConfigError, match=f"{name} must be above 0"):
        ServerLimits(**{name: bad})  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]


async def test_connection_above_the_limit_is_closed_immediately_until_another_ends(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async with open_clients(limits=ServerLimits(max_connections=2)) as clients:
        with pytest.raises(ConnectFailed, match="ended the connection during the handshake"):
            async with open_raw_client(clients.server.connect()):
                raise AssertionError("was let in")
        assert "2 are open" in caplog.text
        await clients.check()
        await clients.constellation.close()
        await trio.testing.wait_all_tasks_blocked()
        async with open_raw_client(clients.server.connect()) as client:
            await register_constellation(client)


HALF_HANDSHAKES = {"nothing": b"", "half a request": b"GET /ws HTTP/1.1\r\nHost: server.test\r\n"}


@pytest.mark.parametrize("sent", HALF_HANDSHAKES.values(), ids=HALF_HANDSHAKES)
async def test_socket_without_a_handshake_is_closed_at_the_handshake_timeout(
    sent: bytes, autojump_clock: trio.testing.MockClock
) -> None:
    async with open_memory_server(limits=ServerLimits(handshake_timeout=7)) as server:
        stream = server.connect()
        await stream.send_all(sent)
        with trio.move_on_after(6.9):
            raise AssertionError(f"there came {await stream.receive_some()!r}")
        assert server.statistics().connections == 1
        with trio.fail_after(5):
            assert await stream.receive_some() == b""
        assert trio.current_time() == pytest.approx(7, abs=0.2)
        await trio.testing.wait_all_tasks_blocked()
        assert server.statistics().connections == 0


@pytest.mark.parametrize(
    "sent",
    [b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", b"GET / HTTP/1.1\r\n\r\n", b"x" * (MAX_HEAD + 1)],
    ids=["TLS", "no WebSocket", "too long a head"],
)
async def test_invalid_handshake_ends_only_its_connection(sent: bytes, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    async with open_clients() as clients:
        stream = clients.server.connect()
        await stream.send_all(sent)
        with trio.fail_after(60):
            while await stream.receive_some():
                pass
        await trio.testing.wait_all_tasks_blocked()
        assert "was rejected: its request is not a WebSocket handshake" in caplog.text
        assert not [record for record in caplog.records if record.levelno > logging.INFO]
        await clients.check()


async def test_rejected_clients_are_logged_once_a_minute_and_counted(
    autojump_clock: trio.testing.MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, logger="galaxy_trio.server")
    async with open_memory_server() as server:
        for pause in (*[0.0] * 20, 61.0):
            await trio.sleep(pause)
            stream = server.connect()
            await stream.send_all(b"GET / HTTP/1.1\r\n\r\n")
            with trio.fail_after(60):
                while await stream.receive_some():
                    pass
            await trio.testing.wait_all_tasks_blocked()
    lines = [record.getMessage() for record in caplog.records]
    assert sum("was rejected" in line for line in lines) == 2
    assert "19 more problems like the last one not logged" in lines


async def test_last_count_of_rejected_clients_is_logged_when_the_server_ends(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, logger="galaxy_trio.server")
    with trio.fail_after(SECONDS):
        async with open_server() as server:
            for _ in range(2):
                async with await trio.open_tcp_stream("127.0.0.1", cast("int", urlsplit(server.url).port)) as stream:
                    await stream.send_all(b"GET / HTTP/1.1\r\n\r\n")
                    while await stream.receive_some():
                        pass
            await trio.testing.wait_all_tasks_blocked(0.1)
    assert "1 more problem like the last one not logged" in caplog.text


async def test_message_above_the_limit_is_closed_with_1009_and_one_at_the_limit_is_answered() -> None:
    async with open_clients(limits=ServerLimits(max_message_size=5000)) as clients:
        heartbeat = json.dumps({"type": "heartbeat", "status": "ok", "client_type": "constellation", "task_name": ""})
        at_limit = heartbeat[:-2] + "x" * (5000 - len(heartbeat)) + heartbeat[-2:]
        clients.constellation.send_text(at_limit)
        assert (await clients.constellation.receive())["type"] == "heartbeat"
        clients.constellation.send_text(at_limit + " ")
        assert await clients.constellation.close_code() == 1009
        clients.device.send(type="heartbeat", status="ok")
        assert (await clients.device.receive())["type"] == "heartbeat"


async def test_silently_lost_client_is_removed_and_one_that_answers_pings_stays(
    autojump_clock: trio.testing.MockClock,
) -> None:
    limits = ServerLimits(liveness_timeout=50, ping_interval=20)
    async with (
        open_memory_server(limits=limits) as server,
        open_raw_client(silent := FaultyStream(server.connect())) as gone,
        open_raw_client(server.connect()) as there,
    ):
        await register_device(gone, "gone")
        await register_device(there, "there")
        silent.go_silent()
        await there.silence(49)
        assert server.devices == ["gone", "there"]
        await there.silence(2)
        assert server.devices == ["there"]
        await there.silence(500)
        assert server.devices == ["there"]
        assert server.statistics().connections == 1


async def test_flooding_client_that_does_not_read_holds_bounded_memory_and_affects_no_other(
    monkeypatch: pytest.MonkeyPatch, autojump_clock: trio.testing.MockClock
) -> None:
    held: list[int] = []
    send_nowait = TrioWebSocket.send_nowait

    def watched(self: TrioWebSocket, text: str, *, gather: bool = False) -> None:
        send_nowait(self, text, gather=gather)
        held.append(self.bytes_held)

    monkeypatch.setattr(TrioWebSocket, "send_nowait", watched)
    client_end, server_end = trio.testing.memory_stream_pair()
    # Stalls the server's writes, because the client does not read.
    not_read = FaultyStream(server_end)
    information = "x" * 60_000
    async with open_clients() as clients, trio.open_nursery() as nursery:
        nursery.start_soon(clients.server.serve_stream, not_read)
        async with open_raw_client(client_end) as flooding, open_raw_client(clients.server.connect()) as large:
            await register_device(large, "large", hostname=information)
            await register_constellation(flooding, "flooding", "large")
            not_read.stall()
            held.clear()
            for _ in range(200):
                request_information(flooding, "q", "large")
            # Drop the sizes of the flooding client's own frames.
            held.clear()
            await trio.testing.wait_all_tasks_blocked()
            assert HIGH_WATER_MARK <= max(held) <= HIGH_WATER_MARK + len(information) + 1000
            await clients.check()
            await start_task(clients.constellation, "s1", "x")
            assert await end_of(clients.constellation, "s1") == ("completed", "x", None)
            assert await end_of(clients.device, "s1") == ("completed", "x", None)
            # When it reads again, it gets all replies.
            not_read.resume()
            for _ in range(200):
                assert (await flooding.receive())["type"] == "device_info_response"


async def test_bug_in_the_server_ends_only_the_connection_that_hit_it(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    received = ClientHandler.received

    def buggy(self: ClientHandler, message: ClientMessage) -> None:
        if message.request == "meet the bug":
            raise ZeroDivisionError("a bug")
        received(self, message)

    monkeypatch.setattr(ClientHandler, "received", buggy)
    sessions = RecordingSessions()
    async with open_clients(sessions.run) as clients, open_raw_client(clients.server.connect()) as unlucky:
        await register_constellation(unlucky, "unlucky")
        submit(unlucky, "s1")
        submit(clients.constellation, "s2")
        await expect_acknowledgement(unlucky, "s1")
        await expect_acknowledgement(clients.constellation, "s2")
        await trio.testing.wait_all_tasks_blocked()
        submit(unlucky, "s3", "meet the bug")
        assert await unlucky.receive_until_ended() == ([], 1006)
        await trio.testing.wait_all_tasks_blocked()
        assert (await end_of(clients.device, "s1"))[0] == "failed"
        assert sessions.cancelled == ["s1"]
        assert attrs.evolve(clients.server.statistics(), memory_held=0) == ServerStatistics(2, 1, 1, 1)
        await clients.check()
    [record] = [record for record in caplog.records if record.levelno >= logging.ERROR]
    assert record.getMessage() == "a bug in the server ended a connection"
    assert record.exc_info is not None
    assert isinstance(record.exc_info[1], ZeroDivisionError)


async def test_reset_connection_affects_no_other_and_logs_no_warning(caplog: pytest.LogCaptureFixture) -> None:
    client_end, server_end = trio.testing.memory_stream_pair()
    faulty = FaultyStream(server_end)
    async with open_clients() as clients, trio.open_nursery() as nursery:
        nursery.start_soon(clients.server.serve_stream, faulty)
        async with open_raw_client(client_end) as client:
            await register_constellation(client, "short-lived")
            faulty.reset()
            await trio.testing.wait_all_tasks_blocked()
            assert clients.server.constellations == [CONSTELLATION]
            await clients.check()
    assert not [record for record in caplog.records if record.levelno > logging.INFO]


def _alive() -> int:
    """Count the live objects that connections and sessions consist of."""
    gc.collect()
    kept = [
        item
        for item in gc.get_objects()
        if isinstance(item, ClientHandler | TrioWebSocket | ServerTask | trio.CancelScope)
    ]
    # trio references scopes with a deadline for a while.
    return sum(not isinstance(item, trio.CancelScope) or item.deadline == math.inf for item in kept)


async def test_ended_connections_and_sessions_leave_nothing(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with open_clients() as clients:

        async def come_and_go(number: int) -> None:
            for name in (f"{number}", f"{number} again"):
                async with open_raw_client(clients.server.connect()) as client:
                    await register_constellation(client, name)
                    await start_task(client, name)
                    assert (await end_of(client, name))[0] == "completed"
                    assert (await end_of(clients.device, name))[0] == "completed"
                    await client.close()
            await trio.testing.wait_all_tasks_blocked()

        await come_and_go(0)
        before = _alive()
        for number in range(1, 6):
            await come_and_go(number)
        assert _alive() == before


async def test_statistics_count_and_clients_are_listed_in_order() -> None:
    async with open_clients(run_forever) as clients, open_raw_client(clients.server.connect()) as other:
        assert attrs.evolve(clients.server.statistics(), memory_held=0) == ServerStatistics(
            connections=3, devices=1, constellations=1, sessions=0
        )
        await register_device(other, "device_000")
        await start_task(clients.constellation, "s1")
        assert attrs.evolve(clients.server.statistics(), memory_held=0) == ServerStatistics(
            connections=3, devices=2, constellations=1, sessions=1
        )
        assert (clients.server.devices, clients.server.constellations) == ([DEVICE, "device_000"], [CONSTELLATION])
        assert repr(clients.server) == "<Server at ws://server.test/ws>"
