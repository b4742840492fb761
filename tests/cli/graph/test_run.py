"""``galaxy-trio graph run``: its output, its exit status, and the file with the results."""

from __future__ import annotations

import json
import re
import signal
from pathlib import Path
from typing import TYPE_CHECKING, cast

import pytest
import trio

from galaxy_trio._cli.main import exit_status
from galaxy_trio.errors import GraphFailed
from galaxy_trio.graph import NodeState, read_graph
from tests.cli.graph.support import open_devices, write_devices, write_plan
from tests.cli.support.command_line import NO_SERVER, TOKEN, Call, Command, is_one_sentence, with_command

if TYPE_CHECKING:
    from collections.abc import Mapping


def states_in(file: str | Path) -> Mapping[str, NodeState]:
    return {node_id: result.state for node_id, result in read_graph(Path(file)).nodes.items()}


def without_times(lines: str) -> list[str]:
    return [re.sub(r"^\d\d:\d\d:\d\d |after \d s", "", line) for line in lines.splitlines()]


@with_command
async def test_graph_runs_and_each_step_is_a_line(command: Command, tmp_path: Path) -> None:
    plan = write_plan(tmp_path, {"a": {"device": "laptop"}, "b": {"device": "phone"}}, ("a", "b"))
    async with open_devices() as server:
        command.start("graph", "run", plan, "--devices", write_devices(tmp_path, server.url, "laptop", "phone"))
        outcome = await command.end()
    assert (outcome.status, outcome.err) == (0, "")
    lines = [line for line in without_times(outcome.out) if "is connected" not in line]
    assert lines == [
        "a started on laptop",
        "a completed on laptop ",
        "b started on phone",
        "b completed on phone ",
        "result of b: did b",
        "graph completed : 2 completed",
    ]
    assert server.texts[0] == "a"
    assert server.texts[1].startswith("Task Description: b\n")


@with_command
async def test_json_has_the_events_and_last_the_result(command: Command, tmp_path: Path) -> None:
    plan = write_plan(tmp_path, {"a": {}, "fail": {}, "c": {}}, ("fail", "c"))
    async with open_devices() as server:
        devices = write_devices(tmp_path, server.url, "laptop", "phone")
        command.start("graph", "run", plan, "--devices", devices, "--json")
        outcome = await command.end()
    assert outcome.status == 1
    assert outcome.err == "error: the graph is partially failed: node 'fail' is failed: there is no paper\n"
    events = [cast("dict[str, object]", json.loads(line)) for line in outcome.out.splitlines()]
    assert [event["event"] for event in events].count("NodeStarted") == 2
    last = events[-1]
    assert (last["event"], last["state"]) == ("GraphResult", "partially failed")
    results = cast("dict[str, dict[str, object]]", last["results"])
    assert {name: result["state"] for name, result in results.items()} == {
        "a": "completed", "fail": "failed", "c": "skipped",
    }  # fmt: skip
    assert (results["a"]["result"], results["a"]["attempt"]) == ("did a", 1)
    assert cast("str", results["a"]["started"]) < cast("str", results["a"]["ended"])


def test_failed_graph_exits_with_1() -> None:
    assert exit_status(GraphFailed("x")) == 1


@with_command
async def test_ctrl_c_stops_what_runs_and_the_file_goes_on_where_it_stopped(command: Command, tmp_path: Path) -> None:
    plan = write_plan(tmp_path, {"a": {}, "wait": {}, "last": {}, "other": {}}, ("wait", "last"), ("a", "other"))
    async with open_devices() as server:
        devices, output = write_devices(tmp_path, server.url, "laptop", "phone"), str(tmp_path / "out.json")
        command.start("graph", "run", plan, "--devices", devices, "--output", output)
        await command.wait_for_stdout("other completed")
        await server.wait_for("wait")
        command.send_signal(signal.SIGINT)
        outcome = await command.end()
        assert outcome.status == 130
        assert re.search(r"^was stopped: wait on (laptop|phone)$", outcome.out, re.MULTILINE)
        assert re.search(r"^graph cancelled after \d+ s: 2 cancelled, 2 completed$", outcome.out, re.MULTILINE)
        assert outcome.out.endswith(f"\nwritten: {output}\n")
        assert "error" not in outcome.err
        assert server.stopped == ["wait"]
        assert states_in(output) == {
            "a": "completed", "wait": "cancelled", "last": "cancelled", "other": "completed",
        }  # fmt: skip

        # As if the device had done its work this time.
        await trio.Path(output).write_text(
            (await trio.Path(output).read_text()).replace('"request": "wait"', '"request": "short"')
        )
        server.requests.clear()
        command.start("graph", "run", output, "--devices", devices, "--output", output)
        assert (await command.end()).status == 0
    assert server.requests == ["short", "last"]
    assert '"state": "completed", "result": "did short"' in server.texts[-1]
    assert set(states_in(output).values()) == {"completed"}


@with_command
async def test_sigterm_cancels_the_graph_and_exits_with_143(command: Command, tmp_path: Path) -> None:
    async with open_devices() as server:
        devices = write_devices(tmp_path, server.url, "laptop")
        command.start("graph", "run", write_plan(tmp_path, {"wait": {}}), "--devices", devices)
        await server.wait_for("wait")
        outcome = await command.terminate()
    assert outcome.status == 143
    assert "was stopped: wait on laptop" in outcome.out


