"""Host names and origins in a request's headers, compared as browsers compare them."""

from __future__ import annotations

import ipaddress
import re
from typing import Final

import attrs

_HOST: Final = re.compile(r"(\[[0-9A-Fa-f:.]+(?:%[^\]]*)?\]|[^\[\]:/?#@\s,]+)(?::([0-9]{1,5}))?")
_ORIGIN: Final = re.compile(r"(https?)://(.+)", re.IGNORECASE)
_DEFAULT_PORTS: Final = {"http": 80, "https": 443}


@attrs.frozen
class Host:
    """A host name or an IP address, and a port.

    Attributes:
        name: In lower case and without the dot at its end; an IP address in its shortest form, without brackets.
        port: `None` for the default port of the scheme, whichever that is.
    """

    name: str
    port: int | None = None

    @property
    def is_ip_address(self) -> bool:
        """Whether it is an IP address, which no name server can point elsewhere."""
        return _ip_address(self.name) is not None

    def is_origin(self, origin: str) -> bool:
        """Whether a page with this origin comes from this host, over HTTP or HTTPS.

        Args:
            origin: The header ``Origin``, such as ``https://galaxy.example``.
        """
        match = _ORIGIN.fullmatch(origin)
        other = None if match is None else parse_host(match[2])
        if match is None or other is None:
            return False
        default = _DEFAULT_PORTS[match[1].lower()]
        return self.name == other.name and (self.port or default) == (other.port or default)


def parse_host(text: str) -> Host | None:
    """Read the header ``Host``. Returns `None` if it is invalid."""
    match = _HOST.fullmatch(text)
    if match is None:
        return None
    name = match[1].lower().removesuffix(".")
    if name.startswith("["):
        name = name[1:-1]
        if _ip_address(name) is None:
            return None
    return Host(_ip_address(name) or name, int(match[2]) if match[2] else None)


def parse_host_name(text: str) -> str | None:
    """Read a host name or an IP address, with or without brackets, in the form of `Host.name`.

    Returns `None` if it is neither, or has a port.
    """
    address = _ip_address(text.strip("[]"))
    if address is not None:
        return address
    host = parse_host(text)
    return None if host is None or host.port is not None or not text.isascii() else host.name


def _ip_address(name: str) -> str | None:
    """The shortest form of an IP address; `None` for a host name."""
    try:
        return str(ipaddress.ip_address(name))
    except ValueError:
        return None
