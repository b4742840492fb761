"""One connection to a server: what its client may say, and the server's first reply to each message, in order."""

from __future__ import annotations

import logging
import uuid
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import trio

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
from galaxy_trio.opening import MAX_ID
from galaxy_trio.server.registry import Client
from galaxy_trio.server.sessions import ServerTask

if TYPE_CHECKING:
    from collections.abc import Callable

    from galaxy_trio.link import Link
    from galaxy_trio.server.registry import Registry
    from galaxy_trio.server.sessions import Sessions

logger = logging.getLogger(__name__)


class Peer:
    """The receiver of one connection's messages. Every reply is sent in the step in which its message is received.

    Args:
        registry: The server's.
        sessions: The server's.
    """

    _link: Link[ClientMessage]
    """Set by `attach`: the link needs its receiver first."""

    def __init__(self, registry: Registry, sessions: Sessions) -> None:
        self._registry = registry
        self._sessions = sessions
        self.client: Client | None = None
        self.first_message = trio.Event()
        """Set when the first message has come, or the connection has ended without one."""
        self.refused_with: int | None = None
        """The code to close with, when the registration was refused."""

    def attach(self, link: Link[ClientMessage]) -> None:
        """Replies go here. To be called before anything is received."""
        self._link = link

    # ---- what comes in

    def received(self, message: ClientMessage) -> None:
        """Answer a message; see `Receiver`."""
        if self.refused_with is not None:
            return
        if self.client is None:
            self._register(message)
        elif message.client_id is not None and message.client_id != self.client.client_id:
            self._refuse("client_id does not match the registered connection")
        elif message.client_type is not self.client.client_type:
            self._refuse("client_type does not match the registered connection")
        else:
            self._converse(message, self.client)

    def received_invalid(self, invalid: InvalidMessage) -> None:
        """Answer a broken message; see `Receiver`."""
        if self.refused_with is not None:
            return
        self._refuse(str(invalid))
        if self.client is None:
            self._turn_away(1008)

    def ended(self, error: Callable[[], Exception]) -> None:
        """Forget the client, and stop its sessions, in the step in which its end is known; see `Receiver`."""
        del error
        self.first_message.set()
        if self.client is not None:
            self._registry.remove(self.client)
            self._sessions.client_left(self.client)

    # ---- registration

    def _register(self, message: ClientMessage) -> None:
        if message.type is not ClientMessageType.REGISTER or not message.client_id:
            self._refuse("the first message must be a registration with a client_id")
            self._turn_away(1008)
            return
        if len(message.client_id) > MAX_ID:
            self._refuse(f"a client_id has at most {MAX_ID} characters, and this one has {len(message.client_id)}")
            self._turn_away(1008)
            return
        refusal = self._registry.refusal(message.client_id, message.client_type, message.target_id)
        if refusal is not None:
            self._refuse(refusal)
            self._turn_away(1000)
            return
        metadata = message.metadata or {}
        system_info, platform = metadata.get("system_info"), metadata.get("platform")
        is_device = message.client_type is ClientType.DEVICE
        self.client = Client(
            message.client_id,
            message.client_type,
            self._link,
            trio.current_time(),
            target_id=None if is_device else message.target_id,
            platform=platform if isinstance(platform, str) else None,
            system_info=system_info if is_device and isinstance(system_info, dict) else None,
        )
        self._registry.add(self.client)
        self._link.peer = f"{message.client_type} {message.client_id!r}"
        self._reply(ServerMessageType.HEARTBEAT)
        self.first_message.set()

    def _turn_away(self, code: int) -> None:
        self.refused_with = code
        self.first_message.set()

    # ---- conversation

    def _converse(self, message: ClientMessage, client: Client) -> None:
        match message.type:
            case ClientMessageType.HEARTBEAT:
                self._reply(ServerMessageType.HEARTBEAT)
            case ClientMessageType.DEVICE_INFO_REQUEST:
                self._tell_device_info(message, client)
            case ClientMessageType.TASK:
                self._start_task(message, client)
            case ClientMessageType.ERROR:
                self._refuse(message.error or "")
            case ClientMessageType.COMMAND_RESULTS | ClientMessageType.DEVICE_INFO_RESPONSE:
                logger.debug("%s: %s for nobody", client.client_id, message.type)
            case _:
                # A second registration, or a task's end, which clients have no business with.
                self._refuse(f"Unknown message type: ClientMessageType.{message.type.name}")

    def _tell_device_info(self, message: ClientMessage, client: Client) -> None:
        wanted = message.target_id
        allowed = client.client_type is ClientType.CONSTELLATION and client.target_id in (None, wanted)
        if wanted is None or not allowed:
            self._refuse("Not authorized to request device info for this device")
            return
        device = self._registry.device(wanted)
        result: JSON = None if device is None else device.system_info
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
            self._refuse(f"Target device {device_id!r} is not connected")
            return
        if target.client_type is not ClientType.DEVICE:
            self._refuse("Constellation tasks may only target device clients")
            return
        if is_device and target is not client:
            self._refuse("A device may run tasks only on itself")
            return
        if len(session_id) > MAX_ID:
            self._refuse(f"a session_id has at most {MAX_ID} characters, and this one has {len(session_id)}")
            return
        refusal = self._sessions.refusal(session_id, client.client_id)
        if refusal is not None:
            self._refuse(refusal)
            return
        self._reply(ServerMessageType.HEARTBEAT, session_id=session_id)
        task = ServerTask(session_id, message.request or "", device_id, client.client_id, message.task_name)
        self._sessions.start(task, client, target)

    # ---- replies

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
    ) -> None:
        reply = ServerMessage(
            type,
            status,
            error=error,
            session_id=session_id,
            timestamp=datetime.now(UTC).isoformat(),
            response_id=response_id or str(uuid.uuid4()),
            result=result,
        )
        try:
            self._link.send_nowait(reply)
        except (InvalidMessage, MessageTooLarge) as unsendable:
            # What clients say comes back in replies, and may be too large there, or nested too deep.
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
