"""The daemon's configuration file, ``galaxy.toml``."""

from __future__ import annotations

import socket
from pathlib import Path
from typing import Final, cast

import attrs

from galaxy_trio import ConfigError, ConstellationConfig, read_config
from galaxy_trio._config.files import can_name_a_file
from galaxy_trio._config.hosts import parse_host_name
from galaxy_trio._config.reader import ObjectReader, check_problems
from galaxy_trio._config.strict_toml import parse_toml
from galaxy_trio._config.text import read_text
from galaxy_trio._config.tokens import read_token_file, read_token_variable
from galaxy_trio.daemon.store.location import (
    DEFAULT_CLUSTER,
    DEFAULT_LEASE,
    MAX_LEASE,
    MIN_LEASE,
    POSTGRESQL,
    Location,
    PostgresqlLocation,
    is_cluster_name,
)
from galaxy_trio.daemon.web.listening import UNIX

TOKEN_VARIABLE: Final = "GALAXY_TRIO_DAEMON_TOKEN"  # noqa: S105  # a variable's name
_FILE: Final = "galaxy.toml"
_SOCKET_MODES: Final = ("0600", "600", "0660", "660", "0666", "666")
_MAX_NAME: Final = 100
_MAX_TASKS: Final = 1_000_000
"""The largest number of tasks that a setting may give."""


@attrs.frozen
class Settings:
    """The settings in ``galaxy.toml``. Paths in the file are relative to its folder.

    Attributes:
        path: The file.
        devices: The file with the devices, for `galaxy_trio.read_config`.
        listen: ``unix:PATH`` or ``HOST:PORT``.
        socket_mode: The mode of the socket at ``unix:PATH``.
        socket_group: The group of that socket, by name or number; `None` for the group of the process.
        database: The database with the tasks: a file, or a PostgreSQL database with its cluster and the lease of its daemons.
        name: The daemon's name in its cluster, for people.
        url: Where others reach the daemon, for people; `None` if that is not known.
        token_file: The file with the tokens that clients may give, one per line; read again at each reload.
        allowed_hosts: The host names by which clients may call the daemon, besides those of the loopback interface.
        keep_days: Days for which finished tasks are kept.
        keep_tasks: The number of finished tasks that are kept.
        max_queued: The number of tasks that may wait for a device; one more is refused.
        drain: Seconds for which running tasks may continue when the daemon is stopped.
        log: ``console`` or ``json``.
    """

    path: Path
    devices: Path
    listen: str
    database: Location
    name: str = attrs.field(factory=socket.gethostname)
    url: str | None = None
    token_file: Path | None = attrs.field(default=None, repr=False)
    socket_mode: int = 0o600
    socket_group: str | None = None
    allowed_hosts: tuple[str, ...] = ()
    keep_days: float = 30.0
    keep_tasks: int = 100_000
    max_queued: int = 20_000
    drain: float = 30.0
    log: str = "console"

    def read_devices(self) -> ConstellationConfig:
        """Read the file with the devices.

        Raises:
            ConfigError: The file cannot be read, or is invalid.
        """
        return read_config(self.devices)

    def read_tokens(self) -> tuple[str, ...]:
        """Read the current tokens: those in the file, and those in the environment variable.

        Raises:
            ConfigError: The file cannot be read, or contains no token, or a token cannot be sent in a header.
        """
        tokens = () if self.token_file is None else read_token_file(self.token_file, "the tokens")
        check_tokens(tokens, str(self.token_file))
        given = read_token_variable(TOKEN_VARIABLE)
        check_tokens(given, f"the variable {TOKEN_VARIABLE}")
        return tokens + given


def check_tokens(tokens: tuple[str, ...], where: str) -> None:
    """Check that tokens can be sent in a header.

    Raises:
        ConfigError: One cannot. The message does not show it.
    """
    if any(not token.isascii() or not token.isprintable() or " " in token for token in tokens):
        raise ConfigError(f"a token in {where} has characters that no header can carry: use letters and digits")


def is_daemon_file(path: str | Path) -> bool:
    """Whether a file is the daemon's configuration, as far as can be seen: by its keys, or by the name ``galaxy.toml`` if it has none."""
    path = Path(path)
    if path.suffix.lower() != ".toml":
        return False
    try:
        content = parse_toml(read_text(path, ""), "")
    except ConfigError:
        content = None
    if not isinstance(content, dict) or not content:
        return path.name == _FILE
    # The file of a constellation has a list of devices, and this one the name of such a file.
    keys = cast("dict[str, object]", content)
    if "devices" in keys:
        return isinstance(keys["devices"], str)
    return any(field.name in keys for field in attrs.fields(Settings))


