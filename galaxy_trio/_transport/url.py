"""Server URLs: parsing, and a form to show without the secret token."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final
from urllib.parse import SplitResult, parse_qsl, quote, unquote, urljoin, urlsplit

import attrs

from galaxy_trio.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Iterable

DEFAULT_PATH: Final = "/ws"
"""The path of AIP's server, used for a URL without a path."""

_SCHEMES: Final = ("ws", "wss")
_DEFAULT_PORTS = {"ws": 80, "wss": 443, "http": 80, "https": 443}
_MAX_HOST: Final = 253
"""The longest name that DNS allows."""
_MAX_SHOWN_PATH: Final = 200
_ADDRESS = re.compile(r"\[[0-9A-Fa-f:.]+(%[\w.-]+)?\](:.*)?")
_NAME = re.compile(r"[\w.-]+")
_DIGITS = re.compile(r"[0-9]{1,5}")
_PLAIN_PATH = re.compile(r"[A-Za-z0-9/_.~-]*")
_HEADER_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_HEADER_VALUE = re.compile(r"[\t\x20-\x7e\x80-\xff]*")
_OWN_HEADERS = frozenset(
    {"host", "upgrade", "connection", "sec-websocket-key", "sec-websocket-version", "sec-websocket-extensions",
     "sec-websocket-protocol", "sec-websocket-accept", "content-length", "transfer-encoding"}
)  # fmt: skip


class HostHeader(str):
    """A ``Host`` header, which is ASCII already. As IDNA, its port would count towards the 63 characters of a label."""

    __slots__ = ()

    def encode(self, encoding: str = "ascii", errors: str = "strict") -> bytes:
        del encoding
        return super().encode("ascii", errors)


@attrs.frozen
class Target:
    """A parsed WebSocket URL.

    Attributes:
        secure: Whether to use TLS.
        resource: The path and query of the request, including the token; never shown.
        shown: The URL in the form that may be shown.
    """

    host: str
    port: int
    secure: bool
    resource: str = attrs.field(repr=False)
    shown: str

    @property
    def host_header(self) -> HostHeader:
        """The ``Host`` header, with the port unless it is the scheme's default."""
        host = bracketed(self.host)
        return HostHeader(host if self.port == (443 if self.secure else 80) else f"{host}:{self.port}")


def parse_url(url: str, token: str | None = None) -> Target:
    """Parse a WebSocket URL.

    Args:
        url: ``ws://HOST[:PORT][/PATH]`` or ``wss://…``; without a path, ``/ws``.
        token: The server's API key; sent as ``?token=``.

    Raises:
        ConfigError: The URL cannot be used. The error says why, and never contains a token.
    """
    if token is not None and not _can_be_sent(token):
        raise ConfigError(
            "the token holds characters that cannot be sent: is the file or variable that it comes from in UTF-8?"
        )
    parts = _split(url)
    if parts.scheme not in _SCHEMES:
        # In "localhost:5000", the part before the colon parses as a scheme.
        has_scheme = parts.scheme and url.strip().lower().startswith(f"{parts.scheme}://")
        begins = f"begins with {parts.scheme + '://'!r}" if has_scheme else "has neither"
        raise ConfigError(
            f"a server's URL begins with ws:// or wss://, and this one {begins}: it should look like ws://host:port/ws"
        )
    if parts.username is not None or parts.password is not None:
        raise ConfigError("a server's URL takes no user and password: give a token, or a header")
    if parts.fragment:
        raise ConfigError("a WebSocket URL has no fragment: leave out '#' and what follows it")
    host, port = host_and_port(parts)
    in_url = any(name == "token" for name, _ in parse_qsl(parts.query, keep_blank_values=True))
    if in_url and token is not None:
        raise ConfigError("the token is given twice, in the URL and separately: remove it from the URL")
    path = quote(parts.path or DEFAULT_PATH, safe="/%:@!$&'()*+,;=~")
    query = quote(parts.query, safe="/?%:@!$&'()*+,;=~")
    resource = f"{path}?{query}" if query else path
    if token is not None:
        resource += f"{'&' if query else '?'}token={quote(token, safe='')}"
    shown = f"{parts.scheme}://{bracketed(host)}:{port}{_shown_path(path)}"
    return Target(host, port, parts.scheme == "wss", resource, shown)


