"""The original's form: both of its variants are read, and the first one is written."""

from __future__ import annotations

import copy
import json
import math
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Final, cast

import pytest

from galaxy_trio.graph import (
    Condition,
    Edge,
    Graph,
    GraphSnapshot,
    Node,
    NodeResult,
    NodeState,
    When,
    graph_document,
    read_graph,
)

if TYPE_CHECKING:
    from galaxy_trio.messages import JSON

SAMPLES: Final = Path(__file__).parent / "samples"
WRITTEN: Final = SAMPLES / "original.json"
OF_ITS_MODEL: Final = SAMPLES / "original_of_its_model.json"


def _is_many(result: JSON) -> bool:
    return result == "many"


def task(**members: JSON) -> GraphSnapshot:
    """Read a graph of one task."""
    return read_graph({"tasks": {"a": {"description": "x", **members}}})


def line(**members: JSON) -> GraphSnapshot:
    """Read a graph of two tasks and one dependency."""
    dependency: JSON = {"from_task_id": "a", "to_task_id": "b", **members}
    return read_graph(
        {"tasks": {"a": {"description": "x"}, "b": {"description": "y"}}, "dependencies": {"l": dependency}}
    )


def test_what_the_original_writes_is_read() -> None:
    snapshot = read_graph(WRITTEN)
    nodes, edges = snapshot.graph.nodes, snapshot.graph.edges
    assert [(node.id, node.request.split()[0], node.device, node.os, sorted(node.capabilities)) for node in nodes] == [
        ("collect", "Collect", "linux_agent_1", None, []),
        ("chart", "Draw", None, "windows", []),
        ("publish", "Publish", None, None, ["web"]),
        ("alert", "Tell", None, None, []),
    ]
    assert [(node.name, node.priority, node.timeout, node.retries) for node in nodes] == [
        ("Collect", 50, 600, 2),
        ("Chart", 0, 1000, 0),
        ("Publish", 100, 120, 0),
        (None, -49, 1000, 0),
    ]
    assert nodes[0].tips == ("The logs are in /var/log/sales", "Skip the compressed ones")
    assert [(edge.id, edge.source, edge.target, edge.when) for edge in edges] == [
        ("6f0e", "collect", "chart", When.SUCCESS),
        ("70aa", "chart", "publish", When.END),
        ("71bb", "collect", "alert", When.CONDITION),
        ("72cc", "publish", "alert", When.END),
    ]
    assert edges[2].condition == Condition("/rows", "eq", 0)
    assert (snapshot.graph.name, snapshot.version) == ("Quarterly numbers", 4)
    assert snapshot.nodes == {
        "collect": NodeResult(
            NodeState.COMPLETED,
            2,
            {"exit_code": 0, "rows": 1204},
            started=datetime(2026, 3, 1, 9, 16, tzinfo=UTC),
            ended=datetime(2026, 3, 1, 9, 16, 30, 500_000, tzinfo=UTC),
        ),
        "chart": NodeResult(
            NodeState.LOST,
            1,
            error="it was running when the document was written",
            started=datetime(2026, 3, 1, 9, 16, 31, tzinfo=UTC),
        ),
    }


def test_what_its_model_writes_is_read_and_missing_ids_are_made_up() -> None:
    graph = read_graph(OF_ITS_MODEL, conditions={"line_001": _is_many}).graph
    assert [(node.id, node.device, node.os, sorted(node.capabilities), node.priority) for node in graph.nodes] == [
        ("task_001", "phone", None, [], 50),
        ("task_002", None, "macos", [], -50),
        ("task_003", None, None, ["api"], 100),
        ("say_sorry", None, None, [], 0),
    ]
    assert [(edge.id, edge.source, edge.target, edge.when, edge.condition) for edge in graph.edges] == [
        ("line_002", "task_001", "task_002", When.SUCCESS, None),
        ("line_001", "task_002", "task_003", When.CONDITION, _is_many),
        ("line_003", "task_003", "say_sorry", When.END, None),
        ("line_004", "task_002", "say_sorry", When.END, None),
    ]


def test_what_the_original_wrote_survives_reading_and_writing() -> None:
    """All but what running means, and what is written from what is known."""
    document = cast("dict[str, JSON]", json.loads(WRITTEN.read_text("utf-8")))
    expected = cast("dict[str, dict[str, dict[str, JSON]]]", copy.deepcopy(document))
    expected["tasks"]["chart"] |= {
        "tips": [],
        "timeout": 1000.0,
        "status": "failed",
        "error": "lost: it was running when the document was written",
        "task_data": {"galaxy_trio": {"state": "lost"}},
    }
    expected["tasks"]["publish"]["status"] = "pending"
    snapshot = read_graph(document)
    assert graph_document(snapshot, format="original") == expected
    through_ours = read_graph(graph_document(snapshot))
    assert graph_document(through_ours, format="original") == expected


