"""The text that is sent for a node."""

from __future__ import annotations

import json

import pytest

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
        assert line.endswith("é… (cut)")
        assert MAX_INPUTS // 3 - 3 <= len(line.encode()) < MAX_INPUTS // 3


@pytest.mark.parametrize("length", [0, *range(900, 1_000)])
def test_result_is_cut_only_if_it_is_longer_than_its_share(length: int) -> None:
    """With 64 nodes before it, each has 1 KiB."""
    results = {f"n{number}": NodeResult(NodeState.COMPLETED, 1, ["x" * length]) for number in range(64)}
    *_, line = make_request(Node("a", "Go on"), results).split("\n")
    assert len(line.encode()) < 1024
    if line.endswith("… (cut)"):
        assert length > 900
    else:
        assert json.loads(line)["result"] == ["x" * length]


def test_results_of_very_many_nodes_are_within_64_kib_together_and_the_others_are_counted() -> None:
    results = {f"n{number}": NodeResult(NodeState.COMPLETED, 1, "é" * 10_000) for number in range(10_000)}
    text = make_request(Node("a", "Go on"), results)
    assert len(text.encode()) <= MAX_INPUTS + 100
    *_, last, rest = text.split("\n")
    assert last.startswith('{"task": "n63", "state": "completed", "result": "é')
    assert rest == "… (9,936 more results)"


def test_lone_surrogate_of_a_result_is_replaced() -> None:
    text = make_request(Node("a", "Go on"), {"b": NodeResult(NodeState.COMPLETED, 1, "\ud800")})
    assert '"result": "?"' in text
