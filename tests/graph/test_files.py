"""Graphs are read from this package's own form: files, texts and data."""

from __future__ import annotations

import json
import math
import sys
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import pytest

from galaxy_trio.errors import GraphError, GraphFileError
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
from galaxy_trio.graph.files.json_values import MAX_DEPTH, MAX_VALUES
from galaxy_trio.graph.model import MAX_EDGES, MAX_NODES, MAX_REQUEST, MAX_SIZE

if TYPE_CHECKING:
    import os
    from collections.abc import Mapping
    from pathlib import Path

    from galaxy_trio.messages import JSON

A: dict[str, JSON] = {"id": "a", "request": "x"}
B: dict[str, JSON] = {"id": "b", "request": "y"}
GRAPH = Graph([Node("a", "x"), Node("b", "y")], [Edge("a", "b")])


def problems(source: str | os.PathLike[str] | Mapping[str, JSON]) -> list[str]:
    with pytest.raises(GraphFileError) as caught:
        read_graph(source)
    assert str(caught.value).startswith("the graph")
    return list(caught.value.problems)


def problem(source: str | os.PathLike[str] | Mapping[str, JSON]) -> str:
    with pytest.raises(GraphFileError) as caught:
        read_graph(source)
    assert caught.value.problems == ()
    return str(caught.value)


def test_graph_with_every_key_is_read() -> None:
    text = """{
        "nodes": [{"id": "fetch", "request": "Download the report", "os": "linux", "capabilities": ["browser"], "priority": -3,
                   "timeout": "inf", "retries": 2, "backoff": 0.5, "retry_lost": true, "name": "Fetch", "tips": ["be quick"],
                   "metadata": {"any": [1, null]}},
                  {"id": "mail", "request": "Mail it", "device": "laptop", "timeout": 5}],
        "edges": [{"source": "fetch", "target": "mail", "when": "condition", "id": "e", "metadata": {"c": "red"},
                   "condition": {"at": "/exit_code", "is": "eq", "value": 0}}],
        "name": "Report", "metadata": {"asked_by": "Kim"}, "version": 3, "decisions": {"e": true},
        "results": {"fetch": {"state": "completed", "attempt": 2, "result": {"exit_code": 0}, "error": "slow",
                              "task_id": "t", "device_id": "d", "started": "2026-01-31T12:00:00",
                              "ended": "2026-01-31T13:00:00+01:00"}}}"""
    noon = datetime(2026, 1, 31, 12, tzinfo=UTC)
    assert read_graph(text) == GraphSnapshot(
        Graph(
            [
                Node(
                    "fetch",
                    "Download the report",
                    os="linux",
                    capabilities={"browser"},
                    priority=-3,
                    timeout=math.inf,
                    retries=2,
                    backoff=0.5,
                    retry_lost=True,
                    name="Fetch",
                    tips=["be quick"],
                    metadata={"any": [1, None]},
                ),
                Node("mail", "Mail it", device="laptop", timeout=5),
            ],
            [
                Edge(
                    "fetch",
                    "mail",
                    When.CONDITION,
                    condition=Condition("/exit_code", "eq", 0),
                    id="e",
                    metadata={"c": "red"},
                )
            ],
            name="Report",
            metadata={"asked_by": "Kim"},
        ),
        3,
        {"fetch": NodeResult(NodeState.COMPLETED, 2, {"exit_code": 0}, "slow", "t", "d", noon, noon)},
        {"e": True},
    )


@pytest.mark.parametrize(
    "text",
    [
        '{"nodes": [{"id": "a", "request": "x"}, {"id": "b", "request": "y"}], "edges": [{"source": "a", "target": "b"}]}',
        (
            '\ufeff \n\t{"nodes": [{"id": "a", "request": "x"}, {"id": "b", "request": "y"}],'
            ' "edges": [{"source": "a", "target": "b"}]}'
        ),
        "nodes:\n- {id: a, request: x}\n- {id: b, request: y}\nedges:\r\n- {source: a, target: b}",
        "# comment\n\nnodes:\n- &a {id: a, request: x}\n- {<<: *a, id: b, request: y}\nedges: [{source: a, target: b}]\n_x: 1",
        '# comment\n\n[[nodes]]\nid = "a"\nrequest = "x"\n[[nodes]]\nid = "b"\nrequest = "y"\n[[edges]]\nsource = "a"\ntarget = "b"',
        'nodes = [{id = "a", request = "x"}, {id = "b", request = "y"}]\nedges = [{source = "a", target = "b"}]',
    ],
    ids=["json", "json after blanks", "yaml", "yaml with anchors", "toml with tables", "toml with values"],
)
def test_text_is_read_in_the_format_that_it_begins_with(text: str) -> None:
    assert read_graph(text) == GraphSnapshot(GRAPH)


