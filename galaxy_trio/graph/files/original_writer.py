"""Writes the original's form of a graph, as the original writes it."""

from __future__ import annotations

import math
from collections import Counter
from typing import TYPE_CHECKING, Final, cast

from galaxy_trio._config.reader import member_path
from galaxy_trio.graph.files.original_words import (
    EXACT,
    FOREVER,
    LOST,
    STATE_WORDS,
    STATES,
    UNCONDITIONAL,
    WHEN_WORDS,
    current_retry_of,
    device_type_of,
    level_of,
    priority_of,
    requirements_of,
    split_metadata,
)
from galaxy_trio.graph.files.our_writer import check_node, without_nulls, written_condition, written_timeout
from galaxy_trio.graph.model import BACKOFF, When
from galaxy_trio.graph.snapshot import GraphState, state_of
from galaxy_trio.graph.state_machine import UNSTARTED, NodeState

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from datetime import datetime

    from galaxy_trio.graph.model import Edge, Node
    from galaxy_trio.graph.snapshot import GraphSnapshot, NodeResult
    from galaxy_trio.messages import JSON

_GRAPH_STATES: Final = {
    GraphState.RUNNING: "executing",
    GraphState.COMPLETED: "completed",
    GraphState.PARTIALLY_FAILED: "partially_failed",
    GraphState.FAILED: "failed",
}


def write_original_graph(snapshot: GraphSnapshot, problems: list[str]) -> dict[str, JSON]:
    """Return the document of a graph. What cannot be written is added to the problems, with its path."""
    graph = snapshot.graph
    sources: dict[str, dict[str, None]] = {node.id: {} for node in graph.nodes}
    targets: dict[str, dict[str, None]] = {node.id: {} for node in graph.nodes}
    for edge in graph.edges:
        sources[edge.target][edge.source] = targets[edge.source][edge.target] = None
    tasks: dict[str, JSON] = {}
    for node in graph.nodes:
        place = member_path("tasks", node.id)
        check_node(node, place, problems)
        neighbours: dict[str, JSON] = {"dependencies": [*sources[node.id]], "dependents": [*targets[node.id]]}
        tasks[node.id] = _task(node, snapshot.node(node.id), place, problems, neighbours)
    dependencies: dict[str, JSON] = {}
    for edge in graph._named_edges:
        place = member_path("dependencies", str(edge.id))
        dependencies[str(edge.id)] = _dependency(edge, snapshot.decisions.get(str(edge.id)), place, problems)
    metadata, rest = split_metadata(graph.metadata, "metadata")
    _add_exact(metadata, {"version": snapshot.version or None}, "metadata", problems)
    nodes = [snapshot.node(node.id) for node in graph.nodes]
    ended = [node.ended for node in nodes if node.ended is not None]
    state = _graph_state(node.state for node in nodes)
    times = _times(
        min((node.started for node in nodes if node.started is not None), default=None),
        max(ended) if ended and state not in ("created", "executing") else None,
    )
    written: dict[str, JSON] = {
        "constellation_id": rest.get("constellation_id"),
        "name": graph.name,
        "state": state,
        "tasks": tasks,
        "dependencies": dependencies,
        "metadata": metadata,
        "created_at": rest.get("created_at"),
        "updated_at": rest.get("updated_at"),
        **times,
    }
    return _with_rest(written, rest)


def _graph_state(states: Iterable[NodeState]) -> str:
    counts = Counter(states)
    if counts.keys() <= UNSTARTED:
        return "created"
    return _GRAPH_STATES[state_of(counts, cancelled=False)]


