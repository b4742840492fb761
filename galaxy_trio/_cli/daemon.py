"""``galaxy-trio daemon``: starts the daemon, or checks its configuration."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Final

import click

from galaxy_trio._cli.options import verbose
from galaxy_trio._cli.signals import run_service
from galaxy_trio._cli.terminal import echo
from galaxy_trio._counted import counted
from galaxy_trio.daemon.logs import logging_as
from galaxy_trio.daemon.settings import read_settings
from galaxy_trio.errors import ConfigError

ADDRESS_VARIABLE: Final = "GALAXY_TRIO_DAEMON"
_EXTRA: Final = ("httpx2", "hypercorn", "prometheus_client", "sqlalchemy", "starlette")


def missing_extra(error: ModuleNotFoundError) -> Exception:
    """Return an error that says which extra to install, or `error` itself if no extra contains the module."""
    if (error.name or "").partition(".")[0] not in _EXTRA:
        return error
    return ConfigError(f'this command needs {error.name}, which is not installed: pip install "galaxy_trio[daemon]"')


@click.command("daemon", epilog="\b\nExample:\n    galaxy-trio daemon --config galaxy.toml")
@click.option(
    "--config", type=click.Path(path_type=Path), default="galaxy.toml", show_default=True, metavar="FILE",
    help="The daemon's configuration.",
)  # fmt: skip
@click.option("--check", is_flag=True, help="Check the configuration and exit.")
@verbose
def daemon_command(*, config: Path, check: bool) -> int:
    """Run the daemon: keep devices connected and run tasks on them.

    Tasks are submitted over HTTP, for example with "galaxy-trio task submit". An accepted task is stored on disk and survives a restart or
    crash of the daemon. The daemon prints its address to stdout when it listens, and logs to stderr.

    SIGTERM and Ctrl-C stop it; running tasks get the configured "drain" time to end. SIGHUP reloads the configuration.
    """
    try:
        from galaxy_trio.daemon.run import run_daemon  # noqa: PLC0415  # the extra "daemon" may not be installed
    except ModuleNotFoundError as error:
        raise missing_extra(error) from None
    settings = read_settings(config)
    if check:
        devices = settings.read_devices().devices
        settings.read_tokens()
        echo(f"{config} is valid: {counted(len(devices), 'device')}")
        return 0
    with logging_as(settings.log):
        return run_service(partial(run_daemon, settings, on_listening=_print))


def _print(address: object) -> None:
    echo(str(address))
