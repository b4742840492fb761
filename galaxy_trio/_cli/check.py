"""``galaxy-trio check``, and ``galaxy-trio daemon --check``: check configuration files and print every problem."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import click

from galaxy_trio._cli.extras import missing_extra
from galaxy_trio._cli.options import verbose
from galaxy_trio._cli.signals import run_trio
from galaxy_trio._cli.terminal import echo
from galaxy_trio._config.certificates import trusting_context
from galaxy_trio._counted import counted
from galaxy_trio._printable import one_line
from galaxy_trio.constellation.config import ConstellationConfig, read_config
from galaxy_trio.daemon.settings import is_daemon_file, read_settings
from galaxy_trio.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from galaxy_trio.constellation.config import DeviceConfig
    from galaxy_trio.daemon.check import CheckedStart
    from galaxy_trio.daemon.settings import Settings
    from galaxy_trio.errors import GraphFileError


@click.command("check", epilog="\b\nExamples:\n    galaxy-trio check devices.toml\n    galaxy-trio check galaxy.toml")
@click.argument("file", type=click.Path(path_type=Path))
@verbose
def check_command(file: Path) -> int:
    """Check FILE and print every problem.

    FILE is the configuration of a constellation, or of the daemon, for which this is "galaxy-trio daemon --check". The command connects to
    no device.
    """
    if is_daemon_file(file):
        return check_daemon(file)
    try:
        config = read_config(file)
    except ConfigError as error:
        raise problems_printed(file, error) from error
    servers = {urlsplit(device.server_url).netloc.rpartition("@")[2].lower() for device in config.devices}
    echo(f"{one_line(str(file))}: {counted(len(config.devices), 'device')}, {counted(len(servers), 'server')}")
    _print_notes(config)
    return 0


def check_daemon(file: Path) -> int:
    """Check whether the daemon could start with this file.

    Raises:
        ConfigError: It could not. The problems have been printed.
    """
    try:
        checked = _check_start(read_settings(file))
    except ConfigError as error:
        raise problems_printed(file, error) from error
    echo(f"{one_line(str(file))} is valid: {counted(len(checked.devices.devices), 'device')}")
    if checked.running is not None:
        echo(checked.running)
    _print_notes(checked.devices)
    return 0


def _check_start(settings: Settings) -> CheckedStart:
    try:
        from galaxy_trio.daemon.check import check_start  # noqa: PLC0415  # the extra "daemon" may not be installed
    except ModuleNotFoundError as error:
        raise missing_extra(error) from None
    return run_trio(partial(check_start, settings))


def problems_printed(file: Path, error: ConfigError | GraphFileError) -> Exception:
    """Print the problems of an error, and return the one that ends the command."""
    for problem in error.problems:
        echo(one_line(problem), err=True)
    return ConfigError(f"{file}: {counted(len(error.problems), 'problem')}") if error.problems else error


def _print_notes(config: ConstellationConfig) -> None:
    """Print what is not used, and what will keep devices from connecting, but not this program from starting."""
    if config.unused:
        echo(f"not used: {', '.join(map(one_line, config.unused))}")
    for index, device in enumerate(config.devices):
        for problem in _file_problems(device):
            echo(f"warning: devices[{index}]: {one_line(problem)}", err=True)


def _file_problems(device: DeviceConfig) -> Iterator[str]:
    try:
        device.read_token()
    except ConfigError as error:
        yield str(error)
    if device.ca_file is not None:
        try:
            trusting_context(device.ca_file)
        except ConfigError as error:
            yield str(error)