def _task(node: Node, known: NodeResult, place: str, problems: list[str], neighbours: Mapping[str, JSON]) -> JSON:
    task_data, rest = split_metadata(node.metadata, "task_data")
    device_type = device_type_of(node.os, node.capabilities)
    was_sent = known.started is not None
    current_retry = current_retry_of(known.attempt, was_sent=was_sent)
    status, level = STATE_WORDS[known.state], level_of(node.priority)
    is_exact = requirements_of(device_type) == (node.os, node.capabilities)
    # A running node is read as a lost one.
    is_exact_state = known.state in (STATES[status], NodeState.RUNNING)
    exact: dict[str, JSON] = {
        "os": None if is_exact else node.os,
        "capabilities": None if is_exact else cast("list[JSON]", sorted(node.capabilities)) or None,
        "priority": None if priority_of(level) == node.priority else node.priority,
        "timeout": written_timeout(node.timeout) if node.timeout == math.inf else None,
        "backoff": None if node.backoff == BACKOFF else node.backoff,
        "retry_lost": node.retry_lost or None,
        "state": None if is_exact_state else known.state.value,
        "attempt": None if current_retry + was_sent == known.attempt else known.attempt,
        "task_id": known.task_id,
        "device_id": known.device_id,
    }
    _add_exact(task_data, exact, f"{place}.task_data", problems)
    written: dict[str, JSON] = {
        "task_id": node.id,
        "name": node.name or "",
        "description": node.request,
        "tips": list(node.tips),
        "task_description": node.request,
        "target_device_id": node.device,
        "device_type": device_type if node.device is None else rest.get("device_type"),
        "priority": level,
        "status": status,
        "result": known.result,
        "error": f"{LOST}{known.error or ''}" if known.state is NodeState.LOST else known.error,
        "timeout": FOREVER if node.timeout == math.inf else node.timeout,
        "retry_count": node.retries,
        "current_retry": current_retry,
        "task_data": task_data,
        "expected_output_type": rest.get("expected_output_type"),
        "created_at": rest.get("created_at"),
        "updated_at": rest.get("updated_at"),
        **_times(known.started, known.ended),
        **neighbours,
    }
    return _with_rest(written, rest)


def _dependency(edge: Edge, holds: bool | None, place: str, problems: list[str]) -> JSON:
    metadata, rest = split_metadata(edge.metadata, "metadata")
    exact: dict[str, JSON] = {
        "when": edge.when.value if edge.when is When.FAILURE else None,
        "condition": None if edge.condition is None else written_condition(edge.condition),
    }
    _add_exact(metadata, exact, f"{place}.metadata", problems)
    is_unconditional = edge.when is When.END and rest.get("dependency_type") == UNCONDITIONAL
    written: dict[str, JSON] = {
        "line_id": edge.id,
        "from_task_id": edge.source,
        "to_task_id": edge.target,
        "dependency_type": UNCONDITIONAL if is_unconditional else WHEN_WORDS[edge.when],
        "condition_description": rest.get("condition_description", ""),
        "metadata": metadata,
        "is_satisfied": holds is True,
        "last_evaluation_result": holds,
        "last_evaluation_time": rest.get("last_evaluation_time"),
        "created_at": rest.get("created_at"),
        "updated_at": rest.get("updated_at"),
    }
    return _with_rest(written, rest)


def _add_exact(members: dict[str, JSON], exact: dict[str, JSON], place: str, problems: list[str]) -> None:
    """Add what the original's form has no words for, under a name that nothing else may have."""
    if EXACT in members:
        problems.append(f"{place}.{EXACT}: this name is reserved in the original's form: rename it in the metadata")
    given = without_nulls(exact)
    if given:
        members[EXACT] = given


def _times(started: datetime | None, ended: datetime | None) -> dict[str, JSON]:
    return {
        "execution_start_time": None if started is None else started.isoformat(),
        "execution_end_time": None if ended is None else ended.isoformat(),
        "execution_duration": None if started is None or ended is None else (ended - started).total_seconds(),
    }


def _with_rest(written: dict[str, JSON], rest: Mapping[str, JSON]) -> dict[str, JSON]:
    """Add what only the original's form has."""
    return written | {key: value for key, value in rest.items() if key not in written}
