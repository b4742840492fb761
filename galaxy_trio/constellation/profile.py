"""What is known of a device: its configuration, and what it says of itself. See "Device information" in docs/reference/wire.md."""

from __future__ import annotations

from typing import TYPE_CHECKING

import attrs

from galaxy_trio._codec.codec import unstructure_device_info
from galaxy_trio.messages import JSON

if TYPE_CHECKING:
    from collections.abc import Iterable

    from galaxy_trio.constellation.config import DeviceConfig
    from galaxy_trio.messages import DeviceInfo


@attrs.frozen
class DeviceProfile:
    """What tasks select a device by, and what else is known of it.

    Attributes:
        device_id: Its name at the server.
        os: What it runs: its information's `platform`, or the configured one until that is known.
        capabilities: The configured ones, then its information's `supported_features`, each once.
        metadata: As configured.
        system_info: Of its information, what has no place of its own here; empty until it is known.
        custom_metadata: Of its information.
        tags: Of its information.
        known: Whether the device's information is in it.
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
    """What is known of a device from its configuration, and from its information when there is one.

    It is made anew of both each time: what a device does not say any more is forgotten.
    """
    if info is None:
        return DeviceProfile(config.device_id, config.os, _each_once(config.capabilities), config.metadata)
    rest = unstructure_device_info(info)
    for key in ("device_id", "supported_features", "custom_metadata", "tags"):
        rest.pop(key, None)
    return DeviceProfile(
        config.device_id,
        str(info.platform),
        _each_once([*config.capabilities, *info.supported_features]),
        config.metadata,
        rest,
        info.custom_metadata,
        tuple(info.tags),
        known=True,
    )


def _each_once(names: Iterable[str]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(names))
