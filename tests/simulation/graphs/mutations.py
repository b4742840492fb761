"""Deliberate breakages of task graphs, one at a time, which the simulation must find."""

from __future__ import annotations

from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Any, Final
from unittest import mock

import attrs

from galaxy_trio.constellation import constellation, device
from galaxy_trio.constellation.task import make_task
from galaxy_trio.errors import GraphError
from galaxy_trio.graph import state_machine
from galaxy_trio.graph.dispatcher import Dispatcher
from galaxy_trio.graph.edit import GraphEdit
from galaxy_trio.graph.planning import Planning
from galaxy_trio.graph.run import GraphRun
from galaxy_trio.graph.state_machine import ENDED, NodeState, StateMachine
from tests.simulation.patching import Mutation, both

if TYPE_CHECKING:
    from collections.abc import Generator, Iterable
    from contextlib import AbstractContextManager

    from galaxy_trio.constellation.task import Task
    from galaxy_trio.errors import PlannerFailed
    from galaxy_trio.graph.dispatcher import End, _Attempt
    from galaxy_trio.graph.edit import Edited
    from galaxy_trio.graph.memory_tables import LiveEdge, LiveNode
    from galaxy_trio.graph.planning import Change
    from galaxy_trio.graph.state_machine import Changes
    from galaxy_trio.messages import JSON

    Machine = StateMachine[LiveNode, LiveEdge]


def decide_an_edge_twice() -> AbstractContextManager[object]:
    """An edge that is decided is decided and counted again, if its source is looked at again."""
    decide = StateMachine[Any, Any].decide

    def decide_again(self: Machine, node: LiveNode, changes: Changes) -> None:
        if node.state in ENDED and not node.holds:
            for edge in self._tables.outgoing(node.id):
                if self._tables.node(edge.target).state is NodeState.WAITING:
                    edge.holds = None
        decide(self, node, changes)

    return mock.patch.object(StateMachine, "decide", decide_again)


def pass_no_skip_on() -> AbstractContextManager[object]:
    """The edges from a node that is skipped are not decided."""
    return mock.patch.object(state_machine, "ENDED", ENDED - {NodeState.SKIPPED})


def keep_decisions_on_retry() -> AbstractContextManager[object]:
    """What the end of a node decided stays when the node is retried."""
    return mock.patch.object(StateMachine, "_reopen", return_value=None)


def nest_no_holds() -> AbstractContextManager[object]:
    """The first of two holds that ends releases the node."""

    def hold(self: Machine, node_ids: Iterable[str]) -> list[LiveNode]:
        nodes = [self._tables.node(node_id) for node_id in node_ids]
        for node in nodes:
            node.holds = 1
        return nodes

    def release(self: Machine, nodes: Iterable[LiveNode]) -> Changes:
        changes = state_machine.Changes()
        for node in nodes:
            node.holds = 0
            self.decide(node, changes)
        return changes

    return both(mock.patch.object(StateMachine, "hold", hold), mock.patch.object(StateMachine, "release", release))


def decide_before_the_planner() -> AbstractContextManager[object]:
    """The edges from a node that ended are decided before its planner has thought about it."""
    take, planned = Planning.take, GraphRun._planned

    def take_loosely(self: Planning, rows: Iterable[LiveNode]) -> None:
        rows = list(rows)
        for row in rows:
            row.holds -= 1
        take(self, rows)

    def planned_loosely(self: GraphRun, rows: Iterable[LiveNode], failure: PlannerFailed | None) -> None:
        rows = list(rows)
        for row in rows:
            row.holds += 1
        planned(self, rows, failure)

    return both(
        mock.patch.object(Planning, "take", take_loosely), mock.patch.object(GraphRun, "_planned", planned_loosely)
    )


def retry_what_was_lost() -> AbstractContextManager[object]:
    """A node whose attempt was lost has another one, though it does not allow that."""
    attempt_ended = GraphRun._attempt_ended

    def retry_lost(self: GraphRun, node: LiveNode, state: NodeState, result: JSON, error: str | None) -> None:
        spec, node.spec = node.spec, attrs.evolve(node.spec, retry_lost=True)
        attempt_ended(self, node, state, result, error)
        node.spec = spec

    return mock.patch.object(GraphRun, "_attempt_ended", retry_lost)


def leave_a_node_of_a_refused_edit() -> AbstractContextManager[object]:
    """An edit that is refused because of a cycle leaves its new nodes."""
    apply = GraphEdit._apply

    def apply_partly(self: GraphEdit, machine: Machine) -> Edited | None:
        try:
            return apply(self, machine)
        except GraphError:
            for node in self._added.values():
                if node.id not in self._tables.nodes:
                    self._tables.add_node(node)
                    machine.count_new(node.id)
            raise

    return mock.patch.object(GraphEdit, "_apply", apply_partly)


def send_a_stale_text() -> AbstractContextManager[object]:
    """The text of a node is made once, and sent again when it, or a node before it, is retried."""
    text_of = GraphRun._text_of
    texts: dict[tuple[GraphRun, str, str], str] = {}

    def first_text_of(self: GraphRun, node: LiveNode) -> str:
        return texts.setdefault((self, node.id, node.spec.request), text_of(self, node))

    return mock.patch.object(GraphRun, "_text_of", first_text_of)


def forget_the_limit_before_sending() -> AbstractContextManager[object]:
    """The limit of nodes that run is checked when a node begins to wait for a device, and not when it is sent."""
    return mock.patch.object(Dispatcher, "_has_room", return_value=True)


