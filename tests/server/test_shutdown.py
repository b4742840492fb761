"""The end of a server: sessions are cancelled, clients notified, connections closed."""

from __future__ import annotations

from typing import TypeAlias

import pytest
import trio
import trio.testing

from galaxy_trio.server import ServerStatistics, ServerTask, open_server
from galaxy_trio.testing import FaultyStream, open_memory_server
from tests.server.support.raw_client import Members, RawClient, open_raw_client
from tests.server.support.recorded_cast import (
    RecordingSessions,
    constellation_registration,
    device_can_register,
    device_registration,
    register,
    sleep_forever,
    submit,
)

Ending: TypeAlias = tuple[list[Members], int]


async def stay_until_closed(
    stream: trio.abc.Stream, registration: str, endings: list[Ending], task_status: trio.TaskStatus[RawClient]
) -> None:
    """Run a client until the server ends the connection."""
    async with open_raw_client(stream) as client:
        await register(client, registration)
        task_status.started(client)
        endings.append(await client.receive_until_ended())


async def test_leaving_the_block_cancels_sessions_and_closes_notified_clients_with_1001() -> None:
    sessions = RecordingSessions()
    endings: list[Ending] = []
    async with trio.open_nursery() as nursery:
        async with open_memory_server(session=sessions.run) as server:
            await nursery.start(stay_until_closed, server.connect(), device_registration(), endings)
            client: RawClient = await nursery.start(
                stay_until_closed, server.connect(), constellation_registration(), endings
            )
            submit(client, "s1")
            await trio.testing.wait_all_tasks_blocked()
            assert server.statistics() == ServerStatistics(2, 1, 1, 1)
        assert server.statistics() == ServerStatistics(0, 0, 0, 0)
        assert sessions.cancelled == ["s1"]
    assert [code for _, code in endings] == [1001, 1001]
    words = "Task was cancelled because the server is shutting down"
    ends = [messages[-1] for messages, _ in endings]
    assert [(end["type"], end["status"], end["error"]) for end in ends] == [("task_end", "failed", words)] * 2
    assert sorted(len(messages) for messages, _ in endings) == [1, 2]


async def test_leaving_the_block_closes_unregistered_clients_with_1001() -> None:
    endings: list[Ending] = []

    async def stay(stream: trio.abc.Stream, task_status: trio.TaskStatus[None]) -> None:
        async with open_raw_client(stream) as client:
            task_status.started()
            endings.append(await client.receive_until_ended())

    async with trio.open_nursery() as nursery:
        async with open_memory_server() as server:
            await nursery.start(stay, server.connect())
            await trio.testing.wait_all_tasks_blocked()
    assert endings == [([], 1001)]


async def test_stop_is_bounded_when_a_session_or_a_client_hangs(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async def session(task: ServerTask) -> None:
        with trio.CancelScope(shield=True):
            await trio.sleep(3.5)

    async with trio.open_nursery() as nursery:
        async with open_memory_server(session=session) as server:
            stream = FaultyStream(server.connect())
            client: RawClient = await nursery.start(stay_until_closed, stream, device_registration(), list[Ending]())
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

    endings: list[Ending] = []
    async with trio.open_nursery() as nursery:
        async with open_memory_server(session=session) as server:
            await nursery.start(stay_until_closed, server.connect(), device_registration(), endings)
            client: RawClient = await nursery.start(
                stay_until_closed, server.connect(), constellation_registration(), list[Ending]()
            )
            submit(client, "s1")
            await trio.testing.wait_all_tasks_blocked()
            await client.abort()
            await trio.testing.wait_all_tasks_blocked()
            assert server.statistics() == ServerStatistics(1, 1, 0, 0, ending_sessions=1)
    [([end], code)] = endings
    assert (end["error"], code) == ("Task was cancelled because its constellation disconnected", 1001)


async def test_task_submitted_at_any_step_of_the_stop_does_not_prevent_close_handshakes() -> None:
    for steps in range(30):
        endings: list[Ending] = []
        async with trio.open_nursery() as nursery:
            async with open_memory_server(session=sleep_forever) as server:
                await nursery.start(stay_until_closed, server.connect(), device_registration(), endings)
                client: RawClient = await nursery.start(
                    stay_until_closed, server.connect(), constellation_registration(), endings
                )
                submit(client, "s1")
                for _ in range(steps):
                    await trio.lowlevel.checkpoint()
        assert [code for _, code in endings] == [1001, 1001]


async def test_leaving_the_block_closes_sockets_with_1001() -> None:
    endings: list[Ending] = []
    async with trio.open_nursery() as nursery:
        async with open_server() as server:
            port = int(server.url.removeprefix("ws://127.0.0.1:").removesuffix("/ws"))
            stream = await trio.open_tcp_stream("127.0.0.1", port)
            await nursery.start(stay_until_closed, stream, device_registration(), endings)
    assert endings == [([], 1001)]


async def test_new_connections_are_refused_during_the_stop(autojump_clock: trio.testing.MockClock) -> None:
    turned_away: list[bytes | bytearray] = []

    async def session(task: ServerTask) -> None:
        try:
            await trio.sleep_forever()
        finally:
            with trio.CancelScope(shield=True), trio.fail_after(1):
                turned_away.append(await server.connect().receive_some())

    async with trio.open_nursery() as nursery:
        async with open_memory_server(session=session) as server:
            client: RawClient = await nursery.start(
                stay_until_closed, server.connect(), device_registration(), list[Ending]()
            )
            client.send(type="task", status="continue", session_id="s1")
            await trio.testing.wait_all_tasks_blocked()
    assert turned_away == [b""]


async def test_cancelling_the_block_closes_all_immediately_and_cancels_sessions() -> None:
    sessions = RecordingSessions()
    endings: list[Ending] = []
    async with trio.open_nursery() as nursery:
        with trio.CancelScope() as scope:
            async with open_memory_server(session=sessions.run) as server:
                client: RawClient = await nursery.start(
                    stay_until_closed, server.connect(), device_registration(), endings
                )
                client.send(type="task", status="continue", session_id="s1")
                await trio.testing.wait_all_tasks_blocked()
                scope.cancel()
                await trio.sleep_forever()
        assert scope.cancelled_caught
        assert server.statistics() == ServerStatistics(0, 0, 0, 0)
        assert sessions.cancelled == ["s1"]
    [(messages, code)] = endings
    assert code == 1006
    assert [message["type"] for message in messages] == ["heartbeat"]


async def test_exception_of_the_block_comes_out_unchanged_over_a_socket() -> None:
    error = ValueError("mine")
    with pytest.raises(ValueError, match="mine") as caught:
        async with open_server() as server:
            assert await device_can_register(server, token=None)
            raise error
    assert caught.value is error
