"""TLS contexts, loaded once for all devices that connect at about the same time."""

from __future__ import annotations

import os
import ssl
from typing import Final, TypeAlias

import attrs
import trio

from galaxy_trio._concurrency.thread_limit import ThreadLimit
from galaxy_trio._config.certificates import trusting_context

FRESH: Final = 10.0
"""Seconds for which a loaded context is reused."""

# The files are small and few. On a slow network file system, loading them must not block other threads.
_loading_threads = ThreadLimit("loading certificates", 2)

_Version: TypeAlias = tuple[int, int, int] | None


@attrs.define(eq=False)
class _Loading:
    """The context of one file, which one task loads while the others wait."""

    lock: trio.Lock = attrs.field(factory=trio.Lock)
    users: int = 0
    context: ssl.SSLContext | None = None
    version: _Version = None
    loaded_at: float = 0.0


class TlsContexts:
    """TLS contexts by the file of their certificates. Loading one takes about 20 ms of CPU time, mostly for the system's certificates.

    A file that was replaced is reloaded immediately, and everything after `FRESH` seconds.
    """

    def __init__(self) -> None:
        self._loadings: dict[str | None, _Loading] = {}

    async def context(self, ca_file: str | None) -> ssl.SSLContext:
        """Return a context that verifies certificates and host names. After a cancellation the next caller loads it.

        Args:
            ca_file: The certificates in PEM format; None for the system's.

        Raises:
            ConfigError: The file cannot be read, or contains no certificates.
        """
        self._forget_old()
        loading = self._loadings.setdefault(ca_file, _Loading())
        loading.users += 1
        try:
            async with loading.lock:
                fresh = loading.context if self._is_fresh(loading) else None
                context, loading.version = await trio.to_thread.run_sync(
                    _load, ca_file, fresh, loading.version, abandon_on_cancel=True, limiter=_loading_threads.get()
                )
                if context is not fresh:
                    loading.context, loading.loaded_at = context, trio.current_time()
                return context
        finally:
            loading.users -= 1

    def _forget_old(self) -> None:
        # Devices are added and removed, and a context takes a megabyte.
        for ca_file, loading in list(self._loadings.items()):
            if not loading.users and not self._is_fresh(loading):
                del self._loadings[ca_file]

    def _is_fresh(self, loading: _Loading) -> bool:
        return loading.context is not None and trio.current_time() < loading.loaded_at + FRESH


def _load(ca_file: str | None, fresh: ssl.SSLContext | None, version: _Version) -> tuple[ssl.SSLContext, _Version]:
    now = _version(ca_file)
    if fresh is not None and now == version:
        return fresh, version
    return trusting_context(ca_file), now


def _version(ca_file: str | None) -> _Version:
    if ca_file is None:
        return None
    try:
        status = os.stat(ca_file)
    except OSError:
        # Reading the file gives the reason.
        return None
    return status.st_mtime_ns, status.st_size, status.st_ino
