"""The end of a server: sessions are cancelled, clients notified, connections closed."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import trio
import trio.testing

from galaxy_trio._transport.send_buffer import HIGH_WATER_MARK
from galaxy_trio.server import ServerStatistics, open_server
from galaxy_trio.testing import FaultyStream, open_memory_server
from tests.server.support.clients import (
    Ends,
    RecordingSessions,
    device_can_register,
    register_constellation,
    register_device,
    run_forever,
    stay_until_closed,
    submit,
)
from tests.server.support.raw_client import RawClient, open_raw_client

if TYPE_CHECKING:
    from galaxy_trio.server import ServerTask


async def test_leaving_the_block_cancels_sessions_and_closes_notified_clients_with_1001() -> None:
    sessions = RecordingSessions()
    ends: Ends = []
    async with trio.open_nursery() as nursery:
        async with open_memory_server(session=sessions.run) as server:
            await nursery.start(stay_until_closed, server.connect(), register_device, ends)
            client: RawClient = await nursery.start(stay_until_closed, server.connect(), register_constellation, ends)
            submit(client, "s1")
            await trio.testing.wait_all_tasks_blocked()
            assert server.statistics() == ServerStatistics(2, 1, 1, 1)
        assert server.statistics() == ServerStatistics(0, 0, 0, 0)
        assert sessions.cancelled == ["s1"]
    assert [code for _, code in ends] == [1001, 1001]
    words = "Task was cancelled because the server is shutting down"
    last = [messages[-1] for messages, _ in ends]
    assert [(end["type"], end["status"], end["error"]) for end in last] == [("task_end", "failed", words)] * 2
    assert sorted(len(messages) for messages, _ in ends) == [1, 2]


async def test_leaving_the_block_closes_unregistered_clients_with_1001() -> None:
    ends: Ends = []

    async def stay(stream: trio.abc.Stream, task_status: trio.TaskStatus[None]) -> None:
        async with open_raw_client(stream) as client:
            task_status.started()
            ends.append(await client.receive_until_ended())

    async with trio.open_nursery() as nursery:
        async with open_memory_server() as server:
            await nursery.start(stay, server.connect())
            await trio.testing.wait_all_tasks_blocked()
    assert ends == [([], 1001)]


async def test_stop_is_bounded_when_a_session_or_a_client_hangs(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async def session(task: ServerTask) -> None:
        with trio.CancelScope(shield=True):
            await trio.sleep(3.5)

    async with trio.open_nursery() as nursery:
        async with open_memory_server(session=session) as server:
            stream = FaultyStream(server.connect())
            client: RawClient = await nursery.start(stay_until_closed, stream, register_device, [])
            client.send(type="task", status="continue", session_id="s1")
            await trio.testing.wait_all_tasks_blocked()
            stream.go_silent()
            start = trio.current_time()
        assert 3 < trio.current_time() - start < 5
        nursery.cancel_scope.cancel()


async def test_first_reason_for_a_sessions_cancellation_is_sent(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async def session(task: ServerTask) -> None:
        try:
            await trio.sleep_forever()
        finally:
            with trio.CancelScope(shield=True):
                await trio.sleep(0.1)

    ends: Ends = []
    async with trio.open_nursery() as nursery:
        async with open_memory_server(session=session) as server:
            await nursery.start(stay_until_closed, server.connect(), register_device, ends)
            client: RawClient = await nursery.start(stay_until_closed, server.connect(), register_constellation, [])
            submit(client, "s1")
            await trio.testing.wait_all_tasks_blocked()
            await client.abort()
            await trio.testing.wait_all_tasks_blocked()
            assert server.statistics() == ServerStatistics(1, 1, 0, 0, ending_sessions=1)
    [([end], code)] = ends
    assert (end["error"], code) == ("Task was cancelled because its constellation disconnected", 1001)


async def test_leaving_the_block_closes_sockets_with_1001() -> None:
    ends: Ends = []
    async with trio.open_nursery() as nursery:
        async with open_server() as server:
            port = int(server.url.removeprefix("ws://127.0.0.1:").removesuffix("/ws"))
            stream = await trio.open_tcp_stream("127.0.0.1", port)
            await nursery.start(stay_until_closed, stream, register_device, ends)
    assert ends == [([], 1001)]


async def test_new_connections_are_closed_during_the_stop_and_do_not_count_as_turned_away(
    autojump_clock: trio.testing.MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    received: list[bytes | bytearray] = []

    async def session(task: ServerTask) -> None:
        try:
            await trio.sleep_forever()
        finally:
            with trio.CancelScope(shield=True), trio.fail_after(1):
                received.append(await server.connect().receive_some())

    async with trio.open_nursery() as nursery:
        async with open_memory_server(session=session) as server:
            client: RawClient = await nursery.start(stay_until_closed, server.connect(), register_device, [])
            client.send(type="task", status="continue", session_id="s1")
            await trio.testing.wait_all_tasks_blocked()
    assert received == [b""]
    assert server.statistics().turned_away == 0
    assert "turned away" not in caplog.text


async def test_cancelling_the_block_closes_all_immediately_and_cancels_sessions() -> None:
    sessions = RecordingSessions()
    ends: Ends = []
    async with trio.open_nursery() as nursery:
        with trio.CancelScope() as scope:
            async with open_memory_server(session=sessions.run) as server:
                client: RawClient = await nursery.start(stay_until_closed, server.connect(), register_device, ends)
                client.send(type="task", status="continue", session_id="s1")
                await trio.testing.wait_all_tasks_blocked()
                scope.cancel()
                await trio.sleep_forever()
        assert scope.cancelled_caught
        assert server.statistics() == ServerStatistics(0, 0, 0, 0)
        assert sessions.cancelled == ["s1"]
    [(messages, code)] = ends
    assert code == 1006
    assert [message["type"] for message in messages] == ["heartbeat"]


async def test_exception_of_the_block_closes_all_immediately_and_comes_out_unchanged() -> None:
    error = ValueError("mine")
    ends: Ends = []
    async with trio.open_nursery() as nursery:
        with pytest.raises(ValueError, match="mine") as caught:
            async with open_memory_server() as server:
                await nursery.start(stay_until_closed, server.connect(), register_device, ends)
                raise error
    assert caught.value is error
    assert ends == [([], 1006)]


async def test_exception_of_the_block_comes_out_unchanged_over_a_socket() -> None:
    error = ValueError("mine")
    with pytest.raises(ValueError, match="mine") as caught:
        async with open_server() as server:
            assert await device_can_register(server, token=None)
            raise error
    assert caught.value is error


async def test_accepted_client_is_notified_at_any_step_of_the_servers_stop(
    autojump_clock: trio.testing.MockClock,
) -> None:
    received: set[tuple[object, ...]] = set()
    for steps in range(40):
        ends: Ends = []
        device_ends: Ends = []
        async with trio.open_nursery() as nursery, open_memory_server(session=run_forever) as server:
            await nursery.start(stay_until_closed, server.connect(), register_device, device_ends)
            client: RawClient = await nursery.start(stay_until_closed, server.connect(), register_constellation, ends)
            submit(client, "s1")
            for _ in range(steps):
                await trio.lowlevel.checkpoint()
            await server.stop()
        [(messages, code)], [(_, device_code)] = ends, device_ends
        assert (code, device_code) == (1001, 1001)
        received.add(tuple(message["type"] for message in messages))
    assert received <= {(), ("error",), ("heartbeat", "task_end")}
    assert ("heartbeat", "task_end") in received


async def test_no_task_is_accepted_while_the_server_stops(autojump_clock: trio.testing.MockClock) -> None:
    async def session(task: ServerTask) -> object:
        try:
            await trio.sleep_forever()
        finally:
            with trio.CancelScope(shield=True):
                await trio.sleep(0.5)

    ends: Ends = []
    async with trio.open_nursery() as nursery:

        async def submit_late(client: RawClient) -> None:
            await trio.sleep(0.2)
            submit(client, "s2")

        async with open_memory_server(session=session) as server:
            await nursery.start(stay_until_closed, server.connect(), register_device, [])
            client: RawClient = await nursery.start(stay_until_closed, server.connect(), register_constellation, ends)
            submit(client, "s1")
            await trio.testing.wait_all_tasks_blocked()
            nursery.start_soon(submit_late, client)
    [(messages, code)] = ends
    assert code == 1001
    assert [message["type"] for message in messages] == ["heartbeat", "task_end", "error"]


async def test_client_that_does_not_read_does_not_prevent_the_others_close_handshakes(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async def session(task: ServerTask) -> object:
        return "x" * HIGH_WATER_MARK

    ends: Ends = []
    async with trio.open_nursery() as nursery:
        client_end, server_end = trio.testing.memory_stream_pair()
        not_read = FaultyStream(server_end)
        async with open_memory_server(session=session) as server:
            nursery.start_soon(server.serve_stream, not_read)
            await nursery.start(stay_until_closed, server.connect(), register_device, ends)
            bad: RawClient = await nursery.start(stay_until_closed, client_end, register_constellation, [])
            not_read.stall()
            for number in range(3):
                submit(bad, f"s{number}")
            await trio.testing.wait_all_tasks_blocked()
    [(_, code)] = ends
    assert code == 1001


async def test_socket_in_its_handshake_does_not_delay_the_stop(autojump_clock: trio.testing.MockClock) -> None:
    async with open_memory_server() as server:
        server.connect()
        await trio.testing.wait_all_tasks_blocked()
        start = trio.current_time()
    assert trio.current_time() - start < 1
