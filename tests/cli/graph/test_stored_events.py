"""What the daemon's events mean for a graph: each change is reported once, whatever is loaded in between."""

from __future__ import annotations

import random
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import attrs
import pytest
import trio

from galaxy_trio._cli.graph.output import line_of
from galaxy_trio._cli.graph.progress import GraphProgress
from galaxy_trio._cli.graph.stored_devices import StoredDevices
from galaxy_trio._cli.graph.stored_events import Dated, NodeRetriedWithin, StoredNodes
from galaxy_trio.events import DeviceConnected, DeviceDisconnected, DeviceFailed, DeviceNeedsAttention
from galaxy_trio.graph import (
    Condition,
    Edge,
    Graph,
    GraphEdited,
    GraphEnded,
    GraphSnapshot,
    GraphState,
    Node,
    NodeEnded,
    NodeReady,
    NodeResult,
    NodeSkipped,
    NodeStarted,
    NodeState,
    NodeWaiting,
    When,
    read_graph,
)
from tests.constellation.support.fleet import Work
from tests.daemon.support.daemon import RunningDaemon, open_daemon
from tests.daemon.support.listener import listen
from tests.support.memory import traced_memory

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from galaxy_trio.messages import JSON
    from galaxy_trio.server import ServerTask

BEGAN = datetime(2026, 1, 1, tzinfo=UTC)
ENDED = BEGAN + timedelta(seconds=9)
GRAPH = Graph(
    [Node("a", "a", retries=1, backoff=4), Node("b", "b"), Node("c", "c"), Node("d", "d"), Node("e", "e")],
    [
        Edge("a", "b", id="ab"),
        Edge("a", "c", When.FAILURE, id="ac"),
        Edge("b", "d", When.CONDITION, condition=Condition("", "exists"), id="bd"),
        Edge("c", "e", When.END, id="ce"),
        Edge("d", "e", When.END, id="de"),
    ],
)


def task(node_id: str, task_id: str, state: str, **more: JSON) -> dict[str, JSON]:
    """An event of a task."""
    return {
        "id": task_id,
        "node": node_id,
        "state": state,
        "device": "d1",
        "started": BEGAN.isoformat(),
        "ended": ENDED.isoformat(),
        "error": None,
        **more,
    }


def graph(state: str = "running", version: int = 0, **changed: str) -> dict[str, JSON]:
    """An event of a graph."""
    return {"state": state, "version": version, "changed": dict(changed), "more_changed": 0}


def events_of(dated: Iterable[Dated] | None) -> list[object]:
    assert dated is not None
    return [one.event for one in dated]


def running(node_id: str = "a", task_id: str = "1") -> StoredNodes:
    """A graph one of whose nodes runs."""
    nodes = StoredNodes(GraphSnapshot(GRAPH, nodes={node_id: NodeResult(NodeState.READY, task_id=task_id)}))
    assert events_of(nodes.follow_task(task(node_id, task_id, "running"))) == [NodeStarted(node_id, 1, task_id, "d1")]
    return nodes


def test_attempt_starts_and_ends_when_its_task_does() -> None:
    nodes = running()
    assert events_of(nodes.follow_task(task("a", "1", "completed"))) == []
    ended, ready = list(nodes.follow_graph(graph(a="completed", b="ready", c="skipped")) or ())[:2]
    assert (ended.event, ended.time) == (NodeEnded("a", NodeState.COMPLETED), ENDED)
    assert ready.event == NodeReady("b")


def test_node_is_skipped_because_of_the_edge_that_does_not_hold() -> None:
    nodes = running()
    assert events_of(nodes.follow_graph(graph(c="skipped", e="waiting", a="completed"))) == [
        NodeEnded("a", NodeState.COMPLETED),
        NodeSkipped("c", "ac"),
    ]
    # Only the daemon knows whether the condition was met.
    assert events_of(nodes.follow_graph(graph(b="completed", d="skipped")))[1:] == [NodeSkipped("d", "bd")]
    nodes = running()
    assert events_of(nodes.follow_graph(graph(a="failed", b="skipped", d="skipped", c="ready")))[2:] == [
        NodeSkipped("b", "ab"),
        NodeSkipped("d", "bd"),
    ]
    # A later version may skip nodes for other reasons.
    assert events_of(nodes.follow_graph(graph(e="skipped"))) == [NodeSkipped("e", "")]


def test_failed_attempt_is_repeated_as_often_as_the_node_says() -> None:
    nodes = running()
    failed = task("a", "1", "failed", error="no paper")
    assert events_of(nodes.follow_task(failed)) == [NodeRetriedWithin("a", 1, "no paper", 4)]
    assert events_of(nodes.follow_task(failed)) == []
    assert events_of(nodes.follow_graph(graph())) == []
    assert events_of(nodes.follow_task(task("a", "2", "running"))) == []
    assert events_of(nodes.follow_task(task("a", "2", "queued"))) == []
    assert events_of(nodes.follow_task(task("a", "2", "running"))) == [NodeStarted("a", 2, "2", "d1")]
    assert events_of(nodes.follow_task(task("a", "2", "failed", error="no ink"))) == []
    assert events_of(nodes.follow_graph(graph(a="failed"))) == [NodeEnded("a", NodeState.FAILED, "no ink")]


