"""The devices of a cluster as JSON: everything but secrets, which it refuses, and differences from a file in words."""

from __future__ import annotations

import json

import pytest

from galaxy_trio import ConfigError, DeviceConfig
from galaxy_trio.daemon.device_configs import devices_as_json, devices_from_json, differences

LAPTOP = DeviceConfig(
    "laptop",
    "wss://aip.test/ws",
    os="linux",
    capabilities=["shell"],
    metadata={"room": 1},
    auto_connect=False,
    max_retries=3,
    max_concurrent_tasks=2,
    token_file="/etc/galaxy/token",
    ca_file="/etc/galaxy/ca.pem",
)
PHONE = DeviceConfig("phone", "ws://aip.test/ws", token_env="PHONE_TOKEN")


def test_devices_come_back_as_they_were() -> None:
    assert devices_from_json(devices_as_json([LAPTOP, PHONE])) == {"laptop": LAPTOP, "phone": PHONE}


def test_a_token_or_a_header_is_refused_with_each_device_and_is_not_shown() -> None:
    devices = [
        DeviceConfig("a", "ws://aip.test/ws", token="secret-1"),
        DeviceConfig("b", "ws://aip.test/ws", headers={"X-Key": "secret-2"}),
        PHONE,
    ]
    with pytest.raises(ConfigError) as caught:
        devices_as_json(devices)
    assert len(caught.value.problems) == 2
    assert "device 'a': token: " in caught.value.problems[0]
    assert "device 'b': headers: " in caught.value.problems[1]
    assert "secret" not in str(caught.value)


def test_what_a_newer_version_has_stored_is_refused() -> None:
    text = json.dumps({**json.loads(devices_as_json([PHONE])["phone"]), "colour": "red"})
    with pytest.raises(ConfigError, match=r"stored by a newer galaxy_trio: .*colour"):
        devices_from_json({"phone": text})


def test_differences_are_described_in_words() -> None:
    file = devices_as_json([LAPTOP, PHONE])
    assert differences(file, file) is None
    assert differences(file, {}) == "only in the file: laptop, phone"
    changed = devices_as_json([DeviceConfig("phone", "ws://other.test/ws"), DeviceConfig("desk", "ws://aip.test/ws")])
    assert differences(file, changed) == "only in the file: laptop, only in the database: desk, different: phone"
