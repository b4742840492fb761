"""Any sequence of edits, ends, losses, cancels, retries and holds of a running graph keeps its promises."""

from __future__ import annotations

import itertools
import json
import math
from collections import Counter
from contextlib import ExitStack
from functools import partial
from random import Random
from typing import TYPE_CHECKING, Final, TypeAlias

import pytest
import trio
from hypothesis import given, settings
from hypothesis import strategies as st

from galaxy_trio.errors import NotEditable, PlannerFailed, VersionConflict
from galaxy_trio.graph import Graph, GraphRun, GraphState, Node, NodeResult, NodeState, open_graph
from galaxy_trio.graph.model import MAX_EDGES, MAX_NODES, MAX_SIZE
from galaxy_trio.testing import run

from .support.any_edits import draw_changes, first_changes, make_changes, plan_changes, result_of
from .support.naive_edits import EditableGraph, RefusedAs
from .support.naive_graph import ENDED, RETRYABLE, UNSTARTED, Refused
from .support.sessions import Tasks, open_tasks

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping, Sequence

    from galaxy_trio.errors import GraphError
    from galaxy_trio.graph import GraphEdit, GraphSnapshot, NodeEnded

    from .support.any_edits import Change, Draw

    Step: TypeAlias = Callable[[Draw], Awaitable[None] | None]
    Held: TypeAlias = list[tuple[str, int]]

DEVICES: Final = ("d1", "d2")
LONG: Final = 5.0
"""Seconds, more than the wait before another attempt."""


class Nodes:
    """Makes nodes, each with a request of its own. The numbers of one run do not depend on earlier runs: equal choices take equal steps."""

    def __init__(self) -> None:
        self._numbers = itertools.count()

    def make(self, draw: Draw, name: str) -> Node:
        return Node(
            name,
            f"{name} {next(self._numbers)}",
            priority=draw(st.integers(-1, 1)),
            timeout=math.inf,
            retries=draw(st.sampled_from([0, 0, 1, 2])),
            retry_lost=draw(st.booleans()),
        )


def make_request(node: Node, before: Mapping[str, NodeResult]) -> str:
    return f"{node.request}\n{json.dumps({name: [known.state, known.result] for name, known in before.items()})}"


