"""The text that is sent for a node."""

from __future__ import annotations

import json

from galaxy_trio.graph import Node, NodeResult, NodeState
from galaxy_trio.graph.node_requests import MAX_INPUTS, make_request

COMPLETED = NodeResult(NodeState.COMPLETED, 1, {"sum": 3, "name": "é"})


def test_node_alone_is_sent_as_its_request() -> None:
    assert make_request(Node("a", "Open the door"), {}) == "Open the door"


def test_tips_follow_the_request() -> None:
    assert make_request(Node("a", "Open the door", tips=["be quick", "knock"]), {}) == (
        "Task Description: Open the door\nTips for Completion:\n - be quick\n - knock"
    )


def test_results_of_the_nodes_before_it_are_lines_of_json() -> None:
    failed = NodeResult(NodeState.FAILED, 2, None, "no paper")
    description, tips, title, *lines = make_request(Node("c", "Go on"), {"a": COMPLETED, "b": failed}).split("\n")
    assert (description, tips, title) == (
        "Task Description: Go on",
        "No tips available.",
        "Results of the tasks before it:",
    )
    assert [json.loads(line) for line in lines] == [
        {"task": "a", "state": "completed", "result": {"sum": 3, "name": "é"}, "error": None},
        {"task": "b", "state": "failed", "result": None, "error": "no paper"},
    ]


def test_long_results_share_the_space_and_their_cuts_are_marked() -> None:
    long = NodeResult(NodeState.COMPLETED, 1, "é" * MAX_INPUTS)
    text = make_request(Node("c", "Go on", tips="be quick"), {"a": long, "b": COMPLETED, "c": long})
    first, second, third = text.split("\n")[-3:]
    assert json.loads(second)["result"] == {"sum": 3, "name": "é"}
    for line in (first, third):
        assert line.endswith("é… (cut: 131,136 bytes)")
        assert MAX_INPUTS // 3 <= len(line.encode()) <= MAX_INPUTS // 3 + 40