def bracketed(host: str) -> str:
    """Return a host as it is written before a port: an IPv6 address in brackets."""
    return f"[{host}]" if ":" in host else host


def _shown_path(path: str) -> str:
    """The beginning of a path that can contain no token, such as ``;token=``."""
    plain = _PLAIN_PATH.match(path)
    end = 0 if plain is None else min(plain.end(), _MAX_SHOWN_PATH)
    return path if end == len(path) else f"{path[:end]}…"


def shown_redirect(requested: str, location: str, secrets: Iterable[str]) -> str | None:
    """Return the URL that a server redirects to, in the form that may be shown; None if it is no URL of a server.

    Args:
        requested: The ``http://`` or ``https://`` URL of the request.
        location: The redirect's location, from the server.
        secrets: Secrets of the request, which the location may quote.
    """
    try:
        parts = urlsplit(urljoin(requested, location))
        if not location or parts.scheme not in _DEFAULT_PORTS:
            return None
        host, port = host_and_port(parts._replace(netloc=parts.netloc.rpartition("@")[2]))
    except ValueError:  # ConfigError is one
        return None
    if len(host) > _MAX_HOST:
        return None
    path = parts.path or "/"
    shown = "/…" if any(secret in unquote(path) for secret in secrets) else _shown_path(path)
    return f"{parts.scheme}://{bracketed(host)}:{port}{shown}"


def _can_be_sent(token: str) -> bool:
    try:
        token.encode()
    except UnicodeEncodeError:
        return False
    return True


def _split(url: str) -> SplitResult:
    # urllib's error quotes the URL, so it is neither chained nor kept as context.
    try:
        url.encode()
        return urlsplit(url)
    except ValueError:
        pass
    raise ConfigError("the server's URL cannot be read: it should look like ws://host:port/ws")


def host_and_port(parts: SplitResult) -> tuple[str, int]:
    """Return the host in ASCII and the port, by default that of the scheme.

    Args:
        parts: A URL without a user.

    Raises:
        ConfigError: One of them is invalid. The error quotes the host.
    """
    host = _host(parts)
    return host, _port(parts, host)


def _host(parts: SplitResult) -> str:
    host = parts.hostname
    if not host:
        raise ConfigError("the server's URL names no host: it should look like ws://host:port/ws")
    if _ADDRESS.fullmatch(parts.netloc):
        return host
    if _NAME.fullmatch(host):
        try:
            return host.encode("idna").decode()
        except UnicodeError:
            pass
    raise ConfigError(f"{host[:100]!r} is not a valid host name")


def _port(parts: SplitResult, host: str) -> int:
    digits = parts.netloc.rpartition("]")[2].partition(":")[2]
    if digits and not (_DIGITS.fullmatch(digits) and 0 < int(digits) < 2**16):
        raise ConfigError(f"the port in the URL for host {host!r} is invalid: use a number from 1 to 65535")
    return int(digits) if digits else _DEFAULT_PORTS[parts.scheme]


def check_headers(headers: Iterable[tuple[str, str]]) -> list[tuple[bytes, bytes]]:
    """Check and encode the headers for the handshake.

    Raises:
        ConfigError: A header cannot be sent, is given twice, or belongs to the handshake. The error never contains its value.
    """
    checked: list[tuple[bytes, bytes]] = []
    names: set[str] = set()
    for number, (name, value) in enumerate(headers, 1):
        if not _HEADER_NAME.fullmatch(name):
            # Not shown: it may be a whole header line, with a token in it.
            raise ConfigError(f"header {number} has a name that HTTP does not allow: give pairs of name and value")
        if name.lower() in _OWN_HEADERS:
            raise ConfigError(f"the header {name!r} belongs to the handshake and cannot be given")
        if not _HEADER_VALUE.fullmatch(value):
            raise ConfigError(
                f"the value of the header {name!r} has a character that HTTP does not allow, such as a line break"
            )
        if name.lower() in names:
            raise ConfigError(f"the header {name!r} is given twice: leave out one")
        names.add(name.lower())
        checked.append((name.encode("ascii"), value.strip(" \t").encode("latin-1")))
    return checked
