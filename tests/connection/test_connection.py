"""A connection in use: many requests at once, the order that attributes errors, heartbeats, what is counted and what is told."""

from __future__ import annotations

import logging
import math
import random
from functools import partial

import attrs
import pytest
import trio
import trio.testing

from galaxy_trio import (
    ConfigError,
    InvalidMessage,
    MessageTooLarge,
    QueueFull,
    RequestRejected,
    TaskStatus,
    open_connection,
)
from galaxy_trio._transport.url import parse_url
from galaxy_trio._transport.websocket import Transport
from galaxy_trio.events import (
    ConnectionEnded,
    DuplicateReplyReceived,
    Event,
    EventsLost,
    HeartbeatRefused,
    InvalidMessageReceived,
    LateReplyReceived,
    ServerErrorReceived,
    UnknownReplyReceived,
)
from galaxy_trio.messages import ClientMessageType, ClientType, ServerMessageType
from galaxy_trio.testing import PEER_URL, ScriptedPeer, open_bare_peer, open_scripted_peer

MANY = 1000


async def test_a_thousand_requests_at_once_each_get_their_own_reply_whatever_the_order(
    autojump_clock: trio.testing.MockClock,
) -> None:
    order = random.Random(7)
    gotten: list[object] = []

    async def ask(peer: ScriptedPeer) -> None:
        gotten.append((await peer.connection.device_info()).hostname)

    async with open_scripted_peer() as peer:
        async with trio.open_nursery() as nursery:
            for _ in range(MANY):
                nursery.start_soon(ask, peer)
            await trio.testing.wait_all_tasks_blocked()
            messages = peer.received_nowait()
            assert len(messages) == peer.connection.statistics().pending == MANY
            order.shuffle(messages)
            for message in messages:
                peer.answer(message)
        assert len(set(gotten)) == MANY
        # The order that replies came in is the order that callers went on in, each with its own.
        assert sorted(map(str, gotten)) == sorted(str(message.request_id) for message in messages)
        assert peer.connection.statistics().pending == 0


async def test_a_thousand_tasks_at_once_each_end_with_their_own_result_whatever_the_order(
    autojump_clock: trio.testing.MockClock,
) -> None:
    order = random.Random(8)
    results: dict[int, object] = {}

    async def run(peer: ScriptedPeer, number: int) -> None:
        results[number] = (await peer.connection.run_task(f"task {number}")).unwrap()

    async with open_scripted_peer() as peer:
        async with trio.open_nursery() as nursery:
            for number in range(MANY):
                nursery.start_soon(run, peer, number)
            await trio.testing.wait_all_tasks_blocked()
            messages = peer.received_nowait()
            assert len(messages) == peer.connection.statistics().pending == MANY
            replies = [partial(peer.acknowledge, message) for message in messages]
            replies += [partial(peer.end, message, message.request) for message in messages]
            order.shuffle(replies)
            for reply in replies:
                reply()
        assert results == {number: f"task {number}" for number in range(MANY)}
        await trio.testing.wait_all_tasks_blocked()
        statistics = peer.connection.statistics()
        assert (statistics.pending, statistics.unanswered, statistics.duplicate_replies) == (0, 0, 0)


async def test_a_second_receiver_is_refused_at_once_and_no_message_is_lost_over_it() -> None:
    client_end, server_end = trio.testing.memory_stream_pair()
    received: list[str | bytes] = []
    client = Transport(client_end, peer="the server", client=True, max_message_size=1000)
    server = Transport(server_end, peer="the client", client=False, max_message_size=1000)

    async def receive_two() -> None:
        received.extend([await client.receive(), await client.receive()])

    async with trio.open_nursery() as nursery:
        await _shake_hands(nursery, client, server)
        async with trio.open_nursery() as receivers:
            receivers.start_soon(receive_two)
            await trio.testing.wait_all_tasks_blocked()
            with pytest.raises(trio.BusyResourceError, match="another task is receiving"):
                await client.receive()
            server.send_nowait("one")
            await trio.testing.wait_all_tasks_blocked()
            with pytest.raises(trio.BusyResourceError):
                await client.receive()
            server.send_nowait("two")
        server.send_nowait("three")
        assert await client.receive() == "three"
        nursery.cancel_scope.cancel()
    assert received == ["one", "two"]


