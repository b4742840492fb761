import trio

from galaxy_trio import open_constellation
from galaxy_trio.graph import Condition, Edge, Graph, Node, When, open_graph

PLAN = Graph(
    nodes=[
        Node("sum", 'add {"a": 2, "b": 0.5}', device="laptop"),
        Node("where", "where_am_i", retries=2),
        Node("list", "list_directory", capabilities={"files"}),
    ],
    edges=[
        Edge("where", "list"),
        Edge("sum", "list", When.CONDITION, condition=Condition("", "gt", 2)),  # only if the result is above 2
    ],
)


async def main() -> None:
    async with open_constellation("devices.toml") as constellation, open_graph(constellation, PLAN) as run:
        run.edit(lambda edit: edit.add(Node("check", 'add {"a": 1, "b": 1}'), after=["list"]))
        result = await run.wait()
        for node_id, node in result.results.items():
            print(f"{node_id} is {node.state} on {node.device_id}")


trio.run(main)
