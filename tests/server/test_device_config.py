"""The operator's configuration of devices: read from a file, merged into their information, and sent to constellations."""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING

import pytest
import trio
import trio.testing
from hypothesis import given
from hypothesis import strategies as st

from galaxy_trio import ConfigError, open_connection
from galaxy_trio.agent import collect_system_info, open_device_connection
from galaxy_trio.messages import JSON, ClientType
from galaxy_trio.server import read_device_config
from galaxy_trio.server.device_config import merge
from galaxy_trio.testing import open_memory_server
from tests.server.support.clients import CONSTELLATION, DEVICE, register_constellation, register_device
from tests.server.support.raw_client import open_raw_client

if TYPE_CHECKING:
    from pathlib import Path

CONFIG: dict[str, dict[str, JSON]] = {
    DEVICE: {"tags": ["lab", "fast"], "additional_features": ["gpu", "cli"], "room": {"floor": 3}},
}
YAML = """
devices:
  device_001:
    tags: [lab, fast]
    additional_features: [gpu, cli]
    room: {floor: 3}
"""
TOML = """
[devices.device_001]
tags = ["lab", "fast"]
additional_features = ["gpu", "cli"]
room.floor = 3
"""


def test_yaml_json_and_toml_files_are_equivalent(tmp_path: Path) -> None:
    (tmp_path / "devices.yaml").write_text(YAML)
    (tmp_path / "devices.json").write_text(
        json.dumps({"devices": CONFIG, "defaults": {"priority": "low"}, "x-more": 1, "_anchors": 2})
    )
    (tmp_path / "devices.toml").write_text(TOML)
    assert read_device_config(tmp_path / "devices.toml") == CONFIG
    assert read_device_config(tmp_path / "devices.yaml") == CONFIG
    assert read_device_config(str(tmp_path / "devices.json")) == CONFIG


_BAD = {
    "no yaml": ("d.yaml", "devices: [", "d.yaml is not YAML: "),
    "no json": ("d.json", "{", "d.json is not JSON: "),
    "no toml": ("d.toml", "devices", "d.toml is not TOML: "),
    "deep json": ("d.json", "[" * 100_000, "d.json is not JSON: "),
    "deep yaml": ("d.yaml", "[" * 2_000, "d.yaml is not YAML: "),
    "an object of python": ("d.yaml", "devices: !!python/object/apply:os.system ['true']", "d.yaml is not YAML: "),
    "empty": ("d.yaml", "", "d.yaml has no 'devices': give an object whose keys are device ids"),
    "a list": ("d.yaml", "[]", "d.yaml has no 'devices': give an object"),
    "a list of devices": ("d.yaml", "devices: []", "d.yaml has no 'devices': give an object"),
    "a number for a name": (
        "d.yaml",
        "devices: {1: {}}",
        r"devices\[1\]: the name of a device must be text; put it in quotes",
    ),
    "no entry": ("d.yaml", "devices: {a: }", r"devices\['a'\]: expected an object"),
    "tags that are no list": ("d.yaml", "devices: {a: {tags: x}}", r"devices\['a'\].tags: expected a list of strings"),
    "features that are no text": (
        "d.yaml",
        "devices: {a: {additional_features: [1]}}",
        r"devices\['a'\].additional_features\[0\]: expected a string, got 1",
    ),
    "a date": ("d.yaml", "devices: {a: {since: 2026-01-01}}", r"devices\['a'\]: .* such as a date: put it in quotes"),
    "no number": ("d.yaml", "devices: {a: {x: .nan}}", r"devices\['a'\]: Out of range"),
    "a key that is no text": ("d.yaml", "devices: {a: {1: x}}", r"devices\['a'\]: keys must be text"),
    "tags that are null": (
        "d.yaml",
        "devices: {a: {tags: }}",
        r"devices\['a'\].tags: expected a list of strings, got null",
    ),
    "a long number for a name": (
        "d.yaml",
        f"devices:\n  ? 0x{'f' * 4000}\n  : {{}}",
        r"devices\[a number of very many digits\]",
    ),
    "an unknown key": ("d.yaml", "devices: {}\ndefualts: {}", "defualts: unknown key; did you mean 'defaults'"),
    "a device given twice": (
        "d.yaml",
        "devices:\n  a: {}\n  a: {}",
        "devices.a: is given twice, in line 2 and in line 3",
    ),
    "two places": ("d.yaml", "devices: {a: 1, b: 2}", r"wrong at 2 places: devices\['a'\]: .*; devices\['b'\]: "),
}


@pytest.mark.parametrize("what", _BAD)
def test_problem_in_a_file_is_reported_with_its_name_and_path(what: str, tmp_path: Path) -> None:
    name, text, words = _BAD[what]
    (tmp_path / name).write_text(text)
    with pytest.raises(ConfigError, match=words) as caught:
        read_device_config(tmp_path / name)
    assert "\n" not in str(caught.value)


def test_unreadable_file_is_reported(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"nowhere.yaml cannot be read: No such file"):
        read_device_config(tmp_path / "nowhere.yaml")
    (tmp_path / "latin.yaml").write_bytes(b"devices: {\xe4: {}}")
    with pytest.raises(ConfigError, match=r"latin.yaml cannot be read: it is not UTF-8"):
        read_device_config(tmp_path / "latin.yaml")


