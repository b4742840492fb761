"""Faults of clients and session functions affect no other client, and the server still stops with close handshakes."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable
from contextlib import nullcontext, suppress
from functools import partial
from typing import TypeAlias

import pytest
import trio
import trio.testing

from galaxy_trio import ConfigError, TaskFailed
from galaxy_trio._transport.send_buffer import HIGH_WATER_MARK
from galaxy_trio.server import ServerTask, open_server
from galaxy_trio.server.server import ServerLimits
from galaxy_trio.testing import FaultyStream, open_memory_server
from tests.server.support.raw_client import Members, RawClient, open_raw_client
from tests.server.support.server_cast import (
    DEVICE,
    end_of,
    open_cast,
    register_constellation,
    register_device,
    start_task,
    submit,
)

Register: TypeAlias = Callable[[RawClient], Awaitable[None]]
Ends: TypeAlias = list[tuple[list[Members], int]]
"""Each client's messages after its registration, and the close code."""


async def _device(client: RawClient, hostname: str = "edge-1") -> None:
    info = {"device_id": "device_001", "platform": "linux", "hostname": hostname}
    client.send(type="register", status="ok", client_id="device_001", metadata={"system_info": info})
    assert (await client.receive())["type"] == "heartbeat"


async def _constellation(client: RawClient) -> None:
    client.send(
        type="register",
        status="ok",
        client_type="constellation",
        client_id="demo@device_001",
        target_id="device_001",
    )
    assert (await client.receive())["type"] == "heartbeat"


def _submit(client: RawClient, session_id: str, request: str = "do it") -> None:
    client.send(
        type="task",
        status="continue",
        client_type="constellation",
        target_id="device_001",
        session_id=session_id,
        request=request,
    )


def _ask_for_information(client: RawClient) -> None:
    client.send(
        type="device_info_request",
        status="ok",
        client_type="constellation",
        target_id="device_001",
        request_id="q",
    )


async def _is_alive(device: RawClient) -> None:
    device.send(type="heartbeat", status="ok")
    assert (await device.receive())["type"] == "heartbeat"


async def _forever(task: ServerTask) -> object:
    await trio.sleep_forever()


async def _stay(
    stream: trio.abc.Stream, register: Register, ends: Ends, *, task_status: trio.TaskStatus[RawClient]
) -> None:
    """Run a client until the server ends the connection."""
    async with open_raw_client(stream) as client:
        await register(client)
        task_status.started(client)
        ends.append(await client.receive_until_ended(100))


