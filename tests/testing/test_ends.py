"""The ends that the package gives to its users' tests do what they say, and stay out of the way of the tests' own exceptions."""

from __future__ import annotations

import json
import logging
from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from typing import TYPE_CHECKING, TypeAlias

import pytest
import trio
import trio.testing

from galaxy_trio import (
    ConnectFailed,
    ConnectionLost,
    DeviceInfo,
    HandshakeRejected,
    MessageTooLarge,
    Platform,
    QueueFull,
    RequestRejected,
    TaskFailed,
    TaskStatus,
    open_connection,
)
from galaxy_trio._transport.interface import TransportEnded
from galaxy_trio.agent import open_device_connection
from galaxy_trio.messages import ClientMessageType, ClientType, ServerMessageType
from galaxy_trio.server.server import ServerLimits
from galaxy_trio.testing import (
    PEER_URL,
    FaultyStream,
    ScriptedPeer,
    open_bare_peer,
    open_memory_server,
    open_scripted_peer,
)
from tests.server.support.raw_client import open_raw_client

if TYPE_CHECKING:
    from galaxy_trio.server import ServerTask


# ---- a scripted peer: what the client sends


async def test_peer_receives_messages_in_order() -> None:
    async with open_scripted_peer() as peer, trio.open_nursery() as nursery:
        for request in ("first", "second", "third"):
            nursery.start_soon(peer.connection.run_task, request)
            await trio.testing.wait_all_tasks_blocked()
        first = await peer.receive()
        assert (first.type, first.request) == (ClientMessageType.TASK, "first")
        assert json.loads(await peer.receive_text())["request"] == "second"
        [third] = peer.received_nowait()
        assert third.request == "third"
        assert peer.received_nowait() == []
        nursery.cancel_scope.cancel()


async def test_receiving_waits_at_most_60_s(autojump_clock: trio.testing.MockClock) -> None:
    async with open_scripted_peer(heartbeat_interval=50) as peer:
        assert (await peer.receive()).type is ClientMessageType.HEARTBEAT
        assert trio.current_time() == pytest.approx(50)
    async with open_scripted_peer(heartbeat_interval=1000) as peer:
        with pytest.raises(trio.TooSlowError):
            await peer.receive()


async def test_peer_has_the_target_and_headers_of_the_handshake() -> None:
    async with open_bare_peer() as peer:
        assert (peer.path, peer.headers) == ("", [])
        async with open_raw_client(peer.stream, token="s3cret"):
            assert peer.path == "/ws?token=s3cret"
    async with open_bare_peer() as peer, trio.open_nursery() as nursery:
        nursery.start_soon(_confirm, peer)
        async with open_connection(
            "ws://peer.test/elsewhere?a=b", "device_001", headers=[("X-One", "1"), ("X-Two", "2")], stream=peer.stream
        ):
            assert peer.path == "/elsewhere?a=b"
            assert [header for header in peer.headers if header[0].startswith(b"x-")] == [
                (b"x-one", b"1"),
                (b"x-two", b"2"),
            ]


async def _confirm(peer: ScriptedPeer) -> None:
    registration = await peer.receive()
    assert (registration.type, registration.client_type) == (ClientMessageType.REGISTER, ClientType.CONSTELLATION)
    peer.confirm()


@pytest.mark.parametrize("status", [401, 403, 404, 503])
async def test_peer_can_reject_the_handshake(status: int) -> None:
    async with open_bare_peer() as peer:
        peer.reject_with = status
        with trio.fail_after(60), pytest.raises(HandshakeRejected) as caught:
            async with open_connection(PEER_URL, "device_001", stream=peer.stream):
                raise AssertionError("not reached")
        assert caught.value.status_code == status
        assert peer.stream.closed


async def test_peer_aborts_a_client_that_does_not_speak_websocket() -> None:
    async with open_bare_peer() as peer:
        await peer.stream.send_all(b"HELO\r\n\r\n")
        with trio.fail_after(60):
            assert b"101" not in await _receive_all(peer.stream)


async def test_rejecting_the_handshake_ends_the_stream() -> None:
    async with open_bare_peer() as peer:
        peer.reject_with = 503
        handshake = b"GET /ws HTTP/1.1\r\nHost: peer.test\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        key = b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n"
        await peer.stream.send_all(handshake + key)
        with trio.fail_after(60):
            assert (await _receive_all(peer.stream)).startswith(b"HTTP/1.1 503")


