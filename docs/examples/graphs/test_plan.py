from branch import PLAN

from galaxy_trio import TaskFailed, open_constellation
from galaxy_trio.graph import open_graph
from galaxy_trio.testing import open_memory_fleet


async def session(task):
    if "store" in task.request.splitlines()[0]:
        raise TaskFailed("the disk is full")
    return {"gigabytes": 40}


async def test_archive_is_uploaded_if_it_cannot_be_stored(autojump_clock):
    async with open_memory_fleet("laptop", "desktop", session=session) as fleet:
        async with open_constellation(fleet.configs, connect=fleet.connect) as constellation:
            async with open_graph(constellation, PLAN) as run:
                result = await run.wait()
    assert {node_id: str(node.state) for node_id, node in result.results.items()} == {
        "pack": "completed",
        "space": "completed",
        "clean": "skipped",
        "store": "failed",
        "upload": "completed",
    }
