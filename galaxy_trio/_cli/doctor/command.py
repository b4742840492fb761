"""The command ``galaxy-trio doctor``."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Final

import click

from galaxy_trio._cli.doctor.files import check_files
from galaxy_trio._cli.doctor.findings import Level, Section, as_json, count, print_section
from galaxy_trio._cli.doctor.machine import check_machine
from galaxy_trio._cli.doctor.servers import check_servers
from galaxy_trio._cli.options import finite_seconds, json_option, verbose
from galaxy_trio._cli.signals import run_trio
from galaxy_trio._cli.terminal import echo, echo_json, open_console, print_hint
from galaxy_trio._counted import counted

if TYPE_CHECKING:
    from galaxy_trio import DeviceConfig

_PROBLEMS_FOUND: Final = 1


@click.command(
    "doctor", epilog="\b\nExamples:\n    galaxy-trio doctor devices.toml\n    galaxy-trio doctor galaxy.toml"
)
@click.argument("file", type=click.Path(path_type=Path), required=False)
@click.option(
    "--timeout", type=finite_seconds, default=10, show_default=True, metavar="SECONDS",
    help="Time limit for connecting to a server, and again for registering with it.",
)  # fmt: skip
@json_option
@verbose
def doctor_command(*, file: Path | None, timeout: float, as_json: bool) -> int:
    """Find out why devices cannot be reached, and what to do.

    Checks this machine, and the devices or the daemon's configuration in FILE: its files, tokens and certificates; each server, all side
    by side; each device; the servers' clocks. It runs no tasks. Exits with 1 if there is a problem; warnings are none.
    """
    return _doctor(file, timeout, as_json_text=as_json)


def _doctor(file: Path | None, timeout: float, *, as_json_text: bool) -> int:
    sections: list[Section] = []
    console = open_console()

    def report(section: Section) -> None:
        sections.append(section)
        if not as_json_text:
            print_section(console, section)

    report(check_machine())
    devices: tuple[DeviceConfig, ...] = ()
    if file is not None:
        about_files, config = check_files(file)
        for section in about_files:
            report(section)
        devices = () if config is None else config.devices
    if devices:
        print_hint("connecting…")
        run_trio(partial(check_servers, devices, timeout, report))
    problems, warnings = count(sections, Level.PROBLEM), count(sections, Level.WARNING)
    if as_json_text:
        echo_json(as_json(sections))
    else:
        echo(f"{counted(problems, 'problem')}, {counted(warnings, 'warning')}")
        if file is None:
            echo("To check devices and servers too: galaxy-trio doctor FILE")
    return _PROBLEMS_FOUND if problems else 0