@pytest.mark.parametrize("name", ["plan.json", "plan.JSON", "plan.yaml", "plan.yml", "plan.txt", "plan"])
def test_file_is_read_as_its_suffix_says(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    path.write_text(json.dumps(graph_document(GRAPH)), "utf-8")
    assert read_graph(path) == read_graph(str(path)) == GraphSnapshot(GRAPH)


def test_toml_file_is_read(tmp_path: Path) -> None:
    path = tmp_path / "plan.toml"
    path.write_text('nodes = [{id = "a", request = "x", timeout = 5}]', "utf-8")
    assert read_graph(path).graph.nodes == (Node("a", "x", timeout=5),)


def test_all_problems_are_reported_together_with_their_paths() -> None:
    assert problems(
        {
            "nodes": [
                {"id": "a"},
                {"id": "b", "request": "x", "device": "d", "os": "linux", "priorty": 1},
                {"id": "a", "request": "x", "timeout": -1},
                {"id": 7, "request": "x"},
                {"id": "", "request": "x", "device": "d", "capabilities": ["a", 1]},
                {"id": "c", "request": "x", "timeout": math.nan, "metadata": {"k": [math.inf]}},
            ],
            "edges": [
                {"source": "a", "target": "b"},
                {"source": "b", "target": "a"},
                {"source": "b", "target": "fetch"},
                {"source": "b", "target": "c", "id": "e", "condition": {}},
                {"source": "b", "target": "c", "id": "e", "when": "never"},
                {"target": "c", "id": "\ud800"},
                {"source": "x" * 201, "target": ""},
            ],
            "version": "x",
            "results": {"a": {"state": "done", "started": "yesterday"}, "z": {"state": "completed"}},
            "decisions": {"x": True, "e": 1},
        }
    ) == [
        "version: expected a whole number of 0 or more, got a string",
        "nodes[0].request: is missing",
        "nodes[1].priorty: unknown key; did you mean 'priority'?",
        "nodes[1].device: give a device, or the properties that one must have, not both",
        'nodes[2].timeout: expected a number of seconds of 0 or more, or "inf", got -1',
        "nodes[2].id: the node id 'a' is given twice",
        "nodes[3].id: expected a string, got 7; put it in quotes",
        "nodes[4].id: expected a text of 1 to 200 characters that can be sent",
        "nodes[4].capabilities[1]: expected a string, got 1",
        "nodes[4].device: give a device, or the properties that one must have, not both",
        'nodes[5].timeout: expected a number of seconds of 0 or more, or "inf", got nan',
        "edges[2].target: there is no node 'fetch'",
        'edges[3].condition: it belongs to an edge whose "when" is "condition", and to no other',
        "edges[4].when: expected one of success, failure, condition, end",
        "edges[4].id: the edge id 'e' is given twice",
        "edges[5].source: is missing",
        "edges[5].id: expected a text of 1 to 200 characters that can be sent",
        "edges[6].source: expected a text of 1 to 200 characters that can be sent",
        "edges[6].target: expected a text of 1 to 200 characters that can be sent",
        "results.a.state: expected one of waiting, ready, running, completed, failed, cancelled, lost, skipped",
        'results.a.started: expected a time such as "2026-01-31T12:00:00+00:00"',
        "results.z: there is no node with this id",
        "decisions.e: expected true or false",
        "decisions.x: there is no edge with this id",
        "edges: they form a cycle: 'b' -> 'a' -> 'b'",
        "nodes[5].metadata.k[0]: a number that JSON does not have: infinite, or none",
    ]


@pytest.mark.parametrize(
    ("condition", "expected"),
    [
        (
            None,
            'edges[0].condition: is missing: give an object such as {"at": "/exit_code", "is": "eq", "value": 0}, or',
        ),
        ("function", "edges[0].condition: is missing: give an object such as"),
        ("good", 'edges[0].condition: expected an object, or "function"'),
        ({}, "edges[0].condition.at: is missing"),
        (
            {"at": "x", "is": "eq"},
            "edges[0].condition: a condition's place is a JSON pointer such as '/exit_code', not 'x'",
        ),
        (
            {"at": "", "is": "like"},
            "edges[0].condition: a condition's test is one of eq, ne, lt, le, gt, ge, in, exists",
        ),
        ({"at": "", "is": "in"}, "edges[0].condition: a condition with the test 'in' has a list of values"),
        ({"at": "", "is": "eq", "val": 1}, "edges[0].condition.val: unknown key; did you mean 'value'?"),
    ],
)
def test_condition_that_cannot_be_used_is_reported_with_its_path(condition: JSON, expected: str) -> None:
    edge: JSON = {"source": "a", "target": "b", "when": "condition", "condition": condition}
    assert problems({"nodes": [A, B], "edges": [edge]})[0].startswith(expected)


def test_function_of_a_condition_is_found_by_the_id_of_its_edge() -> None:
    graph = Graph(GRAPH.nodes, [Edge("a", "b", When.CONDITION, condition=bool)])
    document = graph_document(graph)
    assert document["edges"] == [
        {"id": "edge-1", "source": "a", "target": "b", "when": "condition", "condition": "function"}
    ]
    assert problems(document) == [
        (
            'edges[0].condition: is missing: give an object such as {"at": "/exit_code", "is": "eq", "value": 0}, '
            "or pass its function to read_graph as conditions={'edge-1': function}"
        )
    ]
    [edge] = read_graph(document, conditions={"edge-1": bool, "another": bool}).graph.edges
    assert (edge.id, edge.condition) == ("edge-1", bool)


def test_function_takes_precedence_over_the_condition_of_the_document() -> None:
    edge: JSON = {"source": "a", "target": "b", "when": "condition", "id": "e", "condition": {"at": "", "is": "exists"}}
    [read] = read_graph({"nodes": [A, B], "edges": [edge]}, conditions={"e": bool}).graph.edges
    assert read.condition is bool


def test_made_up_id_is_not_the_id_of_another_edge() -> None:
    edges = [Edge("a", "b", When.CONDITION, condition=bool), Edge("a", "b", id="edge-1")]
    document = graph_document(Graph(GRAPH.nodes, edges))
    assert [edge.id for edge in read_graph(document, conditions={"edge-2": bool}).graph.edges] == ["edge-2", "edge-1"]


def test_reset_forgets_states_results_and_decisions_and_keeps_the_version() -> None:
    document: dict[str, JSON] = {
        "nodes": [A, B],
        "edges": [{"source": "a", "target": "b", "id": "e"}],
        "version": 2,
        "results": {"a": {"state": "completed"}},
        "decisions": {"e": True},
    }
    snapshot = read_graph(document, reset=True)
    assert (dict(snapshot.nodes), dict(snapshot.decisions), snapshot.version) == ({}, {}, 2)
    assert read_graph(document).decisions == {"e": True}


@pytest.mark.parametrize(
    ("results", "holds", "expected"),
    [
        ({}, True, "decisions.e: the edge is decided, and its source 'a' is waiting"),
        ({"a": {"state": "running"}}, True, "decisions.e: the edge is decided, and its source 'a' is running"),
        ({"a": {"state": "failed"}}, False, "decisions.e: the edge does not hold, and its target 'b' is waiting"),
    ],
)
def test_decision_that_no_graph_has_made_is_refused(results: JSON, holds: JSON, expected: str) -> None:
    edge: JSON = {"source": "a", "target": "b", "id": "e"}
    document: dict[str, JSON] = {"nodes": [A, B], "edges": [edge], "results": results, "decisions": {"e": holds}}
    assert problems(document) == [expected]


def test_node_that_waits_for_another_attempt_keeps_the_edge_of_a_source_that_is_retried() -> None:
    results: JSON = {"b": {"state": "waiting", "attempt": 1}}
    edges: JSON = [{"source": "a", "target": "b", "id": "e"}]
    read = read_graph({"nodes": [A, B], "edges": edges, "results": results, "decisions": {"e": True}})
    assert (read.node("b").attempt, dict(read.decisions)) == (1, {"e": True})


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ({}, ["nodes: is missing: a graph is a list of nodes, and a list of edges between them"]),
        ({"nods": []}, ["nods: unknown key; did you mean 'nodes'?"]),
        ({"nodes": {}}, ["nodes: expected a list of nodes, got an object"]),
        ({"nodes": [None, 5]}, ["nodes[0]: expected an object, got null", "nodes[1]: expected an object, got 5"]),
        ("- nodes\n- edges", ["the file: expected an object, got a list"]),
        ("\n", ["the file: expected an object, got nothing"]),
        ('{"nodes": [], "nodes": []}', ["nodes: is given twice: leave out one"]),
        ("nodes: []\nnodes: []", ["nodes: is given twice, in line 1 and in line 2: leave out one"]),
        (
            "nodes:\n- {id: a, request: x, metadata: {due: 2026-01-01, 5: x}}",
            [
                "nodes[0].metadata.5: a key must be a string: put it in quotes",
                "nodes[0].metadata.due: a date is a value that JSON does not have: write it as text, in quotes",
            ],
        ),
        (
            {"nodes": [{"id": "a", "request": "\ud800", "metadata": {"\ud800": 1, "n": 10**300}}]},
            [
                "nodes[0].request: contains a lone surrogate, which cannot be sent",
                "nodes[0].metadata: a key contains a lone surrogate, which cannot be sent",
                "nodes[0].metadata.n: a whole number of more than 300 digits",
            ],
        ),
        (
            '{"nodes": [{"id": "a", "request": "x", "timeout": 1e999}]}',
            ['nodes[0].timeout: expected a number of seconds of 0 or more, or "inf", got inf'],
        ),
    ],
)
def test_what_is_no_graph_is_refused_with_paths(source: str | dict[str, JSON], expected: list[str]) -> None:
    found = problems(source)
    assert [each.partition("; known are")[0] for each in found] == expected


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("{", "the graph is not JSON: Expecting property name enclosed in double quotes"),
        ('{"nodes": NaN}', "the graph is not JSON: NaN is not JSON"),
        ('{"n": ' + "9" * 5000 + "}", "the graph is not JSON: Exceeds the limit"),
        ('{"n": ' + "[" * 100_000, "the graph is not JSON: "),
        ("nodes: [\n", "the graph is not YAML: "),
        ("nodes: " + "[" * 100_000 + "\n", "the graph is not YAML: it is nested too deeply"),
        ("[[nodes]]\nid = \n", "the graph is not TOML: "),
        ("nowhere/plan.json", "the graph nowhere/plan.json cannot be read: No such file or directory"),
        ("", "the graph  cannot be read: No such file or directory"),
        ("a\0b", "the graph 'a\\x00b' cannot be read: no file can have this name"),
        ("a: " + "x" * 2**24 + "\n", "the graph cannot be read: it is larger than 16 MiB"),
    ],
)
def test_what_cannot_be_parsed_says_why(source: str, expected: str) -> None:
    assert problem(source).startswith(expected)


