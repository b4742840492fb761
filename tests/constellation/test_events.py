"""Events: every kind, in order, from all connections of a device. Nothing waits for a subscriber."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING

import pytest
import trio
import trio.testing

from galaxy_trio import ConnectionOptions
from galaxy_trio._concurrency.background import open_background
from galaxy_trio.constellation.constellation import Constellation, open_constellation
from galaxy_trio.events import (
    MAX_TEXT,
    DeviceConnected,
    DeviceDisconnected,
    DeviceFailed,
    DeviceNeedsAttention,
    DeviceStatus,
    DuplicateReplyReceived,
    Event,
    EventsLost,
    HeartbeatRefused,
    InformationUpdated,
    InvalidMessageReceived,
    LateReplyReceived,
    ServerErrorReceived,
    StatusChanged,
    TaskAbandoned,
    TaskAcknowledged,
    TaskEnded,
    TaskOutcome,
    TaskQueued,
    TaskSubmitted,
    UnknownReplyReceived,
)
from galaxy_trio.messages import ServerMessageType
from tests.constellation.support.calls import open_world
from tests.constellation.support.fleet import Journal, device_config, recording
from tests.constellation.support.scripted_server import LongestWaits, Reaction, open_scripted_server

if TYPE_CHECKING:
    from trio.testing import MockClock

D, C, R, I, B, F = (  # noqa: E741  # read as a row
    DeviceStatus.DISCONNECTED,
    DeviceStatus.CONNECTING,
    DeviceStatus.REGISTERING,
    DeviceStatus.IDLE,
    DeviceStatus.BUSY,
    DeviceStatus.FAILED,
)
CONNECTING = [C, R, InformationUpdated, I, DeviceConnected]


def story(journal: Journal, device_id: str) -> list[object]:
    """Summarise a device's events: the new status of a change, the class of others."""
    return [
        event.status if isinstance(event, StatusChanged) else type(event)
        for event in journal.events
        if isinstance(event, Event) and event.device_id == device_id
    ]


async def test_events_of_a_device_are_published_in_order(autojump_clock: MockClock) -> None:
    async with open_world("a", "b") as world:
        fleet, constellation = world.fleet, world.constellation
        device = constellation.devices["a"]
        async with recording(constellation) as journal:
            await device.reconnect()
            await device.run_task("echo 1")
            await device.run_task("fail")
            await trio.testing.wait_all_tasks_blocked()
            await fleet.stop_server()
            await trio.sleep(0.001)
            fleet_is_back = trio.current_time()
            await fleet.start_server()
            await fleet.add_device("a")
            await device.wait_connected()
            await device.disconnect()
            assert trio.current_time() > fleet_is_back
        task = [TaskQueued, B, TaskSubmitted, TaskAcknowledged, TaskEnded]
        published = story(journal, "a")
        assert published == [
            *[D, DeviceDisconnected, *CONNECTING],
            *[*task, I],
            # The information is requested before the slot is free.
            *[*task, InformationUpdated, I],
            *[D, DeviceDisconnected, *CONNECTING],
            *[D, DeviceDisconnected],
        ]
        assert set(story(journal, "b")) <= {D, C, R, I, DeviceDisconnected, DeviceConnected, InformationUpdated}


async def test_disconnected_event_has_the_reason_and_the_time_of_the_next_attempt(autojump_clock: MockClock) -> None:
    async with open_scripted_server() as server:
        server.script = [OSError("no route"), 403, Reaction.RESET_AFTER_REGISTRATION, Reaction.NO_CONFIRMATION]
        async with (
            open_constellation(
                [device_config("a")],
                connect=server.connect,
                random=LongestWaits(),
                options=ConnectionOptions(register_timeout=5),
            ) as constellation,
            recording(constellation) as journal,
        ):
            now = datetime.now(UTC)
            await constellation.wait_connected()
        published = story(journal, "a")
        end = published.index(DeviceConnected) + 1
        wait = [D, DeviceDisconnected]
        assert published[:end] in (
            [C, *wait, C, *wait, DeviceNeedsAttention, C, R, *wait, C, R, *wait, *CONNECTING],
            # The information may have arrived before the loss or not: that is random.
            [C, *wait, C, *wait, DeviceNeedsAttention, *CONNECTING],
        )
        waits = [event for event in journal.of(DeviceDisconnected) if isinstance(event, DeviceDisconnected)]
        assert [event.reason for event in waits[:2]] == [
            "cannot connect: no route",
            "ws://server.test:80/ws answered the WebSocket handshake with HTTP status 403: is the token right?",
        ]
        seconds = [(event.next_try - now).total_seconds() for event in waits[:2] if event.next_try is not None]
        assert seconds == pytest.approx([1, 300], abs=5)


