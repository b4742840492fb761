"""``galaxy-trio daemon``: starts the daemon, or checks its configuration."""

from __future__ import annotations

import sys
from functools import partial
from pathlib import Path
from typing import Final

import click

from galaxy_trio._cli.check import check_daemon
from galaxy_trio._cli.extras import missing_extra
from galaxy_trio._cli.options import verbose
from galaxy_trio._cli.signals import is_ignored, run_service
from galaxy_trio._cli.terminal import echo
from galaxy_trio.daemon.logs import logging_as
from galaxy_trio.daemon.settings import read_settings

ADDRESS_VARIABLE: Final = "GALAXY_TRIO_DAEMON"


@click.command("daemon", epilog="\b\nExample:\n    galaxy-trio daemon --config galaxy.toml")
@click.option(
    "--config", type=click.Path(path_type=Path), default="galaxy.toml", show_default=True, metavar="FILE",
    help="The daemon's configuration.",
)  # fmt: skip
@click.option("--check", is_flag=True, help="Check whether the daemon could start, and exit.")
@verbose
def daemon_command(*, config: Path, check: bool) -> int:
    """Run the daemon: keep devices connected and run tasks on them.

    Tasks are submitted over HTTP, for example with "galaxy-trio task submit". An accepted task is stored on disk and survives a restart or
    crash of the daemon. The daemon prints its address to stdout when it listens, and logs to stderr.

    SIGTERM and Ctrl-C stop it; running tasks get the configured "drain" time to end. SIGHUP reloads the configuration, or stops the
    daemon if its input is a terminal, which sends SIGHUP when it is closed.
    """
    if check:
        return check_daemon(config)
    try:
        from galaxy_trio.daemon.run import run_daemon  # noqa: PLC0415  # the extra "daemon" may not be installed
    except ModuleNotFoundError as error:
        raise missing_extra(error) from None
    settings = read_settings(config)
    # A terminal that is closed sends SIGHUP. Without one, SIGHUP comes from systemd or an operator.
    in_terminal = sys.stdin is not None and sys.stdin.isatty()
    reloads = not in_terminal and not is_ignored("SIGHUP")
    with logging_as(settings.log):
        return run_service(
            partial(run_daemon, settings, on_listening=_print, reload_at_hangup=reloads), hangup=in_terminal
        )


def _print(address: object) -> None:
    echo(str(address))
