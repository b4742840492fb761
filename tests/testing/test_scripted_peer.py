"""The scripted peer: messages in both directions, and the ends of a connection."""

from __future__ import annotations

import json

import pytest
import trio
import trio.testing

from galaxy_trio import (
    ConnectionOptions,
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
from galaxy_trio.messages import ClientMessageType, ClientType, ServerMessageType
from galaxy_trio.testing import PEER_URL, ScriptedPeer, open_bare_peer, open_scripted_peer
from tests.server.support.raw_client import open_raw_client


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
    async with open_scripted_peer(options=ConnectionOptions(heartbeat_interval=50)) as peer:
        assert (await peer.receive()).type is ClientMessageType.HEARTBEAT
        assert trio.current_time() == pytest.approx(50)
    async with open_scripted_peer(options=ConnectionOptions(heartbeat_interval=1000)) as peer:
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
    async with (
        open_scripted_peer(options=ConnectionOptions(max_message_size=5000), max_pending=1) as peer,
        trio.open_nursery() as nursery,
    ):
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
    async with open_scripted_peer(
        options=ConnectionOptions(heartbeat_interval=1000, liveness_timeout=50, ping_interval=20)
    ) as peer:
        # Each ping is answered, which counts as received bytes.
        await trio.sleep(500)
        assert not peer.connection.closed
        assert peer.received_nowait() == []


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
    async with (
        open_scripted_peer(options=ConnectionOptions(heartbeat_interval=30)) as peer,
        trio.open_nursery() as nursery,
    ):

        async def run(request: str) -> None:
            results.append((await peer.connection.run_task(request)).unwrap())

        await trio.sleep(31)
        for request in ("a", "b", "c"):
            nursery.start_soon(run, request)
        await peer.answer_all()
        assert sorted(map(str, results)) == ["a", "b", "c"]
        statistics = peer.connection.statistics()
        # The heartbeat got a reply too.
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
    """Start a task that the peer accepts and ends last."""

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
        # Missing ids are generated, a new one each time.
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
    async with open_scripted_peer(options=ConnectionOptions(heartbeat_interval=1000, liveness_timeout=50)) as peer:
        for _ in range(10):
            await trio.sleep(40)
            peer.ping()
        assert not peer.connection.closed
        assert peer.received_nowait() == []
        await peer.connection.wait_closed()


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
    async with open_scripted_peer(options=ConnectionOptions(heartbeat_interval=20, liveness_timeout=1000)) as peer:
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
        # Messages from before the end are received first.
        assert (await peer.receive()).request == "the last"
        assert (await peer.wait_ended()).code == 1006
        # Every call raises.
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


async def test_receiving_after_a_rejected_handshake_raises_transport_ended() -> None:
    async with open_bare_peer() as peer:
        peer.reject_with = 403
        with pytest.raises(HandshakeRejected):
            async with open_connection(PEER_URL, "device_001", stream=peer.stream):
                raise AssertionError("not reached")
        assert (await peer.wait_ended()).code == 1006
