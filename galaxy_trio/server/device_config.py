"""What a server's operator knows of the devices: a file whose entries are merged into what the devices say of themselves."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Final, cast

from galaxy_trio._config.files import read_configuration_file
from galaxy_trio.errors import ConfigError

if TYPE_CHECKING:
    import os
    from collections.abc import Mapping

    from galaxy_trio.messages import JSON

_LISTS: Final = ("additional_features", "tags")


def read_device_config(path: str | os.PathLike[str]) -> dict[str, dict[str, JSON]]:
    """Read a device configuration: JSON or TOML if the file's name ends so, YAML otherwise.

    ``devices:`` is an object with the device's name for each key, and any members for its value. Two of them are special lists of strings:
    ``additional_features`` and ``tags``; see `merge`. YAML needs the extra ``yaml``.

    Raises:
        ConfigError: The file cannot be read, or is not like that; names every place that is wrong.
    """
    content = read_configuration_file(path, "the device configuration")
    return checked_device_config(content, f"the device configuration {path}")


def checked_device_config(content: object, shown: str = "the device configuration") -> dict[str, dict[str, JSON]]:
    """The devices of a configuration that has been parsed, by name.

    Raises:
        ConfigError: Names every place that is wrong.
    """
    devices = cast("dict[str, object]", content).get("devices") if isinstance(content, dict) else None
    if not isinstance(devices, dict):
        raise ConfigError(f"{shown} has no 'devices': give an object with the name of a device for each key")
    problems: list[str] = []
    for name, entry in cast("dict[object, object]", devices).items():
        where = f"devices[{name!r}]"
        if not isinstance(name, str):
            problems.append(f"{where}: the name of a device is text; put it in quotes")
        elif not isinstance(entry, dict):
            problems.append(f"{where}: expected an object")
        else:
            problems.extend(_problems(cast("dict[object, object]", entry), where))
    if problems:
        raise ConfigError(f"{shown} is wrong at {len(problems)} places: " + "; ".join(problems))
    return cast("dict[str, dict[str, JSON]]", devices)


def _problems(entry: dict[object, object], where: str) -> list[str]:
    found: list[str] = []
    for key in _LISTS:
        value = entry.get(key, [])
        if not isinstance(value, list) or not all(isinstance(item, str) for item in cast("list[object]", value)):
            found.append(f"{where}.{key}: expected a list of strings")
    try:
        # It goes out on the wire: dates, which YAML knows, do not; nor do keys that are no text.
        if json.loads(json.dumps(entry, allow_nan=False)) != entry:
            found.append(f"{where}: keys must be text")
    except (TypeError, ValueError) as error:
        found.append(f"{where}: {error}")
    return found


def merge(system_info: dict[str, JSON], config: Mapping[str, JSON]) -> dict[str, JSON]:
    """What a device says of itself, with what its operator has to add. Neither is changed.

    All of the configuration goes under ``custom_metadata``; its ``additional_features`` are joined to ``supported_features``, each
    once; its ``tags`` become the device's ``tags``. See "Device information" in docs/reference/wire.md.
    """
    merged = dict(system_info)
    own = merged.get("custom_metadata")
    merged["custom_metadata"] = {**(own if isinstance(own, dict) else {}), **config}
    additional = config.get("additional_features")
    if isinstance(additional, list):
        features = merged.get("supported_features")
        joined = list(features) if isinstance(features, list) else []
        for feature in additional:
            # No set: what a device sends may hold anything.
            if feature not in joined:
                joined.append(feature)
        merged["supported_features"] = joined
    if "tags" in config:
        merged["tags"] = config["tags"]
    return merged
