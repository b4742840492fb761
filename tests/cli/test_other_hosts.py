"""The daemon's client sends its token to the daemon alone."""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Final

import pytest
import trio

from galaxy_trio._cli.daemon_client import DaemonClient, open_client
from galaxy_trio.errors import RequestRejected
from tests.cli.support.command_line import call_process, is_one_sentence
from tests.cli.support.hostile import ID, Answer, FakeDaemon, open_fake_daemon
from tests.support.waiting import SECONDS

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable

pytestmark = pytest.mark.daemon

SECRET: Final = "the-daemons-token"
ENDED: Final = {"id": ID, "state": "completed", "request": "look", "error": None}


async def in_thread(url: str, ask: Callable[[DaemonClient], object]) -> None:
    """Use a client of the daemon at a URL."""

    def use_client() -> None:
        with open_client(url, SECRET, 0) as client:
            ask(client)

    with trio.fail_after(SECONDS):
        await trio.to_thread.run_sync(use_client)


def _post(client: DaemonClient, path: str) -> object:
    return client.request("POST", path, json={"request": "x"})


def _events(client: DaemonClient, _: str) -> object:
    return list(client.events())


@asynccontextmanager
async def open_both() -> AsyncGenerator[tuple[FakeDaemon, FakeDaemon, dict[str, Answer]]]:
    """Open a daemon, whose answers the test adds, and another server, which answers anything with a task that has ended."""
    answers: dict[str, Answer] = {}
    stolen = {path: Answer(ENDED) for path in ("/", "/tasks", f"/tasks/{ID}", "/events", "/stolen", "//stolen")}
    async with open_fake_daemon(answers) as daemon, open_fake_daemon(stolen) as other:
        yield daemon, other, answers


@pytest.mark.parametrize(
    "result_url",
    [
        "http://{other}/stolen",
        "HTTP://{other}/stolen",
        "//{other}/stolen",
        "///{other}/stolen",
        "http:{other}/stolen",
        "http:/{other}/stolen",
        "\\\\{other}\\stolen",
        "/\\{other}/stolen",
        " http://{other}/stolen",
        "{other}/stolen",
        "@{other}/stolen",
        "tasks/1",
        "/tasks/1\n",
        "/\x00",
        "",
    ],
)
@pytest.mark.parametrize("prefix", ["", "/prefix"])
async def test_url_of_another_server_is_not_followed(result_url: str, prefix: str) -> None:
    async with open_both() as (daemon, other, _):
        url = result_url.format(other=other.url.removeprefix("http://"))
        with pytest.raises(RequestRejected):
            await in_thread(daemon.url + prefix, lambda client: client.get_json(url))
        assert other.requests == []


async def test_result_url_of_another_server_is_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GALAXY_TRIO_DAEMON_TOKEN", SECRET)
    async with open_both() as (daemon, other, answers):
        answers[f"/tasks/{ID}"] = Answer({**ENDED, "result_url": f"{other.url}/stolen"})
        outcome = await call_process("task", "wait", ID, "--url", daemon.url)
        assert other.requests == []
        assert f"Bearer {SECRET}" in daemon.requests[0]
    assert (outcome.status, outcome.out, is_one_sentence(outcome)) == (5, "", True)


async def test_result_url_of_the_daemon_is_followed_by_its_path(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GALAXY_TRIO_DAEMON_TOKEN", SECRET)
    async with open_both() as (daemon, other, answers):
        answers[f"/tasks/{ID}"] = Answer({**ENDED, "result_url": f"/tasks/{ID}/result"})
        answers[f"/tasks/{ID}/result"] = Answer("the result")
        outcome = await call_process("task", "wait", ID, "--url", daemon.url)
        assert (len(daemon.requests), other.requests) == (2, [])
    assert (outcome.status, outcome.out) == (0, "the result\n")


@pytest.mark.parametrize(
    "status", ["301 Moved Permanently", "302 Found", "303 See Other", "307 Temporary Redirect", "308 X"]
)
@pytest.mark.parametrize("ask", [_post, DaemonClient.get_json, _events])
async def test_redirect_is_not_followed(ask: Callable[[DaemonClient, str], object], status: str) -> None:
    async with open_both() as (daemon, other, answers):
        # A body that would be accepted if the status did not count.
        redirect = Answer(ENDED, status, (f"Location: {other.url}/stolen?token={SECRET}",))
        answers.update({"/tasks": redirect, "/events": redirect})
        with pytest.raises(
            RequestRejected,
            match=rf"is not a galaxy-trio daemon: it redirects to {other.url}/stolen \(status {status[:3]}\)$",
        ):
            await in_thread(daemon.url, lambda client: ask(client, "/tasks"))
        assert other.requests == []


async def test_proxy_in_the_environment_gets_no_token(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GALAXY_TRIO_DAEMON_TOKEN", SECRET)
    async with open_both() as (daemon, other, answers):
        for variable in ("http_proxy", "HTTP_PROXY", "ALL_PROXY", "all_proxy"):
            monkeypatch.setenv(variable, other.url)
        answers[f"/tasks/{ID}"] = Answer(ENDED)
        assert (await call_process("task", "show", ID, "--url", daemon.url)).status == 0
        assert other.requests == []
