"""The doctor's checks of servers, on real sockets: each step that can fail, devices that are missing, clocks that differ."""

from __future__ import annotations

import socket
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import TYPE_CHECKING

import pytest
import trio
import trustme

from galaxy_trio import DeviceConfig
from galaxy_trio._cli.doctor.findings import Finding, Level, Section
from galaxy_trio._cli.doctor.servers import check_servers
from galaxy_trio.agent import open_device_connection
from galaxy_trio.server import open_server
from tests.cli.support.command_line import DEVICE, TOKEN
from tests.cli.support.world import INFO, open_world
from tests.support.waiting import SECONDS

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Awaitable, Callable
    from pathlib import Path


async def check(*devices: DeviceConfig, timeout: float = SECONDS) -> list[Section]:
    sections: list[Section] = []
    with trio.fail_after(2 * SECONDS):
        await check_servers(devices, timeout, sections.append)
    return sections


async def findings(*devices: DeviceConfig, timeout: float = SECONDS) -> list[Finding]:
    [section] = await check(*devices, timeout=timeout)
    assert TOKEN not in str(section)
    return section.findings


async def only_problem(*devices: DeviceConfig, timeout: float = SECONDS) -> Finding:
    """The problem, which is the last finding, after what passed."""
    *passed, last = await findings(*devices, timeout=timeout)
    assert [finding.level for finding in passed] in ([], [Level.OK])
    assert (last.level, bool(last.advice)) == (Level.PROBLEM, True)
    return attach(passed, last)


def attach(passed: list[Finding], problem: Finding) -> Finding:
    before = f"[{passed[0].text}] " if passed else ""
    return Finding(problem.level, before + problem.text, problem.advice)


@asynccontextmanager
async def open_port(serve: Callable[[trio.SocketStream], Awaitable[object]]) -> AsyncGenerator[int]:
    """Listen at a port of this machine, and handle each connection."""
    async with trio.open_nursery() as nursery:
        [listener] = await trio.open_tcp_listeners(0, host="127.0.0.1")
        nursery.start_soon(trio.serve_listeners, serve, [listener])
        yield listener.socket.getsockname()[1]
        nursery.cancel_scope.cancel()


async def say_nothing(stream: trio.SocketStream) -> None:
    async with stream:
        await trio.sleep_forever()


async def answer(text: bytes, stream: trio.SocketStream) -> None:
    async with stream:
        await stream.receive_some()
        await stream.send_all(text)


async def test_registered_device_and_its_server_pass_every_check() -> None:
    async with open_world() as server:
        url = server.url.replace("127.0.0.1", "localhost")
        assert await findings(DeviceConfig(DEVICE, url, token=TOKEN)) == [
            Finding(Level.OK, "DNS, TCP, WebSocket handshake, registration"),
            Finding(Level.OK, "the server's clock and this machine's agree"),
            Finding(Level.OK, f"device {DEVICE} registered (linux)"),
        ]


async def test_refused_connection_is_a_problem_of_tcp() -> None:
    problem = await only_problem(DeviceConfig("a", "ws://127.0.0.1:1"))
    assert problem.text.startswith("TCP: cannot connect to ws://127.0.0.1:1/ws: connection refused")
    assert "start the server" in problem.advice


async def test_unknown_host_is_a_problem_of_dns() -> None:
    problem = await only_problem(DeviceConfig("a", "ws://no.such.host.invalid"))
    assert problem.text.startswith("DNS: cannot connect to ws://no.such.host.invalid:80/ws: ")
    assert "name servers" in problem.advice


async def test_silent_server_is_a_problem_of_the_handshake_and_of_tls() -> None:
    async with open_port(say_nothing) as port:
        problem = await only_problem(DeviceConfig("a", f"ws://127.0.0.1:{port}"), timeout=0.3)
        assert problem.text.startswith("[TCP] WebSocket handshake: ")
        assert "says nothing" in problem.advice
        problem = await only_problem(DeviceConfig("a", f"wss://127.0.0.1:{port}"), timeout=0.3)
        assert problem.text.startswith("[TCP] TLS: ")
        assert "says nothing" in problem.advice


async def test_host_that_accepts_no_connection_in_time_is_a_problem_of_tcp() -> None:
    with socket.socket() as full:
        # A full backlog: further connections get no answer, as behind a firewall that drops them.
        full.bind(("127.0.0.1", 0))
        full.listen(0)
        waiting = [socket.socket() for _ in range(4)]
        for one in waiting:
            one.setblocking(False)
            one.connect_ex(full.getsockname())
        problem = await only_problem(DeviceConfig("a", f"ws://127.0.0.1:{full.getsockname()[1]}"), timeout=0.3)
        for one in waiting:
            one.close()
    assert problem.text.startswith("TCP: ")
    assert "firewalls" in problem.advice


