"""The devices of a constellation, from files: the original's ``devices.yaml`` and ``constellation.yaml``, and their JSON and TOML forms.

One error tells of all that is wrong with a file. Tokens show nowhere.
"""

from __future__ import annotations

import difflib
import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final, cast

import attrs

from galaxy_trio._arguments import check_client_name
from galaxy_trio._codec.strict_types import shorten
from galaxy_trio._config.files import can_name_a_file, read_configuration_file
from galaxy_trio._transport.url import check_headers, parse_url
from galaxy_trio.errors import ConfigError
from galaxy_trio.messages import JSON

_MAX_DEVICE_ID: Final = 900
"""Characters: the names of its connections are made of it, and a server takes 1,000."""
HEARTBEAT_INTERVAL: Final = 30.0
"""Seconds between heartbeats, unless told otherwise."""
RECONNECT_DELAY: Final = 1.0
"""Seconds that the first wait before a reconnect lasts at most, unless told otherwise."""
KEEPALIVE_EXPIRY: Final = 5.0
"""Seconds for which an idle connection is kept for the next task, unless told otherwise."""


def _strings(items: Iterable[str]) -> tuple[str, ...]:
    # A single name would be taken for its letters.
    return (items,) if isinstance(items, str) else tuple(items)


def _pairs(items: Mapping[str, str] | Iterable[tuple[str, str]]) -> tuple[tuple[str, str], ...]:
    if isinstance(items, Mapping):
        return tuple(cast("Mapping[str, str]", items).items())
    return tuple(items)


@attrs.frozen
class DeviceConfig:
    """One device: where it is reached and what it can do.

    Attributes:
        device_id: Its name at the server.
        server_url: ``ws://…`` or ``wss://…``.
        os: Its operating system, as tasks ask for it.
        capabilities: What it can do, as tasks ask for it.
        metadata: Anything more.
        auto_connect: Whether to connect at the start; otherwise it waits to be told.
        max_retries: Failed tries in a row after which it is given up; None for no limit.
        max_concurrent_tasks: Tasks that it runs at once; others wait.
        token: The server's API key. It is never shown.
        token_env: The environment variable that the token is in.
        token_file: The file that the token is in; read anew for each connection.
        headers: Sent with each handshake: pairs of name and value, or a mapping. Their values are never shown.
        ca_file: TlsContexts, as PEM, that the server's is checked against instead of the system's.
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
    token_env: str | None = None
    token_file: str | None = None
    headers: Sequence[tuple[str, str]] = attrs.field(default=(), repr=False, converter=_pairs)
    ca_file: str | None = None

    def __attrs_post_init__(self) -> None:
        problems = _problems_of(self)
        if problems:
            raise _DeviceProblems(self.device_id, problems)

    def read_token(self) -> str | None:
        """The token, from where it is now; None without one.

        Raises:
            ConfigError: The variable is not set, or the file cannot be read. Says nothing of what is in it.
        """
        if self.token_env is not None:
            token = os.environ.get(self.token_env, "")
            if not token:
                raise ConfigError(
                    f"device {self.device_id!r} has its token in the environment variable {self.token_env}, which is not set"
                )
            return token
        if self.token_file is not None:
            reason = "it is no UTF-8 text"
            try:
                content: str | None = Path(self.token_file).read_text(encoding="utf-8")
            except OSError as error:
                content, reason = None, error.strerror or str(error)
            except UnicodeDecodeError:
                # It holds what is in the file, and must not become the error's context.
                content = None
            if content is None:
                raise ConfigError(
                    f"the token of device {self.device_id!r} cannot be read from {self.token_file}: {reason}"
                )
            token = content.strip()
            if not token:
                raise ConfigError(
                    f"the token of device {self.device_id!r} is to be in {self.token_file}, which is empty"
                )
            return token
        return self.token


@attrs.frozen
class ConstellationConfig:
    """A constellation and its devices.

    Attributes:
        devices: In the order of the file.
        constellation_id: The name that tasks and clients carry.
        heartbeat_interval: Seconds between heartbeats.
        reconnect_delay: Seconds that the first wait before a reconnect lasts at most.
        max_concurrent_tasks: Tasks of all devices together at once; None for no limit.
        keepalive_expiry: Seconds for which an idle connection is kept for the next task; 0 to close it immediately.
    """

    devices: tuple[DeviceConfig, ...]
    constellation_id: str = "galaxy_trio"
    heartbeat_interval: float = HEARTBEAT_INTERVAL
    reconnect_delay: float = RECONNECT_DELAY
    max_concurrent_tasks: int | None = None
    keepalive_expiry: float = KEEPALIVE_EXPIRY


class _DeviceProblems(ConfigError):
    """What is wrong with a device's values: where and why."""

    def __init__(self, device_id: str, problems: list[tuple[str, str]]) -> None:
        super().__init__(f"device {shorten(device_id)}: " + "; ".join(f"{at}: {why}" for at, why in problems))
        self.places = problems


