"""``galaxy-trio server``: its output, access, TLS, and shutdown."""

from __future__ import annotations

import json
import os
import signal
import socket
import ssl
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import pytest
import trio
import trustme
from wsproto.frame_protocol import FrameProtocol

from galaxy_trio import (
    HandshakeRejected,
    RegistrationRejected,
    TaskStatus,
    open_connection,
)
from galaxy_trio._transport.url import parse_url
from galaxy_trio.agent import open_agent, open_device_connection
from galaxy_trio.agent.example_tools import add, list_directory
from galaxy_trio.messages import DeviceInfo
from tests.cli.support.command_line import (
    DEVICE,
    TOKEN,
    Call,
    Command,
    Outcome,
    ask,
    is_one_sentence,
    open_process,
    with_command,
)
from tests.support.waiting import SECONDS, close_without_a_limit

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Sequence
    from pathlib import Path


INFO = DeviceInfo(DEVICE, "linux")
ANY_PORT = ("server", "--port", "0")


async def is_accepted(url: str, token: str | None, headers: Sequence[tuple[str, str]] = ()) -> bool:
    """Return whether the server accepts a client's handshake."""
    with trio.fail_after(SECONDS), pytest.raises((HandshakeRejected, RegistrationRejected)) as rejected:
        async with open_connection(url, "no-such-device", token=token, headers=headers):
            pass
    error = rejected.value
    assert not isinstance(error, HandshakeRejected) or error.status_code == 403
    return isinstance(error, RegistrationRejected)


@with_command
async def test_server_prints_only_its_url_and_runs_requests_as_commands(command: Command) -> None:
    command.start(*ANY_PORT)
    url = await command.first_line()
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
@with_command
async def test_options_select_how_much_is_logged(
    command: Command, before: Sequence[str], after: Sequence[str], says_what_happens: bool, says_more: bool
) -> None:
    command.start(*before, *ANY_PORT, *after)
    url = await command.first_line()
    assert await is_accepted(url, TOKEN)
    command.send_signal(signal.SIGTERM)
    outcome = await command.end()
    assert (outcome.status, outcome.out) == (0, f"{url}\n")
    assert (" listening at " in outcome.err, " DEBUG " in outcome.err) == (says_what_happens, says_more)


@with_command
async def test_text_from_peers_is_escaped_in_the_log(command: Command) -> None:
    command.start(*ANY_PORT)
    url = await command.first_line()
    evil = "x\n00:00:00 forged\x1b[31m"
    async with open_device_connection(url, evil, system_info=DeviceInfo(evil, "linux"), token=TOKEN):
        await ask(url, "echo a\n00:00:00 forged\x1b[31m", device=evil)
    command.send_signal(signal.SIGTERM)
    output = (await command.end()).err
    assert [line for line in output.splitlines() if line.startswith("00:00:00")] == []
    assert "forged" in output
    assert "\x1b" not in output


@with_command
async def test_client_needs_the_token_in_the_environment(command: Command) -> None:
    command.start(*ANY_PORT)
    url = await command.first_line()
    assert await is_accepted(url, TOKEN)
    assert not await is_accepted(url, "wrong")
    assert not await is_accepted(url, None)


