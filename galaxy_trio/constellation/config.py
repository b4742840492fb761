"""The configuration of a constellation: the original's ``devices.yaml`` and ``constellation.yaml``, and their JSON and TOML forms.

One error names every problem of a file. No error and no `repr` contains a token.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final, cast

import attrs

from galaxy_trio._arguments import check_client_name
from galaxy_trio._codec.strict_types import shorten
from galaxy_trio._config.files import can_name_a_file, read_configuration_file
from galaxy_trio._config.reader import ObjectReader, check_problems, is_extension
from galaxy_trio._config.tokens import read_token_file, read_token_variable, require_one
from galaxy_trio._connection.options import HEARTBEAT_INTERVAL
from galaxy_trio._transport.url import check_headers, parse_url
from galaxy_trio.errors import ConfigError
from galaxy_trio.messages import JSON

_MAX_DEVICE_ID: Final = 900
"""The maximum length of a device id in characters: client ids contain it, and a server accepts 1,000."""
"""The default number of seconds between heartbeats."""
RECONNECT_DELAY: Final = 1.0
"""The default for the longest first wait before reconnecting, in seconds."""
KEEPALIVE_EXPIRY: Final = 5.0
"""The default number of seconds for which an idle connection is kept for the next task."""
_OF_THE_ORIGINAL: Final = ("log_to_markdown", "max_step", "task_name")
"""Keys of the original's files, of today and older, that concern its planner and its logs."""


def _strings(items: Iterable[str]) -> tuple[str, ...]:
    # A single name would be split into its letters.
    return (items,) if isinstance(items, str) else tuple(items)


def _pairs(items: Mapping[str, str] | Iterable[tuple[str, str]]) -> tuple[tuple[str, str], ...]:
    if isinstance(items, Mapping):
        return tuple(cast("Mapping[str, str]", items).items())
    return tuple(items)


@attrs.frozen
class DeviceConfig:
    """The configuration of one device.

    Attributes:
        device_id: The device's id on the server.
        server_url: ``ws://…`` or ``wss://…``.
        os: The operating system, by which tasks select the device: AIP's name or a common one, such as ``macOS`` for ``darwin``. What the
            device reports counts; if it contradicts this, a warning has both.
        capabilities: The capabilities, by which tasks select the device.
        metadata: Any further data.
        auto_connect: Whether to connect at the start; otherwise `Device.connect` does.
        max_retries: Failed attempts in a row after which the device is given up; None for no limit.
        max_concurrent_tasks: Tasks that run on the device at a time; others wait.
        token: The server's API key. It is never shown.
        token_env: The environment variable that contains the token.
        token_file: The file that contains the token; read again for each connection.
        headers: Sent with each handshake: pairs of name and value, or a mapping. The values are never shown.
        ca_file: Certificates in PEM format, to verify the server with instead of the system's.
    """

    device_id: str
    server_url: str = attrs.field(repr=False)
    os: str | None = None
    capabilities: Sequence[str] = attrs.field(default=(), converter=_strings)
    metadata: dict[str, JSON] = attrs.field(factory=dict[str, "JSON"])
    auto_connect: bool = True
    max_retries: int | None = None
    max_concurrent_tasks: int = 1
    token: str | None = attrs.field(default=None, repr=False)
    token_env: str | None = attrs.field(default=None, repr=False)
    token_file: str | None = attrs.field(default=None, repr=False)
    headers: Sequence[tuple[str, str]] = attrs.field(default=(), repr=False, converter=_pairs)
    ca_file: str | None = None

    def __attrs_post_init__(self) -> None:
        problems = _problems_of(self)
        if problems:
            raise _DeviceProblems(self.device_id, problems)

    def read_token(self) -> str | None:
        """Return the current token; None without one.

        Raises:
            ConfigError: The variable is not set, or the file cannot be read. The message contains nothing of the content, and no name of a
                variable or file that does not exist: it may be a token that was given instead.
        """
        what = f"the token of device {self.device_id!r}"
        if self.token_file is not None:
            return require_one(read_token_file(self.token_file, what), what, self.token_file)
        if self.token_env is None:
            return self.token
        tokens = read_token_variable(self.token_env, what)
        if not tokens:
            raise ConfigError(f"{what} cannot be read: the environment variable that token_env names is not set")
        return require_one(tokens, what, self.token_env)


@attrs.frozen
class ConstellationConfig:
    """The configuration of a constellation.

    Attributes:
        devices: The devices, in the order of the file.
        constellation_id: The name in client, session and task ids.
        heartbeat_interval: Seconds between heartbeats.
        reconnect_delay: The longest first wait before reconnecting, in seconds.
        max_concurrent_tasks: Tasks that run at a time on all devices together; None for no limit.
        keepalive_expiry: Seconds for which an idle connection is kept for the next task; 0 to close it immediately.
        unused: The keys of the file that have a meaning for the original only.
    """

    devices: tuple[DeviceConfig, ...]
    constellation_id: str = "galaxy_trio"
    heartbeat_interval: float = HEARTBEAT_INTERVAL
    reconnect_delay: float = RECONNECT_DELAY
    max_concurrent_tasks: int | None = None
    keepalive_expiry: float = KEEPALIVE_EXPIRY
    unused: tuple[str, ...] = attrs.field(default=(), eq=False)


