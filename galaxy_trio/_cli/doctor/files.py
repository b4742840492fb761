"""Checks of files: the configuration, tokens and who can read them, certificates, the daemon's directory."""

from __future__ import annotations

import os
import stat
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Final

from galaxy_trio import ConfigError, read_config
from galaxy_trio._cli.doctor.findings import Section
from galaxy_trio._cli.extras import missing_extra
from galaxy_trio._cli.signals import run_trio
from galaxy_trio._config.certificates import trusting_context
from galaxy_trio._counted import counted
from galaxy_trio.daemon.settings import Settings, is_daemon_file, read_settings

if TYPE_CHECKING:
    from galaxy_trio import ConstellationConfig, DeviceConfig

_CORRECT: Final = "correct the file; galaxy-trio check FILE shows its problems alone"


def check_files(file: Path) -> tuple[list[Section], ConstellationConfig | None]:
    """Check a file of devices, or a daemon's configuration and its file of devices.

    Returns:
        The findings, and the devices if their file can be read.
    """
    if not is_daemon_file(file):
        section, config = _check_devices(file)
        return [section], config
    section = Section(str(file))
    try:
        settings = read_settings(file)
    except ConfigError as error:
        _add_problems(section, error)
        return [section], None
    section.ok("the daemon's configuration is valid")
    _check_daemon(section, settings)
    devices, config = _check_devices(settings.devices)
    return [section, devices], config


def _add_problems(section: Section, error: ConfigError) -> None:
    for problem in error.problems or [str(error)]:
        section.problem(problem, _CORRECT)


def _check_daemon(section: Section, settings: Settings) -> None:
    try:
        from galaxy_trio.daemon.check import check_start  # noqa: PLC0415  # the extra "daemon" may not be installed
    except ModuleNotFoundError as error:
        section.problem(str(missing_extra(error)), "install the extra daemon")
        return
    try:
        checked = run_trio(partial(check_start, settings))
    except ConfigError as error:
        # The problems of the file with the devices are those of its own section.
        for problem in error.problems:
            if not problem.startswith(("devices: ", f"{settings.devices.name}: ")):
                section.problem(f"the daemon cannot start: {problem}", "correct this setting, or what it names")
    else:
        section.ok(checked.running or "the daemon could start")
    if settings.token_file is not None:
        _check_secret(section, settings.token_file, "the daemon's token file")


def _check_devices(file: Path) -> tuple[Section, ConstellationConfig | None]:
    section = Section(str(file))
    try:
        config = read_config(file)
    except ConfigError as error:
        _add_problems(section, error)
        return section, None
    section.ok(f"the configuration is valid: {counted(len(config.devices), 'device')}")
    if config.unused:
        section.ok(f"not used: {', '.join(config.unused)}")
    if any(device.token is not None or device.headers for device in config.devices):
        _check_secret(section, file, "the file", "which contains tokens or headers,")
    for token_file in sorted({device.token_file for device in config.devices if device.token_file is not None}):
        _check_secret(section, Path(token_file), "the token file")
    for problem in filter(None, dict.fromkeys(map(_token_problem, config.devices))):
        section.problem(problem, "give each device a token_file or token_env that this user can read")
    for ca_file in sorted({device.ca_file for device in config.devices if device.ca_file is not None}):
        _check_certificates(section, ca_file)
    return section, config


def _token_problem(device: DeviceConfig) -> str | None:
    try:
        device.read_token()
    except ConfigError as error:
        return str(error)
    return None


def _check_certificates(section: Section, ca_file: str) -> None:
    try:
        trusting_context(ca_file)
    except ConfigError as error:
        section.problem(str(error), "correct ca_file")
    else:
        section.ok(f"the certificates in {ca_file} can be used")


def _check_secret(section: Section, path: Path, what: str, why: str = "") -> None:
    """Check that only the owner, and at most the group, can read a file, and only the owner can write it."""
    try:
        mode = path.stat().st_mode
    except (OSError, ValueError):
        return  # reported where it is read
    reach = " and write" if mode & stat.S_IWOTH else ""
    if os.name == "posix" and mode & (stat.S_IROTH | stat.S_IWOTH):
        section.problem(
            " ".join(filter(None, (f"every user of this machine can read{reach} {what} {path},", why))).rstrip(","),
            f"chmod 600 {path}",
        )
    elif os.name == "posix" and mode & stat.S_IWGRP:
        section.problem(f"other users of its group can write {what} {path}", f"chmod 600 {path}")
    else:
        section.ok(f"other users cannot read {what} {path}")
