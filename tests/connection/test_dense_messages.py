"""Messages with so many values that they are decoded in slices."""

from __future__ import annotations

import gc
import json

import pytest
import trio

from galaxy_trio import ConnectionLost, ConnectionOptions, InvalidMessage, MemoryBudget, TaskResult
from galaxy_trio.testing import ScriptedPeer, open_scripted_peer

_DENSE = list(range(100_000))
"""A result that takes many slices."""


def _end(session_id: str | None, result: object) -> str:
    return json.dumps({"type": "task_end", "status": "completed", "session_id": session_id, "result": result})


async def _run(peer: ScriptedPeer, *texts: str) -> list[TaskResult | Exception]:
    """Run as many tasks as there are results, whose ends are sent in one step; return their outcomes."""
    outcomes: dict[int, TaskResult | Exception] = {}

    async def run(number: int) -> None:
        try:
            outcomes[number] = await peer.connection.run_task("a task", task_id=str(number))
        except InvalidMessage as error:
            outcomes[number] = error

    async with trio.open_nursery() as nursery:
        for number in range(len(texts)):
            nursery.start_soon(run, number)
        for _ in texts:
            peer.acknowledge(await peer.receive())
        for text in texts:
            peer.send_text(text)
    return [outcomes[number] for number in range(len(texts))]


async def _wait_decoding(peer: ScriptedPeer, text: str) -> None:
    """Send a text, and wait until the client has begun to decode it."""
    received = peer.connection.statistics().messages_received
    peer.send_text(text)
    while peer.connection.statistics().messages_received == received:
        await trio.lowlevel.checkpoint()


async def test_other_tasks_run_while_a_dense_message_is_decoded() -> None:
    async with open_scripted_peer() as peer, trio.open_nursery() as nursery:
        nursery.start_soon(peer.connection.run_task, "a task")
        task = await peer.receive()
        await _wait_decoding(peer, _end(task.session_id, _DENSE))
        passes = 0
        while peer.connection.statistics().pending:
            await trio.lowlevel.checkpoint()
            passes += 1
        assert passes > len(_DENSE) / 10_000


def _collections() -> int:
    """The number of garbage collections so far."""
    return sum(generation["collections"] for generation in gc.get_stats())


async def test_no_garbage_is_collected_within_a_slice_and_collecting_goes_on_afterwards() -> None:
    was_enabled: list[bool] = []

    class Watch(trio.abc.Instrument):
        def after_task_step(self, task: trio.lowlevel.Task) -> None:  # noqa: ARG002
            was_enabled.append(gc.isenabled())

    watch = Watch()
    async with open_scripted_peer() as peer:
        before = _collections()
        trio.lowlevel.add_instrument(watch)
        lists: list[list[int]] = [[]] * 200_000
        [outcome] = await _run(peer, _end("demo@0", lists))
        trio.lowlevel.remove_instrument(watch)
    assert isinstance(outcome, TaskResult)
    assert all(was_enabled)
    # At most one after each slice of 4,000 lists, and few for everything else; otherwise one for each 700.
    assert _collections() - before < 150


async def test_a_program_that_has_turned_garbage_collection_off_finds_it_off_after_a_dense_message() -> None:
    gc.disable()
    try:
        async with open_scripted_peer() as peer:
            [outcome] = await _run(peer, _end("demo@0", _DENSE))
        assert isinstance(outcome, TaskResult)
        assert not gc.isenabled()
    finally:
        gc.enable()


async def test_messages_after_a_dense_one_are_delivered_after_it() -> None:
    async with open_scripted_peer() as peer:
        first, second, third = await _run(peer, _end("demo@0", 1), _end("demo@1", _DENSE), _end("demo@2", 3))
        assert [outcome.result for outcome in (first, second, third) if isinstance(outcome, TaskResult)] == [
            1,
            _DENSE,
            3,
        ]


async def test_too_many_values_fail_their_request_and_the_connection_continues() -> None:
    async with open_scripted_peer(options=ConnectionOptions(max_values=1000)) as peer:
        error, other = await _run(peer, _end("demo@0", [0] * 1000), _end("demo@1", [0] * 900))
        assert isinstance(error, InvalidMessage)
        assert "more than 1,000 values" in str(error)
        assert isinstance(other, TaskResult)
        assert other.result == [0] * 900


@pytest.mark.parametrize(
    ("end", "problem"),
    [
        (",}", "Expecting property name enclosed in double quotes"),
        (',"x":NaN}', "NaN is not JSON"),
        (',"x":"\\ud800"}', "a lone surrogate in a string"),
        (f',"x":{"7" * 301}}}', "an integer of more than 300 digits"),
        (',"x":' + "[" * 501, "nested too deep"),
    ],
)
async def test_broken_dense_message_fails_its_request_with_the_reason(end: str, problem: str) -> None:
    async with open_scripted_peer() as peer:
        text = _end("demo@0", _DENSE)
        [error] = await _run(peer, text[:-1] + end)
        assert isinstance(error, InvalidMessage)
        assert problem in str(error)
        assert len(str(error)) < 500
        assert not peer.connection.closed


async def test_dense_message_that_is_no_message_fails_its_request() -> None:
    async with open_scripted_peer() as peer:
        text = _end("demo@0", _DENSE).replace('"completed"', "5")
        [error] = await _run(peer, text)
        assert isinstance(error, InvalidMessage)
        assert "status" in str(error)


async def test_end_of_the_block_while_a_dense_message_is_decoded_drops_the_message() -> None:
    outcomes: list[BaseException] = []

    async def run(peer: ScriptedPeer) -> None:
        try:
            await peer.connection.run_task("a task")
        except trio.ClosedResourceError as error:
            outcomes.append(error)

    async with trio.open_nursery() as nursery, open_scripted_peer() as peer:
        nursery.start_soon(run, peer)
        task = await peer.receive()
        await _wait_decoding(peer, _end(task.session_id, _DENSE))
        assert peer.connection.statistics().pending == 1
    [error] = outcomes
    assert isinstance(error, trio.ClosedResourceError)


@pytest.mark.parametrize("end", ["", "broken"])
async def test_message_that_is_decoded_while_the_connection_is_lost_is_dropped(end: str) -> None:
    budget = MemoryBudget(2**20)
    async with open_scripted_peer(options=ConnectionOptions(memory_budget=budget)) as peer:
        async with trio.open_nursery() as nursery:

            @nursery.start_soon
            async def _() -> None:
                with pytest.raises(ConnectionLost, match="too much memory"):
                    await peer.connection.run_task("a task")

            task = await peer.receive()
            await _wait_decoding(peer, _end(task.session_id, _DENSE) + end)
            # The connection is the heaviest of very many, and is closed when they hold the whole budget together.
            while not peer.connection.closed:
                share = budget.open_share()
                share.registered = True
                share.add(10_000)
        await trio.testing.wait_all_tasks_blocked()
        assert peer.connection.statistics().pending == 0
