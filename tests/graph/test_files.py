"""Graphs are read from this package's own files."""

from __future__ import annotations

import pytest

from galaxy_trio.errors import GraphFileError
from galaxy_trio.graph import Condition, Edge, Graph, GraphSnapshot, Node, When, read_graph


def test_graph_of_the_reference_is_read() -> None:
    text = """{
        "nodes": [{"id": "fetch", "request": "Download the report", "capabilities": ["browser"], "retries": 2},
                  {"id": "merge", "request": "Merge the sheets"}, {"id": "mail", "request": "Mail it"}],
        "edges": [{"source": "fetch", "target": "merge"},
                  {"source": "merge", "target": "mail", "when": "condition",
                   "condition": {"at": "/exit_code", "is": "eq", "value": 0}}]}"""
    assert read_graph(text) == GraphSnapshot(
        Graph(
            [
                Node("fetch", "Download the report", capabilities={"browser"}, retries=2),
                Node("merge", "Merge the sheets"),
                Node("mail", "Mail it"),
            ],
            [Edge("fetch", "merge"), Edge("merge", "mail", When.CONDITION, condition=Condition("/exit_code", "eq", 0))],
        )
    )


def test_all_problems_are_reported_together_with_their_paths() -> None:
    with pytest.raises(GraphFileError) as caught:
        read_graph(
            {
                "nodes": [
                    {"id": "a"},
                    {"id": "b", "request": "x", "device": "d", "os": "linux", "priorty": 1},
                    {"id": "a", "request": "x", "timeout": -1},
                ],
                "edges": [
                    {"source": "a", "target": "b"},
                    {"source": "b", "target": "a"},
                    {"source": "b", "target": "c"},
                ],
                "version": "x",
            }
        )
    assert list(caught.value.problems) == [
        "version: expected a whole number of 0 or more, got a string",
        "nodes[0].request: is missing",
        "nodes[1].priorty: unknown key; did you mean 'priority'?",
        "nodes[1].device: give a device, or the properties that one must have, not both",
        'nodes[2].timeout: expected a number of seconds of 0 or more, or "inf", got -1',
        "nodes[2].id: the node id 'a' is given twice",
        "edges[2].target: there is no node 'c'",
        "edges: they form a cycle: 'b' -> 'a' -> 'b'",
    ]