async def test_dns_that_does_not_answer_in_time_is_a_problem_of_dns(monkeypatch: pytest.MonkeyPatch) -> None:
    async def hang(*arguments: object, **options: object) -> object:
        return await trio.sleep_forever()

    monkeypatch.setattr(trio.socket, "getaddrinfo", hang)
    assert (await only_problem(DeviceConfig("a", "ws://slow.example"), timeout=0.1)).text.startswith("DNS: ")


@pytest.mark.parametrize(
    ("said", "words"),
    [
        (b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n", "status 404"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", "status 200"),
        (b"SSH-2.0-OpenSSH_9.2\r\n\r\n", "no WebSocket at"),
        (b"", "no WebSocket at"),
    ],
    ids=["not found", "web page", "ssh", "nothing"],
)
async def test_server_that_is_no_websocket_server_is_a_problem_of_the_handshake(said: bytes, words: str) -> None:
    async with open_port(partial(answer, said)) as port:
        problem = await only_problem(DeviceConfig("a", f"ws://127.0.0.1:{port}"))
    assert problem.text.startswith("[TCP] WebSocket handshake: ")
    assert words in problem.text
    assert "server_url" in problem.advice


@pytest.mark.parametrize(
    ("status", "advice"), [("421 No", "--allow-host"), ("503 No", "try again later"), ("500 No", "log of the server")]
)
async def test_server_that_refuses_by_its_status_gets_advice_about_it(status: str, advice: str) -> None:
    async with open_port(partial(answer, f"HTTP/1.1 {status}\r\nContent-Length: 0\r\n\r\n".encode())) as port:
        assert advice in (await only_problem(DeviceConfig("a", f"ws://127.0.0.1:{port}"))).advice


async def test_system_that_contradicts_the_configuration_is_a_warning_with_both() -> None:
    async with open_world() as server:
        *_, warning = await findings(DeviceConfig(DEVICE, server.url, token=TOKEN, os="solaris"))
    assert (warning.level, warning.advice) == (Level.WARNING, "correct its configuration")
    assert warning.text.startswith(f"device {DEVICE}: its os is configured as 'solaris', and the device reports '")


async def test_wrong_token_is_a_problem_of_the_handshake_and_says_where_to_set_it() -> None:
    async with open_world() as server:
        problem = await only_problem(DeviceConfig(DEVICE, server.url, token="wrong"))
        assert problem.text.startswith("[TCP] WebSocket handshake: ")
        assert "status 403" in problem.text
        assert problem.advice.startswith("set token_file")
        # Another device of the server may have the right one.
        devices = [DeviceConfig("a", server.url, token="wrong"), DeviceConfig(DEVICE, server.url, token=TOKEN)]
        steps, clock, registered, refused = await findings(*devices)
    assert [finding.level for finding in (steps, clock, registered)] == [Level.OK] * 3
    assert "status 403" in refused.text


async def test_plain_server_behind_wss_and_foreign_certificate_are_problems_of_tls(tmp_path: Path) -> None:
    authority = trustme.CA()
    authority.cert_pem.write_to_path(tmp_path / "ca.pem")
    async with open_world() as plain, open_world(authority=authority) as secure:
        problem = await only_problem(DeviceConfig(DEVICE, plain.url.replace("ws:", "wss:"), token=TOKEN))
        assert problem.text.startswith("[TCP] TLS: no TLS connection to ")
        problem = await only_problem(DeviceConfig(DEVICE, secure.url, token=TOKEN))
        assert problem.text.startswith("[TCP] TLS: no TLS connection to ")
        assert "certificate is not accepted" in problem.text
        assert "ca_file" in problem.advice
        trusting = DeviceConfig(DEVICE, secure.url, token=TOKEN, ca_file=str(tmp_path / "ca.pem"))
        assert (await findings(trusting))[0].text == "TCP, TLS, WebSocket handshake, registration"
        lacking = DeviceConfig(DEVICE, secure.url, token=TOKEN, ca_file=str(tmp_path / "none.pem"))
        assert (await only_problem(lacking)).advice == "correct ca_file"


async def test_missing_device_says_how_to_start_its_agent() -> None:
    async with open_world() as server:
        devices = [DeviceConfig(name, server.url, token=TOKEN) for name in ("my phone", DEVICE)]
        steps, _, registered, missing = await findings(*devices)
        assert (steps.text, registered.level) == ("TCP, WebSocket handshake, registration", Level.OK)
        assert missing.text == "device my phone not registered with the server"
        assert missing.advice.endswith(f"galaxy-trio agent {server.url} 'my phone'")
        assert [finding.text for finding in await findings(devices[0])] == [steps.text, missing.text]


