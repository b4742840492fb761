"""The configurations of a cluster's devices, as JSON in its database: without tokens, which stay in files and variables.

Rule 13 of docs/explanation/cluster.md.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, Final, cast

import attrs

from galaxy_trio import ConfigError, DeviceConfig

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

_SECRET: Final = ("token", "headers")
"""What a database would show to everyone who may read it, and to its backups."""


def devices_as_json(devices: Iterable[DeviceConfig]) -> dict[str, str]:
    """The devices for the database, by name.

    Raises:
        ConfigError: A device has a token or headers of its own. Names every problem.
    """
    devices = tuple(devices)
    problems = [
        f"device {device.device_id!r}: {key}: a database for several daemons does not store it: "
        "use token_file or token_env, which each daemon's machine needs"
        for device in devices
        for key in _SECRET
        if getattr(device, key)
    ]
    if problems:
        raise ConfigError("; ".join(problems), problems=problems)
    return {device.device_id: _as_json(device) for device in devices}


def _as_json(device: DeviceConfig) -> str:
    members = attrs.asdict(device, recurse=False, filter=lambda field, _: field.name not in _SECRET)
    return json.dumps(members, sort_keys=True)


def devices_from_json(configs: Mapping[str, str]) -> dict[str, DeviceConfig]:
    """The devices in the database, by name.

    Raises:
        ConfigError: A newer version has stored what this one does not know.
    """
    try:
        return {name: DeviceConfig(**cast("dict[str, Any]", json.loads(text))) for name, text in configs.items()}
    except TypeError as error:
        raise ConfigError(f"the devices in the database were stored by a newer galaxy_trio: {error}") from error


def differences(file: Mapping[str, str], database: Mapping[str, str]) -> str | None:
    """How the devices of a file differ from those in the database, in words; `None` if they are the same."""
    parts = (
        ("only in the file", sorted(file.keys() - database.keys())),
        ("only in the database", sorted(database.keys() - file.keys())),
        ("different", sorted(name for name in file.keys() & database.keys() if file[name] != database[name])),
    )
    return ", ".join(f"{word}: {', '.join(names)}" for word, names in parts if names) or None
