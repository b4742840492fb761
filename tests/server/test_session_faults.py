"""Faulty session functions affect no other task, nor do clients that do not read."""

from __future__ import annotations

import json
from contextlib import nullcontext, suppress
from typing import TYPE_CHECKING

import pytest
import trio
import trio.testing

from galaxy_trio import TaskFailed
from galaxy_trio._transport.send_buffer import HIGH_WATER_MARK
from galaxy_trio.server.server import ServerLimits
from galaxy_trio.testing import FaultyStream, open_memory_server
from tests.server.support.clients import (
    DEVICE,
    check_alive,
    end_of,
    open_clients,
    register_constellation,
    register_device,
    request_information,
    run_forever,
    start_task,
    submit,
)
from tests.server.support.raw_client import open_raw_client

if TYPE_CHECKING:
    from galaxy_trio.server import ServerTask


async def test_exception_of_a_cancelled_sessions_cleanup_does_not_replace_the_reason_of_its_end() -> None:
    async def session(task: ServerTask) -> object:
        async def child() -> None:
            try:
                await trio.sleep_forever()
            finally:
                raise ValueError("cleaning up failed")

        async with trio.open_nursery() as nursery:
            nursery.start_soon(child)
            nursery.start_soon(trio.sleep_forever)
        return None

    async with (
        open_memory_server(session=session) as server,
        open_raw_client(server.connect()) as device,
        open_raw_client(server.connect()) as constellation,
    ):
        await register_device(device)
        await register_constellation(constellation)
        submit(constellation, "s1")
        assert (await constellation.receive())["type"] == "heartbeat"
        await trio.testing.wait_all_tasks_blocked()
        await device.close()
        end = await constellation.receive()
        assert (end["status"], end["error"]) == ("failed", "Task was cancelled because target device disconnected")


async def test_constellation_that_does_not_read_delays_no_device() -> None:
    gate = trio.Event()

    async def session(task: ServerTask) -> object:
        await gate.wait()
        return "x" * HIGH_WATER_MARK

    client_end, server_end = trio.testing.memory_stream_pair()
    not_read = FaultyStream(server_end)
    async with open_memory_server(session=session) as server, trio.open_nursery() as nursery:
        nursery.start_soon(server.serve_stream, not_read)
        async with open_raw_client(server.connect()) as device, open_raw_client(client_end) as constellation:
            await register_device(device)
            await register_constellation(constellation)
            for number in range(4):
                submit(constellation, f"s{number}")
            await trio.testing.wait_all_tasks_blocked()
            not_read.stall()
            gate.set()
            for _ in range(4):
                assert (await device.receive())["type"] == "task_end"


async def test_no_session_starts_for_a_client_that_has_disconnected(autojump_clock: trio.testing.MockClock) -> None:
    limits = ServerLimits(liveness_timeout=50, ping_interval=20)
    async with open_memory_server(session=run_forever, limits=limits) as server, trio.open_nursery() as nursery:
        client_end, server_end = trio.testing.memory_stream_pair()
        not_read = FaultyStream(server_end)
        nursery.start_soon(server.serve_stream, not_read)
        async with open_raw_client(server.connect()) as device, open_raw_client(client_end) as constellation:
            await register_device(device, hostname="x" * 60_000)
            await register_constellation(constellation)
            not_read.stall()
            for _ in range(40):
                request_information(constellation)
            for number in range(5):
                submit(constellation, f"s{number}")
            await trio.sleep(49)
            await check_alive(device)
            await trio.sleep(5)
            assert server.constellations == []
            assert server.statistics().sessions == 0


class _Speechless(Exception):
    def __str__(self) -> str:
        raise RuntimeError("cannot even say what is wrong")


class _Raising(dict[str, object]):
    """A result that raises when it is written."""

    def __init__(self, error: Exception) -> None:
        super().__init__(a=1)
        self._error = error

    def items(self) -> object:  # type: ignore[override]  # pyright: ignore[reportIncompatibleMethodOverride]
        raise self._error


@pytest.mark.parametrize(
    ("how", "words"),
    [
        ("raised", "_Speechless"),
        ("as a failed task", "cannot even say what is wrong"),
        ("in a group", "several"),
        ("while the result is written", "the session's result cannot be sent: _Speechless"),
    ],
)
async def test_exception_whose_str_raises_still_fails_its_task(how: str, words: str) -> None:
    async def session(task: ServerTask) -> object:
        match how:
            case "raised":
                raise _Speechless
            case "as a failed task":
                raise _SpeechlessFailure("")
            case "in a group":
                raise ExceptionGroup("several", [_Speechless(), ValueError("another")])
            case _:
                return _Raising(_Speechless())

    async with open_clients(session) as clients:
        await start_task(clients.constellation, "s")
        for client in (clients.constellation, clients.device):
            status, result, error = await end_of(client, "s")
            assert (status, result) == ("failed", {})
            assert words in str(error)
        await check_alive(clients.device)
        assert clients.server.statistics().ending_sessions == 0


