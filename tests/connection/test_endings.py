"""Every request ends in exactly one way, and leaves nothing pending."""

from __future__ import annotations

import json
import math
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import TypeAlias

import attrs
import pytest
import trio
import trio.testing

from galaxy_trio import Connection, ConnectionLost, ConnectionOptions, InvalidMessage, RequestRejected, RequestTimeout
from galaxy_trio._transport.send_buffer import HIGH_WATER_MARK
from galaxy_trio.testing import ScriptedPeer, open_scripted_peer
from tests.connection.support.cancellation import CancelAtStep

Ask: TypeAlias = Callable[..., Awaitable[object]]


async def _device_info(connection: Connection, timeout: float = math.inf) -> object:
    return (await connection.device_info(timeout=timeout)).hostname


async def _run_task(connection: Connection, timeout: float = math.inf) -> object:
    return (await connection.run_task("do it", timeout=timeout)).unwrap()


@pytest.fixture(params=[_device_info, _run_task], ids=["device_info", "run_task"])
def ask(request: pytest.FixtureRequest) -> Ask:
    """A kind of request that a caller can make."""
    kind: Ask = request.param
    return kind


@attrs.define
class Caller:
    """A task that makes a request, with the outcomes of its requests."""

    scope: trio.CancelScope = attrs.field(factory=trio.CancelScope)
    endings: list[object] = attrs.field(factory=list[object])

    async def call(self, ask: Ask, connection: Connection, timeout: float = math.inf) -> None:
        with self.scope:
            try:
                self.endings.append(await ask(connection, timeout))
            except (Exception, trio.Cancelled) as error:
                self.endings.append(error)
                raise
            finally:
                assert len(self.endings) == 1

    @property
    def ending(self) -> object:
        [ending] = self.endings
        return ending


async def _call(caller: Caller, ask: Ask, connection: Connection, timeout: float = math.inf) -> None:
    # Exceptions are collected in caller.endings.
    with suppress(Exception):
        await caller.call(ask, connection, timeout)


def _nothing_waits(connection: Connection) -> None:
    statistics = connection.statistics()
    assert (statistics.pending, statistics.unanswered) == (0, 0)


async def _ask_once(peer: ScriptedPeer, ask: Ask, then: Callable[[], Awaitable[None]]) -> object:
    """Make a request, act once it has been sent, and return its outcome."""
    caller = Caller()
    with trio.fail_after(1000):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(_call, caller, ask, peer.connection)
            await trio.testing.wait_all_tasks_blocked()
            await then()
    return caller.ending


async def test_a_reply_ends_a_request(ask: Ask) -> None:
    async with open_scripted_peer() as peer:
        assert await _ask_once(peer, ask, peer.answer_all) in ("device_info_1", "do it")
        _nothing_waits(peer.connection)


async def test_a_rejection_ends_a_request_immediately_with_the_servers_words(ask: Ask) -> None:
    async with open_scripted_peer() as peer:

        async def refuse() -> None:
            peer.refuse("not today")

        ending = await _ask_once(peer, ask, refuse)
        assert isinstance(ending, RequestRejected)
        assert ending.words == "not today"
        assert "not today" in str(ending)
        assert "'device_001'" in str(ending)
        _nothing_waits(peer.connection)


@pytest.mark.parametrize(
    "breakage",
    [{"status": 5}, {"messages": "no list"}, {"result": math.nan}, {"error": ["no", "string"]}, {"task_name": False}],
    ids=str,
)
async def test_a_broken_reply_ends_a_request_but_not_the_connection(ask: Ask, breakage: dict[str, object]) -> None:
    async with open_scripted_peer() as peer:

        async def reply_broken() -> None:
            [message] = peer.received_nowait()
            type_ = "device_info_response" if message.request_id else "task_end"
            reply = {"type": type_, "status": "ok", "response_id": message.request_id, "session_id": message.session_id}
            peer.send_json({**reply, **breakage})

        ending = await _ask_once(peer, ask, reply_broken)
        assert isinstance(ending, InvalidMessage)
        assert "is broken" in str(ending)
        assert peer.connection.statistics().pending == 0
        assert await _ask_once(peer, ask, peer.answer_all) in ("device_info_2", "do it")
        _nothing_waits(peer.connection)


async def test_a_broken_acknowledgement_ends_a_task() -> None:
    async with open_scripted_peer() as peer:

        async def acknowledge_broken() -> None:
            [task] = peer.received_nowait()
            peer.send_json({"type": "heartbeat", "status": "perhaps", "session_id": task.session_id})

        assert isinstance(await _ask_once(peer, _run_task, acknowledge_broken), InvalidMessage)
        _nothing_waits(peer.connection)


