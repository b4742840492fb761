"""``galaxy-trio server``: a server for trying out devices and clients."""

from __future__ import annotations

import errno
import socket
import ssl
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING, Final

from galaxy_trio._cli.destination import TOKEN_VARIABLE
from galaxy_trio._cli.server_session import run_as_command
from galaxy_trio._cli.terminal import echo, reason_of
from galaxy_trio._config.certificates import encoding_problem
from galaxy_trio.errors import ConfigError
from galaxy_trio.server import ServerLimits, open_server
from galaxy_trio.server.access import is_loopback

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    import trio

    from galaxy_trio.messages import JSON

_ADVICE: Final = {
    errno.EADDRINUSE: "; another program listens there: stop it, or use another --port",
    errno.EADDRNOTAVAIL: "; use an address of this machine, such as 127.0.0.1",
    errno.EACCES: "; use a --port above 1023",
}


async def serve(
    host: str,
    port: int,
    tokens: Sequence[str],
    ssl_context: ssl.SSLContext | None,
    device_config: Mapping[str, Mapping[str, JSON]] | None,
    allowed_hosts: Sequence[str],
    allowed_origins: Sequence[str],
    max_connections: int,
    stop: trio.Event,
) -> None:
    """Run the server until `stop` is set."""
    if not tokens and not is_loopback(host):
        raise ConfigError(
            f"a server on {host!r} can be reached from other machines and needs a token: "
            f"set {TOKEN_VARIABLE}, use --token-file, or listen on 127.0.0.1"
        )
    async with AsyncExitStack() as stack:
        try:
            server = await stack.enter_async_context(
                open_server(
                    host,
                    port,
                    session=run_as_command,
                    token=tokens or None,
                    ssl_context=ssl_context,
                    allowed_hosts=allowed_hosts or None,
                    allowed_origins=allowed_origins,
                    device_config=device_config,
                    limits=ServerLimits(max_connections=max_connections),
                )
            )
        except OSError as error:
            raise ConfigError(f"cannot listen on {host!r}, port {port}: {_reason(error)}") from error
        echo(server.url)
        await stop.wait()


def _reason(error: OSError) -> str:
    """Return why the server cannot listen, with what to do."""
    reason = reason_of(error)
    if isinstance(error, socket.gaierror):
        return f"{reason}; use a name or an address of this machine, such as 127.0.0.1"
    return f"{reason}{_ADVICE.get(error.errno or 0, '')}"


def read_server_certificate(certificate: Path | None, key: Path | None) -> ssl.SSLContext | None:
    """Return a TLS context with this certificate; None if there is no certificate.

    Raises:
        ConfigError: The files cannot be used.
    """
    if certificate is None:
        if key is not None:
            raise ConfigError("--key requires --certificate")
        return None
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    try:
        context.load_cert_chain(certificate, key)
    except ssl.SSLError as error:
        for path in filter(None, (certificate, key)):
            problem = encoding_problem(path)
            if problem is not None:
                raise ConfigError(f"the file {str(path)!r} cannot be used: {problem}") from error
        raise ConfigError(
            f"the certificate {str(certificate)!r} and its key cannot be used: both must be in PEM format and belong together"
        ) from error
    except OSError as error:
        raise ConfigError(f"cannot read the certificate {str(certificate)!r} or its key: {reason_of(error)}") from error
    return context
