"""``galaxy-trio daemon``: keeps devices connected, and gives them the tasks of whoever may ask for them."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Final

import click

from galaxy_trio._cli.options import verbose
from galaxy_trio._cli.signals import run_service
from galaxy_trio.errors import ConfigError

ADDRESS_VARIABLE: Final = "GALAXY_TRIO_DAEMON"
TOKEN_VARIABLE: Final = "GALAXY_TRIO_DAEMON_TOKEN"  # noqa: S105  # a variable's name
_EXTRA: Final = ("httpx2", "hypercorn", "prometheus_client", "sqlalchemy", "starlette")


def needs_extra(error: ModuleNotFoundError) -> Exception:
    """What to install, if it is that; otherwise the error."""
    if (error.name or "").partition(".")[0] not in _EXTRA:
        return error
    return ConfigError(f'this takes {error.name}, which is not installed: pip install "galaxy_trio[daemon]"')


@click.command("daemon", epilog="\b\nExample:\n    galaxy-trio daemon --config galaxy.toml")
@click.option(
    "--config", type=click.Path(path_type=Path), default="galaxy.toml", show_default=True, metavar="FILE",
    help="Its configuration.",
)  # fmt: skip
@click.option("--check", is_flag=True, help="Say what is wrong with the configuration, and do nothing else.")
@verbose
def daemon_command(*, config: Path, check: bool) -> int:
    """Keep the devices of FILE connected, and run tasks on them.

    Tasks are submitted over HTTP, such as with "galaxy-trio task submit". One that was accepted is on disk, and survives whatever
    happens to the daemon. Where it listens is printed when it does.

    SIGTERM lets what runs come to its end. SIGHUP reads the configuration anew.
    """
    try:
        from galaxy_trio.daemon.logs import logging_as  # noqa: PLC0415
        from galaxy_trio.daemon.run import run_daemon  # noqa: PLC0415  # the extra "daemon" may not be installed
        from galaxy_trio.daemon.settings import read_settings  # noqa: PLC0415
    except ModuleNotFoundError as error:
        raise needs_extra(error) from None
    settings = read_settings(config)
    if check:
        devices = settings.read_devices().devices
        settings.read_tokens()
        count = "1 device" if len(devices) == 1 else f"{len(devices)} devices"
        click.echo(f"{config}: all is right, with {count}")
        return 0
    with logging_as(settings.log):
        return run_service(partial(run_daemon, settings, on_listening=_print))


def _print(address: object) -> None:
    click.echo(str(address))