async def test_invalid_device_information_is_a_broken_reply() -> None:
    async with open_scripted_peer() as peer:

        async def reply_without() -> None:
            [message] = peer.received_nowait()
            reply = {"type": "device_info_response", "status": "ok", "response_id": message.request_id}
            peer.send_text(json.dumps({**reply, "result": {"platform": "linux"}}))

        ending = await _ask_once(peer, _device_info, reply_without)
        assert isinstance(ending, InvalidMessage)
        assert "device_id is missing" in str(ending)
        _nothing_waits(peer.connection)


async def test_a_timeout_ends_a_request_and_its_late_reply_is_dropped(
    ask: Ask, autojump_clock: trio.testing.MockClock
) -> None:
    async with open_scripted_peer(options=ConnectionOptions(heartbeat_interval=1000)) as peer:
        start = trio.current_time()
        with pytest.raises(RequestTimeout, match="within 7 s") as caught:
            await ask(peer.connection, 7)
        assert trio.current_time() - start == pytest.approx(7)
        assert isinstance(caught.value, trio.TooSlowError)
        assert peer.connection.statistics().pending == 0
        await peer.answer_all()
        assert peer.connection.statistics().late_replies == (1 if ask is _device_info else 2)
        _nothing_waits(peer.connection)


async def test_a_request_without_room_times_out_unsent(ask: Ask, autojump_clock: trio.testing.MockClock) -> None:
    async with open_scripted_peer(options=ConnectionOptions(heartbeat_interval=1000)) as peer:
        await _fill(peer)
        with pytest.raises(RequestTimeout, match="was not sent"):
            await ask(peer.connection, 7)
        _only_the_filling_waits(peer.connection)
        peer.stream.resume()
        await trio.testing.wait_all_tasks_blocked()
        assert [message.request for message in peer.received_nowait()] == ["x" * HIGH_WATER_MARK]


async def _fill(peer: ScriptedPeer) -> None:
    """Stop the peer's reading, and fill the send buffer with an abandoned task."""
    peer.stream.stall()
    with trio.move_on_after(1):
        await peer.connection.run_task("x" * HIGH_WATER_MARK)
    assert peer.connection.statistics().bytes_held > HIGH_WATER_MARK


def _only_the_filling_waits(connection: Connection) -> None:
    statistics = connection.statistics()
    assert (statistics.pending, statistics.unanswered) == (0, 1)


@pytest.mark.parametrize("full", [False, True], ids=["room", "no_room"])
async def test_cancelling_at_any_step_leaves_a_request_unsent_or_sent_whole(
    ask: Ask, full: bool, autojump_clock: trio.testing.MockClock
) -> None:
    cancelled = 0
    for step in range(1, 100):
        async with open_scripted_peer(options=ConnectionOptions(heartbeat_interval=1000)) as peer:
            if full:
                await _fill(peer)
            caller = Caller()
            instrument = CancelAtStep(step, caller.scope, task_name="the caller")
            trio.lowlevel.add_instrument(instrument)
            try:
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(_call, caller, ask, peer.connection, name="the caller")
                    await trio.testing.wait_all_tasks_blocked()
                    peer.stream.resume()
                    await peer.answer_all()
                    await peer.answer_all()
            finally:
                trio.lowlevel.remove_instrument(instrument)
            _nothing_waits(peer.connection)
            # The peer read only whole frames, and the connection still works.
            assert await _ask_once(peer, ask, peer.answer_all) in ("device_info_1", "device_info_2", "do it")
            assert not peer.connection.closed
            if not isinstance(caller.ending, trio.Cancelled):
                break
            cancelled += 1
    else:
        raise AssertionError("the request never ended without the cancellation")
    assert cancelled >= (2 if full else 1)


_CLOSES = [1000, 1001, 1008, 1011]


def _how_to_lose(peer: ScriptedPeer, how: str) -> Callable[[], Awaitable[None]]:
    async def lose() -> None:
        match how:
            case "reset":
                peer.reset()
            case "silence":
                peer.go_silent()
            case "end of stream":
                await peer.abort()
            case "invalid bytes":
                await peer.send_raw(b"\xff\xff\xff\xff")
            case code:
                await peer.close(int(code), "because")

    return lose


LOSSES = ["reset", "silence", "end of stream", "invalid bytes", *map(str, _CLOSES)]


