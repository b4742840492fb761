"""Unexpected messages are counted and published as events."""

from __future__ import annotations

import pytest
import trio
import trio.testing

from galaxy_trio import InvalidMessage
from galaxy_trio._codec.codec import decode_server_message
from galaxy_trio.events import (
    ConnectionEnded,
    DuplicateReplyReceived,
    Event,
    EventsLost,
    InvalidMessageReceived,
    LateReplyReceived,
    ServerErrorReceived,
    UnknownReplyReceived,
)
from galaxy_trio.messages import ServerMessageType
from galaxy_trio.testing import open_scripted_peer


async def test_unexpected_messages_are_counted_and_published_in_order() -> None:
    async with open_scripted_peer() as peer:
        with peer.connection.subscribe() as events:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(peer.connection.device_info)
                await trio.testing.wait_all_tasks_blocked()
                nursery.cancel_scope.cancel()
            await peer.answer_all()
            peer.send(ServerMessageType.DEVICE_INFO_RESPONSE, response_id="device_info_1")
            peer.send(ServerMessageType.TASK_END, session_id="unknown")
            peer.send(ServerMessageType.COMMAND)
            peer.send_text("{")
            await trio.testing.wait_all_tasks_blocked()
            await peer.close(1001, "bye")
            with trio.fail_after(60):
                published: list[Event | EventsLost] = [event async for event in events]
        with pytest.raises(InvalidMessage) as invalid:
            decode_server_message("{")
        assert published == [
            LateReplyReceived("device_001", ServerMessageType.DEVICE_INFO_RESPONSE, None),
            DuplicateReplyReceived("device_001", ServerMessageType.DEVICE_INFO_RESPONSE, None),
            UnknownReplyReceived("device_001", ServerMessageType.TASK_END, "unknown"),
            UnknownReplyReceived("device_001", ServerMessageType.COMMAND, None),
            InvalidMessageReceived("device_001", str(invalid.value)),
            ConnectionEnded("device_001", "the WebSocket was closed with 1001, going away 'bye'", 1001),
        ]
        statistics = peer.connection.statistics()
        assert (statistics.late_replies, statistics.duplicate_replies) == (1, 1)
        assert (statistics.unknown_replies, statistics.invalid_messages) == (2, 1)


async def test_a_lagging_subscriber_loses_the_oldest_events_without_delaying_the_receiver() -> None:
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


async def test_a_binary_frame_is_a_broken_message_that_does_not_end_the_connection() -> None:
    async with open_scripted_peer() as peer:
        await peer.send_raw(b"\x82\x03abc")
        await trio.testing.wait_all_tasks_blocked()
        assert peer.connection.statistics().invalid_messages == 1
        assert not peer.connection.closed