async def _shake_hands(nursery: trio.Nursery, client: Transport, server: Transport) -> None:
    def accept(path: str, headers: list[tuple[bytes, bytes]]) -> int:
        return 101

    nursery.start_soon(client.run_writer)
    nursery.start_soon(server.run_writer)
    async with trio.open_nursery() as handshake:
        handshake.start_soon(partial(nursery.start, partial(server.run_server, accept)))
        handshake.start_soon(partial(nursery.start, partial(client.run_client, parse_url(PEER_URL), [])))


async def test_a_cancelled_receive_loses_no_message() -> None:
    client_end, server_end = trio.testing.memory_stream_pair()
    client = Transport(client_end, peer="the server", client=True, max_message_size=1000)
    server = Transport(server_end, peer="the client", client=False, max_message_size=1000)
    async with trio.open_nursery() as nursery:
        await _shake_hands(nursery, client, server)
        with trio.CancelScope() as scope:
            scope.cancel()
            await client.receive()
        server.send_nowait("kept")
        await trio.testing.wait_all_tasks_blocked()
        with trio.CancelScope() as scope:
            scope.cancel()
            await client.receive()
        assert await client.receive() == "kept"
        nursery.cancel_scope.cancel()


# ---- errors, which name no request


async def _ask_in_turn(
    peer: ScriptedPeer, nursery: trio.Nursery, count: int
) -> tuple[list[object], list[trio.CancelScope]]:
    """So many requests, sent one after the other; how each ends goes into the list."""
    endings: list[object] = [None] * count
    scopes = [trio.CancelScope() for _ in range(count)]

    async def ask(number: int) -> None:
        with scopes[number]:
            try:
                endings[number] = (await peer.connection.device_info(timeout=math.inf)).hostname
            except RequestRejected as rejected:
                endings[number] = rejected.words

    for number in range(count):
        nursery.start_soon(ask, number)
        await trio.testing.wait_all_tasks_blocked()
    return endings, scopes


async def test_an_error_rejects_the_oldest_request_without_a_first_reply() -> None:
    async with open_scripted_peer() as peer, trio.open_nursery() as nursery:
        endings, _ = await _ask_in_turn(peer, nursery, 3)
        first, _second, third = peer.received_nowait()
        peer.answer(first)
        peer.refuse("the second")
        peer.answer(third)
        await trio.testing.wait_all_tasks_blocked()
        assert endings == ["device_info_1", "the second", "device_info_3"]


async def test_an_error_after_a_cancelled_request_belongs_to_that_one_and_not_to_the_next() -> None:
    async with open_scripted_peer() as peer, trio.open_nursery() as nursery:
        endings, scopes = await _ask_in_turn(peer, nursery, 2)
        scopes[0].cancel()
        await trio.testing.wait_all_tasks_blocked()
        peer.refuse("the first, who has gone")
        await trio.testing.wait_all_tasks_blocked()
        assert endings == [None, None]
        assert peer.connection.statistics().late_replies == 1
        peer.refuse("the second")
        await trio.testing.wait_all_tasks_blocked()
        assert endings == [None, "the second"]


async def test_an_error_goes_past_a_cancelled_request_when_a_later_reply_has_come() -> None:
    async with open_scripted_peer() as peer, trio.open_nursery() as nursery:
        endings, scopes = await _ask_in_turn(peer, nursery, 3)
        scopes[0].cancel()
        await trio.testing.wait_all_tasks_blocked()
        _first, second, _third = peer.received_nowait()
        peer.answer(second)
        peer.refuse("the third")
        await trio.testing.wait_all_tasks_blocked()
        assert endings == [None, "device_info_2", "the third"]


async def test_an_error_for_a_heartbeat_hits_no_request(autojump_clock: trio.testing.MockClock) -> None:
    async with open_scripted_peer(heartbeat_interval=30) as peer, trio.open_nursery() as nursery:
        with peer.connection.subscribe() as events:
            endings, _ = await _ask_in_turn(peer, nursery, 1)
            await trio.sleep(30)
            await trio.testing.wait_all_tasks_blocked()
            request, heartbeat = peer.received_nowait()
            assert heartbeat.type is ClientMessageType.HEARTBEAT
            peer.answer(request)
            peer.refuse("client_type does not match")
            await trio.testing.wait_all_tasks_blocked()
            assert endings == ["device_info_1"]
            assert await anext(events) == HeartbeatRefused("device_001", "client_type does not match")


