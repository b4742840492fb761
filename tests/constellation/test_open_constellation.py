"""A constellation is opened from a file, a configuration or devices. Invalid arguments are refused before anything is opened."""

from __future__ import annotations

import json
import math
from typing import TYPE_CHECKING

import pytest
import trio
import trio.testing

from galaxy_trio import ConfigError, ConnectionOptions, DeviceInfo
from galaxy_trio._concurrency.background import open_background
from galaxy_trio.agent import open_device_connection
from galaxy_trio.constellation.config import ConstellationConfig, DeviceConfig, read_config
from galaxy_trio.constellation.constellation import open_constellation
from galaxy_trio.events import DeviceDisconnected, DeviceStatus
from galaxy_trio.server import open_server
from tests.constellation.support.fleet import device_config
from tests.constellation.support.scripted_server import LongestWaits, Reaction, open_scripted_server

if TYPE_CHECKING:
    from pathlib import Path

    from trio.testing import MockClock

YAML = """
CONSTELLATION_ID: my_house
HEARTBEAT_INTERVAL: 12
RECONNECT_DELAY: 3
MAX_CONCURRENT_TASKS: 2
devices:
  - device_id: a
    server_url: ws://server.test/ws
    os: linux
    capabilities: [server]
    metadata: {room: 1}
  - device_id: b
    server_url: ws://server.test/ws
    auto_connect: false
    max_retries: 0
"""
JSON = json.dumps(
    {
        "constellation_id": "my_house",
        "heartbeat_interval": 12,
        "reconnect_delay": 3,
        "max_concurrent_tasks": 2,
        "devices": [
            {
                "device_id": "a",
                "server_url": "ws://server.test/ws",
                "os": "linux",
                "capabilities": ["server"],
                "metadata": {"room": 1},
            },
            {"device_id": "b", "server_url": "ws://server.test/ws", "auto_connect": False, "max_retries": 0},
        ],
    }
)
TOML = """
constellation_id = "my_house"
heartbeat_interval = 12
reconnect_delay = 3
max_concurrent_tasks = 2

[[devices]]
device_id = "a"
server_url = "ws://server.test/ws"
os = "linux"
capabilities = ["server"]
metadata = {room = 1}

[[devices]]
device_id = "b"
server_url = "ws://server.test/ws"
auto_connect = false
max_retries = 0
"""


@pytest.mark.usefixtures("without_threads")
@pytest.mark.parametrize("way", ["str", "path", "config"])
@pytest.mark.parametrize(("name", "text"), [("c.yaml", YAML), ("c.json", JSON), ("c.toml", TOML)])
async def test_file_of_each_format_gives_the_same_constellation_as_the_arguments(
    way: str, name: str, text: str, tmp_path: Path, autojump_clock: MockClock
) -> None:
    path = tmp_path / name
    path.write_text(text)
    devices: str | Path | ConstellationConfig = str(path)
    if way != "str":
        devices = path if way == "path" else read_config(path)
    async with open_scripted_server() as server:
        server.script = [OSError()]
        async with open_constellation(devices, connect=server.connect, random=LongestWaits()) as constellation:
            await constellation.wait_connected()
            assert trio.current_time() == 3
            assert list(constellation.devices) == ["a", "b"]
            a, b = constellation.devices.values()
            assert server.clients[0].startswith("my_house-")
            assert (a.profile.capabilities, a.profile.metadata) == (("server",), {"room": 1})
            assert (a.status, b.status, b.config.max_retries) == (DeviceStatus.IDLE, DeviceStatus.DISCONNECTED, 0)
            await trio.sleep(13)
            beats = a.statistics().connection
            assert beats is not None
            # The registration, the request for the information, and a heartbeat.
            assert beats.messages_sent == 3
            async with open_background() as nursery:
                constellation.add_device(device_config("c"))
                await constellation.devices["c"].connect()
                for _ in range(2):
                    nursery.start_soon(a.run_task, "one of them")
                    nursery.start_soon(constellation.devices["c"].run_task, "one of them")
                nursery.start_soon(b.run_task, "one of them")
                server.then = Reaction.ACCEPT
                await b.connect()
                await trio.testing.wait_all_tasks_blocked()
                assert len(server.tasks) == 2


@pytest.mark.usefixtures("without_threads")
async def test_arguments_override_the_file(tmp_path: Path, autojump_clock: MockClock) -> None:
    path = tmp_path / "c.yaml"
    path.write_text(YAML)
    async with open_scripted_server() as server:
        server.script = [OSError()]
        async with open_constellation(
            path,
            connect=server.connect,
            random=LongestWaits(),
            client_name="other",
            options=ConnectionOptions(heartbeat_interval=5),
            reconnect_delay=0.5,
            max_concurrent_tasks=1,
        ) as constellation:
            await constellation.wait_connected()
            assert trio.current_time() == 0.5
            assert server.clients[0].startswith("other-")
            await trio.sleep(11)
            statistics = constellation.devices["a"].statistics().connection
            assert statistics is not None
            assert statistics.messages_sent == 4


