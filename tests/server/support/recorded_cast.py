"""A server in memory with the clients of the recordings."""

from __future__ import annotations

import json
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import attrs
import trio

from galaxy_trio import TaskFailed
from galaxy_trio.agent import open_device_connection
from galaxy_trio.messages import DeviceInfo, Platform
from galaxy_trio.server import ServerLimits, ServerTask
from galaxy_trio.testing import open_memory_server
from tests.connection.support.recordings import text_frames
from tests.server.support.raw_client import Members, RawClient, open_raw_client
from tests.server.support.server_cast import CONSTELLATION, DEVICE, Cast

if TYPE_CHECKING:
    import ssl
    from collections.abc import AsyncGenerator, Awaitable, Callable

    from galaxy_trio.server import Server


DEVICE_REGISTRATION, _, CONSTELLATION_REGISTRATION, _ = text_frames("registration_ok")


async def recorded_session(task: ServerTask) -> object:
    """Run the requests of the recordings."""
    kind, _, argument = task.request.partition(":")
    match kind:
        case "echo":
            return {"echo": argument}
        case "fail":
            raise RuntimeError(argument)
        case "err":
            raise TaskFailed("", result={"failure": "session ended with an error"})
        case _:
            await trio.sleep(float(argument))
            return {"slept": argument}


async def register(client: RawClient, text: str) -> None:
    """Send a registration and expect its confirmation."""
    client.send_text(text)
    assert (await client.receive())["type"] == "heartbeat"


def device_registration(name: str = DEVICE, **system_info: object) -> str:
    """The text of a device's registration."""
    metadata = {"platform": "linux", "system_info": {"device_id": name, "platform": "linux", **system_info}}
    return json.dumps({"type": "register", "status": "ok", "client_id": name, "metadata": metadata})


def constellation_registration(name: str = CONSTELLATION, target: str | None = DEVICE) -> str:
    """The text of a constellation's registration."""
    registration = {"type": "register", "status": "ok", "client_type": "constellation"}
    return json.dumps({**registration, "client_id": name, "target_id": target})


@asynccontextmanager
async def open_cast(
    session: Callable[[ServerTask], Awaitable[object]] = recorded_session, limits: ServerLimits | None = None
) -> AsyncGenerator[Cast]:
    """Open a server and register the two clients of the recordings."""
    async with (
        open_memory_server(session=session, limits=limits) as server,
        open_raw_client(server.connect()) as device,
        open_raw_client(server.connect()) as constellation,
    ):
        await register(device, DEVICE_REGISTRATION.text)
        await register(constellation, CONSTELLATION_REGISTRATION.text)
        yield Cast(server, device, constellation)


def submit(client: RawClient, session_id: str, request: str = "echo:x", target: str = DEVICE) -> None:
    """Submit a task without a name; does not wait for the reply."""
    client.send(
        type="task",
        status="continue",
        client_type="constellation",
        session_id=session_id,
        target_id=target,
        request=request,
    )


async def expect_acknowledgement(client: RawClient, session_id: str) -> None:
    """Expect a task's acknowledgement as the next message."""
    accepted = await client.receive()
    assert (accepted["type"], accepted["session_id"]) == ("heartbeat", session_id)


def error_text(message: Members) -> str:
    """Check that a message is an error, and return its text."""
    assert (message["type"], message["status"]) == ("error", "error")
    assert "session_id" not in message
    return str(message["error"])


async def sleep_forever(task: ServerTask) -> None:
    """A session function that runs until it is cancelled."""
    await trio.sleep_forever()


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
        return task.request


async def device_can_register(server: Server, *, token: str | None, context: ssl.SSLContext | None = None) -> bool:
    """Whether a device can register over a socket."""
    system_info = DeviceInfo(DEVICE, Platform.LINUX)
    with trio.fail_after(60):
        async with open_device_connection(
            server.url, DEVICE, token=token, system_info=system_info, ssl_context=context
        ):
            return server.devices == [DEVICE]