async def test_session_id_near_the_message_limit_affects_no_other_client(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with (
        open_memory_server(limits=ServerLimits(max_message_size=2000)) as server,
        open_raw_client(server.connect()) as device,
        open_raw_client(server.connect()) as constellation,
    ):
        await _device(device)
        await _constellation(constellation)
        _submit(constellation, "s" * 1750)
        assert (await constellation.receive())["type"] == "error"
        await _is_alive(device)


async def test_names_above_the_limit_are_refused() -> None:
    async with (
        open_memory_server() as server,
        open_raw_client(server.connect()) as nobody,
        open_raw_client(server.connect()) as device,
        open_raw_client(server.connect()) as constellation,
    ):
        nobody.send(type="register", status="ok", client_id="x" * 1001)
        messages, code = await nobody.receive_until_ended()
        assert ([message["type"] for message in messages], code) == (["error"], 1008)
        await _device(device)
        await _constellation(constellation)
        _submit(constellation, "x" * 1001)
        assert "at most 1000 are allowed" in str((await constellation.receive())["error"])
        _submit(constellation, "x" * 1000)
        assert (await constellation.receive())["type"] == "heartbeat"


async def test_end_that_cannot_be_sent_affects_no_other_client(
    autojump_clock: trio.testing.MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    async def fail(task: ServerTask) -> object:
        raise ValueError("x" * 1000)

    async with (
        open_memory_server(session=fail, limits=ServerLimits(max_message_size=1180)) as server,
        open_raw_client(server.connect()) as device,
        open_raw_client(server.connect()) as constellation,
    ):
        await _device(device)
        await _constellation(constellation)
        text = json.dumps(
            {
                "type": "task",
                "status": "ok",
                "client_type": "constellation",
                "target_id": "device_001",
                "session_id": "s" * 1000,
            }
        )
        constellation.send_text(text)
        await trio.testing.wait_all_tasks_blocked()
        await _is_alive(device)
    assert "the end of a session could not be sent" in caplog.text


async def test_error_that_cannot_be_echoed_is_answered_with_another_error() -> None:
    async with (
        open_memory_server(limits=ServerLimits(max_message_size=2000)) as server,
        open_raw_client(server.connect()) as device,
    ):
        await _device(device)
        device.send(type="error", status="error", error="e" * 1900)
        reply = await device.receive()
        assert reply["type"] == "error"
        assert "the reply cannot be sent" in str(reply["error"])
        await _is_alive(device)


async def test_unsendable_system_information_affects_no_constellation(caplog: pytest.LogCaptureFixture) -> None:
    # The depths that can be read and written vary with the stack, so several are tried.
    replies: set[object] = set()
    for depth in range(900, 1000, 5):
        async with (
            open_memory_server() as server,
            open_raw_client(server.connect()) as device,
            open_raw_client(server.connect()) as constellation,
        ):
            nested = "[" * depth + "]" * depth
            start = '{"type":"register","status":"ok","client_id":"device_001","metadata":{"system_info":{"a":'
            device.send_text(f"{start}{nested}}}}}}}")
            if (await device.receive())["type"] != "heartbeat":
                break
            await _constellation(constellation)
            _ask_for_information(constellation)
            replies.add((await constellation.receive())["type"])
    assert replies <= {"error", "device_info_response"}
    assert replies
    assert "bug in the server" not in caplog.text


async def test_session_that_raises_when_cancelled_affects_no_other_task() -> None:
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
        await _device(device)
        await _constellation(constellation)
        _submit(constellation, "s1")
        assert (await constellation.receive())["type"] == "heartbeat"
        await trio.testing.wait_all_tasks_blocked()
        await device.close()
        end = await constellation.receive()
        assert (end["status"], end["error"]) == ("failed", "Task was cancelled because target device disconnected")


class _Treacherous(dict[str, object]):
    def items(self) -> object:  # type: ignore[override]  # pyright: ignore[reportIncompatibleMethodOverride]
        raise KeyError("treachery")


async def test_result_that_raises_when_written_fails_only_its_task() -> None:
    async def session(task: ServerTask) -> object:
        return _Treacherous(a=1)

    async with (
        open_memory_server(session=session) as server,
        open_raw_client(server.connect()) as device,
        open_raw_client(server.connect()) as constellation,
    ):
        await _device(device)
        await _constellation(constellation)
        _submit(constellation, "s1")
        assert (await constellation.receive())["type"] == "heartbeat"
        end = await constellation.receive()
        assert end["status"] == "failed"
        assert "cannot be sent" in str(end["error"])


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
            await _device(device)
            await _constellation(constellation)
            for number in range(4):
                _submit(constellation, f"s{number}")
            await trio.testing.wait_all_tasks_blocked()
            not_read.stall()
            gate.set()
            for _ in range(4):
                assert (await device.receive())["type"] == "task_end"


async def test_no_session_starts_for_a_client_that_has_disconnected(autojump_clock: trio.testing.MockClock) -> None:
    limits = ServerLimits(liveness_timeout=50, ping_interval=20)
    async with open_memory_server(session=_forever, limits=limits) as server, trio.open_nursery() as nursery:
        client_end, server_end = trio.testing.memory_stream_pair()
        not_read = FaultyStream(server_end)
        nursery.start_soon(server.serve_stream, not_read)
        async with open_raw_client(server.connect()) as device, open_raw_client(client_end) as constellation:
            await _device(device, "x" * 200_000)
            await _constellation(constellation)
            not_read.stall()
            for _ in range(12):
                _ask_for_information(constellation)
            for number in range(5):
                _submit(constellation, f"s{number}")
            await trio.sleep(49)
            await _is_alive(device)
            await trio.sleep(5)
            assert server.constellations == []
            assert server.statistics().sessions == 0


async def test_empty_token_is_refused() -> None:
    with pytest.raises(ConfigError, match="empty token"):
        async with open_memory_server(token=""):
            raise AssertionError("not reached")
    with pytest.raises(ConfigError, match="empty token"):
        async with open_server("0.0.0.0", token=""):  # noqa: S104  # refused before anything is bound
            raise AssertionError("not reached")


async def test_registration_at_its_timeout_leaves_nothing_behind(mock_clock: trio.testing.MockClock) -> None:
    for steps in range(8):
        for _ in range(5):
            async with (
                open_memory_server(limits=ServerLimits(register_timeout=5)) as server,
                open_raw_client(server.connect()) as device,
            ):
                device.send(type="register", status="ok", client_id="device_001")
                for _ in range(steps):
                    await trio.lowlevel.checkpoint()
                mock_clock.jump(5)
                await trio.testing.wait_all_tasks_blocked()
                await device.abort()
                await trio.testing.wait_all_tasks_blocked()
                assert server.devices == []


async def test_unreadable_request_target_gets_404() -> None:
    request = (
        b"GET //[::1/ws HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
    )
    async with open_memory_server() as server:
        stream = server.connect()
        await stream.send_all(request)
        with trio.fail_after(60):
            assert b" 404 " in await stream.receive_some()


async def test_accepted_client_is_notified_at_any_step_of_the_servers_stop(
    autojump_clock: trio.testing.MockClock,
) -> None:
    told: set[tuple[object, ...]] = set()
    for steps in range(40):
        ends: Ends = []
        async with trio.open_nursery() as nursery, open_memory_server(session=_forever) as server:
            await nursery.start(partial(_stay, server.connect(), _device, []))
            client: RawClient = await nursery.start(partial(_stay, server.connect(), _constellation, ends))
            _submit(client, "s1")
            for _ in range(steps):
                await trio.lowlevel.checkpoint()
            await server.stop()
        [(messages, code)] = ends
        assert code == 1001
        told.add(tuple(message["type"] for message in messages))
    assert told <= {(), ("error",), ("heartbeat", "task_end")}
    assert ("heartbeat", "task_end") in told


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
            _submit(client, "s2")

        async with open_memory_server(session=session) as server:
            await nursery.start(partial(_stay, server.connect(), _device, []))
            client: RawClient = await nursery.start(partial(_stay, server.connect(), _constellation, ends))
            _submit(client, "s1")
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
            await nursery.start(partial(_stay, server.connect(), _device, ends))
            bad: RawClient = await nursery.start(partial(_stay, client_end, _constellation, []))
            not_read.stall()
            for number in range(3):
                _submit(bad, f"s{number}")
            await trio.testing.wait_all_tasks_blocked()
    [(_, code)] = ends
    assert code == 1001


async def test_socket_in_its_handshake_does_not_delay_the_stop(autojump_clock: trio.testing.MockClock) -> None:
    async with open_memory_server() as server:
        server.connect()
        await trio.testing.wait_all_tasks_blocked()
        start = trio.current_time()
    assert trio.current_time() - start < 1


class _Speechless(Exception):
    def __str__(self) -> str:
        raise RuntimeError("cannot even say what is wrong")


class _Unsayable(dict[str, object]):
    def items(self) -> object:  # type: ignore[override]  # pyright: ignore[reportIncompatibleMethodOverride]
        raise _Speechless


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
                return _Unsayable(a=1)

    async with open_cast(session) as cast:
        await start_task(cast.constellation, "s")
        for client in (cast.constellation, cast.device):
            status, result, error = await end_of(client, "s")
            assert (status, result) == ("failed", {})
            assert words in str(error)
        await _is_alive(cast.device)
        assert cast.server.statistics().ending_sessions == 0


class _SpeechlessFailure(TaskFailed):
    __str__ = _Speechless.__str__


async def test_task_whose_acknowledgement_cannot_be_sent_is_refused_and_not_run() -> None:
    started: list[str] = []

    async def session(task: ServerTask) -> None:
        started.append(task.session_id)

    async with open_cast(session, ServerLimits(max_message_size=1000)) as cast:
        for length in (700, 890):
            # The acknowledgement is longer than the task, apart from the id.
            task = {"type": "task", "status": "ok", "client_type": "constellation", "target_id": DEVICE}
            cast.constellation.send_text(json.dumps({**task, "session_id": "s" * length}, separators=(",", ":")))
        assert (await cast.constellation.receive())["type"] == "heartbeat"
        refusal = await cast.constellation.receive()
        assert (refusal["type"], "session_id" in refusal) == ("error", False)
        assert "the reply cannot be sent" in str(refusal["error"])
        assert (await end_of(cast.constellation, "s" * 700))[0] == "completed"
        assert (await end_of(cast.device, "s" * 700))[0] == "completed"
        await _is_alive(cast.device)
        assert started == ["s" * 700]
        assert cast.server.statistics().ending_sessions == 0


@pytest.mark.parametrize("does", ["cleans up", "returns", "raises", "swallows its cancellation"])
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
                if does == "returns":
                    return "too late"
        return "far too late"

    async with open_cast(session) as cast, open_raw_client(cast.server.connect()) as other:
        await register_device(other, "other")
        await start_task(cast.constellation, "slow", "", "other")
        await trio.testing.wait_all_tasks_blocked()
        await other.close()
        reason = "Task was cancelled because target device disconnected"
        assert await end_of(cast.constellation, "slow") == ("failed", {}, reason)
        assert trio.current_time() == 0
        statistics = cast.server.statistics()
        assert (statistics.sessions, statistics.ending_sessions) == (0, 1)
        submit(cast.constellation, "slow")
        assert (await cast.constellation.receive())["error"] == "session_id 'slow' is in use"
        await start_task(cast.constellation, "quick", "quick")
        for client in (cast.constellation, cast.device):
            assert await end_of(client, "quick") == ("completed", "quick", None)
        await trio.sleep(101)
        assert cast.server.statistics().ending_sessions == 0
        # No second end was sent, and the name is free again.
        await start_task(cast.constellation, "slow", "quick")
        assert await end_of(cast.constellation, "slow") == ("completed", "quick", None)


async def test_hanging_session_delays_no_other_and_ends_with_its_client(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async def session(task: ServerTask) -> object:
        if task.request == "hang":
            await trio.sleep_forever()
        return task.request

    async with open_cast(session) as cast, open_raw_client(cast.server.connect()) as other:
        await register_constellation(other, "other")
        await start_task(other, "hanging", "hang")
        await start_task(cast.constellation, "s", "well")
        for client in (cast.constellation, cast.device):
            assert await end_of(client, "s") == ("completed", "well", None)
        await other.close()
        # Only the device receives the end: the constellation has disconnected.
        assert await end_of(cast.device, "hanging") == (
            "failed",
            {},
            "Task was cancelled because its constellation disconnected",
        )
        await cast.constellation.silence(5)


async def test_client_that_closes_is_sent_nothing_more_while_its_socket_is_open() -> None:
    async with open_cast(_forever) as cast, open_raw_client(cast.server.connect()) as other:
        await register_constellation(other, "other")
        await start_task(other, "s")
        await trio.testing.wait_all_tasks_blocked()
        # A close frame with code 1000; the client still reads.
        await other.send_bytes(b"\x88\x82\x00\x00\x00\x00\x03\xe8")
        assert (await other.receive_until_ended())[0] == []
        assert (await end_of(cast.device, "s"))[0] == "failed"
        await _is_alive(cast.device)
