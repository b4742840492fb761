import trio

from galaxy_trio import open_constellation
from galaxy_trio.graph import Edge, Graph, Node, open_graph

PLAN = Graph(
    nodes=[
        Node("pack", 'pack {"folder": "photos"}', device="laptop"),
        Node("space", "free_space", device="desktop"),
        Node("store", 'store {"name": "photos.zip"}', device="desktop"),
    ],
    edges=[Edge("pack", "store"), Edge("space", "store")],
)


async def main() -> None:
    async with open_constellation("devices.toml") as constellation, open_graph(constellation, PLAN) as run:
        result = await run.wait()
    print(result.state)
    for node_id, node in result.results.items():
        print(f"{node_id} on {node.device_id}: {node.result}")


trio.run(main)
