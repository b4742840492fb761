"""A graph in memory that is changed as a stored one: by the library's tables, state machine and edits."""

from __future__ import annotations

from typing import TYPE_CHECKING

from galaxy_trio.daemon.store.graph_tasks import CANCELLED
from galaxy_trio.graph.edit import Edited, GraphEdit
from galaxy_trio.graph.memory_tables import LiveEdge, LiveNode, MemoryTables
from galaxy_trio.graph.model import conditions_met
from galaxy_trio.graph.node_requests import make_request
from galaxy_trio.graph.snapshot import GraphState, state_of
from galaxy_trio.graph.state_machine import UNSTARTED, Changes, NodeState, StateMachine

if TYPE_CHECKING:
    from collections.abc import Callable

    from galaxy_trio.graph.model import Graph
    from galaxy_trio.messages import JSON


class GraphModel:
    """A graph whose nodes are begun and ended by hand."""

    def __init__(self, graph: Graph) -> None:
        self.tables = MemoryTables()
        self.tables.size = graph._size
        self.machine = StateMachine[LiveNode, LiveEdge](self.tables, self._is_met)
        for node in graph.nodes:
            self.tables.add_node(node)
            self.machine.count_new(node.id)
        for edge in self.tables.add_edges(graph._named_edges):
            self.machine.add_edge(edge)
        self.machine.settle(list(self.tables.nodes), Changes())
        self.version = 0
        self.cancelled = False
        self.stopping = set[str]()
        """The running nodes that were cancelled."""
        self.delayed = set[str]()
        """The nodes that may wait before another attempt."""

    def _is_met(self, edge: LiveEdge) -> bool:
        return conditions_met(edge.spec, self.tables.node(edge.source).result) if edge.met is None else edge.met

    @property
    def state(self) -> GraphState:
        return state_of(self.machine.moved, cancelled=self.cancelled)

    def in_state(self, *states: NodeState) -> list[str]:
        return [node.id for node in self.tables.nodes.values() if node.state in states]

    def text_of(self, node_id: str) -> str:
        before = {edge.source: self.tables.node(edge.source).known() for edge in self.tables.incoming(node_id)}
        return make_request(self.tables.node(node_id).spec, before)

    def begin(self, node_id: str) -> None:
        self.machine.start(node_id)
        node = self.tables.node(node_id)
        node.result = node.error = None

    def end(self, node_id: str, state: NodeState, result: JSON, error: str | None) -> None:
        """End the attempt of a node that runs, or of one that is ready and was not begun."""
        node = self.tables.node(node_id)
        if node_id in self.stopping and state is not NodeState.COMPLETED:
            state = NodeState.CANCELLED
        repeats = state is NodeState.FAILED or (state is NodeState.LOST and node.spec.retry_lost)
        node.result, node.error = result, error
        self.stopping.discard(node_id)
        if node.state is NodeState.RUNNING and repeats and node.attempt <= node.spec.retries:
            self.machine.make_ready(node_id)
            self.delayed.add(node_id)
            return
        self._end([node_id], state)

    def _end(self, node_ids: list[str], state: NodeState) -> None:
        for node_id in node_ids:
            node = self.tables.node(node_id)
            if state is NodeState.CANCELLED:
                node.error = CANCELLED
            self.delayed.discard(node_id)
        self.machine.end_all(node_ids, state)

    def cancel(self, *node_ids: str) -> None:
        """Cancel nodes, or without any the graph."""
        if not node_ids:
            if self.state is not GraphState.RUNNING:
                return
            self.cancelled = True
        nodes = [self.tables.node(node_id) for node_id in node_ids or self.tables.nodes]
        self.stopping |= {node.id for node in nodes if node.state is NodeState.RUNNING}
        unstarted = [node.id for node in nodes if node.state in UNSTARTED]
        if unstarted:
            self._end(unstarted, NodeState.CANCELLED)

    def retry(self, node_id: str) -> None:
        self.machine.retry(node_id)
        node = self.tables.node(node_id)
        node.result = node.error = None
        self.cancelled = False

    def edit(self, change: Callable[[GraphEdit], None]) -> Edited | None:
        edit = GraphEdit(self.tables)
        change(edit)
        edited = edit._apply(self.machine)
        if edited is not None:
            self.version += 1
            self.cancelled = self.cancelled and not edited.added
            self.delayed &= set(self.in_state(*UNSTARTED)) - set(edited.added)
        return edited
