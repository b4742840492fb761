"""Many concurrent requests on one connection, with the names that they carry."""

from __future__ import annotations

import logging
import random
from functools import partial

import pytest
import trio
import trio.testing

from galaxy_trio import ConnectionOptions, RequestRejected, open_connection
from galaxy_trio.testing import PEER_URL, ScriptedPeer, open_bare_peer, open_scripted_peer

MANY = 1000


async def test_1000_concurrent_requests_receive_their_own_replies_in_any_order(
    autojump_clock: trio.testing.MockClock,
) -> None:
    order = random.Random(7)
    hostnames: list[object] = []

    async def ask(peer: ScriptedPeer) -> None:
        hostnames.append((await peer.connection.device_info()).hostname)

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
        assert len(set(hostnames)) == MANY
        # Each caller received the reply to its own request.
        assert sorted(map(str, hostnames)) == sorted(str(message.request_id) for message in messages)
        assert peer.connection.statistics().pending == 0


async def test_1000_concurrent_tasks_receive_their_own_results_in_any_order(
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


async def test_nursery_start_raises_for_a_refused_task() -> None:
    async with open_scripted_peer() as peer:

        async def refuse() -> None:
            await peer.receive()
            peer.refuse("no")

        async with trio.open_nursery() as nursery:
            nursery.start_soon(refuse)
            with pytest.raises(RequestRejected):
                await nursery.start(peer.connection.run_task, "do it")


async def test_nursery_start_returns_the_id_of_an_accepted_task() -> None:
    async with open_scripted_peer() as peer, trio.open_nursery() as nursery:

        async def accept() -> None:
            task = await peer.receive()
            peer.acknowledge(task)

        nursery.start_soon(accept)
        task_id: str = await nursery.start(partial(peer.connection.run_task, "do it", task_id="t1"))
        assert task_id == "t1"
        assert peer.connection.statistics().pending == 1
        nursery.cancel_scope.cancel()


async def test_a_task_that_ends_before_its_acknowledgement_counts_as_accepted() -> None:
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


async def test_two_clients_with_one_name_have_different_ids() -> None:
    async with open_scripted_peer(client_name="app") as one, open_scripted_peer(client_name="app") as other:
        assert one.connection.client_id != other.connection.client_id
        assert one.connection.client_id.startswith("app-")
        assert one.connection.client_id.endswith("@device_001")
        assert one.connection.device_id == "device_001"


async def test_a_task_message_contains_its_names() -> None:
    async with open_scripted_peer(client_name="app") as peer, trio.open_nursery() as nursery:
        nursery.start_soon(peer.connection.run_task, "do it")
        task = await peer.receive()
        session, _, task_id = str(task.session_id).partition("@")
        assert (session, len(task_id)) == ("app", 36)
        assert (task.task_name, task.target_id, task.request) == (f"galaxy/app/{task_id}", "device_001", "do it")
        nursery.cancel_scope.cancel()


async def test_callers_cancelled_together_with_the_connection_get_their_cancellation() -> None:
    # trio runs the tasks of one step in any order: some of these find a connection that has already ended.
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


async def test_the_log_reports_the_life_of_a_connection(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "galaxy_trio")
    async with open_scripted_peer():
        pass
    logged = [record.getMessage() for record in caplog.records if "device_001" in record.getMessage()]
    server = "the server for device 'device_001'"
    assert logged == [f"connected to {server}", f"registered with {server}", f"closing the connection to {server}"]


async def test_repr_contains_the_client_the_device_and_the_state() -> None:
    async with open_scripted_peer(client_id="me@device_001") as peer:
        assert repr(peer.connection) == "<Connection 'me@device_001' for device 'device_001', open>"
    assert repr(peer.connection) == "<Connection 'me@device_001' for device 'device_001', closed>"


async def test_opening_times_out_while_the_stream_is_stalled() -> None:
    async with open_bare_peer() as peer:
        peer.stream.stall()
        with pytest.raises(trio.TooSlowError):
            async with open_connection(
                PEER_URL, "device_001", stream=peer.stream, options=ConnectionOptions(connect_timeout=0.01)
            ):
                raise AssertionError("not reached")
        assert peer.stream.closed


@pytest.mark.parametrize("sent", ["2026-01-01T00:00:00+00:00", "whatever", None])
async def test_servers_time_at_the_registration_is_as_it_sent_it(
    autojump_clock: trio.testing.MockClock, sent: str | None
) -> None:
    async with open_bare_peer() as peer, trio.open_nursery() as nursery:

        async def register() -> None:
            async with open_connection(PEER_URL, "device_001", stream=peer.stream) as connection:
                assert connection.server_timestamp == sent

        nursery.start_soon(register)
        await peer.receive()
        peer.send_json({"type": "heartbeat", "status": "ok", "timestamp": sent, "response_id": "1"})
