"""The original's configuration files, of today and older, are read as they are; what they have beyond ours is listed."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from galaxy_trio import ConfigError, open_constellation, read_config

if TYPE_CHECKING:
    from pathlib import Path

TODAY = """
# What holds for all devices.
CONSTELLATION_ID: "office"
HEARTBEAT_INTERVAL: 30.0  # seconds
RECONNECT_DELAY: 5.0
MAX_CONCURRENT_TASKS: 6
MAX_STEP: 15

DEVICE_INFO: "config/galaxy/devices.yaml"

LOG_TO_MARKDOWN: true
"""
DEVICES = """
devices:
  - device_id: "desk"
    server_url: "ws://localhost:5005/ws"
    os: "windows"
    capabilities:
      - "web_browsing"
      - "send emails"
    metadata:
      os: "windows"
      performance: "medium"
      tips: "Use a new window."
    max_retries: 5

  # - device_id: "away"
  #   server_url: "ws://localhost:5006/ws"

  - device_id: "rack"
    server_url: "ws://localhost:5001/ws"
    os: "linux"
    capabilities: ["server"]
    metadata:
      error_log_pattern: "ERROR or FATAL"
    auto_connect: false
    max_retries: 3
"""
ANCHORS = """
_metadata_templates:
  production: &production
    environment: "production"
    tags: ["critical"]
    max_retries: 10
  office: &office
    environment: "office"

devices:
  - device_id: "one"
    server_url: "ws://10.0.1.50:5001/ws"
    metadata:
      <<: *production
      location: "here"
  - device_id: "two"
    server_url: "ws://localhost:5001/ws"
    metadata:
      <<: *office
      environment: "elsewhere"
"""
OLDER = """
constellation_id: "older"
heartbeat_interval: 10
reconnect_delay: 5.0
max_concurrent_tasks: 6
devices:
- auto_connect: true
  capabilities:
  - backup
  device_id: server_003
  max_retries: 10
  metadata:
    location: datacenter
    os: linux
  server_url: ws://192.168.1.102:5000/ws
