"""A server's connected clients by name."""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING, Protocol, TypeVar

import attrs
import trio

from galaxy_trio._nearest import nearest
from galaxy_trio.messages import JSON, ClientType
from galaxy_trio.server.device_config import merge
from galaxy_trio.server.pending_commands import PendingCommands

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from galaxy_trio._concurrency.memory_budget import MemoryShare
    from galaxy_trio.messages import ServerMessage


T = TypeVar("T")


class Sender(Protocol):
    """The part of a client's link that sessions and other clients' registrations use."""

    async def send(self, message: ServerMessage, hand_over: Callable[[], T]) -> T:
        """Send a message once there is room for it, and call `hand_over` in the same step."""
        ...

    @property
    def memory(self) -> MemoryShare:
        """The connection's share of the server's memory budget."""
        ...

    async def stays_silent(self, timeout: float) -> bool:
        """Ping the client, and return whether no byte arrives from it."""
        ...

    def lose(self, reason: str) -> None:
        """End the connection and remove the client, in this step."""


@attrs.frozen
class ClientInfo:
    """A connected client.

    Attributes:
        client_id: The client's name.
        client_type: The client's role.
        connected_at: The time of its registration, in UTC.
        platform: The platform in its registration.
        target_id: The device that a constellation client uses.
        system_info: A device's description of its machine, merged with the server's device configuration.
    """

    client_id: str
    client_type: ClientType
    connected_at: datetime
    platform: str | None
    target_id: str | None
    system_info: dict[str, JSON] | None


@attrs.define(eq=False)
class Client:
    """A registered client's state."""

    info: ClientInfo
    sender: Sender
    commands: PendingCommands
    credential: int | None = None
    """The token that it gave, as a number; see `AccessPolicy.credential`."""
    last_active: float = attrs.field(factory=trio.current_time)
    """Time of its last message, or of the end of the last task submitted by it or run on it, on trio's clock."""

    @property
    def client_id(self) -> str:
        """The client's name."""
        return self.info.client_id

    @property
    def client_type(self) -> ClientType:
        """The client's role."""
        return self.info.client_type


class Registry:
    """A server's clients by name. A name belongs to one connection at a time.

    Args:
        device_config: Data that is merged into the devices' information, by device; see `read_device_config`.
    """

    def __init__(self, device_config: Mapping[str, Mapping[str, JSON]] | None = None) -> None:
        self._clients: dict[str, Client] = {}
        self._device_config = device_config or {}
        self.on_registration: Callable[[], object] | None = None
        """Called after each registration, in the same step."""

    def refusal(self, client_id: str, client_type: ClientType, target_id: str | None) -> str | None:
        """Return why a client cannot register, in the original server's words where it has a message; None if it can."""
        # Clients recognise "already registered" and "not connected": see galaxy_trio/_connection/backoff.py.
        if client_id in self._clients:
            return f"client_id {client_id!r} is already registered; duplicate registrations are not allowed"
        if client_type is ClientType.CONSTELLATION and target_id is not None and self.device(target_id) is None:
            return f"Target device {target_id!r} is not connected{self.similar(target_id)}"
        return None

    def similar(self, device_id: str) -> str:
        """The end of a refusal because of a device that is not connected: the connected devices of similar names, if any."""
        connected = [name for name, client in self._clients.items() if client.client_type is ClientType.DEVICE]
        # Not "did you mean": the name may be right, and its device away.
        names = ", ".join(map(repr, nearest(device_id, connected)))
        return f"; similar names that are: {names}" if names else ""

    def system_info(
        self, device_id: str, system_info: dict[str, JSON] | None, platform: str | None
    ) -> dict[str, JSON] | None:
        """The device's own information under its registered name, merged with the operator's; None without its own."""
        if system_info is None:
            return None
        # The registered name replaces any other, so that a device cannot pose as another one.
        named: dict[str, JSON] = {**system_info, "device_id": device_id}
        if "platform" not in named and platform is not None:
            named["platform"] = platform
        config = self._device_config.get(device_id)
        return named if config is None else merge(named, config)

    def add(self, client: Client) -> None:
        """Register a client for which `refusal` returned None."""
        self._clients[client.client_id] = client
        if self.on_registration is not None:
            self.on_registration()

    def remove(self, client: Client) -> None:
        """Remove a client and free its name."""
        del self._clients[client.client_id]

    def get(self, client_id: str) -> Client | None:
        """The client of this name in any role."""
        return self._clients.get(client_id)

    def device(self, device_id: str) -> Client | None:
        """The device of this name, if it is connected."""
        client = self._clients.get(device_id)
        return client if client is not None and client.client_type is ClientType.DEVICE else None

    def clients(self, client_type: ClientType | None = None) -> list[ClientInfo]:
        """The connected clients, in one role or all, in the order of their registration."""
        return [
            client.info for client in self._clients.values() if client_type is None or client.client_type is client_type
        ]

    def unanswered_commands(self) -> int:
        """Number of command batches that devices have not answered."""
        return sum(len(client.commands) for client in self._clients.values())

    def unexpected_results(self) -> int:
        """Number of results for no pending batch, from connected devices."""
        return sum(client.commands.unexpected_results for client in self._clients.values())