@with_command
async def test_server_without_a_token_accepts_clients_of_this_machine(
    command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("GALAXY_TRIO_TOKEN")
    command.start(*ANY_PORT)
    assert await is_accepted(await command.first_line(), None)


@with_command
async def test_each_line_of_a_token_file_is_accepted_instead_of_the_environment(
    command: Command, tmp_path: Path
) -> None:
    file = tmp_path / "tokens"
    file.write_text("\ufeff old-one \r\n\n\tnew-one", "utf-8")
    command.start(*ANY_PORT, "--token-file", str(file))
    url = await command.first_line()
    assert await is_accepted(url, "old-one")
    assert await is_accepted(url, "new-one")
    for wrong in (TOKEN, "old-one \r\n\n\tnew-one", "", None):
        assert not await is_accepted(url, wrong)
    command.send_signal(signal.SIGTERM)
    output = (await command.end()).err
    assert not any(token in output for token in ("old-one", "new-one"))
    assert TOKEN not in output


def test_several_tokens_for_a_client_are_a_usage_error(call: Call, tmp_path: Path) -> None:
    file = tmp_path / "tokens"
    file.write_text(f"{TOKEN}\nanother\n")
    outcome = call("info", "ws://127.0.0.1:1", DEVICE, "--token-file", str(file))
    assert (outcome.status, is_one_sentence(outcome)) == (2, True)
    assert outcome.err.endswith(" contains 2 lines: remove the others\n")


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


@with_command
async def test_only_allowed_origins_and_host_names_are_accepted(command: Command) -> None:
    command.start(*ANY_PORT, "--allow-origin", "https://a.example", "--allow-host", "b.example")
    url = await command.first_line()
    port = _port(url)
    assert await is_accepted(url, TOKEN, [("Origin", "https://a.example")])
    assert not await is_accepted(url, TOKEN, [("Origin", "https://b.example")])
    for name, status in (("b.example", 101), ("localhost", 101), ("a.example", 421)):
        with trio.fail_after(SECONDS):
            async with await trio.open_tcp_stream("127.0.0.1", port) as stream:
                await stream.send_all(_handshake(f"{name}:{port}"))
                assert (await stream.receive_some()).startswith(f"HTTP/1.1 {status} ".encode())


@with_command
async def test_connections_above_the_limit_are_closed(command: Command) -> None:
    command.start(*ANY_PORT, "--max-connections", "1")
    url = await command.first_line()
    port = _port(url)
    async with open_device_connection(url, DEVICE, system_info=INFO, token=TOKEN):
        with trio.fail_after(SECONDS):
            async with await trio.open_tcp_stream("127.0.0.1", port) as stream:
                assert await stream.receive_some() == b""
    assert "turned away" in await command.wait_for_stderr("turned away")


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("devices.yaml", f"devices:\n  {DEVICE}:\n    tags: [lab]\n"),
        ("devices.json", json.dumps({"devices": {DEVICE: {"tags": ["lab"]}}})),
    ],
)
@with_command
async def test_device_configuration_is_merged_into_the_device_information(
    command: Command, tmp_path: Path, name: str, content: str
) -> None:
    file = tmp_path / name
    file.write_text(content)
    command.start(*ANY_PORT, "--device-config", str(file))
    url = await command.first_line()
    async with open_device_connection(url, DEVICE, system_info=INFO, token=TOKEN):
        async with open_connection(url, DEVICE, token=TOKEN) as connection:
            assert (await connection.device_info(timeout=SECONDS)).tags == ["lab"]


@pytest.mark.parametrize("in_one_file", [True, False])
@with_command
async def test_server_with_a_certificate_uses_tls(command: Command, tmp_path: Path, in_one_file: bool) -> None:
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
    url = await command.first_line()
    assert url.startswith("wss://127.0.0.1:")
    with trio.fail_after(SECONDS):
        async with (
            open_device_connection(url, DEVICE, system_info=INFO, token=TOKEN, ssl_context=trusting),
            open_connection(url, DEVICE, token=TOKEN, ssl_context=trusting) as connection,
        ):
            assert (await connection.run_task("echo hi")).unwrap() == {"echo": "hi"}


def test_unusable_certificate_is_one_sentence(call: Call, tmp_path: Path) -> None:
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
        assert "must be in PEM format" in problem("--certificate", unusable)
    assert "belong together" in problem("--certificate", certificate, "--key", key)
    assert "no such file" in problem("--certificate", certificate, "--key", str(tmp_path / "x"))
    marked = tmp_path / "marked"
    marked.write_bytes(b"\xef\xbb\xbf" + (tmp_path / "key").read_bytes())
    assert "marked' cannot be used: it begins with a byte order mark" in problem(
        "--certificate", certificate, "--key", str(marked)
    )


