import pytest
from app import run_twice_if_need_be

from galaxy_trio import open_constellation


@pytest.mark.devices("laptop")
async def test_a_server_that_is_killed_costs_a_second_try(memory_fleet, nursery, autojump_clock):
    async with open_constellation(memory_fleet.configs, connect=memory_fleet.connect) as constellation:
        async with constellation.subscribe() as events:
            nursery.start_soon(restart_when_busy, memory_fleet, events)
            assert await run_twice_if_need_be(constellation, "hello") == {"echo": "hello"}


async def restart_when_busy(memory_fleet, events):
    async for event in events:
        if type(event).__name__ == "TaskSubmitted":
            await memory_fleet.kill_server()
            await memory_fleet.start_server()
            return
