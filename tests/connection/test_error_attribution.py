"""An error of the server, which names no request, rejects the oldest request without a first reply."""

from __future__ import annotations

import math

import trio
import trio.testing

from galaxy_trio import ConnectionOptions, RequestRejected
from galaxy_trio.events import HeartbeatRefused, ServerErrorReceived
from galaxy_trio.messages import ClientMessageType
from galaxy_trio.testing import ScriptedPeer, open_scripted_peer


async def _ask_in_sequence(
    peer: ScriptedPeer, nursery: trio.Nursery, count: int
) -> tuple[list[object], list[trio.CancelScope]]:
    """Send requests one after the other. Returns a list that collects their outcomes, and their cancel scopes."""
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
        endings, _ = await _ask_in_sequence(peer, nursery, 3)
        first, _second, third = peer.received_nowait()
        peer.answer(first)
        peer.refuse("the second")
        peer.answer(third)
        await trio.testing.wait_all_tasks_blocked()
        assert endings == ["device_info_1", "the second", "device_info_3"]


async def test_an_error_after_a_cancelled_request_belongs_to_the_cancelled_one() -> None:
    async with open_scripted_peer() as peer, trio.open_nursery() as nursery:
        endings, scopes = await _ask_in_sequence(peer, nursery, 2)
        scopes[0].cancel()
        await trio.testing.wait_all_tasks_blocked()
        peer.refuse("the first, which was cancelled")
        await trio.testing.wait_all_tasks_blocked()
        assert endings == [None, None]
        assert peer.connection.statistics().late_replies == 1
        peer.refuse("the second")
        await trio.testing.wait_all_tasks_blocked()
        assert endings == [None, "the second"]


async def test_an_error_skips_a_cancelled_request_after_a_later_reply() -> None:
    async with open_scripted_peer() as peer, trio.open_nursery() as nursery:
        endings, scopes = await _ask_in_sequence(peer, nursery, 3)
        scopes[0].cancel()
        await trio.testing.wait_all_tasks_blocked()
        _first, second, _third = peer.received_nowait()
        peer.answer(second)
        peer.refuse("the third")
        await trio.testing.wait_all_tasks_blocked()
        assert endings == [None, "device_info_2", "the third"]


async def test_an_error_for_a_heartbeat_rejects_no_request(autojump_clock: trio.testing.MockClock) -> None:
    async with (
        open_scripted_peer(options=ConnectionOptions(heartbeat_interval=30)) as peer,
        trio.open_nursery() as nursery,
    ):
        with peer.connection.subscribe() as events:
            endings, _ = await _ask_in_sequence(peer, nursery, 1)
            await trio.sleep(30)
            await trio.testing.wait_all_tasks_blocked()
            request, heartbeat = peer.received_nowait()
            assert heartbeat.type is ClientMessageType.HEARTBEAT
            peer.answer(request)
            peer.refuse("client_type does not match")
            await trio.testing.wait_all_tasks_blocked()
            assert endings == ["device_info_1"]
            assert await anext(events) == HeartbeatRefused("device_001", "client_type does not match")


async def test_an_error_rejects_the_oldest_request_between_heartbeats(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with (
        open_scripted_peer(options=ConnectionOptions(heartbeat_interval=30)) as peer,
        trio.open_nursery() as nursery,
    ):
        first, _ = await _ask_in_sequence(peer, nursery, 1)
        await trio.sleep(30)
        await trio.testing.wait_all_tasks_blocked()
        second, _ = await _ask_in_sequence(peer, nursery, 1)
        peer.refuse("the first")
        peer.confirm()
        peer.refuse("the second")
        await trio.testing.wait_all_tasks_blocked()
        assert (first, second) == (["the first"], ["the second"])
        assert peer.connection.statistics().unanswered == 0


async def test_an_error_without_an_unanswered_message_is_an_event() -> None:
    async with open_scripted_peer() as peer:
        with peer.connection.subscribe() as events:
            peer.refuse("unexpected")
            with trio.fail_after(60):
                assert await anext(events) == ServerErrorReceived("device_001", "unexpected")
        assert peer.connection.statistics().unattributed_errors == 1
