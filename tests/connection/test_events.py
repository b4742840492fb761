"""Events reach every subscriber, and a lagging subscriber delays nothing and learns of its losses."""

from __future__ import annotations

import pytest
import trio
import trio.testing

from galaxy_trio.events import (
    BACKLOG,
    Event,
    EventFanOut,
    EventsLost,
    EventStream,
    InformationUpdated,
    ServerErrorReceived,
    TaskEnded,
    TaskOutcome,
)
from galaxy_trio.messages import DeviceInfo
from tests.support.memory import traced_memory


def event(number: int) -> Event:
    return ServerErrorReceived("device_001", str(number))


def events(*numbers: int) -> list[Event]:
    return [event(number) for number in numbers]


async def rest(stream: EventStream[Event]) -> list[Event | EventsLost]:
    """Return the remaining events of a stream that ends."""
    with trio.fail_after(60):
        return [one async for one in stream]


def published(fan_out: EventFanOut[Event], count: int, first: int = 1) -> None:
    for number in range(first, first + count):
        fan_out.publish(event(number))


async def test_every_subscriber_receives_every_event_in_order() -> None:
    fan_out = EventFanOut[Event]()
    with fan_out.subscribe() as one, fan_out.subscribe() as another:
        published(fan_out, 3)
        fan_out.end()
        assert await rest(one) == events(1, 2, 3)
        assert await rest(another) == events(1, 2, 3)


async def test_a_subscriber_receives_events_from_its_subscription_on() -> None:
    fan_out = EventFanOut[Event]()
    published(fan_out, 2)
    with fan_out.subscribe() as stream:
        published(fan_out, 1, first=3)
        fan_out.end()
        assert await rest(stream) == events(3)


async def test_only_a_subscriber_that_has_left_receives_nothing_more() -> None:
    fan_out = EventFanOut[Event]()
    with fan_out.subscribe() as stays:
        with fan_out.subscribe() as leaves:
            fan_out.publish(event(1))
        fan_out.publish(event(2))
        fan_out.end()
        leaves._end()
        assert await rest(leaves) == events(1)
        assert await rest(stays) == events(1, 2)


async def test_an_exception_ends_a_subscription() -> None:
    fan_out = EventFanOut[Event]()
    with pytest.raises(ZeroDivisionError), fan_out.subscribe() as stream:
        raise ZeroDivisionError
    fan_out.publish(event(1))
    stream._end()
    assert await rest(stream) == []


async def test_a_full_backlog_loses_nothing() -> None:
    fan_out = EventFanOut[Event]()
    with fan_out.subscribe(backlog=3) as stream:
        published(fan_out, 3)
        fan_out.end()
        assert await rest(stream) == events(1, 2, 3)


async def test_a_lagging_subscriber_loses_the_oldest_events_and_learns_their_number_once() -> None:
    fan_out = EventFanOut[Event]()
    with fan_out.subscribe(backlog=3) as stream:
        published(fan_out, 7)
        fan_out.end()
        assert await rest(stream) == [EventsLost(4), *events(5, 6, 7)]


async def test_a_second_lag_is_counted_from_one_again() -> None:
    fan_out = EventFanOut[Event]()
    with fan_out.subscribe(backlog=2) as stream:
        published(fan_out, 4)
        assert [await anext(stream), await anext(stream)] == [EventsLost(2), event(3)]
        published(fan_out, 2, first=5)
        fan_out.end()
        assert await rest(stream) == [EventsLost(1), *events(5, 6)]


async def test_a_loss_while_reading_is_reported_in_its_place() -> None:
    fan_out = EventFanOut[Event]()
    with fan_out.subscribe(backlog=2) as stream:
        published(fan_out, 2)
        assert await anext(stream) == event(1)
        published(fan_out, 2, first=3)
        fan_out.end()
        assert await rest(stream) == [EventsLost(1), *events(3, 4)]


async def test_a_lagging_subscriber_does_not_affect_others() -> None:
    fan_out = EventFanOut[Event]()
    with fan_out.subscribe(backlog=1) as lags, fan_out.subscribe(backlog=5) as keeps_up:
        published(fan_out, 5)
        fan_out.end()
        assert await rest(lags) == [EventsLost(4), event(5)]
        assert await rest(keeps_up) == events(1, 2, 3, 4, 5)


async def test_the_default_backlog_is_1024_events() -> None:
    fan_out = EventFanOut[Event]()
    with fan_out.subscribe() as stream:
        published(fan_out, BACKLOG + 1)
        fan_out.end()
        received = await rest(stream)
    assert BACKLOG == 1024
    assert (received[0], len(received)) == (EventsLost(1), BACKLOG + 1)


async def test_an_event_wakes_a_waiting_subscriber() -> None:
    fan_out = EventFanOut[Event]()
    received: list[Event | EventsLost] = []

    async def wait(stream: EventStream[Event]) -> None:
        received.append(await anext(stream))

    with trio.fail_after(60), fan_out.subscribe() as stream:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(wait, stream)
            await trio.testing.wait_all_tasks_blocked()
            assert received == []
            fan_out.publish(event(1))
    assert received == events(1)


async def test_each_event_reaches_one_reader_of_a_stream_and_the_end_reaches_all() -> None:
    fan_out = EventFanOut[Event]()
    received: list[Event | EventsLost] = []

    async def read(stream: EventStream[Event]) -> None:
        async for one in stream:
            received.append(one)  # noqa: PERF401  # what has come is looked at while this waits

    with trio.fail_after(60), fan_out.subscribe() as stream:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(read, stream)
            nursery.start_soon(read, stream)
            await trio.testing.wait_all_tasks_blocked()
            published(fan_out, 3)
            await trio.testing.wait_all_tasks_blocked()
            assert sorted(map(str, received)) == sorted(map(str, events(1, 2, 3)))
            fan_out.end()


