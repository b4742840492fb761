"""The exit status of each error, and its message."""

from __future__ import annotations

import os
from functools import partial
from typing import TYPE_CHECKING

import pytest
import trio

import galaxy_trio._cli.main
from galaxy_trio import (
    ConfigError,
    ConnectFailed,
    ConnectionLost,
    ConnectTimeout,
    GalaxyError,
    HandshakeRejected,
    InvalidMessage,
    MessageTooLarge,
    NoSuchDevice,
    QueueFull,
    RegistrationRejected,
    RequestRejected,
    RequestTimeout,
    TaskFailed,
)
from galaxy_trio._cli.main import exit_status
from tests.cli.support.command_line import (
    DEVICE,
    NO_SERVER,
    TOKEN,
    Call,
    Outcome,
    call_process,
    is_one_sentence,
)
from tests.cli.support.world import open_world, session
from tests.support.waiting import SECONDS

if TYPE_CHECKING:
    from rich.console import Console

    from galaxy_trio.server import ServerTask


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (TaskFailed("x"), 1),
        (ConfigError("x"), 2),
        (MessageTooLarge("x"), 2),
        (QueueFull("x"), 2),
        (NoSuchDevice("x"), 2),
        (ConnectFailed("x"), 3),
        (ConnectionLost("x"), 3),
        (InvalidMessage("x"), 3),
        (ConnectTimeout("x"), 4),
        (RequestTimeout("x"), 4),
        (HandshakeRejected("x"), 5),
        (RegistrationRejected("x"), 5),
        (RequestRejected("x"), 5),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, Exception) else str(value),
)
def test_each_error_has_an_exit_status(error: GalaxyError, status: int) -> None:
    assert exit_status(error) == status


@pytest.mark.parametrize(
    ("arguments", "status", "words"),
    [
        (["info", NO_SERVER, DEVICE], 3, "connection refused"),
        (["run", NO_SERVER, DEVICE, "x", "--json"], 3, "connection refused"),
        (["run", "URL", DEVICE, "wait", "--timeout", "0.05"], 4, "did not end"),
        (["info", "URL", "no-such-device"], 5, "'no-such-device' is not connected"),
        (["info", "http://x", DEVICE], 2, "ws://"),
        (["info", "ws://[x", DEVICE], 2, "URL"),
        (["info", f"ws://127.0.0.1?a=b&token={TOKEN}", DEVICE], 2, "GALAXY_TRIO_TOKEN"),
        (["info", "URL", DEVICE, "--ca-file", "x"], 2, "wss://"),
        (["info", "wss://x", DEVICE, "--ca-file", os.devnull + "/x"], 2, "the certificates cannot be read"),
        (["info", "wss://x", DEVICE, "--ca-file", __file__], 2, "no certificates"),
        (["info", "URL"], 2, "Missing argument 'DEVICE'. See 'galaxy-trio info --help'."),
        (["run", "URL", DEVICE, "x", "--timeout", "0"], 2, "--timeout"),
        (["run", "URL", DEVICE, "x", "--timeout", "nan"], 2, "--timeout"),
        (["run", "URL", DEVICE, "x", "--connect-timeout", "soon"], 2, "--connect-timeout"),
        (["run", "URL", DEVICE, "\udcff"], 2, "UTF-8"),
        (["jump"], 2, "No such command 'jump'. See 'galaxy-trio --help'."),
        (["--token", "x"], 2, "No such option"),
    ],
)
def test_each_error_is_one_sentence_on_stderr_and_an_exit_status(
    call: Call, url: str, arguments: list[str], status: int, words: str
) -> None:
    outcome = call(*(url if argument == "URL" else argument for argument in arguments))
    assert (outcome.status, outcome.out) == (status, "")
    assert is_one_sentence(outcome)
    assert words in outcome.err


async def test_each_exit_status_of_a_process_and_no_output_contains_the_token() -> None:
    stopped = trio.Event()

    async def stop(task: ServerTask) -> object:
        if task.request == "stop":
            stopped.set()
            await trio.sleep_forever()
        return await session(task)

    wrong = "wr0ng-t0ken"
    outcomes: dict[str, Outcome] = {}

    async def keep(name: str, *arguments: str, token: str = TOKEN) -> None:
        outcomes[name] = await call_process(*arguments, token=token)

    async with trio.open_nursery() as nursery:
        with trio.CancelScope() as serving:
            async with open_world(stop) as server:
                async with trio.open_nursery() as calls:
                    calls.start_soon(keep, "done", "run", server.url, DEVICE, "say")
                    calls.start_soon(keep, "failed", "run", server.url, DEVICE, "fail")
                    calls.start_soon(keep, "usage", "run", "http://x", DEVICE, "say")
                    calls.start_soon(keep, "timeout", "run", server.url, DEVICE, "wait", "--timeout", "0.1")
                    calls.start_soon(partial(keep, "refused", "info", server.url, DEVICE, "-vv", token=wrong))
                nursery.start_soon(keep, "lost", "-v", "run", server.url, DEVICE, "stop")
                with trio.fail_after(SECONDS):
                    await stopped.wait()
                serving.cancel()
    assert {name: outcome.status for name, outcome in outcomes.items()} == {
        "done": 0,
        "failed": 1,
        "usage": 2,
        "lost": 3,
        "timeout": 4,
        "refused": 5,
    }
    assert " connection to the server for device 'linux_agent_1' ended" in outcomes["lost"].err
    for outcome in outcomes.values():
        assert "Traceback" not in outcome.err
        for secret in (TOKEN, wrong):
            assert secret not in outcome.out + outcome.err


async def _end_badly(console: Console) -> int:
    return 1


def test_failed_demonstration_exits_with_1(call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(galaxy_trio._cli.main, "demo", _end_badly)
    assert call("demo") == Outcome(1, "", "")
