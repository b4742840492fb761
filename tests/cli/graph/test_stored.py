"""Graphs in a daemon: each command, its output, its exit status, and wrong inputs."""

from __future__ import annotations

import itertools
import json
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import pytest

from galaxy_trio.graph import NodeState, read_graph
from tests.cli.graph.support import write_plan
from tests.cli.support.command_line import Call, Outcome, call_process, caller, is_one_sentence
from tests.cli.support.daemon_process import run_daemon_process
from tests.cli.support.hostile import EVIL, Answer, harmful_characters, open_fake_daemon

if TYPE_CHECKING:
    from collections.abc import Generator

pytestmark = pytest.mark.daemon

NOWHERE = "0123456789abcdef0123456789abcdef"
ON_D1: dict[str, object] = {"request": "echo", "device": "d1"}


@pytest.fixture(scope="module")
def address() -> Generator[str]:
    """The URL of a daemon with the devices d1 and d2."""
    yield from run_daemon_process("")


@pytest.fixture
def call(address: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Call:
    """Run a command in this process, with the address of the daemon in the environment."""
    run = caller(monkeypatch, capsys)
    monkeypatch.setenv("GALAXY_TRIO_DAEMON", address)
    return run


def submit(call: Call, *arguments: str) -> str:
    outcome = call("graph", "submit", *arguments)
    assert (outcome.status, outcome.err) == (0, "")
    [graph_id] = outcome.out.splitlines()
    assert re.fullmatch("[0-9a-f]{32}", graph_id)
    return graph_id


def shown(call: Call, graph_id: str) -> dict[str, Any]:
    outcome = call("graph", "show", graph_id, "--json")
    assert (outcome.status, outcome.err) == (0, "")
    return cast("dict[str, Any]", json.loads(outcome.out))


def lines_of(outcome: Outcome) -> list[str]:
    """The lines of an outcome, without times."""
    return [re.sub(r"^\d\d:\d\d:\d\d |after \d+ s", "", line) for line in outcome.out.splitlines()]


def test_submitted_graph_is_shown_and_exported_with_its_results(call: Call, tmp_path: Path) -> None:
    plan = write_plan(tmp_path, {"a": ON_D1, "b": ON_D1, "c": ON_D1}, ("a", "b"), name="a plan")
    graph_id = submit(call, plan)
    followed = call("graph", "show", graph_id, "--wait")
    assert (followed.status, followed.err) == (0, "")
    assert followed.out.endswith(": 3 completed\n")
    picture = call("graph", "show", graph_id).out.splitlines()
    assert picture[:3] == [f"graph     {graph_id}", "name      a plan", "state     completed: 3 completed"]
    assert [line.partition("  ")[0] for line in picture[3:5]] == ["accepted", "ended"]
    assert "layer 1: 2 nodes" in picture
    assert "  b     completed  d1      echo" in picture
    for suffix in ("json", "yaml"):
        out = tmp_path / f"out.{suffix}"
        assert call("graph", "export", graph_id, "--format", "ours", "-o", str(out)) == Outcome(0, "", "")
        results = read_graph(out).nodes
        assert {result.state for result in results.values()} == {NodeState.COMPLETED}
        assert results["a"].result == {"device": "d1", "echo": ""}
    printed = json.loads(call("graph", "export", graph_id, "--format", "original").out)
    assert printed["tasks"]["a"]["status"] == "completed"


def test_every_form_of_a_file_is_submitted(call: Call, tmp_path: Path) -> None:
    write_plan(tmp_path, {"a": ON_D1, "b": ON_D1}, ("a", "b"), results={"a": {"state": "failed"}})
    forms = {"plan.yaml": "ours", "plan.toml": "ours", "original.json": "original"}
    for name, form in forms.items():
        file = str(tmp_path / name)
        # TOML has no null, so this file is without results.
        given = call("graph", "export", str(tmp_path / "plan.json"), "--format", form, "-o", file)
        assert given.status == 0, given.err
        graph_id = submit(call, file)
        assert [node["id"] for node in shown(call, graph_id)["graph"]["nodes"]] == ["a", "b"]
        # States in the file are left out.
        assert call("graph", "show", graph_id, "--wait").status == 0


def test_waiting_prints_how_the_graph_ended_and_exits_by_it(call: Call, tmp_path: Path) -> None:
    failing: dict[str, object] = {"request": "fail no paper", "device": "d1", "retries": 1, "backoff": 0.01}
    plan = write_plan(tmp_path, {"bad": failing, "a": ON_D1, "b": ON_D1, "c": ON_D1}, ("a", "b"), ("bad", "c"))
    outcome = call("graph", "submit", plan, "--wait")
    assert outcome.status == 1
    assert re.fullmatch(r"error: the graph is partially failed: node 'bad' is failed: .*no paper.*\n", outcome.err)
    graph_id, *lines = lines_of(outcome)
    assert shown(call, graph_id)["state"] == "partially failed"
    assert lines[-1] == "graph partially failed : 1 failed, 2 completed, 1 skipped"
    assert lines[-2].startswith('result of b: {"device": "d1", "echo": ')
    # One that has ended is shown as it ended.
    again = call("graph", "show", graph_id, "--wait")
    assert (again.status, lines_of(again)[-1]) == (1, lines[-1])


def test_waiting_with_json_prints_the_graph_its_events_and_last_the_result(call: Call, tmp_path: Path) -> None:
    plan = write_plan(tmp_path, {"a": ON_D1, "b": ON_D1}, ("a", "b"))
    outcome = call("graph", "submit", plan, "--wait", "--json")
    assert (outcome.status, outcome.err) == (0, "")
    first, snapshot, *events, last = [json.loads(line) for line in outcome.out.splitlines()]
    assert (first["event"], first["name"]) == ("Graph", None)
    assert snapshot["event"] == "GraphSnapshot"
    assert {event["event"] for event in events} <= {"NodeReady", "NodeStarted", "NodeEnded", "GraphEnded"}
    assert {"event": "GraphEnded", "time": events[-1]["time"], "state": "completed"} == events[-1]
    assert (last["event"], last["state"]) == ("GraphResult", "completed")
    assert last["results"]["a"]["result"] == {"device": "d1", "echo": ""}
    assert last["results"]["b"]["attempt"] == 1


def test_graph_and_its_nodes_are_cancelled_and_retried(call: Call, tmp_path: Path) -> None:
    plan = write_plan(tmp_path, {"wait": {"device": "d2"}, "bad": {"request": "fail", "device": "d1"}, "next": ON_D1})
    graph_id = submit(call, plan)
    assert "1 cancelled" in call("graph", "cancel", graph_id, "wait").out
    failed = call("graph", "show", graph_id, "--wait")
    assert (failed.status, lines_of(failed)[-1]) == (
        1,
        "graph partially failed : 1 failed, 1 cancelled, 1 completed",
    )
    again = call("graph", "retry", graph_id, "wait")
    assert (again.status, again.err) == (0, "")
    assert again.out == "running: 1 failed, 1 ready, 1 completed\n"
    assert call("graph", "cancel", graph_id).status == 0
    assert call("graph", "show", graph_id, "--wait").status == 1
    assert shown(call, graph_id)["state"] == "cancelled"
    retried = call("graph", "retry", graph_id, "bad", "--wait", "--json")
    assert retried.status == 1
    assert json.loads(retried.out.splitlines()[-1])["results"]["bad"]["state"] == "failed"
    cancelled = call("graph", "cancel", graph_id, "bad", "--json")
    assert json.loads(cancelled.out)["id"] == graph_id


def test_name_of_a_node_may_have_any_character(call: Call, tmp_path: Path) -> None:
    name = f"a/b ?&#%2F{EVIL}"
    plan = write_plan(tmp_path, {name: {"request": "wait", "device": "d2"}, EVIL: ON_D1}, (name, EVIL), name=EVIL)
    graph_id = submit(call, plan)
    outcomes = [
        call("graph", "show", graph_id),
        call("graph", "list", "--limit", "1"),
        call("graph", "cancel", graph_id, name),
        call("graph", "show", graph_id, "--wait"),
        call("graph", "show", graph_id, "--wait", "--json"),
        call("graph", "retry", graph_id, EVIL),
        call("graph", "cancel", f"none{EVIL}"),
    ]
    assert [outcome.status for outcome in outcomes] == [0, 0, 0, 1, 1, 5, 5]
    assert not [outcome for outcome in outcomes if harmful_characters(outcome.out + outcome.err)]
    assert shown(call, graph_id)["graph"]["results"][name]["state"] == "cancelled"


def test_same_idempotency_key_returns_the_same_graph(call: Call, tmp_path: Path) -> None:
    plan = write_plan(tmp_path, {"a": ON_D1})
    arguments = (plan, "--idempotency-key", "monday 1")
    assert submit(call, *arguments) == submit(call, *arguments)
    outcome = call("graph", "submit", write_plan(tmp_path, {"b": ON_D1}), "--idempotency-key", "monday 1")
    assert (outcome.status, is_one_sentence(outcome)) == (5, True)
    assert "the idempotency key 'monday 1' belongs to graph" in outcome.err
    assert "use another key" in outcome.err


def test_list_shows_the_newest_graph_first(call: Call, tmp_path: Path) -> None:
    graph_id = submit(call, write_plan(tmp_path, {"a": ON_D1, "b": ON_D1}, ("a", "b"), name="long name " * 10))
    assert call("graph", "show", graph_id, "--wait").status == 0
    unnamed = submit(call, write_plan(tmp_path, {"wait": {"device": "d2"}, "a": {"request": "wait", "device": "d2"}}))
    assert call("graph", "list", "--limit", "2").out.splitlines() == [
        "graph                             state       ended  name",
        f"{unnamed}  running    0 of 2  -",
        f"{graph_id}  completed  2 of 2  long name long name long n…",
    ]
    running = json.loads(call("graph", "list", "--state", "running", "--json").out)
    assert unnamed in [graph["id"] for graph in running]
    assert {graph["state"] for graph in running} == {"running"}
    call("graph", "cancel", unnamed)


async def test_list_without_graphs_says_so() -> None:
    async with open_fake_daemon({"/graphs": Answer({"graphs": []})}) as fake:
        assert await call_process("graph", "list", "--url", fake.url) == Outcome(0, "no graphs\n", "")


def test_problems_of_a_file_are_printed_as_by_check_and_nothing_is_submitted(call: Call, tmp_path: Path) -> None:
    file = tmp_path / "wrong.json"
    file.write_text(json.dumps({"nodes": [{"id": "a", "reqest": "x"}], "edges": [{"source": "a", "target": "z"}]}))
    before = call("graph", "list", "--json").out
    outcome = call("graph", "submit", str(file))
    assert outcome == call("graph", "check", str(file))
    assert outcome.status == 2
    *problems, last = outcome.err.splitlines()
    assert [problem.partition(": ")[0] for problem in problems] == [
        "nodes[0].request",
        "nodes[0].reqest",
        "edges[0].target",
    ]
    assert last == f"error: {file}: 3 problems"
    assert call("graph", "list", "--json").out == before


def test_graph_that_is_too_large_for_the_daemon_is_refused_with_what_to_do(call: Call, tmp_path: Path) -> None:
    names = [f"n{number}" for number in range(202)]
    edges = itertools.combinations(names, 2)
    outcome = call("graph", "submit", write_plan(tmp_path, dict.fromkeys(names, ON_D1), *edges))
    assert (outcome.status, is_one_sentence(outcome)) == (5, True)
    assert "at most 20,000 edges" in outcome.err
    nodes: dict[str, dict[str, object]] = {name: {"request": "x" * 1_000_000} for name in names[:9]}
    outcome = call("graph", "submit", write_plan(tmp_path, nodes))
    assert (outcome.status, is_one_sentence(outcome)) == (5, True)
    assert outcome.err.endswith("bytes (divide the plan, or pass large data as files)\n")


@pytest.mark.parametrize(
    "arguments",
    [("show", NOWHERE), ("show", NOWHERE, "--wait"), ("export", NOWHERE, "--format", "ours"), ("cancel", NOWHERE), ("retry", "x", "a")],
)  # fmt: skip
def test_unknown_graph_is_refused_with_the_command_that_lists_them(call: Call, arguments: tuple[str, ...]) -> None:
    outcome = call("graph", *arguments)
    assert (outcome.status, outcome.out, is_one_sentence(outcome)) == (5, "", True)
    assert outcome.err.startswith("error: the daemon refused: there is no graph '")
    assert outcome.err.endswith(" (galaxy-trio graph list shows the graphs)\n")


def test_node_that_is_unknown_or_cannot_be_retried_is_refused(call: Call, tmp_path: Path) -> None:
    graph_id = submit(call, write_plan(tmp_path, {"a": ON_D1}))
    call("graph", "show", graph_id, "--wait")
    for words, arguments in (
        ("there is no node 'z'", ("cancel", graph_id, "z")),
        ("there is no node 'z'", ("retry", graph_id, "z")),
        ("node 'a' is completed: only a node that failed", ("retry", graph_id, "a")),
    ):
        outcome = call("graph", *arguments)
        assert (outcome.status, is_one_sentence(outcome)) == (5, True)
        assert words in outcome.err


@pytest.mark.parametrize("command", [("show",), ("export", "--format", "ours")])
def test_argument_is_a_file_or_an_id(
    call: Call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, command: tuple[str, ...]
) -> None:
    neither = call("graph", *command, "plan")
    assert (neither.status, is_one_sentence(neither)) == (2, True)
    assert (
        "'plan' is neither a file nor the id of a graph in the daemon, which has 32 hexadecimal digits" in neither.err
    )
    for missing in ("plan.json", "folder/plan"):
        outcome = call("graph", *command, missing)
        assert (outcome.status, is_one_sentence(outcome)) == (2, True)
        assert f"the graph {missing}" in outcome.err
    # A file takes precedence.
    monkeypatch.chdir(tmp_path)
    Path(write_plan(tmp_path, {"a": {}})).rename(NOWHERE)
    outcome = call("graph", *command, NOWHERE)
    assert (outcome.status, outcome.err) == (0, "")


def test_file_is_shown_as_json_and_cannot_be_followed(call: Call, tmp_path: Path) -> None:
    plan = write_plan(tmp_path, {"a": {}})
    document = {"nodes": [{"id": "a", "request": "a"}], "edges": []}
    assert json.loads(call("graph", "show", plan, "--json").out) == {"graph": document}
    outcome = call("graph", "show", plan, "--wait")
    assert outcome == Outcome(
        2, "", f"error: --wait follows a graph in the daemon, and {plan} is a file: submit it first\n"
    )


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["submit", "PLAN", "--idempotency-key", "é"], "'é' is not a text of printable ASCII characters"),
        (["submit", "PLAN", "--idempotency-key", ""], "'' is not a text of printable ASCII characters"),
        (["submit", "PLAN", "--idempotency-key", " x"], "' x' is not a text of printable ASCII characters"),
        (["show", "\udcff"], "not valid UTF-8"),
        (["cancel", "\udcff"], "not valid UTF-8"),
        (["retry", "x", "\udcff"], "not valid UTF-8"),
        (["retry", "x"], "NODE"),
        (["list", "--state", "done"], "'running', 'completed', 'partially failed', 'failed', 'cancelled'"),
        (["list", "--limit", "0"], "from 1 to 1000"),
    ],
)
def test_invalid_argument_is_a_usage_error(call: Call, tmp_path: Path, arguments: list[str], words: str) -> None:
    plan = write_plan(tmp_path, {"a": {}})
    outcome = call("graph", *(plan if word == "PLAN" else word for word in arguments))
    assert (outcome.status, outcome.out, is_one_sentence(outcome)) == (2, "", True)
    assert words in outcome.err


@pytest.mark.parametrize(
    "arguments",
    [
        ("submit", "PLAN"),
        ("list",),
        ("show", NOWHERE),
        ("show", NOWHERE, "--wait"),
        ("cancel", NOWHERE),
        ("retry", NOWHERE, "a"),
        ("export", NOWHERE, "--format", "ours"),
    ],
)
def test_daemon_that_cannot_be_reached_is_one_sentence(call: Call, tmp_path: Path, arguments: tuple[str, ...]) -> None:
    plan = write_plan(tmp_path, {"a": {}})
    outcome = call("graph", *(plan if word == "PLAN" else word for word in arguments), "--url", "http://127.0.0.1:1")
    assert (outcome.status, outcome.out, is_one_sentence(outcome)) == (3, "", True)
    assert "cannot reach a daemon at http://127.0.0.1:1: " in outcome.err
    # A file needs no daemon.
    assert call("graph", "show", plan, "--url", "http://127.0.0.1:1").status == 0