def test_unknown_keys_and_the_names_that_metadata_uses_survive_in_our_form() -> None:
    snapshot = read_graph(WRITTEN)
    publish, alert = snapshot.graph.nodes[2:]
    assert publish.metadata["original"] == {
        "created_at": "2026-03-01T09:15:00.000003+00:00",
        "updated_at": "2026-03-01T09:15:00.000003+00:00",
        "reviewer": {"name": "Kim", "notes": [1, None]},
    }
    assert cast("dict[str, JSON]", alert.metadata["original"])["task_data"] == {"original": "kept"}
    assert snapshot.graph.metadata["asked_by"] == "Kim"
    assert cast("dict[str, JSON]", snapshot.graph.metadata["original"])["session"] == "an unknown key"


@pytest.mark.parametrize(
    ("given", "priority"),
    [(1, -50), (2, 0), (3, 50), (4, 100), ("LOW", -50), ("Medium", 0), ("high", 50), ("CRITICAL", 100), (None, 0)],
)
def test_priorities_are_read_as_numbers_and_as_names(given: JSON, priority: int) -> None:
    assert task(priority=given).graph.nodes[0].priority == priority


@pytest.mark.parametrize(
    ("priority", "level"), [(-100, 1), (-50, 1), (-20, 2), (0, 2), (24, 2), (26, 3), (50, 3), (76, 4), (100, 4)]
)
def test_priority_is_written_as_the_nearest_one(priority: int, level: int) -> None:
    document = graph_document(Graph([Node("a", "x", priority=priority)]), format="original")
    assert cast("dict[str, dict[str, dict[str, JSON]]]", document)["tasks"]["a"]["priority"] == level


@pytest.mark.parametrize(
    ("given", "system", "capabilities"),
    [
        ("WINDOWS", "windows", []),
        ("macos", "macos", []),
        ("linux", "linux", []),
        ("Android", "android", []),
        ("ios", "ios", []),
        ("web", None, ["web"]),
        ("API", None, ["api"]),
        (None, None, []),
    ],
)
def test_device_types_are_systems_or_capabilities(given: JSON, system: str | None, capabilities: list[str]) -> None:
    node = task(device_type=given).graph.nodes[0]
    assert (node.os, sorted(node.capabilities)) == (system, capabilities)


def test_device_that_is_named_runs_the_task_whatever_its_type_and_the_type_is_written_again() -> None:
    snapshot = task(target_device_id="d", device_type="LINUX")
    assert (snapshot.graph.nodes[0].device, snapshot.graph.nodes[0].os) == ("d", None)
    tasks = cast("dict[str, dict[str, dict[str, JSON]]]", graph_document(snapshot, format="original"))["tasks"]
    assert (tasks["a"]["target_device_id"], tasks["a"]["device_type"]) == ("d", "linux")


@pytest.mark.parametrize(
    ("status", "state", "written"),
    [
        ("pending", NodeState.WAITING, "pending"),
        ("WAITING_DEPENDENCY", NodeState.WAITING, "pending"),
        ("running", NodeState.LOST, "failed"),
        ("Completed", NodeState.COMPLETED, "completed"),
        ("failed", NodeState.FAILED, "failed"),
        ("CANCELLED", NodeState.CANCELLED, "cancelled"),
    ],
)
def test_statuses_are_states(status: str, state: NodeState, written: str) -> None:
    snapshot = task(status=status)
    assert snapshot.node("a").state is state
    tasks = cast("dict[str, dict[str, dict[str, JSON]]]", graph_document(snapshot, format="original"))["tasks"]
    assert tasks["a"]["status"] == written


def test_states_without_a_word_are_written_as_the_nearest_one_and_read_again() -> None:
    states = [NodeState.READY, NodeState.SKIPPED, NodeState.LOST]
    nodes = {state.value: NodeResult(state, error="the network failed") for state in states}
    snapshot = GraphSnapshot(Graph([Node(state.value, "x") for state in states]), nodes=nodes)
    document = graph_document(snapshot, format="original")
    tasks = cast("dict[str, dict[str, dict[str, JSON]]]", document)["tasks"]
    assert [(tasks[state.value]["status"], tasks[state.value]["error"]) for state in states] == [
        ("pending", "the network failed"),
        ("cancelled", "the network failed"),
        ("failed", "lost: the network failed"),
    ]
    assert read_graph(document) == snapshot


def test_what_the_original_has_no_words_for_is_read_again() -> None:
    nodes = [
        Node(
            "a",
            "x",
            os="freebsd",
            capabilities={"web", "browser"},
            priority=1,
            timeout=math.inf,
            backoff=9,
            retry_lost=True,
        ),
        Node("b", "y", os="Mac OS X"),
        Node("c", "z", device="d", timeout=315_360_000.0),
    ]
    # It was not sent after all.
    again = NodeResult(NodeState.READY, 0, started=datetime(2026, 3, 1, tzinfo=UTC))
    error = NodeResult(NodeState.LOST, 2, error=None, task_id="t", device_id="d")
    snapshot = GraphSnapshot(Graph(nodes), nodes={"a": error, "b": again})
    assert read_graph(graph_document(snapshot, format="original")) == snapshot


