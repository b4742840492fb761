"""A server in memory with clients of both roles, for tests of the server."""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import attrs

from galaxy_trio.testing import MemoryServer, open_memory_server
from tests.server.support.raw_client import Members, RawClient, open_raw_client

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Awaitable, Callable

    import trio

    from galaxy_trio.server import ServerLimits, ServerTask

DEVICE, CONSTELLATION = "device_001", "demo@device_001"


async def echo_session(task: ServerTask) -> object:
    """A session function that returns the request."""
    return task.request


@attrs.frozen
class Cast:
    """A server with a device and a constellation."""

    server: MemoryServer
    device: RawClient
    constellation: RawClient

    async def clients_are_well(self) -> None:
        """Check that both clients are connected and get a reply to a heartbeat."""
        self.device.send(type="heartbeat", status="ok")
        self.constellation.send(type="heartbeat", status="ok", client_type="constellation")
        for client in (self.device, self.constellation):
            assert (await client.receive())["type"] == "heartbeat"


async def register_device(client: RawClient, name: str = DEVICE, **system_info: object) -> None:
    """Register a device."""
    information = {"device_id": name, "platform": "linux", **system_info}
    client.send(
        type="register", status="ok", client_id=name, metadata={"platform": "linux", "system_info": information}
    )
    assert (await client.receive())["type"] == "heartbeat"


async def register_constellation(client: RawClient, name: str = CONSTELLATION, target: str | None = DEVICE) -> None:
    """Register a constellation for a device."""
    client.send(type="register", status="ok", client_type="constellation", client_id=name, target_id=target)
    assert (await client.receive())["type"] == "heartbeat"


@asynccontextmanager
async def open_cast(
    session: Callable[[ServerTask], Awaitable[object]] = echo_session, limits: ServerLimits | None = None
) -> AsyncGenerator[Cast]:
    """Open a server and register a device and a constellation for it."""
    async with (
        open_memory_server(session=session, limits=limits) as server,
        open_raw_client(server.connect()) as device,
        open_raw_client(server.connect()) as constellation,
    ):
        await register_device(device)
        await register_constellation(constellation)
        yield Cast(server, device, constellation)


def submit(client: RawClient, session_id: str, request: str = "", target: str = DEVICE) -> None:
    """Submit a task; does not wait for the reply."""
    client.send(
        type="task",
        status="continue",
        client_type="constellation",
        session_id=session_id,
        task_name=f"galaxy/{session_id}",
        target_id=target,
        request=request,
    )


async def start_task(client: RawClient, session_id: str, request: str = "", target: str = DEVICE) -> None:
    """Submit a task and expect its acknowledgement."""
    submit(client, session_id, request, target)
    accepted = await client.receive()
    assert (accepted["type"], accepted["session_id"]) == ("heartbeat", session_id)


async def end_of(client: RawClient, session_id: str) -> tuple[object, object, object]:
    """Expect a task's end as the next message, and return its status, result and error."""
    end = await client.receive()
    assert (end["type"], end["session_id"]) == ("task_end", session_id)
    return end["status"], end.get("result"), end.get("error")


async def wait_for(gate: trio.Event, task: ServerTask) -> object:
    """A session function that waits for an event."""
    await gate.wait()
    return task.request


def answer(client: RawClient, command: Members, *results: Members, **members: object) -> None:
    """Send a device's results for a batch of commands."""
    client.send(
        **{
            "type": "command_results",
            "status": "continue",
            "session_id": command["session_id"],
            "prev_response_id": command["response_id"],
            "action_results": list(results),
            **members,
        }
    )
