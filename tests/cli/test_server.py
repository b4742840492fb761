"""``galaxy-trio server``: what its session does, whom it lets in, what it says, and how it ends."""

from __future__ import annotations

import json
import os
import signal
import socket
import ssl
from contextlib import asynccontextmanager
from functools import partial
from typing import TYPE_CHECKING

import pytest
import trio
import trustme
from hypothesis import given, settings
from hypothesis import strategies as st
from wsproto.frame_protocol import FrameProtocol

from galaxy_trio import (
    ConnectionLost,
    HandshakeRejected,
    QueueFull,
    RegistrationRejected,
    TaskFailed,
    TaskStatus,
    open_connection,
)
from galaxy_trio._cli.server_session import USAGE, run_as_command
from galaxy_trio._cli.signals import Interrupted, run_service, run_trio
from galaxy_trio._transport.url import parse_url
from galaxy_trio.agent import open_agent, open_device_connection
from galaxy_trio.agent.example_tools import add, list_directory
from galaxy_trio.messages import Command as WireCommand
from galaxy_trio.messages import CommandResult, DeviceInfo, ResultStatus, ToolType
from galaxy_trio.server import ServerTask, open_server
from tests.cli.support.command_line import (
    DEVICE,
    TOKEN,
    Call,
    Command,
    Outcome,
    ask,
    beside_a_command,
    caller,
    is_one_sentence,
    open_process,
    set_environment,
)
from tests.support.waiting import SECONDS, close_without_a_limit

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Sequence
    from pathlib import Path

    from galaxy_trio.messages import JSON

INFO = DeviceInfo(DEVICE, "linux")
ANY_PORT = ("server", "--port", "0")