class _DeviceProblems(ConfigError):
    """The problems of a device's values, each with its key."""

    def __init__(self, device_id: str, problems: list[tuple[str, str]]) -> None:
        super().__init__(f"device {shorten(device_id)}: " + "; ".join(f"{key}: {problem}" for key, problem in problems))
        self.by_key = problems


def _problems_of(config: DeviceConfig) -> list[tuple[str, str]]:
    """Find the problems of a device's values, each with its key. A type checker has checked most types."""
    problems = [
        (name, "expected a string")
        for name in ("device_id", "server_url")
        if not isinstance(getattr(config, name), str)
    ]
    if problems:
        return problems
    if not 0 < len(config.device_id) <= _MAX_DEVICE_ID:
        problems.append(("device_id", f"a device id has 1 to {_MAX_DEVICE_ID} characters"))
    given = [name for name in ("token", "token_env", "token_file") if getattr(config, name) is not None]
    if len(given) > 1:
        problems.append((given[1], f"the token is given twice, here and as {given[0]}: leave out one"))
    problems.extend(
        (name, "no file can have this name")
        for name in ("token_file", "ca_file")
        if isinstance(getattr(config, name), str) and not can_name_a_file(getattr(config, name))
    )
    if config.token == "":
        problems.append(("token", "an empty token: leave it out, or give one"))
    try:
        # With any token, this also finds a second one in the URL.
        parse_url(config.server_url, "t" if given else None)
    except ConfigError as error:
        # As the original's documentation suggests, whose program does not replace them either.
        is_variable = config.server_url.startswith("${")
        problem = "variables are not replaced in this file: write the URL itself" if is_variable else str(error)
        problems.append(("server_url", problem))
    try:
        check_headers(config.headers)
    except ConfigError as error:
        problems.append(("headers", str(error)))
    if config.max_retries is not None and config.max_retries < 0:
        problems.append(("max_retries", "must be 0 or more; leave it out for no limit"))
    if config.max_concurrent_tasks < 1:
        problems.append(("max_concurrent_tasks", "must be 1 or more"))
    return problems


def _device(value: object, at: str, problems: list[str], folder: Path) -> DeviceConfig | None:
    members = ObjectReader(value, at, problems)
    device_id = members.text("device_id", required=True)
    server_url = members.text("server_url", required=True, secret=True)
    auto_connect, max_concurrent_tasks = members.boolean("auto_connect"), members.integer("max_concurrent_tasks")
    optional: dict[str, Any] = {  # Any: each value has the type of its field
        "os": members.text("os"),
        "capabilities": members.texts("capabilities"),
        "metadata": members.any_object("metadata"),
        "auto_connect": True if auto_connect is None else auto_connect,
        "max_retries": members.integer("max_retries"),
        "max_concurrent_tasks": 1 if max_concurrent_tasks is None else max_concurrent_tasks,
        "token": members.text("token", secret=True),
        "token_env": members.text("token_env", secret=True),
        "token_file": _relative_to(folder, members.text("token_file", secret=True)),
        "headers": members.pairs("headers"),
        "ca_file": _relative_to(folder, members.text("ca_file")),
    }
    members.refuse_unknown(extensions=True)
    try:
        # Placeholders for what is missing, and was reported: the other values are checked too.
        device = DeviceConfig("?" if device_id is None else device_id, server_url or "ws://unknown", **optional)
    except _DeviceProblems as error:
        for key, problem in error.by_key:
            members.report(key, problem)
        return None
    return None if device_id is None else device


def _relative_to(folder: Path, path: str | None) -> str | None:
    """Resolve a path relative to the folder of its file. An unknown user's home directory stays as it is written, as in a shell."""
    if path is None or not can_name_a_file(path):
        return path
    return str(folder / os.path.expanduser(path))  # `Path.expanduser` raises for an unknown user


def _devices(members: ObjectReader, items: list[object], problems: list[str], folder: Path) -> tuple[DeviceConfig, ...]:
    """Read the devices of a document, whose reader is `members`."""
    devices = [_device(item, f"devices[{index}]", problems, folder) for index, item in enumerate(items)]
    first_at: dict[str, int] = {}
    for index, device in enumerate(devices):
        if device is not None and first_at.setdefault(device.device_id, index) != index:
            first = f"devices[{first_at[device.device_id]}]"
            members.report(f"devices[{index}].device_id", f"{device.device_id!r} is the id of {first} already")
    return tuple(device for device in devices if device is not None)


