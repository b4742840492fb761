import trio

from galaxy_trio import Constellation, open_constellation
from galaxy_trio.graph import Graph, GraphEnded, Node, NodeEnded, NodeRetried, NodeStarted, open_graph

UPLOAD = 'upload {"name": "photos.zip"}'


async def fail(constellation: Constellation) -> None:
    async with open_graph(constellation, Graph([Node("upload", UPLOAD, device="laptop")])) as run:
        result = await run.wait()
        print(f"{result.state}: {result.results['upload'].error}")
        run.retry("upload")
        result = await run.wait()
        print(f"{result.state}: {result.results['upload'].result}")


async def retry(constellation: Constellation) -> None:
    plan = Graph([Node("upload", UPLOAD, device="laptop", retries=2)])
    async with open_graph(constellation, plan) as run, run.subscribe() as events:
        async for event in events:
            match event:
                case NodeStarted():
                    print(f"attempt {event.attempt} of {event.node_id} starts")
                case NodeRetried():
                    print(f"attempt {event.attempt} failed: {event.error}")
                case NodeEnded():
                    print(f"{event.node_id} is {event.state}")
                case GraphEnded():
                    return
                case _:
                    pass


async def main() -> None:
    async with open_constellation("devices.toml") as constellation:
        await fail(constellation)
        await retry(constellation)


trio.run(main)
