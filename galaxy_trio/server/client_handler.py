"""Handles one client's messages: sends the server's first reply to each, in order."""

from __future__ import annotations

import logging
import uuid
from typing import TYPE_CHECKING, Final

import trio

from galaxy_trio._arguments import MAX_ID
from galaxy_trio._concurrency import wall_clock
from galaxy_trio.errors import InvalidMessage, MessageTooLarge
from galaxy_trio.messages import (
    JSON,
    ClientMessage,
    ClientMessageType,
    ClientType,
    ServerMessage,
    ServerMessageType,
    TaskStatus,
)
from galaxy_trio.server.pending_commands import PendingCommands
from galaxy_trio.server.registry import Client, ClientInfo

if TYPE_CHECKING:
    from collections.abc import Callable

    from galaxy_trio._connection.link import Link
    from galaxy_trio.server.registry import Registry
    from galaxy_trio.server.sessions import Sessions

logger: Final = logging.getLogger(__name__)

HOLDER_TIMEOUT: Final = 5.0
"""Seconds in which the holder of a name must be heard when another connection of the same client wants to register under it."""


class ClientHandler:
    """The receiver of one connection. Sends every reply in the step in which it receives the message.

    Args:
        registry: The server's registry.
        sessions: The server's sessions.
        max_unanswered_commands: Number of command batches that a device may leave unanswered.
        max_message_size: Largest message of a registered client, in bytes.
        max_values: Number of values and keys that a message of a registered client may have.
    """

    _link: Link[ClientMessage]
    """Set by `attach`, because a link is made with its receiver."""

    def __init__(
        self,
        registry: Registry,
        sessions: Sessions,
        max_unanswered_commands: int,
        max_message_size: int,
        max_values: int,
    ) -> None:
        self._registry = registry
        self._sessions = sessions
        self._max_unanswered_commands = max_unanswered_commands
        self._max_message_size = max_message_size
        self._max_values = max_values
        self.client: Client | None = None
        self.first_message: trio.Event = trio.Event()
        """Set when the first message was received, or the connection has ended without one."""
        self.refused_with: int | None = None
        """The close code after a refused registration."""
        self.credential: int | None = None
        """The token that the client gave, as a number; see `AccessPolicy.credential`."""
        self._claim: tuple[ClientMessage, Client] | None = None
        self._decided = trio.Event()

    def attach(self, link: Link[ClientMessage]) -> None:
        """Set the link that replies are sent on. Call this before the link receives."""
        self._link = link

    def received(self, message: ClientMessage) -> None:
        """Reply to a message; see `Receiver`."""
        if self.refused_with is not None:
            return
        if self.client is None:
            self._register(message)
            return
        self.client.last_active = trio.current_time()
        if message.client_id is not None and message.client_id != self.client.client_id:
            self._refuse("client_id does not match the registered connection")
        elif message.client_type is not self.client.client_type:
            self._refuse("client_type does not match the registered connection")
        else:
            self._handle(message, self.client)

    def received_invalid(self, invalid: InvalidMessage) -> None:
        """Reply to a broken message; see `Receiver`."""
        if self.refused_with is not None:
            return
        if self.client is not None and invalid.type == ClientMessageType.COMMAND_RESULTS:
            self.client.commands.route_invalid(invalid)
        self._refuse(str(invalid))
        if self.client is None:
            self._turn_away(1008)

    def ended(self, error: Callable[[], Exception]) -> None:
        """Remove the client and cancel its sessions in the step in which the end is known; see `Receiver`."""
        self.first_message.set()
        if self.client is not None:
            self._registry.remove(self.client)
            self.client.commands.close(error)
            self._sessions.client_left(self.client)

    def _register(self, message: ClientMessage) -> None:
        if message.type is not ClientMessageType.REGISTER or not message.client_id:
            self._refuse("the first message must be a registration with a client_id")
            self._turn_away(1008)
            return
        if len(message.client_id) > MAX_ID:
            self._refuse(f"the client_id has {len(message.client_id)} characters: at most {MAX_ID} are allowed")
            self._turn_away(1008)
            return
        holder = self._registry.get(message.client_id)
        if holder is None or holder.client_type is not message.client_type or holder.credential != self.credential:
            self._admit(message, message.client_id)
        else:
            # The same client, as far as can be known: its previous connection may be half open.
            self._claim = message, holder
            self._link.pause_until(self._decided)
            self.first_message.set()

    async def settle_claim(self) -> None:
        """Decide about a registration under a name that another connection of the same client holds. Returns immediately without one.

        The other connection is replaced if no byte arrives from it after a ping. Until then, this client's messages wait in its socket.
        """
        if self._claim is None:
            return
        message, holder = self._claim
        self._claim = None
        logger.info("%r registers again: is its other connection half open?", holder.client_id)
        if await holder.sender.stays_silent(HOLDER_TIMEOUT):
            holder.sender.lose(
                f"it did not answer a ping within {HOLDER_TIMEOUT:g} s, and its client has connected again"
            )
        if not self._link.closed:
            self._admit(message, holder.client_id)
            self._decided.set()

    def _admit(self, message: ClientMessage, client_id: str) -> None:
        metadata = message.metadata or {}
        is_device = message.client_type is ClientType.DEVICE
        value, platform = metadata.get("system_info"), metadata.get("platform")
        system_info = value if is_device and isinstance(value, dict) else None
        refusal = self._registry.refusal(client_id, message.client_type, message.target_id)
        if refusal is not None:
            self._refuse(refusal)
            self._turn_away(1000)
            return
        named = platform[:MAX_ID] if isinstance(platform, str) else None
        self.client = Client(
            ClientInfo(
                client_id,
                message.client_type,
                wall_clock.now(),
                named,
                None if is_device else message.target_id,
                self._registry.system_info(client_id, system_info, named),
            ),
            self._link,
            PendingCommands(client_id, self._max_unanswered_commands),
            self.credential,
        )
        self._registry.add(self.client)
        self._link.limit_received(self._max_message_size, self._max_values)
        self._link.memory.registered = True
        self._link.peer = f"{message.client_type} {message.client_id!r}"
        logger.info("%s has registered", self._link.peer)
        self._reply(ServerMessageType.HEARTBEAT)
        self.first_message.set()

    def _turn_away(self, code: int) -> None:
        self.refused_with = code
        self.first_message.set()

    def _handle(self, message: ClientMessage, client: Client) -> None:
        match message.type:
            case ClientMessageType.HEARTBEAT:
                self._reply(ServerMessageType.HEARTBEAT)
            case ClientMessageType.DEVICE_INFO_REQUEST:
                self._send_device_info(message, client)
            case ClientMessageType.TASK:
                self._start_task(message, client)
            case ClientMessageType.ERROR:
                self._refuse(message.error or "")
            case ClientMessageType.COMMAND_RESULTS:
                # Results get no reply.
                if not client.commands.route(message):
                    logger.debug("%r sent results for no pending batch", client.client_id)
            case ClientMessageType.DEVICE_INFO_RESPONSE:
                logger.debug("%r sent device information without a request", client.client_id)
            case _:
                # A second registration, or a task's end, which clients must not send.
                self._refuse(f"Unknown message type: ClientMessageType.{message.type.name}")

    def _send_device_info(self, message: ClientMessage, client: Client) -> None:
        wanted = message.target_id
        allowed = client.client_type is ClientType.CONSTELLATION and client.info.target_id in (None, wanted)
        if wanted is None or not allowed:
            self._refuse("Not authorized to request device info for this device")
            return
        device = self._registry.device(wanted)
        result: JSON = None if device is None else device.info.system_info
        if result is None:
            result = {"error": f"Device {wanted} not found or no system info available"}
        self._reply(ServerMessageType.DEVICE_INFO_RESPONSE, response_id=message.request_id, result=result)

    def _start_task(self, message: ClientMessage, client: Client) -> None:
        is_device = client.client_type is ClientType.DEVICE
        device_id = message.target_id or (client.client_id if is_device else None)
        session_id = message.session_id or str(uuid.uuid4())
        if device_id is None:
            self._refuse("Constellation task requests require target_id")
            return
        target = self._registry.get(device_id)
        if target is None:
            # Clients recognise "not connected": see galaxy_trio/_connection/backoff.py.
            self._refuse(f"Target device {device_id!r} is not connected{self._registry.similar(device_id)}")
            return
        if target.client_type is not ClientType.DEVICE:
            self._refuse("Constellation tasks may only target device clients")
            return
        if is_device and target is not client:
            self._refuse("A device may run tasks only on itself")
            return
        if len(session_id) > MAX_ID:
            self._refuse(f"the session_id has {len(session_id)} characters: at most {MAX_ID} are allowed")
            return
        refusal = self._sessions.refusal(session_id, client)
        if refusal is not None:
            self._refuse(refusal)
            return
        # If the acknowledgement could not be sent, the client got an error, which means that its task never ran.
        if self._reply(ServerMessageType.HEARTBEAT, session_id=session_id):
            self._sessions.start(session_id, message.request or "", message.task_name, client, target)

    def _refuse(self, why: str) -> None:
        self._reply(ServerMessageType.ERROR, status=TaskStatus.ERROR, error=why)

    def _reply(
        self,
        type: ServerMessageType,
        *,
        status: TaskStatus = TaskStatus.OK,
        session_id: str | None = None,
        response_id: str | None = None,
        error: str | None = None,
        result: JSON = None,
    ) -> bool:
        """Send a reply, or an error if it cannot be sent. Returns whether the reply was sent."""
        reply = ServerMessage(
            type,
            status,
            error=error,
            session_id=session_id,
            timestamp=wall_clock.timestamp(),
            response_id=response_id or str(uuid.uuid4()),
            result=result,
        )
        try:
            self._link.send_nowait(reply)
        except (InvalidMessage, MessageTooLarge) as unsendable:
            # A reply repeats parts of the client's message, which may make it too large.
            problem = f"the reply cannot be sent: {unsendable}"
            self._link.send_nowait(
                ServerMessage(
                    ServerMessageType.ERROR,
                    TaskStatus.ERROR,
                    error=problem,
                    timestamp=reply.timestamp,
                    response_id=str(uuid.uuid4()),
                )
            )
            return False
        return True
