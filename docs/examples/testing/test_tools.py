from galaxy_trio import open_constellation
from galaxy_trio.messages import Command, ToolType
from galaxy_trio.testing import Conditions, Network, open_memory_fleet


async def add(a: int, b: int) -> int:
    return a + b


async def session(task):
    [result] = await task.execute([Command("add", ToolType.ACTION, {"a": 1, "b": int(task.request)})])
    return result.result


async def test_tool_runs_over_a_slow_network(autojump_clock):
    network = Network(seed=1, conditions=Conditions(latency=0.3, bandwidth=10_000))
    async with open_memory_fleet(session=session, network=network) as fleet:
        await fleet.start_device("laptop", [add], features=["arithmetic"])
        async with open_constellation(fleet.configs, connect=fleet.connect) as constellation:
            assert (await constellation.run_task("2", capabilities={"arithmetic"})).unwrap() == 3
