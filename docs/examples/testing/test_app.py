import pytest
from app import run_with_retry

from galaxy_trio import open_constellation


@pytest.mark.devices("laptop")
async def test_task_is_retried_after_server_is_killed(memory_fleet, nursery, autojump_clock):
    async with open_constellation(memory_fleet.configs, connect=memory_fleet.connect) as constellation:
        async with constellation.subscribe() as events:
            nursery.start_soon(restart_when_busy, memory_fleet, events)
            assert await run_with_retry(constellation, "hello") == {"echo": "hello"}


async def restart_when_busy(memory_fleet, events):
    async for event in events:
        if type(event).__name__ == "TaskSubmitted":
            await memory_fleet.kill_server()
            await memory_fleet.start_server()
            return
