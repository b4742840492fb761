"""A task graph: nodes, and edges between them. Immutable, and checked when it is made."""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from enum import StrEnum
from types import MappingProxyType
from typing import TYPE_CHECKING, Final, TypeVar, cast

import attrs

from galaxy_trio._arguments import MAX_PRIORITY, check_name, is_priority
from galaxy_trio._json_size import json_size
from galaxy_trio.constellation.profile import DeviceProfile
from galaxy_trio.errors import ConfigError, CycleError, GraphError, GraphTooLarge
from galaxy_trio.events import shortened
from galaxy_trio.graph.conditions import Condition
from galaxy_trio.graph.cycles import find_cycle, show_cycle
from galaxy_trio.messages import JSON

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator

T = TypeVar("T", bound=attrs.AttrsInstance)

MAX_NODES: Final = 10_000
"""The number of nodes of a graph."""
MAX_EDGES: Final = 250_000
"""The number of edges of a graph."""
MAX_REQUEST: Final = 2**20
"""The length of a node's request, in characters."""
MAX_SIZE: Final = 2**28
"""Bytes of memory of the requests, tips, metadata and conditions of a graph together."""
MAX_NODE_ID: Final = 200
"""The length of a node's or an edge's id, in characters."""
MAX_RETRIES: Final = 1_000
"""The number of retries of a node."""
TIMEOUT: Final = 1000.0
"""The default timeout of a node, in seconds."""
BACKOFF: Final = 1.0
"""The default of the longest wait before a node's second attempt, in seconds."""
_NOTHING: Final[Mapping[str, JSON]] = MappingProxyType({})


class When(StrEnum):
    """The ends of its source with which an edge holds. An edge that does not hold skips its target."""

    SUCCESS = "success"
    """It completed."""
    FAILURE = "failure"
    """It failed or was lost."""
    CONDITION = "condition"
    """It completed, and its result meets the edge's condition."""
    END = "end"
    """Any end: also if it was skipped or cancelled."""


def _strings(items: Iterable[str]) -> tuple[str, ...]:
    # A single name would be split into its letters.
    return (items,) if isinstance(items, str) else tuple(items)


def _name_set(items: Iterable[str]) -> frozenset[str]:
    return frozenset(_strings(items))


def _check_id(what: str, name: str, where: str = "") -> None:
    try:
        check_name(what, name, MAX_NODE_ID)
    except ConfigError as error:
        raise GraphError(f"{where}{error}") from None


def _when(when: When | str) -> When:
    if isinstance(when, When):
        return when
    try:
        return When(when)
    except ValueError:
        raise GraphError(f"an edge's when is one of {', '.join(When)}, not {when!r}") from None


def _nodes(nodes: Iterable[Node]) -> tuple[Node, ...]:
    return tuple(nodes)


def _edges(edges: Iterable[Edge]) -> tuple[Edge, ...]:
    return tuple(edges)


