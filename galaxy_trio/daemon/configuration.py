"""The daemon's configuration as it is now: a reload replaces it."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Final

import attrs
import trio

from galaxy_trio import ConfigError
from galaxy_trio.daemon.device_configs import devices_as_json
from galaxy_trio.daemon.settings import Settings, read_settings
from galaxy_trio.daemon.store.location import PostgresqlLocation

if TYPE_CHECKING:
    from galaxy_trio import ConstellationConfig, DeviceConfig

logger: Final = logging.getLogger(__name__)


class Configuration:
    """The content of all files. Made by `read_configuration`.

    Attributes:
        settings: The settings in ``galaxy.toml``.
        devices: The file with the devices.
        tokens: The tokens that clients may give.
    """

    def __init__(self, settings: Settings, devices: ConstellationConfig, tokens: tuple[str, ...]) -> None:
        self.settings: Settings = settings
        self.devices: ConstellationConfig = devices
        self.tokens: tuple[str, ...] = tokens

    @property
    def listed_devices(self) -> dict[str, DeviceConfig]:
        """The devices in the file, by name and in its order."""
        return {device.device_id: device for device in self.devices.devices}

    async def reload(self) -> None:
        """Read the files again. If that fails, nothing has changed. Reports the settings that only a restart applies.

        Raises:
            ConfigError: A file cannot be read, or is invalid.
        """
        new = await read_configuration(await trio.to_thread.run_sync(read_settings, self.settings.path))
        if self.tokens and not new.tokens:
            raise ConfigError("the new configuration has no token: restart the daemon to run without one")
        fixed = _fixed_settings(self.settings, self.devices)
        for name, value in _fixed_settings(new.settings, new.devices).items():
            if value != fixed[name]:
                logger.warning("%s has changed: restart the daemon to apply it", name)
        self.settings = new.settings
        self.devices = new.devices
        self.tokens = new.tokens


async def read_configuration(settings: Settings) -> Configuration:
    """Read the files that the settings name.

    Raises:
        ConfigError: A file cannot be read, or is invalid.
    """
    devices = await trio.to_thread.run_sync(settings.read_devices)
    check_storable(settings, devices)
    return Configuration(settings, devices, await trio.to_thread.run_sync(settings.read_tokens))


def check_storable(settings: Settings, devices: ConstellationConfig) -> None:
    """Check that the devices can be stored in the database, if several daemons may use it.

    Raises:
        ConfigError: They contain what is not stored.
    """
    if isinstance(settings.database, PostgresqlLocation):
        devices_as_json(devices.devices)


def _fixed_settings(settings: Settings, devices: ConstellationConfig) -> dict[str, object]:
    """The settings that a reload does not change, in both files."""
    shared: dict[str, object] = attrs.asdict(
        devices, recurse=False, filter=lambda field, _: bool(field.eq) and field.name != "devices"
    )
    return {
        "listen": settings.listen,
        "socket_mode": settings.socket_mode,
        "socket_group": settings.socket_group,
        "database": settings.database,
        "name": settings.name,
        "url": settings.url,
        "log": settings.log,
        **shared,
    }
