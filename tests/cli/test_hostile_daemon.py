"""Answers that no daemon gives, to the commands that ask once or several times: each is one sentence, and fills no memory."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, Final

import attrs
import pytest
import trio

import galaxy_trio._cli.daemon_client
import galaxy_trio._cli.task_end
from galaxy_trio import InvalidMessage, RequestRejected, RequestTimeout, TaskFailed
from galaxy_trio._cli.daemon_client import open_client
from galaxy_trio._cli.task_end import print_end, wait_for_end
from tests.cli.support.command_line import Outcome, call_process, is_one_sentence
from tests.cli.support.hostile import ID, Answer, open_fake_daemon
from tests.support.waiting import SECONDS

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from galaxy_trio._cli.daemon_client import DaemonClient
    from galaxy_trio.messages import JSON

pytestmark = pytest.mark.daemon

OTHER: Final = ID[::-1]
GRAPH: Final = "f" * 32
FAILED: Final[dict[str, JSON]] = {"id": ID, "state": "failed", "request": "look", "graph": GRAPH, "node": "a"}
RECORD: Final[dict[str, JSON]] = {"id": GRAPH, "state": "running", "created": "2026-01-01T00:00:00+00:00"}


def graph_of(**result: JSON) -> Answer:
    """A graph with one node."""
    document: JSON = {"nodes": [{"id": "a", "request": "look"}], "results": {"a": result}}
    return Answer({**RECORD, "graph": document})


async def in_thread(url: str, ask: Callable[[DaemonClient], object]) -> object:
    """Use a client of the daemon at a URL."""

    def use_client() -> object:
        with open_client(url, None, 0) as client:
            return ask(client)

    with trio.fail_after(SECONDS):
        return await trio.to_thread.run_sync(use_client)


@attrs.define
class Clock:
    """The time of a command, which passes only while it sleeps."""

    now: float = 0.0
    pauses: list[float] = attrs.field(factory=list[float])

    def monotonic(self) -> float:
        """The time."""
        return self.now

    def sleep(self, seconds: float) -> None:
        """Let time pass."""
        self.pauses.append(seconds)
        self.now += seconds
        assert len(self.pauses) < 100


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    """The time of `wait_for_end`."""
    clock = Clock()
    monkeypatch.setattr(galaxy_trio._cli.task_end, "time", clock)
    return clock


async def test_refusal_with_a_status_that_is_not_registered_is_one_sentence() -> None:
    async with open_fake_daemon({"/tasks": Answer({"error": "odd"}, "520 Odd")}) as fake:
        outcome = await call_process("task", "list", "--url", fake.url)
    assert outcome == Outcome(5, "", "error: the daemon refused: odd\n")


@pytest.mark.parametrize("ask", ["request", "get_json", "events"])
async def test_answer_without_end_is_given_up_at_a_limit(ask: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(galaxy_trio._cli.daemon_client, "MAX_BODY", 1_000)
    large = Answer(b" " * 2_000, "500 Error")

    def use(client: DaemonClient) -> object:
        match ask:
            case "request":
                return client.request("GET", "/tasks")
            case "get_json":
                return client.get_json("/tasks", limit=1_000)
            case _:
                return list(client.events())

    async with open_fake_daemon({"/tasks": large, "/events": large}) as fake:
        with pytest.raises(InvalidMessage, match=f"^the daemon at {fake.url} sent an answer of more than 1,000 bytes$"):
            await in_thread(fake.url, use)
        assert "\r\naccept-encoding: identity\r\n" in fake.requests[0].lower()


@pytest.mark.parametrize("wait", [(), ("--wait",)], ids=["once", "followed"])
async def test_values_that_are_nested_deeper_than_those_of_a_daemon_are_one_sentence(wait: tuple[str, ...]) -> None:
    document = json.dumps({**RECORD, "id": ID, "graph": {"nodes": []}, "more": "DEEP"})
    statuses: list[int] = []
    for depth in (500, 560, 900, 970, 200_000):
        body = document.replace('"DEEP"', "[" * depth + "]" * depth).encode()
        answers = {f"/graphs/{ID}": Answer(body), "/events": Answer({"error": "no"}, "400 Bad Request")}
        async with open_fake_daemon(answers) as fake:
            outcome = await call_process("graph", "show", ID, "--json", *wait, "--url", fake.url)
        statuses.append(outcome.status)
        assert is_one_sentence(outcome) is bool(outcome.status)
        assert depth == 500 or "is not a galaxy-trio daemon" in outcome.err
    assert statuses == [5 if wait else 0, 5, 5, 5, 5]


async def test_line_of_events_without_end_is_one_sentence() -> None:
    async with open_fake_daemon({"/events": Answer(b"data: " + b"x" * 2**20)}) as fake:
        outcome = await call_process("events", "--url", fake.url)
    assert outcome == Outcome(3, "", f"error: the daemon at {fake.url} sent an event of more than 1,048,576 bytes\n")


@pytest.mark.parametrize(
    "task_id", ["1", "; rm -r ~", ID.upper(), ID + "0", f"{ID}\n"], ids=["short", "words", "upper", "long", "two lines"]
)
@pytest.mark.parametrize("path", ["/tasks", "/graphs"])
async def test_id_that_no_daemon_gives_is_refused(task_id: str, path: str) -> None:
    entry: dict[str, JSON] = {**FAILED, "id": task_id, "created": "2026-01-01T00:00:00+00:00"}
    async with open_fake_daemon({path: Answer(entry)}) as fake:
        with pytest.raises(RequestRejected, match=r"is not a galaxy-trio daemon$"):
            await in_thread(fake.url, lambda client: client.request("POST", path))


async def test_another_task_than_the_one_that_was_asked_for_is_refused() -> None:
    async with open_fake_daemon({f"/tasks/{OTHER}": Answer(FAILED)}) as fake:
        with pytest.raises(RequestRejected, match=r"is not a galaxy-trio daemon$"):
            await in_thread(fake.url, lambda client: client.request("GET", f"/tasks/{OTHER}"))


@pytest.mark.parametrize(
    ("task", "graph", "what"),
    [
        ({"graph": "../tasks"}, graph_of(), f"task {ID} with a graph or a node that cannot be read"),
        ({"graph": 5}, graph_of(), f"task {ID} with a graph or a node that cannot be read"),
        ({"node": 5}, graph_of(), f"task {ID} with a graph or a node that cannot be read"),
        ({}, Answer({**RECORD, "graph": "/dev/zero"}), "a graph that cannot be read: it is not an object"),
        ({}, Answer(RECORD), "a graph that cannot be read: it is not an object"),
        ({}, graph_of(state="failed", task_id=5), "a graph that cannot be read: "),
        (
            {},
            graph_of(state="failed", task_id="1"),
            "a graph that cannot be read: the id of the task of node 'a' has not",
        ),
    ],
)
async def test_what_a_wait_needs_and_is_not_there_is_one_sentence(
    task: dict[str, JSON], graph: Answer, what: str, clock: Clock
) -> None:
    async with open_fake_daemon({f"/tasks/{ID}": Answer({**FAILED, **task}), f"/graphs/{GRAPH}": graph}) as fake:
        with pytest.raises(InvalidMessage) as raised:
            await in_thread(fake.url, lambda client: wait_for_end(client, ID))
    assert str(raised.value).startswith(f"the daemon at {fake.url} sent {what}")


async def test_failed_task_without_a_reason_whose_node_was_removed_has_failed(clock: Clock) -> None:
    graph = Answer({**RECORD, "graph": {"nodes": []}})
    async with open_fake_daemon({f"/tasks/{ID}": Answer(FAILED), f"/graphs/{GRAPH}": graph}) as fake:

        def wait(client: DaemonClient) -> object:
            return print_end(wait_for_end(client, ID), as_json=False)

        with pytest.raises(TaskFailed, match=f"^task {ID} failed: no reason was given$"):
            await in_thread(fake.url, wait)


async def test_attempts_that_follow_each_other_in_a_circle_are_asked_for_with_a_pause(clock: Clock) -> None:
    tasks = {f"/tasks/{task_id}": Answer({**FAILED, "id": task_id}) for task_id in (ID, OTHER)}
    in_turn = [OTHER, ID]

    class Turning(dict[str, Answer]):
        def get(self, path: str, default: Any = None) -> Any:  # Any: as that of dict
            if path.startswith("/graphs"):
                in_turn.reverse()
                return graph_of(state="failed", task_id=in_turn[-1])
            return tasks.get(path, default)

    async with open_fake_daemon(Turning()) as fake:
        with pytest.raises(RequestTimeout, match="is still waiting for its next attempt after 10 s"):
            await in_thread(fake.url, lambda client: wait_for_end(client, ID, 10))
    assert clock.pauses == [1.0] * 10
    assert len({head.split()[1].partition("?")[0] for head in fake.requests}) == 3


@pytest.mark.parametrize(
    ("arguments", "status"),
    [(("show", ID), 3), (("show", ID, "--wait"), 3), (("export", ID, "--format", "ours"), 3)],
    ids=["show", "wait", "export"],
)
async def test_text_as_a_graph_opens_no_file(tmp_path: Path, arguments: tuple[str, ...], status: int) -> None:
    plan = tmp_path / "plan.json"
    plan.write_text('{"nodes": [{"id": "secret", "request": "x"}]}')
    # The export replaces the graph by the answer itself.
    answer = Answer({**RECORD, "id": ID, "graph": str(plan)})
    async with open_fake_daemon({f"/graphs/{ID}": answer}) as fake:
        outcome = await call_process("graph", *arguments, "--url", fake.url)
    assert (outcome.status, is_one_sentence(outcome)) == (status, True)
    assert "secret" not in outcome.out
    assert outcome.err.startswith(f"error: the daemon at {fake.url} sent a graph that cannot be read: ")


@pytest.mark.parametrize(
    "more",
    [
        {"history": 5, "result_url": "/x"},
        {"history": [5, {"time": "0001-01-01T00:00:00+14:00", "event": 5}]},
        {"state": "queued", "wants": 5},
        {"state": "queued", "wants": {"capabilities": 5, "os": []}, "history": {}},
    ],
)
async def test_task_with_odd_members_is_shown_without_a_traceback(more: dict[str, JSON]) -> None:
    async with open_fake_daemon({f"/tasks/{ID}": Answer({**FAILED, **more})}) as fake:
        outcome = await call_process("task", "show", ID, "--url", fake.url)
    assert (outcome.status, outcome.err) == (0, "")


async def test_list_of_graphs_with_odd_numbers_is_shown_without_a_traceback() -> None:
    counts: dict[str, JSON] = {"running": 10**4_000, "failed": -1, "completed": "x", "waiting": 2}
    async with open_fake_daemon({"/graphs": Answer({"graphs": [{**RECORD, "nodes": counts}]})}) as fake:
        outcome = await call_process("graph", "list", "--url", fake.url)
    assert (outcome.status, outcome.err) == (0, "")
    assert "0 of 2" in outcome.out