def _problems_of(config: DeviceConfig) -> list[tuple[str, str]]:
    """What is wrong with a device's values: where and why. The types are right, as far as a type checker sees to it."""
    problems = [
        (name, "expected a string")
        for name in ("device_id", "server_url")
        if not isinstance(getattr(config, name), str)
    ]
    if problems:
        return problems
    if not 0 < len(config.device_id) <= _MAX_DEVICE_ID:
        problems.append(("device_id", f"a name has 1 to {_MAX_DEVICE_ID} characters"))
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
        # Any token will do to find one in the URL beside it.
        parse_url(config.server_url, "t" if given else None)
    except ConfigError as error:
        problems.append(("server_url", str(error)))
    try:
        check_headers(config.headers)
    except ConfigError as error:
        problems.append(("headers", str(error)))
    if config.max_retries is not None and config.max_retries < 0:
        problems.append(("max_retries", "must be 0 or more; leave it out to try for ever"))
    if config.max_concurrent_tasks < 1:
        problems.append(("max_concurrent_tasks", "must be 1 or more"))
    return problems


# ---- files


def _shown(value: object) -> str:
    """What is there in the place of something else. Not its text: a token that lacks its key, or a quote, may be in any place."""
    kinds: dict[type, str] = {str: "a string", list: "a list", dict: "an object"}
    return kinds.get(type(value)) or shorten(value)


class _Object:
    """An object of a file, whose members are taken one after the other; what is wrong goes to one list."""

    def __init__(self, value: object, at: str, problems: list[str]) -> None:
        self._at = at
        self._problems = problems
        self._known: list[str] = []
        self._members: dict[object, object] = {}
        if isinstance(value, dict):
            self._members = cast("dict[object, object]", value)
        else:
            problems.append(f"{at or 'the file'}: expected an object, got {_shown(value)}")

    def place(self, key: str) -> str:
        return f"{self._at}.{key}" if self._at else key

    def problem(self, key: str, why: str) -> None:
        self._problems.append(f"{self.place(key)}: {why}")

    def take(self, key: str, expected: str, *kinds: type) -> object:
        """A member of one of these types, or None if it is absent, null, or wrong."""
        self._known.append(key)
        value = self._members.get(key)
        if value is None or type(value) in kinds:
            return value
        shown = "" if "token" in key or key in ("headers", "server_url") else f", got {_shown(value)}"
        self.problem(key, f"expected {expected}{shown}")
        return None

    def text(self, key: str) -> str | None:
        return cast("str | None", self.take(key, "a string", str))

    def required_text(self, key: str) -> str | None:
        if self._members and self._members.get(key) is None:
            self.problem(key, "is missing")
        return self.text(key)

    def integer(self, key: str) -> int | None:
        return cast("int | None", self.take(key, "a whole number", int))

    def seconds(self, key: str, *, zero: bool = False) -> float | None:
        value = cast("float | None", self.take(key, "a number of seconds", int, float))
        if value is not None and not (0 < value < float("inf") or (zero and value == 0)):
            self.problem(key, f"must be {'0 s or more' if zero else 'above 0 s'}, and is {value!r}")
            return None
        return value

    def boolean(self, key: str) -> bool | None:
        return cast("bool | None", self.take(key, "true or false", bool))

    def texts(self, key: str) -> list[str]:
        items = cast("list[object] | None", self.take(key, "a list of strings", list)) or []
        for index, item in enumerate(items):
            if not isinstance(item, str):
                self.problem(f"{key}[{index}]", f"expected a string, got {_shown(item)}")
        return [item for item in items if isinstance(item, str)]

    def pairs(self, key: str) -> list[tuple[str, str]]:
        members = cast("dict[object, object] | None", self.take(key, "an object of strings", dict)) or {}
        pairs = [(name, value) for name, value in members.items() if isinstance(name, str) and isinstance(value, str)]
        if len(pairs) < len(members):
            self.problem(key, "expected an object of strings")
        return pairs

    def any_object(self, key: str) -> dict[str, JSON]:
        return cast("dict[str, JSON] | None", self.take(key, "an object", dict)) or {}

    def refuse_others(self) -> None:
        """To be called last: what was not asked for is a mistake."""
        for key in self._members:
            if key not in self._known:
                near = difflib.get_close_matches(str(key).lower(), [known.lower() for known in self._known], n=1)
                meant = next((known for known in self._known if near and known.lower() == near[0]), None)
                hint = f"did you mean {meant!r}?" if meant else "known are " + ", ".join(self._known)
                plain = isinstance(key, str) and key.isidentifier()
                self.problem((str(key) if plain else repr(key))[:60], f"unknown key; {hint}")