def read_settings(path: str | Path) -> Settings:
    """Read ``galaxy.toml``.

    Raises:
        ConfigError: The file cannot be read, or is invalid. Names every problem with its key.
    """
    path = Path(path).absolute()
    what = f"the daemon's configuration {path}"
    problems: list[str] = []
    text = read_text(path, f"{what} (--config names another) cannot be read")
    members = ObjectReader(parse_toml(text, what), "", problems)
    token_file = _read_file_name(members, "token_file")
    listen = members.text("listen", "'unix:PATH' or 'HOST:PORT'", accept=bool) or "127.0.0.1:8765"
    socket_mode = members.text(
        "socket_mode", "'0600', '0660' or '0666': 6 for those who may connect", accept=_SOCKET_MODES.__contains__
    )
    socket_group = members.text("socket_group", "the name of a group", accept=_is_name)
    if listen.startswith(UNIX):
        listen = f"{UNIX}{path.parent / listen.removeprefix(UNIX)}"
    else:
        for key, value in (("socket_mode", socket_mode), ("socket_group", socket_group)):
            if value is not None:
                members.report(key, "only a Unix socket has it: remove it, or set listen to 'unix:PATH'")
    settings = Settings(
        path,
        devices=path.parent / (_read_file_name(members, "devices") or "devices.toml"),
        listen=listen,
        socket_mode=0o600 if socket_mode is None else int(socket_mode, 8),
        socket_group=socket_group,
        database=_read_database(members, path.parent),
        name=members.text("name", f"a name of 1 to {_MAX_NAME} characters", accept=_is_daemon_name)
        or socket.gethostname(),
        url=members.text("url", "an address that begins with http:// or https://", accept=_is_url, secret=True),
        token_file=None if token_file is None else path.parent / token_file,
        allowed_hosts=members.texts(
            "allowed_hosts",
            "a list of host names",
            "a host name as it is in the header Host, without a port",
            accept=lambda name: parse_host_name(name) is not None,
        ),
        keep_days=members.number("keep_days", "days") or 30.0,
        keep_tasks=members.integer("keep_tasks", minimum=1, maximum=_MAX_TASKS) or 100_000,
        max_queued=members.integer("max_queued", minimum=1, maximum=_MAX_TASKS) or 20_000,
        drain=members.number("drain") or 30.0,
        log=members.text("log", "'console' or 'json'", accept=("console", "json").__contains__) or "console",
    )
    members.refuse_unknown(extensions=True)
    check_problems(what, problems)
    return settings


def _read_database(members: ObjectReader, directory: Path) -> Location:
    # It is secret, because it may contain a password.
    location = members.text(
        "database",
        f"the name of a file, or a URL that begins with {POSTGRESQL}",
        accept=lambda text: _is_file_name(text) or text.startswith(POSTGRESQL),
        secret=True,
    )
    cluster = members.text(
        "cluster", "at most 40 small letters, digits, - and _, with a letter first and not pg_", accept=is_cluster_name
    )
    lease: float | None = members.read(
        "lease",
        f"a number of seconds from {MIN_LEASE:.0f} to {MAX_LEASE:.0f}",
        int,
        float,
        accept=_is_lease,
    )
    if location is not None and location.startswith(POSTGRESQL):
        return PostgresqlLocation(location, cluster or DEFAULT_CLUSTER, lease or DEFAULT_LEASE)
    for key, value in (("cluster", cluster), ("lease", lease)):
        if value is not None:
            members.report(key, "only a PostgreSQL database has it: remove it, or set database to a URL")
    return directory / (location or "galaxy.db")


def _is_lease(seconds: float) -> bool:
    return MIN_LEASE <= seconds <= MAX_LEASE


def _is_daemon_name(text: str) -> bool:
    return 0 < len(text) <= _MAX_NAME and text.isprintable()


def _is_url(text: str) -> bool:
    # Everyone who may ask the daemon sees it.
    return text.startswith(("http://", "https://")) and "@" not in text and text.isprintable()


def _is_name(text: str) -> bool:
    return text != "" and "\0" not in text


def _read_file_name(members: ObjectReader, key: str) -> str | None:
    # It is secret, because a URL with a password or a token may be given in its place.
    return members.text(
        key,
        "the name of a file, not a URL",
        accept=_is_file_name,
        secret=True,
    )


def _is_file_name(text: str) -> bool:
    return text != "" and "://" not in text and can_name_a_file(text)