async def test_any_iterable_of_devices_is_accepted_even_an_empty_one(autojump_clock: MockClock) -> None:
    async with open_scripted_server() as server:
        async with open_constellation((device_config(name) for name in "ab"), connect=server.connect) as constellation:
            await constellation.wait_connected()
            assert list(constellation.devices) == ["a", "b"]
            assert {client.partition("-")[0] for client in server.clients} == {"galaxy_trio"}
        async with open_constellation([], connect=server.connect) as constellation:
            await constellation.wait_connected()
            await constellation.add_device(device_config("c")).wait_connected()


async def test_connections_use_tcp_by_default() -> None:
    with trio.fail_after(60):
        async with (
            open_server() as server,
            open_device_connection(server.url, "a", system_info=DeviceInfo("a", "linux")),
        ):
            async with open_constellation([DeviceConfig("a", server.url)]) as constellation:
                await constellation.wait_connected()
                for _ in range(2):
                    assert (await constellation.run_task("hello")).unwrap() == {"echo": "hello"}
        async with open_constellation([DeviceConfig("a", server.url)]) as constellation:
            async with constellation.subscribe() as events:
                async for event in events:
                    if isinstance(event, DeviceDisconnected):
                        assert "connection refused" in event.reason
                        break


async def fail_to_open(devices: object, **arguments: object) -> str:
    """Open a constellation with invalid arguments. Returns the error's text."""
    with trio.fail_after(60), pytest.raises(ConfigError) as caught:
        async with open_constellation(devices, **arguments):  # type: ignore[arg-type]  # they are wrong
            raise AssertionError("not reached")
    return str(caught.value)


@pytest.mark.parametrize(
    ("devices", "words"),
    [
        (DeviceConfig("a", "ws://h"), "devices must be a file or a list of DeviceConfig, not DeviceConfig"),
        (None, "devices must be a file or a list of DeviceConfig, not NoneType"),
        ([{"device_id": "a"}], "a device must be a DeviceConfig, not dict"),
        ({"devices": []}, "a device must be a DeviceConfig, not str"),
        (["devices.yaml"], "a device must be a DeviceConfig, not str"),
        (
            [DeviceConfig("a", "ws://h"), DeviceConfig("a", "ws://i")],
            "the device 'a' is given twice: give each a different id",
        ),
    ],
    ids=str,
)
async def test_invalid_devices_are_refused_with_the_correction(devices: object, words: str) -> None:
    assert words in await fail_to_open(devices)


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        *[
            (name, value, f"{name} must be above 0, and is {value!r}")
            for name in (
                "reconnect_delay",
                "max_concurrent_tasks",
                "max_queued",
                "abandon_timeout",
            )
            for value in (0, -1, math.nan)
        ],
        ("reconnect_delay", math.inf, "reconnect_delay must be a finite number of seconds"),
        ("drain", -1, "drain must be a number of seconds, not -1"),
        ("drain", math.nan, "drain must be a number of seconds, not nan"),
        ("client_name", "", "a client_name has 1 to 64 characters, and this one has 0"),
        ("client_name", "x" * 65, "a client_name has 1 to 64 characters, and this one has 65"),
    ],
)
async def test_invalid_argument_is_refused(name: str, value: object, words: str) -> None:
    assert words in await fail_to_open([], **{name: value})


@pytest.mark.parametrize(
    ("name", "text", "words"),
    [
        ("none.yaml", None, "cannot be read: No such file or directory"),
        ("c.yaml", "devices: [", "is not YAML: "),
        ("c.yaml", "", "the file: expected an object, got nothing"),
        ("c.json", "{", "is not JSON: "),
        ("c.toml", "devices", "is not TOML: "),
        (
            "c.yaml",
            f"constellation_id: {'x' * 65}\n{YAML.partition('4')[2]}",
            "constellation_id: a client_name has 1 to",
        ),
        ("c.yaml", YAML.replace("device_id: b", "device_id: a"), "devices[1].device_id: 'a' is the id of devices[0]"),
        ("c.yaml", YAML.replace("ws://", "http://"), "devices[0].server_url: a server's URL begins with ws://"),
    ],
)
async def test_invalid_file_is_refused(name: str, text: str | None, words: str, tmp_path: Path) -> None:
    if text is not None:
        (tmp_path / name).write_text(text)
    error = await fail_to_open(str(tmp_path / name))
    assert words in error
    assert name in error
