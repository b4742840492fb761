"""A server's sessions: each ends in exactly one way."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import pytest
import trio
import trio.testing

from galaxy_trio import TaskFailed, open_connection
from galaxy_trio.agent import open_device_connection
from galaxy_trio.messages import DeviceInfo, Platform
from galaxy_trio.server import ServerLimits, ServerStatistics, ServerTask
from galaxy_trio.testing import open_memory_server
from tests.connection.support.recordings import text_frames
from tests.server.support.clients import (
    CONSTELLATION,
    DEVICE,
    Clients,
    RecordingSessions,
    end_of,
    error_text,
    expect_acknowledgement,
    open_clients,
    register_constellation,
    register_device,
    start_task,
    submit,
)
from tests.server.support.raw_client import open_raw_client

if TYPE_CHECKING:
    from collections.abc import Awaitable


async def test_session_function_gets_the_task() -> None:
    sessions = RecordingSessions()
    async with open_clients(sessions.run) as clients:
        submit(clients.constellation, "s1", "do it")
        clients.constellation.send_text(text_frames("task_completed")[0].text)
        for _ in range(2):
            clients.constellation.send(type="task", status="ok", client_type="constellation", target_id=DEVICE)
        await expect_acknowledgement(clients.constellation, "s1")
        await expect_acknowledgement(clients.constellation, "demo@t1")
        first, second = [str((await clients.constellation.receive())["session_id"]) for _ in range(2)]
        assert first
        assert second not in ("", first)
        await trio.testing.wait_all_tasks_blocked()
        assert sorted(sessions.started, key=lambda task: (task.request, task.session_id != first)) == [
            ServerTask(first, "", DEVICE, CONSTELLATION),
            ServerTask(second, "", DEVICE, CONSTELLATION),
            ServerTask("s1", "do it", DEVICE, CONSTELLATION, "galaxy/s1"),
            ServerTask("demo@t1", "echo:hello", DEVICE, CONSTELLATION, "galaxy/demo/t1"),
        ]


RESULTS: list[object] = [
    None,
    True,
    0,
    -1.5,
    "",
    "häß \N{GRINNING FACE}",
    [],
    [1, [None]],
    {},
    {"a": {"b": [1]}},
    2**70,
]


@pytest.mark.parametrize("result", RESULTS, ids=repr)
async def test_return_value_of_a_session_is_the_tasks_result(result: object) -> None:
    async def session(task: ServerTask) -> object:
        return result

    async with open_clients(session) as clients:
        await start_task(clients.constellation, "s1")
        for client in (clients.constellation, clients.device):
            assert await end_of(client, "s1") == ("completed", result, None)


async def _failing(clients: Clients) -> tuple[object, object]:
    """Submit a task that fails, check that both clients get the same end, and return its result and error."""
    await start_task(clients.constellation, "s1")
    [of_constellation, of_device] = [await end_of(client, "s1") for client in (clients.constellation, clients.device)]
    assert of_constellation == of_device
    status, result, error = of_constellation
    assert status == "failed"
    assert clients.server.statistics().sessions == 0
    await clients.check()
    return result, error


@pytest.mark.parametrize(
    ("error", "result", "words"),
    [
        (ValueError("no such window"), {}, "no such window"),
        (ValueError(), {}, "ValueError"),
        (TimeoutError(), {}, "TimeoutError"),
        (ExceptionGroup("several", [ValueError(1)]), {}, "several (1 sub-exception)"),
        (TaskFailed("half done", result={"done": [1, 2]}), {"done": [1, 2]}, "half done"),
        (TaskFailed("not done"), None, "not done"),
        (TaskFailed("", result="in its error state"), "in its error state", None),
    ],
    ids=repr,
)
async def test_exception_of_a_session_fails_the_task(error: Exception, result: object, words: str | None) -> None:
    async def session(task: ServerTask) -> object:
        raise error

    async with open_clients(session) as clients:
        assert await _failing(clients) == (result, words)


UNSENDABLE: dict[str, object] = {
    "an object": object(),
    "a set in a list": [{1}],
    "a key that is a tuple": {(1, 2): 3},
    "not a number": math.nan,
    "an infinity": [-math.inf],
    "a lone surrogate": "\ud800",
    "bytes": b"x",
}


@pytest.mark.parametrize("result", UNSENDABLE.values(), ids=UNSENDABLE)
@pytest.mark.parametrize("raised", [False, True], ids=["returned", "raised"])
async def test_result_that_is_not_json_fails_the_task(result: object, raised: bool) -> None:
    async def session(task: ServerTask) -> object:
        if raised:
            raise TaskFailed("", result=result)
        return result

    async with open_clients(session) as clients:
        sent, words = await _failing(clients)
        assert sent == {}
        assert "the session's result cannot be sent: cannot send a task_end message" in str(words)


@pytest.mark.parametrize("where", ["result", "error"])
async def test_result_above_the_message_limit_fails_the_task(where: str) -> None:
    async def session(task: ServerTask) -> object:
        if where == "error":
            raise ValueError("x" * 5000)
        return "x" * 5000

    async with open_clients(session, ServerLimits(max_message_size=5000)) as clients:
        sent, words = await _failing(clients)
        assert sent == {}
        assert "the session's result cannot be sent: a message of " in str(words)
        assert "above the limit of 5000" in str(words)


async def test_session_function_that_returns_no_coroutine_fails_the_task() -> None:
    def session(task: ServerTask) -> Awaitable[object]:
        raise ValueError("not even a coroutine")

    async with open_clients(session) as clients:
        assert await _failing(clients) == ({}, "not even a coroutine")


async def test_keyboard_interrupt_in_a_session_comes_out_of_the_servers_block_bare() -> None:
    interrupt = KeyboardInterrupt()

    async def session(task: ServerTask) -> object:
        raise interrupt

    with pytest.raises(KeyboardInterrupt) as caught:
        async with open_memory_server(session=session) as server:
            async with open_device_connection(
                server.url, DEVICE, system_info=DeviceInfo(DEVICE, Platform.LINUX), stream=server.connect()
            ):
                async with open_connection(server.url, DEVICE, stream=server.connect()) as connection:
                    await connection.run_task("stop")
    assert caught.value is interrupt


async def test_device_may_submit_a_task_for_itself_and_gets_one_end() -> None:
    async with open_clients() as clients:
        clients.device.send(type="task", status="continue", session_id="s1", request="mine")
        await expect_acknowledgement(clients.device, "s1")
        assert await end_of(clients.device, "s1") == ("completed", "mine", None)
        await clients.check()


async def test_device_may_not_submit_a_task_for_another() -> None:
    async with open_clients() as clients, open_raw_client(clients.server.connect()) as other:
        await register_device(other, "device_002")
        other.send(type="task", status="continue", session_id="s1", request="yours", target_id=DEVICE)
        assert error_text(await other.receive()) == "A device may run tasks only on itself"
        assert clients.server.statistics().sessions == 0


@pytest.mark.parametrize("how", ["close", "abort"])
async def test_disconnect_of_a_constellation_cancels_its_sessions_and_frees_its_name(
    how: str,
) -> None:
    sessions = RecordingSessions()
    async with open_clients(sessions.run) as clients, open_raw_client(clients.server.connect()) as other:
        await register_constellation(other, "other")
        submit(other, "of another")
        await start_task(clients.constellation, "s1")
        await trio.testing.wait_all_tasks_blocked()
        assert len(sessions.started) == 2
        await (clients.constellation.close() if how == "close" else clients.constellation.abort())
        words = "Task was cancelled because its constellation disconnected"
        assert await end_of(clients.device, "s1") == ("failed", {}, words)
        assert sessions.cancelled == ["s1"]
        assert clients.server.constellations == ["other"]
        async with open_raw_client(clients.server.connect()) as again:
            await register_constellation(again)
            await start_task(again, "s1")
            sessions.released.set()
            assert await end_of(again, "s1") == ("completed", "released", None)


async def test_disconnect_of_a_device_cancels_only_its_sessions() -> None:
    sessions = RecordingSessions()
    async with open_clients(sessions.run) as clients, open_raw_client(clients.server.connect()) as other:
        await register_device(other, "device_002")
        submit(clients.constellation, "elsewhere", target="device_002")
        submit(clients.constellation, "here")
        await expect_acknowledgement(clients.constellation, "elsewhere")
        await expect_acknowledgement(clients.constellation, "here")
        await trio.testing.wait_all_tasks_blocked()
        await clients.device.abort()
        words = "Task was cancelled because target device disconnected"
        assert await end_of(clients.constellation, "here") == ("failed", {}, words)
        assert sessions.cancelled == ["here"]
        sessions.released.set()
        assert await end_of(clients.constellation, "elsewhere") == ("completed", "released", None)


async def test_session_is_cancelled_once_when_both_clients_disconnect() -> None:
    released = trio.Event()
    cancelled: list[str] = []

    async def session(task: ServerTask) -> None:
        try:
            await trio.sleep_forever()
        finally:
            cancelled.append(task.session_id)
            with trio.CancelScope(shield=True):
                await released.wait()

    async with open_clients(session) as clients:
        await start_task(clients.constellation, "s1")
        for client in (clients.device, clients.constellation):
            await trio.testing.wait_all_tasks_blocked()
            await client.close()
        await trio.testing.wait_all_tasks_blocked()
        # The end was sent when the device disconnected; only the session function is still running.
        statistics = clients.server.statistics()
        released.set()
        assert statistics == ServerStatistics(0, 0, 0, 0, ending_sessions=1)
        await trio.testing.wait_all_tasks_blocked()
        assert clients.server.statistics() == ServerStatistics(0, 0, 0, 0)
        assert cancelled == ["s1"]


async def test_device_gets_each_end_once_when_the_constellation_disconnects_while_tasks_end() -> None:
    async with open_clients() as clients:
        sessions = [f"s{number}" for number in range(100)]
        for session_id in sessions:
            submit(clients.constellation, session_id)
        await clients.constellation.close()
        ended = [(await clients.device.receive())["session_id"] for _ in sessions]
        assert sorted(map(str, ended)) == sorted(sessions)
        assert clients.server.statistics() == ServerStatistics(1, 1, 0, 0)
        await clients.device.close()
        assert await clients.device.receive_until_ended() == ([], 1000)


async def test_200_concurrent_tasks_each_get_their_own_end(autojump_clock: trio.testing.MockClock) -> None:
    gates = {f"s{number}": trio.Event() for number in range(200)}
    running: set[str] = set()

    async def session(task: ServerTask) -> object:
        running.add(task.session_id)
        await gates[task.session_id].wait()
        return {"of": task.session_id, "request": task.request}

    async with open_clients(session, ServerLimits(max_sessions=200)) as clients:
        for session_id in gates:
            submit(clients.constellation, session_id, f"do {session_id}")
        for session_id in gates:
            await expect_acknowledgement(clients.constellation, session_id)
        await trio.testing.wait_all_tasks_blocked()
        assert running == set(gates)
        assert clients.server.statistics() == ServerStatistics(2, 1, 1, 200)
        for session_id in reversed(gates):
            gates[session_id].set()
            for client in (clients.constellation, clients.device):
                result = {"of": session_id, "request": f"do {session_id}"}
                assert await end_of(client, session_id) == ("completed", result, None)
        assert clients.server.statistics().sessions == 0
