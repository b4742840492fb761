"""Any sequence of edits, starts, ends, holds and retries: the state machine agrees with a naive model, and keeps its invariants."""

from __future__ import annotations

from collections import Counter
from itertools import pairwise
from typing import TYPE_CHECKING, Final
from unittest import mock

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from galaxy_trio.errors import CycleError, GraphError
from galaxy_trio.graph import model
from galaxy_trio.graph.edit import Edited, GraphEdit
from galaxy_trio.graph.memory_tables import LiveEdge, LiveNode, MemoryTables
from galaxy_trio.graph.model import Node, conditions_met
from galaxy_trio.graph.state_machine import Changes, NodeState, StateMachine

from .support.any_edits import NAMES, Change, Draw, draw_changes, first_changes, make_changes, plan_changes, result_of
from .support.naive_edits import AnyCondition, EditableGraph, RefusedAs
from .support.naive_graph import ENDED, RETRYABLE, UNSTARTED, NaiveGraph, Refused

if TYPE_CHECKING:
    from collections.abc import Callable

ENDS: Final = (NodeState.COMPLETED, NodeState.FAILED, NodeState.LOST, NodeState.CANCELLED)
MAX_NODES: Final = 7
MAX_EDGES: Final = 10
MAX_SIZE: Final = 2_500

requests = st.integers(1, 30).map("x".__mul__)


def make_node(draw: Draw, name: str) -> Node:
    return Node(name, draw(requests))


def is_met(edge: LiveEdge) -> bool:
    """Use what was evaluated before the edge was added, as a running graph does."""
    if edge.met is not None:
        return edge.met
    return conditions_met(edge.spec, result_of(edge.source))