def test_file_that_is_too_large_is_not_read(tmp_path: Path) -> None:
    path = tmp_path / "plan.json"
    with path.open("wb") as file:
        file.truncate(128 * 2**20 + 1)
    assert problem(path) == f"the graph {path} cannot be read: it is larger than 128 MiB"


def test_yaml_without_its_library_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "galaxy_trio._config.strict_yaml", raising=False)
    monkeypatch.setitem(sys.modules, "yaml", None)
    assert 'the graph is YAML, and PyYAML is not installed: pip install "galaxy_trio[cli]"' in problem("nodes: []\n")


def test_limits_are_named() -> None:
    nodes, edges = [A] * (MAX_NODES + 1), [A] * (MAX_EDGES + 1)
    assert problems({"nodes": [*nodes], "edges": [*edges]}) == [
        "nodes: a graph has at most 10,000 nodes, and this one has 10,001",
        "edges: a graph has at most 250,000 edges, and this one has 250,001",
    ]
    assert problems({"nodes": [{"id": "a", "request": "x" * (MAX_REQUEST + 1)}]}) == [
        "nodes[0].request: a request has at most 1,048,576 characters, and this one has 1,048,577"
    ]
    large: list[JSON] = [
        {**A, "id": str(number), "request": "x" * MAX_REQUEST} for number in range(MAX_SIZE // MAX_REQUEST)
    ]
    assert problems({"nodes": large})[0].startswith(
        "nodes: the requests, tips, metadata and conditions of a graph take at most"
    )
    deep: JSON = []
    for _ in range(MAX_DEPTH):
        deep = [deep]
    assert problems({"nodes": [], "metadata": {"k": deep}})[0].endswith("more than 550 levels of lists and objects")


def test_data_that_contains_itself_is_too_deep() -> None:
    ring: list[JSON] = []
    ring.append(ring)
    assert "550 levels" in problems({"nodes": [], "metadata": {"k": ring}})[-1]


def test_yaml_that_grows_by_aliases_has_too_many_values(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("galaxy_trio.graph.files.json_values.MAX_VALUES", 100_000)
    lines = ["_0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    lines += [f"_{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]" for n in range(1, 30)]
    [found] = problems("\n".join([*lines, "nodes: []"]))
    assert found.endswith("there are more than 100,000 values")


def test_text_of_more_values_than_are_read_is_not_parsed() -> None:
    text = '{"nodes": [' + "[]," * (MAX_VALUES // 2) + "[]]}"
    assert problem(text) == "the graph cannot be read: it has more than 10,000,000 commas and brackets"


def test_no_more_than_500_problems_are_reported() -> None:
    nodes: list[JSON] = [{"id": str(number), "x": 1} for number in range(2000)]
    found = problems({"nodes": nodes, "edges": nodes})
    assert len(found) == 500


def test_error_of_a_file_is_an_error_of_graphs() -> None:
    expected = r"the graph is wrong at 2 places: nodes\[0\].id: is missing; nodes\[0\].request"
    with pytest.raises(GraphError, match=expected):
        read_graph({"nodes": [{}]})