@pytest.mark.parametrize(("retry_lost", "is_repeated"), [(True, True), (False, False)])
def test_lost_attempt_is_repeated_only_if_the_node_says_so(*, retry_lost: bool, is_repeated: bool) -> None:
    one = Graph([Node("a", "a", retries=1, retry_lost=retry_lost)])
    nodes = StoredNodes(GraphSnapshot(one, nodes={"a": NodeResult(NodeState.READY, task_id="1")}))
    list(nodes.follow_task(task("a", "1", "running")))
    assert bool(events_of(nodes.follow_task(task("a", "1", "lost")))) is is_repeated


def test_task_whose_device_had_left_starts_again_with_the_same_number() -> None:
    nodes = running()
    assert events_of(nodes.follow_task(task("a", "1", "queued"))) == [NodeReady("a")]
    assert events_of(nodes.follow_task(task("a", "1", "running"))) == [NodeStarted("a", 1, "1", "d1")]
    # One of an earlier attempt comes late.
    assert events_of(nodes.follow_task(task("a", "0", "queued"))) == []


def test_what_was_loaded_already_is_not_reported_again() -> None:
    done = NodeResult(NodeState.COMPLETED, 1, task_id="1", device_id="d1", started=BEGAN, ended=ENDED)
    nodes = StoredNodes(GraphSnapshot(GRAPH, nodes={"a": done}))
    for state in ("queued", "running", "completed"):
        assert events_of(nodes.follow_task(task("a", "1", state))) == []
    assert events_of(nodes.follow_graph(graph(a="completed"))) == []
    assert events_of(nodes.follow_task(task("a node that was removed", "7", "running"))) == []


def test_end_of_the_graph_is_the_last_event() -> None:
    assert events_of(running().follow_graph(graph("cancelled", a="cancelled", b="waiting"))) == [
        NodeEnded("a", NodeState.CANCELLED),
        GraphEnded(GraphState.CANCELLED),
    ]


@pytest.mark.parametrize(
    "event",
    [graph(version=1), {**graph(), "more_changed": 3}, graph(unknown="ready"), {**graph(), "changed": None}],
    ids=["edited", "too many nodes", "a new node", "another version"],
)
def test_event_that_does_not_say_everything_requires_loading(event: dict[str, JSON]) -> None:
    assert running().follow_graph(event) is None


def test_loading_reports_what_has_changed() -> None:
    nodes = running()
    edited = Graph(
        [attrs.evolve(node, name="new") if node.id == "d" else node for node in GRAPH.nodes if node.id != "e"]
        + [Node("f", "f")],
        [edge for edge in GRAPH.edges if edge.target != "e"],
    )
    states = {
        "a": NodeResult(NodeState.COMPLETED, 2, None, None, "2", "d2", BEGAN, ENDED),
        "b": NodeResult(NodeState.RUNNING, 1, None, None, "3", "d1", BEGAN),
        "c": NodeResult(NodeState.SKIPPED),
        "d": NodeResult(NodeState.CANCELLED, error="it was cancelled"),
        "f": NodeResult(NodeState.COMPLETED, 1, None, None, "4", "d1", BEGAN, ENDED),
    }
    loaded = list(nodes.load(GraphSnapshot(edited, 1, states, {"ac": False})))
    assert [one.event for one in loaded] == [
        GraphEdited(1, ["f"], ["d"], ["e"]),
        NodeStarted("a", 2, "2", "d2"),
        NodeEnded("a", NodeState.COMPLETED),
        NodeStarted("b", 1, "3", "d1"),
        NodeSkipped("c", "ac"),
        NodeEnded("d", NodeState.CANCELLED, "it was cancelled"),
        NodeStarted("f", 1, "4", "d1"),
        NodeEnded("f", NodeState.COMPLETED),
    ]
    assert [one.time for one in loaded[1:4]] == [BEGAN, ENDED, BEGAN]
    again = GraphSnapshot(edited, 1, {**states, "d": NodeResult(NodeState.WAITING)}, {"ac": False})
    assert events_of(nodes.load(again)) == [NodeWaiting("d")]
    assert events_of(nodes.load(again)) == []


def test_retry_has_a_line_with_the_longest_wait() -> None:
    progress = GraphProgress(GraphSnapshot(GRAPH))

    async def follow() -> str | None:
        progress.apply(NodeStarted("a", 1, "1", "d1"), progress_source, trio.current_time() - 7)
        event = NodeRetriedWithin("a", 1, None, 4)
        return line_of(event, progress.apply(event, progress_source), progress)

    progress_source = StoredSource()
    assert trio.run(follow) == "a failed on d1 after 7 s: no reason was given (retry within 4 s)"
    assert progress.nodes["a"].next_try is None


class StoredSource:
    def snapshot(self) -> GraphSnapshot:
        raise AssertionError("no event requires it")


DEVICE: dict[str, JSON] = {"device_id": "d1", "status": "disconnected", "problem": "HTTP 403", "next_try": None}


