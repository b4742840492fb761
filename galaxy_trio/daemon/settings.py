"""The daemon's file, ``galaxy.toml``: where it listens, what it keeps, and which devices it has."""

from __future__ import annotations

import difflib
import os
import tomllib
from pathlib import Path
from typing import TYPE_CHECKING, Final, TypeVar, cast

import attrs

from galaxy_trio import ConfigError, ConstellationConfig, read_config

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

T = TypeVar("T")

TOKEN_VARIABLE: Final = "GALAXY_TRIO_DAEMON_TOKEN"  # noqa: S105  # a variable's name
_MOST: Final = 1_000_000


@attrs.frozen
class Settings:
    """What ``galaxy.toml`` says.

    Attributes:
        path: Of the file.
        devices: The file with the devices, as `galaxy_trio.read_config` reads it; relative to the daemon's own.
        listen: ``unix:PATH`` or ``HOST:PORT``.
        database: Where tasks are kept; relative to the file.
        token_file: Holds the tokens that clients may give, one a line; read anew at each reload.
        allowed_hosts: By which names, beside loopback's, clients may call it.
        keep_days: How long tasks that have ended are kept.
        keep_tasks: How many of them at most.
        max_queued: Tasks that may wait for a device; one more is refused.
        drain: Seconds that running tasks may go on when the daemon is stopped.
        log: ``console`` or ``json``.
    """

    path: Path
    devices: Path
    listen: str
    database: Path
    token_file: Path | None = None
    allowed_hosts: tuple[str, ...] = ()
    keep_days: float = 30.0
    keep_tasks: int = 100_000
    max_queued: int = 20_000
    drain: float = 30.0
    log: str = "console"

    def read_devices(self) -> ConstellationConfig:
        """The devices of now.

        Raises:
            ConfigError: What is wrong with their file.
        """
        return read_config(self.devices)

    def read_tokens(self) -> tuple[str, ...]:
        """The tokens of now: those in the file, and that in the environment.

        Raises:
            ConfigError: The file cannot be read, or holds none, or no header can carry one.
        """
        tokens = () if self.token_file is None else _tokens_in(self.token_file)
        given = os.environ.get(TOKEN_VARIABLE)
        if given:
            _check_tokens((given,), f"the variable {TOKEN_VARIABLE}")
            tokens += (given,)
        return tokens


def _tokens_in(path: Path) -> tuple[str, ...]:
    reason = "it is no UTF-8 text"
    text: str | None = None
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        reason = error.strerror or str(error)
    except UnicodeDecodeError:
        # It holds what is in the file, and must not become the error's context.
        pass
    if text is None:
        raise ConfigError(f"the tokens cannot be read from {path}: {reason}")
    tokens = tuple(line.strip() for line in text.splitlines() if line.strip())
    if not tokens:
        raise ConfigError(f"there is no token in {path}: write one, in a line of its own")
    _check_tokens(tokens, str(path))
    return tokens


def _check_tokens(tokens: Iterable[str], where: str) -> None:
    if any(not token.isascii() or not token.isprintable() or " " in token for token in tokens):
        raise ConfigError(f"a token in {where} has characters that no header can carry: use letters and digits")


def read_settings(path: str | Path) -> Settings:
    """Read ``galaxy.toml``.

    Raises:
        ConfigError: All that is wrong with it, each with its place.
    """
    path = Path(path).absolute()
    text: str | None = None
    reason = "it is no UTF-8 text"
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        reason = error.strerror or str(error)
    except UnicodeDecodeError:
        pass
    if text is None:
        raise ConfigError(f"the daemon's configuration {path} cannot be read: {reason}; --config names another")
    try:
        document = cast("dict[str, object]", tomllib.loads(text))
    except ValueError as error:
        raise ConfigError(f"the daemon's configuration {path} is not TOML: {error}") from error
    reader = _Reader(document)
    settings = Settings(
        path,
        devices=path.parent / reader.take("devices", "devices.toml", _file, "the name of a file"),
        listen=reader.take("listen", "127.0.0.1:8765", _text, "'unix:PATH' or 'HOST:PORT'"),
        database=path.parent / reader.take("database", "galaxy.db", _file, "the name of a file"),
        token_file=reader.take("token_file", None, lambda value: path.parent / _file(value), "the name of a file"),
        allowed_hosts=reader.take("allowed_hosts", (), _texts, "a list of host names"),
        keep_days=reader.take("keep_days", 30.0, _number, "a number of days above 0"),
        keep_tasks=reader.take("keep_tasks", 100_000, _count, f"a whole number from 1 to {_MOST:,}"),
        max_queued=reader.take("max_queued", 20_000, _count, f"a whole number from 1 to {_MOST:,}"),
        drain=reader.take("drain", 30.0, _number, "a number of seconds above 0"),
        log=reader.take("log", "console", _log, "'console' or 'json'"),
    )
    problems = reader.problems()
    if problems:
        listed = "\n".join(f"  {problem}" for problem in problems)
        raise ConfigError(f"the daemon's configuration {path} is not right:\n{listed}", problems=tuple(problems))
    return settings


class _Reader:
    """Takes values out of a document, and keeps what is wrong with them."""

    def __init__(self, document: dict[str, object]) -> None:
        self._document = dict(document)
        self._known: list[str] = []
        self._problems: list[str] = []

    def take(self, key: str, default: T, convert: Callable[[object], T], expected: str) -> T:
        """A value, or the default if it is not there, or is wrong."""
        self._known.append(key)
        if key not in self._document:
            return default
        value = self._document.pop(key)
        try:
            return convert(value)
        except ValueError:
            self._problems.append(f"{key}: expected {expected}, got {value!r:.100}")
            return default

    def problems(self) -> list[str]:
        """What is wrong with what was taken, and what was left."""
        found = list(self._problems)
        for key in self._document:
            near = difflib.get_close_matches(key, self._known, 1)
            found.append(f"{key}: there is no such key" + (f"; did you mean {near[0]!r}?" if near else ""))
        return found


def _text(value: object) -> str:
    if not isinstance(value, str) or not value:
        raise ValueError
    return value


def _file(value: object) -> str:
    name = _text(value)
    if "\0" in name:
        raise ValueError
    return name


def _texts(value: object) -> tuple[str, ...]:
    if not isinstance(value, list):
        raise ValueError  # noqa: TRY004  # all that is wrong is one kind of wrong here
    return tuple(_text(item) for item in cast("list[object]", value))


def _number(value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < float("inf"):
        raise ValueError
    return float(value)


def _count(value: object) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or not 0 < value <= _MOST:
        raise ValueError
    return value


def _log(value: object) -> str:
    if value not in ("console", "json"):
        raise ValueError
    return str(value)
