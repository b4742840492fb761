"""A graph in the daemon is followed through outages, and strange answers are one sentence."""

from __future__ import annotations

import gzip
import json
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import httpx2
import pytest
import trio

import galaxy_trio._cli.async_daemon_client
from galaxy_trio import ConnectFailed, InvalidMessage, RequestRejected, RequestTimeout
from galaxy_trio._cli.async_daemon_client import open_async_client
from galaxy_trio._cli.daemon_reading import MAX_LINE
from galaxy_trio._cli.daemon_refused import DaemonRefused
from galaxy_trio._cli.graph import outage
from galaxy_trio._cli.graph.outage import Outage
from galaxy_trio._cli.graph.stored_graph import StoredGraph, load_graph
from galaxy_trio._cli.loaded_graph import parse_graph
from galaxy_trio.graph import GraphEdited, GraphEnded, GraphSnapshot, GraphState, NodeEnded, NodeState
from tests.cli.support.hostile import ID, Answer, FakeDaemon, open_fake_daemon
from tests.support.waiting import SECONDS

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable
    from pathlib import Path

    from trio.testing import MockClock

    from galaxy_trio.messages import JSON

pytestmark = pytest.mark.daemon

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
            yield await load_graph(client, ID), fake


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


def serve_in_memory(monkeypatch: pytest.MonkeyPatch, answer: Callable[[httpx2.Request], httpx2.Response]) -> None:
    """Answer requests without sockets, on trio's clock."""

    async def respond(request: httpx2.Request) -> httpx2.Response:
        await trio.lowlevel.checkpoint()
        return answer(request)

    def make(uds: str | None) -> httpx2.MockTransport:
        return httpx2.MockTransport(respond)

    monkeypatch.setattr(httpx2, "AsyncHTTPTransport", make)


async def test_answer_that_arrives_byte_by_byte_is_given_up(
    monkeypatch: pytest.MonkeyPatch, autojump_clock: MockClock
) -> None:
    async def endless() -> AsyncGenerator[bytes]:
        while True:
            yield b" "
            await trio.sleep(20)

    serve_in_memory(monkeypatch, lambda _: httpx2.Response(200, content=endless()))
    began = trio.current_time()
    async with open_async_client("http://h", None) as client:
        with pytest.raises(RequestTimeout, match=r"^the daemon at http://h did not respond in time$"):
            await load_graph(client, ID)
    assert trio.current_time() - began == 120


async def test_answer_without_end_is_given_up_at_a_limit_and_nothing_may_be_compressed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(galaxy_trio._cli.async_daemon_client, "MAX_BODY", 1_000)
    async with open_fake_daemon(Script(graph=[Answer(b" " * 1_001)])) as fake:
        async with open_async_client(fake.url, None) as client:
            with pytest.raises(
                InvalidMessage, match=f"^the daemon at {fake.url} sent an answer of more than 1,000 bytes$"
            ):
                await load_graph(client, ID)
        [head] = fake.requests
        assert "\r\naccept-encoding: identity\r\n" in head.lower()


async def test_compressed_answer_is_not_expanded() -> None:
    body = gzip.compress(json.dumps(RUNNING).encode())
    async with (
        open_fake_daemon(Script(graph=[Answer(body, headers=("Content-Encoding: gzip",))])) as fake,
        open_async_client(fake.url, None) as client,
    ):
        with pytest.raises(RequestRejected, match=r"is not a galaxy-trio daemon \(status 200\)$"):
            await load_graph(client, ID)


async def test_refusal_ends_following_immediately() -> None:
    for answers in (
        {"graph": [Answer(RUNNING)], "events": [Answer({"error": "the token is wrong"}, "401 Unauthorized")]},
        {"graph": [Answer(RUNNING), Answer({"error": "there is no graph 'x'"}, "404 Not Found")], "events": [stream()]},
    ):
        async with open_graph_of(**answers) as (graph, _):
            with pytest.raises(DaemonRefused, match="the daemon refused: the"):
                await followed(graph)


@pytest.mark.parametrize(
    ("event", "why"),
    [
        (("task", 5), "it is not an object"),
        (("task", {"graph": ID, "node": "a", "state": "queued"}), "it is not about a task"),
        (("graph", [1]), "it is not an object"),
        (change(a="unheard of"), "'unheard of' is not a valid NodeState"),
        (change(a="running"), "a node is running, which only the event of its task says"),
        (change("unheard of"), "'unheard of' is not a valid GraphState"),
        (("graph", {"id": ID, "version": 0, "changed": {"a": ["ready"]}}), "['ready'] is not a valid NodeState"),
        (("device", "x"), "it is not an object"),
    ],
)
async def test_event_that_cannot_be_read_is_one_sentence(event: tuple[str, object], why: str) -> None:
    async with open_graph_of(graph=[Answer(RUNNING)], events=[stream(event)]) as (graph, fake):
        with pytest.raises(InvalidMessage) as raised:
            await followed(graph)
    assert str(raised.value) == f"the daemon at {fake.url} sent an event {event[0]!r} that cannot be read: {why}"


