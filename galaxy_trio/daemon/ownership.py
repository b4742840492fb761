"""Decides which devices this daemon owns, keeps those connected, and gives them back.

A device is in this daemon's constellation while the daemon owns it, and only then. The database is the truth: each step reads it, takes or
releases devices there, and makes the constellation agree. Of several daemons, each takes its fair share.

Rule 4 of docs/explanation/cluster.md.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Final

import trio

from galaxy_trio import ConfigError
from galaxy_trio._counted import counted
from galaxy_trio.daemon.device_configs import devices_from_json
from galaxy_trio.daemon.directory import RemoteDevice, remote_device
from galaxy_trio.daemon.reload import apply_devices
from galaxy_trio.daemon.store.committer import LifeOver
from galaxy_trio.daemon.store.database import StoreError
from galaxy_trio.daemon.store.events import RECONNECT
from galaxy_trio.daemon.store.ownership import fair_share
from galaxy_trio.events import CONNECTED

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping

    from galaxy_trio import Constellation, DeviceConfig
    from galaxy_trio.daemon.directory import Directory, RemoteDevice
    from galaxy_trio.daemon.reload import Changes
    from galaxy_trio.daemon.store.fleet import Fleet
    from galaxy_trio.daemon.store.store import Store
    from galaxy_trio.daemon.task_queue import TaskQueue

logger: Final = logging.getLogger(__name__)

_AVOIDING: Final = 600.0
"""Seconds for which a device that could not be connected is left to the other daemons."""
_MIN_INTERVAL: Final = 0.1
"""Seconds between two steps, however often the cluster changes."""


class Ownership:
    """The devices that this daemon owns.

    Args:
        store: Has the owners, and the devices of a cluster.
        constellation: Gets exactly the devices that this daemon owns.
        directory: Gets those of the other daemons.
        task_queue: Gets every change.
        configs: The devices that there are; `None` for those in the database.
        drain: Returns the seconds for which tasks may go on when their device is changed or removed.
    """

    def __init__(
        self,
        store: Store,
        constellation: Constellation,
        directory: Directory,
        task_queue: TaskQueue,
        configs: Mapping[str, DeviceConfig] | None,
        drain: Callable[[], float],
    ) -> None:
        self._store = store
        self._constellation = constellation
        self._directory = directory
        self._task_queue = task_queue
        self.configs = configs
        self._lease = store.lease
        self._drain = drain
        # Times by the names of devices: since when its own ones have had no connection, until when others are left to other daemons, and
        # since when those without an owner have had none.
        self._unconnected_since: dict[str, float] = {}
        self._avoided_until: dict[str, float] = {}
        self._free_since: dict[str, float] = {}
        self._is_draining = False
        # What the last step has read, so that the next one has to convert only what has changed.
        self._read: tuple[Mapping[str, str], Mapping[str, DeviceConfig]] = {}, {}
        self._remote: dict[str, tuple[tuple[DeviceConfig, str | None, str | None], RemoteDevice]] = {}
        if store.is_shared:
            directory.refresh = self.step
        self._woken = trio.Event()
        self._stepping = trio.Lock()

    def drain(self) -> None:
        """Give the devices to other daemons, and take none any more."""
        self._is_draining = True
        self.wake()

    async def drain_daemons(self, lives: Collection[str]) -> None:
        """Let daemons of the cluster drain, given by their lives. If all drain, they own the devices as before.

        Raises:
            StoreError: The database failed.
        """
        await self._store.drain(lives)
        self.wake()

    async def reconnect(self, name: str) -> None:
        """Reconnect a device immediately, and wait until it is connected, here or at another daemon.

        Raises:
            GalaxyError: This daemon owns it and has given it up, or the database failed.
        """
        if name in self._directory.own:
            await self._directory.own[name].reconnect()
            return
        before = self._directory.remote(name)
        self._avoided_until.pop(name, None)
        await self._store.publish([(RECONNECT, {"device_id": name})])
        while (now := self._directory.remote(name)) is not None and not _has_connected(now, before):
            await self._directory.changed.wait()

    def wake(self) -> None:
        """Step soon, because the cluster has changed."""
        self._woken.set()

    async def run(self) -> None:
        """Step a few times in each lease, and when it is woken; never returns. Errors of the database are retried."""
        has_failed = False
        takes_over = True
        while True:
            try:
                if takes_over:
                    await self._take_over()
                await self.step()
                has_failed = False
            except (StoreError, ConfigError, LifeOver) as error:
                if not has_failed:
                    logger.error("the devices of the cluster cannot be read: %s; retrying", error)  # noqa: TRY400  # a sentence, without a traceback
                has_failed = True
            await trio.sleep(_MIN_INTERVAL)
            with trio.move_on_after(self._lease / 3) as pause:
                await self._woken.wait()
            takes_over = pause.cancelled_caught
            self._woken = trio.Event()

    async def _take_over(self) -> None:
        """Find out whether other daemons have died. What they had is free then."""
        found = await self._store.take_over()
        for record in found.lost:
            self._task_queue.report(record)
        if found.lives:
            logger.warning(
                "%s died, and left %s without an owner and %s, now lost",
                counted(len(found.lives), "daemon"),
                counted(len(found.devices), "device"),
                counted(len(found.lost), "running task"),
            )
        # Claims may also have been given back.
        self._task_queue.look_for_free()

    async def step(self) -> Changes:
        """Make the database and the constellation agree once.

        Returns:
            The changes of the constellation.

        Raises:
            StoreError: The database failed.
            ConfigError: It has devices of a newer version.
        """
        async with self._stepping:
            return await self._step()

    async def _step(self) -> Changes:
        fleet = await self._store.read_fleet()
        this = fleet.lives.get(self._store.life)
        if self._is_draining and this is not None and this.draining is None:
            # The others take the devices then.
            await self._store.drain([this.id])
        configs = self._configs_of(fleet)
        # An earlier write may have got no answer.
        owned = {name: epoch for name, (owner, epoch) in fleet.owners.items() if owner == self._store.life}
        owned |= await self._take(fleet, configs, len(owned.keys() & configs.keys()))
        kept = self._kept(fleet, configs, owned.keys())
        self._directory.epochs = owned
        with self._task_queue.reconfiguring():
            changes = await apply_devices(
                self._constellation, [config for name, config in configs.items() if name in kept], self._drain()
            )
            self._directory.epochs = {name: owned[name] for name in kept}
            self._set_remote(fleet, {name: config for name, config in configs.items() if name not in kept})
        released = owned.keys() - kept
        forgotten = {name for name, (owner, _) in fleet.owners.items() if owner is None or name in released}
        if released or forgotten - configs.keys():
            await self._store.release_devices(self._store.life, released, forgotten - configs.keys())
        return changes

    def _configs_of(self, fleet: Fleet) -> Mapping[str, DeviceConfig]:
        if self.configs is not None:
            return self.configs
        if fleet.configs != self._read[0]:
            self._read = fleet.configs, devices_from_json(fleet.configs)
        return self._read[1]

    def _set_remote(self, fleet: Fleet, configs: Mapping[str, DeviceConfig]) -> None:
        before, self._remote = self._remote, {}
        for name, config in configs.items():
            key = config, fleet.states.get(name), fleet.owner_name(name)
            known = before.get(name)
            self._remote[name] = known if known is not None and known[0] == key else (key, remote_device(*key))
        self._directory.set_remote({name: device for name, (_, device) in self._remote.items()})

    def _share(self, fleet: Fleet, configs: Mapping[str, DeviceConfig]) -> int:
        taking = [life.id for life in fleet.lives.values() if life.draining is None] or list(fleet.lives)
        takes = self._store.life in taking and not self._is_draining
        return fair_share(len(configs), len(taking)) if takes else 0

    async def _take(self, fleet: Fleet, configs: Mapping[str, DeviceConfig], owned: int) -> dict[str, int]:
        """Take devices without an owner, up to the fair share. Returns their epochs."""
        now = trio.current_time()
        free = [name for name in configs if fleet.owners.get(name, (None, 0))[0] is None]
        self._free_since = {name: self._free_since.get(name, now) for name in free}
        self._avoided_until = {
            name: until for name, until in self._avoided_until.items() if until > now and name in configs
        }
        # What all daemons avoid must not stay without an owner.
        candidates = [
            name for name in free if name not in self._avoided_until or now - self._free_since[name] > 2 * self._lease
        ]
        room = self._share(fleet, configs) - owned
        if not candidates or room <= 0:
            return {}
        return await self._store.take_devices(self._store.life, candidates, room)

    def _kept(self, fleet: Fleet, configs: Mapping[str, DeviceConfig], owned: Collection[str]) -> set[str]:
        """The devices that this daemon goes on to own: with others, no more than its share, as far as the rest is idle."""
        kept = {name for name in owned if name in configs}
        if len(fleet.lives) > 1:
            kept -= self._unreachable(kept)
            own = self._constellation.devices
            idle = [name for name in sorted(kept) if name not in own or not own[name].running]
            surplus = max(0, len(kept) - self._share(fleet, configs))
            kept -= set(idle[:surplus])
        return kept

    def _unreachable(self, names: Collection[str]) -> set[str]:
        """The devices that could not be connected for two leases: another daemon may reach them."""
        now = trio.current_time()
        devices = [self._constellation.devices[name] for name in names if name in self._constellation.devices]
        since = self._unconnected_since
        self._unconnected_since = {
            device.device_id: since.get(device.device_id, now)
            for device in devices
            if device.config.auto_connect and not device.connected
        }
        found = {name for name, time in self._unconnected_since.items() if now - time > 2 * self._lease}
        for name in found:
            self._avoided_until[name] = now + _AVOIDING
            logger.warning("device %r cannot be connected from here, and is left to other daemons", name)
        return found

    async def release_all(self) -> None:
        """Release all devices now, but those that run tasks, and take none any more. The others are released when the life ends.

        Raises:
            StoreError: The database failed: they are released when the lease ends.
        """
        async with self._stepping:
            self._is_draining = True
            busy = {name: device.config for name, device in self._constellation.devices.items() if device.running}
            with self._task_queue.reconfiguring():
                await apply_devices(self._constellation, list(busy.values()), drain=0)
            await self._store.release_devices(self._store.life, self._directory.epochs.keys() - busy.keys(), ())


def _has_connected(device: RemoteDevice, before: RemoteDevice | None) -> bool:
    """Whether a device has connected since then."""
    if device.statistics.status not in CONNECTED:
        return False
    connects = device.owner, device.statistics.connects
    return before is None or connects != (before.owner, before.statistics.connects)
