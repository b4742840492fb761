"""Problems of the original's form are reported with their paths."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Final

import pytest

from galaxy_trio.errors import GraphFileError
from galaxy_trio.graph import Edge, Graph, Node, graph_document, read_graph

if TYPE_CHECKING:
    from galaxy_trio.messages import JSON

OF_ITS_MODEL: Final = Path(__file__).parent / "samples" / "original_of_its_model.json"


def problems(document: dict[str, JSON]) -> list[str]:
    with pytest.raises(GraphFileError) as caught:
        read_graph(document)
    return list(caught.value.problems)


def test_conditional_line_without_a_condition_says_what_it_needs() -> None:
    with pytest.raises(GraphFileError) as caught:
        read_graph(OF_ITS_MODEL)
    assert list(caught.value.problems) == [
        (
            "dependencies[1].metadata.galaxy_trio.condition: is missing: give an object such as "
            '{"at": "/exit_code", "is": "eq", "value": 0}, or pass its function to read_graph as '
            "conditions={'line_001': function}"
        )
    ]


def test_limits_are_named() -> None:
    tasks: list[JSON] = [None] * 10_001
    assert problems({"tasks": tasks, "dependencies": {}}) == [
        "tasks: a graph has at most 10,000 nodes, and this one has 10,001"
    ]


def test_key_of_a_task_is_its_id_unless_it_says_so_itself() -> None:
    document: dict[str, JSON] = {
        "tasks": {"a": {"description": "x"}, "b": {"task_id": "c", "description": "y"}},
        "dependencies": {"l": {"line_id": "m", "from_task_id": "a", "to_task_id": "c"}},
    }
    assert problems(document) == [
        "tasks.b.task_id: it differs from the key of its object",
        "dependencies.l.line_id: it differs from the key of its object",
    ]


def test_all_problems_are_reported_together_with_their_paths() -> None:
    document: dict[str, JSON] = {
        "tasks": [
            {"task_id": "a", "priority": "URGENT", "status": "done", "device_type": "fridge", "tips": "one"},
            {"task_id": "a", "description": "x", "priority": 5, "timeout": -1, "retry_count": 1.5, "task_data": []},
            {"task_id": "x" * 201, "description": "x", "task_data": {"galaxy_trio": {"state": "done", "foo": 1}}},
            7,
        ],
        "dependencies": [
            {"from_task_id": "a", "to_task_id": "zz", "dependency_type": "maybe"},
            {"from_task_id": "a", "to_task_id": "a", "dependency_type": "success_only"},
            {"to_task_id": "a"},
            {"from_task_id": "a", "to_task_id": "a", "dependency_type": "conditional", "metadata": {"galaxy_trio": 1}},
        ],
        "name": 5,
        "metadata": {"galaxy_trio": {"version": "x"}},
    }
    found = problems(document)
    assert [problem.partition(": ")[0] for problem in found] == [
        "name",
        "metadata.galaxy_trio.version",
        "tasks[0].description",
        "tasks[0].tips",
        "tasks[0].device_type",
        "tasks[0].priority",
        "tasks[0].status",
        "tasks[1].priority",
        "tasks[1].timeout",
        "tasks[1].retry_count",
        "tasks[1].task_data",
        "tasks[1].task_id",
        "tasks[2].task_id",
        "tasks[2].task_data.galaxy_trio.state",
        "tasks[2].task_data.galaxy_trio.foo",
        "tasks[3]",
        "dependencies[0].dependency_type",
        "dependencies[0].to_task_id",
        "dependencies[2].from_task_id",
        "dependencies[3].metadata.galaxy_trio",
        "dependencies[3].metadata.galaxy_trio.condition",
        "dependencies",
    ]
    assert found[-1] == "dependencies: they form a cycle: 'a' -> 'a'"


def test_document_needs_tasks() -> None:
    assert problems({"constellation_id": "c"}) == ["tasks: is missing"]


def test_name_that_is_reserved_in_the_original_s_form_is_refused() -> None:
    graph = Graph(
        [Node("a", "x", metadata={"galaxy_trio": 1}), Node("b", "y")],
        [Edge("a", "b", id="l", metadata={"galaxy_trio": 1})],
        metadata={"galaxy_trio": 1},
    )
    with pytest.raises(GraphFileError) as caught:
        graph_document(graph, format="original")
    assert [problem.partition(": ")[0] for problem in caught.value.problems] == [
        "tasks.a.task_data.galaxy_trio",
        "dependencies.l.metadata.galaxy_trio",
        "metadata.galaxy_trio",
    ]
