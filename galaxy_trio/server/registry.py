"""Who is connected to a server, under which name, in which role, and what is known of the devices."""

from __future__ import annotations

import json
from datetime import datetime
from typing import TYPE_CHECKING, Final, Protocol, TypeVar

import attrs
import trio

from galaxy_trio.messages import JSON, ClientType
from galaxy_trio.server.device_config import merge
from galaxy_trio.server.pending_commands import UnansweredCommands

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from galaxy_trio.messages import ServerMessage

MAX_SYSTEM_INFO: Final = 256 * 1024
"""Characters that a device's information may have, as JSON: it is kept for as long as the device is connected."""

T = TypeVar("T")


class Outbox(Protocol):
    """A client's connection, as far as others may use it."""

    async def send(self, message: ServerMessage, hand_over: Callable[[], T]) -> T:
        """Send a message when there is room for it; `hand_over` is called in that step."""
        ...


@attrs.frozen
class ClientInfo:
    """What a server knows of a client that is connected.

    Attributes:
        connected_at: When it registered, in UTC.
        platform: As it named it at its registration.
        target_id: The device that a constellation is for.
        system_info: Of a device: what it says of its machine, merged with the server's configuration.
    """

    client_id: str
    client_type: ClientType
    connected_at: datetime
    platform: str | None
    target_id: str | None
    system_info: dict[str, JSON] | None


@attrs.define(eq=False)
class Client:
    """A registered peer: what is known of it, how to reach it, and what it owes."""

    info: ClientInfo
    outbox: Outbox
    commands: UnansweredCommands
    last_active: float = attrs.field(factory=trio.current_time)
    """When its last message came, or the last task for it or on it ended, on trio's clock; bytes that are no message do not count."""

    @property
    def client_id(self) -> str:
        """Its name."""
        return self.info.client_id

    @property
    def client_type(self) -> ClientType:
        """Its role."""
        return self.info.client_type


class Registry:
    """The clients of a server by their names. A name belongs to one connection at a time.

    Args:
        device_config: What is merged into the devices' information, by device; see `read_device_config`.
    """

    def __init__(self, device_config: Mapping[str, Mapping[str, JSON]] | None = None) -> None:
        self._clients: dict[str, Client] = {}
        self._device_config = device_config or {}

    def refusal(
        self,
        client_id: str,
        client_type: ClientType,
        target_id: str | None,
        system_info: dict[str, JSON] | None = None,
    ) -> str | None:
        """Why a peer cannot register, in the words of the original server where it has any; None if it can."""
        if client_id in self._clients:
            return f"client_id {client_id!r} is already registered; duplicate registrations are not allowed"
        if client_type is ClientType.CONSTELLATION and target_id is not None and self.device(target_id) is None:
            return f"Target device {target_id!r} is not connected"
        if system_info is not None and len(json.dumps(system_info)) > MAX_SYSTEM_INFO:
            return f"the system information of {client_id!r} has more than {MAX_SYSTEM_INFO} characters"
        return None

    def system_info(
        self, device_id: str, system_info: dict[str, JSON] | None, platform: str | None
    ) -> dict[str, JSON] | None:
        """What is to be known of a device: its own words, under its registered name, with what its operator has to add.

        None if it said nothing of itself.
        """
        if system_info is None:
            return None
        # Under another name it would pass for another device.
        named: dict[str, JSON] = {**system_info, "device_id": device_id}
        if "platform" not in named and platform is not None:
            named["platform"] = platform
        config = self._device_config.get(device_id)
        return named if config is None else merge(named, config)

    def add(self, client: Client) -> None:
        """Register a client that `refusal` has nothing against."""
        self._clients[client.client_id] = client

    def remove(self, client: Client) -> None:
        """Its connection has ended: the name is free again, and nothing is kept of it."""
        del self._clients[client.client_id]

    def get(self, client_id: str) -> Client | None:
        """The client of this name, whatever its role."""
        return self._clients.get(client_id)

    def device(self, device_id: str) -> Client | None:
        """The device of this name, if it is connected."""
        client = self._clients.get(device_id)
        return client if client is not None and client.client_type is ClientType.DEVICE else None

    def clients(self, client_type: ClientType | None = None) -> list[ClientInfo]:
        """Those connected, in a role if one is given, in the order of their registration."""
        return [
            client.info for client in self._clients.values() if client_type is None or client.client_type is client_type
        ]

    def unanswered_commands(self) -> int:
        """Batches of commands that devices have not answered."""
        return sum(len(client.commands) for client in self._clients.values())

    def unexpected_results(self) -> int:
        """Results that nobody waited for, of those that are connected."""
        return sum(client.commands.unexpected_results for client in self._clients.values())