@pytest.mark.parametrize(
    ("what", "event"),
    [
        ("connected", DeviceConnected("d1")),
        ("disconnected", DeviceDisconnected("d1", "HTTP 403", None)),
        ("failed", DeviceFailed("d1", "HTTP 403")),
        ("needs attention", DeviceNeedsAttention("d1", "HTTP 403")),
        ("information", None),
    ],
)
def test_event_of_a_device_that_a_node_names_is_reported(what: str, event: object) -> None:
    devices = StoredDevices()
    devices.named = {"d1"}
    assert devices.follow({**DEVICE, "what": what}) == event
    assert devices.follow({**DEVICE, "what": what, "device_id": "d2"}) is None


def test_devices_that_nodes_name_are_absent_until_they_are_connected() -> None:
    devices = StoredDevices()
    devices.named = {"d1", "d2"}
    devices.load([DEVICE, {**DEVICE, "device_id": "d2", "problem": None}, {**DEVICE, "device_id": "d3"}])
    assert list(devices.absences()) == ["d1 is disconnected: HTTP 403"]
    devices.follow({**DEVICE, "what": "disconnected", "next_try": "2020-01-01T00:00:00+00:00"})
    assert list(devices.absences()) == ["d1 is disconnected: HTTP 403 (retry in 0 s)"]
    devices.follow({**DEVICE, "what": "connected", "status": "idle"})
    assert list(devices.absences()) == []


def test_long_reasons_of_a_daemon_do_not_stay_in_memory() -> None:
    nodes, devices = running(), StoredDevices()
    devices.named = {f"d{number}" for number in range(20)}
    with traced_memory() as memory:
        for device_id in devices.named:
            assert devices.follow({**DEVICE, "device_id": device_id, "what": "failed", "problem": device_id * 2**20})
        assert events_of(nodes.follow_task(task("a", "1", "failed", error="ab" * 2**22)))
        assert memory.now < 2**20
    assert len(list(devices.absences())) == 20


class AnyWork(Work):
    """Does what the request of a node says, also if the results of other nodes follow it."""

    async def __call__(self, task: ServerTask) -> object:
        request = task.request.partition("\n")[0].removeprefix("Task Description: ")
        if request == "fail sometimes" and len(self.begun) % 2:
            self.begun.append(request)
            raise RuntimeError("no paper")
        return await super().__call__(task)


@pytest.mark.daemon
@pytest.mark.parametrize("seed", range(6))
async def test_states_are_those_of_the_daemon_whatever_happens(tmp_path: Path, seed: int) -> None:
    choices = random.Random(seed)
    names = [str(number) for number in range(10)]
    nodes: list[JSON] = [
        {"id": name, "request": choices.choice(["echo", "fail sometimes"]), "retries": choices.randrange(3), "backoff": 0.01}
        for name in names
    ]  # fmt: skip
    edges: list[JSON] = [
        {"source": source, "target": target, "when": choices.choice(["success", "failure", "end"])}
        for target in names
        for source in names[: int(target)]
        if choices.random() < 0.2
    ]
    gate: list[JSON] = [{"id": "gate", "request": "hold gate"}]
    edges.extend({"source": "gate", "target": name} for name in names)
    async with open_daemon(tmp_path, "d1", "d2", work=AnyWork()) as daemon, listen(daemon) as listener:
        document: dict[str, JSON] = {"nodes": [*gate, *nodes], "edges": edges}
        graph_id = str((await daemon.ask("POST", "/graphs", 202, json=document))["id"])
        stored = StoredNodes(await loaded(daemon, graph_id))
        progress = GraphProgress(stored.snapshot)
        daemon.work.release("gate")
        while True:
            kind, data = await listener.next()
            dated: Iterable[Dated] | None = ()
            if kind == "task" and data["graph"] == graph_id:
                dated = stored.follow_task(data)
            elif kind == "graph":
                dated = stored.follow_graph(data)
                if seed % 3 == 1 and choices.random() < 0.3:
                    await daemon.ask("POST", f"/graphs/{graph_id}/nodes/{choices.choice(names)}/cancel")
            if dated is None or (seed % 3 == 2 and choices.random() < 0.1):
                dated = [*(dated or ()), *stored.load(await loaded(daemon, graph_id))]
            events = [one.event for one in dated]
            for event in events:
                progress.apply(event, stored_source(stored))
            if GraphEnded in map(type, events) or (kind == "graph" and data["state"] != "running"):
                break
        final = await loaded(daemon, graph_id)
    assert {name: node.state for name, node in progress.nodes.items()} == {
        name: final.node(name).state for name in progress.nodes
    }
    if seed % 3 != 2:
        attempts = {name: node.attempt for name, node in progress.nodes.items()}
        assert attempts == {name: final.node(name).attempt for name in progress.nodes}


def stored_source(stored: StoredNodes) -> Any:  # Any: what has a snapshot
    @attrs.frozen
    class Source:
        def snapshot(self) -> GraphSnapshot:
            return stored.snapshot

    return Source()


async def loaded(daemon: RunningDaemon, graph_id: str) -> GraphSnapshot:
    return read_graph((await daemon.ask("GET", f"/graphs/{graph_id}"))["graph"])