async def test_a_cancelled_wait_loses_no_event() -> None:
    fan_out = EventFanOut[Event]()
    with trio.fail_after(60), fan_out.subscribe() as stream:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(anext, stream)
            await trio.testing.wait_all_tasks_blocked()
            nursery.cancel_scope.cancel()
        fan_out.publish(event(1))
        assert await anext(stream) == event(1)


async def test_a_wait_cancelled_in_the_step_of_its_event_loses_nothing() -> None:
    fan_out = EventFanOut[Event]()
    received: list[Event | EventsLost] = []

    async def wait(stream: EventStream[Event], scope: trio.CancelScope) -> None:
        with scope:
            received.append(await anext(stream))

    for order in ("cancel first", "publish first"):
        received.clear()
        scope = trio.CancelScope()
        with trio.fail_after(60), fan_out.subscribe() as stream:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(wait, stream, scope)
                await trio.testing.wait_all_tasks_blocked()
                if order == "cancel first":
                    scope.cancel()
                fan_out.publish(event(1))
                scope.cancel()
            stream._end()
            assert received + await rest(stream) == events(1)


async def test_an_already_cancelled_wait_takes_no_event() -> None:
    fan_out = EventFanOut[Event]()
    with fan_out.subscribe() as stream:
        published(fan_out, 2)
        with trio.move_on_after(0) as scope:
            await anext(stream)
        assert scope.cancelled_caught
        fan_out.end()
        assert await rest(stream) == events(1, 2)


async def test_the_end_wakes_waiting_subscribers() -> None:
    fan_out = EventFanOut[Event]()
    ended = 0

    async def read(stream: EventStream[Event]) -> None:
        nonlocal ended
        assert [one async for one in stream] == []
        ended += 1

    with trio.fail_after(60), fan_out.subscribe() as one, fan_out.subscribe() as another:
        async with trio.open_nursery() as nursery:
            for stream in (one, one, another):
                nursery.start_soon(read, stream)
            await trio.testing.wait_all_tasks_blocked()
            assert ended == 0
            fan_out.end()
    assert ended == 3


async def test_an_ended_stream_stays_ended() -> None:
    fan_out = EventFanOut[Event]()
    with fan_out.subscribe() as stream:
        fan_out.publish(event(1))
        fan_out.end()
        assert await rest(stream) == events(1)
        assert await rest(stream) == []


async def test_a_subscription_after_the_end_is_an_ended_stream() -> None:
    fan_out = EventFanOut[Event]()
    published(fan_out, 2)
    fan_out.end()
    with fan_out.subscribe() as stream:
        assert await rest(stream) == []


@pytest.mark.parametrize("backlog", [0, -1])
def test_a_backlog_below_one_is_refused(backlog: int) -> None:
    with pytest.raises(ValueError, match="at least one event"), EventFanOut[Event]().subscribe(backlog=backlog):
        raise AssertionError("not reached")


async def test_a_subscription_ends_with_its_block() -> None:
    fan_out = EventFanOut[Event]()
    with fan_out.subscribe() as stream:
        pass
    with trio.fail_after(60):
        assert [event async for event in stream] == []


async def test_backlog_of_information_is_bounded_in_bytes() -> None:
    fan_out = EventFanOut[Event]()
    with traced_memory() as memory, fan_out.subscribe() as one, fan_out.subscribe() as another:
        before = memory.now
        fan_out.publish(event(1))
        for number in range(500):
            info = DeviceInfo(str(number), "linux", custom_metadata={"text": "x" * 200_000})
            fan_out.publish(InformationUpdated("device_001", info))
        assert memory.now - before < 18 * 2**20
        assert await anext(one) == await anext(another)
        fan_out.publish(event(2))
        fan_out.end()
        kept = await rest(one)
        assert len(kept) == len(await rest(another))
        assert 80 < len(kept) < 85
        assert isinstance(kept[-2], InformationUpdated)
        assert kept[-2].information.device_id == "499"


async def test_backlog_counts_the_lost_events_and_has_room_again_when_they_are_read() -> None:
    fan_out = EventFanOut[Event]()
    info = DeviceInfo("a", "linux", custom_metadata={"text": "x" * 6_000_000})
    with fan_out.subscribe() as stream:
        for _ in range(3):
            published(fan_out, 1)
            fan_out.publish(InformationUpdated("device_001", info))
        assert await anext(stream) == EventsLost(2)
        for _ in range(4):
            await anext(stream)
        for _ in range(2):
            fan_out.publish(InformationUpdated("device_001", info))
        fan_out.end()
        assert len(await rest(stream)) == 2


async def test_information_larger_than_the_backlog_is_the_only_event_in_it() -> None:
    fan_out = EventFanOut[Event]()
    with fan_out.subscribe() as stream:
        published(fan_out, 2)
        info = DeviceInfo("a", "linux", custom_metadata={"text": "x" * 2**25})
        fan_out.publish(InformationUpdated("device_001", info))
        fan_out.end()
        assert await rest(stream) == [EventsLost(2), InformationUpdated("device_001", info)]


async def test_errors_of_60_mib_take_no_memory_in_a_backlog() -> None:
    fan_out = EventFanOut[Event]()
    error = "x" * 60 * 2**20
    with traced_memory() as memory, fan_out.subscribe():
        before = memory.now
        for number in range(BACKLOG):
            fan_out.publish(TaskEnded("device_001", str(number), TaskOutcome.FAILED, error))
        assert memory.now - before < 4 * 2**20
