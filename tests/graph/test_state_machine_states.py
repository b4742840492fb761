"""Any sequence of edits, starts, ends, holds and retries: the state machine agrees with a naive model, and keeps its invariants."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, cast

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from galaxy_trio.errors import GraphError
from galaxy_trio.graph.edit import GraphEdit
from galaxy_trio.graph.memory_tables import LiveEdge, LiveNode, MemoryTables
from galaxy_trio.graph.model import Edge, Node, When
from galaxy_trio.graph.state_machine import ENDED, RETRYABLE, UNSTARTED, Changes, NodeState, StateMachine

from .support.naive_graph import NaiveEdge, NaiveGraph, Refused

if TYPE_CHECKING:
    from collections.abc import Callable

NAMES = "abcdefgh"
names = st.sampled_from(NAMES)
ends = st.sampled_from([NodeState.COMPLETED, NodeState.FAILED, NodeState.LOST, NodeState.CANCELLED])
whens = st.sampled_from(list(When))

# Mostly from earlier to later names, so that few edges form a cycle.
_later = [(a, b) for a in NAMES for b in NAMES if a < b]

graphs = st.lists(st.tuples(st.sampled_from(_later), whens, st.booleans()), min_size=3, max_size=14)
any_changes = st.one_of(
    st.tuples(st.just("add"), names, st.lists(names, max_size=2)),
    st.tuples(st.just("replace"), names),
    st.tuples(st.just("remove"), names),
    st.tuples(st.just("connect"), names, names, whens, st.booleans(), st.none() | st.sampled_from(["1", "2"])),
    st.tuples(st.just("disconnect"), names, names),
)


def _always(_: object) -> bool:
    return True


def _never(_: object) -> bool:
    return False


class GraphStates(RuleBasedStateMachine):
    """Applies everything to both, and compares them."""

    def __init__(self) -> None:
        super().__init__()
        self.tables = MemoryTables()
        self.machine = StateMachine[LiveNode, LiveEdge](self.tables, lambda edge: edge.spec.condition is _always)
        self.naive = NaiveGraph()
        self.held: list[list[LiveNode]] = []
        self.attempts = Counter[str]()

    def _any(self, *states: NodeState) -> list[str]:
        return [name for name, state in self.naive.nodes.items() if state in states]

    @initialize(edges=graphs, held=st.lists(st.sampled_from(NAMES[:-2]), max_size=2))
    def begin(self, edges: list[tuple[tuple[str, str], When, bool]], held: list[str]) -> None:
        self._edit(
            [
                *(("add", name, []) for name in NAMES[:-2]),
                *(("connect", *pair, when, met, None) for pair, when, met in edges if not {*pair} & {*NAMES[-2:]}),
            ]
        )
        self._hold(held)

    @rule(edit=st.lists(any_changes, min_size=1, max_size=4))
    def edit_anything(self, edit: list[tuple[object, ...]]) -> None:
        self._edit(edit)

    @precondition(lambda self: self._any(*UNSTARTED))
    @rule(data=st.data(), when=whens, met=st.booleans())
    def edit_one(self, data: st.DataObject, when: When, met: bool) -> None:
        unstarted = st.sampled_from(self._any(*UNSTARTED))
        there = st.sampled_from(sorted(self.naive.nodes))
        edges = [
            (edge.source, edge.target)
            for edge in self.naive.edges.values()
            if self.naive.nodes[edge.target] in UNSTARTED
        ]
        kinds = ["add", "connect", "connect", "replace", "remove", *(["disconnect"] if edges else [])]
        change: tuple[object, ...]
        match data.draw(st.sampled_from(kinds)):
            case "add":
                change = ("add", data.draw(names), [data.draw(there)])
            case "connect":
                change = ("connect", data.draw(there), data.draw(unstarted), when, met, None)
            case "disconnect":
                change = ("disconnect", *data.draw(st.sampled_from(edges)))
            case kind:
                change = (kind, data.draw(unstarted))
        self._edit([change])

    @precondition(lambda self: self._any(*UNSTARTED))
    @rule(data=st.data(), when=whens, met=st.booleans())
    def connect_twice_with_an_id_that_could_be_made_up(self, data: st.DataObject, when: When, met: bool) -> None:
        unstarted = st.sampled_from(self._any(*UNSTARTED))
        there = st.sampled_from(sorted(self.naive.nodes))
        number = data.draw(st.integers(1, 3)) + max(
            (int(name.removeprefix("edge-")) for name in self.naive.edges if name.startswith("edge-")), default=0
        )
        names = data.draw(st.permutations([None, f"edge-{number}"]))
        self._edit([("connect", data.draw(there), data.draw(unstarted), when, met, name) for name in names])

    @precondition(lambda self: self._any(*UNSTARTED))
    @rule(data=st.data(), when=whens)
    def connect_and_remove(self, data: st.DataObject, when: When) -> None:
        source = data.draw(st.sampled_from(sorted(self.naive.nodes)))
        target = data.draw(st.sampled_from(self._any(*UNSTARTED)))
        removed = data.draw(st.sampled_from([source, target]))
        self._edit([("connect", source, target, when, True, None), ("remove", removed)])

    def _edit(self, edit: list[tuple[object, ...]]) -> None:
        copy, is_valid = self.naive.edited(), True
        made = dict[str, NaiveEdge]()
        try:
            for change in edit:
                self._change_naive(copy, made, *change)
            copy.check_cycles()
        except Refused:
            is_valid = False
        change_all = GraphEdit(self.tables)
        try:
            for kind, *arguments in edit:
                self._change(change_all, cast("str", kind), *arguments)
            edited = change_all._apply(self.machine)
        except GraphError:
            assert not is_valid, "a valid edit was refused"
            return
        assert is_valid, "an invalid edit was accepted"
        before = self.naive.nodes
        # The ids of new edges are made up: take them over.
        old = {name: edge for name, edge in copy.edges.items() if not name.startswith("new")}
        new = [edge for name, edge in copy.edges.items() if name.startswith("new")]
        for name, edge in self.tables.edges.items():
            if name not in old:
                like = (edge.source, edge.target, edge.when, edge.spec.condition is _always)
                match = next(other for other in new if (other.source, other.target, other.when, other.met) == like)
                new.remove(match)
                old[name] = match
        assert not new
        copy.edges = old
        copy.settle()
        self.naive = copy
        if edited is None:
            return
        for name in edited.added:
            self.attempts.pop(name, None)
        kept = before.keys() - set(edited.added)
        # A node with a new edge waits for it, if only within the edit.
        there = set(map(id, copy.edges.values()))
        with_new_edges = {edge.target for edge in made.values() if id(edge) in there}
        waited = {name for name in kept & with_new_edges if before[name] is NodeState.READY}
        ready = {name for name in kept - waited if before[name] is NodeState.READY}
        self._compare(edited.changes, waited, ready, {name: before[name] for name in kept})

    def _change(self, edit: GraphEdit, kind: str, *arguments: object) -> None:
        match kind, *arguments:
            case "add", str(name), after:
                edit.add(Node(name, "x"), after=cast("list[str]", after))
            case "replace", str(name):
                edit.replace(Node(name, "y"))
            case "remove", str(name):
                edit.remove(name)
            case "connect", str(source), str(target), When() as when, bool(met), name:
                condition = (_always if met else _never) if when is When.CONDITION else None
                edit.connect(Edge(source, target, when, condition=condition, id=cast("str | None", name)))
            case _, str(source), str(target):
                edit.disconnect(source, target)
            case _:
                raise AssertionError(arguments)

    def _change_naive(  # noqa: C901  # one case for each kind of change
        self, graph: NaiveGraph, made: dict[str, NaiveEdge], kind: object, *arguments: object
    ) -> None:
        def connect(source: str, target: str, when: When, met: bool, name: str | None) -> None:
            if source not in graph.nodes or (name is not None and name in graph.edges):
                raise Refused
            graph.check_editable(target)
            # A condition that is never asked counts as not met.
            edge = NaiveEdge(source, target, when, met and when is When.CONDITION)
            graph.edges[f"new{len(made)}" if name is None else name] = made[f"new{len(made)}"] = edge

        match kind, *arguments:
            case "add", str(name), after:
                if name in graph.nodes:
                    raise Refused
                graph.nodes[name] = NodeState.WAITING
                graph.holds.pop(name, None)
                for source in cast("list[str]", after):
                    connect(source, name, When.SUCCESS, False, None)
            case "replace", str(name):
                graph.check_editable(name)
            case "remove", str(name):
                graph.check_editable(name)
                del graph.nodes[name]
                graph.holds.pop(name, None)
                for key in [key for key, edge in graph.edges.items() if name in (edge.source, edge.target)]:
                    del graph.edges[key]
            case "connect", str(source), str(target), When() as when, bool(met), name:
                connect(source, target, when, met, cast("str | None", name))
            case _, str(source), str(target):
                graph.check_editable(target)
                keys = [key for key, edge in graph.edges.items() if (edge.source, edge.target) == (source, target)]
                if not keys:
                    raise Refused
                for key in keys:
                    del graph.edges[key]
            case _:
                raise AssertionError(arguments)

    @precondition(lambda self: self._any(NodeState.READY))
    @rule(data=st.data())
    def start(self, data: st.DataObject) -> None:
        name = data.draw(st.sampled_from(self._any(NodeState.READY)))
        self.machine.start(name)
        self.naive.nodes[name] = NodeState.RUNNING
        self.attempts[name] += 1

    @precondition(lambda self: self._any(NodeState.RUNNING))
    @rule(data=st.data())
    def start_again(self, data: st.DataObject) -> None:
        name = data.draw(st.sampled_from(self._any(NodeState.RUNNING)))
        self.machine.make_ready(name)
        self.naive.nodes[name] = NodeState.READY

    @precondition(lambda self: self._any(NodeState.RUNNING))
    @rule(data=st.data(), state=ends)
    def end(self, data: st.DataObject, state: NodeState) -> None:
        name = data.draw(st.sampled_from(self._any(NodeState.RUNNING)))
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
        assert {name: edge.holds for name, edge in self.tables.edges.items()} == {
            name: edge.holds for name, edge in self.naive.edges.items()
        }

    @invariant()
    def counts_are_exact(self) -> None:
        counts = Counter(node.state for node in self.tables.nodes.values())
        assert +Counter(self.machine.moved) == counts
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
