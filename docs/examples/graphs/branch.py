import trio

from galaxy_trio import open_constellation
from galaxy_trio.graph import Condition, Edge, Graph, Node, When, open_graph

PLAN = Graph(
    nodes=[
        Node("pack", 'pack {"folder": "photos"}', device="laptop"),
        Node("space", "free_space", device="desktop"),
        Node("clean", "clean_up", device="desktop"),
        Node("store", 'store {"name": "photos.zip"}', device="desktop"),
        Node("upload", 'upload {"name": "photos.zip"}', device="laptop", retries=2),
    ],
    edges=[
        # Only if there is little space.
        Edge("space", "clean", When.CONDITION, condition=Condition("/gigabytes", "lt", 10)),
        # After `clean` has ended in any way: it may be skipped.
        Edge("clean", "store", When.END),
        # After success, which is the default.
        Edge("pack", "store"),
        # Only if the archive could not be stored.
        Edge("store", "upload", When.FAILURE),
    ],
)


async def main() -> None:
    async with open_constellation("devices.toml") as constellation, open_graph(constellation, PLAN) as run:
        result = await run.wait()
    print(result.state)
    for node_id, node in result.results.items():
        print(f"{node_id} is {node.state}")


if __name__ == "__main__":
    trio.run(main)
