"""Reads PEM files, also those that an editor saved with a byte order mark: OpenSSL skips the certificate that follows one."""

from __future__ import annotations

import codecs
import ssl
from pathlib import Path

from galaxy_trio._config.text import problem_of_text
from galaxy_trio.errors import ConfigError


def trusting_context(path: str | Path | None) -> ssl.SSLContext:
    """Return a TLS context that verifies certificates and host names.

    Args:
        path: The certificates of authorities; None for the system's.

    Raises:
        ConfigError: The file cannot be read, or contains no certificates.
    """
    data = b""
    try:
        data = b"" if path is None else Path(path).read_bytes()
        if data.startswith(codecs.BOM_UTF8):
            # Text between the certificates may contain any characters.
            return ssl.create_default_context(cadata=data.decode("ascii", "ignore") + "\n")
        return ssl.create_default_context(cafile=path)
    except OSError as error:
        reason = error.strerror or str(error)
        if isinstance(error, ssl.SSLError):
            reason = ": ".join(filter(None, ("it contains no certificates in PEM format", problem_of_text(data))))
        raise ConfigError(f"the certificates cannot be read from {path}: {reason}") from error


def encoding_problem(path: Path) -> str | None:
    """Return what is wrong with the encoding of a PEM file that OpenSSL reads itself; None if nothing is.

    Raises:
        OSError: The file cannot be read.
    """
    data = path.read_bytes()
    if data.startswith(codecs.BOM_UTF8):
        return "it begins with a byte order mark: save it without one"
    return problem_of_text(data)
