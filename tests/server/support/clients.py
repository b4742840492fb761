"""A server in memory with clients of both roles, for tests of the server."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, TypeAlias

import attrs
import trio

from galaxy_trio.agent import open_device_connection
from galaxy_trio.messages import DeviceInfo, Platform
from galaxy_trio.server import ServerTask
from galaxy_trio.testing import MemoryServer, open_memory_server
from tests.server.support.raw_client import Members, RawClient, open_raw_client

if TYPE_CHECKING:
    import ssl
    from collections.abc import AsyncGenerator

    from galaxy_trio.server import Server, ServerLimits

Register: TypeAlias = Callable[[RawClient], Awaitable[None]]
Ends: TypeAlias = list[tuple[list[Members], int]]
"""Each client's messages after its registration, and the close code."""

DEVICE, CONSTELLATION = "device_001", "demo@device_001"


async def echo_session(task: ServerTask) -> object:
    """A session function that returns the request."""
    return task.request


async def run_forever(task: ServerTask) -> None:
    """A session function that runs until it is cancelled."""
    await trio.sleep_forever()


async def wait_for(gate: trio.Event, task: ServerTask) -> object:
    """A session function that waits for an event."""
    await gate.wait()
    return task.request


@attrs.define
class RecordingSessions:
    """A session function that runs until it is cancelled or released, and records its calls."""

    started: list[ServerTask] = attrs.field(factory=list[ServerTask])
    cancelled: list[str] = attrs.field(factory=list[str])
    released: trio.Event = attrs.field(factory=trio.Event)

    async def run(self, task: ServerTask) -> object:
        """The session function."""
        self.started.append(task)
        try:
            await self.released.wait()
        except trio.Cancelled:
            self.cancelled.append(task.session_id)
            raise
        return "released"


@attrs.frozen
class Clients:
    """A device and a constellation, and their server."""

    server: MemoryServer
    device: RawClient
    constellation: RawClient

    async def check(self) -> None:
        """Check that both clients get a reply to a heartbeat and have received nothing else."""
        self.device.send(type="heartbeat", status="ok")
        self.constellation.send(type="heartbeat", status="ok", client_type="constellation")
        for client in (self.device, self.constellation):
            reply = await client.receive()
            assert (reply["type"], reply["status"], reply.get("session_id")) == ("heartbeat", "ok", None)


@asynccontextmanager
async def open_clients(
    session: Callable[[ServerTask], Awaitable[object]] = echo_session, limits: ServerLimits | None = None
) -> AsyncGenerator[Clients]:
    """Open a server and register a device and a constellation for it."""
    async with (
        open_memory_server(session=session, limits=limits) as server,
        open_raw_client(server.connect()) as device,
        open_raw_client(server.connect()) as constellation,
    ):
        await register_device(device)
        await register_constellation(constellation)
        yield Clients(server, device, constellation)


async def register(client: RawClient, **members: object) -> None:
    """Send a registration with these members and expect its confirmation."""
    client.send(type="register", status="ok", **members)
    assert (await client.receive())["type"] == "heartbeat"


async def register_device(client: RawClient, name: str = DEVICE, **system_info: object) -> None:
    """Register a device."""
    information = {"device_id": name, "platform": "linux", **system_info}
    await register(client, client_id=name, metadata={"platform": "linux", "system_info": information})


async def register_constellation(client: RawClient, name: str = CONSTELLATION, target: str | None = DEVICE) -> None:
    """Register a constellation for a device."""
    await register(client, client_type="constellation", client_id=name, target_id=target)


async def stay_until_closed(
    stream: trio.abc.Stream, register_client: Register, ends: Ends, *, task_status: trio.TaskStatus[RawClient]
) -> None:
    """Run a client until the server ends the connection."""
    async with open_raw_client(stream) as client:
        await register_client(client)
        task_status.started(client)
        ends.append(await client.receive_until_ended(100))


async def device_can_register(server: Server, *, token: str | None, context: ssl.SSLContext | None = None) -> bool:
    """Whether a device can register over a socket."""
    system_info = DeviceInfo(DEVICE, Platform.LINUX)
    with trio.fail_after(60):
        async with open_device_connection(
            server.url, DEVICE, token=token, system_info=system_info, ssl_context=context
        ):
            return server.devices == [DEVICE]


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


async def expect_acknowledgement(client: RawClient, session_id: str) -> None:
    """Expect a task's acknowledgement as the next message."""
    accepted = await client.receive()
    assert (accepted["type"], accepted["session_id"]) == ("heartbeat", session_id)


async def start_task(client: RawClient, session_id: str, request: str = "", target: str = DEVICE) -> None:
    """Submit a task and expect its acknowledgement."""
    submit(client, session_id, request, target)
    await expect_acknowledgement(client, session_id)


async def end_of(client: RawClient, session_id: str) -> tuple[object, object, object]:
    """Expect a task's end as the next message, and return its status, result and error."""
    end = await client.receive()
    assert (end["type"], end["session_id"]) == ("task_end", session_id)
    return end["status"], end.get("result"), end.get("error")


def request_information(client: RawClient, request_id: str = "q", target: str | None = DEVICE) -> None:
    """Request a device's information; does not wait for the reply."""
    client.send(
        type="device_info_request",
        status="ok",
        client_type="constellation",
        target_id=target,
        request_id=request_id,
    )


async def check_alive(device: RawClient) -> None:
    """Check that a device gets a reply to a heartbeat as the next message."""
    device.send(type="heartbeat", status="ok")
    assert (await device.receive())["type"] == "heartbeat"


def error_text(message: Members) -> str:
    """Check that a message is an error, and return its text."""
    assert (message["type"], message["status"]) == ("error", "error")
    assert "session_id" not in message
    return str(message["error"])


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
