from galaxy_trio import open_constellation
from galaxy_trio.graph import Condition, Edge, Graph, Node, When, open_graph
from galaxy_trio.messages import JSON
from galaxy_trio.server import ServerTask
from galaxy_trio.testing import open_memory_fleet, run

RESULT: JSON = {"exit_code": 0, "version": "2.10", "files": [{"name": "a.txt"}], "error": None}


async def session(task: ServerTask) -> JSON:
    return RESULT


CONDITIONS = {
    "exit_code is 0": Condition("/exit_code", "eq", 0),
    "exit_code is false": Condition("/exit_code", "eq", False),
    "exit_code is 0 or 3": Condition("/exit_code", "in", [0, 3]),
    "exit_code is less than '1'": Condition("/exit_code", "lt", "1"),
    "version is at least '2.9'": Condition("/version", "ge", "2.9"),
    "first file is a.txt": Condition("/files/0/name", "eq", "a.txt"),
    "there is a second file": Condition("/files/1", "exists"),
    "second file is not b.txt": Condition("/files/1/name", "ne", "b.txt"),
    "there is an error": Condition("/error", "exists"),
    "the error says something": Condition("/error", "truthy"),
    "there are files": lambda result: len(result["files"]) > 0,
}

PLAN = Graph(
    nodes=[Node("check", "check"), *(Node(name, "go on") for name in CONDITIONS)],
    edges=[Edge("check", name, When.CONDITION, condition=condition) for name, condition in CONDITIONS.items()],
)


async def main() -> None:
    async with (
        open_memory_fleet("laptop", session=session) as fleet,
        open_constellation(fleet.configs, connect=fleet.connect) as constellation,
        open_graph(constellation, PLAN) as graph_run,
    ):
        result = await graph_run.wait()
    for name in CONDITIONS:
        print(f"{name}: {result.results[name].state}")


run(main)