@attrs.frozen
class Node:
    """A task of a graph. Each attempt to run it is a task of its own.

    Attributes:
        id: The node's name in its graph.
        request: The task, in words.
        device: The device that runs it. Without one, the device that fits best.
        os: The operating system that the device must run.
        capabilities: The capabilities, all of which the device must have.
        where: A function that takes a `DeviceProfile` and returns whether the device fits. It does not survive a file.
        priority: -100 to 100. Of the nodes that are ready, and in a device's queue, the highest goes first.
        timeout: Seconds from sending it, or `math.inf`.
        retries: The number of further attempts after it has failed.
        backoff: The longest wait before the first of them, in seconds; it doubles with each.
        retry_lost: Whether it may run again after an attempt whose end is unknown.
        name: A name for people.
        tips: Advice for the device, which becomes part of the request.
        metadata: Any further data.
    """

    id: str
    request: str
    device: str | None = attrs.field(default=None, kw_only=True)
    os: str | None = attrs.field(default=None, kw_only=True)
    capabilities: frozenset[str] = attrs.field(default=frozenset(), kw_only=True, converter=_name_set)
    where: Callable[[DeviceProfile], bool] | None = attrs.field(default=None, kw_only=True)
    priority: int = attrs.field(default=0, kw_only=True)
    timeout: float = attrs.field(default=TIMEOUT, kw_only=True)
    retries: int = attrs.field(default=0, kw_only=True)
    backoff: float = attrs.field(default=BACKOFF, kw_only=True)
    retry_lost: bool = attrs.field(default=False, kw_only=True)
    name: str | None = attrs.field(default=None, kw_only=True)
    tips: tuple[str, ...] = attrs.field(default=(), kw_only=True, converter=_strings)
    metadata: Mapping[str, JSON] = attrs.field(factory=dict[str, JSON], kw_only=True)

    def __attrs_post_init__(self) -> None:
        _check_id("node id", self.id)
        where = f"node {self.id!r}"
        if len(self.request) > MAX_REQUEST:
            raise GraphTooLarge(
                f"{where}: a request has at most {MAX_REQUEST:,} characters, and this one has {len(self.request):,}"
            )
        if self.device is not None and (self.os is not None or self.capabilities or self.where is not None):
            raise GraphError(f"{where}: give a device, or the properties that one must have, not both")
        if not is_priority(self.priority):
            raise GraphError(
                f"{where}: a priority is a whole number from -{MAX_PRIORITY} to {MAX_PRIORITY}, and this one is {self.priority!r}"
            )
        if not isinstance(self.where, Hashable):
            raise GraphError(f"{where}: where is a function, or another callable that can be hashed")
        if not self.timeout >= 0:
            raise GraphError(f"{where}: a timeout is a number of seconds or math.inf, not {self.timeout!r}")
        if not 0 <= self.retries <= MAX_RETRIES:
            raise GraphError(f"{where}: retries are 0 to {MAX_RETRIES:,}, not {self.retries!r}")
        if not 0 <= self.backoff < math.inf:
            raise GraphError(f"{where}: a backoff is a number of seconds, not {self.backoff!r}")


EdgeCondition = Condition | Callable[[JSON], bool]
"""Decides on the result of an edge's source. An exception of a function ends the graph's block."""


@attrs.frozen
class Edge:
    """A dependency: its target waits for its source.

    Attributes:
        source: The id of the node that goes first.
        target: The id of the node that waits.
        when: The ends of the source with which the target may run.
        condition: The condition of `When.CONDITION`.
        id: The edge's name in its graph; made up if it is not given.
        metadata: Any further data.
    """

    source: str
    target: str
    when: When = attrs.field(default=When.SUCCESS, converter=_when)
    condition: EdgeCondition | None = attrs.field(default=None, kw_only=True)
    id: str | None = attrs.field(default=None, kw_only=True)
    metadata: Mapping[str, JSON] = attrs.field(default=_NOTHING, kw_only=True)

    def __attrs_post_init__(self) -> None:
        if self.id is not None:
            _check_id("name", self.id, f"{self}: ")
        if max(len(self.source), len(self.target)) > MAX_NODE_ID:
            raise GraphError(f"{self}: a node id has at most {MAX_NODE_ID} characters")
        if (self.condition is not None) != (self.when is When.CONDITION):
            raise GraphError(f"{self}: a condition belongs to an edge with When.CONDITION, and to no other")

    def __str__(self) -> str:
        return f"edge {shortened(self.source)!r} -> {shortened(self.target)!r}"


