"""An unusable request is refused before anything is sent."""

from __future__ import annotations

import math
from functools import partial

import pytest
import trio
import trio.testing

from galaxy_trio import ConfigError, ConnectionOptions, InvalidMessage, MessageTooLarge, QueueFull, open_connection
from galaxy_trio.testing import PEER_URL, open_bare_peer, open_scripted_peer


async def test_a_task_id_can_be_used_once() -> None:
    async with open_scripted_peer() as peer, trio.open_nursery() as nursery:
        nursery.start_soon(partial(peer.connection.run_task, "do it", task_id="t1"))
        await trio.testing.wait_all_tasks_blocked()
        with pytest.raises(ValueError, match="use each name once"):
            await peer.connection.run_task("again", task_id="t1")
        await peer.answer_all()
        with pytest.raises(ValueError, match="use each name once"):
            await peer.connection.run_task("and again", task_id="t1")
        assert peer.received_nowait() == []


@pytest.mark.parametrize("name", ["", "x" * 65])
async def test_an_empty_or_oversized_task_id_is_refused(name: str) -> None:
    async with open_scripted_peer() as peer:
        with pytest.raises(ConfigError, match="task_id has 1 to 64 characters"):
            await peer.connection.run_task("do it", task_id=name)


@pytest.mark.parametrize("timeout", [-1, math.nan])
async def test_an_invalid_timeout_is_refused_before_anything_is_sent(timeout: float) -> None:
    async with open_scripted_peer() as peer:
        with pytest.raises(ValueError, match="a timeout is a number of seconds"):
            await peer.connection.device_info(timeout=timeout)
        assert peer.received_nowait() == []


async def test_a_request_above_the_message_limit_is_refused_before_anything_is_sent() -> None:
    async with open_scripted_peer(options=ConnectionOptions(max_message_size=2000)) as peer:
        with pytest.raises(MessageTooLarge, match="above the limit of 2000"):
            await peer.connection.run_task("é" * 1000)
        await trio.testing.wait_all_tasks_blocked()
        assert peer.received_nowait() == []
        assert peer.connection.statistics().pending == 0


async def test_an_unwritable_request_is_refused_before_anything_is_sent() -> None:
    async with open_scripted_peer() as peer:
        with pytest.raises(InvalidMessage, match="lone surrogate"):
            await peer.connection.run_task("\ud800")
        assert peer.connection.statistics().pending == 0


async def test_a_request_above_max_pending_is_refused_before_anything_is_sent() -> None:
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


async def test_abandoned_requests_above_the_limit_are_forgotten_and_counted() -> None:
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
async def test_unusable_ids_are_refused_before_anything_is_opened(name: str) -> None:
    for device_id, client_id in ((name, None), ("device_001", name)):
        async with open_bare_peer() as peer:
            with pytest.raises(ConfigError, match="_id "):
                async with open_connection(PEER_URL, device_id, client_id=client_id, stream=peer.stream):
                    raise AssertionError("not reached")
            assert peer.stream.closed
            assert peer.path == ""
