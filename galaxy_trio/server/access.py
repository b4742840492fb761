"""Access control of a server's WebSocket handshakes."""

from __future__ import annotations

import hmac
import ipaddress
from contextlib import suppress
from typing import TYPE_CHECKING
from urllib.parse import parse_qs, urlsplit

from galaxy_trio._config.hosts import parse_host, parse_host_name
from galaxy_trio._transport.interface import SWITCHING_PROTOCOLS
from galaxy_trio._transport.url import DEFAULT_PATH
from galaxy_trio.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Iterable

_FORBIDDEN = 403
_NOT_FOUND = 404
_MISDIRECTED = 421


class AccessPolicy:
    """Accepts or rejects handshake requests by token, host and origin. Never shows a token.

    Args:
        tokens: Accepted tokens; without any, no token is required.
        allowed_hosts: Accepted names of the server in the ``Host`` header, without a port; None for any.
        allowed_origins: The web pages whose scripts may connect, as browsers send them: ``https://example.org``.
    """

    def __init__(
        self,
        tokens: str | Iterable[str] | None = None,
        *,
        allowed_hosts: str | Iterable[str] | None = None,
        allowed_origins: str | Iterable[str] = (),
    ) -> None:
        self._tokens = _encode_tokens(tokens)
        self._hosts = None if allowed_hosts is None else frozenset(map(_host_name, _listed(allowed_hosts)))
        self._origins = {origin.encode() for origin in _listed(allowed_origins)}

    @property
    def requires_token(self) -> bool:
        """Whether clients must give a token."""
        return bool(self._tokens)

    def handshake_status(self, path: str, headers: list[tuple[bytes, bytes]]) -> int:
        """Return the HTTP status of the response: 101, 403 for a wrong token or origin, 404 for a wrong path, or 421 for a wrong host.

        Args:
            path: The request's target, with its query.
            headers: The request's headers, including ``host``.
        """
        try:
            parts = urlsplit(path)
        except ValueError:
            return _NOT_FOUND
        # A target with a host is for a proxy; its host would not be the one that is checked below.
        if not path.startswith("/") or parts.netloc or parts.path != DEFAULT_PATH:
            return _NOT_FOUND
        origins = [value for name, value in headers if name.lower() == b"origin"]
        hosts = [value for name, value in headers if name.lower() == b"host"]
        # Only browsers send an origin, and they always do: a page must not reach a server just because its reader can.
        if any(origin not in self._origins for origin in origins):
            return _FORBIDDEN
        if self._hosts is not None and not all(_is_allowed(host, self._hosts) for host in hosts):
            return _MISDIRECTED
        return SWITCHING_PROTOCOLS if self._has_valid_token(parts.query) else _FORBIDDEN

    def credential(self, path: str) -> int | None:
        """Return which token an accepted request gave, as a number; None if no token is required.

        Args:
            path: The request's target, with its query.
        """
        return next((number for number, matches in enumerate(self._matches(urlsplit(path).query)) if matches), None)

    def _has_valid_token(self, query: str) -> bool:
        return not self._tokens or any(self._matches(query))

    def _matches(self, query: str) -> list[bool]:
        """For each token, whether it was given."""
        given = parse_qs(query).get("token", [""])[0].encode(errors="replace")
        # Always compares all tokens, so that the time reveals neither which one matched nor how much of it.
        return [hmac.compare_digest(given, token) for token in self._tokens]


def _listed(texts: str | Iterable[str]) -> list[str]:
    # A single text would be split into its letters.
    return [texts] if isinstance(texts, str) else list(texts)


def _encode_tokens(tokens: str | Iterable[str] | None) -> list[bytes]:
    """Encode the tokens.

    Raises:
        ConfigError: A token is empty or cannot be encoded, or there are none.
    """
    if tokens is None:
        return []
    listed = _listed(tokens)
    if not listed:
        raise ConfigError(
            "an empty list of tokens would accept every client: give a token, or None for a server without"
        )
    if not all(listed):
        raise ConfigError("an empty token would accept every client: give a token, or None for a server without")
    with suppress(UnicodeEncodeError):
        return [token.encode() for token in listed]
    # Raised outside a handler: the caught error contains the token and would become this error's context.
    raise ConfigError(
        "a token holds characters that cannot be sent: is the file or variable that it comes from in UTF-8?"
    )


def hosts_for(address: str, allowed_hosts: str | Iterable[str] | None) -> set[str] | None:
    """The names that a server accepts in the ``Host`` header; None for any.

    A web page can make any name resolve to this machine. A server at a loopback address therefore accepts only loopback's own names
    and those in `allowed_hosts`.
    """
    given = None if allowed_hosts is None else set(_listed(allowed_hosts))
    if not is_loopback(address):
        return given
    return {"localhost", "127.0.0.1", "::1", address, *(given or ())}


def is_loopback(host: str) -> bool:
    """Whether a name or address can be reached from this machine only."""
    if host.lower() == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _host_name(text: str) -> str:
    """Normalize a name in `allowed_hosts`.

    Raises:
        ConfigError: It is no host name, or it has a port.
    """
    name = parse_host_name(text)
    if name is None:
        raise ConfigError(f"allowed_hosts: {text!r:.100} is not a host name without a port, such as galaxy.example.org")
    return name


def _is_allowed(header: bytes, names: frozenset[str]) -> bool:
    """Whether a ``Host`` header has one of these names, with any port."""
    host = parse_host(header.decode("latin-1").strip())
    return host is not None and host.name in names