class AnyRun:
    """A running graph and its model.

    Args:
        tasks: The tasks on its devices.
        max_concurrent: The limit of nodes that run.
        is_planned: Whether the graph has a planner.
        make_node: Makes the nodes.
    """

    def __init__(
        self, tasks: Tasks, max_concurrent: int, is_planned: bool, make_node: Callable[[Draw, str], Node]
    ) -> None:
        self.tasks = tasks
        self.make_node = make_node
        self.run: GraphRun
        self.max_concurrent = max_concurrent
        self.graph = EditableGraph(MAX_NODES, MAX_EDGES, MAX_SIZE)
        self.version = 0
        self.cancelled = False
        self.holds: list[tuple[ExitStack, Held]] = []
        self.attempts = Counter[int]()
        self.task_ids = set[str]()
        # Nodes that wait before another attempt.
        self.backing_off = set[int]()
        self.is_planned = is_planned
        # The nodes whose ends the planner thinks about, and those for its next call.
        self.thinking: Held = []
        self.waiting: Held = []
        self.refusals = 0
        self.is_failed = False
        self.calls: list[tuple[list[str], bool]] = []
        self.replies, self._receive_reply = trio.open_memory_channel["Callable[[GraphEdit], None] | None"](0)

    async def plan(
        self, ends: Sequence[NodeEnded], _: GraphSnapshot, error: GraphError | None
    ) -> Callable[[GraphEdit], None] | None:
        """Return what a step says."""
        self.calls.append(([end.node_id for end in ends], error is not None))
        return await self._receive_reply.receive()

    def _any(self, *states: NodeState) -> list[str]:
        return [name for name, state in self.graph.states.nodes.items() if state in states]

    # What may happen.

    def edit(self, draw: Draw) -> None:
        version = draw(st.sampled_from([None, self.version, self.version, self.version - 1]))
        self.change(draw_changes(draw, self.make_node), version)

    def change(self, next_change: Callable[[EditableGraph], Change | None], version: int | None = None) -> None:
        edited, plan = plan_changes(self.graph, next_change)
        snapshot = self.run.snapshot()
        expected = self._refusal_of(edited, version)
        if expected is None:
            assert self.run.edit(lambda edit: make_changes(edit, plan), version=version) == self.run.version
            self._take_over(edited)
        else:
            with pytest.raises(expected):
                self.run.edit(lambda edit: make_changes(edit, plan), version=version)
            assert self.run.snapshot() == snapshot

    def _refusal_of(self, edited: EditableGraph, version: int | None = None) -> type[Exception] | None:
        if version not in (None, self.version):
            return VersionConflict
        try:
            edited.check()
        except RefusedAs as refused:
            return refused.error
        return ZeroDivisionError if edited.raises else None

    def _take_over(self, edited: EditableGraph) -> None:
        self.version += edited.is_changed_since(self.graph)
        edited.name_edges({str(edge.id): edge for edge in self.run.snapshot().graph.edges})
        edited.states.settle()
        # A node that is added reopens a cancelled graph.
        self.cancelled = self.cancelled and not edited.added_since(self.graph)
        self.graph = edited

    async def reply(self, draw: Draw) -> None:
        """Let the planner return an edit, or None."""
        edited = self.graph
        change: Callable[[GraphEdit], None] | None = None
        if draw(st.booleans()):
            edited, plan = plan_changes(self.graph, draw_changes(draw, self.make_node))
            # A condition that raises would end the graph's block.
            change = None if edited.raises else partial(make_changes, plan=plan)
        is_refused = change is not None and self._refusal_of(edited) is not None
        self.replies.send_nowait(change)
        await trio.testing.wait_all_tasks_blocked()
        if is_refused and self.refusals < 3:
            self.refusals += 1
            ends, is_asked_again = self.calls.pop()
            assert is_asked_again
            assert sorted(ends) == sorted(name for name, _ in self.thinking)
            return
        self.is_failed, self.refusals = self.is_failed or is_refused, 0
        if change is not None and not is_refused:
            self._take_over(edited)
        thinking, self.thinking = self.thinking, []
        self._release(thinking)

    async def complete(self, draw: Draw) -> None:
        name = draw(st.sampled_from(self._any(NodeState.RUNNING)))
        await self.tasks.complete(self.graph.nodes[name].request, result=result_of(name))
        self._end(name, NodeState.COMPLETED)

    async def fail(self, draw: Draw) -> None:
        name = draw(st.sampled_from(self._any(NodeState.RUNNING)))
        await self.tasks.fail(self.graph.nodes[name].request)
        self._end(name, NodeState.FAILED)

    async def lose(self, _: Draw) -> None:
        await self.tasks.fleet.kill_server()
        await trio.testing.wait_all_tasks_blocked()
        running = self._any(NodeState.RUNNING)
        for name in running:
            self._end(name, NodeState.LOST)
        await self.tasks.fleet.start_server()
        await self.tasks.constellation.wait_connected()

    def _end(self, name: str, state: NodeState) -> None:
        node, serial = self.graph.nodes[name], self.graph.serials[name]
        is_repeated = state is NodeState.FAILED or (state is NodeState.LOST and node.retry_lost)
        if is_repeated and self.attempts[serial] <= node.retries:
            self.graph.states.nodes[name] = NodeState.READY
            self.backing_off.add(serial)
            return
        if self.is_planned and not self.cancelled:
            self.waiting += self._hold([name])
        self.graph.states.end(name, state)

    async def sleep(self, _: Draw) -> None:
        await trio.sleep(LONG)
        self.backing_off.clear()

    def cancel(self, draw: Draw) -> None:
        name = draw(st.sampled_from(sorted(self.graph.nodes)))
        self.run.cancel(name)
        if self.graph.states.nodes[name] not in ENDED:
            self._end(name, NodeState.CANCELLED)

    async def cancel_all(self, _: Draw) -> None:
        self.run.cancel()
        left = self._any(*UNSTARTED, NodeState.RUNNING)
        if left or self.thinking or self.waiting:
            self.cancelled = True
            for name in left:
                self.graph.states.nodes[name] = NodeState.CANCELLED
            # The planner is stopped, and its edit is dropped.
            await trio.testing.wait_all_tasks_blocked()
            stopped, self.thinking, self.waiting, self.refusals = self.thinking + self.waiting, [], [], 0
            self._release(stopped)

    def retry(self, draw: Draw) -> None:
        name = draw(st.sampled_from(self._any(*RETRYABLE) or sorted(self.graph.nodes)))
        tried = self.graph.copy()
        try:
            tried.states.retry(name)
            is_refused = name in {each for each, _ in self.thinking + self.waiting}
        except Refused:
            is_refused = True
        if is_refused:
            with pytest.raises(NotEditable):
                self.run.retry(name)
        else:
            self.run.retry(name)
            known = self.run.snapshot().nodes[name]
            assert known == NodeResult(known.state, known.attempt)
            self.graph, self.cancelled = tried, False
            # It does not wait for what was left of a wait.
            self.backing_off.discard(self.graph.serials[name])

    def hold(self, draw: Draw) -> None:
        names = draw(st.lists(st.sampled_from(sorted(self.graph.nodes)), min_size=1, max_size=3))
        stack = ExitStack()
        stack.enter_context(self.run.hold(*names))
        self.holds.append((stack, self._hold(names)))

    def release(self, draw: Draw) -> None:
        stack, held = self.holds.pop(draw(st.integers(0, len(self.holds) - 1)))
        stack.close()
        self._release(held)

    def _hold(self, names: list[str]) -> Held:
        self.graph.states.holds.update(names)
        return [(name, self.graph.serials[name]) for name in names]

    def _release(self, held: Held) -> None:
        for name, serial in held:
            if self.graph.serials.get(name) == serial:
                self.graph.states.holds[name] -= 1
        self.graph.states.settle()

    def draw_step(self, draw: Draw) -> Step:
        steps: list[Step] = [self.edit, self.edit, self.lose, self.sleep, self.cancel_all]
        if self._any(NodeState.RUNNING):
            steps += [self.complete, self.complete, self.complete, self.fail, self.fail]
        if self.graph.nodes:
            steps += [self.cancel, self.retry, self.retry, self.hold]
        if self.holds:
            steps += [self.release, self.release]
        if self.thinking:
            steps += [self.reply, self.reply]
        return draw(st.sampled_from(steps))

    # What must hold afterwards.

    async def check(self) -> None:
        await trio.testing.wait_all_tasks_blocked()
        if self.waiting and not self.thinking:
            self.thinking, self.waiting = self.waiting, []
            # Several may end in one step.
            ends, is_refused = self.calls.pop()
            assert (sorted(ends), is_refused) == (sorted(name for name, _ in self.thinking), False)
        assert not self.calls, "the planner was called too often"
        states, nodes = self.graph.states, self.graph.nodes
        known, text = self.run.snapshot().nodes, self.tasks.texts
        started = [name for name in self._any(NodeState.READY) if self.run.states[name] is NodeState.RUNNING]
        for name in started:
            assert not states.holds[name], "a node started under a hold"
            states.nodes[name] = NodeState.RUNNING
            self.attempts[self.graph.serials[name]] += 1
            self.backing_off.discard(self.graph.serials[name])
            assert known[name].task_id not in self.task_ids, "two attempts are one task"
            self.task_ids.add(str(known[name].task_id))
        assert dict(self.run.states) == states.nodes
        for name in started:
            before = {edge.source for edge in self.graph.edges.values() if edge.target == name}
            seen = json.loads(text[nodes[name].request].partition("\n")[2])
            assert seen.keys() == before
            # Those that run may have started in the same step.
            for source in before - {*self._any(*UNSTARTED, NodeState.RUNNING)}:
                result = result_of(source) if states.nodes[source] is NodeState.COMPLETED else None
                assert seen[source] == [states.nodes[source], result]
        running = self._any(NodeState.RUNNING)
        assert self.tasks.running == {nodes[name].request for name in running}, "what runs is not what should run"
        assert len(running) <= self.max_concurrent
        ready = [
            name
            for name in self._any(NodeState.READY)
            if not states.holds[name] and self.graph.serials[name] not in self.backing_off
        ]
        assert not ready or len(running) == min(self.max_concurrent, len(DEVICES)), "a node is not started"
        assert {name: node.attempt for name, node in known.items()} == {
            name: self.attempts[serial] for name, serial in self.graph.serials.items()
        }
        assert {name for name, node in known.items() if node.ended is not None} == {*self._any(*ENDED)}
        assert all(known[name].error is None for name in self._any(NodeState.COMPLETED))
        assert self.run.statistics().attempts == sum(self.attempts.values()) == len(self.task_ids)
        assert (self.run.version, self.run.state) == (self.version, self._state())

    def _state(self) -> GraphState:
        found = set(self.graph.states.nodes.values())
        if found - ENDED:
            return GraphState.RUNNING
        if self.cancelled:
            return GraphState.CANCELLED
        if not found & RETRYABLE:
            return GraphState.COMPLETED
        return GraphState.PARTIALLY_FAILED if NodeState.COMPLETED in found else GraphState.FAILED

    async def end(self, draw: Draw) -> None:
        """Release all holds, complete all nodes, and wait."""
        while self.holds:
            self.release(draw)
            await self.check()
        while self.thinking or self._any(*UNSTARTED, NodeState.RUNNING):
            step = self.complete if self._any(NodeState.RUNNING) else self.reply if self.thinking else self.sleep
            await step(draw)
            await self.check()
        if self.is_failed:
            with pytest.raises(PlannerFailed):
                await self.run.wait()
        result = await self.run.wait()
        assert result.state is self._state()


