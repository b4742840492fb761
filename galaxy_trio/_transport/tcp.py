"""Connecting to a URL: DNS, TCP, an HTTP proxy, TLS, with errors that say what to do."""

from __future__ import annotations

import errno
import os
import socket
import ssl
from typing import TYPE_CHECKING, Final, Literal

import attrs
import trio

from galaxy_trio._concurrency.background import first_leaf
from galaxy_trio._transport.direct_socket import directly
from galaxy_trio._transport.http_connect import connect_through
from galaxy_trio.errors import ConfigError, ConnectFailed, ConnectTimeout

if TYPE_CHECKING:
    from galaxy_trio._transport.proxy import Proxy
    from galaxy_trio._transport.url import Target

# OpenSSL's codes for a certificate that is self-signed, or whose chain ends in an unknown authority or lacks one.
_OF_UNKNOWN_AUTHORITY: Final = (18, 19, 20)
# OpenSSL's reasons for an answer that is not TLS.
_OF_PLAIN_TEXT: Final = ("WRONG_VERSION_NUMBER", "RECORD_LAYER_FAILURE", "HTTP_REQUEST", "PACKET_LENGTH_TOO_LONG")

_TLS_ADVICE: Final = {
    "server": ("ws", "if your own authority issued it, give the authority's certificate file"),
    "proxy": ("http", "if your own authority issued it, add the authority to the system's, or set SSL_CERT_FILE"),
}
"""The scheme of its URL without TLS, and the advice about a certificate of an unknown authority."""


@attrs.frozen
class _Peer:
    """The server, or the proxy, as errors name it.

    Attributes:
        proxy: The proxy's URL, if it is the proxy.
    """

    what: Literal["server", "proxy"]
    host: str
    shown: str
    proxy: str | None = None


async def open_stream(
    target: Target,
    stream: trio.abc.Stream | None,
    ssl_context: ssl.SSLContext | None,
    proxy: Proxy | None,
    timeout: float,
) -> trio.abc.Stream:
    """Connect to a URL, through a proxy if there is one, with TLS if the scheme asks for it. A failure or cancellation leaves nothing open.

    Args:
        target: The URL to connect to.
        stream: Used instead of TCP, to the proxy or else to the server. TLS runs over it as well.
        ssl_context: Used instead of the default, which verifies the certificate and its name. TLS with the proxy uses the default.
        proxy: The proxy; None for a direct connection.
        timeout: Seconds for everything together.

    Raises:
        ConnectFailed: DNS, TCP, the proxy or TLS failed.
        ConnectTimeout: It took too long.
        ConfigError: The `ssl_context` cannot be used, or the default cannot be made.
    """
    through = "" if proxy is None else f" through the proxy {proxy.shown}"
    server = _Peer("server", target.host, f"{target.shown}{through}")
    middle = None if proxy is None else _Peer("proxy", proxy.host, f"the proxy {proxy.shown}", proxy.shown)
    stage = f"no connection to {server.shown}"
    waiting_for = middle or server
    is_plain = not (target.secure or (proxy is not None and proxy.secure))
    try:
        with trio.move_on_after(timeout):
            if stream is None:
                stream = await _open_tcp(waiting_for, (proxy or target).port, is_plain=is_plain)
            if proxy is not None and middle is not None:
                if proxy.secure:
                    stream = await _start_tls(stream, None, middle)
                stage = f"no connection to {target.shown}: {middle.shown} did not answer"
                await connect_through(stream, proxy, target)
                stage, waiting_for = f"no connection to {server.shown}: the server did not answer", server
            if target.secure:
                stream = await _start_tls(stream, ssl_context, server)
            return stream
        raise ConnectTimeout(f"{stage} within {timeout:g} s", proxy=waiting_for.proxy)
    except BaseException:
        if stream is not None:
            with trio.CancelScope(shield=True, deadline=trio.current_time() + 1):
                await trio.aclose_forcefully(stream)
        raise


async def _open_tcp(peer: _Peer, port: int, *, is_plain: bool) -> trio.abc.Stream:
    try:
        opened = await trio.open_tcp_stream(peer.host, port)
    except OSError as error:
        raise ConnectFailed(f"cannot connect to {peer.shown}: {_os_reason(error, peer)}", proxy=peer.proxy) from error
    return directly(opened) if is_plain else opened


async def _start_tls(
    stream: trio.abc.Stream, ssl_context: ssl.SSLContext | None, peer: _Peer
) -> trio.SSLStream[trio.abc.Stream]:
    try:
        context = ssl_context if ssl_context is not None else ssl.create_default_context()
        secure = trio.SSLStream(stream, context, server_hostname=peer.host, https_compatible=True)
        await secure.do_handshake()
    except (trio.BrokenResourceError, trio.ClosedResourceError) as error:
        cause = error.__cause__ or error
        raise ConnectFailed(
            f"no TLS connection to {peer.shown}: {_tls_reason(cause, peer)}", proxy=peer.proxy
        ) from cause
    except (OSError, ValueError) as error:
        raise ConfigError(
            f"the ssl_context cannot be used to connect to {peer.shown}: {_tls_reason(error, peer)}"
        ) from error
    return secure


def _os_reason(error: OSError, peer: _Peer) -> str:
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
        return f"{reason}; is the {peer.what} running, and at this port?"
    return reason


def _tls_reason(error: BaseException, peer: _Peer) -> str:
    plain_scheme, own_authority = _TLS_ADVICE[peer.what]
    if isinstance(error, ssl.SSLCertVerificationError):
        advice = f"; {own_authority}" if error.verify_code in _OF_UNKNOWN_AUTHORITY else ""
        return f"the {peer.what}'s certificate is not accepted: {error.verify_message}{advice}"
    if isinstance(error, ssl.SSLError):
        reason = (error.reason or str(error)).lower().replace("_", " ")
        plain = f"; if the {peer.what} does not use TLS, its URL begins with {plain_scheme}://"
        return f"{reason}{plain if error.reason in _OF_PLAIN_TEXT else ''}"
    return str(error) or f"the {peer.what} ended the connection"