@pytest.fixture
def call(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Call:
    """Run a command in this process."""
    return caller(monkeypatch, capsys)


@pytest.fixture
def command(monkeypatch: pytest.MonkeyPatch) -> Command:
    """A command that runs beside the test."""
    set_environment(monkeypatch)
    return Command(monkeypatch)


async def is_let_in(url: str, token: str | None, headers: Sequence[tuple[str, str]] = ()) -> bool:
    """Whether a client is not turned away before it can say who it is."""
    with trio.fail_after(SECONDS), pytest.raises((HandshakeRejected, RegistrationRejected)) as turned_away:
        async with open_connection(url, "nobody", token=token, headers=headers):
            pass
    error = turned_away.value
    assert not isinstance(error, HandshakeRejected) or error.status_code == 403
    return isinstance(error, RegistrationRejected)


# ---- the session, by itself


async def do(request: str, *answers: CommandResult | BaseException) -> tuple[object, list[WireCommand]]:
    """Let the session run a task on a device that answers so; its result, and what came to the device."""
    commands: list[WireCommand] = []

    async def execute(batch: Sequence[WireCommand], stop_on_failure: bool, timeout: float) -> list[CommandResult]:
        await trio.lowlevel.checkpoint()
        commands.extend(batch)
        [answer] = answers
        if isinstance(answer, BaseException):
            raise answer
        return [answer]

    return await run_as_command(ServerTask("s1", request, DEVICE, "c1", None, execute)), commands


DONE = CommandResult(ResultStatus.SUCCESS, result={"height": 2})


@pytest.mark.parametrize(
    ("request_", "text"),
    [
        ("echo hello", "hello"),
        ("echo  two  words ", "two  words"),
        ("\techo\tone\ntwo\n", "one\ntwo"),
        ('echo {"a": 1}', '{"a": 1}'),
        ("echo", ""),
        ("echo ", ""),
    ],
)
async def test_echo_gives_the_text_back_without_the_device(request_: str, text: str) -> None:
    assert await do(request_) == ({"echo": text}, [])


@pytest.mark.parametrize(
    ("request_", "name", "parameters"),
    [
        ("look", "look", None),
        (" look \n", "look", None),
        ("lift {}", "lift", {}),
        ('lift {"height": 2}', "lift", {"height": 2}),
        ('lift\n{"height":\n2}\n', "lift", {"height": 2}),
        ('echoes {"a": null}', "echoes", {"a": None}),
    ],
)
async def test_any_other_word_is_a_tool_and_an_object_after_it_its_parameters(
    request_: str, name: str, parameters: dict[str, JSON] | None
) -> None:
    result, commands = await do(request_, DONE)
    assert result == {"height": 2}
    assert commands == [WireCommand(name, ToolType.ACTION, parameters)]


@pytest.mark.parametrize("request_", ["", " \t\n"])
async def test_an_empty_request_fails_and_says_what_can_be_asked(request_: str) -> None:
    with pytest.raises(TaskFailed) as failed:
        await do(request_)
    assert str(failed.value) == f"the request is empty: {USAGE}"


@pytest.mark.parametrize(
    "parameters", ["{", "x", "1", '"a"', "null", "[1]", "{} {}", "{'a': 1}", '{"a": ' + "[" * 100_000, "1" * 5_000]
)
async def test_parameters_that_are_no_json_object_fail_before_anything_is_sent(parameters: str) -> None:
    with pytest.raises(TaskFailed) as failed:
        await do(f"lift {parameters}")
    assert str(failed.value) == f"what follows the tool's name is no JSON object: {USAGE}"


@pytest.mark.parametrize(
    ("answer", "words", "result"),
    [
        (CommandResult(ResultStatus.FAILURE, error="no arm", result=[1]), "no arm", [1]),
        (CommandResult(ResultStatus.FAILURE), "the device answered with status failure", None),
        (CommandResult(ResultStatus.NONE), "the device answered with status none", None),
        (QueueFull("it has enough to do"), "it has enough to do", None),
    ],
)
async def test_what_the_device_could_not_do_is_a_failed_task_with_its_words(
    answer: CommandResult | BaseException, words: str, result: JSON
) -> None:
    with pytest.raises(TaskFailed) as failed:
        await do("lift", answer)
    assert (str(failed.value), failed.value.result) == (words, result)


JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


@settings(max_examples=30)
@given(parameters=st.dictionaries(st.text(), JSON_VALUES, max_size=3), ascii_only=st.booleans())
async def test_whatever_parameters_are_written_come_to_the_device_as_they_are(
    parameters: dict[str, JSON], ascii_only: bool
) -> None:
    _, commands = await do(f"lift {json.dumps(parameters, ensure_ascii=ascii_only)}", DONE)
    assert [command.parameters for command in commands] == [parameters]


@given(st.text())
async def test_any_request_at_all_ends_in_a_result_or_a_failed_task(request_: str) -> None:
    try:
        await do(request_, DONE)
    except TaskFailed as failed:
        why = str(failed)
    else:
        why = USAGE
    assert USAGE in why


@pytest.mark.parametrize("parameters", ['{"a": NaN, "b": 1}', '{"a": 1e999, "b": 1}', r'{"a": "\ud800", "b": 1}'])
async def test_what_cannot_be_sent_is_a_failed_task_and_no_bug(
    parameters: str, caplog: pytest.LogCaptureFixture
) -> None:
    async with (
        open_server(session=run_as_command) as server,
        open_device_connection(server.url, DEVICE, system_info=INFO),
    ):
        result = await ask(server.url, f"add {parameters}", token=None)
    assert result.status is TaskStatus.FAILED
    assert result.error is not None
    assert result.error.startswith("cannot send a command message")
    assert "Traceback" not in caplog.text


# ---- what it says


@beside_a_command
async def test_its_url_is_the_only_line_on_stdout_and_a_device_does_what_it_is_asked(command: Command) -> None:
    command.start(*ANY_PORT)
    url = await command.line()
    async with open_agent(url, DEVICE, [add, list_directory], token=TOKEN):
        assert (await ask(url, "echo hi")).unwrap() == {"echo": "hi"}
        assert (await ask(url, 'add {"a": 2, "b": 0.5}')).unwrap() == 2.5
        failed = await ask(url, 'list_directory {"path": "/no/where"}')
        assert (failed.status, failed.error) == (
            TaskStatus.FAILED,
            "cannot list '/no/where': No such file or directory",
        )
    command.send_signal(signal.SIGTERM)
    outcome = await command.end()
    assert (outcome.status, outcome.out) == (0, f"{url}\n")
    assert f" listening at {url}\n" in outcome.err
    assert f" task for {DEVICE!r}: 'echo hi'\n" in outcome.err
    assert "Traceback" not in outcome.err
    assert TOKEN not in outcome.err
    assert " DEBUG " not in outcome.err


@pytest.mark.parametrize(
    ("before", "after", "says_what_happens", "says_more"),
    [
        ((), (), True, False),
        ((), ("-q",), False, False),
        ((), ("-v",), True, True),
        (("-v",), ("-q",), True, False),
        (("-vv",), (), True, True),
    ],
)
@beside_a_command
async def test_how_much_it_says_is_the_persons_choice(
    command: Command, before: Sequence[str], after: Sequence[str], says_what_happens: bool, says_more: bool
) -> None:
    command.start(*before, *ANY_PORT, *after)
    url = await command.line()
    assert await is_let_in(url, TOKEN)
    command.send_signal(signal.SIGTERM)
    outcome = await command.end()
    assert (outcome.status, outcome.out) == (0, f"{url}\n")
    assert (" listening at " in outcome.err, " DEBUG " in outcome.err) == (says_what_happens, says_more)


@beside_a_command
async def test_nobodys_text_looks_like_a_record_of_its_own_or_does_anything_to_the_terminal(command: Command) -> None:
    command.start(*ANY_PORT)
    url = await command.line()
    evil = "x\n00:00:00 forged\x1b[31m"
    async with open_device_connection(url, evil, system_info=DeviceInfo(evil, "linux"), token=TOKEN):
        await ask(url, "echo a\n00:00:00 forged\x1b[31m", device=evil)
    command.send_signal(signal.SIGTERM)
    said = (await command.end()).err
    assert [line for line in said.splitlines() if line.startswith("00:00:00")] == []
    assert "forged" in said
    assert "\x1b" not in said


# ---- whom it lets in


@beside_a_command
async def test_a_client_needs_the_token_of_the_environment(command: Command) -> None:
    command.start(*ANY_PORT)
    url = await command.line()
    assert await is_let_in(url, TOKEN)
    assert not await is_let_in(url, "wrong")
    assert not await is_let_in(url, None)


@beside_a_command
async def test_without_a_token_all_of_this_machine_are_let_in(
    command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("GALAXY_TRIO_TOKEN")
    command.start(*ANY_PORT)
    assert await is_let_in(await command.line(), None)


@beside_a_command
async def test_every_line_of_a_token_file_is_a_token_and_goes_before_the_environment(
    command: Command, tmp_path: Path
) -> None:
    file = tmp_path / "tokens"
    file.write_text("\ufeff old-one \r\n\n\tnew-one", "utf-8")
    command.start(*ANY_PORT, "--token-file", str(file))
    url = await command.line()
    assert await is_let_in(url, "old-one")
    assert await is_let_in(url, "new-one")
    for wrong in (TOKEN, "old-one \r\n\n\tnew-one", "", None):
        assert not await is_let_in(url, wrong)
    command.send_signal(signal.SIGTERM)
    said = (await command.end()).err
    assert "one" not in said
    assert TOKEN not in said


def test_a_client_gives_one_token_and_says_so_when_there_are_several(call: Call, tmp_path: Path) -> None:
    file = tmp_path / "tokens"
    file.write_text(f"{TOKEN}\nanother\n")
    outcome = call("info", "ws://127.0.0.1:1", DEVICE, "--token-file", str(file))
    assert (outcome.status, is_one_sentence(outcome)) == (2, True)
    assert outcome.err.endswith(" has 2 lines: give one token, for only a server takes several\n")


def _handshake(host: str) -> bytes:
    lines = [
        f"GET /ws?token={TOKEN} HTTP/1.1",
        f"Host: {host}",
        "Upgrade: websocket",
        "Connection: Upgrade",
        "Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==",
        "Sec-WebSocket-Version: 13",
    ]
    return "".join(f"{line}\r\n" for line in [*lines, ""]).encode()


def _port(url: str) -> int:
    return parse_url(url).port


@beside_a_command
async def test_web_pages_and_names_are_let_in_that_it_is_told_of(command: Command) -> None:
    command.start(*ANY_PORT, "--allow-origin", "https://a.example", "--allow-host", "b.example")
    url = await command.line()
    port = _port(url)
    assert await is_let_in(url, TOKEN, [("Origin", "https://a.example")])
    assert not await is_let_in(url, TOKEN, [("Origin", "https://b.example")])
    for name, status in (("b.example", 101), ("localhost", 101), ("a.example", 403)):
        with trio.fail_after(SECONDS):
            async with await trio.open_tcp_stream("127.0.0.1", port) as stream:
                await stream.send_all(_handshake(f"{name}:{port}"))
                assert (await stream.receive_some()).startswith(f"HTTP/1.1 {status} ".encode())


@beside_a_command
async def test_connections_above_the_number_are_turned_away(command: Command) -> None:
    command.start(*ANY_PORT, "--max-connections", "1")
    url = await command.line()
    port = _port(url)
    async with open_device_connection(url, DEVICE, system_info=INFO, token=TOKEN):
        with trio.fail_after(SECONDS):
            async with await trio.open_tcp_stream("127.0.0.1", port) as stream:
                assert await stream.receive_some() == b""
    assert "turned away" in await command.said("turned away")


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("devices.yaml", f"devices:\n  {DEVICE}:\n    tags: [lab]\n"),
        ("devices.json", json.dumps({"devices": {DEVICE: {"tags": ["lab"]}}})),
    ],
)
@beside_a_command
async def test_what_is_configured_of_a_device_is_known_of_it(
    command: Command, tmp_path: Path, name: str, content: str
) -> None:
    file = tmp_path / name
    file.write_text(content)
    command.start(*ANY_PORT, "--device-config", str(file))
    url = await command.line()
    async with open_device_connection(url, DEVICE, system_info=INFO, token=TOKEN):
        async with open_connection(url, DEVICE, token=TOKEN) as connection:
            assert (await connection.device_info(timeout=SECONDS)).tags == ["lab"]


