"""A device's configuration and information, merged. See "Device information" in docs/reference/wire.md."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import attrs

from galaxy_trio._codec.codec import unstructure_device_info
from galaxy_trio._json_size import json_size
from galaxy_trio.constellation.systems import is_system, known_system
from galaxy_trio.messages import JSON

if TYPE_CHECKING:
    from collections.abc import Iterable

    from galaxy_trio.constellation.config import DeviceConfig
    from galaxy_trio.messages import DeviceInfo

MAX_INFORMATION: Final = 2**18
"""Bytes of memory that a device's information may take: about 4,000 short features. Profiles, events and statistics hold it."""


@attrs.frozen
class DeviceProfile:
    """The properties of a device, by which tasks select one.

    Attributes:
        device_id: The device's id on the server.
        os: The operating system: `platform` in the device's information, or the configured one until that has arrived. Common names are
            replaced by AIP's: ``darwin`` for ``macOS``.
        capabilities: The configured capabilities, then `supported_features` of the information, without duplicates.
        metadata: The configured metadata.
        system_info: All other members of the information; empty until it has arrived.
        custom_metadata: `custom_metadata` of the information.
        tags: `tags` of the information.
        known: Whether the information has arrived.
    """

    device_id: str
    os: str | None
    capabilities: tuple[str, ...]
    metadata: dict[str, JSON]
    system_info: dict[str, JSON] = attrs.field(factory=dict[str, "JSON"])
    custom_metadata: dict[str, JSON] = attrs.field(factory=dict[str, "JSON"])
    tags: tuple[str, ...] = ()
    known: bool = False


def profile_of(config: DeviceConfig, info: DeviceInfo | None = None) -> DeviceProfile:
    """Merge a device's configuration and its information, if that has arrived.

    Nothing of earlier information remains.
    """
    if info is None:
        return DeviceProfile(config.device_id, known_system(config.os), _unique(config.capabilities), config.metadata)
    rest = unstructure_device_info(info)
    for key in ("device_id", "supported_features", "custom_metadata", "tags"):
        rest.pop(key, None)
    return DeviceProfile(
        config.device_id,
        known_system(str(info.platform)) or known_system(config.os),
        _unique([*config.capabilities, *info.supported_features]),
        config.metadata,
        rest,
        info.custom_metadata,
        tuple(info.tags),
        known=True,
    )


def contradiction_of(config: DeviceConfig, info: DeviceInfo) -> str | None:
    """Describe how a device's information contradicts its configuration; None if it does not."""
    reported = str(info.platform)
    if known_system(reported) is None or is_system(reported, known_system(config.os)):
        return None
    return f"its os is configured as {config.os!r}, and the device reports {reported!r}, which counts: correct its configuration"


def is_too_large(info: DeviceInfo) -> bool:
    """Return whether information takes more than `MAX_INFORMATION` bytes of memory."""
    return json_size(attrs.astuple(info, recurse=False), MAX_INFORMATION) > MAX_INFORMATION


def _unique(names: Iterable[str]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(names))