NOT_HOSTS = ("my laptop", "", "a..b", "http://a", "a/b", "127.0.0.1:5000", "a:5000", "user@a", "[::1", "x" * 64)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--host", "0.0.0.0"], "cannot listen on"),  # noqa: S104  # that is the point
        (
            ["--host", "192.0.2.1"],
            "cannot listen on '192.0.2.1', port PORT: ",
        ),  # a documentation address; RFC 5737
        ([], "port PORT: address already in use; another program listens there: stop it, or use another --port"),
        (["--host", "no.such.host.invalid"], "; use a name or an address of this machine, such as 127.0.0.1"),
        *((["--host", words], f"'--host': {words!r} is neither an IP address nor a host name") for words in NOT_HOSTS),
        *((["--allow-host", words], f"'--allow-host': {words!r} is neither") for words in NOT_HOSTS),
        (["--port", "70000"], "--port"),
        (["--max-connections", "0"], "--max-connections"),
        (["--host", "\udcff"], "UTF-8"),
        (["--device-config", "FOLDER/none.yaml"], "cannot be read: No such file"),
        (["--device-config", "FOLDER/bad.json"], "is not JSON"),
        (["--device-config", "FOLDER/bad.yaml"], "has no 'devices'"),
        (["--token-file", "FOLDER/none"], "No such file"),
        (["--token-file", "FOLDER/empty"], "there is no token in it"),
        (["--token-file", "FOLDER/binary"], "is not UTF-8 text"),
    ],
)
def test_server_that_cannot_start_is_one_sentence_and_exits_with_2(
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


def test_server_on_other_addresses_needs_a_token(call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("GALAXY_TRIO_TOKEN")
    outcome = call(*ANY_PORT, "--host", "0.0.0.0")  # noqa: S104  # that is the point
    assert (outcome.status, outcome.out, is_one_sentence(outcome)) == (2, "", True)
    assert "needs a token: set GALAXY_TRIO_TOKEN, use --token-file, or listen on 127.0.0.1" in outcome.err


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@with_command
async def test_signal_closes_connections_with_1001_and_exits_with_0(command: Command, number: int) -> None:
    command.start(*ANY_PORT)
    url = await command.first_line()
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
    """Open a registered device that stops reading and therefore does not answer a close."""
    port = _port(url)
    register = {"type": "register", "status": "ok", "client_id": DEVICE}
    async with await trio.open_tcp_stream("127.0.0.1", port) as stream:
        await stream.send_all(_handshake(f"localhost:{port}"))
        assert b"101" in await stream.receive_some()
        await stream.send_all(FrameProtocol(client=True, extensions=[]).send_data(json.dumps(register)))
        yield


@with_command
async def test_second_signal_exits_immediately(command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    close_without_a_limit(monkeypatch)
    command.start(*ANY_PORT, "-v")
    url = await command.first_line()
    with trio.fail_after(SECONDS):
        async with open_mute_client(url):
            await command.wait_for_stderr(f"device {DEVICE!r} has registered")
            command.send_signal(signal.SIGINT)
            await command.wait_for_stderr(f"closing the connection to device {DEVICE!r}\n")
            command.send_signal(signal.SIGTERM)
            outcome = await command.end()
    assert outcome.status == 0
    assert "Traceback" not in outcome.err


@pytest.mark.parametrize("stream", ["stdout", "stderr"])
async def test_closed_pipe_causes_no_error_message(stream: str) -> None:
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
                    url = (await process.wait_for_output("\n")).strip()
                    assert await is_accepted(url, TOKEN)
                    process.send_signal(signal.SIGTERM)
                    assert await process.end() == Outcome(0, f"{url}\n", "")
        finally:
            os.close(writing_end)
