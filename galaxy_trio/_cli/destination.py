"""The arguments and options that say which server and device a command connects to."""

from __future__ import annotations

import functools
import ssl
from pathlib import Path
from typing import TYPE_CHECKING, Final
from urllib.parse import parse_qsl, unquote, urlsplit

import attrs
import click

from galaxy_trio._cli.options import seconds, valid_text
from galaxy_trio._config.certificates import trusting_context
from galaxy_trio._config.tokens import read_token_file, read_token_variable, require_one
from galaxy_trio._connection.connection import open_connection
from galaxy_trio._connection.options import ConnectionOptions
from galaxy_trio.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Callable
    from contextlib import AbstractAsyncContextManager

    from galaxy_trio._connection.connection import Connection

TOKEN_VARIABLE: Final = "GALAXY_TRIO_TOKEN"  # noqa: S105  # the variable's name


@attrs.frozen
class Destination:
    """A device on a server, and the parameters of a connection to it."""

    url: str = attrs.field(repr=False)
    device_id: str
    token: str | None = attrs.field(default=None, repr=False)
    ssl_context: ssl.SSLContext | None = None
    options: ConnectionOptions = attrs.field(factory=lambda: ConnectionOptions(proxy=True))
    token_file: Path | None = attrs.field(default=None, repr=False)

    def read_token(self) -> str | None:
        """Read the token again, for a reconnect.

        Raises:
            ConfigError: As for the function `read_token`.
        """
        return read_token(self.token_file)

    def connect(self) -> AbstractAsyncContextManager[Connection]:
        """Open a connection for the duration of the block; see `open_connection`."""
        return open_connection(
            self.url,
            self.device_id,
            token=self.token,
            ssl_context=self.ssl_context,
            options=self.options,
        )


def destination_options(command: Callable[..., int]) -> Callable[..., int]:
    """Add the arguments and options of a command that connects to a server, and pass them to it as a `Destination`."""

    @functools.wraps(command)
    def with_destination(
        url: str, device: str, token_file: Path | None, ca_file: Path | None, connect_timeout: float, **others: object
    ) -> int:
        reject_token_in_url(url)
        options = ConnectionOptions(connect_timeout=connect_timeout, register_timeout=connect_timeout, proxy=True)
        destination = Destination(
            url, device, read_token(token_file), make_ssl_context(url, ca_file), options, token_file
        )
        return command(destination, **others)

    file = click.Path(path_type=Path)
    decorated: Callable[..., int] = with_destination
    # The decorator that is applied last is shown first in the usage.
    for decorator in (
        click.option("--connect-timeout", type=seconds, default=60, show_default=True, metavar="SECONDS",
                     help="Time limit for connecting, and again for registering."),
        click.option("--ca-file", type=file, metavar="FILE",
                     help="For wss:// URLs: trust only the authorities in this PEM file."),
        click.option("--token-file", type=file, metavar="FILE",
                     help=f"Read the token from this file instead of the variable {TOKEN_VARIABLE}."),
        click.argument("device", type=valid_text),
        click.argument("url", type=valid_text),
    ):  # fmt: skip
        decorated = decorator(decorated)
    return decorated


def reject_token_in_url(url: str) -> None:
    """Raise `ConfigError` if the URL contains a token: every user of the machine can see a command's arguments."""
    try:
        parts = urlsplit(url)
    except ValueError:
        # `parse_url` reports what is wrong with it.
        return
    names = [name for name, _ in parse_qsl(parts.query, keep_blank_values=True)]
    # A token may also have been put into the path, as in ";token=".
    if "token" in map(str.lower, names) or "token=" in unquote(parts.path).lower():
        raise ConfigError(
            f"every user of this machine can see a token in the URL: set {TOKEN_VARIABLE} or use --token-file"
        )


def read_token(token_file: Path | None) -> str | None:
    """Read the token from the file, or from the environment if there is no file; None if there is no token.

    Raises:
        ConfigError: The file cannot be read or is empty, or there are several tokens. The message shows none of them.
    """
    tokens = read_tokens(token_file)
    where = TOKEN_VARIABLE if token_file is None else f"the token file {str(token_file)!r}"
    return require_one(tokens, where=where) if tokens else None


def read_tokens(token_file: Path | None) -> tuple[str, ...]:
    """Read the tokens, one per line, from the file, or from the environment if there is no file.

    Raises:
        ConfigError: The file cannot be read or is empty. The message does not show its content.
    """
    return read_token_variable(TOKEN_VARIABLE) if token_file is None else read_token_file(token_file)


def make_ssl_context(url: str, ca_file: Path | None) -> ssl.SSLContext | None:
    """Return a TLS context that trusts only the authorities in the file; None, which means the system's, if there is no file.

    Raises:
        ConfigError: The file cannot be used, or the URL does not use TLS.
    """
    if ca_file is None:
        return None
    if not url.lower().startswith("wss:"):
        raise ConfigError("--ca-file requires a URL that begins with wss://: other connections are not encrypted")
    return trusting_context(ca_file)
