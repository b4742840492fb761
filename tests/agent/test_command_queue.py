"""Batches run one at a time until their task, the connection or the agent ends."""

from __future__ import annotations

from typing import Literal

import attrs
import pytest
import trio
import trio.testing
from hypothesis import given, settings
from hypothesis import strategies as st

from galaxy_trio import ConnectionOptions
from galaxy_trio.agent import tool
from galaxy_trio.messages import CommandResult, ServerMessageType
from tests.agent.support.agent_server import call, open_commanded_agent, receive_results, results_of, send_batch
from tests.agent.support.tools import FAILURE, SUCCESS, Gate, Own, echo, open_blocker, wait_for_thread


async def test_batches_run_one_after_another() -> None:
    gate = Gate()
    async with open_commanded_agent([gate.tool]) as (peer, agent, _):
        ids = [
            send_batch(peer, call("gate", value=f"{session}{n}"), session_id=session) for session in "ab" for n in "12"
        ]
        for number, value in enumerate(("a1", "a2", "b1", "b2")):
            assert await gate.begun() == value
            await trio.testing.wait_all_tasks_blocked()
            assert agent.statistics().queued_batches == 3 - number
            assert peer.received_nowait() == []
            gate.go()
            [result] = await receive_results(peer, ids[number])
            assert result.result == value


async def test_batch_beyond_a_full_queue_fails_immediately() -> None:
    gate = Gate()
    async with open_commanded_agent([gate.tool], max_queued_batches=2) as (peer, agent, _):
        send_batch(peer, call("gate"))
        await gate.begun()
        waiting = [send_batch(peer, call("gate")) for _ in range(2)]
        refused = await receive_results(peer, send_batch(peer, call("gate"), call("gate")))
        why = "this device's queue is full, with 2 batches: no command of this one was run"
        assert refused == [CommandResult(FAILURE, error=why, call_id=f"c{number}") for number in range(2)]
        assert (agent.statistics().queued_batches, agent.statistics().failures) == (2, 2)
        gate.go()
        await receive_results(peer)
        for response_id in waiting:
            await gate.begun()
            gate.go()
            await receive_results(peer, response_id)
        assert agent.statistics().batches == 4


async def test_refused_batches_are_logged_once_and_then_counted(caplog: pytest.LogCaptureFixture) -> None:
    gate = Gate()
    async with open_commanded_agent([gate.tool], max_queued_batches=1) as (peer, agent, _):
        send_batch(peer, call("gate"))
        await gate.begun()
        send_batch(peer, call("gate"))
        for _ in range(50):
            await receive_results(peer, send_batch(peer, call("gate")))
        assert agent.statistics().failures == 50
        assert caplog.text.count("refused a batch") == 1


async def test_refusal_too_large_to_send_has_only_an_error_or_is_dropped(caplog: pytest.LogCaptureFixture) -> None:
    gate = Gate()
    async with open_commanded_agent(
        [gate.tool], max_queued_batches=1, options=ConnectionOptions(max_message_size=2000)
    ) as (peer, agent, _):
        send_batch(peer, call("gate"))
        await gate.begun()
        send_batch(peer, call("gate"))
        actions = [{"tool_name": "x", "tool_type": "action"}] * 35
        peer.send_json({"type": "command", "status": "ok", "response_id": "r", "session_id": "s", "actions": actions})
        answer = await peer.receive()
        assert (answer.action_results, answer.prev_response_id) == ([], "r")
        send_batch(peer, session_id="s" * 1850)
        await trio.testing.wait_all_tasks_blocked()
        assert peer.received_nowait() == []
        assert agent.registered
    assert "a reply was dropped: a message of " in caplog.text


@pytest.mark.parametrize(
    ("actions", "problem"),
    [([{"tool_name": 5}], "tool_name: expected a string"), ([0] * 10_001, "more than 10,000 actions")],
    ids=["broken", "too many"],
)
async def test_batch_that_cannot_be_read_is_answered_with_the_reason(actions: list[object], problem: str) -> None:
    async with open_commanded_agent([echo]) as (peer, agent, _):
        peer.send_json({"type": "command", "status": "ok", "response_id": "r", "session_id": "s", "actions": actions})
        answer = await peer.receive()
        assert (answer.action_results, answer.prev_response_id, answer.session_id) == ([], "r", "s")
        assert problem in str(answer.error)
        [result] = await results_of(peer, call("echo", value="x"))
        assert result.status is SUCCESS
        assert agent.statistics().batches == 1