# ---- TLS


@pytest.mark.parametrize("in_one_file", [True, False])
@beside_a_command
async def test_with_a_certificate_it_speaks_tls(command: Command, tmp_path: Path, in_one_file: bool) -> None:
    authority = trustme.CA()
    issued = authority.issue_cert("127.0.0.1")
    certificate, key, both = tmp_path / "certificate", tmp_path / "key", tmp_path / "both"
    issued.cert_chain_pems[0].write_to_path(str(certificate))
    issued.private_key_pem.write_to_path(str(key))
    issued.private_key_and_cert_chain_pem.write_to_path(str(both))
    trusting = ssl.create_default_context()
    authority.configure_trust(trusting)  # pyright: ignore[reportUnknownMemberType]  # it can also be another library's context
    files = ["--certificate", str(both)] if in_one_file else ["--certificate", str(certificate), "--key", str(key)]
    command.start(*ANY_PORT, *files)
    url = await command.line()
    assert url.startswith("wss://127.0.0.1:")
    with trio.fail_after(SECONDS):
        async with (
            open_device_connection(url, DEVICE, system_info=INFO, token=TOKEN, ssl_context=trusting),
            open_connection(url, DEVICE, token=TOKEN, ssl_context=trusting) as connection,
        ):
            assert (await connection.run_task("echo hi")).unwrap() == {"echo": "hi"}