@settings(max_examples=50)
@given(data=st.data(), max_concurrent=st.integers(1, 3), is_planned=st.booleans(), goes_to_its_end=st.booleans())
def test_any_sequence_of_steps_keeps_the_promises_of_a_graph(
    data: st.DataObject, max_concurrent: int, is_planned: bool, goes_to_its_end: bool
) -> None:
    run(run_any_steps, data, max_concurrent, is_planned, goes_to_its_end)


async def run_any_steps(data: st.DataObject, max_concurrent: int, is_planned: bool, goes_to_its_end: bool) -> None:
    make_node = Nodes().make
    changes = data.draw(first_changes(make_node))
    async with open_tasks(*DEVICES) as tasks:
        any_run = AnyRun(tasks, max_concurrent, is_planned, make_node)
        async with open_graph(
            tasks.constellation,
            Graph(()),
            max_concurrent=max_concurrent,
            make_request=make_request,
            planner=any_run.plan if is_planned else None,
            planner_timeout=math.inf,
            random=Random(0),
        ) as any_run.run:
            any_run.change(lambda _: changes.pop(0) if changes else None)
            await any_run.check()
            for _ in range(data.draw(st.integers(0, 25))):
                ended = any_run.draw_step(data.draw)(data.draw)
                if ended is not None:
                    await ended
                await any_run.check()
            if goes_to_its_end:
                await any_run.end(data.draw)
        await trio.testing.wait_all_tasks_blocked()
        assert tasks.running == set()
        statistics = tasks.constellation.statistics()
        assert (statistics.running, statistics.queued) == (0, 0)