def keep_the_version() -> AbstractContextManager[object]:
    """An edit that adds no node makes no new version."""
    edit = GraphRun.edit

    def edit_silently(self: GraphRun, change: Change, *, version: int | None = None) -> int:
        nodes = set(self._tables.nodes)
        edit(self, change, version=version)
        if nodes == set(self._tables.nodes) and self._version:
            self._version -= 1
        return self._version

    return mock.patch.object(GraphRun, "edit", edit_silently)


def go_on_after_a_cancel() -> AbstractContextManager[object]:
    """A node that is cancelled or takes too long continues on its device."""

    def abandon(request: str, priority: int, timeout: float, task_id: str | None, _: object, *rest: Any) -> Task:
        return make_task(request, priority, timeout, task_id, "abandon", *rest)

    return both(mock.patch.object(constellation, "make_task", abandon), mock.patch.object(device, "make_task", abandon))


def forget_to_start_at_release() -> AbstractContextManager[object]:
    """A node that was ready when it was held does not start when it is released."""

    def release(self: GraphRun, nodes: list[LiveNode]) -> None:
        self._apply(self._machine.release(nodes))

    return mock.patch.object(GraphRun, "_release", release)


def wait_for_the_planner() -> AbstractContextManager[object]:
    """No node starts while the planner thinks."""
    start_ready = Dispatcher.start_ready

    def start_later(self: Dispatcher) -> None:
        run = self._owner
        assert isinstance(run, GraphRun)
        if run._planning is None or not run._planning.busy:
            start_ready(self)

    return mock.patch.object(Dispatcher, "start_ready", start_later)


def forget_the_room_of_an_end() -> AbstractContextManager[object]:
    """The end of a node does not wake those that wait for the graph's limit."""
    start_ready = Dispatcher.start_ready

    def start_unless_an_attempt_ended(self: Dispatcher) -> None:
        if not self._is_idle:
            start_ready(self)

    return mock.patch.object(Dispatcher, "start_ready", start_unless_an_attempt_ended)


def _withdrawing_late(run: GraphRun) -> AbstractContextManager[object]:
    """Call no node back that waits for a device."""
    return mock.patch.object(run._dispatcher, "withdraw", run._dispatcher._ready.discard)


def run_what_was_replaced() -> AbstractContextManager[object]:
    """A node that is edited while it waits for a device runs as it was."""
    edit = GraphRun.edit

    def edit_lazily(self: GraphRun, change: Change, *, version: int | None = None) -> int:
        with _withdrawing_late(self):
            return edit(self, change, version=version)

    return mock.patch.object(GraphRun, "edit", edit_lazily)


def end_what_was_withdrawn() -> AbstractContextManager[object]:
    """A node that is cancelled or edited before its attempt begins runs, and one in whose step its attempt fails ends as that did."""
    run, finish = Dispatcher._run, Dispatcher._finish

    async def run_all(self: Dispatcher, attempt: _Attempt) -> End | None:
        attempt.withdrawn = False
        return await run(self, attempt)

    async def finish_as_it_did(self: Dispatcher, attempt: _Attempt, end: End | None) -> _Attempt | None:
        attempt.withdrawn = attempt.withdrawn and end is None
        return await finish(self, attempt, end)

    return both(
        mock.patch.object(Dispatcher, "_run", run_all), mock.patch.object(Dispatcher, "_finish", finish_as_it_did)
    )


def retry_immediately() -> AbstractContextManager[object]:
    """The next attempt of a node that failed does not wait."""
    make_ready = StateMachine[Any, Any].make_ready

    def make_ready_now(self: Machine, node_id: str) -> None:
        self._tables.node(node_id).not_before = None
        make_ready(self, node_id)

    return mock.patch.object(StateMachine, "make_ready", make_ready_now)


def skip_after_a_skip() -> AbstractContextManager[object]:
    """An edge that always holds does not hold after a node that was skipped."""
    return mock.patch.dict(state_machine._HOLDING, {NodeState.SKIPPED: frozenset()})


def keep_edges_of_removed_nodes() -> AbstractContextManager[object]:
    """The removal of an edge that is decided is counted, as if it were not."""

    def remove_edge(self: Machine, edge: LiveEdge) -> None:
        self._tables.node(edge.target).undecided -= 1

    return mock.patch.object(StateMachine, "remove_edge", remove_edge)


def start_what_is_held() -> AbstractContextManager[object]:
    """A hold does not call back nodes that wait for a device."""
    hold = GraphRun.hold

    @contextmanager
    def hold_loosely(self: GraphRun, *node_ids: str) -> Generator[None]:
        with ExitStack() as stack:
            with _withdrawing_late(self):
                stack.enter_context(hold(self, *node_ids))
            yield

    return mock.patch.object(GraphRun, "hold", hold_loosely)


def count_nodes_twice() -> AbstractContextManager[object]:
    """A node that is removed stays in the numbers by which the end of a graph is found."""
    return mock.patch.object(StateMachine, "forget", return_value=None)


GRAPH_MUTATIONS: Final[dict[Mutation, int]] = {
    decide_an_edge_twice: 40,
    pass_no_skip_on: 0,
    keep_decisions_on_retry: 0,
    nest_no_holds: 9,
    decide_before_the_planner: 2,
    retry_what_was_lost: 12,
    leave_a_node_of_a_refused_edit: 14,
    send_a_stale_text: 15,
    forget_the_limit_before_sending: 2,
    keep_the_version: 2,
    go_on_after_a_cancel: 2,
    forget_to_start_at_release: 0,
    wait_for_the_planner: 4,
    forget_the_room_of_an_end: 0,
    run_what_was_replaced: 0,
    end_what_was_withdrawn: 32,
    retry_immediately: 2,
    skip_after_a_skip: 0,
    keep_edges_of_removed_nodes: 21,
    start_what_is_held: 3,
    count_nodes_twice: 0,
}
"""The breakages, each with a seed that finds it, which is tried first."""
