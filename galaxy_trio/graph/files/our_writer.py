"""Writes this package's own form of a graph. Defaults are left out."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Final, cast

from galaxy_trio.graph.conditions import Condition
from galaxy_trio.graph.files.members import FUNCTION, INFINITE
from galaxy_trio.graph.model import BACKOFF, TIMEOUT, When
from galaxy_trio.graph.snapshot import NodeResult

if TYPE_CHECKING:
    from galaxy_trio.graph.model import Edge, EdgeCondition, Node
    from galaxy_trio.graph.snapshot import GraphSnapshot
    from galaxy_trio.messages import JSON

_UNTOUCHED: Final = NodeResult()


def write_our_graph(snapshot: GraphSnapshot, problems: list[str]) -> dict[str, JSON]:
    """Return the document of a graph. What cannot be written is added to the problems, with its path."""
    graph = snapshot.graph
    for index, node in enumerate(graph.nodes):
        check_node(node, f"nodes[{index}]", problems)
    document: dict[str, JSON] = {} if graph.name is None else {"name": graph.name}
    document |= {
        "nodes": [_node(node) for node in graph.nodes],
        "edges": [_edge(edge, named.id) for edge, named in zip(graph.edges, graph._named_edges, strict=True)],
    }
    if graph.metadata:
        document["metadata"] = dict(graph.metadata)
    if snapshot.version:
        document["version"] = snapshot.version
    results = {node_id: _result(result) for node_id, result in snapshot.nodes.items() if result != _UNTOUCHED}
    if results:
        document["results"] = cast("dict[str, JSON]", results)
    if snapshot.decisions:
        document["decisions"] = dict(snapshot.decisions)
    return document


def check_node(node: Node, place: str, problems: list[str]) -> None:
    """Report what no file can hold."""
    if node.where is not None:
        problems.append(
            f"{place}.where: a function cannot be written: give node {node.id!r} a device, os or capabilities instead, or remove it"
        )


def written_condition(condition: EdgeCondition) -> JSON:
    """Return a condition as data, or the word for a function."""
    if not isinstance(condition, Condition):
        return FUNCTION
    written: dict[str, JSON] = {"at": condition.at, "is": condition.test}
    if condition.value is not None:
        written["value"] = condition.value
    return written


def written_timeout(timeout: float) -> JSON:
    """Return a timeout as data, or the word for an infinite one."""
    return INFINITE if timeout == math.inf else timeout


def _node(node: Node) -> JSON:
    written: dict[str, JSON] = {
        "id": node.id,
        "name": node.name,
        "request": node.request,
        "tips": list(node.tips) or None,
        "device": node.device,
        "os": node.os,
        "capabilities": cast("list[JSON]", sorted(node.capabilities)) or None,
        "priority": node.priority or None,
        "timeout": None if node.timeout == TIMEOUT else written_timeout(node.timeout),
        "retries": node.retries or None,
        "backoff": None if node.backoff == BACKOFF else node.backoff,
        "retry_lost": node.retry_lost or None,
        "metadata": dict(node.metadata) or None,
    }
    return without_nulls(written)


def _edge(edge: Edge, made_up_id: str | None) -> JSON:
    is_function = edge.condition is not None and not isinstance(edge.condition, Condition)
    written: dict[str, JSON] = {
        # The function of the condition is found by it.
        "id": made_up_id if is_function else edge.id,
        "source": edge.source,
        "target": edge.target,
        "when": None if edge.when is When.SUCCESS else edge.when.value,
        "condition": None if edge.condition is None else written_condition(edge.condition),
        "metadata": dict(edge.metadata) or None,
    }
    return without_nulls(written)


def _result(result: NodeResult) -> dict[str, JSON]:
    written: dict[str, JSON] = {
        "state": result.state.value,
        "attempt": result.attempt or None,
        "result": result.result,
        "error": result.error,
        "task_id": result.task_id,
        "device_id": result.device_id,
        "started": None if result.started is None else result.started.isoformat(),
        "ended": None if result.ended is None else result.ended.isoformat(),
    }
    return without_nulls(written)


def without_nulls(members: dict[str, JSON]) -> dict[str, JSON]:
    """Return the members that are not null: absent means the same."""
    return {key: value for key, value in members.items() if value is not None}
