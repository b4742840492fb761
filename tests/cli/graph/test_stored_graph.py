"""A graph in the daemon is followed through outages, and strange answers are one sentence."""

from __future__ import annotations

import json
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import pytest
import trio

import galaxy_trio._cli.async_daemon_client
from galaxy_trio import ConnectFailed, InvalidMessage, RequestRejected
from galaxy_trio._cli.async_daemon_client import open_async_client
from galaxy_trio._cli.daemon_refused import DaemonRefused
from galaxy_trio._cli.graph import outage
from galaxy_trio._cli.graph.loaded_graph import parse_graph
from galaxy_trio._cli.graph.outage import Outage
from galaxy_trio._cli.graph.stored_graph import StoredGraph, load_graph
from galaxy_trio.graph import GraphEdited, GraphEnded, GraphSnapshot, GraphState, NodeEnded, NodeState
from tests.cli.support.hostile import Answer, FakeDaemon, open_fake_daemon
from tests.support.waiting import SECONDS

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    from trio.testing import MockClock

    from galaxy_trio.messages import JSON

pytestmark = pytest.mark.daemon

ID = "0123456789abcdef0123456789abcdef"
PATH = f"/graphs/{ID}"
DOCUMENT: dict[str, JSON] = {"nodes": [{"id": "a", "request": "a", "device": "d1"}, {"id": "b", "request": "b"}]}
RECORD: dict[str, JSON] = {"id": ID, "state": "running", "created": "2026-01-01T00:00:00+00:00", "version": 0}
RUNNING: dict[str, JSON] = {**RECORD, "graph": DOCUMENT}
RESULTS: dict[str, JSON] = {"a": {"state": "completed", "result": 5}, "b": {"state": "completed"}}
COMPLETED: dict[str, JSON] = {**RECORD, "state": "completed", "graph": {**DOCUMENT, "results": RESULTS}}
DEVICES = Answer({"devices": [{"device_id": "d1", "status": "disconnected", "problem": "no way", "next_try": None}]})


class Script(dict[str, Answer]):
    """Answers by path; the next one each time, and the last one from then on."""

    def __init__(self, **answers: list[Answer]) -> None:
        super().__init__()
        names = {"graph": PATH, "events": "/events", "devices": "/devices"}
        self._answers = {names[name]: given for name, given in answers.items()}

    def get(self, path: str, default: Any = None) -> Any:  # Any: as that of dict
        """The next answer."""
        answers = self._answers.get(path, [DEVICES] if path == "/devices" else [default])
        return answers.pop(0) if len(answers) > 1 else answers[0]


def stream(*events: tuple[str, object], begin: int = 1) -> Answer:
    """Events with ids, after which the daemon closes the connection. A reset has none."""
    blocks = [
        ("" if kind == "reset" else f"id: {number}\n") + f"event: {kind}\ndata: {json.dumps(data)}\n\n"
        for number, (kind, data) in enumerate(events, begin)
    ]
    return Answer("".join(blocks).encode(), headers=("Content-Type: text/event-stream",))