async def _receive_all(stream: trio.abc.Stream) -> bytes:
    received = b""
    while data := await stream.receive_some():
        received += data
    return received


async def test_connection_of_a_bare_peer_raises() -> None:
    async with open_bare_peer() as peer:
        with pytest.raises(RuntimeError, match="without a connection"):
            _ = peer.connection


async def test_scripted_peer_has_a_registered_client() -> None:
    async with open_scripted_peer("device_007", client_name="mine") as peer:
        assert (peer.connection.device_id, peer.connection.closed) == ("device_007", False)
        assert peer.connection.client_id.startswith("mine-")
        assert peer.received_nowait() == []
    async with open_scripted_peer(client_id="me@device_001") as peer:
        assert peer.connection.client_id == "me@device_001"


async def test_scripted_peers_client_has_the_given_limits() -> None:
    async with open_scripted_peer(max_message_size=5000, max_pending=1) as peer, trio.open_nursery() as nursery:
        with trio.fail_after(60), pytest.raises(MessageTooLarge):
            await peer.connection.run_task("x" * 5000)
        nursery.start_soon(peer.connection.run_task, "waits")
        await trio.testing.wait_all_tasks_blocked()
        with trio.fail_after(60), pytest.raises(QueueFull):
            await peer.connection.device_info()
        await peer.answer_all()


