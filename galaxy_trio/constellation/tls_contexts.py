"""The certificates that servers are checked against: loaded once for all devices that connect at a time."""

from __future__ import annotations

import os
import ssl
from typing import Final, TypeAlias

import attrs
import trio

from galaxy_trio._concurrency.thread_limit import ThreadLimit

FRESH: Final = 10.0
"""Seconds for which what was loaded is used again."""

# Files are small and few; on a network's file system they may take long, and hold up no other threads then.
_loading_threads = ThreadLimit("loading certificates", 2)

_Version: TypeAlias = tuple[int, int, int] | None


@attrs.define(eq=False)
class _Loading:
    """One file's certificates, which one task loads and the others wait for."""

    lock: trio.Lock = attrs.field(factory=trio.Lock)
    users: int = 0
    context: ssl.SSLContext | None = None
    version: _Version = None
    loaded_at: float = 0.0


class TlsContexts:
    """TLS contexts by the file that their certificates are in. Loading takes some 20 ms of a processor, mostly for the system's.

    A file that has been replaced is loaded anew at once, and everything after `FRESH` seconds.
    """

    def __init__(self) -> None:
        self._loadings: dict[str | None, _Loading] = {}

    async def context(self, ca_file: str | None) -> ssl.SSLContext:
        """A context that verifies certificates and names. Cancelling leaves the loading to the next who asks.

        Args:
            ca_file: TlsContexts, as PEM; None for the system's.

        Raises:
            OSError: The file cannot be read, or holds none: `ssl.SSLError` then.
        """
        self._forget_old()
        loading = self._loadings.setdefault(ca_file, _Loading())
        loading.users += 1
        try:
            async with loading.lock:
                kept = loading.context if self._is_fresh(loading) else None
                context, loading.version = await trio.to_thread.run_sync(
                    _load, ca_file, kept, loading.version, abandon_on_cancel=True, limiter=_loading_threads.get()
                )
                if context is not kept:
                    loading.context, loading.loaded_at = context, trio.current_time()
                return context
        finally:
            loading.users -= 1

    def _forget_old(self) -> None:
        # Devices come and go, and a context takes a megabyte.
        for ca_file, loading in list(self._loadings.items()):
            if not loading.users and not self._is_fresh(loading):
                del self._loadings[ca_file]

    def _is_fresh(self, loading: _Loading) -> bool:
        return loading.context is not None and trio.current_time() < loading.loaded_at + FRESH


def _load(ca_file: str | None, kept: ssl.SSLContext | None, version: _Version) -> tuple[ssl.SSLContext, _Version]:
    now = _version(ca_file)
    if kept is not None and now == version:
        return kept, version
    return ssl.create_default_context(cafile=ca_file), now


def _version(ca_file: str | None) -> _Version:
    if ca_file is None:
        return None
    status = os.stat(ca_file)
    return status.st_mtime_ns, status.st_size, status.st_ino
