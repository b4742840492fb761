"""Any sequence of changes of a stored graph and of the same graph in memory, which agree after each of them."""

from __future__ import annotations

import json
from collections import Counter
from datetime import timedelta
from functools import partial
from typing import TYPE_CHECKING, TypeVar

import hypothesis.strategies as st
import pytest
from hypothesis import settings
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)
from sqlalchemy import select, update

from galaxy_trio.daemon.store import graph_edits, graph_ends, graph_snapshots, graphs
from galaxy_trio.daemon.store.graph_documents import condition_of, encode_graph
from galaxy_trio.daemon.store.graph_ends import NodeStopped, mark_queued
from galaxy_trio.daemon.store.graph_steps import ConditionsNeeded
from galaxy_trio.daemon.store.graphs import GraphRefused
from galaxy_trio.daemon.store.records import TaskState
from galaxy_trio.daemon.store.schema import GRAPH_NODES, GRAPHS, TASKS
from galaxy_trio.errors import GraphError
from galaxy_trio.graph.conditions import Condition
from galaxy_trio.graph.model import Edge, Graph, Node, When
from galaxy_trio.graph.state_machine import RETRYABLE, UNSTARTED, NodeState
from tests.daemon.support.graph_model import GraphModel
from tests.daemon.support.lives import NOW, new_engine, transaction_on
from tests.daemon.support.stored_graphs import begin_in, task_ids_in

if TYPE_CHECKING:
    from collections.abc import Callable

    from sqlalchemy import Engine

    from galaxy_trio.daemon.store.committer import Transaction
    from galaxy_trio.daemon.store.location import Location
    from galaxy_trio.graph.edit import GraphEdit

pytestmark = pytest.mark.daemon

T = TypeVar("T")

_NAMES = [f"n{number}" for number in range(6)]
_ENDS = [TaskState.COMPLETED, TaskState.COMPLETED, TaskState.FAILED, TaskState.LOST, TaskState.CANCELLED]
_names = st.sampled_from(_NAMES)
_codes = st.integers(0, 1)
_details = {
    "request": st.sampled_from(["echo", "list"]),
    "retries": st.sampled_from([0, 1, 2]),
    "backoff": st.sampled_from([0, 100]),
    "retry_lost": st.booleans(),
    "tips": st.sampled_from([(), ("a tip",)]),
}
_whens = st.sampled_from([When.SUCCESS, When.CONDITION, When.FAILURE, When.END])


def _node(draw: st.DrawFn, name: str) -> Node:
    return draw(st.builds(Node, st.just(name), **_details))


def _edge(draw: st.DrawFn, sources: list[str], targets: list[str]) -> Edge:
    when = draw(_whens)
    condition = Condition("/code", "eq", draw(_codes)) if when is When.CONDITION else None
    return Edge(draw(st.sampled_from(sources)), draw(st.sampled_from(targets)), when, condition=condition)


@st.composite
def _graphs(draw: st.DrawFn) -> Graph:
    names = _NAMES[: draw(st.integers(2, 5))]
    nodes = [_node(draw, name) for name in names]
    targets = draw(st.lists(st.integers(1, len(names) - 1), min_size=1, max_size=7))
    return Graph(nodes, [_edge(draw, names[:target], [names[target]]) for target in targets])


@st.composite
def _changes(draw: st.DrawFn, nodes: list[str], editable: list[str]) -> list[tuple[object, ...]]:
    """Changes most of which are accepted."""
    changes: list[tuple[object, ...]] = []
    for method in draw(
        st.lists(st.sampled_from(["add", "replace", "remove", "connect", "disconnect"]), min_size=1, max_size=3)
    ):
        some = st.sampled_from(editable or _NAMES)
        if method == "add":
            name = draw(st.sampled_from([name for name in _NAMES if name not in nodes] or _NAMES))
            changes.append((method, _node(draw, name), draw(st.lists(st.sampled_from(nodes or _NAMES), max_size=2))))
        elif method == "replace":
            changes.append((method, _node(draw, draw(some))))
        elif method == "remove":
            changes.append((method, draw(some)))
        elif method == "connect":
            changes.append((method, _edge(draw, nodes or _NAMES, editable or _NAMES)))
        else:
            changes.append((method, draw(st.sampled_from(nodes or _NAMES)), draw(some)))
    return changes


