"""The command line: what it prints, on which stream, and with which exit status it ends."""

from __future__ import annotations

import errno
import io
import json
import logging
import os
import select
import signal
import ssl
import subprocess
import sys
from contextlib import asynccontextmanager
from functools import partial
from types import ModuleType
from typing import TYPE_CHECKING

import attrs
import click
import pytest
import trio
import trustme
from rich.console import Console

import galaxy_trio.__main__
import galaxy_trio._cli.main
from galaxy_trio import (
    ConfigError,
    ConnectFailed,
    ConnectionLost,
    ConnectTimeout,
    DeviceInfo,
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
    __version__,
)
from galaxy_trio._cli.destination import Destination
from galaxy_trio._cli.main import exit_status, info, run, run_command_line
from galaxy_trio._cli.signals import Interrupted, run_trio, until_signalled
from galaxy_trio._cli.terminal import READABLE_WIDTH, logging_to_stderr, open_console, print_rows, silence
from galaxy_trio.agent import open_device_connection
from galaxy_trio.server import Server, ServerTask, open_server
from tests.cli.support.command_line import (
    DEVICE,
    NOBODY,
    TOKEN,
    Call,
    Outcome,
    call_process,
    caller,
    environment,
    is_one_sentence,
)
from tests.support.paths import ROOT
from tests.support.waiting import SECONDS

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Generator
    from pathlib import Path

    from galaxy_trio.server import SessionFunction

INFO = DeviceInfo(
    DEVICE,
    "linux",
    cpu_count=4,
    supported_features=["cli", "gui"],
    tags=["[bold]lab[/bold]", "\x1b[31mred"],
    custom_metadata={"room": "Köln\x9b"},
    extra={"new": True},
)
EVIL = "\x1b]0;title\x07 [red]rot[/red] 😀\r\nback\rspace\u202e end"
EVIL_ESCAPED = "\\u001b]0;title\\u0007 [red]rot[/red] 😀\r\nback\\u000dspace\\u202e end\n"


# ---- a server to talk to


async def session(task: ServerTask) -> object:
    """Does what the request says."""
    match task.request:
        case "say":
            return "one\ntwo"
        case "evil":
            return EVIL
        case "fail":
            raise RuntimeError("it broke\non two \x1b[31mlines [bold]")
        case "explain":
            raise TaskFailed("", result={"why": "no screen"})
        case "wait":
            await trio.sleep_forever()
        case "complain":
            raise RuntimeError("x" * 10_000)
        case _:
            pass
    return {"echo": task.request, "ö": [1]}


@asynccontextmanager
async def open_world(session: SessionFunction = session, authority: trustme.CA | None = None) -> AsyncGenerator[Server]:
    """A server and a device on it; with TLS if there is an authority."""
    server_side = client_side = None
    if authority is not None:
        server_side = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        authority.issue_cert("127.0.0.1").configure_cert(server_side)  # pyright: ignore[reportUnknownMemberType]
        client_side = ssl.create_default_context()
        authority.configure_trust(client_side)  # pyright: ignore[reportUnknownMemberType]
    async with (
        open_server(session=session, token=TOKEN, ssl_context=server_side) as server,
        open_device_connection(server.url, DEVICE, system_info=INFO, token=TOKEN, ssl_context=client_side),
    ):
        yield server


async def serve() -> None:
    """The server of the tests that run the command line in their own process: says where it is, and runs until it is killed."""
    async with open_world() as server:
        click.echo(server.url)
        await trio.sleep_forever()


@pytest.fixture(scope="module")
def url() -> Generator[str]:
    """A server in a process of its own: these tests' process has no event loop but that of the command line."""
    with subprocess.Popen([sys.executable, "-m", __name__], stdout=subprocess.PIPE, text=True, cwd=ROOT) as process:  # noqa: S603  # ourselves
        assert process.stdout is not None
        try:
            assert select.select([process.stdout], [], [], SECONDS)[0], "the server does not start"
            yield process.stdout.readline().strip()
        finally:
            process.kill()