def _check_loss(ending: object, how: str) -> None:
    assert isinstance(ending, ConnectionLost)
    assert isinstance(ending, trio.BrokenResourceError)
    assert "'device_001'" in str(ending)
    match how:
        case "silence":
            assert "nothing was received for 50 s" in ending.reason
        case "reset":
            assert "connection reset by a test" in ending.reason
            assert isinstance(ending.__cause__, trio.BrokenResourceError)
        case "end of stream":
            assert (ending.code, ending.reason) == (1006, "the connection ended without a close")
        case "invalid bytes":
            assert ending.code == 1002
        case code:
            assert ending.code == int(code)
            assert "'because'" in ending.reason


@pytest.mark.parametrize("how", LOSSES)
async def test_losing_the_connection_after_the_send_ends_a_request(
    ask: Ask, how: str, autojump_clock: trio.testing.MockClock
) -> None:
    async with open_scripted_peer(options=ConnectionOptions(heartbeat_interval=1000, liveness_timeout=50)) as peer:
        _check_loss(await _ask_once(peer, ask, _how_to_lose(peer, how)), how)
        _nothing_waits(peer.connection)
        # A close frame with the reason may still be in flight.
        await trio.testing.wait_all_tasks_blocked()
        assert peer.stream.closed


async def test_a_delay_of_this_process_does_not_count_as_silence_of_the_peer(
    mock_clock: trio.testing.MockClock,
) -> None:
    async with open_scripted_peer(options=ConnectionOptions(heartbeat_interval=1e6, liveness_timeout=50)) as peer:
        # trio runs the tasks of a step in random order.
        for _ in range(30):
            await trio.testing.wait_all_tasks_blocked()
            await peer.send_raw(b"\x8a\x00")
            mock_clock.jump(51)
            await trio.testing.wait_all_tasks_blocked()
            assert not peer.connection.closed
        mock_clock.jump(51)
        await peer.connection.wait_closed()


@pytest.mark.parametrize("how", LOSSES)
async def test_losing_the_connection_before_the_send_ends_a_request(
    ask: Ask, how: str, autojump_clock: trio.testing.MockClock
) -> None:
    async with open_scripted_peer(options=ConnectionOptions(heartbeat_interval=1000, liveness_timeout=50)) as peer:
        await _how_to_lose(peer, how)()
        await peer.connection.wait_closed()
        with pytest.raises(ConnectionLost) as caught:
            await ask(peer.connection)
        _check_loss(caught.value, how)
        _nothing_waits(peer.connection)


@pytest.mark.parametrize("how", LOSSES)
async def test_losing_the_connection_ends_a_request_that_waits_for_room(
    ask: Ask, how: str, autojump_clock: trio.testing.MockClock
) -> None:
    async with open_scripted_peer(options=ConnectionOptions(heartbeat_interval=1000, liveness_timeout=50)) as peer:
        await _fill(peer)
        _check_loss(await _ask_once(peer, ask, _how_to_lose(peer, how)), how)
        _nothing_waits(peer.connection)


async def test_closing_the_connection_ends_a_request_with_closed_resource_error(ask: Ask) -> None:
    caller = Caller()
    async with trio.open_nursery() as nursery:
        async with open_scripted_peer() as peer:
            connection = peer.connection
            nursery.start_soon(_call, caller, ask, connection)
            await trio.testing.wait_all_tasks_blocked()
        with pytest.raises(trio.ClosedResourceError, match="closed by this side"):
            await ask(connection)
    assert isinstance(caller.ending, trio.ClosedResourceError)
    _nothing_waits(connection)
    assert await connection.wait_closed() is None


async def test_a_lost_connection_notifies_all_waiters_in_one_step_each_with_its_own_error() -> None:
    callers = [Caller() for _ in range(50)]
    async with open_scripted_peer() as peer, trio.open_nursery() as nursery:
        for number, caller in enumerate(callers):
            nursery.start_soon(_call, caller, _device_info if number % 2 else _run_task, peer.connection)
        await trio.testing.wait_all_tasks_blocked()
        assert peer.connection.statistics().pending == len(callers)
        peer.reset()
        lost = await peer.connection.wait_closed()
        # A waiter that wakes second sees that no request is pending.
        _nothing_waits(peer.connection)
        assert lost is not None
    endings = [caller.ending for caller in callers]
    assert all(isinstance(ending, ConnectionLost) for ending in endings)
    assert len({id(ending) for ending in endings}) == len(callers)


async def test_an_end_within_a_reply_is_a_lost_connection(ask: Ask) -> None:
    async with open_scripted_peer() as peer:

        async def half() -> None:
            await peer.send_raw(b'\x81\x7e\x01\x00{"type":"heartbeat"')
            await trio.testing.wait_all_tasks_blocked()
            await peer.abort()

        assert isinstance(await _ask_once(peer, ask, half), ConnectionLost)
        _nothing_waits(peer.connection)
