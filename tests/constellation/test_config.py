"""Configuration files: the original's are read unchanged, one error names every problem, and no error contains a token."""

from __future__ import annotations

import json
import traceback
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from galaxy_trio import ConfigError
from galaxy_trio.constellation.config import ConstellationConfig, DeviceConfig, read_config

DEVICES_YAML = """
devices:
  - device_id: windowsagent
    server_url: ws://localhost:5005/ws
    os: windows
    capabilities: [web_browsing, office_applications]
    metadata: {location: office, logs_file_path: log.txt}
    max_retries: 5
  - device_id: linux_agent_1
    server_url: wss://example.org/ws
    os: linux
    auto_connect: false
"""
CONSTELLATION_YAML = """
CONSTELLATION_ID: test_constellation
HEARTBEAT_INTERVAL: 20.0
RECONNECT_DELAY: 5
MAX_CONCURRENT_TASKS: 3
MAX_STEP: 15
DEVICE_INFO: config/galaxy/devices.yaml
"""
DEVICES_TOML = """
[[devices]]
device_id = "windowsagent"
server_url = "ws://localhost:5005/ws"
os = "windows"
capabilities = ["web_browsing", "office_applications"]
metadata = { location = "office", logs_file_path = "log.txt" }
max_retries = 5

[[devices]]
device_id = "linux_agent_1"
server_url = "wss://example.org/ws"
os = "linux"
auto_connect = false
"""
DEVICES = (
    DeviceConfig(
        "windowsagent",
        "ws://localhost:5005/ws",
        os="windows",
        capabilities=("web_browsing", "office_applications"),
        metadata={"location": "office", "logs_file_path": "log.txt"},
        max_retries=5,
    ),
    DeviceConfig("linux_agent_1", "wss://example.org/ws", os="linux", auto_connect=False),
)


def write(folder: Path, name: str, text: str) -> Path:
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    return path


def test_devices_file_of_the_original_is_read_unchanged_as_yaml_toml_and_json(tmp_path: Path) -> None:
    as_yaml = read_config(write(tmp_path, "devices.yaml", DEVICES_YAML))
    as_toml = read_config(write(tmp_path, "devices.toml", DEVICES_TOML))
    devices = [
        {"device_id": "windowsagent", "server_url": "ws://localhost:5005/ws", "os": "windows",
         "capabilities": ["web_browsing", "office_applications"], "max_retries": 5,
         "metadata": {"location": "office", "logs_file_path": "log.txt"}},
        {"device_id": "linux_agent_1", "server_url": "wss://example.org/ws", "os": "linux", "auto_connect": False},
    ]  # fmt: skip
    as_json = read_config(str(write(tmp_path, "devices.json", json.dumps({"devices": devices}))))
    assert as_yaml == as_toml == as_json == ConstellationConfig(DEVICES)


def test_absent_settings_have_their_defaults() -> None:
    device = DeviceConfig("d", "ws://h")
    assert (device.max_retries, device.auto_connect, device.max_concurrent_tasks, device.os) == (None, True, 1, None)
    config = ConstellationConfig((device,))
    assert (config.reconnect_delay, config.heartbeat_interval, config.max_concurrent_tasks) == (1.0, 30.0, None)


@pytest.mark.parametrize("place", ["config/galaxy/devices.yaml", "devices.yaml"])
def test_constellation_file_of_the_original_is_read_with_its_devices_file(place: str, tmp_path: Path) -> None:
    write(tmp_path, place, DEVICES_YAML)
    expected = ConstellationConfig(DEVICES, "test_constellation", 20.0, 5, 3)
    assert read_config(write(tmp_path, "constellation.yaml", CONSTELLATION_YAML)) == expected
    lower = "\n".join(
        line.partition(":")[0].lower() + ":" + line.partition(":")[2]
        for line in CONSTELLATION_YAML.splitlines()
        if line
    )
    assert read_config(write(tmp_path, "lower.yaml", lower)) == expected


