"""Reads this package's own form of a graph."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, cast

from galaxy_trio._arguments import MAX_PRIORITY
from galaxy_trio._config.reader import ObjectReader, member_path
from galaxy_trio.graph.files.assembly import Assembly
from galaxy_trio.graph.files.members import (
    FUNCTION,
    checked_name,
    checked_request,
    read_condition,
    read_time,
    read_timeout,
)
from galaxy_trio.graph.model import BACKOFF, MAX_RETRIES, TIMEOUT, Edge, Node, When
from galaxy_trio.graph.snapshot import NodeResult
from galaxy_trio.graph.state_machine import NodeState

if TYPE_CHECKING:
    from galaxy_trio.graph.files.members import Conditions
    from galaxy_trio.graph.snapshot import GraphSnapshot
    from galaxy_trio.messages import JSON

_WHENS: Final = frozenset(When)
_WHEN: Final = "one of " + ", ".join(When)
_STATES: Final = frozenset(NodeState)
_STATE: Final = "one of " + ", ".join(NodeState)


def read_our_graph(document: object, problems: list[str], conditions: Conditions) -> GraphSnapshot:
    """Read a document.

    Args:
        document: The document, as parsed.
        problems: Receives the problems, each with its path.
        conditions: The functions of conditional edges, by the edges' ids.

    Returns:
        The graph and what is known of its nodes; an empty one if there are problems.
    """
    members = ObjectReader(document, "", problems)
    assembly = Assembly(members, problems, "nodes", "edges")
    nodes: list[object] | None = members.read("nodes", "a list of nodes", list)
    edges: list[object] = members.read("edges", "a list of edges", list) or []
    name, metadata = members.text("name"), members.any_object("metadata")
    version = members.integer("version", minimum=0)
    results = members.any_object("results")
    decisions = members.any_object("decisions")
    members.refuse_unknown(extensions=True)
    if nodes is None:
        if not problems:
            members.report("nodes", "is missing: a graph is a list of nodes, and a list of edges between them")
        nodes = []
    if not assembly.has_room(len(nodes), len(edges)):
        nodes, edges = [], []
    for index, value in assembly.until_full(enumerate(nodes)):
        node = read_node(value, f"nodes[{index}]", problems)
        if node is not None:
            assembly.add_node(f"nodes[{index}].id", node)
    for index, value in assembly.until_full(enumerate(edges)):
        place = f"edges[{index}]"
        edge = read_edge(value, place, members, conditions, problems)
        if edge is not None:
            assembly.add_edge(f"{place}.source", f"{place}.target", f"{place}.id", edge)
    known = dict[str, NodeResult]()
    for node_id, value in assembly.until_full(results.items()):
        place = member_path("results", node_id)
        known[node_id] = _read_result(value, place, problems)
        if not assembly.has_node(node_id):
            members.report(place, "there is no node with this id")
    decided = {edge_id: holds for edge_id, holds in decisions.items() if isinstance(holds, bool)}
    for edge_id in assembly.until_full(decisions):
        if edge_id not in decided:
            members.report(member_path("decisions", edge_id), "expected true or false")
    assembly.check_decisions("decisions", decided, known)
    return assembly.snapshot(name=name, metadata=metadata, version=version or 0, results=known, decisions=decided)


def read_node(value: object, place: str, problems: list[str]) -> Node | None:
    """Read a node. One whose id is known is returned also if there are problems, so that its edges are checked."""
    members = ObjectReader(value, place, problems)
    node_id = checked_name(members, "id", members.text("id", required=True))
    request = checked_request(members, "request", members.text("request", required=True))
    device, system = members.text("device"), members.text("os")
    capabilities = members.texts("capabilities")
    priority = members.integer("priority", minimum=-MAX_PRIORITY, maximum=MAX_PRIORITY)
    timeout = read_timeout(members)
    retries = members.integer("retries", minimum=0, maximum=MAX_RETRIES)
    backoff = members.number("backoff", zero=True)
    retry_lost = members.boolean("retry_lost")
    name, tips, metadata = members.text("name"), members.texts("tips"), members.any_object("metadata")
    members.refuse_unknown(extensions=True)
    if device is not None and (system is not None or capabilities):
        members.report("device", "give a device, or the properties that one must have, not both")
        device = None
    if node_id is None:
        return None
    return Node(
        node_id,
        request,
        device=device,
        os=system,
        capabilities=capabilities,
        priority=priority or 0,
        timeout=TIMEOUT if timeout is None else timeout,
        retries=retries or 0,
        backoff=BACKOFF if backoff is None else backoff,
        retry_lost=bool(retry_lost),
        name=name,
        tips=tips,
        metadata=metadata,
    )


def read_edge(
    value: object, place: str, document: ObjectReader, conditions: Conditions, problems: list[str]
) -> Edge | None:
    """Read an edge, whose nodes need not be there. `document` reports problems of its condition."""
    members = ObjectReader(value, place, problems)
    source = checked_name(members, "source", members.text("source", required=True))
    target = checked_name(members, "target", members.text("target", required=True))
    when = When(members.text("when", _WHEN, accept=_WHENS.__contains__) or When.SUCCESS)
    given: object = members.read("condition", f'an object, or "{FUNCTION}"', dict, str, accept=_is_condition)
    edge_id, metadata = checked_name(members, "id", members.text("id")), members.any_object("metadata")
    members.refuse_unknown(extensions=True)
    condition = None
    if when is When.CONDITION:
        condition = read_condition(document, f"{place}.condition", given, edge_id, conditions, problems)
    elif given is not None:
        members.report("condition", f'it belongs to an edge whose "when" is "{When.CONDITION}", and to no other')
    if source is None or target is None:
        return None
    return Edge(source, target, when, condition=condition, id=edge_id, metadata=metadata)


def _is_condition(value: object) -> bool:
    return isinstance(value, dict) or value == FUNCTION


def _read_result(value: object, place: str, problems: list[str]) -> NodeResult:
    members = ObjectReader(value, place, problems)
    state = members.text("state", _STATE, accept=_STATES.__contains__)
    attempt = members.integer("attempt", minimum=0)
    result = cast("JSON", members.value("result"))
    error, task_id, device_id = members.text("error"), members.text("task_id"), members.text("device_id")
    started, ended = read_time(members, "started"), read_time(members, "ended")
    members.refuse_unknown(extensions=True)
    return NodeResult(
        NodeState(state or NodeState.WAITING), attempt or 0, result, error, task_id, device_id, started, ended
    )
