"""Graphs and edits of them, made by chance, for users of daemons that are killed or simulated."""

from __future__ import annotations

from collections.abc import Sequence  # attrs reads annotations at run time
from itertools import combinations, pairwise
from random import Random  # attrs reads annotations at run time
from typing import TYPE_CHECKING, Any, Final

import attrs

if TYPE_CHECKING:
    from galaxy_trio.messages import JSON

_TASK: Final = "Task Description: "
"""The beginning of the text of a node with nodes before it."""
_EDITABLE: Final = ("waiting", "ready")


@attrs.frozen
class NodeWork:
    """What the request of a node says: ``NODE SECONDS VALUE FAILURES``.

    Attributes:
        name: The name of its graph and its own.
        seconds: How long its device works.
        value: A member of its result, about which conditions are.
        failures: The number of attempts that fail before one does not.
    """

    name: str
    seconds: float
    value: int
    failures: int

    def __str__(self) -> str:
        return f"{self.name} {self.seconds:.3f} {self.value} {self.failures}"


def read_work(request: str) -> NodeWork | None:
    """Read the text of a task; `None` if it is not that of a node."""
    words = request.partition("\n")[0].removeprefix(_TASK).split(" ")
    if len(words) != 4:
        return None
    return NodeWork(words[0], float(words[1]), int(words[2]), int(words[3]))


@attrs.frozen
class Documents:
    """Makes graphs and edits.

    Attributes:
        random: Decides everything.
        devices: The devices that nodes may name.
        seconds: The longest work of a node.
        backoff: The longest backoff of a node.
    """

    random: Random
    devices: Sequence[str]
    seconds: float
    backoff: float

    def node(self, graph: str, node_id: str) -> dict[str, JSON]:
        """Make a node."""
        random = self.random
        failures = random.choice([0, 0, 0, 1, 1, 2, 9])
        seconds = random.choice([0.0, 0.3, 1.0]) * random.random() * self.seconds
        work = NodeWork(f"{graph}.{node_id}", seconds, random.randrange(10), failures)
        node: dict[str, JSON] = {"id": node_id, "request": str(work)}
        if random.random() < 0.5:
            node["device"] = random.choice(self.devices)
        if random.random() < 0.7:
            node |= {"retries": random.randint(1, 3), "backoff": random.choice([0.0, self.backoff])}
            node["retry_lost"] = random.random() < 0.6
        return node

    def _edge(self, source: str, target: str) -> dict[str, JSON]:
        random = self.random
        edge: dict[str, JSON] = {"source": source, "target": target}
        when = random.choice(["success"] * 5 + ["end"] * 3 + ["failure", "condition", "condition"])
        if when != "success":
            edge["when"] = when
        if when == "condition":
            edge["condition"] = {
                "at": "/value",
                "is": random.choice(["eq", "lt", "ge"]),
                "value": random.randrange(10),
            }
        return edge

    def graph(self, name: str) -> dict[str, JSON]:
        """Make a graph: a chain, a fan with a join, or any."""
        random, count = self.random, self.random.randint(1, 9)
        ids = [f"n{number}" for number in range(count)]
        match random.choice(["chain", "fan", "any", "any"]):
            case "chain":
                pairs = list(pairwise(ids))
            case "fan":
                inner = ids[1:-1]
                pairs = [(ids[0], node) for node in inner] + [(node, ids[-1]) for node in inner]
            case _:
                pairs = [pair for pair in combinations(ids, 2) if random.random() < 2 / count]
        nodes: list[JSON] = [self.node(name, node_id) for node_id in ids]
        edges: list[JSON] = [self._edge(*pair) for pair in pairs]
        return {"name": name, "nodes": nodes, "edges": edges}

    def edit(self, shown: dict[str, Any], new_id: str) -> dict[str, Any]:
        """Make an edit of a graph as a daemon shows it, which adds a node, and may change, remove and disconnect others."""
        random, graph = self.random, shown["graph"]
        states = states_in(shown)
        ids = list(states)
        editable = [node_id for node_id in ids if states[node_id] in _EDITABLE]
        edit: dict[str, Any] = {"version": shown["version"], "add": [self.node(shown["name"], new_id)]}
        removed = {random.choice(editable)} if editable and random.random() < 0.2 else set[str]()
        left = [node_id for node_id in ids if node_id not in removed]
        sources = random.sample(left, min(len(left), random.randint(0, 2)))
        # Nodes that have ended, and after which others wait for more.
        joined = [
            edge["source"]
            for edge in graph["edges"]
            if states[edge["source"]] not in (*_EDITABLE, "running") and states[edge["target"]] == "waiting"
        ]
        if joined:
            sources.append(random.choice(joined))
        edit["connect"] = [self._edge(source, new_id) for source in sources]
        if removed:
            edit["remove"] = sorted(removed)
        # A target that comes before a source makes a cycle, which is refused.
        targets = [node_id for node_id in editable if node_id not in removed]
        if targets and random.random() < 0.4:
            edit["connect"].append(self._edge(new_id, random.choice(targets)))
        if targets and random.random() < 0.4:
            queued = [node_id for node_id in targets if states[node_id] == "ready"]
            edit["replace"] = [self.node(shown["name"], random.choice(queued or targets))]
        edges = [edge for edge in graph["edges"] if edge["target"] in targets and edge["source"] not in removed]
        if edges and random.random() < 0.2:
            edge = random.choice(edges)
            edit["disconnect"] = [{"source": edge["source"], "target": edge["target"]}]
        return edit


def states_in(shown: dict[str, Any]) -> dict[str, str]:
    """The state of each node of a graph as a daemon shows it."""
    results = shown["graph"].get("results", {})
    return {node["id"]: results.get(node["id"], {}).get("state", "waiting") for node in shown["graph"]["nodes"]}
