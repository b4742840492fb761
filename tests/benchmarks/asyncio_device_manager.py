"""Requests and tasks with the steps that the client which this package replaces takes for each of them.

Its pattern: a queue per device, one shared connection per device with one receiver, a future per request and per task. In detail:

- a task that finds its device busy waits for a future of the queue, and is run by an asyncio task of its own when its turn has come;
- before and after a task the device's status changes, and an event goes to all observers (there are none here);
- the wait for a reply is a coroutine under `asyncio.wait_for`, which runs it in another asyncio task;
- each message that comes in is handled in an asyncio task of its own;
- each step writes a log line, which is formatted whether or not it is logged.

The connection itself is as fast as that of asyncio_lean_client.py: no compression, no pings, no heartbeats.
"""

# Formatting the lines is what is measured here.
# ruff: noqa: G004

from __future__ import annotations

import asyncio
import itertools
import logging
import uuid
from collections import deque
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from enum import StrEnum
from typing import TYPE_CHECKING, Any

from websockets.asyncio.client import ClientConnection, connect

from .asyncio_messages import (
    ClientMessage,
    ClientMessageType,
    ClientType,
    ServerMessage,
    ServerMessageType,
    TaskStatus,
)

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Awaitable, Callable, Iterable

_logger = logging.getLogger(__name__)
_NAME = "reference"


class DeviceStatus(StrEnum):
    IDLE = "idle"
    BUSY = "busy"


@dataclass
class TaskRequest:
    task_id: str
    device_id: str
    request: str
    timeout: float


@dataclass
class ExecutionResult:
    task_id: str
    status: TaskStatus
    result: Any = None
    error: str | None = None
    metadata: dict[str, Any] = field(default_factory=dict[str, Any])


@dataclass
class StatusEvent:
    device_id: str
    status: DeviceStatus
    current_task: str | None


class Device:
    """A device, its connection, and the tasks that wait for it. Made by `open_device_manager`."""

    def __init__(self, device_id: str, websocket: ClientConnection) -> None:
        self.device_id = device_id
        self.status = DeviceStatus.IDLE
        self.current_task: str | None = None
        self.queue: deque[TaskRequest] = deque()
        self.queued: dict[str, asyncio.Future[ExecutionResult]] = {}
        self.pending: dict[str, asyncio.Future[ServerMessage]] = {}
        self.registered: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._websocket = websocket
        self._numbers = itertools.count(1)
        # The event loop keeps no task alive.
        self._tasks: set[asyncio.Task[None]] = set()

    def start(self, work: Awaitable[None]) -> None:
        """Run something in an asyncio task of its own."""

        async def run() -> None:
            await work

        task = asyncio.create_task(run())
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def send(self, message: ClientMessage) -> None:
        """Send a message as text."""
        await self._websocket.send(message.model_dump_json())

    def message(self, type: ClientMessageType, **fields: Any) -> ClientMessage:
        """A message of this client."""
        return ClientMessage(
            type=type,
            client_type=ClientType.CONSTELLATION,
            client_id=f"{_NAME}@{self.device_id}",
            target_id=self.device_id,
            timestamp=datetime.now(UTC).isoformat(),
            **fields,
        )

    async def device_info(self, timeout: float = 10.0) -> Any:
        """Ask the server what it knows about the device."""
        request_id = f"device_info_{self.device_id}_{next(self._numbers)}"
        future: asyncio.Future[ServerMessage] = asyncio.get_running_loop().create_future()
        self.pending[request_id] = future
        message = self.message(ClientMessageType.DEVICE_INFO_REQUEST, status=TaskStatus.OK, request_id=request_id)
        try:
            await self.send(message)
            _logger.debug(f"sent a device information request for {self.device_id}")
            reply = await asyncio.wait_for(future, timeout)
            _logger.info(f"received the device information of {self.device_id}")
            return reply.result
        finally:
            self.pending.pop(request_id, None)

    async def receive_all(self) -> None:
        """Receive until cancelled."""
        count = 0
        while True:
            text = await self._websocket.recv()
            count += 1
            _logger.debug(f"device {self.device_id}, message {count}: {text!r}")
            self.start(self._handle(ServerMessage.model_validate_json(text)))

    async def _handle(self, message: ServerMessage) -> None:
        _logger.debug(f"processing a {message.type} of device {self.device_id}")
        match message.type:
            case ServerMessageType.DEVICE_INFO_RESPONSE:
                self._complete(message.response_id, message)
            case ServerMessageType.TASK_END:
                self._complete(message.session_id, message)
                _logger.info(f"task {message.session_id} of device {self.device_id} ended with status {message.status}")
            case ServerMessageType.HEARTBEAT if not self.registered.done():
                self.registered.set_result(None)
            case _:
                pass

    def _complete(self, key: str | None, message: ServerMessage) -> None:
        future = self.pending.get(key or "")
        if future is not None and not future.done():
            future.set_result(message)
        _logger.debug(f"completed {key} with status {message.status}")


