"""Who is connected to a server, under which name, in which role."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

import attrs

from galaxy_trio.messages import JSON, ClientType

if TYPE_CHECKING:
    from collections.abc import Callable

    from galaxy_trio.messages import ServerMessage


class Outbox(Protocol):
    """A client's connection, as far as others may use it."""

    async def send(self, message: ServerMessage, hand_over: Callable[[], None]) -> None:
        """Send a message when there is room for it."""


@attrs.frozen(eq=False)
class Client:
    """A registered peer.

    Attributes:
        since: When it registered, on trio's clock.
        target_id: The device that a constellation is for.
        system_info: What a device said of its machine, as it came.
    """

    client_id: str
    client_type: ClientType
    outbox: Outbox
    since: float
    target_id: str | None = None
    platform: str | None = None
    system_info: dict[str, JSON] | None = None


class Registry:
    """The clients of a server by their names. A name belongs to one connection at a time."""

    def __init__(self) -> None:
        self._clients: dict[str, Client] = {}

    def refusal(self, client_id: str, client_type: ClientType, target_id: str | None) -> str | None:
        """Why a peer cannot register, in the words of the original server; None if it can."""
        if client_id in self._clients:
            return f"client_id {client_id!r} is already registered; duplicate registrations are not allowed"
        if client_type is ClientType.CONSTELLATION and target_id is not None and self.device(target_id) is None:
            return f"Target device {target_id!r} is not connected"
        return None

    def add(self, client: Client) -> None:
        """Register a client that `refusal` has nothing against."""
        self._clients[client.client_id] = client

    def remove(self, client: Client) -> None:
        """Its connection has ended: the name is free again."""
        del self._clients[client.client_id]

    def get(self, client_id: str) -> Client | None:
        """The client of this name, whatever its role."""
        return self._clients.get(client_id)

    def device(self, device_id: str) -> Client | None:
        """The device of this name, if it is connected."""
        client = self._clients.get(device_id)
        return client if client is not None and client.client_type is ClientType.DEVICE else None

    def names(self, client_type: ClientType) -> list[str]:
        """The names of those connected in a role, in the order of their registration."""
        return [client.client_id for client in self._clients.values() if client.client_type is client_type]
