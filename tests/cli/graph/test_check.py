"""``galaxy-trio graph check``, ``show`` and ``export``: what they print, and their exit status."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, cast

import pytest

from galaxy_trio.graph import NodeState, read_graph
from tests.cli.graph.support import write_devices, write_plan
from tests.cli.support.command_line import NO_SERVER, Call, is_one_sentence
from tests.cli.support.hostile import EVIL, harmful_characters

if TYPE_CHECKING:
    from pathlib import Path

    from galaxy_trio.messages import JSON

RESULTS = {"a": {"state": "completed", "result": 3}, "b": {"state": "failed", "error": "no paper"}}


def write_original(folder: Path) -> str:
    tasks = {f"t{number}": {"task_id": f"t{number}", "description": "x", "status": "pending"} for number in (1, 2)}
    line = {"line_id": "l1", "from_task_id": "t1", "to_task_id": "t2", "dependency_type": "success_only"}
    file = folder / "original.json"
    file.write_text(json.dumps({"constellation_id": "c", "tasks": tasks, "dependencies": {"l1": line}}))
    return str(file)


def test_valid_graph_is_summed_up_with_its_form_and_results(call: Call, tmp_path: Path) -> None:
    plan = write_plan(tmp_path, {"a": {}, "b": {}, "c": {}}, ("a", "b"), ("a", "c"))
    outcome = call("graph", "check", plan)
    assert (outcome.status, outcome.err) == (0, "")
    assert outcome.out == f"{plan}: 3 nodes, 2 edges, 2 layers; in our form\n"
    original = write_original(tmp_path)
    assert call("graph", "check", original).out == f"{original}: 2 nodes, 1 edge, 2 layers; in the original's form\n"
    plan = write_plan(tmp_path, {"a": {}, "b": {}, "c": {}}, results=RESULTS)
    assert call("graph", "check", plan).out.splitlines()[1] == "results: 1 failed, 1 waiting, 1 completed"


def test_every_problem_is_a_line_with_its_path(call: Call, tmp_path: Path) -> None:
    nodes: dict[str, dict[str, object]] = {"a": {"devcie": "laptop"}, "b": {"retries": -1}, f"c{EVIL}": {"os": 5}}
    plan = write_plan(tmp_path, nodes, ("a", "b"), ("b", "a"), ("a", "nowhere"))
    outcome = call("graph", "check", plan)
    *problems, last = outcome.err.splitlines()
    assert (outcome.status, outcome.out) == (2, "")
    assert [problem.partition(":")[0] for problem in problems] == [
        "nodes[0].devcie",
        "nodes[1].retries",
        "nodes[2].os",
        "edges[2].target",
        "edges",
    ]
    assert last == f"error: {plan}: 5 problems"
    assert not harmful_characters(outcome.err)


@pytest.mark.parametrize("command", [("check",), ("show",), ("export", "--format", "ours")])
def test_file_that_cannot_be_read_is_one_sentence(call: Call, tmp_path: Path, command: tuple[str, ...]) -> None:
    for name, content in (("none.json", None), ("text.json", "no json"), ("list.json", "[]")):
        if content is not None:
            (tmp_path / name).write_text(content)
        outcome = call("graph", *command, str(tmp_path / name))
        assert (outcome.status, outcome.out) == (2, "")
        *problems, last = outcome.err.splitlines()
        assert last.startswith("error: ")
        assert str(tmp_path / name) in last
        assert len(problems) <= 1


def test_devices_that_are_not_there_are_problems_as_well(call: Call, tmp_path: Path) -> None:
    nodes: dict[str, dict[str, object]] = {
        "a": {"device": "laptop"},
        "b": {"device": "laptpo"},
        "c": {"device": EVIL},
        "d": {},
    }
    plan, devices = write_plan(tmp_path, nodes), write_devices(tmp_path, NO_SERVER, "laptop")
    assert call("graph", "check", plan).status == 0
    outcome = call("graph", "check", plan, "--devices", devices)
    assert outcome.status == 2
    first, second, last = outcome.err.splitlines()
    assert first == f"node 'b': there is no device 'laptpo' in {devices}; did you mean 'laptop'?"
    assert second.startswith("node 'c': there is no device '")
    assert last == f"error: {plan}: 2 problems"
    assert not harmful_characters(outcome.err)


def test_problems_of_devices_file_name_that_file(call: Call, tmp_path: Path) -> None:
    devices = tmp_path / "devices.json"
    devices.write_text('{"devices": [{"device_id": 5}]}')
    outcome = call("graph", "check", write_plan(tmp_path, {"a": {}}), "--devices", str(devices))
    assert outcome.status == 2
    assert outcome.err.splitlines()[-1].startswith(f"error: {devices}: ")


def test_graph_is_shown_in_a_pipe_without_colours(call: Call, tmp_path: Path) -> None:
    plan = write_plan(tmp_path, {"a": {"device": "laptop"}, "b": {}}, ("a", "b"), results=RESULTS)
    outcome = call("graph", "show", plan)
    assert (outcome.status, outcome.err) == (0, "")
    assert outcome.out.splitlines() == [
        "  node  state      device  task",
        "layer 1",
        "  a     completed  laptop  a",
        "layer 2",
        "  b     failed     any     b",
        "    after a",
        "    no paper",
    ]


def test_export_prints_either_form_and_reads_it_again(call: Call, tmp_path: Path) -> None:
    plan = write_plan(tmp_path, {"a": {"name": f"Ä{EVIL}"}, "b": {}}, ("a", "b"), results=RESULTS)
    for form, key in (("original", "tasks"), ("ours", "nodes")):
        outcome = call("graph", "export", plan, "--format", form)
        assert (outcome.status, outcome.err) == (0, "")
        assert not harmful_characters(outcome.out)
        document = cast("dict[str, JSON]", json.loads(outcome.out))
        assert key in document
        snapshot = read_graph(document)
        assert snapshot.graph.nodes[0].name == f"Ä{EVIL}"
        assert snapshot.node("b").state is NodeState.FAILED


def test_export_writes_a_file(call: Call, tmp_path: Path) -> None:
    output = tmp_path / "out.json"
    plan = write_plan(tmp_path, {"a": {}, "b": {}}, ("a", "b"))
    outcome = call("graph", "export", plan, "--format", "original", "-o", str(output))
    assert (outcome.status, outcome.out, outcome.err) == (0, "", "")
    assert set(json.loads(output.read_text())["tasks"]) == {"a", "b"}
    assert call("graph", "check", str(output)).out.endswith("; in the original's form\n")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ((), "Missing option '--format'"),
        (("--format", "theirs"), "'theirs' is not one of 'original', 'ours'"),
        (("--format", "original", "-o", "FOLDER/out.yaml"), "the original reads JSON only"),
        (("--format", "ours", "-o", "FOLDER"), "cannot be written"),
    ],
)
def test_mistakes_of_export_are_one_sentence(
    call: Call, tmp_path: Path, arguments: tuple[str, ...], words: str
) -> None:
    given = [word.replace("FOLDER", str(tmp_path)) for word in arguments]
    outcome = call("graph", "export", write_plan(tmp_path, {"a": {}}), *given)
    assert (outcome.status, outcome.out) == (2, "")
    assert is_one_sentence(outcome)
    assert words in outcome.err