class DeviceManager:
    """Devices, each with its queue. Made by `open_device_manager`."""

    def __init__(self, devices: dict[str, Device]) -> None:
        self.devices = devices
        self._observers: list[Callable[[StatusEvent], Awaitable[None]]] = []

    async def run_task(self, device_id: str, request: str, timeout: float = 1000.0) -> ExecutionResult:
        """Run a task now, or queue it while the device is busy, and wait for its end."""
        device = self.devices[device_id]
        task = TaskRequest(str(uuid.uuid4()), device_id, request, timeout)
        if device.status is DeviceStatus.IDLE:
            return await self._execute(device, task)
        _logger.info(f"device {device_id} is busy: task {task.task_id} is queued")
        future: asyncio.Future[ExecutionResult] = asyncio.get_running_loop().create_future()
        device.queued[task.task_id] = future
        device.queue.append(task)
        _logger.info(f"task {task.task_id} was queued for device {device_id} ({len(device.queue)} wait)")
        return await future

    async def _execute(self, device: Device, task: TaskRequest) -> ExecutionResult:
        try:
            await self._set_status(device, DeviceStatus.BUSY, task.task_id)
            result = await self._send(device, task)
            future = device.queued.pop(task.task_id, None)
            if future is not None and not future.done():
                future.set_result(result)
                _logger.info(f"task {task.task_id} completed on device {device.device_id}")
            return result
        finally:
            await self._set_status(device, DeviceStatus.IDLE, None)
            if device.queue:
                following = device.queue.popleft()
                _logger.info(f"task {following.task_id} was dequeued for device {device.device_id}")
                device.status = DeviceStatus.BUSY
                device.start(self._execute_queued(device, following))

    async def _execute_queued(self, device: Device, task: TaskRequest) -> None:
        await self._execute(device, task)

    async def _send(self, device: Device, task: TaskRequest) -> ExecutionResult:
        session_id = f"{_NAME}@{task.task_id}"
        message = device.message(
            ClientMessageType.TASK,
            status=TaskStatus.CONTINUE,
            session_id=session_id,
            task_name=f"galaxy/{_NAME}/{task.task_id}",
            request=task.request,
        )
        _logger.info(f"sending task {task.task_id} to device {device.device_id}")
        await device.send(message)
        response = await asyncio.wait_for(self._wait_for(device, session_id), timeout=task.timeout)
        _logger.info(f"task {task.task_id} was answered with status {response.status}")
        metadata = {"device_id": device.device_id}
        return ExecutionResult(task.task_id, response.status, response.result, response.error, metadata)

    async def _wait_for(self, device: Device, session_id: str) -> ServerMessage:
        future: asyncio.Future[ServerMessage] = asyncio.get_running_loop().create_future()
        device.pending[session_id] = future
        _logger.debug(f"waiting for {session_id} of device {device.device_id}")
        try:
            return await future
        finally:
            device.pending.pop(session_id, None)

    async def _set_status(self, device: Device, status: DeviceStatus, task_id: str | None) -> None:
        device.status, device.current_task = status, task_id
        event = StatusEvent(device.device_id, status, task_id)
        if self._observers:
            await asyncio.gather(*(observer(event) for observer in self._observers))


@asynccontextmanager
async def open_device_manager(url: str, device_ids: Iterable[str]) -> AsyncGenerator[DeviceManager]:
    """Connect and register a client for each device, for the length of the block."""
    async with AsyncExitStack() as stack:
        devices: dict[str, Device] = {}
        receivers: list[asyncio.Task[None]] = []
        for device_id in device_ids:
            websocket = await stack.enter_async_context(
                connect(url, compression=None, max_size=100 * 2**20, ping_interval=None)
            )
            device = devices[device_id] = Device(device_id, websocket)
            receivers.append(asyncio.create_task(device.receive_all()))
            metadata = {"type": "constellation_client", "targeted_device_id": device_id}
            await device.send(device.message(ClientMessageType.REGISTER, status=TaskStatus.OK, metadata=metadata))
            await device.registered
        try:
            yield DeviceManager(devices)
        finally:
            for receiver in receivers:
                receiver.cancel()
            await asyncio.gather(*receivers, return_exceptions=True)
