"""A client that registers again while the server holds a half-open connection of it."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest
import trio
import trio.testing

from galaxy_trio.messages import Command, ToolType
from galaxy_trio.server import ServerLimits, ServerTask
from galaxy_trio.testing import FaultyStream, open_memory_server
from tests.server.support.clients import (
    CONSTELLATION,
    DEVICE,
    RecordingSessions,
    answer,
    end_of,
    open_clients,
    register_device,
    start_task,
    submit,
)
from tests.server.support.raw_client import RawClient, answering_pings, open_raw_client

if TYPE_CHECKING:
    from galaxy_trio.testing import MemoryServer

REFUSAL = "client_id {!r} is already registered; duplicate registrations are not allowed"
TARGET = "target"
PONG = b"\x8a\x80mask"
"""A masked pong without a payload."""
ROLES = {DEVICE: "device", CONSTELLATION: "constellation"}
each_role = pytest.mark.parametrize("name", ROLES)


def _send_registration(client: RawClient, name: str, **members: object) -> None:
    information = {"device_id": name, "platform": "linux"}
    client.send(
        **{
            "type": "register",
            "status": "ok",
            "client_type": ROLES.get(name, "device"),
            "client_id": name,
            "target_id": None,
            "metadata": {"system_info": information},
            **members,
        }
    )


async def _register(client: RawClient, name: str) -> None:
    _send_registration(client, name)
    assert (await client.receive())["type"] == "heartbeat"


@each_role
async def test_half_open_connection_is_replaced_after_5_seconds(
    name: str, autojump_clock: trio.testing.MockClock
) -> None:
    async with (
        open_memory_server() as server,
        open_raw_client(server.connect()) as target,
        open_raw_client(silent := FaultyStream(server.connect())) as half_open,
        open_raw_client(server.connect()) as restarted,
    ):
        await register_device(target, TARGET)
        await _register(half_open, name)
        silent.go_silent()
        begun = trio.current_time()
        _send_registration(restarted, name)
        async with answering_pings(target):
            await restarted.silence(4.9)
            assert (await restarted.receive(0.2))["type"] == "heartbeat"
            assert trio.current_time() - begun == pytest.approx(5)
            await trio.testing.wait_all_tasks_blocked()
            assert server.statistics().connections == 2
            # The end of the old connection does not end the new one.
            async with answering_pings(restarted):
                await trio.sleep(500)
        assert [client.client_id for client in server.clients()] == [TARGET, name]


@each_role
async def test_connection_that_answers_is_never_replaced(name: str, autojump_clock: trio.testing.MockClock) -> None:
    async with open_clients() as clients, answering_pings(clients.device, clients.constellation):
        before = clients.server.clients()
        for _ in range(20):
            async with open_raw_client(clients.server.connect()) as second:
                _send_registration(second, name)
                [refusal], code = await second.receive_until_ended(1)
                assert (refusal["error"], code) == (REFUSAL.format(name), 1000)
        assert clients.server.clients() == before


async def test_connection_that_answers_in_the_last_moment_is_not_replaced(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with open_clients() as clients, open_raw_client(clients.server.connect()) as second:
        _send_registration(second, DEVICE)
        await second.silence(4.99)
        # Any byte counts, not only a pong.
        await clients.device.send_bytes(b"\x81")
        [refusal], _ = await second.receive_until_ended(1)
        assert refusal["error"] == REFUSAL.format(DEVICE)
        assert clients.server.devices == [DEVICE]


async def test_connection_that_was_silent_before_and_answers_the_ping_is_not_replaced(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with open_clients(limits=ServerLimits(ping_interval=1e6)) as clients:
        await trio.sleep(150)
        async with answering_pings(clients.device), open_raw_client(clients.server.connect()) as second:
            _send_registration(second, DEVICE)
            [refusal], _ = await second.receive_until_ended(1)
            assert refusal["error"] == REFUSAL.format(DEVICE)


async def test_messages_of_the_second_connection_wait_in_its_socket_and_are_answered_in_order(
    autojump_clock: trio.testing.MockClock,
) -> None:
    sessions = RecordingSessions()
    async with (
        open_clients(sessions.run) as clients,
        open_raw_client(clients.server.connect()) as restarted,
    ):
        name = CONSTELLATION
        _send_registration(restarted, name)
        submit(restarted, "s1")
        for number in range(2000):
            restarted.send(
                type="device_info_request",
                status="ok",
                client_type="constellation",
                target_id=DEVICE,
                request_id=f"q{number}",
            )
        async with answering_pings(clients.device):
            await restarted.silence(4.9)
            assert clients.server.statistics().sessions == 0
        assert (await restarted.receive())["type"] == "heartbeat"
        assert (await restarted.receive())["session_id"] == "s1"
        for number in range(2000):
            assert (await restarted.receive())["response_id"] == f"q{number}"


async def test_second_connections_messages_take_no_memory_of_the_server_while_it_waits(
    autojump_clock: trio.testing.MockClock,
) -> None:
    client_end, server_end = trio.testing.memory_stream_pair()
    read = _CountingStream(server_end)
    async with open_clients() as clients, trio.open_nursery() as nursery:
        nursery.start_soon(clients.server.serve_stream, read)
        async with open_raw_client(client_end) as second:
            _send_registration(second, DEVICE)
            await trio.testing.wait_all_tasks_blocked()
            before = read.bytes_read
            for _ in range(100):
                second.send_text(json.dumps({"type": "heartbeat", "status": "ok", "task_name": "x" * 10_000}))
            await second.silence(4.9)
            # One read may have begun.
            assert read.bytes_read - before <= 64 * 1024
            for _ in range(101):
                assert (await second.receive())["type"] == "heartbeat"


class _CountingStream(FaultyStream):
    """Counts the bytes that are read."""

    def __init__(self, stream: trio.abc.Stream) -> None:
        super().__init__(stream)
        self.bytes_read = 0

    async def receive_some(self, max_bytes: int | None = None) -> bytes | bytearray:
        data = await super().receive_some(max_bytes)
        self.bytes_read += len(data)
        return data


async def test_sessions_of_a_replaced_constellation_end_before_the_new_one_starts_any(
    autojump_clock: trio.testing.MockClock,
) -> None:
    sessions = RecordingSessions()
    async with open_clients(sessions.run) as clients, open_raw_client(clients.server.connect()) as restarted:
        await start_task(clients.constellation, "s1")
        _send_registration(restarted, CONSTELLATION)
        submit(restarted, "s1")
        async with answering_pings(clients.device):
            await trio.sleep(4.9)
            assert sessions.cancelled == []
        assert (await restarted.receive())["type"] == "heartbeat"
        # The old session's cleanup may take long; its id is free when it is done.
        reply = await restarted.receive()
        assert sessions.cancelled == ["s1"]
        assert reply.get("session_id") == "s1" or "in use" in str(reply["error"])
        assert (await end_of(clients.device, "s1"))[0] == "failed"


async def test_task_on_a_replaced_device_fails_and_the_next_one_runs_on_the_new_connection(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with open_clients(_look) as clients, open_raw_client(clients.server.connect()) as restarted:
        await start_task(clients.constellation, "s1")
        _send_registration(restarted, DEVICE)
        status, _, error = await end_of(clients.constellation, "s1")
        assert (status, error) == ("failed", "Task was cancelled because target device disconnected")
        assert (await restarted.receive())["type"] == "heartbeat"
        await start_task(clients.constellation, "s2")
        command = await restarted.receive()
        answer(restarted, command, {"status": "success", "result": 7, "call_id": "c"})
        assert await end_of(clients.constellation, "s2") == ("completed", 7, None)


async def _look(task: ServerTask) -> object:
    [seen] = await task.execute([Command("look", ToolType.DATA_COLLECTION, call_id="c")])
    return seen.result


async def test_connection_with_another_token_is_refused_immediately(autojump_clock: trio.testing.MockClock) -> None:
    async with (
        open_memory_server(token=["old", "new"]) as server,
        open_raw_client(FaultyStream(server.connect()), token="old") as first,
        open_raw_client(server.connect(), token="new") as other,
        open_raw_client(server.connect(), token="old") as same,
    ):
        await register_device(first)
        begun = trio.current_time()
        _send_registration(other, DEVICE)
        [refusal], _ = await other.receive_until_ended(1)
        assert refusal["error"] == REFUSAL.format(DEVICE)
        assert trio.current_time() == begun
        _send_registration(same, DEVICE)
        assert (await same.receive(5.1))["type"] == "heartbeat"


@each_role
async def test_connection_in_another_role_is_refused_immediately(
    name: str, autojump_clock: trio.testing.MockClock
) -> None:
    async with open_clients() as clients, open_raw_client(clients.server.connect()) as other:
        begun = trio.current_time()
        role = "constellation" if ROLES[name] == "device" else "device"
        _send_registration(other, name, client_type=role)
        [refusal], _ = await other.receive_until_ended(1)
        assert refusal["error"] == REFUSAL.format(name)
        assert trio.current_time() == begun


async def test_first_of_several_new_connections_replaces_the_half_open_one_and_the_others_are_refused(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with (
        open_memory_server() as server,
        open_raw_client(server.connect()) as half_open,
        open_raw_client(server.connect()) as one,
        open_raw_client(server.connect()) as two,
        open_raw_client(server.connect()) as three,
    ):
        await register_device(half_open)
        for client in (one, two, three):
            _send_registration(client, DEVICE)
            await trio.sleep(0.1)
        replies = [await client.receive(5.1) for client in (one, two, three)]
        assert [reply["type"] for reply in replies] == ["heartbeat", "error", "error"]
        assert server.devices == [DEVICE]


async def test_name_that_becomes_free_during_the_wait_is_given_immediately(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with open_clients() as clients, open_raw_client(clients.server.connect()) as restarted:
        _send_registration(restarted, DEVICE)
        await restarted.silence(2)
        await clients.device.abort()
        assert (await restarted.receive(0.1))["type"] == "heartbeat"
        assert clients.server.devices == [DEVICE]


async def test_new_connection_that_leaves_while_it_waits_leaves_nothing(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with open_memory_server() as server, open_raw_client(server.connect()) as half_open:
        await register_device(half_open)
        async with open_raw_client(server.connect()) as restarted:
            _send_registration(restarted, DEVICE)
            await restarted.silence(2)
        await trio.sleep(10)
        assert (server.devices, server.statistics().connections) == ([], 0)


async def test_new_connection_that_is_lost_while_it_waits_is_not_registered(
    autojump_clock: trio.testing.MockClock,
) -> None:
    limits = ServerLimits(liveness_timeout=3, ping_interval=1)
    async with (
        open_memory_server(limits=limits) as server,
        open_raw_client(server.connect()) as half_open,
        open_raw_client(server.connect()) as restarted,
    ):
        await register_device(half_open)
        await half_open.send_bytes(b"\x81")
        _send_registration(restarted, DEVICE)
        await trio.sleep(20)
        assert (server.devices, server.statistics().connections) == ([], 0)


async def test_registration_timeout_does_not_end_the_question(autojump_clock: trio.testing.MockClock) -> None:
    limits = ServerLimits(register_timeout=2)
    async with (
        open_memory_server(limits=limits) as server,
        open_raw_client(server.connect()) as half_open,
        open_raw_client(server.connect()) as restarted,
    ):
        await register_device(half_open)
        await trio.sleep(1.9)
        _send_registration(restarted, DEVICE)
        assert (await restarted.receive(5.1))["type"] == "heartbeat"


async def test_server_that_stops_while_a_connection_waits_closes_it(autojump_clock: trio.testing.MockClock) -> None:
    async with trio.open_nursery() as nursery:
        codes: list[int] = []
        async with open_memory_server() as server:
            await nursery.start(_wait_for_a_name, server, codes)
            begun = trio.current_time()
        assert trio.current_time() - begun < 4
    assert codes == [1001]


async def _wait_for_a_name(server: MemoryServer, codes: list[int], *, task_status: trio.TaskStatus[None]) -> None:
    async with open_raw_client(server.connect()) as half_open, open_raw_client(server.connect()) as restarted:
        await register_device(half_open)
        _send_registration(restarted, DEVICE)
        await trio.sleep(1)
        task_status.started()
        codes.append(await restarted.close_code())


async def test_suspended_server_reads_what_the_old_connection_has_sent_before_it_replaces_it(
    mock_clock: trio.testing.MockClock,
) -> None:
    # trio runs the tasks of a step in random order.
    for _ in range(20):
        async with open_clients() as clients, open_raw_client(clients.server.connect()) as second:
            _send_registration(second, DEVICE)
            await trio.testing.wait_all_tasks_blocked()
            before = clients.server.clients()
            mock_clock.jump(100)
            await clients.device.send_bytes(PONG)
            await trio.testing.wait_all_tasks_blocked()
            assert clients.server.clients() == before


@pytest.mark.parametrize("speaks", [True, False])
async def test_old_connection_has_5_seconds_more_after_the_server_was_suspended(
    speaks: bool, mock_clock: trio.testing.MockClock
) -> None:
    async with open_clients() as clients, open_raw_client(clients.server.connect()) as second:
        _send_registration(second, DEVICE)
        await trio.testing.wait_all_tasks_blocked()
        before = clients.server.clients()
        mock_clock.jump(100)
        await trio.testing.wait_all_tasks_blocked()
        mock_clock.jump(4.9)
        await trio.testing.wait_all_tasks_blocked()
        assert clients.server.clients() == before
        if speaks:
            await clients.device.send_bytes(PONG)
            await trio.testing.wait_all_tasks_blocked()
        mock_clock.jump(0.2)
        await trio.testing.wait_all_tasks_blocked()
        assert (before[0] in clients.server.clients()) is speaks


async def test_old_connection_that_reads_slowly_and_was_not_reached_by_the_ping_is_not_replaced(
    autojump_clock: trio.testing.MockClock,
) -> None:
    client_end, server_end = trio.testing.memory_stream_pair()
    slow = FaultyStream(server_end)
    async with open_memory_server() as server, trio.open_nursery() as nursery:
        nursery.start_soon(server.serve_stream, slow)
        async with open_raw_client(client_end) as device, open_raw_client(server.connect()) as second:
            await register_device(device)
            await trio.testing.wait_all_tasks_blocked()
            slow.stall()
            _send_registration(second, DEVICE)
            [refusal], _ = await second.receive_until_ended(5.1)
            assert refusal["error"] == REFUSAL.format(DEVICE)
            assert server.devices == [DEVICE]
