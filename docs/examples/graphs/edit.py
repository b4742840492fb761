import trio
from branch import PLAN

from galaxy_trio import open_constellation
from galaxy_trio.errors import NotEditable
from galaxy_trio.graph import Edge, GraphEdit, GraphEnded, Node, NodeEnded, NodeStarted, open_graph


def verify_first(edit: GraphEdit) -> None:
    edit.add(Node("verify", 'verify {"name": "photos.zip"}', device="laptop"), after=["pack"])
    edit.connect(Edge("verify", "store"))


async def main() -> None:
    async with (
        open_constellation("devices.toml") as constellation,
        open_graph(constellation, PLAN) as run,
        run.subscribe() as events,
    ):
        async for event in events:
            match event:
                case NodeStarted(node_id="pack"):
                    print(f"the graph has version {run.edit(verify_first)} now")
                    try:
                        run.edit(lambda edit: edit.remove("pack"))
                    except NotEditable as error:
                        print("NotEditable:", error)
                case NodeEnded():
                    print(f"{event.node_id} is {event.state}")
                case GraphEnded():
                    break
                case _:
                    pass


trio.run(main)