def _device(value: object, at: str, problems: list[str], folder: Path) -> DeviceConfig | None:
    members = _Object(value, at, problems)
    device_id, server_url = members.required_text("device_id"), members.required_text("server_url")
    auto_connect, max_concurrent_tasks = members.boolean("auto_connect"), members.integer("max_concurrent_tasks")
    optional: dict[str, Any] = {  # Any: each is of its own field's type
        "os": members.text("os"),
        "capabilities": members.texts("capabilities"),
        "metadata": members.any_object("metadata"),
        "auto_connect": True if auto_connect is None else auto_connect,
        "max_retries": members.integer("max_retries"),
        "max_concurrent_tasks": 1 if max_concurrent_tasks is None else max_concurrent_tasks,
        "token": members.text("token"),
        "token_env": members.text("token_env"),
        "token_file": _beside(folder, members.text("token_file")),
        "headers": members.pairs("headers"),
        "ca_file": _beside(folder, members.text("ca_file")),
    }
    members.refuse_others()
    try:
        return DeviceConfig("?" if device_id is None else device_id, server_url or "ws://unknown", **optional)
    except _DeviceProblems as wrong:
        problems.extend(f"{at}.{key}: {why}" for key, why in wrong.places)
    return None


def _beside(folder: Path, path: str | None) -> str | None:
    """A path in a file is meant from where the file is."""
    return None if path is None else str(folder / Path(path).expanduser())


def _devices(value: object, at: str, problems: list[str], folder: Path) -> tuple[DeviceConfig, ...]:
    if value is None and any(problem.startswith(f"{at}: ") for problem in problems):
        return ()  # it is said already what stands there instead
    if not isinstance(value, list) or not value:
        problems.append(f"{at}: expected a list of devices with at least one in it")
        return ()
    items = cast("list[object]", value)
    devices = [_device(item, f"{at}[{index}]", problems, folder) for index, item in enumerate(items)]
    first_at: dict[str, int] = {}
    for index, device in enumerate(devices):
        if device is not None and first_at.setdefault(device.device_id, index) != index and device.device_id != "?":
            problems.append(
                f"{at}[{index}].device_id: {device.device_id!r} is the name of {at}[{first_at[device.device_id]}] already"
            )
    return tuple(device for device in devices if device is not None)


def read_config(path: str | os.PathLike[str]) -> ConstellationConfig:
    """Read a constellation's file, or a devices file alone.

    The original's ``constellation.yaml`` names its devices file in ``DEVICE_INFO``; its keys may be in lower case, and the list
    ``devices`` may stand in the file itself. The form is told by the ending: ``.json``, ``.toml``, YAML otherwise. Paths in a file are
    meant from where it is.

    Raises:
        ConfigError: Tells of all that is wrong with the file, each with its place.
    """
    return _read(path, names_another=True)


def _read(path: str | os.PathLike[str], *, names_another: bool) -> ConstellationConfig:
    shown, folder = f"the configuration {path}", Path(path).parent
    problems: list[str] = []
    content = read_configuration_file(path, "the configuration")
    if isinstance(content, dict):
        # The original's keys are in capitals.
        content = {
            key.lower() if isinstance(key, str) and key.isupper() else key: value
            for key, value in cast("dict[object, object]", content).items()
        }
    members = _Object(content, "", problems)
    devices = members.take("devices", "a list of devices", list)
    # A devices file names no other: it could name itself.
    elsewhere = members.text("device_info") if names_another else None
    constellation_id = members.text("constellation_id")
    heartbeat_interval, reconnect_delay = members.seconds("heartbeat_interval"), members.seconds("reconnect_delay")
    keepalive_expiry = members.seconds("keepalive_expiry", zero=True)
    max_concurrent_tasks = members.integer("max_concurrent_tasks")
    # The original's limit of its planning, which is not done here.
    members.integer("max_step")
    members.refuse_others()
    if max_concurrent_tasks is not None and max_concurrent_tasks < 1:
        members.problem("max_concurrent_tasks", "must be 1 or more")
    listed: tuple[DeviceConfig, ...] = ()
    if constellation_id is not None:
        try:
            check_client_name(constellation_id)
        except ConfigError as error:
            members.problem("constellation_id", str(error))
    if devices is not None and elsewhere is not None:
        members.problem("device_info", "the devices are given twice, here and as devices: leave out one")
    elif elsewhere is not None:
        try:
            listed = _read(_found(folder, elsewhere), names_another=False).devices
        except ConfigError as error:
            problems.extend(f"device_info: {problem}" for problem in error.problems or [str(error)])
    elif isinstance(content, dict):
        listed = _devices(devices, "devices", problems, folder)
    if problems:
        places = f"{len(problems)} places" if len(problems) > 1 else "one place"
        raise ConfigError(f"{shown} is wrong at {places}: " + "; ".join(problems), problems=problems)
    return ConstellationConfig(
        listed,
        constellation_id or "galaxy_trio",
        heartbeat_interval or HEARTBEAT_INTERVAL,
        reconnect_delay or RECONNECT_DELAY,
        max_concurrent_tasks,
        KEEPALIVE_EXPIRY if keepalive_expiry is None else keepalive_expiry,
    )


def _found(folder: Path, name: str) -> Path:
    """The original names its devices file from where it is started, which need not be where the file is."""
    beside = folder / name
    if not can_name_a_file(name):
        return beside
    return beside if beside.exists() or not (folder / Path(name).name).exists() else folder / Path(name).name