def test_one_error_names_every_problem_with_its_path(tmp_path: Path) -> None:
    text = """
HEARTBEAT_INTERVAL: -1
RECONNECT_DELAY: soon
MAX_CONCURRENT_TASKS: 0
HEARTBEAT_INTERVALL: 3
devices:
  - device_id: a
    server_url: http://h
    capabilites: [x]
  - device_id: a
    server_url: ws://h
    capabilities: [1, x, null]
    max_retries: many
    max_concurrent_tasks: 0
    auto_connect: maybe
    metadata: []
    headers: {a: 1}
  - server_url: ws://h
    device_id: a
    headers: {"a b": x}
    max_retries: -1
  - just text
  - device_id: ''
    frobnicate: 1
    1: x
"""
    path = write(tmp_path, "c.yaml", text)
    with pytest.raises(ConfigError) as caught:
        read_config(path)
    words = str(caught.value)
    expected = [
        "heartbeat_interval: expected a number of seconds above 0, got -1",
        "reconnect_delay: expected a number of seconds above 0, got a string",
        "max_concurrent_tasks: expected a whole number of 1 or more, got 0",
        "heartbeat_intervall: unknown key; did you mean 'heartbeat_interval'?",
        "devices[0].server_url: a server's URL begins with ws:// or wss://",
        "devices[0].capabilites: unknown key; did you mean 'capabilities'?",
        "devices[1].capabilities[0]: expected a string, got ",
        "devices[1].capabilities[2]: expected a string, got ",
        "devices[1].max_retries: expected a whole number, got ",
        "devices[1].max_concurrent_tasks: must be 1 or more",
        "devices[1].auto_connect: expected true or false, got ",
        "devices[1].metadata: expected an object, got ",
        "devices[1].headers: expected an object of strings",
        "devices[2].headers: header 1 has a name that HTTP does not allow",
        "devices[2].max_retries: must be 0 or more",
        "devices[3]: expected an object, got a string",
        "devices[4].server_url: is missing",
        "devices[4].device_id: a device id has 1 to 900 characters",
        "devices[4].frobnicate: unknown key; known are device_id, server_url, auto_connect, ",
        "devices[4].1: unknown key; known are ",
    ]
    assert [problem for problem in expected if problem not in words] == []
    assert f"is wrong at {len(expected)} places" in words
    assert "\n" not in words


@pytest.mark.parametrize("name", ["a", "?"])
def test_duplicate_device_ids_are_reported_with_both_paths(name: str, tmp_path: Path) -> None:
    devices = [{"device_id": device_id, "server_url": "ws://h"} for device_id in (name, "b", name)]
    with pytest.raises(ConfigError) as caught:
        read_config(write(tmp_path, "d.json", json.dumps({"devices": devices})))
    assert caught.value.problems == (f"devices[2].device_id: {name!r} is the id of devices[0] already",)


