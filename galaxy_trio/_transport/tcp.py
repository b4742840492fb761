"""Connecting to a URL: DNS, TCP, TLS, with errors that say what to do."""

from __future__ import annotations

import errno
import os
import socket
import ssl
from typing import TYPE_CHECKING, Final

import trio

from galaxy_trio._concurrency.background import first_leaf
from galaxy_trio._transport.direct_socket import directly
from galaxy_trio.errors import ConfigError, ConnectFailed

if TYPE_CHECKING:
    from galaxy_trio._transport.url import Target

# OpenSSL's codes for a certificate that is self-signed, or whose chain ends in an unknown authority or lacks one.
_OF_UNKNOWN_AUTHORITY: Final = (18, 19, 20)
# OpenSSL's reasons for an answer that is not TLS.
_OF_PLAIN_TEXT: Final = ("WRONG_VERSION_NUMBER", "RECORD_LAYER_FAILURE", "HTTP_REQUEST", "PACKET_LENGTH_TOO_LONG")


async def open_stream(
    target: Target, stream: trio.abc.Stream | None, ssl_context: ssl.SSLContext | None
) -> trio.abc.Stream:
    """Connect to a URL, with TLS if its scheme asks for it. A failure or cancellation leaves nothing open.

    Args:
        target: The URL to connect to.
        stream: Used instead of TCP. TLS runs over it as well.
        ssl_context: Used instead of the default, which verifies the certificate and its name.

    Raises:
        ConnectFailed: DNS, TCP or TLS failed.
        ConfigError: The `ssl_context` cannot be used, or the default cannot be made.
    """
    if stream is None:
        try:
            opened = await trio.open_tcp_stream(target.host, target.port)
        except OSError as error:
            raise ConnectFailed(f"cannot connect to {target.shown}: {_os_reason(error)}") from error
        stream = opened if target.secure else directly(opened)
    if not target.secure:
        return stream
    try:
        context = ssl_context if ssl_context is not None else ssl.create_default_context()
        secure = trio.SSLStream(stream, context, server_hostname=target.host, https_compatible=True)
        await secure.do_handshake()
    except BaseException as error:
        with trio.CancelScope(shield=True, deadline=trio.current_time() + 1):
            await trio.aclose_forcefully(stream)
        if isinstance(error, trio.BrokenResourceError | trio.ClosedResourceError):
            cause = error.__cause__ or error
            raise ConnectFailed(f"no TLS connection to {target.shown}: {_tls_reason(cause)}") from cause
        if isinstance(error, OSError | ValueError):
            raise ConfigError(
                f"the ssl_context cannot be used to connect to {target.shown}: {_tls_reason(error)}"
            ) from error
        raise
    return secure


def _os_reason(error: OSError) -> str:
    """Describe the first reason: with several addresses, the cause is a group."""
    cause = None if error.__cause__ is None else first_leaf(error.__cause__)
    deepest = cause if isinstance(cause, OSError) else error
    if deepest.errno is None or isinstance(deepest, socket.gaierror):
        # The codes of name resolution are its own.
        reason = (deepest.strerror or str(deepest)).lower()
    else:
        # Not strerror, where trio adds the address, which the caller's message has already.
        reason = os.strerror(deepest.errno).lower()
    if isinstance(deepest, socket.gaierror):
        return f"{reason}; is the host's name right?"
    if deepest.errno == errno.ECONNREFUSED:
        return f"{reason}; is the server running, and at this port?"
    return reason


def _tls_reason(error: BaseException) -> str:
    if isinstance(error, ssl.SSLCertVerificationError):
        own_authority = "; if your own authority issued it, give the authority's certificate file"
        advice = own_authority if error.verify_code in _OF_UNKNOWN_AUTHORITY else ""
        return f"the server's certificate is not accepted: {error.verify_message}{advice}"
    if isinstance(error, ssl.SSLError):
        reason = (error.reason or str(error)).lower().replace("_", " ")
        plain = "; if the server does not use TLS, its URL begins with ws://" if error.reason in _OF_PLAIN_TEXT else ""
        return f"{reason}{plain}"
    return str(error) or "the server ended the connection"
