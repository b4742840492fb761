"""The operator's configuration of devices: a file whose entries are merged into the information that the devices send."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Final, cast

from galaxy_trio._config.files import read_configuration_file
from galaxy_trio._config.reader import MAX_KEY, ObjectReader, check_problems, describe
from galaxy_trio.errors import ConfigError

if TYPE_CHECKING:
    import os
    from collections.abc import Mapping

    from galaxy_trio.messages import JSON

_LISTS: Final = ("additional_features", "tags")
_OF_THE_ORIGINAL: Final = ("defaults",)
"""Keys of the original's files that are not used."""


def read_device_config(path: str | os.PathLike[str]) -> dict[str, dict[str, JSON]]:
    """Read a device configuration: JSON or TOML if the file has that suffix, otherwise YAML, which needs PyYAML.

    ``devices:`` is an object whose keys are device ids and whose values are objects with any members. Two members are lists of strings:
    ``additional_features`` are added to the device's ``supported_features``, and ``tags`` become its ``tags``. All members are added to its
    ``custom_metadata``. Besides ``devices``, only ``defaults``, which is not used, and keys that begin with ``_`` or ``x-`` may be given.

    Raises:
        ConfigError: The file cannot be read, or is invalid. Names every problem with its path.
    """
    content = read_configuration_file(path, "the device configuration")
    return checked_device_config(content, f"the device configuration {path}")


def checked_device_config(content: object, shown: str = "the device configuration") -> dict[str, dict[str, JSON]]:
    """Check a parsed configuration, and return its devices by id.

    Raises:
        ConfigError: The configuration is invalid. Names every problem with its path.
    """
    members = cast("dict[str, object]", content) if isinstance(content, dict) else {}
    devices = members.get("devices")
    if not isinstance(devices, dict):
        raise ConfigError(f"{shown} has no 'devices': give an object whose keys are device ids")
    problems: list[str] = []
    document = ObjectReader(members, "", problems)
    document.unused("devices", *_OF_THE_ORIGINAL)
    document.refuse_unknown(extensions=True)
    for name, entry in cast("dict[object, object]", devices).items():
        if not isinstance(name, str):
            document.report(f"devices[{describe(name)}]", "the name of a device must be text; put it in quotes")
            continue
        path = f"devices[{name[:MAX_KEY]!r}]"
        device = ObjectReader(entry, path, problems)
        for key in _LISTS:
            device.texts(key, nullable=False)
        for problem in _json_problems(entry):
            document.report(path, problem)
    check_problems(shown, problems)
    return cast("dict[str, dict[str, JSON]]", devices)


def _json_problems(entry: object) -> list[str]:
    """Find what cannot be sent as JSON: dates, which YAML has, numbers out of range, and keys that are not text."""
    try:
        return [] if json.loads(json.dumps(entry, allow_nan=False)) == entry else ["keys must be text"]
    except TypeError:
        return ["contains a value that JSON does not have, such as a date: put it in quotes"]
    except (ValueError, RecursionError) as error:
        return [str(error)]


def merge(system_info: dict[str, JSON], config: Mapping[str, JSON]) -> dict[str, JSON]:
    """Merge the information that a device sent with its configuration. Neither is changed.

    The whole configuration goes under ``custom_metadata``. Its ``additional_features`` are added to ``supported_features``, without
    duplicates. Its ``tags`` become the device's ``tags``. See "Device information" in docs/reference/wire.md.
    """
    merged = dict(system_info)
    own = merged.get("custom_metadata")
    merged["custom_metadata"] = {**(own if isinstance(own, dict) else {}), **config}
    additional = config.get("additional_features")
    if isinstance(additional, list):
        features = merged.get("supported_features")
        joined = list(features) if isinstance(features, list) else []
        for feature in additional:
            # Not a set: a device may send values that are not hashable.
            if feature not in joined:
                joined.append(feature)
        merged["supported_features"] = joined
    if "tags" in config:
        merged["tags"] = config["tags"]
    return merged