def test_empty_objects_in_place_of_devices_are_incomplete_and_no_duplicates(tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        read_config(write(tmp_path, "d.yaml", "devices: [{}, {}]"))
    missing = [f"devices[{number}].{key}: is missing" for number in range(2) for key in ("device_id", "server_url")]
    assert caught.value.problems == tuple(missing)


@pytest.mark.parametrize("text", ["devices: []", "devices: ", "{}", "devices: {}"])
def test_file_without_devices_is_refused(text: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="devices: expected a list"):
        read_config(write(tmp_path, "d.yaml", text))


def test_token_file_with_several_lines_is_refused(tmp_path: Path) -> None:
    token_file = write(tmp_path, "token", "one\ntwo\n")
    with pytest.raises(ConfigError, match=r"the token of device 'd' must be a single one, and .* contains 2 lines"):
        DeviceConfig("d", "ws://h", token_file=str(token_file)).read_token()


@pytest.mark.parametrize("text", ["[]", "5", "", "text"])
def test_file_without_an_object_is_refused(text: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="at one place: the file: expected an object, got"):
        read_config(write(tmp_path, "d.yaml", text))


def test_devices_are_given_only_once_and_a_devices_file_names_no_other_file(tmp_path: Path) -> None:
    write(tmp_path, "devices.yaml", DEVICES_YAML)
    with pytest.raises(ConfigError, match="device_info: the devices are given twice, here and as devices"):
        read_config(write(tmp_path, "both.yaml", DEVICES_YAML + "device_info: devices.yaml"))
    with pytest.raises(ConfigError, match="device_info: unknown key"):
        read_config(write(tmp_path, "self.yaml", "device_info: self.yaml"))
    with pytest.raises(
        ConfigError, match=r"device_info: the configuration .*nowhere.yaml cannot be read: No such file"
    ):
        read_config(write(tmp_path, "nowhere_to_be_found.yaml", "device_info: nowhere.yaml"))


SECRET = "s3cr3t-t0k3n"


@pytest.mark.parametrize(
    ("device", "words"),
    [
        (f"token: {SECRET}, token_env: VARIABLE", "token_env: the token is given twice, here and as token"),
        ("token_env: VARIABLE, token_file: f", "token_file: the token is given twice, here and as token_env"),
        (
            f"token: {SECRET}, server_url: 'ws://h/ws?token={SECRET}'",
            "server_url: the token is given twice, in the URL",
        ),
        (f"token_file: x, server_url: 'ws://h/ws?token={SECRET}'", "server_url: the token is given twice, in the URL"),
        ("token: ''", "token: an empty token"),
        (f"token: [{SECRET}]", "token: expected a string"),
        (f"headers: [{SECRET}]", "headers: expected an object of strings"),
        (f"headers: {{X-Key: [{SECRET}]}}", "headers: expected an object of strings"),
        (f'headers: {{X-Key: "{SECRET}\\n"}}', "headers: the value of the header 'X-Key' has a character"),
        (f"server_url: 'ws://h:x/ws?token={SECRET}'", "server_url: the port"),
        (f"server_url: ['ws://h/ws?token={SECRET}']", "server_url: expected a string"),
    ],
)
def test_invalid_token_is_reported_and_not_shown(device: str, words: str, tmp_path: Path) -> None:
    url = "" if "server_url" in device else ", server_url: 'ws://h'"
    with pytest.raises(ConfigError) as caught:
        read_config(write(tmp_path, "d.yaml", f"devices: [{{device_id: d, {device}{url}}}]"))
    assert words in str(caught.value)
    error: BaseException | None = caught.value
    while error is not None:
        assert SECRET not in str(error) + repr(error)
        error = error.__cause__ or error.__context__


@pytest.mark.parametrize(
    ("name", "text", "words"),
    [
        ("d.yaml", f'devices:\n- device_id: a\n  token: "{SECRET}\n', "found unexpected end of stream (at line 4"),
        ("d.yaml", f"devices:\n- token: {SECRET}: x\n", "mapping values are not allowed here (at line 2"),
        ("d.yaml", f"devices:\n- device_id: a\n  {SECRET}\n", "could not find expected ':'"),
        ("d.yaml", f"devices:\n- token: *{SECRET}\n", "found undefined alias what stands there"),
        ("d.yaml", f"devices:\n- token: !{SECRET} x\n", "could not determine a constructor"),
        ("d.yaml", f"devices:\n- token: '{SECRET}\x01'\n", "special characters are not allowed"),
        ("d.yaml", f"devices:\n- {SECRET}: 2020-99-99\n", "it contains an invalid number or date"),
        ("d.yaml", f"devices: [{SECRET}]", "devices[0]: expected an object, got a string"),
        ("d.yaml", f"devices: [token {SECRET}]", "devices[0]: expected an object, got a string"),
        ("d.yaml", f"- token: {SECRET}", "the file: expected an object, got a list"),
        ("d.yaml", SECRET, "the file: expected an object, got a string"),
        ("d.yaml", f"devices: {{token: {SECRET}}}", "devices: expected a list of devices, got an object"),
        (
            "d.yaml",
            f"devices: [{{metadata: {SECRET}, capabilities: {SECRET}}}]",
            "metadata: expected an object, got a ",
        ),
        ("d.json", f'{{"token": "{SECRET}" 1}}', "is not JSON: Expecting ',' delimiter"),
        ("d.toml", f"token = {SECRET}", "is not TOML: Invalid value"),
        ("d.json", f'"{SECRET}\udcff"', "it is not UTF-8 text"),
    ],
)
def test_token_in_an_invalid_file_appears_in_no_exception(name: str, text: str, words: str, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(text.encode(errors="surrogateescape"))
    with pytest.raises(ConfigError) as caught:
        read_config(tmp_path / name)
    assert words in str(caught.value)
    assert SECRET not in "".join(traceback.format_exception(caught.value))
    error: BaseException | None = caught.value
    while error is not None:
        assert SECRET not in str(error) + repr(error)
        error = error.__cause__ or error.__context__


def test_token_is_read_again_from_its_source_each_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = """
devices:
  - {device_id: none, server_url: ws://h}
  - {device_id: here, server_url: ws://h, token: s3cr3t-t0k3n, headers: {X-Key: s3cr3t-t0k3n}}
  - {device_id: env, server_url: ws://h, token_env: GALAXY_TEST_TOKEN}
  - {device_id: file, server_url: ws://h, token_file: keys/token, ca_file: keys/ca.pem}
"""
    config = read_config(write(tmp_path, "d.yaml", text))
    none, here, env, file = config.devices
    assert (none.read_token(), here.read_token()) == (None, SECRET)
    assert here.headers == (("X-Key", SECRET),)
    assert SECRET not in repr(config)
    assert file.ca_file == str(tmp_path / "keys" / "ca.pem")
    with pytest.raises(ConfigError, match="environment variable GALAXY_TEST_TOKEN: it is not set"):
        env.read_token()
    with pytest.raises(ConfigError, match=r"cannot be read from .*token: No such file"):
        file.read_token()
    for token in (SECRET, "rotated"):
        monkeypatch.setenv("GALAXY_TEST_TOKEN", token)
        write(tmp_path, "keys/token", token + "\n")
        assert (env.read_token(), file.read_token()) == (token, token)
    write(tmp_path, "keys/token", "\n")
    with pytest.raises(ConfigError, match="there is no token in it"):
        file.read_token()
    (tmp_path / "keys" / "token").write_bytes(SECRET.encode() + b"\xff")
    with pytest.raises(ConfigError, match="it is not UTF-8 text") as caught:
        file.read_token()
    assert SECRET not in repr(caught.value.__cause__) + repr(caught.value.__context__)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"device_id": 7}, "device 7: device_id: expected a string"),
        ({"server_url": None}, "device 'a': server_url: expected a string"),
        ({"server_url": "http://h"}, "server_url: a server's URL begins with ws:// or wss://"),
        ({"server_url": "http://h", "max_concurrent_tasks": 0}, "; max_concurrent_tasks: must be 1 or more"),
        ({"max_retries": -1}, "max_retries: must be 0 or more; leave it out for no limit"),
        ({"headers": {"X Key": "v"}}, "headers: header 1 has a name that HTTP does not allow"),
    ],
)
def test_invalid_device_config_is_refused(arguments: dict[str, object], words: str) -> None:
    with pytest.raises(ConfigError) as caught:
        DeviceConfig(**{"device_id": "a", "server_url": "ws://h", **arguments})  # type: ignore[arg-type]
    assert words in str(caught.value)


