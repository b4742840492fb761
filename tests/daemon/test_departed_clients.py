"""Clients that close their connection while they wait for a response."""

from __future__ import annotations

from contextlib import AsyncExitStack
from typing import TYPE_CHECKING

import pytest
import trio

from tests.daemon.support.daemon import open_daemon
from tests.support.waiting import until

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.daemon

_CLIENTS = 30
_HEAD = "HTTP/1.1\r\nHost: localhost\r\nContent-Length: 0\r\n\r\n"


@pytest.mark.parametrize("request_", ["GET /tasks/{task}?wait=300", "POST /devices/d9/reconnect"])
async def test_nothing_is_left_of_clients_that_leave_while_they_wait(request_: str, tmp_path: Path) -> None:
    def tasks() -> int:
        return trio.lowlevel.current_statistics().tasks_living

    async with open_daemon(tmp_path, "d1") as daemon:
        daemon.devices("d1", "d9")
        await daemon.reload()
        head = f"{request_.format(task=await daemon.submit('hold a'))} {_HEAD}".encode()
        before = tasks()
        async with AsyncExitStack() as waiting:
            for _ in range(_CLIENTS):
                stream = await waiting.enter_async_context(await trio.open_unix_socket(daemon.directory / "s"))
                await stream.send_all(head)
            # Each has a few tasks.
            await until(lambda: tasks() >= before + 3 * _CLIENTS)
        # The daemon's own tasks come and go.
        await until(lambda: tasks() < before + _CLIENTS)


async def test_task_goes_on_when_a_client_that_waits_for_it_leaves(tmp_path: Path) -> None:
    async with open_daemon(tmp_path, "d1") as daemon:
        task = await daemon.submit("hold a")
        async with await trio.open_unix_socket(daemon.directory / "s") as stream:
            await stream.send_all(f"GET /tasks/{task}?wait=300 {_HEAD}".encode())
        daemon.work.release("a")
        assert (await daemon.ended_task(task))["state"] == "completed"


async def test_wait_for_a_task_that_does_not_exist_is_refused(tmp_path: Path) -> None:
    async with open_daemon(tmp_path, "d1") as daemon:
        answer = await daemon.ask("GET", "/tasks/nothing?wait=300", 404)
        assert answer == {"error": "there is no task 'nothing'"}


async def test_long_page_of_tasks_is_sent_in_pieces(tmp_path: Path) -> None:
    async with open_daemon(tmp_path, "d1") as daemon:
        tasks = [await daemon.submit(f"echo {number} {'é' * 1_000}") for number in range(150)]
        for task in tasks:
            await daemon.ended_task(task)
        response = await daemon.client.get("/tasks", params={"limit": 149})
        assert response.headers["transfer-encoding"] == "chunked"
        assert [task["id"] for task in response.json()["tasks"]] == tasks[:0:-1]
        assert response.json()["before"] == tasks[1]
