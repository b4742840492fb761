"""The original's server, as a device sees it: the messages that its sessions send, field by field, over a real socket."""

from __future__ import annotations

import json
import uuid
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import attrs
import trio
from trio_websocket import WebSocketConnection, WebSocketRequest, serve_websocket

from galaxy_trio._concurrency import wall_clock
from galaxy_trio.messages import ServerMessage

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

_FIELDS = tuple(field.name for field in attrs.fields(ServerMessage) if field.name != "stop_on_failure")
"""Every field is on the wire, in this order; those that are not set are null."""


class OriginalServer:
    """One connection to a device."""

    def __init__(self, websocket: WebSocketConnection) -> None:
        self._websocket = websocket

    async def receive(self) -> dict[str, Any]:
        """Receive the device's next message."""
        message: dict[str, Any] = json.loads(await self._websocket.get_message())
        return message

    async def send(self, **fields: object) -> str:
        """Send a message and return its response_id."""
        message = {**dict.fromkeys(_FIELDS), "timestamp": wall_clock.timestamp(), "response_id": str(uuid.uuid4())}
        message |= fields
        await self._websocket.send_message(json.dumps(message))
        return str(message["response_id"])

    async def execute(self, *commands: dict[str, object], session_id: str = "s1") -> list[dict[str, Any]]:
        """Send a batch of commands as the original's sessions do, and return the results, in its order."""
        actions = [{"parameters": None, **command, "call_id": str(uuid.uuid4())} for command in commands]
        response_id = await self.send(
            type="command",
            status="continue",
            agent_name="LinuxAgent",
            process_name="",
            root_name="",
            actions=actions,
            session_id=session_id,
            task_name="galaxy_demo_t1",
        )
        answer = await self.receive()
        assert (answer["type"], answer["status"]) == ("command_results", "continue")
        assert (answer["session_id"], answer["prev_response_id"]) == (session_id, response_id)
        results: list[dict[str, Any]] = answer["action_results"]
        assert [each["call_id"] for each in results] == [each["call_id"] for each in actions]
        return results


@asynccontextmanager
async def open_original_server() -> AsyncGenerator[tuple[str, trio.MemoryReceiveChannel[OriginalServer]]]:
    """Listen at a port of this machine. Yields the URL, and the connections of devices once they are registered."""
    send, receive = trio.open_memory_channel[OriginalServer](1)

    async def serve(request: WebSocketRequest) -> None:
        websocket = await request.accept()
        server = OriginalServer(websocket)
        registration = await server.receive()
        assert (registration["type"], registration["client_type"]) == ("register", "device")
        await server.send(type="heartbeat", status="ok")
        await send.send(server)
        await websocket._close_handshake.wait()  # it has no other way to wait

    async with trio.open_nursery() as nursery:
        listening = await nursery.start(serve_websocket, serve, "127.0.0.1", 0, None)
        yield f"ws://127.0.0.1:{listening.port}/ws", receive
        nursery.cancel_scope.cancel()