async def test_broken_batch_without_an_id_is_dropped() -> None:
    async with open_commanded_agent([echo]) as (peer, _, _):
        peer.send_json({"type": "command", "status": "ok", "session_id": "s", "actions": [5]})
        [result] = await results_of(peer, call("echo", value="x"))
        assert result.status is SUCCESS


async def test_end_of_a_task_cancels_its_batch_and_drops_its_queued_ones() -> None:
    gate = Gate()
    async with open_commanded_agent([gate.tool, echo]) as (peer, agent, _):
        send_batch(peer, call("echo"), call("gate", value=1), call("gate", value=2), session_id="a")
        await gate.begun()
        send_batch(peer, call("gate", value=3), session_id="a")
        other = send_batch(peer, call("gate", value=4), session_id="b")
        send_batch(peer, call("gate", value=5), session_id="a")
        # The end of another session, or of none, has no effect.
        peer.send(ServerMessageType.TASK_END, session_id="c")
        peer.send(ServerMessageType.TASK_END)
        await trio.testing.wait_all_tasks_blocked()
        assert (gate.ends, agent.statistics().queued_batches) == ([], 3)
        peer.send(ServerMessageType.TASK_END, session_id="a")
        assert await gate.begun() == 4
        assert (gate.ends, agent.statistics().queued_batches) == ([(1, "cancelled")], 0)
        gate.go()
        [result] = await receive_results(peer, other)
        assert result.result == 4
        assert peer.received_nowait() == []


async def test_end_of_a_task_does_not_affect_a_batch_without_a_session() -> None:
    gate = Gate()
    async with open_commanded_agent([gate.tool]) as (peer, _, _):
        send_batch(peer, call("gate"), session_id=None)
        await gate.begun()
        peer.send(ServerMessageType.TASK_END)
        await trio.testing.wait_all_tasks_blocked()
        gate.go()
        [result] = await receive_results(peer)
        assert result.status is SUCCESS


async def test_end_of_a_task_drops_results_that_wait_for_room() -> None:
    async with open_commanded_agent([Own("x" * 2**20), echo]) as (peer, agent, _):
        peer.stream.stall()
        # The first fills the send buffer, the second waits for room.
        first = send_batch(peer, call("own"), session_id="a")
        send_batch(peer, call("own"), session_id="b")
        await trio.testing.wait_all_tasks_blocked()
        assert agent.statistics().commands == 2
        peer.send(ServerMessageType.TASK_END, session_id="b")
        await trio.testing.wait_all_tasks_blocked()
        peer.stream.resume()
        await receive_results(peer, first)
        last = send_batch(peer, call("echo", value=1), session_id="c")
        await receive_results(peer, last)
        assert peer.received_nowait() == []


async def test_loss_of_the_connection_cancels_the_running_batch_and_drops_the_queue(
    autojump_clock: trio.testing.MockClock,
) -> None:
    gate = Gate()
    async with open_commanded_agent([gate.tool, echo]) as (peer, agent, server):
        send_batch(peer, call("gate", value=1), session_id="a")
        await gate.begun()
        send_batch(peer, call("gate", value=2), session_id="b")
        await trio.testing.wait_all_tasks_blocked()
        peer.reset()
        await trio.testing.wait_all_tasks_blocked()
        assert (gate.ends, agent.statistics().queued_batches) == ([(1, "cancelled")], 0)
        again, _ = await server.accept()
        [result] = await results_of(again, call("echo", value=3))
        assert result.result == 3
    assert gate.ends == [(1, "cancelled")]


async def test_loss_of_the_connection_abandons_threads() -> None:
    with open_blocker() as blocker:
        async with open_commanded_agent([blocker.tool]) as (peer, agent, _):
            send_batch(peer, call("block"))
            await blocker.begun()
            peer.reset()
            await trio.testing.wait_all_tasks_blocked()
            assert agent.statistics().threads_abandoned == 1
            blocker.go()
            await wait_for_thread(lambda: agent.statistics().threads_running == 0)
            assert agent.statistics().threads_abandoned == 0


async def test_end_of_the_block_cancels_the_running_batch_and_closes_with_a_handshake() -> None:
    gate = Gate()
    async with open_commanded_agent([gate.tool]) as (peer, _, _):
        send_batch(peer, call("gate"))
        await gate.begun()
    assert gate.ends == [(None, "cancelled")]
    assert (await peer.wait_ended()).code == 1000


