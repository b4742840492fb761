"""The pages about task graphs: their tutorial and examples run as shown, and their limits are those of the package."""

from __future__ import annotations

import ast
import json
import re
import shlex
import shutil
from contextlib import AsyncExitStack
from pathlib import Path

import pytest

from galaxy_trio import errors, events
from galaxy_trio.graph import (
    GraphState,
    Node,
    NodeState,
    backoff,
    memory_tables,
    model,
    node_requests,
    planning,
    ready_queue,
)
from tests.cli.support.command_line import Outcome, call_process, open_process
from tests.docs.test_examples import EXAMPLES, URL, as_documented
from tests.support.paths import DOCS

pytestmark = pytest.mark.programs

TUTORIAL = (DOCS / "tutorial-graphs.md").read_text("utf-8")


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the examples, as the current directory."""
    shutil.copytree(EXAMPLES / "graphs", tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def _commands() -> list[tuple[list[str], str]]:
    """Return each command of the tutorial, with the output that it shows."""
    blocks: list[str] = re.findall(r"```console\n(.*?)```", TUTORIAL, re.DOTALL)
    entries = (entry.partition("\n") for block in blocks for entry in block.split("$ ")[1:])
    return [(shlex.split(line), output) for line, _, output in entries]


@pytest.mark.slow
async def test_tutorial_prints_the_documented_output(folder: Path) -> None:
    serve, laptop, desktop, *others = _commands()
    assert [words[:2] for words, _ in (serve, laptop, desktop)] == [
        ["galaxy-trio", word] for word in ("server", "agent", "agent")
    ]
    async with AsyncExitStack() as stack:
        server = await stack.enter_async_context(open_process("server", "--port", "0", token=None))
        url = (await server.wait_for_output("\n")).strip()
        assert serve[1].strip() == URL
        devices = folder / "devices.toml"
        devices.write_text(devices.read_text("utf-8").replace(URL, url), "utf-8")
        for words, output in (laptop, desktop):
            arguments = [word.replace(URL, url) for word in words[1:]]
            agent = await stack.enter_async_context(open_process(*arguments, token=None))
            assert await agent.wait_for_output("\n") == output
        for words, output in others:
            if words[0] == "python":
                outcome = await call_process(python=words[1:], token="")
                name = f"graph_{words[1].removesuffix('.py')}"
                if f"examples/output/{name}.txt" in TUTORIAL:
                    assert as_documented(name, outcome)
                else:
                    assert outcome == Outcome(0, output, "")
            else:
                outcome = await call_process(*words[1:], token="")
                assert (outcome.status, outcome.err) == (0, "")
                if words[1:3] == ["graph", "run"]:
                    check_run(outcome.out, output)
                else:
                    assert outcome.out == output


def check_run(out: str, shown: str) -> None:
    """Compare the lines of a graph that ran in a pipe with the table that the tutorial shows, which is for terminals."""
    seconds = re.compile(r"\d+ s")
    *table, counts, ended, written = seconds.sub("N s", shown).splitlines()
    assert seconds.sub("N s", out).splitlines()[-2:] == [ended, written]
    assert ended.endswith(f": {counts}")
    document = json.loads(Path("done.json").read_text("utf-8"))
    rows = {words[0]: (words[2], words[3]) for words in map(str.split, table[1:])}
    assert rows == {
        node["id"]: (document["results"][node["id"]]["state"], node["device"]) for node in document["nodes"]
    }


@pytest.mark.parametrize("name", ["conditions", "editing", "convert"])
async def test_examples_without_devices_print_the_documented_output(folder: Path, name: str) -> None:
    outcome = await call_process(python=(f"{name}.py",), token="")
    assert (outcome.status, outcome.err) == (0, "")
    assert outcome.out == (EXAMPLES / "output" / f"graph_{name}.txt").read_text("utf-8")


async def test_tests_of_the_how_to_pass(folder: Path) -> None:
    (folder / "pytest.ini").write_text("[pytest]\ntrio_mode = true\nfilterwarnings = error\n", "utf-8")
    outcome = await call_process(python=("-m", "pytest", "-p", "no:cacheprovider"), token="")
    assert "2 passed" in outcome.out, outcome.out + outcome.err


def highest_priority() -> int:
    """Return the highest priority that a node may have."""
    highest = 0
    with pytest.raises(errors.GraphError):
        while True:
            Node("a", "a", priority=highest + 1)
            highest += 1
    return highest


def test_limits_of_the_reference_are_those_of_the_package() -> None:
    page = (DOCS / "reference" / "api" / "graph.md").read_text("utf-8")
    rows: list[tuple[str, str]] = re.findall(r"^\| (.+) \| ([\d,]+) \|$", page.partition("## Limits")[2], re.MULTILINE)
    assert {name: int(value.replace(",", "")) for name, value in rows} == {
        "nodes of a graph": model.MAX_NODES,
        "edges of a graph": model.MAX_EDGES,
        "characters of a node's request": model.MAX_REQUEST,
        "bytes of memory of the requests, tips, metadata and conditions of a graph together": model.MAX_SIZE,
        "bytes of memory of the results of a graph's nodes together; a node whose result is above it fails": (
            memory_tables.MAX_RESULTS
        ),
        "characters of the id of a node or an edge": model.MAX_NODE_ID,
        "retries of a node": model.MAX_RETRIES,
        "seconds of the longest wait before another attempt": backoff.MAX_BACKOFF,
        "priority, from its negative": highest_priority(),
        "bytes of the results of the nodes before a node that are part of its text": node_requests.MAX_INPUTS,
        "nodes with the same requirements that wait for devices together": ready_queue._WINDOW,
        "edits that a planner may return for the same ends": planning._TRIES,
        "events that may wait for a subscriber": events.BACKLOG,
    }
    limits = f"{model.MAX_NODES:,} nodes or {model.MAX_EDGES:,} edges, or a request more than {model.MAX_REQUEST:,}"
    assert limits in (DOCS / "reference" / "errors.md").read_text("utf-8")


@pytest.mark.parametrize("states", [NodeState, GraphState])
def test_every_state_is_in_the_tables_of_the_reference(states: type[NodeState | GraphState]) -> None:
    page = (DOCS / "reference" / "api" / "graph.md").read_text("utf-8")
    what = "node" if states is NodeState else "graph"
    table = page.partition(f"| state of a {what} |")[2].partition("\n\n")[0]
    assert sorted(re.findall(r"^\| `([a-z ]+)` \|", table, re.MULTILINE)) == sorted(states)


def test_every_error_of_graphs_is_in_the_table_of_the_reference() -> None:
    page = (DOCS / "reference" / "api" / "graph.md").read_text("utf-8")
    table = page.partition("\n## Errors")[2].partition("\n## ")[0]
    there = {
        name
        for name, value in vars(errors).items()
        if isinstance(value, type) and issubclass(value, errors.GraphError | errors.GraphFailed | errors.PlannerFailed)
    }
    assert set(re.findall(r"^\| `(\w+)` \|", table, re.MULTILINE)) == there


def _programs() -> list[str]:
    """Return the programs that are in the text of the pages."""
    pages = ("howto/planner", "howto/graph-conditions", "howto/graph-edits", "howto/from-task-constellation")
    return [
        block
        for name in pages
        for block in re.findall(
            r"^```python\n(.*?)^```", (DOCS / f"{name}.md").read_text("utf-8"), re.DOTALL | re.MULTILINE
        )
    ]


@pytest.mark.parametrize("program", _programs())
def test_programs_in_the_text_can_be_compiled(program: str) -> None:
    compile(program, "page", "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