async def test_an_error_rejects_the_oldest_request_with_heartbeats_between(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with open_scripted_peer(heartbeat_interval=30) as peer, trio.open_nursery() as nursery:
        first, _ = await _ask_in_turn(peer, nursery, 1)
        await trio.sleep(30)
        await trio.testing.wait_all_tasks_blocked()
        second, _ = await _ask_in_turn(peer, nursery, 1)
        peer.refuse("the first")
        peer.confirm()
        peer.refuse("the second")
        await trio.testing.wait_all_tasks_blocked()
        assert (first, second) == (["the first"], ["the second"])
        assert peer.connection.statistics().unanswered == 0


async def test_an_error_that_nothing_waits_for_is_an_event() -> None:
    async with open_scripted_peer() as peer:
        with peer.connection.subscribe() as events:
            peer.refuse("out of the blue")
            with trio.fail_after(60):
                assert await anext(events) == ServerErrorReceived("device_001", "out of the blue")
        assert peer.connection.statistics().unattributed_errors == 1


async def test_a_refused_task_never_starts_a_nursery_task() -> None:
    async with open_scripted_peer() as peer:

        async def refuse() -> None:
            await peer.receive()
            peer.refuse("no")

        async with trio.open_nursery() as nursery:
            nursery.start_soon(refuse)
            with pytest.raises(RequestRejected):
                await nursery.start(peer.connection.run_task, "do it")


async def test_starting_a_task_in_a_nursery_returns_its_id_when_the_server_has_accepted_it() -> None:
    async with open_scripted_peer() as peer, trio.open_nursery() as nursery:

        async def accept() -> None:
            task = await peer.receive()
            peer.acknowledge(task)

        nursery.start_soon(accept)
        task_id: str = await nursery.start(partial(peer.connection.run_task, "do it", task_id="t1"))
        assert task_id == "t1"
        assert peer.connection.statistics().pending == 1
        nursery.cancel_scope.cancel()


async def test_a_task_that_ends_before_it_is_acknowledged_counts_as_accepted() -> None:
    async with open_scripted_peer() as peer:

        async def end() -> None:
            task = await peer.receive()
            peer.end(task, "quick")
            peer.acknowledge(task)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(end)
            await nursery.start(peer.connection.run_task, "do it")
        await trio.testing.wait_all_tasks_blocked()
        statistics = peer.connection.statistics()
        assert (statistics.pending, statistics.unanswered) == (0, 0)
        assert (statistics.late_replies, statistics.duplicate_replies, statistics.unknown_replies) == (0, 0, 0)


# ---- what is sent


async def test_heartbeats_say_the_role_and_the_device_and_are_acknowledged(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with open_scripted_peer(heartbeat_interval=30) as peer:
        for number in range(1, 4):
            await trio.sleep(30)
            await trio.testing.wait_all_tasks_blocked()
            [heartbeat] = peer.received_nowait()
            assert (heartbeat.type, heartbeat.status) == (ClientMessageType.HEARTBEAT, TaskStatus.OK)
            assert heartbeat.client_type is ClientType.CONSTELLATION
            assert heartbeat.metadata == {"device_id": "device_001"}
            assert peer.connection.statistics().unanswered == 1
            peer.confirm()
            await trio.testing.wait_all_tasks_blocked()
            statistics = peer.connection.statistics()
            assert (statistics.unanswered, statistics.unknown_replies) == (0, 0)
            assert statistics.messages_received == number + 1


async def test_pings_go_out_when_asked_for_and_their_pongs_count_as_life(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with open_scripted_peer(heartbeat_interval=1e6, ping_interval=10, liveness_timeout=25) as peer:
        with trio.move_on_after(1000):
            await peer.connection.wait_closed()
        assert not peer.connection.closed
    async with open_scripted_peer(heartbeat_interval=1e6, liveness_timeout=25) as peer:
        start = trio.current_time()
        lost = await peer.connection.wait_closed()
        assert lost is not None
        assert trio.current_time() - start == pytest.approx(25)


async def test_a_connection_can_be_asked_whether_its_server_is_alive(autojump_clock: trio.testing.MockClock) -> None:
    async with open_scripted_peer(heartbeat_interval=1e6) as peer:
        assert await peer.connection.is_alive(timeout=5)
        start = trio.current_time()
        peer.go_silent()
        assert not await peer.connection.is_alive(timeout=5)
        assert trio.current_time() - start == pytest.approx(5)
    assert not await peer.connection.is_alive(timeout=5)
    assert trio.current_time() - start < 60


async def test_the_servers_pings_are_answered_and_count_as_life(autojump_clock: trio.testing.MockClock) -> None:
    async with open_scripted_peer(heartbeat_interval=1e6, liveness_timeout=25) as peer:
        for _ in range(100):
            await trio.sleep(20)
            peer.ping()
        assert not peer.connection.closed


async def test_two_clients_of_one_name_do_not_collide() -> None:
    async with open_scripted_peer(client_name="app") as one, open_scripted_peer(client_name="app") as other:
        assert one.connection.client_id != other.connection.client_id
        assert one.connection.client_id.startswith("app-")
        assert one.connection.client_id.endswith("@device_001")
        assert one.connection.device_id == "device_001"


async def test_a_task_carries_its_names() -> None:
    async with open_scripted_peer(client_name="app") as peer, trio.open_nursery() as nursery:
        nursery.start_soon(peer.connection.run_task, "do it")
        task = await peer.receive()
        session, _, task_id = str(task.session_id).partition("@")
        assert (session, len(task_id)) == ("app", 36)
        assert (task.task_name, task.target_id, task.request) == (f"galaxy/app/{task_id}", "device_001", "do it")
        nursery.cancel_scope.cancel()


# ---- what is refused here


async def test_a_task_id_can_be_used_once() -> None:
    async with open_scripted_peer() as peer, trio.open_nursery() as nursery:
        nursery.start_soon(partial(peer.connection.run_task, "do it", task_id="t1"))
        await trio.testing.wait_all_tasks_blocked()
        with pytest.raises(ValueError, match="can be used once"):
            await peer.connection.run_task("again", task_id="t1")
        await peer.answer_all()
        with pytest.raises(ValueError, match="can be used once"):
            await peer.connection.run_task("and again", task_id="t1")
        assert peer.received_nowait() == []


@pytest.mark.parametrize("name", ["", "x" * 65])
async def test_names_that_are_empty_or_too_long_are_refused(name: str) -> None:
    async with open_scripted_peer() as peer:
        with pytest.raises(ConfigError, match="task_id has 1 to 64 characters"):
            await peer.connection.run_task("do it", task_id=name)


@pytest.mark.parametrize("timeout", [-1, math.nan])
async def test_a_timeout_that_is_none_is_refused_before_anything_is_sent(timeout: float) -> None:
    async with open_scripted_peer() as peer:
        with pytest.raises(ValueError, match="a timeout is a number of seconds"):
            await peer.connection.device_info(timeout=timeout)
        assert peer.received_nowait() == []


async def test_a_request_above_the_message_limit_is_refused_before_anything_is_sent() -> None:
    async with open_scripted_peer(max_message_size=2000) as peer:
        with pytest.raises(MessageTooLarge, match="above the limit of 2000"):
            await peer.connection.run_task("é" * 1000)
        await trio.testing.wait_all_tasks_blocked()
        assert peer.received_nowait() == []
        assert peer.connection.statistics().pending == 0


async def test_a_request_that_json_cannot_hold_is_refused_before_anything_is_sent() -> None:
    async with open_scripted_peer() as peer:
        with pytest.raises(InvalidMessage, match="lone surrogate"):
            await peer.connection.run_task("\ud800")
        assert peer.connection.statistics().pending == 0


async def test_one_request_more_than_may_wait_is_refused_before_anything_is_sent() -> None:
    async with open_scripted_peer(max_pending=5) as peer, trio.open_nursery() as nursery:
        for _ in range(5):
            nursery.start_soon(peer.connection.device_info)
        await trio.testing.wait_all_tasks_blocked()
        with pytest.raises(QueueFull, match="5 requests are already pending"):
            await peer.connection.device_info()
        with pytest.raises(QueueFull):
            await peer.connection.run_task("do it")
        assert len(peer.received_nowait()) == 5
        nursery.cancel_scope.cancel()


async def test_more_abandoned_requests_than_have_a_place_are_forgotten_and_counted() -> None:
    async with open_scripted_peer(max_pending=5) as peer:
        for _ in range(12):
            with trio.CancelScope() as scope:
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(peer.connection.device_info)
                    await trio.testing.wait_all_tasks_blocked()
                    scope.cancel()
        statistics = peer.connection.statistics()
        assert (statistics.pending, statistics.unanswered, statistics.forgotten) == (0, 5, 7)


@pytest.mark.parametrize("name", ["", "x" * 1001, "\ud800"], ids=["empty", "long", "no text"])
async def test_names_that_cannot_be_sent_are_refused_before_anything_is_opened(name: str) -> None:
    for device_id, client_id in ((name, None), ("device_001", name)):
        async with open_bare_peer() as peer:
            with pytest.raises(ConfigError, match="_id "):
                async with open_connection(PEER_URL, device_id, client_id=client_id, stream=peer.stream):
                    raise AssertionError("not reached")
            assert peer.stream.closed
            assert peer.path == ""


async def test_callers_who_are_cancelled_together_with_the_connection_get_their_cancellation() -> None:
    # trio runs the tasks of one step in any order: some of these meet a connection that has already been told.
    for _ in range(20):
        async with open_bare_peer() as peer, trio.open_nursery() as nursery:
            nursery.start_soon(_confirm, peer)
            with trio.CancelScope() as scope:
                async with (
                    open_connection(PEER_URL, "device_001", stream=peer.stream) as connection,
                    trio.open_nursery() as callers,
                ):
                    for _ in range(6):
                        callers.start_soon(connection.device_info)
                        callers.start_soon(connection.run_task, "do it")
                    scope.cancel()
            assert scope.cancelled_caught


async def _confirm(peer: ScriptedPeer) -> None:
    await peer.receive()
    peer.confirm()


# ---- what is told


async def test_the_log_tells_of_a_connections_life(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "galaxy_trio")
    async with open_scripted_peer():
        pass
    told = [record.getMessage() for record in caplog.records if "device_001" in record.getMessage()]
    server = "the server for device 'device_001'"
    assert told == [f"connected to {server}", f"registered with {server}", f"closing the connection to {server}"]


async def test_a_connection_shows_who_it_is_and_whether_it_lives() -> None:
    async with open_scripted_peer(client_id="me@device_001") as peer:
        assert repr(peer.connection) == "<Connection 'me@device_001' for device 'device_001', open>"
    assert repr(peer.connection) == "<Connection 'me@device_001' for device 'device_001', closed>"


async def test_what_is_nobodys_is_counted_and_told_in_order() -> None:
    async with open_scripted_peer() as peer:
        with peer.connection.subscribe() as events:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(peer.connection.device_info)
                await trio.testing.wait_all_tasks_blocked()
                nursery.cancel_scope.cancel()
            await peer.answer_all()
            peer.send(ServerMessageType.DEVICE_INFO_RESPONSE, response_id="device_info_1")
            peer.send(ServerMessageType.TASK_END, session_id="never heard of")
            peer.send(ServerMessageType.COMMAND)
            peer.send_text("{")
            await trio.testing.wait_all_tasks_blocked()
            await peer.close(1001, "bye")
            with trio.fail_after(60):
                told: list[Event | EventsLost] = [event async for event in events]
        assert told == [
            LateReplyReceived("device_001", ServerMessageType.DEVICE_INFO_RESPONSE, None),
            DuplicateReplyReceived("device_001", ServerMessageType.DEVICE_INFO_RESPONSE, None),
            UnknownReplyReceived("device_001", ServerMessageType.TASK_END, "never heard of"),
            UnknownReplyReceived("device_001", ServerMessageType.COMMAND, None),
            InvalidMessageReceived("device_001", attrs.asdict(told[4])["problem"]),
            ConnectionEnded("device_001", "the WebSocket was closed with 1001, going away 'bye'", 1001),
        ]
        statistics = peer.connection.statistics()
        assert (statistics.late_replies, statistics.duplicate_replies) == (1, 1)
        assert (statistics.unknown_replies, statistics.invalid_messages) == (2, 1)


async def test_a_subscriber_that_lags_loses_the_oldest_and_nobody_waits_for_it() -> None:
    async with open_scripted_peer() as peer:
        with peer.connection.subscribe(backlog=3) as events:
            for number in range(10):
                peer.refuse(str(number))
            await trio.testing.wait_all_tasks_blocked()
            with trio.fail_after(60):
                assert await anext(events) == EventsLost(7)
                assert await anext(events) == ServerErrorReceived("device_001", "7")


async def test_the_events_of_a_closed_connection_end() -> None:
    async with open_scripted_peer() as peer:
        connection = peer.connection
        with connection.subscribe() as before:
            pass
    with connection.subscribe() as after:
        assert [event async for event in after] == []
    assert before is not after


async def test_a_binary_frame_is_a_broken_message_and_the_connection_lives_on() -> None:
    async with open_scripted_peer() as peer:
        await peer.send_raw(b"\x82\x03abc")
        await trio.testing.wait_all_tasks_blocked()
        assert peer.connection.statistics().invalid_messages == 1
        assert not peer.connection.closed


async def test_the_registration_waits_for_room_and_timeouts_like_any_message() -> None:
    async with open_bare_peer() as peer:
        peer.stream.stall()
        with pytest.raises(trio.TooSlowError):
            async with open_connection(PEER_URL, "device_001", stream=peer.stream, connect_timeout=0.01):
                raise AssertionError("not reached")
        assert peer.stream.closed