def test_error_of_a_running_task_is_kept() -> None:
    assert task(status="running", error="slow").node("a").error == "slow"


def test_what_another_program_changed_counts_more_than_what_was_written_exactly() -> None:
    node = Node("a", "x", os="freebsd", capabilities={"browser"}, priority=1, timeout=math.inf)
    snapshot = GraphSnapshot(Graph([node]), nodes={"a": NodeResult(NodeState.SKIPPED, 3)})
    document = graph_document(snapshot, format="original")
    members = cast("dict[str, dict[str, dict[str, JSON]]]", document)["tasks"]["a"]
    members |= {"device_type": "web", "priority": 4, "timeout": 7, "status": "completed", "current_retry": 1}
    changed = read_graph(document)
    assert changed.graph.nodes == (Node("a", "x", capabilities={"web"}, priority=100, timeout=7),)
    assert changed.nodes == {"a": NodeResult(NodeState.COMPLETED, 1)}


@pytest.mark.parametrize(
    ("given", "when", "written"),
    [
        ("success_only", When.SUCCESS, "success_only"),
        ("COMPLETION_ONLY", When.END, "completion_only"),
        ("Unconditional", When.END, "unconditional"),
        (None, When.END, "unconditional"),
    ],
)
def test_dependency_types_are_the_ends_with_which_an_edge_holds(given: JSON, when: When, written: str) -> None:
    snapshot = line(dependency_type=given)
    assert snapshot.graph.edges[0].when is when
    document = cast("dict[str, dict[str, dict[str, JSON]]]", graph_document(snapshot, format="original"))
    assert document["dependencies"]["l"]["dependency_type"] == written


def test_failure_and_conditions_travel_in_the_metadata_of_conditional_lines() -> None:
    graph = Graph(
        [Node("a", "x"), Node("b", "y")],
        [
            Edge("a", "b", When.FAILURE, id="f"),
            Edge("a", "b", When.CONDITION, condition=Condition("", "truthy"), id="c"),
            Edge("a", "b", When.CONDITION, condition=_is_many, id="g"),
        ],
    )
    document = graph_document(graph, format="original")
    lines = cast("dict[str, dict[str, dict[str, JSON]]]", document)["dependencies"]
    assert [(each["dependency_type"], each["metadata"]) for each in lines.values()] == [
        ("conditional", {"galaxy_trio": {"when": "failure"}}),
        ("conditional", {"galaxy_trio": {"condition": {"at": "", "is": "truthy"}}}),
        ("conditional", {"galaxy_trio": {"condition": "function"}}),
    ]
    assert read_graph(document, conditions={"g": _is_many}).graph == graph


def test_description_may_be_under_its_older_name() -> None:
    document: dict[str, JSON] = {
        "tasks": [{"task_description": "old"}, {"description": "new", "task_description": "old"}]
    }
    assert [node.request for node in read_graph(document).graph.nodes] == ["old", "new"]


def test_reset_forgets_states_and_results() -> None:
    snapshot = read_graph(WRITTEN, reset=True)
    assert (dict(snapshot.nodes), snapshot.version) == ({}, 4)


def test_state_of_the_whole_and_its_times_are_written() -> None:
    begin, middle, end = (datetime(2026, 3, 1, 9, minute, tzinfo=UTC) for minute in (0, 1, 2))
    graph = Graph([Node("a", "x"), Node("b", "y")], [Edge("a", "b")])
    done = NodeResult(NodeState.COMPLETED, 1, started=begin, ended=middle)
    failed = NodeResult(NodeState.FAILED, 1, started=middle, ended=end)

    def written(**nodes: NodeResult) -> list[JSON]:
        document = graph_document(GraphSnapshot(graph, nodes=nodes), format="original")
        return [document[key] for key in ("state", "execution_start_time", "execution_end_time", "execution_duration")]

    assert written() == ["created", None, None, None]
    assert written(a=done) == ["executing", begin.isoformat(), None, None]
    assert written(a=done, b=failed) == ["partially_failed", begin.isoformat(), end.isoformat(), 120.0]
    assert written(a=done, b=done)[0] == "completed"
    assert written(a=failed, b=NodeResult(NodeState.SKIPPED))[0] == "failed"


def test_satisfied_lines_are_those_that_hold() -> None:
    graph = Graph(
        [Node("a", "x"), Node("b", "y")], [Edge("a", "b", id="l"), Edge("a", "b", When.FAILURE, id="m"), Edge("a", "b")]
    )
    nodes = {"a": NodeResult(NodeState.COMPLETED), "b": NodeResult(NodeState.SKIPPED)}
    document = graph_document(GraphSnapshot(graph, nodes=nodes, decisions={"l": True, "m": False}), format="original")
    lines = cast("dict[str, dict[str, dict[str, JSON]]]", document)["dependencies"]
    assert {key: (each["is_satisfied"], each["last_evaluation_result"]) for key, each in lines.items()} == {
        "l": (True, True),
        "m": (False, False),
        "edge-3": (False, None),
    }