def test_a_certificate_that_cannot_be_used_is_one_sentence(call: Call, tmp_path: Path) -> None:
    authority = trustme.CA()
    certificate, key, text = (str(tmp_path / name) for name in ("certificate", "key", "text"))
    authority.issue_cert("127.0.0.1").cert_chain_pems[0].write_to_path(certificate)
    authority.issue_cert("127.0.0.1").private_key_pem.write_to_path(key)
    (tmp_path / "text").write_text("no certificate")

    def problem(*arguments: str) -> str:
        outcome = call(*ANY_PORT, *arguments)
        assert (outcome.status, outcome.out, is_one_sentence(outcome)) == (2, "", True)
        return outcome.err

    assert "--certificate" in problem("--key", key)
    for unusable in (text, certificate):
        assert "in PEM format" in problem("--certificate", unusable)
    assert "of one pair" in problem("--certificate", certificate, "--key", key)
    assert "no such file" in problem("--certificate", certificate, "--key", str(tmp_path / "x"))


# ---- what it cannot do


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--host", "0.0.0.0"], "cannot listen"),  # noqa: S104  # that is the point
        (
            ["--host", "192.0.2.1"],
            "cannot listen at '192.0.2.1', port PORT: ",
        ),  # an address of documentation's, nobody's own
        (["--host", "a..b"], "cannot listen at 'a..b', port PORT: this is no name of a host"),
        ([], "cannot listen at '127.0.0.1', port PORT: address already in use"),
        (["--port", "70000"], "--port"),
        (["--max-connections", "0"], "--max-connections"),
        (["--host", "\udcff"], "UTF-8"),
        (["--device-config", "FOLDER/none.yaml"], "cannot be read: No such file"),
        (["--device-config", "FOLDER/bad.json"], "is not JSON"),
        (["--device-config", "FOLDER/bad.yaml"], "has no 'devices'"),
        (["--token-file", "FOLDER/none"], "no such file"),
        (["--token-file", "FOLDER/empty"], "is empty"),
        (["--token-file", "FOLDER/binary"], "is not UTF-8 text"),
    ],
)
def test_what_it_cannot_do_is_one_sentence_on_stderr_and_status_2(
    call: Call, tmp_path: Path, arguments: list[str], words: str
) -> None:
    (tmp_path / "bad.json").write_text("{")
    (tmp_path / "bad.yaml").write_text("- a")
    (tmp_path / "empty").write_text(" \n\n")
    (tmp_path / "binary").write_bytes(TOKEN.encode() + b"\xff")
    with socket.create_server(("0.0.0.0", 0)) as listening:  # noqa: S104  # so that it is in use at any address
        port = str(listening.getsockname()[1])
        given = [argument.replace("FOLDER", str(tmp_path)) for argument in arguments]
        outcome = call("server", "--port", port, "-q", *given)
    assert (outcome.status, outcome.out) == (2, "")
    assert is_one_sentence(outcome)
    assert words.replace("PORT", port) in outcome.err