@pytest.mark.parametrize("how", ["task_end", "loss", "leaving"])
async def test_tool_that_raises_when_cancelled_is_logged_and_harms_no_other_command(
    how: str, caplog: pytest.LogCaptureFixture, autojump_clock: trio.testing.MockClock
) -> None:
    begun = trio.Event()

    @tool
    async def press() -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(trio.sleep_forever)
            begun.set()
            try:
                await trio.sleep_forever()
            finally:
                raise ValueError("while cleaning up")

    async with open_commanded_agent([press, echo]) as (peer, _, server):
        send_batch(peer, call("press"))
        await begun.wait()
        if how == "task_end":
            peer.send(ServerMessageType.TASK_END, session_id="s1")
            [result] = await results_of(peer, call("echo", value=1))
            assert result.result == 1
        elif how == "loss":
            peer.reset()
            again, _ = await server.accept()
            [result] = await results_of(again, call("echo", value=1))
            assert result.result == 1
    assert "while cleaning up" in caplog.text


async def test_no_further_batch_starts_after_a_loss_during_a_command(
    autojump_clock: trio.testing.MockClock,
) -> None:
    runs: list[int] = []

    @tool
    async def lose() -> None:
        runs.append(1)
        connection = agent._connection
        assert connection is not None
        connection._link.lose("in the middle")

    async with open_commanded_agent(
        [lose], options=ConnectionOptions(heartbeat_interval=1e6, liveness_timeout=1e6)
    ) as (peer, agent, server):
        peers = [peer]
        # Repeated, because a bug would depend on the order in which tasks run.
        for number in range(1, 11):
            send_batch(peers[-1], call("lose"))
            send_batch(peers[-1], call("lose"))
            peers.append((await server.accept())[0])
            assert len(runs) == number


_Step = tuple[Literal["batch", "end", "go"], str, int]

_STEPS = st.lists(
    st.tuples(st.just("batch"), st.sampled_from("ab"), st.integers(0, 2))
    | st.tuples(st.just("end"), st.sampled_from("abc"), st.just(0))
    | st.tuples(st.just("go"), st.just(""), st.just(0)),
    max_size=25,
)


@attrs.define
class Model:
    """A model of the queue with room for two batches."""

    waiting: list[tuple[str, str, int]] = attrs.field(factory=list[tuple[str, str, int]])
    running: tuple[str, str, int] | None = None
    left: int = 0
    answers: list[tuple[str, list[str]]] = attrs.field(factory=list[tuple[str, list[str]]])

    def batch(self, name: str, session: str, size: int) -> None:
        if len(self.waiting) == 2:
            self.answers.append((name, ["failure"] * size))
        else:
            self.waiting.append((name, session, size))
            self.advance()

    def end(self, session: str) -> None:
        self.waiting = [batch for batch in self.waiting if batch[1] != session]
        if self.running is not None and self.running[1] == session:
            self.running = None
        self.advance()

    def go(self) -> None:
        self.left -= 1
        self.advance()

    def advance(self) -> None:
        while True:
            if self.running is not None:
                if self.left:
                    return
                self.answers.append((self.running[0], ["success"] * self.running[2]))
                self.running = None
            if not self.waiting:
                return
            self.running = self.waiting.pop(0)
            self.left = self.running[2]


async def _follow(steps: list[_Step]) -> None:
    gate, model = Gate(), Model()
    answers: list[tuple[str | None, list[str]]] = []
    async with open_commanded_agent([gate.tool], max_queued_batches=2) as (peer, agent, _):
        for what, session, size in steps:
            if what == "batch":
                model.batch(send_batch(peer, *[call("gate")] * size, session_id=session), session, size)
            elif what == "end":
                peer.send(ServerMessageType.TASK_END, session_id=session)
                model.end(session)
            elif model.running is not None:
                gate.go()
                model.go()
            await trio.testing.wait_all_tasks_blocked()
            assert agent.statistics().queued_batches == len(model.waiting)
            answers += [
                (message.prev_response_id, [result.status.value for result in message.action_results or []])
                for message in peer.received_nowait()
            ]
            assert answers == model.answers
    assert agent.statistics().batches == sum(what == "batch" for what, _, _ in steps)


@settings(max_examples=80, deadline=None)
@given(_STEPS)
def test_any_order_of_batches_ends_and_progress_gives_the_models_replies(steps: list[_Step]) -> None:
    trio.run(_follow, steps)