def change(state: str = "running", **changed: str) -> tuple[str, object]:
    return "graph", {"id": ID, "state": state, "version": 0, "changed": changed, "more_changed": 0}


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Connect again soon."""
    monkeypatch.setattr(outage, "_FIRST_PAUSE", 0.01)


@asynccontextmanager
async def open_graph_of(**answers: list[Answer]) -> AsyncGenerator[tuple[StoredGraph, FakeDaemon]]:
    """Load a graph of a daemon with prepared answers."""
    with trio.fail_after(SECONDS):
        async with open_fake_daemon(Script(**answers)) as fake, open_async_client(fake.url, "secret") as client:
            yield await load_graph(client, PATH), fake


async def followed(graph: StoredGraph) -> list[object]:
    """Follow a graph to its end, and return what was reported."""
    events: list[object] = []

    async def handle(event: object) -> None:
        await trio.lowlevel.checkpoint()
        events.append(event)

    await graph.follow(handle)
    first, *others = events
    assert isinstance(first, GraphSnapshot)
    return others


END = [NodeEnded("a", NodeState.COMPLETED), NodeEnded("b", NodeState.COMPLETED), GraphEnded(GraphState.COMPLETED)]


async def test_stream_that_is_cut_is_resumed_after_its_last_event(capsys: pytest.CaptureFixture[str]) -> None:
    first = stream(("task", {"graph": "another"}), change(a="completed"), ("news", {}), begin=5)
    async with open_graph_of(
        graph=[Answer(RUNNING)], events=[first, stream(change("completed", b="completed"), begin=8)]
    ) as (graph, fake):
        assert await followed(graph) == END
        assert list(graph.absences()) == ["d1 is disconnected: no way"]
        resumed = [head.lower() for head in fake.requests if "/events" in head]
        assert ["last-event-id: 7" in head for head in resumed] == [False, True]
        assert all("authorization: bearer secret" in head.lower() for head in fake.requests)
        # It was loaded before the stream was opened and after that, and not again.
        assert sum(f"GET {PATH} " in head for head in fake.requests) == 2
    assert capsys.readouterr().err.splitlines() == [
        f"the daemon at {fake.url} is away (trying again for 5 min)",
        f"the daemon at {fake.url} is back",
    ]


@pytest.mark.parametrize("events", [[stream()], [stream(("reset", {}))]], ids=["without an id", "reset"])
async def test_graph_is_loaded_again_if_events_are_missing(events: list[Answer]) -> None:
    answers = [Answer(RUNNING), Answer(RUNNING), Answer(COMPLETED)]
    async with open_graph_of(graph=answers, events=events) as (graph, _):
        assert await followed(graph) == END


async def test_event_with_another_version_loads_the_graph_again() -> None:
    event: dict[str, JSON] = {"id": ID, "state": "running", "version": 1, "changed": {}}
    edited: dict[str, JSON] = {**RUNNING, "graph": {**DOCUMENT, "version": 1}}
    ended: dict[str, JSON] = {**COMPLETED, "graph": {**DOCUMENT, "version": 1, "results": RESULTS}}
    answers = [Answer(found) for found in (RUNNING, RUNNING, edited, ended)]
    async with open_graph_of(graph=answers, events=[stream(("graph", event), change("completed"))]) as (graph, _):
        assert await followed(graph) == [GraphEdited(1, [], [], []), *END]


@pytest.mark.parametrize("status", ["502 Bad Gateway", "503 Service Unavailable", "504 Gateway Timeout"])
async def test_daemon_that_starts_is_asked_again(status: str, capsys: pytest.CaptureFixture[str]) -> None:
    starting = Answer({"error": "the daemon is starting"}, status)
    answers = [starting, starting, stream(change("completed", a="completed", b="completed"))]
    async with open_graph_of(graph=[Answer(RUNNING)], events=answers) as (graph, _):
        assert await followed(graph) == END
    assert capsys.readouterr().err.count("is away") == 1


async def test_silent_connection_is_opened_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(galaxy_trio._cli.async_daemon_client, "_RESPONSE_TIMEOUT", 0.5)
    silent = Answer(b"", headers=("Content-Length: 9",))
    answers = [silent, stream(change("completed", a="completed", b="completed"))]
    async with open_graph_of(graph=[Answer(RUNNING)], events=answers) as (graph, _):
        assert await followed(graph) == END


async def test_refusal_ends_following_immediately() -> None:
    for answers in (
        {"graph": [Answer(RUNNING)], "events": [Answer({"error": "the token is wrong"}, "401 Unauthorized")]},
        {"graph": [Answer(RUNNING), Answer({"error": "there is no graph 'x'"}, "404 Not Found")], "events": [stream()]},
    ):
        async with open_graph_of(**answers) as (graph, _):
            with pytest.raises(DaemonRefused, match="the daemon refused: the"):
                await followed(graph)


@pytest.mark.parametrize(
    "event",
    [
        ("task", 5),
        ("graph", [1]),
        ("graph", {"id": ID, "version": 0, "changed": {"a": "unheard of"}}),
        ("graph", {"id": ID, "version": 0, "changed": {}, "state": "unheard of"}),
        ("device", "x"),
    ],
)
async def test_event_that_cannot_be_read_is_one_sentence(event: tuple[str, object]) -> None:
    async with open_graph_of(graph=[Answer(RUNNING)], events=[stream(event)]) as (graph, _):
        with pytest.raises(InvalidMessage, match=r"^the daemon sent an event that cannot be read$"):
            await followed(graph)


async def test_devices_that_cannot_be_read_are_one_sentence() -> None:
    async with open_graph_of(graph=[Answer(RUNNING)], events=[stream(change())], devices=[Answer({"devices": 5})]) as (
        graph,
        _,
    ):
        with pytest.raises(InvalidMessage, match="a list of devices that cannot be read"):
            await followed(graph)


@pytest.mark.parametrize(
    "found",
    [RECORD, {**RECORD, "graph": 5}, {**RECORD, "graph": {"nodes": 5}}, {**RUNNING, "state": "unheard of"}],
    ids=["no graph", "a number", "no nodes", "a state"],
)
def test_graph_that_cannot_be_read_is_one_sentence(found: dict[str, JSON]) -> None:
    with pytest.raises(InvalidMessage, match=r"^the daemon sent a graph that cannot be read: "):
        parse_graph(found)


@pytest.mark.parametrize("found", [{}, [RUNNING], {**RUNNING, "id": 5}, {"graphs": 5}])
async def test_answer_that_is_no_graph_is_no_daemons(found: JSON) -> None:
    async with open_fake_daemon({PATH: Answer(found)}) as fake, open_async_client(fake.url, None) as client:
        with pytest.raises(RequestRejected, match="is not a galaxy-trio daemon"):
            await load_graph(client, PATH)


async def test_end_has_the_results_unless_they_are_too_large_together(capsys: pytest.CaptureFixture[str]) -> None:
    results = COMPLETED["graph"]
    async with open_graph_of(graph=[Answer(RUNNING), Answer(COMPLETED), Answer(results)]) as (graph, fake):
        end = await graph.load_end()
        assert (end.state, end.snapshot.node("a").result) == (GraphState.COMPLETED, 5)
        assert "?format=ours" in fake.requests[-1]
    without = {
        **COMPLETED,
        "graph": {**DOCUMENT, "results": {"a": {"state": "completed"}, "b": {"state": "completed"}}},
    }
    too_large = Answer({"error": "the results have 5,000,000 bytes"}, "413 Content Too Large")
    async with open_graph_of(graph=[Answer(RUNNING), Answer(without), too_large]) as (graph, _):
        assert (await graph.load_end()).snapshot.node("a").result is None
    assert "galaxy-trio task show prints the result of a task" in capsys.readouterr().err
    refused = Answer({"error": "no"}, "400 Bad Request")
    async with open_graph_of(graph=[Answer(RUNNING), Answer(COMPLETED), refused]) as (graph, _):
        with pytest.raises(DaemonRefused, match="refused: no"):
            await graph.load_end()


async def test_daemon_that_stays_away_is_given_up_with_how_to_go_on(
    autojump_clock: MockClock, capsys: pytest.CaptureFixture[str]
) -> None:
    attempts: list[float] = []

    async def attempt() -> None:
        attempts.append(trio.current_time())
        await trio.lowlevel.checkpoint()
        raise ConnectFailed("no way")

    with pytest.raises(ConnectFailed, match=f"^no way; .*: galaxy-trio graph show {ID} --wait follows it$"):
        await Outage("http://h", ID).persist(attempt)
    assert 300 <= attempts[-1] - attempts[0] <= 310
    assert 60 <= len(attempts) <= 80
    assert capsys.readouterr().err == "the daemon at http://h is away (trying again for 5 min)\n"