@pytest.mark.parametrize("text", ["\ud800", "x" * 10_000], ids=["a lone surrogate", "a long text"])
async def test_reason_that_cannot_be_sent_either_still_fails_its_task(text: str) -> None:
    async def session(task: ServerTask) -> object:
        return _Raising(ValueError(text))

    async with open_clients(session, ServerLimits(max_message_size=5000)) as clients:
        await start_task(clients.constellation, "s")
        for client in (clients.constellation, clients.device):
            status, result, error = await end_of(client, "s")
            assert (status, result) == ("failed", {})
            assert str(error).startswith("the session's result cannot be sent: ")


class _SpeechlessFailure(TaskFailed):
    __str__ = _Speechless.__str__


async def test_task_whose_acknowledgement_cannot_be_sent_is_refused_and_not_run() -> None:
    started: list[str] = []

    async def session(task: ServerTask) -> None:
        started.append(task.session_id)

    async with open_clients(session, ServerLimits(max_message_size=1000)) as clients:
        for length in (700, 890):
            # The acknowledgement is longer than the task, apart from the id.
            task = {"type": "task", "status": "ok", "client_type": "constellation", "target_id": DEVICE}
            clients.constellation.send_text(json.dumps({**task, "session_id": "s" * length}, separators=(",", ":")))
        assert (await clients.constellation.receive())["type"] == "heartbeat"
        refusal = await clients.constellation.receive()
        assert (refusal["type"], "session_id" in refusal) == ("error", False)
        assert "the reply cannot be sent" in str(refusal["error"])
        assert (await end_of(clients.constellation, "s" * 700))[0] == "completed"
        assert (await end_of(clients.device, "s" * 700))[0] == "completed"
        await check_alive(clients.device)
        assert started == ["s" * 700]
        assert clients.server.statistics().ending_sessions == 0


@pytest.mark.parametrize("does", ["cleans up", "raises", "swallows its cancellation"])
async def test_session_that_is_slow_to_cancel_ends_once_immediately_and_delays_no_other(
    does: str, autojump_clock: trio.testing.MockClock
) -> None:
    async def session(task: ServerTask) -> object:
        if task.request == "quick":
            return "quick"
        with suppress(trio.Cancelled) if does == "swallows its cancellation" else nullcontext():
            try:
                await trio.Event().wait()
            finally:
                with trio.CancelScope(shield=True):
                    await trio.sleep(100)
                if does == "raises":
                    raise ValueError("cleaning up failed")
        return "too late"

    async with open_clients(session) as clients, open_raw_client(clients.server.connect()) as other:
        await register_device(other, "other")
        await start_task(clients.constellation, "slow", "", "other")
        await trio.testing.wait_all_tasks_blocked()
        await other.close()
        reason = "Task was cancelled because target device disconnected"
        assert await end_of(clients.constellation, "slow") == ("failed", {}, reason)
        assert trio.current_time() == 0
        statistics = clients.server.statistics()
        assert (statistics.sessions, statistics.ending_sessions) == (0, 1)
        submit(clients.constellation, "slow")
        assert (await clients.constellation.receive())["error"] == "session_id 'slow' is in use"
        await start_task(clients.constellation, "quick", "quick")
        for client in (clients.constellation, clients.device):
            assert await end_of(client, "quick") == ("completed", "quick", None)
        await trio.sleep(101)
        assert clients.server.statistics().ending_sessions == 0
        # No second end was sent, and the name is free again.
        await start_task(clients.constellation, "slow", "quick")
        assert await end_of(clients.constellation, "slow") == ("completed", "quick", None)


async def test_hanging_session_delays_no_other_and_ends_with_its_client(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async def session(task: ServerTask) -> object:
        if task.request == "hang":
            await trio.sleep_forever()
        return task.request

    async with open_clients(session) as clients, open_raw_client(clients.server.connect()) as other:
        await register_constellation(other, "other")
        await start_task(other, "hanging", "hang")
        await start_task(clients.constellation, "s", "well")
        for client in (clients.constellation, clients.device):
            assert await end_of(client, "s") == ("completed", "well", None)
        await other.close()
        # Only the device receives the end: the constellation has disconnected.
        assert await end_of(clients.device, "hanging") == (
            "failed",
            {},
            "Task was cancelled because its constellation disconnected",
        )
        await clients.constellation.silence(5)