def test_a_server_for_others_needs_a_token(call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("GALAXY_TRIO_TOKEN")
    outcome = call(*ANY_PORT, "--host", "0.0.0.0")  # noqa: S104  # that is the point
    assert (outcome.status, outcome.out, is_one_sentence(outcome)) == (2, "", True)
    assert "needs a token: give one in GALAXY_TRIO_TOKEN or with --token-file" in outcome.err


# ---- how it ends


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@beside_a_command
async def test_a_signal_ends_it_in_good_order_and_its_clients_see_that_it_goes_away(
    command: Command, number: int
) -> None:
    command.start(*ANY_PORT)
    url = await command.line()
    with trio.fail_after(SECONDS):
        async with (
            open_device_connection(url, DEVICE, system_info=INFO, token=TOKEN) as device,
            open_connection(url, DEVICE, token=TOKEN) as client,
        ):
            command.send_signal(number)
            for connection in (device, client):
                lost = await connection.wait_closed()
                assert lost is not None
                assert lost.code == 1001
    outcome = await command.end()
    assert (outcome.status, outcome.out) == (0, f"{url}\n")
    assert "error" not in outcome.err
    assert "Traceback" not in outcome.err


@asynccontextmanager
async def open_mute_client(url: str) -> AsyncGenerator[None]:
    """A registered device that reads nothing more, and so answers no close."""
    port = _port(url)
    register = {"type": "register", "status": "ok", "client_id": DEVICE}
    async with await trio.open_tcp_stream("127.0.0.1", port) as stream:
        await stream.send_all(_handshake(f"localhost:{port}"))
        assert b"101" in await stream.receive_some()
        await stream.send_all(FrameProtocol(client=True, extensions=[]).send_data(json.dumps(register)))
        yield


@beside_a_command
async def test_a_second_signal_ends_it_at_once(command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    close_without_a_limit(monkeypatch)
    command.start(*ANY_PORT, "-v")
    url = await command.line()
    with trio.fail_after(SECONDS):
        async with open_mute_client(url):
            await command.said(f"device {DEVICE!r} has registered")
            command.send_signal(signal.SIGINT)
            await command.said(f"closing the connection to device {DEVICE!r}\n")
            command.send_signal(signal.SIGTERM)
            outcome = await command.end()
    assert outcome.status == 0
    assert "Traceback" not in outcome.err


def test_an_error_while_it_stops_is_not_hidden() -> None:
    class Broken(Exception):
        pass

    async def service(error: Exception, stop: trio.Event) -> None:
        signal.raise_signal(signal.SIGTERM)
        with trio.fail_after(SECONDS):
            await stop.wait()
        raise error

    with pytest.raises(Broken):
        run_service(partial(service, Broken()))
    lost = ConnectionLost("gone")
    with pytest.raises(ConnectionLost) as caught:
        run_service(partial(service, lost))
    assert caught.value is lost


def test_a_signal_before_all_is_set_up_cancels_and_ends_well() -> None:
    cancelled: list[bool] = []

    async def service(stop: trio.Event) -> None:
        signal.raise_signal(signal.SIGINT)
        try:
            await trio.sleep(SECONDS)
        except trio.Cancelled:
            cancelled.append(True)
            raise

    assert run_service(service) == 0
    assert cancelled == [True]


def test_a_signal_that_comes_while_nothing_waits_for_the_stop_cancels() -> None:
    async def work() -> None:
        signal.raise_signal(signal.SIGTERM)
        await trio.sleep(SECONDS)

    with pytest.raises(Interrupted):
        run_trio(work, trio.Event())


# ---- streams


@pytest.mark.parametrize("stream", ["stdout", "stderr"])
async def test_a_reader_that_has_gone_is_no_reason_to_complain(stream: str) -> None:
    reading_end, writing_end = os.pipe()
    os.close(reading_end)
    with trio.fail_after(SECONDS):
        try:
            if stream == "stdout":
                async with open_process(*ANY_PORT, stdout=writing_end) as process:
                    outcome = await process.end()
                assert outcome.status == 141
                assert "Traceback" not in outcome.err
                assert "error" not in outcome.err
            else:
                async with open_process(*ANY_PORT, "-v", stderr=writing_end) as process:
                    url = (await process.said("\n")).strip()
                    assert await is_let_in(url, TOKEN)
                    process.send_signal(signal.SIGTERM)
                    assert await process.end() == Outcome(0, f"{url}\n", "")
        finally:
            os.close(writing_end)
