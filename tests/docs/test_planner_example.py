"""The planner of the how-to: what it does with a model that is wrong, hostile, slow or silent."""

from __future__ import annotations

import itertools
import json
import sys
from collections.abc import Awaitable, Callable
from importlib import import_module
from typing import TYPE_CHECKING, TypeAlias

import pytest
import trio

from galaxy_trio import open_constellation
from galaxy_trio.errors import GraphError, PlannerFailed
from galaxy_trio.graph import Edge, Graph, GraphState, Node, Planner, open_graph
from galaxy_trio.testing import open_memory_fleet
from tests.docs.test_examples import EXAMPLES
from tests.graph.support.sessions import open_tasks

if TYPE_CHECKING:
    from pathlib import Path

    from trio.testing import MockClock

Ask: TypeAlias = Callable[[str], Awaitable[str]]

PLAN = Graph([Node("a", "a"), Node("b", "b")], [Edge("a", "b")])


@pytest.fixture(autouse=True)
def _examples_are_importable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "path", [str(EXAMPLES / "graphs"), *sys.path])


def planner_of(ask: Ask) -> Planner:
    """Return the planner of the how-to."""
    make_planner: Callable[[Ask], Planner] = import_module("planner").make_planner
    return make_planner(ask)


def replying(*answers: str, prompts: list[str] | None = None) -> Ask:
    """Return a model with these answers; the last one again and again."""
    rest = list(answers)

    async def ask(prompt: str) -> str:
        if prompts is not None:
            prompts.append(prompt)
        await trio.sleep(1)
        return rest.pop(0) if len(rest) > 1 else rest[0]

    return ask


@pytest.mark.parametrize(
    ("answer", "problem"),
    [
        ("Here is your plan!", "not JSON"),
        ("[" * 100_000, "not JSON"),
        ('{"n": ' + "9" * 5_000 + "}", "not JSON"),
        ("[]", "not a JSON object"),
        ('{"nodes": "c"}', "'nodes' is a list"),
        ('{"remove": "b"}', "'remove' is a list"),
        ('{"remove": [1]}', "'remove' is a list"),
        ('{"nodes": [{"id": "c"}]}', "nodes[0].request"),
        ('{"nodes": [{"id": "c", "request": "x", "where": "os.system"}]}', "nodes[0].where: unknown key"),
        ('{"nodes": [{"id": "c", "request": "x", "retries": 1e9}]}', "nodes[0].retries"),
        ('{"nodes": [{"id": "a", "request": "x"}]}', "'a' is given twice"),
        ('{"edges": [{"source": "b", "target": "q"}]}', "there is no node 'q'"),
        ('{"edges": [{"source": "b", "target": "b"}]}', "cycle"),
        (json.dumps({"nodes": [{"id": f"n{n}", "request": "x"} for n in range(49)]}), "at most 50 nodes"),
    ],
)
async def test_answer_that_was_not_asked_for_is_refused_and_changes_nothing(
    autojump_clock: MockClock, answer: str, problem: str
) -> None:
    prompts: list[str] = []
    planner = planner_of(replying(answer, "{}", prompts=prompts))
    async with open_tasks() as tasks, open_graph(tasks.constellation, PLAN, planner=planner) as run:
        await tasks.complete("a", "b")
        assert list((await run.wait()).unwrap()) == ["a", "b"]
        assert run.version == 0
    assert problem in prompts[1].partition("nothing was changed: ")[2]


async def test_first_plan_is_read_from_the_answer(autojump_clock: MockClock, tmp_path: Path) -> None:
    make_plan: Callable[[Ask, str], Awaitable[Graph]] = import_module("planner").make_plan
    prompts: list[str] = []
    answer = '{"nodes": [{"id": "a", "request": "a"}, {"id": "b", "request": "b"}], "edges": [{"source": "a", "target": "b"}]}'
    assert await make_plan(replying(answer, prompts=prompts), "Mail the report") == PLAN
    assert prompts[0].endswith("Mail the report")
    (tmp_path / "plan.json").write_text(answer, "utf-8")
    # A model reads no file.
    for wrong in (str(tmp_path / "plan.json"), json.dumps(str(tmp_path / "plan.json"))):
        with pytest.raises(GraphError, match="the answer is not"):
            await make_plan(replying(wrong), "Mail the report")


async def test_plan_goes_on_after_four_wrong_answers(autojump_clock: MockClock) -> None:
    planner = planner_of(replying("I cannot do that."))
    async with open_tasks() as tasks, open_graph(tasks.constellation, PLAN, planner=planner) as run:
        await tasks.complete("a")
        with pytest.raises(PlannerFailed, match="refused 4 times, the last one because the answer is not JSON"):
            await run.wait()
        await tasks.wait_running("b")


async def _silent(prompt: str) -> str:
    await trio.sleep_forever()


async def _unreachable(prompt: str) -> str:
    await trio.lowlevel.checkpoint()
    raise ConnectionRefusedError(prompt)


@pytest.mark.parametrize("ask", [_silent, _unreachable])
async def test_plan_goes_on_unchanged_without_an_answer(autojump_clock: MockClock, ask: Ask) -> None:
    async with open_tasks() as tasks, open_graph(tasks.constellation, PLAN, planner=planner_of(ask)) as run:
        await tasks.complete("a", "b")
        assert (await run.wait()).state is GraphState.COMPLETED


async def test_prompt_is_short_however_long_the_results_are(autojump_clock: MockClock) -> None:
    prompts: list[str] = []
    planner = planner_of(replying("{}", prompts=prompts))
    async with open_tasks() as tasks, open_graph(tasks.constellation, PLAN, planner=planner) as run:
        await tasks.complete("a", result="x" * 1_000_000)
        await tasks.fail("b", why="y" * 1_000_000)
        await run.wait()
    assert max(map(len, prompts)) < 10_000


async def test_plan_does_not_grow_without_end(autojump_clock: MockClock) -> None:
    numbers = itertools.count()

    async def grow(prompt: str) -> str:
        await trio.sleep(1)
        return json.dumps({"nodes": [{"id": f"n{next(numbers)}", "request": "more"}]})

    async with (
        open_memory_fleet("d1") as fleet,
        open_constellation(fleet.configs, connect=fleet.connect) as constellation,
        open_graph(constellation, PLAN, planner=planner_of(grow)) as run,
    ):
        with trio.fail_after(600), pytest.raises(PlannerFailed, match="at most 50 nodes"):
            await run.wait()
        assert len(run.states) == 50
