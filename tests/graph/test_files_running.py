"""A graph is read, run, written and read again, in each of its forms."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Final, cast

import pytest

from galaxy_trio.graph import GraphState, Node, NodeState, graph_document, open_graph, read_graph, write_graph
from tests.graph.support.sessions import open_tasks

if TYPE_CHECKING:
    from typing import Literal

    from trio.testing import MockClock

    from galaxy_trio.messages import JSON

SAMPLES: Final = Path(__file__).parent / "samples"


def _for_any_device(name: str) -> dict[str, JSON]:
    """Return a sample of the original that devices in memory can run."""
    document = cast("dict[str, JSON]", json.loads((SAMPLES / name).read_text("utf-8")))
    tasks = cast("dict[str, dict[str, JSON]] | list[dict[str, JSON]]", document["tasks"])
    for task in tasks.values() if isinstance(tasks, dict) else tasks:
        task |= {"target_device_id": None, "device_type": None}
    return document


OURS: Final = """
nodes:
- {id: fetch, request: fetch, retries: 1, backoff: 0}
- {id: merge, request: merge, timeout: inf}
- {id: mail, request: mail, priority: 50}
- {id: report, request: report}
- {id: tidy, request: tidy}
edges:
- {source: fetch, target: merge}
- {source: merge, target: mail, when: condition, condition: {at: /rows, is: gt, value: 0}}
- {source: merge, target: report, when: failure}
- {source: mail, target: tidy, when: end}
"""


@pytest.mark.parametrize(
    ("suffix", "form"), [(".json", "ours"), (".yaml", "ours"), (".toml", "ours"), (".json", "original")]
)
async def test_our_graph_runs_and_continues_from_its_file(
    tmp_path: Path, autojump_clock: MockClock, suffix: str, form: Literal["ours", "original"]
) -> None:
    path = tmp_path / f"plan{suffix}"
    write_graph(path, read_graph(OURS), format=form)
    async with open_tasks() as tasks:
        async with open_graph(tasks.constellation, read_graph(path)) as run:
            await tasks.fail("fetch")
            await tasks.complete("fetch")
            await tasks.wait_running("merge")
            snapshot = run.snapshot()
        write_graph(path, snapshot, format=form)
        # The next program finds a node that ran, and repeats it.
        async with open_graph(tasks.constellation, read_graph(path)) as run:
            assert run.states["merge"] is NodeState.LOST
            run.retry("merge")
            await tasks.complete("merge", result={"rows": 3})
            await tasks.complete("mail", "tidy")
            result = await run.wait()
            end = run.snapshot()
    assert result.state is GraphState.COMPLETED
    assert result.results["report"].state is NodeState.SKIPPED
    write_graph(path, end, format=form)
    again = read_graph(path)
    assert again.graph == end.graph
    assert again.nodes == end.nodes
    assert again.node("fetch").attempt == 2
    async with open_tasks() as tasks, open_graph(tasks.constellation, again) as run:
        assert (await run.wait()).state is GraphState.COMPLETED
        assert tasks.started == []


async def test_sample_of_the_original_continues_where_it_was_written(autojump_clock: MockClock) -> None:
    snapshot = read_graph(_for_any_device("original.json"))
    async with open_tasks() as tasks, open_graph(tasks.constellation, snapshot) as run:
        # What ran is lost, and its dependant runs after any end, as there.
        await tasks.wait_running("Publish the chart on the intranet")
        await tasks.complete("Publish the chart on the intranet")
        result = await run.wait()
        document = graph_document(run.snapshot(), format="original")
    assert {node_id: node.state.value for node_id, node in result.results.items()} == {
        "collect": "completed",
        "chart": "lost",
        "publish": "completed",
        "alert": "skipped",
    }
    written = cast("dict[str, dict[str, dict[str, JSON]]]", document)
    assert {task_id: task["status"] for task_id, task in written["tasks"].items()} == {
        "collect": "completed",
        "chart": "failed",
        "publish": "completed",
        "alert": "cancelled",
    }
    assert document["state"] == "partially_failed"
    assert read_graph(document).nodes == result.results


async def test_sample_of_the_original_runs_from_its_beginning_after_a_reset(autojump_clock: MockClock) -> None:
    snapshot = read_graph(_for_any_device("original.json"), reset=True)
    async with open_tasks() as tasks, open_graph(tasks.constellation, snapshot) as run:
        await tasks.complete("Collect the numbers of the quarter from the log files", result={"rows": 0})
        await tasks.fail("Draw a chart of the numbers in Excel")
        await tasks.complete("Publish the chart on the intranet", "Tell the team that there are no numbers")
        assert (await run.wait()).state is GraphState.PARTIALLY_FAILED


async def test_sample_of_the_original_s_model_runs_with_the_function_of_its_condition(
    autojump_clock: MockClock,
) -> None:
    seen: list[JSON] = []

    def is_enough(result: JSON) -> bool:
        seen.append(result)
        return False

    snapshot = read_graph(_for_any_device("original_of_its_model.json"), conditions={"line_001": is_enough})
    async with open_tasks() as tasks, open_graph(tasks.constellation, snapshot) as run:
        await tasks.complete("Copy the photos of this summer to the desktop")
        await tasks.complete("Sort the photos by place", result=9)
        await tasks.complete("Write that there will be no prints")
        result = await run.wait()
    assert seen == [9]
    assert result.results["task_003"].state is NodeState.SKIPPED
    assert result.state is GraphState.COMPLETED


async def test_name_and_metadata_survive_a_run_and_its_edits(autojump_clock: MockClock) -> None:
    document: dict[str, JSON] = {"nodes": [], "name": "n", "metadata": {"k": 1}}
    async with open_tasks() as tasks, open_graph(tasks.constellation, read_graph(document)) as run:
        run.edit(lambda edit: edit.add(Node("a", "x")))
        await tasks.complete("x")
        graph = run.snapshot().graph
    assert (graph.name, graph.metadata) == ("n", {"k": 1})