def test_without_pyyaml_json_still_works_and_the_error_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "devices.yaml").write_text(YAML)
    (tmp_path / "devices.json").write_text(json.dumps({"devices": CONFIG}))
    monkeypatch.setitem(sys.modules, "yaml", None)
    monkeypatch.delitem(sys.modules, "galaxy_trio._config.strict_yaml", raising=False)
    assert read_device_config(tmp_path / "devices.json") == CONFIG
    with pytest.raises(ConfigError, match=r'pip install "galaxy_trio\[cli\]", or write it as TOML or JSON'):
        read_device_config(tmp_path / "devices.yaml")


def test_configuration_goes_under_custom_metadata_and_features_are_added_and_tags_replaced() -> None:
    told: dict[str, JSON] = {
        "device_id": DEVICE,
        "supported_features": ["gui", "cli"],
        "custom_metadata": {"own": 1, "room": "?"},
        "tags": ["own"],
    }
    before = json.dumps([told, CONFIG])
    assert merge(told, CONFIG[DEVICE]) == {
        "device_id": DEVICE,
        "supported_features": ["gui", "cli", "gpu"],
        "custom_metadata": {"own": 1, **CONFIG[DEVICE]},
        "tags": ["lab", "fast"],
    }
    assert json.dumps([told, CONFIG]) == before


def test_tags_of_the_device_stay_if_the_configuration_has_none() -> None:
    assert merge({"tags": ["own"]}, {"room": "?"}) == {"tags": ["own"], "custom_metadata": {"room": "?"}}


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inside: st.lists(inside, max_size=3) | st.dictionaries(st.text(), inside, max_size=3),
    max_leaves=8,
)


@given(
    st.dictionaries(st.sampled_from(["supported_features", "custom_metadata", "tags", "platform"]), json_values),
    st.fixed_dictionaries(
        {}, optional={"tags": st.lists(st.text()), "additional_features": st.lists(st.text()), "x": json_values}
    ),
)
def test_configuration_can_be_merged_with_any_information_of_a_device(
    told: dict[str, JSON], config: dict[str, JSON]
) -> None:
    merged = merge(told, config)
    custom = merged["custom_metadata"]
    assert isinstance(custom, dict)
    assert {name: custom[name] for name in config} == config
    additional = config.get("additional_features")
    for feature in additional if isinstance(additional, list) else []:
        features = merged["supported_features"]
        assert isinstance(features, list)
        assert feature in features
    assert merged.get("platform") == told.get("platform")


async def test_information_of_a_device_reaches_a_constellation_merged_with_its_configuration() -> None:
    info = await collect_system_info(DEVICE)
    with trio.fail_after(60):
        async with (
            open_memory_server(device_config=CONFIG) as server,
            open_device_connection(server.url, DEVICE, system_info=info, stream=server.connect()),
            open_connection(server.url, DEVICE, stream=server.connect()) as connection,
        ):
            told = await connection.device_info()
    assert (told.device_id, told.hostname, told.memory_total_gb) == (DEVICE, info.hostname, info.memory_total_gb)
    assert told.tags == ["lab", "fast"]
    assert told.supported_features == [*info.supported_features, "gpu"]
    assert told.custom_metadata == {**info.custom_metadata, **CONFIG[DEVICE]}


async def test_registry_lists_clients_with_connection_time_and_information() -> None:
    async with (
        open_memory_server(device_config=CONFIG) as server,
        open_raw_client(server.connect()) as device,
        open_raw_client(server.connect()) as plain,
        open_raw_client(server.connect()) as constellation,
    ):
        await register_device(device, hostname="h1")
        plain.send(type="register", status="ok", client_id="plain", metadata={"platform": "x" * 2000})
        await plain.receive()
        await register_constellation(constellation)
        one, two, three = server.clients()
        assert (one.client_id, one.client_type, one.platform, one.target_id) == (
            DEVICE,
            ClientType.DEVICE,
            "linux",
            None,
        )
        assert one.system_info is not None
        assert (one.system_info["hostname"], one.system_info["tags"]) == ("h1", ["lab", "fast"])
        # Nothing but a name: nothing is known, and the configuration alone is no information of the device's.
        assert (two.client_id, two.system_info, two.platform) == ("plain", None, "x" * 1000)
        assert (three.client_id, three.target_id, three.system_info) == (CONSTELLATION, DEVICE, None)
        assert one.connected_at <= two.connected_at <= three.connected_at
        assert one.connected_at.tzinfo is not None
        assert server.clients(ClientType.CONSTELLATION) == [three]
        assert server.clients(ClientType.DEVICE) == [one, two]


async def test_registry_forgets_a_device_that_leaves_and_accepts_new_information_when_it_returns() -> None:
    async with open_memory_server() as server:
        for hostname in ("before", "after"):
            async with open_raw_client(server.connect()) as device:
                await register_device(device, hostname=hostname)
                [info] = server.clients()
                assert info.system_info is not None
                assert info.system_info["hostname"] == hostname
            await trio.testing.wait_all_tasks_blocked()
            assert server.clients() == []


async def test_information_cannot_change_the_device_id() -> None:
    async with open_memory_server() as server, open_raw_client(server.connect()) as device:
        device.send(
            type="register",
            status="ok",
            client_id="mallory",
            metadata={"platform": "linux", "system_info": {"device_id": "alice"}},
        )
        await device.receive()
        [info] = server.clients()
        assert info.system_info == {"device_id": "mallory", "platform": "linux"}
