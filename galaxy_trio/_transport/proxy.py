"""The HTTP proxy of a connection: its URL, and the environment's choice for a server."""

from __future__ import annotations

import base64
import ipaddress
import os
import re
from typing import TYPE_CHECKING, Final, Literal, TypeAlias
from urllib.parse import unquote, urlsplit

import attrs

from galaxy_trio._transport.url import bracketed, host_and_port
from galaxy_trio.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from galaxy_trio._transport.url import Target

_SEPARATORS: Final = re.compile(r"[\s,]+")
_WITH_PORT: Final = re.compile(r"(.*[^:]|\[.*\]):([0-9]{1,5})")
"""An entry of ``NO_PROXY`` with a port. An IPv6 address without brackets has none."""
_BASIC: Final = "Basic "
_SOCKS: Final = re.compile(r"(socks[45]?[ah]?):", re.IGNORECASE)

_Address: TypeAlias = ipaddress.IPv4Address | ipaddress.IPv6Address


@attrs.frozen
class Proxy:
    """An HTTP proxy.

    Attributes:
        secure: Whether to speak TLS with the proxy itself.
        authorization: The value of ``Proxy-Authorization``; None without credentials. Never shown.
        shown: Its URL without credentials.
    """

    host: str
    port: int
    secure: bool
    authorization: bytes | None = attrs.field(repr=False)
    shown: str

    @property
    def secrets(self) -> list[str]:
        """The credentials, encoded and plain, which an answer may quote."""
        if self.authorization is None:
            return []
        encoded = self.authorization.decode().removeprefix(_BASIC)
        return [encoded, *filter(None, base64.b64decode(encoded).decode().split(":", 1))]


def parse_proxy(url: str, source: str = "the proxy's URL") -> Proxy:
    """Parse the URL of a proxy. Without a scheme, it is that of ``http://``.

    Args:
        url: ``http://[USER:PASSWORD@]HOST[:PORT]`` or ``https://…``. User and password are percent-encoded.
        source: The origin of the URL, for the error message.

    Raises:
        ConfigError: The URL cannot be used. The error contains no part of it except ``socks``.
    """
    socks = _SOCKS.match(url.strip())
    if socks is not None:
        raise ConfigError(
            f"{source} is a {socks[1].lower()} proxy, which is not supported: use an HTTP proxy, such as http://host:port"
        )
    proxy = _read(url.strip())
    if proxy is None:
        # Not chained: the reasons quote the URL.
        raise ConfigError(
            f"{source} cannot be used: it should look like http://host:port or http://user:password@host:port, "
            "with the special characters of user and password percent-encoded"
        )
    return proxy


def _read(url: str) -> Proxy | None:
    try:
        parts = urlsplit(url if "://" in url else f"http://{url}")
        if parts.scheme not in ("http", "https") or parts.path not in ("", "/") or parts.query or parts.fragment:
            return None
        host, port = host_and_port(parts._replace(netloc=parts.netloc.rpartition("@")[2]))
        authorization = None
        if parts.username is not None:
            credentials = f"{unquote(parts.username)}:{unquote(parts.password or '')}"
            authorization = _BASIC.encode() + base64.b64encode(credentials.encode())
    except ValueError:  # ConfigError and UnicodeEncodeError are
        return None
    shown = f"{parts.scheme}://{bracketed(host)}:{port}"
    return Proxy(host, port, parts.scheme == "https", authorization, shown)


def find_proxy(proxy: str | Literal[True] | None, target: Target) -> Proxy | None:
    """Return the proxy for a connection to a server; None for a direct connection.

    Args:
        proxy: See `ConnectionOptions.proxy`.
        target: The server's URL.

    Raises:
        ConfigError: The proxy's URL cannot be used.
    """
    if proxy is True:
        return proxy_in_environment(os.environ, target)
    return None if proxy is None else parse_proxy(proxy)


def proxy_in_environment(environment: Mapping[str, str], target: Target) -> Proxy | None:
    """Return the proxy that environment variables name for a server; None for a direct connection.

    ``HTTPS_PROXY`` is for ``wss``, ``HTTP_PROXY`` for ``ws``, and ``ALL_PROXY`` for both if the other is absent. A name in lower case
    takes precedence. An empty variable names no proxy. Hosts in ``NO_PROXY`` and loopback addresses are reached directly.

    Raises:
        ConfigError: The proxy's URL cannot be used. The error names the variable.
    """
    for name in ("HTTPS_PROXY" if target.secure else "HTTP_PROXY", "ALL_PROXY"):
        for variable in (name.lower(), name):
            url = environment.get(variable)
            if url is None:
                continue
            no_proxy = environment.get("no_proxy", environment.get("NO_PROXY", ""))
            if not url.strip() or is_direct(target.host, target.port, no_proxy):
                return None
            return parse_proxy(url, f"the proxy in the environment variable {variable}")
    return None


def is_direct(host: str, port: int, no_proxy: str) -> bool:
    """Whether a host is reached without a proxy: it is a loopback address, or ``NO_PROXY`` lists it.

    An entry is a domain, which includes its subdomains, with or without a leading dot; an IP address; a range of addresses such as
    ``10.0.0.0/8``; or ``*`` for every host. A port after an entry limits it to that port. Names are not resolved, so addresses and
    ranges only match hosts that are given as addresses. An entry of another form matches nothing.

    Args:
        host: The host's name in ASCII, or its address without brackets.
        port: The port to connect to.
        no_proxy: The entries, separated by commas or spaces.
    """
    address = _address(host)
    name = _name(host)
    if name == "localhost" or (address is not None and address.is_loopback):
        return True
    return any(_matches(entry, name, address, port) for entry in _SEPARATORS.split(no_proxy) if entry)


def _matches(entry: str, name: str, address: _Address | None, port: int) -> bool:
    with_port = None if _address(entry) else _WITH_PORT.fullmatch(entry)
    if with_port is not None:
        if int(with_port[2]) != port:
            return False
        entry = with_port[1]
    if entry == "*":
        return True
    if address is not None:
        try:
            network = ipaddress.ip_network(entry.strip("[]"), strict=False)
        except ValueError:
            return False
        return address in network
    domain = _name(entry.removeprefix("*").lstrip("."))
    return bool(domain) and (name == domain or name.endswith(f".{domain}"))


def _address(host: str) -> _Address | None:
    try:
        address = ipaddress.ip_address(host.strip("[]"))
    except ValueError:
        return None
    # An IPv4 address may be written as an IPv6 address.
    return getattr(address, "ipv4_mapped", None) or address


def _name(host: str) -> str:
    """Return a name in the form in which names are compared."""
    name = host.lower().rstrip(".")
    try:
        return name.encode("idna").decode()
    except UnicodeError:
        return name