async def test_devices_with_the_same_result_are_reported_together() -> None:
    names = [f"d{number}" for number in range(30)]
    async with open_server(token=TOKEN) as server, trio.open_nursery() as nursery:
        for name in names[:8]:
            await nursery.start(_register, server.url, name)
        devices = [DeviceConfig(name, server.url, token=TOKEN) for name in names]
        _, _, registered, missing = await findings(*devices)
        nursery.cancel_scope.cancel()
    assert registered.text == "8 devices, d0, d1, d2, d3, d4 and 3 more, registered (linux)"
    assert missing.text == "22 devices, d8, d9, d10, d11, d12 and 17 more, not registered with the server"
    lost = [DeviceConfig(name, "ws://127.0.0.1:1") for name in names]
    refused, unchecked = await findings(*lost)
    assert (refused.level, unchecked.text) == (Level.PROBLEM, "not checked: 29 more devices")


async def _register(url: str, name: str, *, task_status: trio.TaskStatus[None]) -> None:
    async with open_device_connection(url, name, system_info=INFO, token=TOKEN):
        task_status.started()
        await trio.sleep_forever()


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (0, None),
        (55, None),
        (-55, None),
        (90, "the server's clock is 90 s ahead of this machine's"),
        (-7_300, "the server's clock is 2 h behind this machine's"),
    ],
)
async def test_clocks_may_differ_by_a_minute(
    seconds: float, words: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with open_world() as server:
        monkeypatch.setattr(
            "galaxy_trio.server.client_handler.wall_clock.timestamp",
            lambda: (datetime.now(UTC) + timedelta(seconds=seconds)).isoformat(),
        )
        _, clock, _ = await findings(DeviceConfig(DEVICE, server.url, token=TOKEN))
    if words is None:
        assert clock.level is Level.OK
    else:
        assert (clock.level, clock.text) == (Level.PROBLEM, words)
        assert "NTP" in clock.advice


@pytest.mark.parametrize(("sent", "level"), [("yesterday", Level.WARNING), ("", Level.WARNING), (None, None)])
async def test_time_that_cannot_be_read_is_a_warning_and_none_is_not_checked(
    sent: str | None, level: Level | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with open_world() as server:
        monkeypatch.setattr("galaxy_trio.server.client_handler.wall_clock.timestamp", lambda: sent)
        found = await findings(DeviceConfig(DEVICE, server.url, token=TOKEN))
    assert [finding.level for finding in found[1:-1]] == ([] if level is None else [level])


async def test_time_without_a_zone_is_in_utc(monkeypatch: pytest.MonkeyPatch) -> None:
    async with open_world() as server:
        monkeypatch.setattr(
            "galaxy_trio.server.client_handler.wall_clock.timestamp",
            lambda: datetime.now(UTC).replace(tzinfo=None).isoformat(),
        )
        _, clock, _ = await findings(DeviceConfig(DEVICE, server.url, token=TOKEN))
    assert clock.level is Level.OK


async def test_token_that_cannot_be_read_is_a_problem_of_its_device(tmp_path: Path) -> None:
    async with open_world() as server:
        lacking = DeviceConfig("a", server.url, token_file=str(tmp_path / "none"))
        problem = await only_problem(lacking)
        assert "the token of device 'a' cannot be read" in problem.text
        *passed, last = await findings(lacking, DeviceConfig(DEVICE, server.url, token=TOKEN))
    assert [finding.level for finding in passed] == [Level.OK] * 3
    assert last.text == problem.text


async def test_servers_are_checked_side_by_side_and_reported_in_the_order_of_the_file() -> None:
    arrived = 0
    both = trio.Event()

    async def wait_for_both(stream: trio.SocketStream) -> None:
        nonlocal arrived
        arrived += 1
        if arrived == 2:
            both.set()
        async with stream:
            await both.wait()

    async with open_port(wait_for_both) as one, open_port(wait_for_both) as other:
        devices = [DeviceConfig("a", f"ws://127.0.0.1:{one}"), DeviceConfig("b", f"ws://127.0.0.1:{other}")]
        sections = await check(*devices)
    assert [section.subject for section in sections] == [f"ws://127.0.0.1:{one}/ws", f"ws://127.0.0.1:{other}/ws"]


async def test_server_that_never_confirms_the_registration_is_a_problem_of_the_registration(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def ignore(handler: object, message: object) -> None:
        pass

    monkeypatch.setattr("galaxy_trio.server.client_handler.ClientHandler._register", ignore)
    async with open_server(token=TOKEN) as server:
        problem = await only_problem(DeviceConfig(DEVICE, server.url, token=TOKEN), timeout=0.3)
    assert problem.text.startswith("[TCP, WebSocket handshake] registration: ")
    assert "an AIP server?" in problem.advice