@pytest.fixture
def call(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Call:
    """Run a command in this process."""
    return caller(monkeypatch, capsys)


# ---- info


def test_info_prints_what_is_known_in_two_columns_and_nothing_that_a_terminal_would_obey(call: Call, url: str) -> None:
    assert call("info", url, DEVICE) == Outcome(
        0,
        "device      linux_agent_1\n"
        "platform    linux\n"
        "processors  4\n"
        "features    cli, gui\n"
        "tags        [bold]lab[/bold], \\u001b[31mred\n"
        'metadata    {"room": "Köln\\u009b"}\n'
        'other       {"new": true}\n',
        "",
    )


def test_info_as_json_is_one_plain_object(call: Call, url: str) -> None:
    outcome = call("info", url, DEVICE, "--json")
    assert (outcome.status, outcome.err, outcome.out.count("\n")) == (0, "", 1)
    assert outcome.out.rstrip("\n").isascii()
    assert outcome.out.rstrip("\n").isprintable()
    assert json.loads(outcome.out) == attrs.asdict(INFO)


def test_on_a_terminal_long_values_go_on_below_themselves() -> None:
    console = Console(file=io.StringIO(), force_terminal=True, no_color=True, color_system=None, width=40)
    print_rows(console, [("a", "one two three four five six seven eight"), ("long", "x")], indent=2)
    assert isinstance(console.file, io.StringIO)
    assert console.file.getvalue() == ("  a     one two three four five six\n        seven eight\n  long  x\n")


@pytest.mark.parametrize(("columns", "width"), [("60", 60), ("80", 80), ("132", 80)])
def test_text_is_as_wide_as_the_terminal_but_not_wider_than_is_good_to_read(
    monkeypatch: pytest.MonkeyPatch, columns: str, width: int
) -> None:
    monkeypatch.setenv("COLUMNS", columns)
    assert open_console(max_width=READABLE_WIDTH).width == width


def test_what_the_encoding_of_stdout_lacks_is_escaped(call: Call, url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    written = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(written, encoding="latin-1"))
    assert run_command_line(["run", url, DEVICE, "ö€"]) == 0
    assert b'"echo": "\xf6\\u20ac"' in written.getvalue()


# ---- run


def test_run_prints_a_text_as_it_is(call: Call, url: str) -> None:
    assert call("run", url, DEVICE, "say") == Outcome(0, "one\ntwo\n", "")


def test_run_prints_any_other_result_as_indented_json(call: Call, url: str) -> None:
    assert call("run", url, DEVICE, "x") == Outcome(0, '{\n  "echo": "x",\n  "ö": [\n    1\n  ]\n}\n', "")


def test_run_escapes_what_a_terminal_would_obey_and_takes_nothing_for_markup(call: Call, url: str) -> None:
    assert call("run", url, DEVICE, "evil") == Outcome(0, EVIL_ESCAPED, "")


def test_run_as_json_is_one_plain_object_with_the_result_unchanged(call: Call, url: str) -> None:
    outcome = call("run", url, DEVICE, "evil", "--json")
    assert (outcome.status, outcome.err, outcome.out.count("\n")) == (0, "", 1)
    assert outcome.out.rstrip("\n").isprintable()
    result = json.loads(outcome.out)
    assert result.pop("task_id")
    assert result == {"device_id": DEVICE, "status": "completed", "result": EVIL, "error": None}


def test_a_failed_task_is_one_sentence_on_stderr_and_exit_status_1(call: Call, url: str) -> None:
    outcome = call("run", url, DEVICE, "fail")
    assert (outcome.status, outcome.out) == (1, "")
    assert is_one_sentence(outcome)
    assert outcome.err.endswith("failed on device 'linux_agent_1': it broke on two \\u001b[31mlines [bold]\n")


def test_a_failed_task_as_json_is_its_object_and_exit_status_1(call: Call, url: str) -> None:
    outcome = call("run", url, DEVICE, "fail", "--json")
    assert outcome.status == 1
    assert is_one_sentence(outcome)
    result = json.loads(outcome.out)
    assert (result["status"], result["error"]) == ("failed", "it broke\non two \x1b[31mlines [bold]")


def test_what_a_failed_task_gives_back_all_the_same_is_printed(call: Call, url: str) -> None:
    outcome = call("run", url, DEVICE, "explain")
    assert (outcome.status, json.loads(outcome.out)) == (1, {"why": "no screen"})
    assert outcome.err.endswith("it ended in its error state\n")


def test_a_server_cannot_flood_stderr(call: Call, url: str) -> None:
    assert len(call("run", url, DEVICE, "complain").err) < 3_000


# ---- exit statuses


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
def test_every_error_has_its_exit_status(error: GalaxyError, status: int) -> None:
    assert exit_status(error) == status


@pytest.mark.parametrize(
    ("arguments", "status", "words"),
    [
        (["info", NOBODY, DEVICE], 3, "connection refused"),
        (["run", NOBODY, DEVICE, "x", "--json"], 3, "connection refused"),
        (["run", "URL", DEVICE, "wait", "--timeout", "0.05"], 4, "did not end"),
        (["info", "URL", "nobody"], 5, "'nobody' is not connected"),
        (["info", "http://x", DEVICE], 2, "ws://"),
        (["info", "ws://[x", DEVICE], 2, "URL"),
        (["info", f"ws://127.0.0.1?a=b&token={TOKEN}", DEVICE], 2, "GALAXY_TRIO_TOKEN"),
        (["info", "URL", DEVICE, "--ca-file", "x"], 2, "wss://"),
        (["info", "wss://x", DEVICE, "--ca-file", os.devnull + "/x"], 2, "cannot read the certificates"),
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
def test_what_goes_wrong_is_one_sentence_on_stderr_and_an_exit_status(
    call: Call, url: str, arguments: list[str], status: int, words: str
) -> None:
    outcome = call(*(url if argument == "URL" else argument for argument in arguments))
    assert (outcome.status, outcome.out) == (status, "")
    assert is_one_sentence(outcome)
    assert words in outcome.err


async def test_a_process_ends_with_each_exit_status_and_never_shows_the_token() -> None:
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


async def test_ctrl_c_ends_the_task_on_the_server_and_exits_with_130() -> None:
    begun, cancelled = trio.Event(), trio.Event()

    async def note(task: ServerTask) -> object:
        begun.set()
        try:
            await trio.sleep_forever()
        except trio.Cancelled:
            cancelled.set()
            raise

    with trio.fail_after(SECONDS):
        async with open_world(note) as server, trio.open_nursery() as nursery:
            command = [sys.executable, "-m", "galaxy_trio", "run", server.url, DEVICE, "x"]
            start = partial(
                trio.run_process, command, capture_stdout=False, stderr=subprocess.PIPE, check=False, env=environment()
            )
            process: trio.Process = await nursery.start(start)
            assert process.stderr is not None
            await begun.wait()
            process.send_signal(signal.SIGINT)
            said = b"".join([chunk async for chunk in process.stderr])
            assert await process.wait() == 130
            await cancelled.wait()
    assert said.startswith(b"error: interrupted")
    assert b"Traceback" not in said


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
async def test_a_signal_cancels_the_work_and_is_told(number: int) -> None:
    async def work() -> None:
        signal.raise_signal(number)
        await trio.sleep_forever()

    with trio.fail_after(SECONDS), pytest.raises(Interrupted) as caught:
        await until_signalled(work)
    assert caught.value.signal_number == number


async def test_what_goes_wrong_after_a_signal_is_not_told() -> None:
    async def work() -> None:
        try:
            signal.raise_signal(signal.SIGINT)
            await trio.sleep_forever()
        finally:
            raise ZeroDivisionError

    with trio.fail_after(SECONDS), pytest.raises(Interrupted):
        await until_signalled(work)


def test_an_interruption_at_any_time_ends_with_130(call: Call, monkeypatch: pytest.MonkeyPatch, url: str) -> None:
    async def interrupt(*arguments: object) -> None:
        signal.raise_signal(signal.SIGINT)
        await trio.sleep_forever()

    monkeypatch.setattr(galaxy_trio._cli.main, "run", interrupt)
    outcome = call("run", url, DEVICE, "x")
    assert outcome.status == 130
    assert is_one_sentence(outcome)

    def interrupt_at_once(*arguments: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(galaxy_trio._cli.main, "run_trio", interrupt_at_once)
    assert call("run", url, DEVICE, "x").status == 130


def test_a_known_error_comes_out_of_groups_in_which_it_is_alone() -> None:
    lost = ConnectionLost("gone")

    async def fail_alone() -> None:
        async with trio.open_nursery(), trio.open_nursery():
            raise lost

    with pytest.raises(ConnectionLost) as caught:
        run_trio(fail_alone)
    assert caught.value is lost


def test_what_is_not_known_is_not_hidden() -> None:
    async def fail_in_two_ways() -> None:
        raise ExceptionGroup("two", [ConnectionLost("gone"), ZeroDivisionError()])

    with pytest.raises(ExceptionGroup, match="two"):
        run_trio(fail_in_two_ways)


async def test_the_commands_work_can_be_called_directly() -> None:
    async with open_world() as server:
        destination = Destination(server.url, DEVICE, TOKEN)
        with trio.fail_after(SECONDS):
            assert await info(destination, 10) == INFO
            assert (await run(destination, "say", 10)).unwrap() == "one\ntwo"
    assert TOKEN not in repr(destination)


async def _end_badly(console: Console) -> int:
    return 1


def test_a_demonstration_that_fails_exits_with_1(call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(galaxy_trio._cli.main, "demo", _end_badly)
    assert call("demo") == Outcome(1, "", "")


# ---- token and certificates


def test_a_token_file_goes_before_the_environment_and_is_stripped(
    call: Call, url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GALAXY_TRIO_TOKEN", "wrong")
    assert call("info", url, DEVICE).status == 5
    file = tmp_path / "token"
    file.write_text(f"\ufeff {TOKEN}\r\n", "utf-8")
    assert call("info", url, DEVICE, "--token-file", str(file)).status == 0


@pytest.mark.parametrize("variable", [None, "", " \n"])
def test_without_a_token_none_is_sent(
    call: Call, url: str, monkeypatch: pytest.MonkeyPatch, variable: str | None
) -> None:
    if variable is None:
        monkeypatch.delenv("GALAXY_TRIO_TOKEN")
    else:
        monkeypatch.setenv("GALAXY_TRIO_TOKEN", variable)
    outcome = call("info", url, DEVICE)
    assert (outcome.status, "403" in outcome.err) == (5, True)


def test_a_token_file_that_has_none_is_a_usage_error_and_its_content_is_not_shown(
    call: Call, url: str, tmp_path: Path
) -> None:
    file = tmp_path / "token"

    def problem() -> str:
        outcome = call("info", url, DEVICE, "--token-file", str(file))
        assert (outcome.status, outcome.out) == (2, "")
        assert is_one_sentence(outcome)
        return outcome.err

    assert problem().endswith("no such file or directory\n")
    file.mkdir()
    assert problem().endswith("is a directory\n")
    file.rmdir()
    file.write_bytes(b" \n")
    assert problem().endswith("is empty\n")
    file.write_bytes(TOKEN.encode() + b"\xff")
    assert problem().endswith("is not UTF-8 text\n")


def test_a_token_in_the_environment_that_is_no_text_is_a_usage_error(
    call: Call, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GALAXY_TRIO_TOKEN", f"{TOKEN}\udcff")
    outcome = call("info", url, DEVICE)
    assert (outcome.status, is_one_sentence(outcome)) == (2, True)


async def test_a_certificate_is_accepted_with_its_authoritys_file_and_not_without(tmp_path: Path) -> None:
    authority = trustme.CA()
    file = tmp_path / "ca.pem"
    authority.cert_pem.write_to_path(str(file))
    async with open_world(authority=authority) as server:
        assert (await call_process("info", server.url, DEVICE, "--ca-file", str(file))).status == 0
        with trio.fail_after(SECONDS), pytest.raises(ConnectFailed, match="certificate"):
            await info(Destination(server.url, DEVICE, TOKEN), 10)


# ---- streams


async def test_a_reader_that_has_gone_is_no_reason_to_complain() -> None:
    async with open_world() as server:
        reading_end, writing_end = os.pipe()
        os.close(reading_end)
        try:
            with trio.fail_after(SECONDS):
                done = await trio.run_process(
                    [sys.executable, "-m", "galaxy_trio", "run", server.url, DEVICE, "say"],
                    stdout=writing_end,
                    capture_stderr=True,
                    check=False,
                    env=environment(),
                )
        finally:
            os.close(writing_end)
    assert (done.returncode, done.stderr) == (141, b"")


class _Failing(io.StringIO):
    def __init__(self, error: OSError) -> None:
        super().__init__()
        self._error = error

    def write(self, text: str, /) -> int:  # noqa: ARG002
        raise self._error


def test_a_stdout_that_fails_is_one_sentence_and_one_that_is_closed_none(
    call: Call, url: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "stdout", _Failing(OSError(28, "No space left on device")))
    assert run_command_line(["info", url, DEVICE]) == 1
    assert capsys.readouterr().err == "error: no space left on device\n"
    monkeypatch.setattr(sys, "stdout", _Failing(BrokenPipeError()))
    assert run_command_line(["info", url, DEVICE]) == 141
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize("error", [BrokenPipeError(), OSError(errno.ENOSPC, "No space left on device")])
def test_a_stderr_that_has_gone_or_is_full_changes_no_exit_status(
    call: Call, monkeypatch: pytest.MonkeyPatch, error: OSError
) -> None:
    monkeypatch.setattr(sys, "stderr", _Failing(error))
    assert run_command_line(["info", NOBODY, DEVICE]) == 3


def test_a_silenced_stdout_can_be_flushed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "out"
    with file.open("w") as stdout:
        monkeypatch.setattr(sys, "stdout", stdout)
        stdout.write("never seen")
        silence(sys.stdout)
    assert file.read_bytes() == b""


async def test_on_a_terminal_run_shows_how_long_it_has_waited_and_the_result_stays_clean() -> None:
    go = trio.Event()

    async def wait(task: ServerTask) -> object:
        await go.wait()
        return "done"

    terminal, its_end = os.openpty()
    with trio.fail_after(SECONDS):
        async with (
            open_world(wait) as server,
            trio.lowlevel.FdStream(terminal) as screen,
            trio.open_nursery() as nursery,
        ):
            command = [sys.executable, "-m", "galaxy_trio", "run", server.url, DEVICE, "x"]
            outputs: list[bytes] = []

            async def run() -> None:
                done = await trio.run_process(command, capture_stdout=True, stderr=its_end, env=environment())
                outputs.append(done.stdout)

            nursery.start_soon(run)
            shown = b""
            while b"running on linux_agent_1" not in shown or b"0:00:0" not in shown:
                shown += await screen.receive_some()
            go.set()
    os.close(its_end)
    assert outputs == [b"done\n"]


# ---- the log


def test_the_log_is_shown_on_demand_and_harmless(capsys: pytest.CaptureFixture[str]) -> None:
    logger = logging.getLogger("galaxy_trio.test")
    with logging_to_stderr():
        logger.info("hidden")
        logger.warning("look: %s", "\x1b[31m\nforged")
    logger.warning("too late")
    shown = capsys.readouterr().err
    assert shown.endswith(" WARNING galaxy_trio.test: look: \\u001b[31m forged\n")
    assert shown.count("\n") == 1


@pytest.mark.parametrize(
    ("options", "level"), [([], logging.WARNING), (["-v"], logging.INFO), (["-v", "-v"], logging.DEBUG)]
)
def test_the_more_verbose_the_more_is_logged_and_only_during_the_command(
    call: Call, monkeypatch: pytest.MonkeyPatch, options: list[str], level: int
) -> None:
    levels: list[int] = []

    def note(work: object) -> DeviceInfo:
        levels.append(logging.getLogger("galaxy_trio").getEffectiveLevel())
        return INFO

    monkeypatch.setattr(galaxy_trio._cli.main, "run_trio", note)
    before = logging.getLogger("galaxy_trio").level
    assert call(*options, "info", "ws://x", DEVICE).status == 0
    assert call("info", "ws://x", DEVICE, *options).status == 0
    assert levels == [level, level]
    assert logging.getLogger("galaxy_trio").level == before


# ---- help, version, installation


def test_the_version_is_told(call: Call) -> None:
    assert call("--version") == Outcome(0, f"galaxy-trio {__version__}\n", "")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ([], ["galaxy-trio demo", "GALAXY_TRIO_TOKEN", "130 Ctrl-C"]),
        (["--help"], ["galaxy-trio demo", "GALAXY_TRIO_TOKEN", "130 Ctrl-C"]),
        (["demo", "-h"], ["galaxy-trio demo"]),
        (["info", "--help"], ["galaxy-trio info ws://127.0.0.1:5000/ws linux_agent_1", "[default: 10]"]),
        (["run", "--help"], ['galaxy-trio run ws://127.0.0.1:5000/ws linux_agent_1 "', "[default: 1000]"]),
    ],
)
def test_help_has_an_example(call: Call, arguments: list[str], words: list[str]) -> None:
    outcome = call(*arguments)
    assert (outcome.status, outcome.err) == (0, "")
    assert [word for word in words if word not in outcome.out] == []


async def test_without_the_extra_the_package_works_and_the_command_says_what_to_install() -> None:
    program = "import sys; sys.modules.update(click=None, rich=None); import runpy; runpy.run_module('galaxy_trio', run_name='__main__')"
    outcome = await call_process("demo", python=("-c", program))
    assert (outcome.status, outcome.out) == (2, "")
    assert outcome.err.count("\n") == 1
    assert 'pip install "galaxy_trio[cli]"' in outcome.err


async def test_importing_the_package_imports_neither_click_nor_rich() -> None:
    program = "import sys, galaxy_trio, galaxy_trio.server, galaxy_trio.agent; sys.exit(bool({'click', 'rich'} & sys.modules.keys()))"
    assert await call_process(python=("-c", program)) == Outcome(0, "", "")


def test_main_says_what_to_install_and_lets_other_missing_modules_through(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delitem(sys.modules, "galaxy_trio._cli.main")
    monkeypatch.delattr(galaxy_trio._cli, "main")
    monkeypatch.setitem(sys.modules, "click", None)
    assert galaxy_trio.__main__.main() == 2
    assert capsys.readouterr().err == 'the command line needs click and rich: pip install "galaxy_trio[cli]"\n'
    monkeypatch.setitem(sys.modules, "galaxy_trio._cli.main", None)
    with pytest.raises(ModuleNotFoundError):
        galaxy_trio.__main__.main()


def test_ctrl_c_while_the_command_is_still_loading_exits_with_130_too(monkeypatch: pytest.MonkeyPatch) -> None:
    class Loading(ModuleType):
        def __getattr__(self, name: str) -> object:
            raise KeyboardInterrupt

    monkeypatch.setitem(sys.modules, "galaxy_trio._cli.main", Loading("galaxy_trio._cli.main"))
    assert galaxy_trio.__main__.main() == 130


async def test_python_m_is_the_command() -> None:
    assert await call_process("--version") == Outcome(0, f"galaxy-trio {__version__}\n", "")


if __name__ == "__main__":
    trio.run(serve)