@pytest.mark.parametrize("event_id", ["7\u00e9", "\u0667", "", "-1", "1" * 19, "a"])
async def test_id_of_an_event_that_is_not_a_number_is_one_sentence_and_is_not_sent_back(event_id: str) -> None:
    events = Answer(f"id: {event_id}\nevent: news\ndata: {{}}\n\n".encode())
    async with open_graph_of(graph=[Answer(RUNNING)], events=[events]) as (graph, fake):
        with pytest.raises(InvalidMessage, match=f"^the daemon at {fake.url} sent an event whose id is not a number$"):
            await followed(graph)
        assert sum("/events" in head for head in fake.requests) == 1


@pytest.mark.parametrize(
    "body", [b"x" * (MAX_LINE + 1), b"data: " + b"[" * 100_000 + b"\n\n", b"data: NaN\n\n", b"data: \xff\n\n"]
)
async def test_events_that_are_too_long_or_not_json_are_one_sentence(body: bytes) -> None:
    async with open_graph_of(graph=[Answer(RUNNING)], events=[Answer(body)]) as (graph, fake):
        with pytest.raises(
            InvalidMessage,
            match=f"^the daemon at {fake.url} sent an event (of more than 1,048,576 bytes|that is not JSON)$",
        ):
            await followed(graph)


@pytest.mark.parametrize("body", [b"", b"event: reset\ndata: {}\n\n"], ids=["nothing", "reset"])
async def test_streams_that_are_opened_and_end_immediately_are_given_up_like_a_daemon_that_is_away(
    body: bytes,
    monkeypatch: pytest.MonkeyPatch,
    autojump_clock: MockClock,
    capsys: pytest.CaptureFixture[str],
) -> None:
    opened: list[float] = []

    def answer(request: httpx2.Request) -> httpx2.Response:
        if request.url.path == "/events":
            opened.append(trio.current_time())
            assert len(opened) <= 80
            return httpx2.Response(200, content=pieces(body))
        return httpx2.Response(
            200, content=pieces(json.dumps(RUNNING if request.url.path == PATH else DEVICES.body).encode())
        )

    async def pieces(data: bytes) -> AsyncGenerator[bytes]:
        await trio.lowlevel.checkpoint()
        yield data

    serve_in_memory(monkeypatch, answer)
    async with open_async_client("http://h", None) as client:
        graph = await load_graph(client, ID)
        with pytest.raises(ConnectFailed, match=f"closed the connection; .*: galaxy-trio graph show {ID} --wait"):
            await followed(graph)
    assert 300 <= opened[-1] - opened[0] <= 310
    assert len(opened) >= 60
    assert capsys.readouterr().err == "the daemon at http://h is away (trying again for 5 min)\n"


async def test_comment_of_a_silent_stream_shows_that_the_daemon_is_back(capsys: pytest.CaptureFixture[str]) -> None:
    last = stream(change("completed", a="completed", b="completed"))
    events = [stream(), Answer(b": keepalive\n\n"), last]
    async with open_graph_of(graph=[Answer(RUNNING)], events=events) as (graph, fake):
        assert await followed(graph) == END
    away, back = f"the daemon at {fake.url} is away (trying again for 5 min)", f"the daemon at {fake.url} is back"
    assert capsys.readouterr().err.splitlines() == [away, back, away, back]


async def test_proxy_that_answers_for_a_daemon_that_is_away_is_asked_again() -> None:
    proxy = Answer(b"<html>Bad Gateway</html>", "502 Bad Gateway")
    answers = [proxy, stream(change("completed", a="completed", b="completed"))]
    async with open_graph_of(graph=[Answer(RUNNING)], events=answers) as (graph, _):
        assert await followed(graph) == END


async def test_devices_that_cannot_be_read_are_one_sentence() -> None:
    async with open_graph_of(graph=[Answer(RUNNING)], events=[stream(change())], devices=[Answer({"devices": 5})]) as (
        graph,
        _,
    ):
        with pytest.raises(InvalidMessage, match="a list of devices that cannot be read"):
            await followed(graph)


@pytest.mark.parametrize(
    "found",
    [
        RECORD,
        {**RECORD, "graph": 5},
        {**RECORD, "graph": "{}"},
        {**RECORD, "graph": {"nodes": 5}},
        {**RUNNING, "state": "unheard of"},
        {**RECORD, "graph": {**DOCUMENT, "results": {"a": {"state": "ready", "task_id": "; rm"}}}},
    ],
    ids=["no graph", "a number", "a text", "no nodes", "a state", "the id of a task"],
)
def test_graph_that_cannot_be_read_is_one_sentence(found: dict[str, JSON]) -> None:
    with pytest.raises(InvalidMessage, match=r"^the daemon at http://h sent a graph that cannot be read: "):
        parse_graph(found, "http://h")


def test_text_as_a_graph_names_no_file(tmp_path: Path) -> None:
    file = tmp_path / "plan.json"
    file.write_text(json.dumps(DOCUMENT))
    with pytest.raises(InvalidMessage, match=r"cannot be read: it is not an object$"):
        parse_graph({**RECORD, "graph": str(file)}, "http://h")


@pytest.mark.parametrize("found", [{}, [RUNNING], {**RUNNING, "id": 5}, {**RUNNING, "id": ID[::-1]}, {"graphs": 5}])
async def test_answer_that_is_no_graph_is_no_daemons(found: JSON) -> None:
    async with open_fake_daemon({PATH: Answer(found)}) as fake, open_async_client(fake.url, None) as client:
        with pytest.raises(RequestRejected, match="is not a galaxy-trio daemon"):
            await load_graph(client, ID)


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