async def test_device_failed_is_the_last_event_of_a_device_that_is_given_up(autojump_clock: MockClock) -> None:
    async with open_scripted_server() as server:
        server.then = 503
        async with (
            open_constellation([device_config("a", max_retries=1)], connect=server.connect) as constellation,
            recording(constellation) as journal,
        ):
            device = constellation.devices["a"]
            await device.wait_status(DeviceStatus.FAILED)
            await trio.sleep(1000)
            server.then = Reaction.ACCEPT
            await device.reconnect()
        assert story(journal, "a") == [
            C,
            D,
            DeviceDisconnected,
            C,
            D,
            DeviceDisconnected,
            F,
            DeviceFailed,
            D,
            *CONNECTING,
        ]
        [failed] = journal.of(DeviceFailed)
        assert isinstance(failed, DeviceFailed)
        assert "HTTP status 503" in failed.reason


async def test_departure_of_a_device_is_published_as_a_loss(autojump_clock: MockClock) -> None:
    async with open_world("a") as world:
        fleet, constellation = world.fleet, world.constellation
        async with recording(constellation) as journal:
            await fleet.remove_device("a")
            with trio.move_on_after(3):
                await constellation.devices["a"].run_task("echo 1")
            assert constellation.devices["a"].status is not DeviceStatus.IDLE
        lost = journal.of(DeviceDisconnected)[0]
        assert isinstance(lost, DeviceDisconnected)
        assert lost.next_try is not None
        published = story(journal, "a")
        assert published[:2] == [TaskQueued, B]
        assert D in published
        assert published[-1] is TaskEnded


async def test_events_of_an_abandoned_task_continue_until_its_end(autojump_clock: MockClock) -> None:
    async with open_world("a") as world:
        fleet, constellation = world.fleet, world.constellation
        async with recording(constellation) as journal:
            with trio.move_on_after(1):
                await constellation.devices["a"].run_task("wait", on_cancel="abandon", task_id="t")
            fleet.work.finish.set()
            await trio.sleep(1)
        published = story(journal, "a")
        assert published == [TaskQueued, B, TaskSubmitted, TaskAcknowledged, TaskAbandoned, TaskEnded, I]
        assert journal.of(TaskEnded) == [TaskEnded("a", "t", TaskOutcome.COMPLETED)]


async def test_unsolicited_messages_on_all_connections_of_a_device_are_published(autojump_clock: MockClock) -> None:
    async with open_scripted_server() as server:
        async with (
            open_constellation([device_config("a")], connect=server.connect) as constellation,
            recording(constellation) as journal,
            open_background() as nursery,
        ):
            await constellation.wait_connected()
            nursery.start_soon(constellation.devices["a"].run_task, "goes on")
            await trio.testing.wait_all_tasks_blocked()
            supervised, of_task = (each.peer for each in server.attempts)
            for peer in (supervised, of_task):
                assert peer is not None
                journal.events.clear()
                peer.send_text("no message at all")
                peer.send(ServerMessageType.TASK_END, session_id="unknown")
                peer.send(ServerMessageType.DEVICE_INFO_RESPONSE, response_id="unknown")
                if peer is supervised:
                    peer.refuse("out of the blue")
                    peer.send(ServerMessageType.DEVICE_INFO_RESPONSE, response_id="device_info_1", result={})
                await trio.testing.wait_all_tasks_blocked()
                assert [type(event) for event in journal.events] == [
                    InvalidMessageReceived,
                    UnknownReplyReceived,
                    UnknownReplyReceived,
                    *([ServerErrorReceived, DuplicateReplyReceived] if peer is supervised else []),
                ]
                assert all(isinstance(event, Event) and event.device_id == "a" for event in journal.events)


async def test_late_reply_and_refused_heartbeat_are_published(autojump_clock: MockClock) -> None:
    async with open_scripted_server() as server:
        async with (
            open_constellation(
                [device_config("a")],
                connect=server.connect,
                options=ConnectionOptions(heartbeat_interval=7),
                abandon_timeout=5,
            ) as constellation,
            recording(constellation) as journal,
        ):
            await constellation.wait_connected()
            server.refuse_heartbeats = True
            await trio.sleep(8)
            assert journal.of(HeartbeatRefused) == [HeartbeatRefused("a", "not now")]
            server.refuse_heartbeats = False
            with trio.move_on_after(1):
                await constellation.devices["a"].run_task("given up", on_cancel="abandon", task_id="t")
            await trio.sleep(6)
            server.peer.end(server.tasks[0])
            await trio.testing.wait_all_tasks_blocked()
        assert journal.of(LateReplyReceived) == [LateReplyReceived("a", ServerMessageType.TASK_END, "galaxy_trio@t")]
        words = "it did not end within 5 s"
        assert journal.of(TaskEnded) == [TaskEnded("a", "t", TaskOutcome.UNKNOWN, words)]


