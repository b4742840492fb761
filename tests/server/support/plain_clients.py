"""Clients with short messages, for tests near the limits."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, TypeAlias

import trio

from tests.server.support.raw_client import Members, RawClient, open_raw_client

if TYPE_CHECKING:
    from galaxy_trio.server import ServerTask

Register: TypeAlias = Callable[[RawClient], Awaitable[None]]
Ends: TypeAlias = list[tuple[list[Members], int]]
"""Each client's messages after its registration, and the close code."""


async def register_plain_device(client: RawClient, hostname: str = "edge-1") -> None:
    info = {"device_id": "device_001", "platform": "linux", "hostname": hostname}
    client.send(type="register", status="ok", client_id="device_001", metadata={"system_info": info})
    assert (await client.receive())["type"] == "heartbeat"


async def register_plain_constellation(client: RawClient) -> None:
    client.send(
        type="register",
        status="ok",
        client_type="constellation",
        client_id="demo@device_001",
        target_id="device_001",
    )
    assert (await client.receive())["type"] == "heartbeat"


def submit_plain(client: RawClient, session_id: str, request: str = "do it") -> None:
    client.send(
        type="task",
        status="continue",
        client_type="constellation",
        target_id="device_001",
        session_id=session_id,
        request=request,
    )


def request_information(client: RawClient) -> None:
    client.send(
        type="device_info_request",
        status="ok",
        client_type="constellation",
        target_id="device_001",
        request_id="q",
    )


async def check_alive(device: RawClient) -> None:
    device.send(type="heartbeat", status="ok")
    assert (await device.receive())["type"] == "heartbeat"


async def run_forever(task: ServerTask) -> object:
    await trio.sleep_forever()


async def stay_until_closed(
    stream: trio.abc.Stream, register: Register, ends: Ends, *, task_status: trio.TaskStatus[RawClient]
) -> None:
    """Run a client until the server ends the connection."""
    async with open_raw_client(stream) as client:
        await register(client)
        task_status.started(client)
        ends.append(await client.receive_until_ended(100))