class GraphStates(RuleBasedStateMachine):
    """Applies everything to both, and compares them."""

    def __init__(self) -> None:
        super().__init__()
        self.limits = mock.patch.multiple(model, MAX_NODES=MAX_NODES, MAX_EDGES=MAX_EDGES, MAX_SIZE=MAX_SIZE)
        self.limits.start()
        self.tables = MemoryTables()
        self.machine = StateMachine[LiveNode, LiveEdge](self.tables, is_met)
        self.graph = EditableGraph(MAX_NODES, MAX_EDGES, MAX_SIZE)
        self.held: list[list[LiveNode]] = []
        self.attempts = Counter[str]()

    def teardown(self) -> None:
        self.limits.stop()

    @property
    def naive(self) -> NaiveGraph:
        return self.graph.states

    def _any(self, *states: NodeState) -> list[str]:
        return [name for name, state in self.naive.nodes.items() if state in states]

    @initialize(changes=first_changes(make_node), held=st.lists(st.sampled_from(NAMES[:-2]), max_size=2))
    def begin(self, changes: list[Change], held: list[str]) -> None:
        self._edit(lambda _: changes.pop(0) if changes else None)
        self._hold(held)

    @rule(data=st.data())
    def edit(self, data: st.DataObject) -> None:
        self._edit(draw_changes(data.draw, make_node))

    def _edit(self, draw: Callable[[EditableGraph], Change | None]) -> None:
        before, edit = self.graph, GraphEdit(self.tables)
        edited, plan = plan_changes(before, draw)
        make_changes(edit, plan)
        try:
            edited.check()
        except RefusedAs as refused:
            self._check_refused(edit, edited, refused.error)
            return
        if edited.raises:
            with pytest.raises(ZeroDivisionError):
                edit._apply(self.machine)
            return
        result = edit._apply(self.machine)
        edited.name_edges({name: edge.spec for name, edge in self.tables.edges.items()})
        edited.states.settle()
        self.graph = edited
        self._check_edited(result, before)

    def _check_refused(self, edit: GraphEdit, edited: EditableGraph, error: type[GraphError]) -> None:
        with pytest.raises(error) as caught:
            edit._apply(self.machine)
        if isinstance(caught.value, CycleError):
            cycle = caught.value.nodes
            pairs = {(edge.source, edge.target) for edge in edited.edges.values()}
            assert pairs.issuperset(pairwise((*cycle, cycle[0])))

    def _check_edited(self, edited: Edited | None, before: EditableGraph) -> None:
        after, states = self.graph, before.states.nodes
        added, replaced = after.added_since(before), after.replaced_since(before)
        assert (edited is not None) == after.is_changed_since(before)
        if edited is None:
            return
        assert (set(edited.added), set(edited.replaced)) == (added, replaced)
        assert set(edited.removed) == before.nodes.keys() - after.nodes.keys()
        for name in added:
            self.attempts.pop(name, None)
        kept = {name: state for name, state in states.items() if name in after.nodes and name not in added}
        was_ready = {name for name in kept if kept[name] is NodeState.READY}
        # A node with a new edge waits for it, if only within the edit.
        waited = was_ready & after.with_new_edges(before)
        is_ready = {name for name in was_ready - waited if self.naive.nodes[name] is NodeState.READY}
        assert set(edited.outdated) == is_ready & (replaced | after.without_old_edges(before))
        self._compare(edited.changes, waited, was_ready - waited, kept)

    @precondition(lambda self: self._any(NodeState.READY))
    @rule(data=st.data())
    def start(self, data: st.DataObject) -> None:
        self._start(data.draw(st.sampled_from(self._any(NodeState.READY))))

    @precondition(lambda self: self._any(NodeState.RUNNING))
    @rule(data=st.data())
    def start_again(self, data: st.DataObject) -> None:
        name = data.draw(st.sampled_from(self._any(NodeState.RUNNING)))
        self.machine.make_ready(name)
        self.naive.nodes[name] = NodeState.READY

    @precondition(lambda self: self._any(NodeState.RUNNING))
    @rule(data=st.data(), state=st.sampled_from(ENDS))
    def end(self, data: st.DataObject, state: NodeState) -> None:
        self._end(data.draw(st.sampled_from(self._any(NodeState.RUNNING))), state)

    @precondition(lambda self: self._any(NodeState.READY))
    @rule(data=st.data(), state=st.sampled_from(ENDS))
    def start_and_end(self, data: st.DataObject, state: NodeState) -> None:
        name = data.draw(st.sampled_from(self._any(NodeState.READY)))
        self._start(name)
        self._end(name, state)

    def _start(self, name: str) -> None:
        self.machine.start(name)
        self.naive.nodes[name] = NodeState.RUNNING
        self.attempts[name] += 1

    def _end(self, name: str, state: NodeState) -> None:
        self.tables.node(name).result = result_of(name)
        self._compare_changes(lambda: self.machine.end(name, state), lambda: self.naive.end(name, state))

    @precondition(lambda self: self._any(*UNSTARTED))
    @rule(data=st.data())
    def cancel(self, data: st.DataObject) -> None:
        some = data.draw(st.lists(st.sampled_from(self._any(*UNSTARTED)), unique=True, min_size=1))

        def naively() -> None:
            for name in some:
                self.naive.nodes[name] = NodeState.CANCELLED
            self.naive.settle()

        self._compare_changes(lambda: self.machine.end_all(some, NodeState.CANCELLED), naively)

    @precondition(lambda self: self.naive.nodes)
    @rule(data=st.data())
    def retry(self, data: st.DataObject) -> None:
        self._retry(data.draw(st.sampled_from(sorted(self.naive.nodes))))

    @precondition(lambda self: self._any(*RETRYABLE))
    @rule(data=st.data())
    def retry_one(self, data: st.DataObject) -> None:
        self._retry(data.draw(st.sampled_from(self._any(*RETRYABLE))))

    def _retry(self, name: str) -> None:
        before = dict(self.naive.nodes)
        try:
            self.naive.retry(name)
        except Refused:
            with pytest.raises(GraphError):
                self.machine.retry(name)
            return
        after = self.naive.nodes
        waited = {other for other in after if NodeState.WAITING is after[other] is not before[other]}
        ready = {other for other in after if before[other] is NodeState.READY} - waited
        self._compare(self.machine.retry(name), waited, ready, before)

    @precondition(lambda self: self.naive.nodes)
    @rule(data=st.data())
    def hold(self, data: st.DataObject) -> None:
        self._hold(data.draw(st.lists(st.sampled_from(sorted(self.naive.nodes)), min_size=1, max_size=3)))

    def _hold(self, some: list[str]) -> None:
        self.held.append(self.machine.hold(some))
        self.naive.holds.update(some)

    @precondition(lambda self: self.held)
    @rule(data=st.data())
    def release(self, data: st.DataObject) -> None:
        rows = self.held.pop(data.draw(st.integers(0, len(self.held) - 1)))
        for row in rows:
            if self.tables.nodes.get(row.id) is row:
                self.naive.holds[row.id] -= 1
        self._compare_changes(lambda: self.machine.release(rows), self.naive.settle)

    def _compare_changes(self, change: Callable[[], Changes], naively: Callable[[], None]) -> None:
        before = dict(self.naive.nodes)
        naively()
        ready = {name for name in before if before[name] is NodeState.READY}
        self._compare(change(), set(), ready, before)

    def _compare(self, reported: Changes, waited: set[str], ready: set[str], before: dict[str, NodeState]) -> None:
        """Compare what the machine reported with the states before and after it.

        Args:
            reported: What it reported.
            waited: The nodes that had another state, and waited at least for a moment.
            ready: The nodes that were ready all the time, if they are now.
            before: The states before.
        """
        after = self.naive.nodes
        assert sorted(reported.waiting) == sorted(waited & after.keys())
        assert sorted(reported.ready) == sorted(
            name for name in after if after[name] is NodeState.READY and name not in ready
        )
        assert sorted(name for name, _ in reported.skipped) == sorted(
            name for name in after if after[name] is NodeState.SKIPPED and before.get(name) is not NodeState.SKIPPED
        )
        assert all(edge.target == name and edge.holds is False for name, edge in reported.skipped)

    @invariant()
    def both_agree(self) -> None:
        assert {name: node.state for name, node in self.tables.nodes.items()} == self.naive.nodes
        assert {name: node.spec for name, node in self.tables.nodes.items()} == self.graph.nodes
        assert {
            name: (edge.source, edge.target, edge.when, edge.holds) for name, edge in self.tables.edges.items()
        } == {name: (edge.source, edge.target, edge.when, edge.holds) for name, edge in self.naive.edges.items()}

    @invariant()
    def edges_are_those_of_their_nodes(self) -> None:
        for name in self.tables.nodes:
            assert [*self.tables.incoming(name)] == [edge for edge in self.tables.edges.values() if edge.target == name]
            assert [*self.tables.outgoing(name)] == [edge for edge in self.tables.edges.values() if edge.source == name]

    @invariant()
    def conditions_are_asked_once_each(self) -> None:
        for name, edge in self.graph.edges.items():
            if isinstance(edge.condition, AnyCondition):
                is_asked = (
                    self.naive.edges[name].holds is not None and self.naive.nodes[edge.source] is NodeState.COMPLETED
                )
                assert edge.condition.asked == is_asked

    @invariant()
    def counts_are_exact(self) -> None:
        counts = Counter(node.state for node in self.tables.nodes.values())
        assert +Counter(self.machine.moved) == counts
        assert self.tables.size == self.graph.size <= MAX_SIZE
        for name, node in self.tables.nodes.items():
            assert node.undecided == sum(edge.holds is None for edge in self.tables.incoming(name))
            assert node.attempt == self.attempts[name]

    @invariant()
    def nothing_waits_for_ever(self) -> None:
        for name, node in self.tables.nodes.items():
            if node.state is NodeState.WAITING:
                assert any(
                    edge.holds is None
                    and (self.tables.node(edge.source).state not in ENDED or self.tables.node(edge.source).holds)
                    for edge in self.tables.incoming(name)
                )


TestGraphStates = GraphStates.TestCase
TestGraphStates.settings = settings(max_examples=200, stateful_step_count=30)