"""


def _write(folder: Path, name: str, text: str) -> Path:
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    return path


async def test_todays_files_are_read_in_the_originals_folders(tmp_path: Path) -> None:
    path = _write(tmp_path, "config/galaxy/constellation.yaml", TODAY)
    _write(tmp_path, "config/galaxy/devices.yaml", DEVICES)
    config = read_config(path)
    assert (config.constellation_id, config.heartbeat_interval, config.reconnect_delay) == ("office", 30.0, 5.0)
    assert config.max_concurrent_tasks == 6
    assert config.unused == ("MAX_STEP", "LOG_TO_MARKDOWN")
    desk, rack = config.devices
    assert (desk.os, desk.capabilities, desk.max_retries, desk.auto_connect) == (
        "windows",
        ("web_browsing", "send emails"),
        5,
        True,
    )
    assert (rack.metadata, rack.auto_connect) == ({"error_log_pattern": "ERROR or FATAL"}, False)
    _write(tmp_path, "config/galaxy/devices.yaml", DEVICES.replace("max_retries: 5", "auto_connect: false"))
    async with open_constellation(path) as constellation:
        assert list(constellation.devices) == ["desk", "rack"]


def test_the_path_of_the_devices_is_relative_to_the_originals_project(tmp_path: Path) -> None:
    path = _write(tmp_path, "config/galaxy/constellation.yaml", 'DEVICE_INFO: "config/device_config.yaml"')
    _write(tmp_path, "config/device_config.yaml", DEVICES)
    assert [device.device_id for device in read_config(path).devices] == ["desk", "rack"]


def test_a_key_that_only_holds_anchors_is_free(tmp_path: Path) -> None:
    config = read_config(_write(tmp_path, "devices.yaml", ANCHORS))
    assert config.unused == ()
    assert [device.metadata for device in config.devices] == [
        {"environment": "production", "tags": ["critical"], "max_retries": 10, "location": "here"},
        {"environment": "elsewhere"},
    ]


@pytest.mark.parametrize("key", ["_", "_anchors", "x-owner", "X-Owner", "X-OWNER", "_ANCHORS"])
@pytest.mark.parametrize("value", ["1", "{a: [b]}", "null"])
def test_a_key_that_begins_with_an_underscore_or_x_may_have_any_value(key: str, value: str, tmp_path: Path) -> None:
    text = f"{key}: {value}\ndevices:\n- device_id: d\n  server_url: ws://h\n  {key}: {value}\n"
    config = read_config(_write(tmp_path, "devices.yaml", text))
    assert ([device.device_id for device in config.devices], config.unused) == (["d"], ())


def test_free_keys_that_differ_in_case_are_not_the_same(tmp_path: Path) -> None:
    assert read_config(_write(tmp_path, "devices.yaml", f"_A: 1\n_a: 2\n{DEVICES}")).unused == ()


def test_a_variable_in_a_url_is_not_replaced_and_reported(tmp_path: Path) -> None:
    text = "devices:\n- device_id: d\n  server_url: ${SERVER_URL}\n"
    with pytest.raises(ConfigError) as caught:
        read_config(_write(tmp_path, "devices.yaml", text))
    assert caught.value.problems == (
        "devices[0].server_url: variables are not replaced in this file: write the URL itself",
    )


@pytest.mark.parametrize("system", ["unknown", "linux"])
def test_older_files_are_read_as_yaml_and_json(system: str, tmp_path: Path) -> None:
    config = read_config(_write(tmp_path, "constellation.yaml", OLDER))
    assert (config.constellation_id, config.unused) == ("older", ())
    older = {
        "task_name": "test_task",
        "heartbeat_interval": 30.0,
        "reconnect_delay": 5.0,
        "max_concurrent_tasks": 8,
        "devices": [
            {
                "device_id": "laptop_001",
                "server_url": "ws://192.168.1.100:5000/ws",
                "os": system,
                "capabilities": ["web_browsing"],
                "metadata": {"location": "office"},
                "auto_connect": True,
                "max_retries": 5,
            }
        ],
    }
    config = read_config(_write(tmp_path, "constellation.json", json.dumps(older)))
    assert (config.constellation_id, config.max_concurrent_tasks, config.unused) == ("galaxy_trio", 8, ("task_name",))


@pytest.mark.parametrize("value", ["yes", "[1]", "{a: 1}", "null", "-5"])
def test_a_key_that_is_not_used_may_have_any_value(value: str, tmp_path: Path) -> None:
    text = f"{OLDER}MAX_STEP: {value}\nlog_to_markdown: {value}\n"
    assert read_config(_write(tmp_path, "c.yaml", text)).unused == ("MAX_STEP", "log_to_markdown")


def test_settings_in_a_devices_file_that_another_file_names_are_listed_as_unused(tmp_path: Path) -> None:
    _write(tmp_path, "older.yaml", f"_x: 1\nMAX_STEP: 1\n{OLDER}")
    config = read_config(_write(tmp_path, "constellation.yaml", "DEVICE_INFO: older.yaml\nheartbeat_interval: 7"))
    assert config.heartbeat_interval == 7
    assert config.unused == tuple(
        f"older.yaml: {key}"
        for key in ("MAX_STEP", "constellation_id", "heartbeat_interval", "reconnect_delay", "max_concurrent_tasks")
    )


@pytest.mark.parametrize(
    ("key", "nearest"),
    [("LOG_TO_MARKDWN", "log_to_markdown"), ("task_nam", "task_name"), ("CONSTELATION_ID", "constellation_id")],
)
def test_any_other_key_is_an_error_with_the_nearest_known_one(key: str, nearest: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        read_config(_write(tmp_path, "c.yaml", f"{key}: 1\n{OLDER}"))
    assert caught.value.problems == (f"{key.lower()}: unknown key; did you mean '{nearest}'?",)


def test_the_problems_of_a_file_are_limited(tmp_path: Path) -> None:
    device = {"device_id": "d", "server_url": "http://h", "max_retries": -1}
    path = _write(tmp_path, "c.json", json.dumps({"devices": [device] * 600}))
    with pytest.raises(ConfigError) as caught:
        read_config(path)
    assert len(caught.value.problems) == 500
    with pytest.raises(ConfigError) as caught:
        read_config(_write(tmp_path, "d.yaml", "DEVICE_INFO: c.json\nmax_concurrent_tasks: 0"))
    assert len(caught.value.problems) == 500
