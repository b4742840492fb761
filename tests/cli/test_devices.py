"""``galaxy-trio devices`` and ``galaxy-trio check``: their output and exit status."""

from __future__ import annotations

import io
import json
import signal
import socket
from contextlib import asynccontextmanager
from functools import partial
from typing import TYPE_CHECKING, cast

import pytest
import trio
from rich.console import Console

from galaxy_trio import DeviceConfig, DeviceInfo
from galaxy_trio._cli.devices import show_once, watch
from galaxy_trio.agent import open_device_connection
from galaxy_trio.constellation.config import ConstellationConfig
from galaxy_trio.events import DeviceFailed, DeviceNeedsAttention, EventsLost
from galaxy_trio.server import open_server
from tests.cli.support.command_line import (
    DEVICE,
    NO_SERVER,
    TOKEN,
    Call,
    Command,
    with_command,
)
from tests.support.waiting import SECONDS

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Mapping
    from pathlib import Path


def write(folder: Path, *devices: Mapping[str, object]) -> str:
    path = folder / "devices.json"
    path.write_text(json.dumps({"devices": list(devices)}), encoding="utf-8")
    return str(path)


@asynccontextmanager
async def open_device() -> AsyncGenerator[str]:
    """Open a server with a device, and yield its URL."""
    info = DeviceInfo(DEVICE, "linux", supported_features=["cli"])
    async with (
        open_server(token=TOKEN) as server,
        open_device_connection(server.url, DEVICE, system_info=info, token=TOKEN),
    ):
        yield server.url


def config_for(url: str, *device_ids: str) -> ConstellationConfig:
    return ConstellationConfig(tuple(DeviceConfig(device_id, url, token=TOKEN) for device_id in device_ids))


class Screen(io.StringIO):
    """An output stream that a test can wait for."""

    def __init__(self) -> None:
        super().__init__()
        self._written = trio.Event()

    def write(self, text: str, /) -> int:
        self._written.set()
        self._written = trio.Event()
        return super().write(text)

    async def wait_for_output(self, words: str) -> None:
        while words not in self.getvalue():
            await self._written.wait()


def test_check_counts_the_devices_and_servers_of_a_valid_file(call: Call, tmp_path: Path) -> None:
    devices = [
        {"device_id": "a", "server_url": "ws://one/ws"},
        {"device_id": "b", "server_url": "ws://ONE/ws"},
        {"device_id": "c", "server_url": "ws://two:5000/ws", "token": TOKEN},
    ]
    outcome = call("check", write(tmp_path, *devices))
    assert (outcome.status, outcome.err) == (0, "")
    assert outcome.out.endswith("devices.json: 3 devices, 2 servers\n")
    assert call("check", write(tmp_path, devices[0])).out.endswith(": 1 device, 1 server\n")


def test_check_prints_every_problem_on_a_line_and_no_token(call: Call, tmp_path: Path) -> None:
    outcome = call(
        "check", write(tmp_path, {"device_id": "a", "server_ulr": "ws://x"}, {"device_id": 5, "server_url": "ws://x", "token": [TOKEN]})
    )  # fmt: skip
    *problems, last = outcome.err.splitlines()
    assert (outcome.status, outcome.out) == (2, "")
    assert "devices[0].server_ulr: unknown key; did you mean 'server_url'?" in problems
    assert len(problems) == 4
    assert last.endswith("devices.json: 4 problems")
    assert TOKEN not in outcome.err


@pytest.mark.parametrize("command_name", ["check", "devices"])
def test_unreadable_file_is_one_sentence(call: Call, tmp_path: Path, command_name: str) -> None:
    outcome = call(command_name, str(tmp_path / "nothing.toml"))
    assert outcome.status == 2
    assert outcome.err.startswith("error: the configuration")
    assert outcome.err.count("\n") == 1


async def test_once_prints_the_table_and_exits_with_0_if_all_are_connected(
    capsys: pytest.CaptureFixture[str],
) -> None:
    output = io.StringIO()
    with trio.fail_after(SECONDS):
        async with open_device() as url:
            console = Console(file=output, width=80)
            assert await show_once(config_for(url, DEVICE), 5, console, as_json=False) == 0
            assert await show_once(config_for(url, DEVICE), 5, console, as_json=True) == 0
    assert output.getvalue().splitlines()[1].split()[:3] == [DEVICE, "idle", "linux"]
    assert json.loads(capsys.readouterr().out)["devices"][DEVICE]["status"] == "idle"