async def test_scripted_peers_client_sends_pings_at_the_given_interval(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with open_scripted_peer(heartbeat_interval=1000, liveness_timeout=50, ping_interval=20) as peer:
        # Each is answered, and that is something received.
        await trio.sleep(500)
        assert not peer.connection.closed
        assert peer.received_nowait() == []


# ---- a scripted peer: what it sends


async def test_peer_replies_like_a_server() -> None:
    async with open_scripted_peer() as peer, trio.open_nursery() as nursery:

        async def ask() -> None:
            info = await peer.connection.device_info()
            assert (info.device_id, info.platform) == ("device_001", Platform.LINUX)
            assert (await peer.connection.run_task("do it")).unwrap() == "do it"

        nursery.start_soon(ask)
        await trio.testing.wait_all_tasks_blocked()
        peer.answer(await peer.receive())
        peer.answer(await peer.receive())
        await trio.testing.wait_all_tasks_blocked()
        assert peer.connection.statistics().pending == 0


async def test_answer_all_replies_to_all_messages_and_waits_for_their_arrival(
    autojump_clock: trio.testing.MockClock,
) -> None:
    results: list[object] = []
    async with open_scripted_peer(heartbeat_interval=30) as peer, trio.open_nursery() as nursery:

        async def run(request: str) -> None:
            results.append((await peer.connection.run_task(request)).unwrap())

        await trio.sleep(31)
        for request in ("a", "b", "c"):
            nursery.start_soon(run, request)
        await peer.answer_all()
        assert sorted(map(str, results)) == ["a", "b", "c"]
        statistics = peer.connection.statistics()
        # The heartbeat was answered as well.
        assert (statistics.pending, statistics.unanswered, statistics.messages_received) == (0, 0, 8)


async def test_peer_refuses_messages_that_a_server_refuses() -> None:
    async with open_bare_peer() as peer, open_raw_client(peer.stream) as client:
        client.send(type="task_end", status="ok")
        await peer.answer_all()
        assert (await client.receive())["error"] == "Unknown message type: task_end"


async def test_peer_can_accept_end_and_refuse_single_tasks() -> None:
    async with open_scripted_peer() as peer, trio.open_nursery() as nursery:
        task_id = await _started(nursery, peer)
        assert task_id == "t1"

        async def fail() -> None:
            with pytest.raises(TaskFailed, match="out of paper") as caught:
                (await peer.connection.run_task("print")).unwrap()
            assert caught.value.result == {"pages": 2}

        nursery.start_soon(fail)
        peer.end(await peer.receive(), {"pages": 2}, status=TaskStatus.FAILED, error="out of paper")
        await trio.testing.wait_all_tasks_blocked()

        async def be_refused() -> None:
            with pytest.raises(RequestRejected) as caught:
                await peer.connection.run_task("print")
            assert caught.value.words == "no printer"

        nursery.start_soon(be_refused)
        await peer.receive()
        peer.refuse("no printer")


async def _started(nursery: trio.Nursery, peer: ScriptedPeer) -> str:
    """Start a task that the peer accepts, and ends when all else has been done."""

    async def accept() -> None:
        task = await peer.receive()
        peer.acknowledge(task)
        peer.end(task, "printed")

    async def run(*, task_status: trio.TaskStatus[str]) -> None:
        result = await peer.connection.run_task("print", task_id="t1", task_status=task_status)
        assert result.unwrap() == "printed"

    nursery.start_soon(accept)
    task_id: str = await nursery.start(run)
    return task_id


async def test_peer_can_send_any_message_text_and_json() -> None:
    async with open_bare_peer() as peer, open_raw_client(peer.stream) as client:
        peer.send(
            ServerMessageType.DEVICE_INFO_RESPONSE,
            status=TaskStatus.OK,
            session_id="s1",
            response_id="q1",
            error="none",
            result=[1],
        )
        assert await client.receive() == {
            "type": "device_info_response",
            "status": "ok",
            "session_id": "s1",
            "response_id": "q1",
            "error": "none",
            "result": [1],
        }
        peer.confirm()
        peer.confirm()
        # Ids that are not given are made up, a fresh one each time.
        assert [(await client.receive())["response_id"] for _ in range(2)] == ["response-1", "response-2"]
        peer.send_text('{"timestamp": 1, "text": 2}')
        assert await client.receive() == {"text": 2}
        peer.send_json({"timestamp": 1, "json": [None]})
        assert await client.receive() == {"json": [None]}


async def test_peer_can_send_invalid_frames() -> None:
    async with open_scripted_peer() as peer:
        await peer.send_raw(b"\xff\xff\xff\xff")
        lost = await peer.connection.wait_closed()
        assert lost is not None
        assert lost.code == 1002


async def test_ping_of_the_peer_is_answered(autojump_clock: trio.testing.MockClock) -> None:
    async with open_scripted_peer(heartbeat_interval=1000, liveness_timeout=50) as peer:
        for _ in range(10):
            await trio.sleep(40)
            peer.ping()
        assert not peer.connection.closed
        assert peer.received_nowait() == []
        await peer.connection.wait_closed()


# ---- a scripted peer: how it ends


async def test_close_has_a_code_and_a_reason() -> None:
    async with open_scripted_peer() as peer:
        await peer.close(1008, "not welcome")
        lost = await peer.connection.wait_closed()
        assert lost is not None
        assert (lost.code, "'not welcome'" in lost.reason) == (1008, True)
        with pytest.raises(TransportEnded):
            await peer.receive()


async def test_close_has_code_1000_by_default() -> None:
    async with open_scripted_peer() as peer:
        await peer.close()
        lost = await peer.connection.wait_closed()
        assert lost is not None
        assert lost.code == 1000


async def test_abort_ends_the_stream_without_a_close_frame() -> None:
    async with open_scripted_peer() as peer:
        await peer.abort()
        lost = await peer.connection.wait_closed()
        assert lost is not None
        assert (lost.code, lost.reason) == (1006, "the connection ended without a close")


async def test_reset_breaks_the_clients_connection() -> None:
    async with open_scripted_peer() as peer:
        peer.reset()
        lost = await peer.connection.wait_closed()
        assert lost is not None
        assert "connection reset by a test" in lost.reason
        assert isinstance(lost.__cause__, trio.BrokenResourceError)


async def test_silence_loses_all_bytes_without_notifying_either_end(autojump_clock: trio.testing.MockClock) -> None:
    async with open_scripted_peer(heartbeat_interval=20, liveness_timeout=1000) as peer:
        peer.go_silent()
        peer.send_text("{not json")
        await trio.sleep(500)
        assert peer.received_nowait() == []
        assert not peer.connection.closed
        assert peer.connection.statistics().messages_received == 1


async def test_wait_ended_returns_how_the_client_ended_the_connection() -> None:
    async with open_bare_peer() as peer:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(_confirm, peer)
            async with open_connection(PEER_URL, "device_001", stream=peer.stream) as connection:
                with trio.move_on_after(0):
                    await connection.run_task("never accepted")
                nursery.start_soon(connection.run_task, "the last")
                await trio.testing.wait_all_tasks_blocked()
                nursery.cancel_scope.cancel()
        # What was sent before is handed out first.
        assert (await peer.receive()).request == "the last"
        assert (await peer.wait_ended()).code == 1006
        # It is told as often as it asks.
        assert (await peer.wait_ended()).code == 1006
        assert peer.received_nowait() == []


async def test_wait_ended_drops_messages_and_returns_the_close() -> None:
    async with open_bare_peer() as peer:
        async with open_raw_client(peer.stream) as client:
            client.send(type="heartbeat", status="ok")
            await client.close()
        ended = await peer.wait_ended()
        assert (ended.code, "closed with 1000" in ended.reason) == (1000, True)


async def test_peer_raises_after_its_block() -> None:
    async with open_scripted_peer() as peer:
        pass
    with trio.fail_after(60), pytest.raises(TransportEnded):
        await peer.receive()
    async with open_bare_peer() as peer, open_raw_client(peer.stream):
        pass
    with trio.fail_after(60):
        assert (await peer.wait_ended()).code == 1006


async def test_cancelling_a_peers_block_ends_the_connection() -> None:
    with trio.CancelScope() as scope:
        async with open_scripted_peer() as peer:
            scope.cancel()
            await trio.sleep_forever()
    assert scope.cancelled_caught
    assert peer.connection.closed
    assert peer.stream.closed


# ---- a faulty stream


def _faulty_pair() -> tuple[FaultyStream, trio.abc.Stream]:
    near, far = trio.testing.memory_stream_pair()
    return FaultyStream(near), far


async def test_faulty_stream_passes_bytes_and_the_end_by_default() -> None:
    faulty, far = _faulty_pair()
    await faulty.send_all(b"there")
    assert await far.receive_some() == b"there"
    await far.send_all(b"and back")
    assert await faulty.receive_some(3) == b"and"
    assert await faulty.receive_some() == b" back"
    await far.aclose()
    assert await faulty.receive_some() == b""
    with pytest.raises(trio.BrokenResourceError):
        await faulty.send_all(b"to nobody")
    await faulty.aclose()
    with pytest.raises(trio.ClosedResourceError):
        await faulty.send_all(b"x")
    with pytest.raises(trio.ClosedResourceError):
        await faulty.receive_some()


async def test_cancelling_a_call_on_a_faulty_stream_loses_nothing() -> None:
    faulty, far = _faulty_pair()
    faulty.stall()
    for call in (faulty.receive_some, faulty.wait_send_all_might_not_block):
        with trio.move_on_after(0) as scope:
            await call()
        assert scope.cancelled_caught
    with trio.move_on_after(0) as scope:
        await faulty.send_all(b"never sent")
    assert scope.cancelled_caught
    faulty.resume()
    await faulty.send_all(b"there")
    await far.send_all(b"and back")
    assert (await far.receive_some(), await faulty.receive_some()) == (b"there", b"and back")


@pytest.fixture(params=["waiting", "later"])
def waiting(request: pytest.FixtureRequest) -> bool:
    """Whether the fault meets a call that waits already, or one that comes later."""
    return bool(request.param == "waiting")


async def _meets(waiting: bool, call: Callable[[], Awaitable[object]], fault: Callable[[], object]) -> object:
    """What a call comes to that meets a fault, or None if it waits on."""
    met: list[object] = []

    async def run() -> None:
        try:
            met.append(await call())
        except (trio.BrokenResourceError, trio.ClosedResourceError) as error:
            met.append(error)

    async with trio.open_nursery() as nursery:
        if not waiting:
            fault()
        nursery.start_soon(run)
        await trio.testing.wait_all_tasks_blocked()
        if waiting:
            assert met == []
            fault()
            await trio.testing.wait_all_tasks_blocked()
        nursery.cancel_scope.cancel()
    return met[0] if met else None


async def test_receiving_from_a_reset_stream_raises(waiting: bool) -> None:
    faulty, _ = _faulty_pair()
    met = await _meets(waiting, faulty.receive_some, faulty.reset)
    assert isinstance(met, trio.BrokenResourceError)
    assert str(met) == "connection reset by a test"


async def test_sending_to_a_reset_stream_raises_also_when_it_is_stalled(waiting: bool) -> None:
    faulty, _ = _faulty_pair()
    faulty.stall()

    async def send() -> None:
        await faulty.send_all(b"x")

    def go_on_and_reset() -> None:
        faulty.reset()
        if not waiting:
            faulty.resume()

    assert isinstance(await _meets(waiting, send, go_on_and_reset), trio.BrokenResourceError)


async def test_bytes_that_arrived_before_a_reset_are_lost() -> None:
    faulty, far = _faulty_pair()
    await far.send_all(b"arrived")
    faulty.reset()
    with pytest.raises(trio.BrokenResourceError):
        await faulty.receive_some()


async def test_silent_stream_receives_nothing_and_no_end(waiting: bool) -> None:
    faulty, far = _faulty_pair()
    if not waiting:
        # What has arrived already is lost as well.
        await far.send_all(b"unheard")
    assert await _meets(waiting, faulty.receive_some, faulty.go_silent) is None
    async with trio.open_nursery() as nursery:

        async def receive() -> None:
            raise AssertionError(f"there came {await faulty.receive_some()!r}")

        nursery.start_soon(receive)
        for _ in range(3):
            await far.send_all(b"unheard")
            await trio.testing.wait_all_tasks_blocked()
        await far.aclose()
        await trio.testing.wait_all_tasks_blocked()
        nursery.cancel_scope.cancel()


async def test_silent_stream_sends_nothing_and_no_end() -> None:
    faulty, far = _faulty_pair()
    faulty.go_silent()
    with trio.testing.assert_checkpoints():
        await faulty.send_all(b"unheard")
    with trio.testing.assert_checkpoints():
        await faulty.aclose()
    assert faulty.closed

    async def receive() -> None:
        raise AssertionError(f"there came {await far.receive_some()!r}")

    async with trio.open_nursery() as nursery:
        nursery.start_soon(receive)
        await trio.testing.wait_all_tasks_blocked()
        nursery.cancel_scope.cancel()


async def test_silent_stream_can_be_reset_and_closed() -> None:
    faulty, _ = _faulty_pair()
    faulty.go_silent()
    assert isinstance(await _meets(True, faulty.receive_some, faulty.reset), trio.BrokenResourceError)
    faulty, _ = _faulty_pair()
    faulty.go_silent()
    async with trio.open_nursery() as nursery:

        async def receive() -> None:
            with trio.fail_after(60), pytest.raises(trio.ClosedResourceError, match="this end was closed"):
                await faulty.receive_some()

        nursery.start_soon(receive)
        await trio.testing.wait_all_tasks_blocked()
        await faulty.aclose()


async def test_sending_to_a_stalled_stream_waits_until_it_resumes() -> None:
    faulty, far = _faulty_pair()
    faulty.stall()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(faulty.send_all, b"later")
        nursery.start_soon(faulty.wait_send_all_might_not_block)
        await trio.testing.wait_all_tasks_blocked()
        assert len(nursery.child_tasks) == 2
        # The other direction goes on.
        await far.send_all(b"at once")
        assert await faulty.receive_some() == b"at once"
        faulty.resume()
        with trio.fail_after(60):
            assert await far.receive_some() == b"later"
    await faulty.send_all(b"again")
    await faulty.wait_send_all_might_not_block()
    assert await far.receive_some() == b"again"


async def test_closing_a_stalled_stream_wakes_waiting_sends() -> None:
    faulty, far = _faulty_pair()
    faulty.stall()
    async with trio.open_nursery() as nursery:

        async def send() -> None:
            with trio.fail_after(60), pytest.raises(trio.ClosedResourceError):
                await faulty.send_all(b"never")

        nursery.start_soon(send)
        await trio.testing.wait_all_tasks_blocked()
        assert not faulty.closed
        await faulty.aclose()
    assert await far.receive_some() == b""


# ---- a server in memory


async def test_memory_server_serves_any_number_of_connections() -> None:
    async with open_memory_server() as server:
        async with open_device_connection(
            server.url, "device_001", system_info=DeviceInfo("device_001", Platform.LINUX), stream=server.connect()
        ):
            for _ in range(3):
                async with open_connection(server.url, "device_001", stream=server.connect()) as connection:
                    assert (await connection.run_task("hello")).unwrap() == {"echo": "hello"}
            assert server.devices == ["device_001"]


async def test_memory_server_takes_a_session_a_token_and_limits() -> None:
    async def session(task: ServerTask) -> str:
        return task.request.upper()

    async with open_memory_server(session=session, token="s3cret", limits=ServerLimits(max_connections=2)) as server:
        async with open_device_connection(
            server.url,
            "device_001",
            system_info=DeviceInfo("device_001", Platform.LINUX),
            token="s3cret",
            stream=server.connect(),
        ):
            async with open_connection(server.url, "device_001", token="s3cret", stream=server.connect()) as connection:
                assert (await connection.run_task("hello")).unwrap() == "HELLO"
                with pytest.raises(ConnectFailed):
                    async with open_connection(server.url, "device_001", token="s3cret", stream=server.connect()):
                        raise AssertionError("not reached")


async def test_end_of_a_memory_server_ends_its_connections() -> None:
    ended: list[ConnectionLost | None] = []

    async def be_a_device(stream: trio.abc.Stream, *, task_status: trio.TaskStatus[None]) -> None:
        system_info = DeviceInfo("device_001", Platform.LINUX)
        async with open_device_connection(PEER_URL, "device_001", system_info=system_info, stream=stream) as device:
            task_status.started()
            ended.append(await device.wait_closed())

    async with trio.open_nursery() as nursery:
        async with open_memory_server() as server:
            await nursery.start(be_a_device, server.connect())
    [lost] = ended
    assert lost is not None
    assert lost.code == 1001


# ---- exceptions of the test's own


OpenEnd: TypeAlias = Callable[[], AbstractAsyncContextManager[object]]
ENDS: dict[str, OpenEnd] = {
    "scripted peer": open_scripted_peer,
    "bare peer": open_bare_peer,
    "memory server": open_memory_server,
}


@pytest.mark.parametrize("open_end", ENDS.values(), ids=ENDS)
@pytest.mark.parametrize(
    "error",
    [
        ValueError("mine"),
        AssertionError("mine"),
        KeyboardInterrupt(),
        ExceptionGroup("mine", [ValueError(1), ExceptionGroup("inner", [KeyError(2)])]),
    ],
    ids=repr,
)
async def test_exception_of_a_test_comes_out_unchanged(open_end: OpenEnd, error: BaseException) -> None:
    cause, context = KeyError("cause"), LookupError("context")
    error.__cause__, error.__context__ = cause, context
    with pytest.raises(type(error)) as caught:
        async with open_end():
            raise error
    assert caught.value is error
    assert error.__cause__ is cause
    assert error.__context__ is context


@pytest.mark.parametrize("open_end", ENDS.values(), ids=ENDS)
async def test_cancellation_of_a_test_passes_through(open_end: OpenEnd) -> None:
    with trio.CancelScope() as scope:
        async with open_end():
            scope.cancel()
            await trio.sleep_forever()
    assert scope.cancelled_caught


async def test_ends_log_no_warnings(caplog: pytest.LogCaptureFixture) -> None:
    for open_end in (open_scripted_peer, open_bare_peer, open_memory_server):
        async with open_end():
            pass
    assert not [record for record in caplog.records if record.levelno > logging.INFO]


async def test_receiving_after_a_rejected_handshake_raises_transport_ended() -> None:
    async with open_bare_peer() as peer:
        peer.reject_with = 403
        with pytest.raises(HandshakeRejected):
            async with open_connection(PEER_URL, "device_001", stream=peer.stream):
                raise AssertionError("not reached")
        assert (await peer.wait_ended()).code == 1006


async def test_resume_after_stalling_twice_wakes_all_sends() -> None:
    near, far = trio.testing.memory_stream_pair()
    faulty = FaultyStream(near)
    async with trio.open_nursery() as nursery:
        faulty.stall()
        nursery.start_soon(faulty.send_all, b"x")
        await trio.testing.wait_all_tasks_blocked()
        faulty.stall()
        faulty.resume()
        with trio.fail_after(60):
            assert await far.receive_some() == b"x"


async def test_faulty_stream_passes_trios_stream_checks() -> None:
    async def make() -> tuple[FaultyStream, trio.abc.Stream]:
        near, far = trio.testing.memory_stream_pair()
        return FaultyStream(near), far

    await trio.testing.check_two_way_stream(make, None)