@with_command
async def test_failed_and_lost_nodes_stay_unless_retried_and_reset_runs_everything(
    command: Command, tmp_path: Path
) -> None:
    results = {
        "a": {"state": "completed", "result": "earlier"},
        "b": {"state": "failed", "error": "no paper"},
        "c": {"state": "skipped"},
        "d": {"state": "lost"},
    }
    plan = write_plan(tmp_path, {node_id: {} for node_id in "abcde"}, ("a", "b"), ("b", "c"), results=results)
    async with open_devices() as server:
        devices = write_devices(tmp_path, server.url, "laptop", "phone")
        for options, status, requests in (((), 1, "e"), (("--retry",), 0, "bcde"), (("--reset",), 0, "abcde")):
            server.requests.clear()
            command.start("graph", "run", plan, "--devices", devices, *options)
            outcome = await command.end()
            assert (outcome.status, sorted(server.requests)) == (status, [*requests])
            assert TOKEN not in outcome.out + outcome.err


@with_command
async def test_graph_whose_nodes_have_all_ended_ends_immediately(command: Command, tmp_path: Path) -> None:
    results = {"a": {"state": "completed", "result": {"sum": 3}}}
    plan = write_plan(tmp_path, {"a": {}}, results=results)
    command.start("graph", "run", plan, "--devices", write_devices(tmp_path, NO_SERVER, "laptop"))
    outcome = await command.end()
    assert outcome.status == 0
    assert without_times(outcome.out)[-2:] == ['result of a: {"sum": 3}', "graph completed : 1 completed"]


@with_command
async def test_limit_of_concurrent_nodes_and_a_device_that_is_not_connected_at_the_start(
    command: Command, tmp_path: Path
) -> None:
    plan = write_plan(tmp_path, {"wait 1": {"device": "laptop"}, "wait 2": {"device": "phone"}})
    async with open_devices() as server:
        devices = write_devices(tmp_path, server.url, "laptop", "phone", auto_connect=False)
        command.start("graph", "run", plan, "--devices", devices, "--max-concurrent", "1")
        for device in ("laptop", "phone"):
            await command.wait_for_stdout(f"{device} is connected")
        await command.wait_for_stdout(" started on ")
        command.send_signal(signal.SIGINT)
        outcome = await command.end()
    assert outcome.out.count(" started on ") == 1
    assert "graph cancelled" in outcome.out


@with_command
async def test_results_of_the_last_nodes_that_completed_are_printed_unless_a_file_has_them(
    command: Command, tmp_path: Path
) -> None:
    results = {
        "a": {"state": "completed", "result": "of a"},
        "b": {"state": "completed", "result": "of b"},
        "c": {"state": "skipped"},
        "d": {"state": "completed"},
    }
    edges = [{"source": "a", "target": "b"}, {"source": "b", "target": "c", "when": "failure"}]
    plan = write_plan(tmp_path, {node_id: {} for node_id in results}, edges=edges, results=results)
    devices = write_devices(tmp_path, NO_SERVER, "laptop")
    for options, shown in (((), 1), (("--output", str(tmp_path / "out.json")), 0)):
        command.start("graph", "run", plan, "--devices", devices, *options)
        outcome = await command.end()
        assert outcome.out.count("result of ") == outcome.out.count("result of b: of b\n") == shown


@with_command
async def test_many_results_are_cut_and_counted(command: Command, tmp_path: Path) -> None:
    results = {f"n{number}": {"state": "completed", "result": "x" * 10_000} for number in range(50)}
    plan = write_plan(tmp_path, {node_id: {} for node_id in results}, results=results)
    command.start("graph", "run", plan, "--devices", write_devices(tmp_path, NO_SERVER, "laptop"))
    outcome = await command.end()
    assert outcome.out.count("result of ") == 20
    assert re.search(rf"^result of n0: +{'x' * 500}… \(10,000 characters\)$", outcome.out, re.MULTILINE)
    assert "… 30 more: --json and --output have all\n" in outcome.out


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ((), "node 'a': there is no device 'laptpo' in {folder}/devices.json; did you mean 'laptop'?"),
        (("--output", "{folder}/none/out.json"), "the graph {folder}/none/out.json cannot be written"),
        (("--output", "{folder}/out.txt"), "its name must end with .json"),
        (("--output", "{folder}/out.toml"), "TOML has no null"),
        (("--max-concurrent", "0"), "'0' is not a whole number of at least 1"),
    ],
)
def test_each_mistake_is_one_sentence_before_anything_runs(
    call: Call, tmp_path: Path, options: tuple[str, ...], words: str
) -> None:
    node: dict[str, object] = {} if options else {"device": "laptpo"}
    plan, devices = write_plan(tmp_path, {"a": node}), write_devices(tmp_path, NO_SERVER, "laptop")
    given = [option.format(folder=tmp_path) for option in options]
    outcome = call("graph", "run", plan, "--devices", devices, *given)
    assert (outcome.status, outcome.out) == (2, "")
    assert is_one_sentence(outcome)
    assert words.format(folder=tmp_path) in outcome.err


def test_file_of_devices_is_required(call: Call, tmp_path: Path) -> None:
    outcome = call("graph", "run", write_plan(tmp_path, {"a": {}}))
    assert outcome.status == 2
    assert "Missing option '--devices'" in outcome.err
