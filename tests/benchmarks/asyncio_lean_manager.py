"""Tasks on many devices as cheaply as asyncio can: a queue and one worker per device, over one shared connection each.

It leaves out what the client that this package replaces does for each task besides: see asyncio_device_manager.py. Nothing stops a
task, there are no heartbeats, no events, no limits and no reconnecting.
"""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack, asynccontextmanager
from typing import TYPE_CHECKING, NamedTuple

from .asyncio_lean_client import LeanClient, open_lean_client

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Iterable

    from .asyncio_messages import ServerMessage


class _Queued(NamedTuple):
    """A task that waits for its device, and the future that its caller waits for."""

    request: str
    ended: asyncio.Future[ServerMessage]


class LeanManager:
    """Devices, each with its queue. Made by `open_lean_manager`."""

    def __init__(self, device_ids: Iterable[str]) -> None:
        self._queues: dict[str, asyncio.Queue[_Queued]] = {device_id: asyncio.Queue() for device_id in device_ids}

    async def run_task(self, device_id: str, request: str) -> ServerMessage:
        """Queue a task for a device, and wait for its end."""
        ended: asyncio.Future[ServerMessage] = asyncio.get_running_loop().create_future()
        self._queues[device_id].put_nowait(_Queued(request, ended))
        return await ended

    async def work(self, device_id: str, client: LeanClient) -> None:
        """Run a device's tasks, one after the other, until cancelled."""
        queue = self._queues[device_id]
        while True:
            queued = await queue.get()
            try:
                message = await client.run_task(queued.request)
            except (OSError, RuntimeError, TimeoutError) as error:
                if not queued.ended.done():
                    queued.ended.set_exception(error)
            else:
                if not queued.ended.done():
                    queued.ended.set_result(message)


@asynccontextmanager
async def open_lean_manager(url: str, device_ids: Iterable[str]) -> AsyncGenerator[LeanManager]:
    """Connect and register a client for each device, for the length of the block."""
    device_ids = tuple(device_ids)
    manager = LeanManager(device_ids)
    async with AsyncExitStack() as stack:
        clients = [await stack.enter_async_context(open_lean_client(url, device_id)) for device_id in device_ids]
        workers = [
            asyncio.create_task(manager.work(device_id, client))
            for device_id, client in zip(device_ids, clients, strict=True)
        ]
        try:
            yield manager
        finally:
            for worker in workers:
                worker.cancel()
            await asyncio.gather(*workers, return_exceptions=True)