class StoredGraphStates(RuleBasedStateMachine):
    """Applies everything to both, and compares them."""

    def __init__(self, engine: Engine) -> None:
        super().__init__()
        self._engine = engine
        self._results: dict[str, str] = {}
        # What a takeover has ended, and no sweep has followed.
        self._lost: dict[str, str] = {}
        self._time = NOW

    def _transact(self, operation: Callable[[Transaction, dict[tuple[str, str], bool]], T]) -> T:
        met: dict[tuple[str, str], bool] = {}
        while True:
            try:
                with self._engine.begin() as connection:
                    return operation(transaction_on(connection, self._time), met)
            except ConditionsNeeded as needed:
                for task_id, condition in needed.conditions:
                    assert (task_id, condition) not in met
                    result = self._results.get(task_id)
                    met[task_id, condition] = condition_of(condition).is_met(json.loads(result) if result else None)

    def _both(
        self, stored: Callable[[Transaction, dict[tuple[str, str], bool]], object], model: Callable[[], object]
    ) -> None:
        """Change both; if one refuses, the other one does as well, with the same error."""
        errors: list[GraphError | None] = [None, None]
        try:
            model()
        except GraphError as refusal:
            errors[0] = refusal
        try:
            self._transact(stored)
        except GraphRefused as refusal:
            errors[1] = refusal.error
        assert type(errors[0]) is type(errors[1]), errors

    def _task(self, node_id: str) -> str:
        with self._engine.connect() as connection:
            return task_ids_in(connection, self._id)[node_id]

    def _startable(self) -> list[str]:
        return [node_id for node_id in self._model.in_state(NodeState.READY) if node_id not in self._delayed()]

    def _delayed(self) -> set[str]:
        """Those that wait, by chance not at all."""
        with self._engine.connect() as connection:
            query = select(GRAPH_NODES.c.id).join(GRAPHS, GRAPHS.c.number == GRAPH_NODES.c.graph)
            delayed = set(
                connection.execute(
                    query.where(GRAPHS.c.id == self._id, GRAPH_NODES.c.not_before.is_not(None))
                ).scalars()
            )
        assert delayed <= self._model.delayed
        return delayed

    def _running(self) -> list[str]:
        return [name for name in self._model.in_state(NodeState.RUNNING) if name not in self._lost]

    @initialize(graph=_graphs())
    def add(self, graph: Graph) -> None:
        self._model = GraphModel(graph)
        record, _ = self._transact(lambda transaction, _: graphs.add(transaction, encode_graph(graph)))
        self._id = record.id

    @precondition(lambda self: self._startable())
    @rule(data=st.data())
    def begin(self, data: st.DataObject) -> None:
        self._begin(data.draw(st.sampled_from(self._startable())))

    def _begin(self, name: str) -> None:
        self._transact(lambda transaction, _: begin_in(transaction.connection, self._id, name))
        self._model.begin(name)

    @precondition(lambda self: self._running())
    @rule(data=st.data())
    def go_back_to_the_queue(self, data: st.DataObject) -> None:
        name = data.draw(st.sampled_from(self._running()))
        if self._model.tables.node(name).repeated:
            return
        # Its text stays, so it may show what has changed since.
        task_id = self._task(name)
        if name in self._model.stopping:
            with pytest.raises(NodeStopped):
                self._transact(lambda transaction, _: mark_queued(transaction, task_id, task_id))
            return
        self._transact(lambda transaction, _: mark_queued(transaction, task_id, task_id))
        self._model.machine.make_ready(name)
        self._model.tables.node(name).attempt -= 1
        self._begin(name)

    @precondition(lambda self: self._running())
    @rule(data=st.data(), state=st.sampled_from(_ENDS), code=_codes)
    def end(self, data: st.DataObject, state: TaskState, code: int) -> None:
        self._end(data.draw(st.sampled_from(self._running())), state, code)

    @precondition(lambda self: self._startable())
    @rule(data=st.data(), state=st.sampled_from(_ENDS), code=_codes)
    def begin_and_end(self, data: st.DataObject, state: TaskState, code: int) -> None:
        name = data.draw(st.sampled_from(self._startable()))
        self._begin(name)
        self._end(name, state, code)

    def _end(self, name: str, state: TaskState, code: int) -> None:
        task_id, error = self._task(name), None if state is TaskState.COMPLETED else "an error"
        result = json.dumps({"code": code}) if state is TaskState.COMPLETED else None
        if result is not None:
            self._results[task_id] = result
        self._transact(
            lambda transaction, met: graph_ends.finish(
                transaction, task_id, task_id, "life", state, error=error, result=result, met=met
            )
        )
        self._model.end(name, NodeState(state.value), None if result is None else {"code": code}, error)

    @precondition(lambda self: self._startable())
    @rule(data=st.data())
    def cancel_queued_task(self, data: st.DataObject) -> None:
        name = data.draw(st.sampled_from(self._startable()))
        task_id = self._task(name)
        self._transact(lambda transaction, _: graph_ends.cancel_queued(transaction, task_id))
        self._model.tables.node(name).error = self._model.tables.node(name).result = None
        self._model.end(name, NodeState.CANCELLED, None, None)

    @precondition(lambda self: self._running())
    @rule(data=st.data())
    def lose(self, data: st.DataObject) -> None:
        name = data.draw(st.sampled_from(self._running()))
        task_id = self._task(name)
        lost = {"state": "lost", "ended": self._time.timestamp(), "error": "its daemon died", "claimed_by": None}
        self._transact(
            lambda transaction, _: transaction.connection.execute(
                update(TASKS).where(TASKS.c.id == task_id).values(lost)
            )
        )
        self._lost[name] = task_id

    @rule(seconds=st.sampled_from([0, 50, 1000]))
    def sweep(self, seconds: float) -> None:
        self._time += timedelta(seconds=seconds)
        self._transact(lambda transaction, met: graph_ends.sweep(transaction, self._id, met=met))
        for name in sorted(self._lost):
            self._model.end(name, NodeState.LOST, None, "its daemon died")
        self._lost.clear()
        with self._engine.connect() as connection:
            # Graphs of earlier examples may have been left behind.
            assert self._id not in (
                graph_ends.find_unfollowed(connection),
                graph_ends.find_delayed(connection, self._time),
            )

    def _some(self, data: st.DataObject, names: list[str]) -> str:
        """One of these names, or rarely any other."""
        return data.draw(_names if not names or data.draw(st.integers(0, 9)) == 0 else st.sampled_from(names))

    @rule(data=st.data())
    def cancel_node(self, data: st.DataObject) -> None:
        name = self._some(data, self._model.in_state(NodeState.RUNNING, *UNSTARTED))
        self._both(
            lambda transaction, _: graphs.cancel(transaction, self._id, name),
            lambda: self._model.cancel(name),
        )

    @rule(really=st.integers(0, 4).map(lambda number: number == 0))
    def cancel(self, really: bool) -> None:
        if really:
            self._both(lambda transaction, _: graphs.cancel(transaction, self._id), self._model.cancel)

    @precondition(lambda self: self._model.in_state(*RETRYABLE))
    @rule(data=st.data())
    def retry(self, data: st.DataObject) -> None:
        name = self._some(data, self._model.in_state(*RETRYABLE))
        self._both(
            lambda transaction, _: graphs.retry_node(transaction, self._id, name),
            lambda: self._model.retry(name),
        )

    @rule(data=st.data())
    def edit(self, data: st.DataObject) -> None:
        changes = data.draw(_changes(list(self._model.tables.nodes), self._model.in_state(*UNSTARTED)))

        def change(edit: GraphEdit) -> None:
            for method, *arguments in changes:
                getattr(edit, str(method))(*arguments)

        version = self._model.version
        self._both(
            lambda transaction, met: graph_edits.edit(transaction, self._id, change, version, met=met),
            lambda: self._model.edit(change),
        )

    @invariant()
    def both_agree(self) -> None:
        with self._engine.connect() as connection:
            record = graphs.existing(connection, self._id)
            snapshot = graph_snapshots.snapshot(connection, self._id)
        tables, nodes = self._model.tables, self._model.tables.nodes
        assert [node.id for node in snapshot.graph.nodes] == list(nodes)
        assert list(snapshot.graph.nodes) == [node.spec for node in nodes.values()]
        assert {name: node.state for name, node in snapshot.nodes.items()} == {
            name: node.state for name, node in nodes.items()
        }
        assert {name: node.attempt for name, node in snapshot.nodes.items()} == {
            name: node.attempt for name, node in nodes.items()
        }
        stored = Counter(
            (edge.source, edge.target, edge.when, str(edge.condition), snapshot.decisions.get(str(edge.id)))
            for edge in snapshot.graph.edges
        )
        assert stored == Counter(
            (edge.source, edge.target, edge.when, str(edge.spec.condition), edge.holds)
            for edge in tables.edges.values()
        )
        assert (record.version, record.size) == (self._model.version, tables.size)
        assert record.state is self._model.state
        assert (record.ended is None) == (record.state.value == "running")
        # The task of a lost node does not run any more, and its graph has not followed that yet.
        counts = Counter(NodeState.READY if name in self._lost else node.state for name, node in nodes.items())
        assert +Counter(record.counts) == counts

    @invariant()
    def each_ready_node_has_one_queued_task_with_its_text(self) -> None:
        with self._engine.connect() as connection:
            query = select(TASKS.c.node, TASKS.c.request).where(TASKS.c.graph == self._id, TASKS.c.state == "queued")
            queued = [(row.node, row.request) for row in connection.execute(query)]
        assert sorted(queued) == sorted((name, self._model.text_of(name)) for name in self._startable())


def test_stored_graph_agrees_with_the_same_graph_in_memory(database: Location) -> None:
    with new_engine(database) as engine:
        run_state_machine_as_test(
            partial(StoredGraphStates, engine),  # type: ignore[arg-type]  # it only calls it
            settings=settings(max_examples=60, stateful_step_count=25, deadline=None),
        )
