"""Where a command connects to: the arguments and options that say so, and the files and variables behind them."""

from __future__ import annotations

import functools
import math
import os
import ssl
from pathlib import Path
from typing import TYPE_CHECKING, Final
from urllib.parse import parse_qsl, urlsplit

import attrs
import click

from galaxy_trio._connection.connection import open_connection
from galaxy_trio.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Callable
    from contextlib import AbstractAsyncContextManager

    from galaxy_trio._connection.connection import Connection

TOKEN_VARIABLE: Final = "GALAXY_TRIO_TOKEN"  # noqa: S105  # the variable's name


@attrs.frozen
class Destination:
    """A device on a server, and how to get there."""

    url: str
    device_id: str
    token: str | None = attrs.field(default=None, repr=False)
    ssl_context: ssl.SSLContext | None = None
    connect_timeout: float = 60.0
    token_file: Path | None = None

    def read_token(self) -> str | None:
        """The token as it is now: for what connects again and again.

        Raises:
            ConfigError: As for `read_token`.
        """
        return read_token(self.token_file)

    def connect(self) -> AbstractAsyncContextManager[Connection]:
        """Open a connection, for the length of the block; see `open_connection`."""
        return open_connection(
            self.url,
            self.device_id,
            token=self.token,
            ssl_context=self.ssl_context,
            connect_timeout=self.connect_timeout,
            register_timeout=self.connect_timeout,
        )


def seconds(value: str) -> float:
    """An option's time: above 0; ``inf`` for no limit."""
    try:
        number = float(value)
    except ValueError:
        number = math.nan
    if not number > 0:
        raise click.BadParameter(f"{value!r} is not a number of seconds above 0 ('inf' is, for no limit).")
    return number


def words(value: str) -> str:
    """An argument's text, which the system could decode."""
    if not _was_decoded(value):
        raise click.BadParameter("it is not valid UTF-8.")
    return value


def _was_decoded(text: str) -> bool:
    # What the system cannot decode it hands over as lone surrogates.
    return not any("\ud800" <= character <= "\udfff" for character in text)


def takes_destination(command: Callable[..., int]) -> Callable[..., int]:
    """Give a command the arguments and options of all that connect to a server; it gets them as a `Destination`."""

    @functools.wraps(command)
    def with_destination(
        url: str, device: str, token_file: Path | None, ca_file: Path | None, connect_timeout: float, **others: object
    ) -> int:
        refuse_token_in(url)
        destination = Destination(
            url, device, read_token(token_file), read_certificates(url, ca_file), connect_timeout, token_file
        )
        return command(destination, **others)

    file = click.Path(path_type=Path)
    decorated: Callable[..., int] = with_destination
    # The first stands first in the usage, and click wants it last.
    for decorator in (
        click.option("--connect-timeout", type=seconds, default=60, show_default=True, metavar="SECONDS",
                     help="How long connecting may take, and registering as long again."),
        click.option("--ca-file", type=file, metavar="FILE",
                     help="Trust only the authorities in this PEM file; for wss:// URLs."),
        click.option("--token-file", type=file, metavar="FILE",
                     help=f"Read the token from this file instead of {TOKEN_VARIABLE}."),
        click.argument("device", type=words),
        click.argument("url", type=words),
    ):  # fmt: skip
        decorated = decorator(decorated)
    return decorated


def refuse_token_in(url: str) -> None:
    """Raise `ConfigError` for a URL with a token: every user of the machine can see a command's arguments."""
    try:
        query = urlsplit(url).query
    except ValueError:
        # The package says what is wrong with it.
        return
    if any(name == "token" for name, _ in parse_qsl(query, keep_blank_values=True)):
        raise ConfigError(
            f"a token in the URL can be seen by everybody on this machine: give it in {TOKEN_VARIABLE}, or with --token-file"
        )


def read_token(token_file: Path | None) -> str | None:
    """The token from the file, or else from the environment; None if that has none either.

    Raises:
        ConfigError: There is none where one should be, or more than one. What is there is not shown.
    """
    tokens = read_tokens(token_file)
    if len(tokens) > 1:
        where = TOKEN_VARIABLE if token_file is None else f"the token file {str(token_file)!r}"
        raise ConfigError(f"{where} has {len(tokens)} lines: give one token, for only a server takes several")
    return tokens[0] if tokens else None


def read_tokens(token_file: Path | None) -> list[str]:
    """The tokens from the file, or else from the environment, one a line; none if that has none either.

    Raises:
        ConfigError: There is none where one should be. What is there is not shown.
    """
    return [line.strip() for line in _token_text(token_file).splitlines() if line.strip()]


def _token_text(token_file: Path | None) -> str:
    if token_file is None:
        text = os.environ.get(TOKEN_VARIABLE, "")
        if not _was_decoded(text):
            raise ConfigError(f"the token in {TOKEN_VARIABLE} is not valid UTF-8")
        return text
    content: str | None = None
    try:
        content = token_file.read_text("utf-8-sig")
    except UnicodeDecodeError:
        # This error holds what was read: it must not become the other's context.
        pass
    except OSError as error:
        raise ConfigError(f"cannot read the token file {str(token_file)!r}: {reason_of(error)}") from error
    if content is None:
        raise ConfigError(f"the token file {str(token_file)!r} is not UTF-8 text")
    if not content.strip():
        raise ConfigError(f"the token file {str(token_file)!r} is empty")
    return content


def read_certificates(url: str, ca_file: Path | None) -> ssl.SSLContext | None:
    """A context that trusts the authorities in the file and no others; None, which means the system's, without a file.

    Raises:
        ConfigError: The file cannot be used, or the URL has no use for it.
    """
    if ca_file is None:
        return None
    if not url.lower().startswith("wss:"):
        raise ConfigError("--ca-file is for URLs that begin with wss://: others are not encrypted")
    try:
        return ssl.create_default_context(cafile=str(ca_file))
    except ssl.SSLError as error:
        raise ConfigError(f"the file {str(ca_file)!r} holds no certificates in PEM format") from error
    except OSError as error:
        raise ConfigError(f"cannot read the certificates in {str(ca_file)!r}: {reason_of(error)}") from error


def reason_of(error: OSError) -> str:
    """What the system says, in lower case, to stand in a sentence."""
    return (error.strerror or str(error)).lower()
