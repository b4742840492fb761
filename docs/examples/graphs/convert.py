from galaxy_trio.graph import read_graph, write_graph

snapshot = read_graph("original.json")
for node in snapshot.graph.nodes:
    device = node.device or node.os or "any device"
    print(f"{node.id} is {snapshot.node(node.id).state}: {device}, priority {node.priority}, {node.retries} retries")
for edge in snapshot.graph.edges:
    print(f"{edge.target} runs after {edge.source}: {edge.when}")
write_graph("converted.json", snapshot)
