import trio

from galaxy_trio import open_constellation
from galaxy_trio.errors import NotEditable, VersionConflict
from galaxy_trio.graph import Change, Edge, Graph, GraphRun, GraphSnapshot, Node, open_graph
from galaxy_trio.server import ServerTask
from galaxy_trio.testing import open_memory_fleet, run


async def session(task: ServerTask) -> str:
    await trio.sleep(10)
    return "done"


PLAN = Graph(
    nodes=[Node("fetch", "fetch"), Node("merge", "merge"), Node("mail", "mail"), Node("print", "print")],
    edges=[Edge("fetch", "merge"), Edge("merge", "mail"), Edge("merge", "print")],
)


async def decide(snapshot: GraphSnapshot) -> Change:
    await trio.sleep(3)  # A person or a model thinks about the snapshot.
    return lambda edit: edit.replace(Node("mail", f"mail, after {len(snapshot.graph.nodes) - 1} other nodes"))


async def review(graph_run: GraphRun) -> None:
    while True:
        snapshot = graph_run.snapshot()
        change = await decide(snapshot)
        try:
            print("version", graph_run.edit(change, version=snapshot.version), "by the reviewer")
        except VersionConflict as error:
            print("VersionConflict:", error)
        else:
            return


async def add_check(graph_run: GraphRun) -> None:
    await trio.sleep(1)
    print("version", graph_run.edit(lambda edit: edit.add(Node("check", "check"), after=["fetch"])), "by another task")


async def approve(graph_run: GraphRun) -> None:
    with graph_run.hold("mail"):
        await trio.sleep(60)  # Everything else goes on.
        print({node_id: str(state) for node_id, state in graph_run.states.items()})


async def main() -> None:
    async with (
        open_memory_fleet("laptop", "desktop", session=session) as fleet,
        open_constellation(fleet.configs, connect=fleet.connect) as constellation,
        open_graph(constellation, PLAN) as graph_run,
    ):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(review, graph_run)
            nursery.start_soon(add_check, graph_run)
            nursery.start_soon(approve, graph_run)
        try:
            graph_run.edit(lambda edit: edit.remove("merge"))
        except NotEditable as error:
            print("NotEditable:", error)
        print((await graph_run.wait()).state)


run(main)
