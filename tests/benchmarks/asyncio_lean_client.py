"""Requests as cheaply as asyncio, websockets and pydantic can.

One task receives, and completes a future per request. It has no compression, no pings, no log lines, and no UTF-8 decoding in front of
pydantic, which reads bytes. This package has, and it does not: a limit of requests, the order of replies, heartbeats, sending in two
phases, and device information as a class.
"""

from __future__ import annotations

import asyncio
import itertools
import uuid
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed

from .asyncio_messages import ClientMessage, ClientMessageType, ClientType, ServerMessage, ServerMessageType, TaskStatus

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator


class LeanClient:
    """A registered connection, for one device. Made by `open_lean_client`."""

    def __init__(self, websocket: ClientConnection, device_id: str) -> None:
        self._websocket = websocket
        self._device_id = device_id
        self._client_id = f"lean@{device_id}"
        self._pending: dict[str, asyncio.Future[ServerMessage]] = {}
        self._numbers = itertools.count(1)

    async def device_info(self, timeout: float = 10.0) -> dict[str, Any]:
        request_id = f"device_info_{next(self._numbers)}"
        message = ClientMessage(
            type=ClientMessageType.DEVICE_INFO_REQUEST,
            status=TaskStatus.OK,
            client_type=ClientType.CONSTELLATION,
            client_id=self._client_id,
            target_id=self._device_id,
            timestamp=datetime.now(UTC).isoformat(),
            request_id=request_id,
        )
        result: dict[str, Any] = (await self._ask(message, request_id, timeout)).result
        return result

    async def run_task(self, request: str, timeout: float = 1000.0) -> ServerMessage:
        task_id = str(uuid.uuid4())
        session_id = f"lean@{task_id}"
        message = ClientMessage(
            type=ClientMessageType.TASK,
            status=TaskStatus.CONTINUE,
            client_type=ClientType.CONSTELLATION,
            session_id=session_id,
            task_name=f"galaxy/lean/{task_id}",
            client_id=self._client_id,
            target_id=self._device_id,
            request=request,
            timestamp=datetime.now(UTC).isoformat(),
        )
        return await self._ask(message, session_id, timeout)

    async def register(self, timeout: float = 30.0) -> None:
        message = ClientMessage(
            type=ClientMessageType.REGISTER,
            status=TaskStatus.OK,
            client_type=ClientType.CONSTELLATION,
            client_id=self._client_id,
            target_id=self._device_id,
            timestamp=datetime.now(UTC).isoformat(),
            metadata={"type": "constellation_client", "targeted_device_id": self._device_id},
        )
        await self._ask(message, "", timeout)

    async def _ask(self, message: ClientMessage, key: str, timeout: float) -> ServerMessage:
        future: asyncio.Future[ServerMessage] = asyncio.get_running_loop().create_future()
        self._pending[key] = future
        try:
            async with asyncio.timeout(timeout):
                await self._websocket.send(message.model_dump_json())
                return await future
        finally:
            self._pending.pop(key, None)

    async def receive_all(self) -> None:
        """Complete futures until the connection ends, and then fail those that are left."""
        reason: Exception = ConnectionError("the client was closed")
        try:
            while True:
                message = ServerMessage.model_validate_json(await self._websocket.recv(decode=False))
                match message.type:
                    case ServerMessageType.DEVICE_INFO_RESPONSE:
                        future = self._pending.get(message.response_id or "")
                    case ServerMessageType.TASK_END:
                        future = self._pending.get(message.session_id or "")
                    case ServerMessageType.HEARTBEAT:
                        # A task's acknowledgement names its session, and completes nothing.
                        future = self._pending.get("") if message.session_id is None else None
                    case ServerMessageType.ERROR:
                        oldest = next(iter(self._pending.values()), None)
                        if oldest is not None and not oldest.done():
                            oldest.set_exception(RuntimeError(message.error))
                        continue
                    case _:
                        continue
                if future is not None and not future.done():
                    future.set_result(message)
        except ConnectionClosed as error:
            reason = error
        finally:
            for future in self._pending.values():
                if not future.done():
                    future.set_exception(ConnectionError(str(reason)))


@asynccontextmanager
async def open_lean_client(url: str, device_id: str) -> AsyncGenerator[LeanClient]:
    """Connect and register, for the length of the block."""
    async with connect(url, compression=None, max_size=100 * 2**20, ping_interval=None) as websocket:
        client = LeanClient(websocket, device_id)
        receiver = asyncio.create_task(client.receive_all())
        try:
            await client.register()
            yield client
        finally:
            receiver.cancel()
            await asyncio.gather(receiver, return_exceptions=True)
