"""Says which extra a module belongs to that is not installed."""

from __future__ import annotations

from typing import Final

from galaxy_trio.errors import ConfigError

_DAEMON: Final = ("alembic", "httpx2", "hypercorn", "prometheus_client", "sqlalchemy", "starlette")


def missing_extra(error: ModuleNotFoundError) -> Exception:
    """Return an error that says which extra to install, or `error` itself if no extra contains the module."""
    if (error.name or "").partition(".")[0] not in _DAEMON:
        return error
    return ConfigError(f'this command needs {error.name}, which is not installed: pip install "galaxy_trio[daemon]"')