async def test_once_exits_with_3_if_a_device_is_not_connected() -> None:
    output = io.StringIO()
    with trio.fail_after(SECONDS):
        async with open_device() as url:
            config = config_for(url, DEVICE, "no-such-device")
            assert await show_once(config, 5, Console(file=output, width=80), as_json=False) == 3
    assert "no-such-device" in output.getvalue()
    assert "not connected" in " ".join(output.getvalue().split())


def test_once_waits_at_most_for_its_timeout(call: Call, tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:  # accepts, and says nothing
        url = f"ws://127.0.0.1:{silent.getsockname()[1]}/ws"
        outcome = call("devices", "--once", "--timeout", "0.2", write(tmp_path, {"device_id": "a", "server_url": url}))
    assert outcome.status == 3
    assert outcome.out.splitlines()[1].split()[:2] == ["a", "connecting"]


@with_command
async def test_changes_are_printed_as_lines_in_a_pipe_until_ctrl_c(command: Command, tmp_path: Path) -> None:
    async with trio.open_nursery() as nursery:
        with trio.CancelScope() as scope:
            async with open_device() as url:
                devices = [{"device_id": DEVICE, "server_url": url, "token": TOKEN}]
                command.start("devices", write(tmp_path, *devices))
                assert (await command.first_line()).endswith(f"{DEVICE} is connected")
                nursery.start_soon(trio.sleep, 0)
                scope.cancel()
        await command.wait_for_stdout(f"{DEVICE} is not connected")
        command.send_signal(signal.SIGINT)
        outcome = await command.end()
    assert outcome.status == 0
    assert TOKEN not in outcome.out + outcome.err


@with_command
async def test_json_objects_are_printed_for_changes_until_sigterm(command: Command, tmp_path: Path) -> None:
    command.start("devices", "--json", write(tmp_path, {"device_id": "a", "server_url": NO_SERVER}))
    first = cast("dict[str, dict[str, object]]", json.loads(await command.first_line()))
    assert list(first["devices"]) == ["a"]
    command.send_signal(signal.SIGTERM)
    assert (await command.end()).status == 0


async def test_table_is_live_on_a_terminal() -> None:
    output, stop = Screen(), trio.Event()
    console = Console(file=output, width=80, height=24, force_terminal=True, force_interactive=True)
    with trio.fail_after(SECONDS):
        async with open_device() as url, trio.open_nursery() as nursery:
            nursery.start_soon(watch, config_for(url, DEVICE), console, False, stop)
            await output.wait_for_output("idle")
            stop.set()
    assert "\x1b[2K" in output.getvalue()


@pytest.mark.parametrize(
    ("event", "line"),
    [
        (DeviceFailed("a", "bad certificate"), "a failed: bad certificate"),
        (DeviceNeedsAttention("a", "HTTP 403"), "a needs attention: HTTP 403"),
        (EventsLost(7), "7 changes not shown: they came faster than they could be printed"),
    ],
    ids=lambda value: type(value).__name__,
)
async def test_failures_and_lost_events_are_printed_as_lines(
    event: object, line: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    stop = trio.Event()

    class Stream:
        def __init__(self) -> None:
            self.events = [event]

        def __aiter__(self) -> Stream:
            return self

        async def __anext__(self) -> object:
            await trio.lowlevel.checkpoint()
            if self.events:
                return self.events.pop()
            stop.set()
            raise StopAsyncIteration

    @asynccontextmanager
    async def subscribe(constellation: object) -> AsyncGenerator[Stream]:
        await trio.lowlevel.checkpoint()
        yield Stream()

    monkeypatch.setattr("galaxy_trio.constellation.constellation.Constellation.subscribe", subscribe)
    with trio.fail_after(SECONDS):
        await partial(watch, ConstellationConfig(()), Console(file=io.StringIO()), False, stop)()
    assert capsys.readouterr().out.endswith(f"{line}\n")
