"""Who may open a WebSocket to a server, told by the request of the handshake alone."""

from __future__ import annotations

import hmac
import ipaddress
from typing import TYPE_CHECKING
from urllib.parse import parse_qs, urlsplit

from galaxy_trio._transport.interface import SWITCHING_PROTOCOLS
from galaxy_trio._transport.url import DEFAULT_PATH
from galaxy_trio.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Iterable

_FORBIDDEN = 403
_NOT_FOUND = 404


class Admission:
    """Judges the requests of handshakes. Holds the tokens, and shows them nowhere.

    Args:
        tokens: Any one of them lets a client in; without any, no token is asked for.
        allowed_hosts: The names by which clients may call the server, without a port; None for any.
        allowed_origins: The web pages whose scripts may connect, as browsers name them: ``https://example.org``.
    """

    def __init__(
        self,
        tokens: str | Iterable[str] | None = None,
        *,
        allowed_hosts: Iterable[str] | None = None,
        allowed_origins: Iterable[str] = (),
    ) -> None:
        self._tokens = [token.encode() for token in checked_tokens(tokens)]
        self._hosts = None if allowed_hosts is None else {host.strip("[]").lower() for host in allowed_hosts}
        self._origins = {origin.encode() for origin in allowed_origins}

    @property
    def asks_for_token(self) -> bool:
        """Whether there is a token."""
        return bool(self._tokens)

    def judge(self, path: str, headers: list[tuple[bytes, bytes]]) -> int:
        """The HTTP status to answer with.

        Args:
            path: The request's target, with its query.
            headers: With lower-case names, ``host`` among them.
        """
        try:
            parts = urlsplit(path)
        except ValueError:
            return _NOT_FOUND
        # A target with a host in it is for a proxy, and its host would not be the one that was checked.
        if not path.startswith("/") or parts.netloc or parts.path != DEFAULT_PATH:
            return _NOT_FOUND
        origins = [value for name, value in headers if name.lower() == b"origin"]
        hosts = [value for name, value in headers if name.lower() == b"host"]
        # A browser sends an origin always, and nothing else does: a page must not reach a server just because its reader can.
        if any(origin not in self._origins for origin in origins):
            return _FORBIDDEN
        if self._hosts is not None and not all(_name_in(host) in self._hosts for host in hosts):
            return _FORBIDDEN
        return SWITCHING_PROTOCOLS if self._knows(parts.query) else _FORBIDDEN

    def _knows(self, query: str) -> bool:
        if not self._tokens:
            return True
        given = parse_qs(query).get("token", [""])[0].encode(errors="replace")
        # All of them, always: the time tells neither which one it was nor how much of it was right.
        matches = [hmac.compare_digest(given, token) for token in self._tokens]
        return any(matches)


def checked_tokens(tokens: str | Iterable[str] | None) -> list[str]:
    """The tokens as a list.

    Raises:
        ConfigError: One of them keeps nobody out, or there is none where some were to be.
    """
    if tokens is None:
        return []
    listed = [tokens] if isinstance(tokens, str) else list(tokens)
    if not listed:
        raise ConfigError("an empty list of tokens would let everybody in: give some, or None for a server without")
    if not all(listed):
        raise ConfigError("an empty token would let everybody in: give one, or None for a server without")
    return listed


def hosts_for(address: str, allowed_hosts: Iterable[str] | None) -> set[str] | None:
    """By which names a server that listens at an address may be called, unless it may be by any.

    A page in a browser can make any name point to this machine, so at a loopback address only loopback's own names and those that
    are given will do.
    """
    given = None if allowed_hosts is None else set(allowed_hosts)
    if not is_loopback(address):
        return given
    return {"localhost", "127.0.0.1", "::1", address, *(given or ())}


def is_loopback(host: str) -> bool:
    """Whether a name or address is reached from this machine only."""
    if host.lower() == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _name_in(host: bytes) -> str:
    """A ``Host`` header without its port."""
    name = host.decode("latin-1").strip().lower()
    if name.startswith("["):
        return name[1:].partition("]")[0]
    return name.partition(":")[0]