def read_config(path: str | os.PathLike[str]) -> ConstellationConfig:
    """Read a constellation's file, or a devices file alone.

    The original's ``constellation.yaml`` names its devices file in ``DEVICE_INFO``. The keys may be in lower case, and the file itself may
    contain the list ``devices``. Keys that begin with ``_`` or ``x-`` may have any value, such as YAML anchors. The suffix selects the
    format: ``.json``, ``.toml``, otherwise YAML. Paths in a file are relative to its folder.

    Raises:
        ConfigError: The file cannot be read, or is invalid. Names every problem with its path.
    """
    return _read(path, may_name_devices_file=True)


def _read(path: str | os.PathLike[str], *, may_name_devices_file: bool) -> ConstellationConfig:
    folder = Path(path).parent
    problems: list[str] = []
    content = read_configuration_file(path, "the configuration")
    given = cast("dict[object, object]", content) if isinstance(content, dict) else {}
    names = {key: _in_lower_case(key) for key in given}
    lowered = {name: given[key] for key, name in names.items()}
    members = ObjectReader(lowered if isinstance(content, dict) else content, "", problems)
    twice = [name for name, times in Counter(names.values()).items() if times > 1]
    for name in twice:
        members.report(str(name), "is given twice, in upper and in lower case: leave out one")
    devices: list[object] | None = members.read("devices", "a list of devices", list)
    # A devices file must not name another one: it could name itself.
    devices_file = members.text("device_info") if may_name_devices_file else None
    constellation_id = members.text("constellation_id")
    heartbeat_interval, reconnect_delay = members.number("heartbeat_interval"), members.number("reconnect_delay")
    keepalive_expiry = members.number("keepalive_expiry", zero=True)
    max_concurrent_tasks = members.integer("max_concurrent_tasks", minimum=1)
    unused = members.unused(*_OF_THE_ORIGINAL)
    members.refuse_unknown(extensions=True)
    if not may_name_devices_file:
        unused = [str(name) for name in lowered if name != "devices" and not is_extension(name)]
    unused = [str(key) for key, name in names.items() if name in unused]
    _check_constellation_id(members, constellation_id)
    listed: tuple[DeviceConfig, ...] = ()
    if devices_file is not None and lowered.get("devices") is not None:
        members.report("device_info", "the devices are given twice, here and as devices: leave out one")
    elif devices_file is not None:
        try:
            other = _read(_find(folder, devices_file), may_name_devices_file=False)
        except ConfigError as error:
            for problem in error.problems or [str(error)]:
                members.report("device_info", problem)
        else:
            listed = other.devices
            unused += [f"{devices_file}: {key}" for key in other.unused]
    elif devices:
        listed = _devices(members, devices, problems, folder)
    elif isinstance(content, dict) and not lowered.get("devices"):
        members.report("devices", "expected a list of devices with at least one in it")
    check_problems(f"the configuration {path}", problems)
    return ConstellationConfig(
        listed,
        constellation_id or "galaxy_trio",
        heartbeat_interval or HEARTBEAT_INTERVAL,
        reconnect_delay or RECONNECT_DELAY,
        max_concurrent_tasks,
        KEEPALIVE_EXPIRY if keepalive_expiry is None else keepalive_expiry,
        tuple(unused),
    )


def _in_lower_case(key: object) -> object:
    """Convert a key of the original, which is in upper case."""
    return key.lower() if isinstance(key, str) and key.isupper() and not is_extension(key) else key


def _check_constellation_id(members: ObjectReader, name: str | None) -> None:
    try:
        check_client_name("galaxy_trio" if name is None else name)
    except ConfigError as error:
        members.report("constellation_id", str(error))


def _find(folder: Path, name: str) -> Path:
    """Find the devices file. The original's path is relative to its project, which contains the folder of the file."""
    path = folder / name
    if not can_name_a_file(name):
        return path
    places = (path, folder / Path(name).name, *(parent / name for parent in folder.absolute().parents))
    return next(filter(os.path.exists, places), path)


def checked_devices(devices: object) -> tuple[DeviceConfig, ...]:
    """Check the devices of a list, before anything is connected.

    Raises:
        ConfigError: One is not a `DeviceConfig`, or two have the same id.
    """
    if not isinstance(devices, Iterable):
        raise ConfigError(
            f"devices must be a file or a list of DeviceConfig, not {type(devices).__name__}: write [device]"
        )
    checked: dict[str, DeviceConfig] = {}
    for device in cast("Iterable[object]", devices):
        if not isinstance(device, DeviceConfig):
            raise ConfigError(f"a device must be a DeviceConfig, not {type(device).__name__}")
        if device.device_id in checked:
            raise ConfigError(f"the device {device.device_id!r} is given twice: give each a different id")
        checked[device.device_id] = device
    return tuple(checked.values())