def test_device_config_accepts_a_single_capability_and_a_mapping_of_headers() -> None:
    device = DeviceConfig("a", "ws://h", capabilities="server", headers={"X-Key": "v"})
    assert (device.capabilities, device.headers) == (("server",), (("X-Key", "v"),))
    assert DeviceConfig("a", "ws://h", headers=[("X-Key", "v")]).headers == device.headers


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inside: st.lists(inside, max_size=3) | st.dictionaries(st.text(max_size=5), inside, max_size=3),
    max_leaves=6,
)
_KEYS = ["device_id", "server_url", "os", "capabilities", "metadata", "max_retries", "token", "headers", "auto_connect"]


@given(
    st.dictionaries(st.sampled_from(["devices", "DEVICE_INFO", "MAX_STEP", "HEARTBEAT_INTERVAL"]), json_values)
    | st.fixed_dictionaries(
        {"devices": st.lists(st.dictionaries(st.sampled_from(_KEYS), json_values | st.just("ws://h")), max_size=3)}
    )
)
def test_any_json_file_is_read_or_refused_with_config_error(
    tmp_path_factory: pytest.TempPathFactory, content: object
) -> None:
    path = write(tmp_path_factory.getbasetemp(), "any.json", json.dumps(content))
    try:
        assert isinstance(read_config(path), ConstellationConfig)
    except ConfigError as error:
        refused = str(error)
    else:
        return
    assert "any.json" in refused


@pytest.mark.parametrize("name", ["\0", "a\0b", "\ud800"])
def test_name_that_no_file_can_have_is_refused(name: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no file can have this name"):
        read_config(tmp_path / name)
    with pytest.raises(ConfigError, match=r"device_info: .*no file can have this name"):
        read_config(write(tmp_path, "c.json", json.dumps({"DEVICE_INFO": name})))
    with pytest.raises(ConfigError, match="token_file: no file can have this name"):
        DeviceConfig("d", "ws://h", token_file=name)
    with pytest.raises(ConfigError, match="ca_file: no file can have this name"):
        DeviceConfig("d", "ws://h", ca_file=name)


def test_path_of_an_unknown_user_is_an_unreadable_file(tmp_path: Path) -> None:
    device = {"device_id": "d", "server_url": "ws://h", "token_file": "~no.such.user/token", "ca_file": "~/ca.pem"}
    [config] = read_config(write(tmp_path, "c.json", json.dumps({"devices": [device]}))).devices
    with pytest.raises(ConfigError, match=r"cannot be read from .*~no\.such\.user/token: No such file"):
        config.read_token()
    assert config.ca_file == str(Path.home() / "ca.pem")


@pytest.mark.parametrize("name", ["~\0", "~\ud800"])
def test_home_directory_that_no_user_can_have_is_refused(name: str, tmp_path: Path) -> None:
    device = {"device_id": "d", "server_url": "ws://h", "token_file": name}
    with pytest.raises(ConfigError, match=r"devices\[0\].token_file: no file can have this name"):
        read_config(write(tmp_path, "c.json", json.dumps({"devices": [device]})))


def test_key_in_upper_and_in_lower_case_is_given_twice(tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        read_config(write(tmp_path, "c.yaml", f"{DEVICES_YAML}\nMAX_CONCURRENT_TASKS: 1\nmax_concurrent_tasks: 2"))
    problem = "max_concurrent_tasks: is given twice, in upper and in lower case: leave out one"
    assert caught.value.problems == (problem,)


def test_wrong_type_of_devices_is_reported_once(tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        read_config(write(tmp_path, "c.json", '{"devices": 3}'))
    assert caught.value.problems == ("devices: expected a list of devices, got 3",)