@attrs.frozen
class Graph:
    """Nodes and the edges between them, without cycles.

    Args:
        nodes: The nodes, each with an id of its own.
        edges: The edges. Two nodes may have several.
        name: A name for people.
        metadata: Any further data.

    Raises:
        CycleError: The edges form a cycle, which the message names by its nodes.
        GraphTooLarge: There are too many nodes or edges.
        GraphError: Two nodes or edges have one id, or an edge names a node that is not there.
    """

    nodes: tuple[Node, ...] = attrs.field(default=(), converter=_nodes)
    edges: tuple[Edge, ...] = attrs.field(default=(), converter=_edges)
    name: str | None = attrs.field(default=None, kw_only=True)
    metadata: Mapping[str, JSON] = attrs.field(default=_NOTHING, kw_only=True)
    # For a large graph these take long, and so they are made here and not while it is opened: the edges, each with an id, and the bytes of
    # memory of the texts and data of all nodes and edges.
    _named_edges: tuple[Edge, ...] = attrs.field(init=False, eq=False, repr=False)
    _size: int = attrs.field(init=False, eq=False, repr=False)

    def __attrs_post_init__(self) -> None:
        # Apart from the rest, which edits change.
        check_size(0, 0, json_size((self.name, dict(self.metadata)), MAX_SIZE))
        size = sum(map(node_size, self.nodes)) + sum(map(edge_size, self.edges))
        check_size(len(self.nodes), len(self.edges), size)
        ids = [node.id for node in self.nodes]
        _unique("node", ids)
        # In the nodes' order, so that a cycle is named the same way each time.
        targets: dict[str, list[str]] = {node_id: [] for node_id in ids}
        edge_ids = _unique("edge", [edge.id for edge in self.edges if edge.id is not None])
        for edge in self.edges:
            for end in (edge.source, edge.target):
                if end not in targets:
                    raise GraphError(f"{edge}: there is no node {end!r}")
            targets[edge.source].append(edge.target)
        cycle = find_cycle(targets)
        if cycle:
            raise CycleError(f"the edges form a cycle: {show_cycle(cycle)}", nodes=cycle)
        free = free_edge_ids(edge_ids)
        named = tuple([edge if edge.id is not None else name_edge(edge, next(free)) for edge in self.edges])
        object.__setattr__(self, "_named_edges", named)
        object.__setattr__(self, "_size", size)


def free_edge_ids(taken: Collection[str]) -> Iterator[str]:
    """Make up ids of edges that are not taken. The first number is above that of the ids: most of those below are taken."""
    number = len(taken)
    while True:
        number += 1
        edge_id = f"edge-{number}"
        if edge_id not in taken:
            yield edge_id


def name_edge(edge: Edge, edge_id: str) -> Edge:
    """Return the same edge with an id."""
    # Twice as fast as `attrs.evolve`.
    return Edge(edge.source, edge.target, edge.when, condition=edge.condition, id=edge_id, metadata=edge.metadata)


def evolve_unchecked(given: T, **changes: object) -> T:
    """Return a copy of an immutable object with other values, which are known to be valid: a check of a large graph takes long."""
    evolved = object.__new__(type(given))
    for field in attrs.fields(type(given)):
        object.__setattr__(evolved, field.name, changes.get(field.name, getattr(given, field.name)))
    return evolved


def node_size(node: Node) -> int:
    """Count the bytes of memory of a node's texts and data, to the limit of a graph."""
    texts = (node.request, node.name, node.device, node.os, *node.capabilities, *node.tips)
    return json_size((*texts, dict(node.metadata)), MAX_SIZE)


def edge_size(edge: Edge) -> int:
    """Count the bytes of memory of an edge's condition and metadata, to the limit of a graph."""
    if not edge.metadata and not isinstance(edge.condition, Condition):
        return 0
    condition = attrs.astuple(edge.condition, recurse=False) if isinstance(edge.condition, Condition) else ()
    return json_size((*condition, dict(edge.metadata)), MAX_SIZE)


def check_size(nodes: int, edges: int, size: int) -> None:
    """Raise `GraphTooLarge` for a graph with too many nodes, edges, or bytes of texts and data."""
    if nodes > MAX_NODES:
        raise GraphTooLarge(f"a graph has at most {MAX_NODES:,} nodes, and this one has {nodes:,}")
    if edges > MAX_EDGES:
        raise GraphTooLarge(f"a graph has at most {MAX_EDGES:,} edges, and this one has {edges:,}")
    if size > MAX_SIZE:
        raise GraphTooLarge(
            f"the requests, tips, metadata and conditions of a graph take at most {MAX_SIZE:,} bytes of memory together, "
            f"and those of this one take {size:,}"
        )


def _unique(what: str, ids: Sequence[str]) -> set[str]:
    found = set(ids)
    if len(found) < len(ids):
        seen = set[str]()
        twice = next(id_ for id_ in ids if id_ in seen or seen.add(id_))  # type: ignore[func-returns-value]
        raise GraphError(f"the {what} id {twice!r} is given twice")
    return found


def conditions_met(edge: Edge, result: JSON) -> bool:
    """Evaluate the condition of an edge on its source's result."""
    condition = edge.condition
    return (
        condition.is_met(result)
        if isinstance(condition, Condition)
        else bool(cast("Callable[[JSON], bool]", condition)(result))
    )