async def test_text_of_the_server_in_an_event_is_shortened(autojump_clock: MockClock) -> None:
    long = "é" * 1_000_000
    async with open_scripted_server() as server:
        async with (
            open_constellation([device_config("a")], connect=server.connect) as constellation,
            recording(constellation) as journal,
        ):
            await constellation.wait_connected()
            server.peer.refuse(long)
            server.peer.send(ServerMessageType.TASK_END, session_id=long)
            await trio.testing.wait_all_tasks_blocked()
            server.then = long
            server.peer.reset()
            await trio.sleep(10)
            assert len(constellation.devices["a"].statistics().problem or "") < MAX_TEXT
        [error], [unknown] = journal.of(ServerErrorReceived), journal.of(UnknownReplyReceived)
        assert isinstance(error, ServerErrorReceived)
        assert isinstance(unknown, UnknownReplyReceived)
        assert error.words == "é" * (MAX_TEXT - 1) + "…"
        assert unknown.session_id == error.words
        assert all(len(repr(event)) < 3 * MAX_TEXT for event in journal.events)


async def test_lagging_subscriber_loses_the_oldest_events_and_receives_their_number(autojump_clock: MockClock) -> None:
    async with open_world("a") as world:
        constellation = world.constellation
        async with recording(constellation) as journal, constellation.subscribe(backlog=4) as lagging:
            for number in range(10):
                await constellation.devices["a"].run_task(f"echo {number}")
            await trio.testing.wait_all_tasks_blocked()
            received = [await anext(lagging) for _ in range(5)]
            assert received == [EventsLost(len(journal.events) - 4), *journal.events[-4:]]
            await constellation.devices["a"].run_task("echo")
            await trio.testing.wait_all_tasks_blocked()
            assert isinstance(await anext(lagging), EventsLost)


async def test_slow_subscriber_does_not_affect_others(autojump_clock: MockClock) -> None:
    async with open_world("a", "b") as world, open_background() as nursery:
        constellation = world.constellation

        async def read_slowly(seconds: float) -> None:
            async with constellation.subscribe() as events:
                async for _ in events:
                    await trio.sleep(seconds)

        async with recording(constellation) as journal:
            nursery.start_soon(read_slowly, 10_000)
            nursery.start_soon(read_slowly, 1)
            await trio.testing.wait_all_tasks_blocked()
            before = trio.current_time()
            async with trio.open_nursery() as tasks:
                for number in range(300):
                    tasks.start_soon(constellation.run_task, f"echo {number}")
            assert trio.current_time() == before
        assert len(journal.of(TaskEnded)) == 300
        assert not any(isinstance(event, EventsLost) for event in journal.events)


async def test_subscribers_receive_events_only_during_their_block(autojump_clock: MockClock) -> None:
    async with open_world("a") as world:
        constellation = world.constellation
        device = constellation.devices["a"]
        problem = ValueError("the subscriber's own")
        with pytest.raises(ValueError, match="own") as caught:
            async with constellation.subscribe():
                raise problem
        assert caught.value is problem
        with trio.move_on_after(1) as giving_up:
            async with constellation.subscribe() as events:
                await anext(events)
        assert giving_up.cancelled_caught
        async with constellation.subscribe() as first:
            await device.run_task("echo 1", task_id="1")
            async with constellation.subscribe() as second:
                await device.run_task("echo 2", task_id="2")
                assert await anext(second) == TaskQueued("a", "2")
            # A subscriber that has left receives no more events, and keeps its backlog.
            await device.run_task("echo 3", task_id="3")
            rest = [event async for event in second]
            assert TaskQueued("a", "3") not in rest
            assert TaskEnded("a", "2", TaskOutcome.COMPLETED) in rest
            assert await anext(first) == TaskQueued("a", "1")
        with pytest.raises(ValueError, match="at least one event"):
            async with constellation.subscribe(backlog=0):
                raise AssertionError("not reached")


async def test_event_stream_ends_with_the_constellation_after_the_events_of_its_closing(
    autojump_clock: MockClock,
) -> None:
    async with open_scripted_server() as server, open_background() as nursery:
        ended: list[list[object]] = []

        async def read(constellation: Constellation) -> None:
            async with constellation.subscribe() as events:
                ended.append([event async for event in events])

        async with open_constellation([device_config("a")], connect=server.connect) as constellation:
            nursery.start_soon(read, constellation)
            await constellation.wait_connected()
        await trio.testing.wait_all_tasks_blocked()
        [events] = ended
        assert isinstance(events[-1], DeviceDisconnected)
        assert isinstance(events[-2], StatusChanged)
        assert (events[-2].status, events[-1].next_try) == (D, None)
        async with constellation.subscribe() as late:
            assert [event async for event in late] == []
