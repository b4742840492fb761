"""Users of graphs, which submit, edit, cancel and retry them whatever happens to the daemons, and what they were promised."""

from __future__ import annotations

from collections import Counter, defaultdict
from typing import TYPE_CHECKING, Any, Final, Protocol

import attrs
import trio

from galaxy_trio._concurrency import wall_clock
from tests.daemon.support.graph_documents import states_in

if TYPE_CHECKING:
    from collections.abc import Callable
    from random import Random

    from tests.daemon.support.graph_documents import Documents, NodeWork

_RETRYABLE: Final = ("failed", "lost", "cancelled")


@attrs.frozen
class Reply:
    """A daemon's answer."""

    status: int
    body: dict[str, Any]


class Ask(Protocol):
    """Sends a request to any daemon once, and returns the answer; `None` if there is none, or the daemon could not do it."""

    async def __call__(
        self, random: Random, method: str, path: str, body: dict[str, Any] | None = None, *, key: str | None = None
    ) -> Reply | None:
        """See the class."""
        ...


class Attempts:
    """The attempts that the devices got.

    Attributes:
        begun: How often each task was begun, by its id.
        by_node: How many tasks each node had, by the name of its graph and its own.
        results: The result of each task that was done, by its id.
    """

    def __init__(self) -> None:
        self.begun: Counter[str] = Counter()
        self.by_node: Counter[str] = Counter()
        self.results: dict[str, dict[str, Any]] = {}

    def begin(self, task_id: str, work: NodeWork) -> bool:
        """Record that an attempt begins, and return whether it will fail."""
        self.begun[task_id] += 1
        self.by_node[work.name] += 1
        return self.by_node[work.name] <= work.failures

    def end(self, task_id: str, work: NodeWork) -> dict[str, Any]:
        """Record that an attempt was done, and return its result."""
        self.results[task_id] = {"node": work.name, "value": work.value}
        return self.results[task_id]


class GraphUsers:
    """Users of graphs. Each acts by itself; what they were promised is recorded for all.

    Attributes:
        ids: The id of each accepted graph, by its name, which is its idempotency key.
        changed: The nodes that users have asked to retry or to replace, each with the id of its graph first.
        accepted: The ids of new nodes whose edits were accepted, by the graph's id.
        refused: Those whose edits were refused.
        removing: The ids of nodes that edits were to remove, by the graph's id.
        cancelled: When the cancellation of a graph was over, by its id, unless it was changed after that.
        counts: What has happened, in numbers.
        broken: The promises that were seen to be broken.
    """

    def __init__(self, ask: Ask, make_documents: Callable[[Random], Documents], repeat_after: float) -> None:
        self._ask_once = ask
        self._make_documents = make_documents
        self._repeat_after = repeat_after
        self._documents: dict[str, dict[str, Any]] = {}
        self._versions = defaultdict[str, set[int]](set)
        # How many changes of each graph have begun, and how many of them are known to be over.
        self._begun: Counter[str] = Counter()
        self._over: Counter[str] = Counter()
        self.ids: dict[str, str] = {}
        self.changed: set[tuple[str, str]] = set()
        self.accepted = defaultdict[str, set[str]](set)
        self.refused = defaultdict[str, set[str]](set)
        self.removing = defaultdict[str, set[str]](set)
        self.cancelled: dict[str, float] = {}
        self.counts: Counter[str] = Counter()
        self.broken: list[str] = []

    async def be_user(self, number: int, random: Random, pause: float, stopped: Callable[[], bool]) -> None:
        """Submit graphs one after the other, and change any of those that were accepted, until `stopped` returns true.

        Args:
            number: Names the user.
            random: Decides what it does.
            pause: The longest pause before each request, in seconds.
            stopped: See above. It is called before each graph.
        """
        documents, made = self._make_documents(random), 0
        while not stopped():
            name, made = f"u{number}-{made}", made + 1
            self._documents[name] = documents.graph(name)
            await self._submit(random, name)
            for _ in range(random.randint(0, 4)):
                await trio.sleep(random.uniform(0, pause))
                await self._change(random, documents, random.choice([name, *self.ids]))
            await trio.sleep(random.uniform(0, pause))

    async def _ask(
        self, random: Random, method: str, path: str, body: dict[str, Any] | None = None, *, key: str | None = None
    ) -> Reply:
        """Repeat a request until it is answered."""
        while True:
            reply = await self._ask_once(random, method, path, body, key=key)
            if reply is not None:
                return reply
            await trio.sleep(self._repeat_after * random.uniform(0.5, 1))

    async def _submit(self, random: Random, name: str) -> None:
        """Submit a graph until it is accepted, sometimes twice at the same time."""
        async with trio.open_nursery() as nursery:
            for _ in range(random.choice([1, 1, 2])):
                nursery.start_soon(self._submit_once, random, name)

    async def _submit_once(self, random: Random, name: str) -> None:
        reply = await self._ask(random, "POST", "/graphs", self._documents[name], key=name)
        if reply.status not in (200, 202):
            self.broken.append(f"{name} was refused: {reply}")
        elif self.ids.setdefault(name, reply.body["id"]) != reply.body["id"]:
            self.broken.append(f"{name} was accepted twice: as {self.ids[name]}, and as {reply.body['id']}")

    async def _change(self, random: Random, documents: Documents, name: str) -> None:
        """Do something with an accepted graph."""
        match random.choice(["edit", "edit", "edit", "retry", "retry", "retry", "cancel node", "cancel", "repeat"]):
            case "edit":
                await self._edit(random, documents, name)
            case "retry":
                await self._retry(random, name)
            case "cancel node":
                node_id = random.choice(list(states_in(await self._shown(random, name))))
                reply = await self._ask(random, "POST", f"/graphs/{self.ids[name]}/nodes/{node_id}/cancel")
                self._expect(reply, f"the cancellation of {name}.{node_id}", 200, 404)
            case "cancel":
                await self._cancel(random, name)
            case _:
                await self._submit_once(random, name)

    async def _shown(self, random: Random, name: str) -> dict[str, Any]:
        reply = await self._ask(random, "GET", f"/graphs/{self.ids[name]}")
        self._expect(reply, f"{name}, which was accepted,", 200)
        return reply.body

    def _expect(self, reply: Reply, what: str, *statuses: int) -> None:
        if reply.status not in statuses:
            self.broken.append(f"{what} was answered with {reply}")

    async def _edit(self, random: Random, documents: Documents, name: str) -> None:
        """Edit a graph, sometimes twice at the same time: of one version, only one edit is accepted."""
        shown = await self._shown(random, name)
        async with trio.open_nursery() as nursery:
            for _ in range(random.choice([1, 2])):
                self.counts["edits"] += 1
                new_id = f"x{self.counts['edits']}"
                nursery.start_soon(self._edit_once, random, name, documents.edit(shown, new_id), new_id)

    async def _edit_once(self, random: Random, name: str, edit: dict[str, Any], new_id: str) -> None:
        graph_id, version = self.ids[name], edit["version"]
        self.removing[graph_id] |= set(edit.get("remove", ()))
        self.changed |= {(graph_id, node["id"]) for node in edit.get("replace", ())}
        reply = await self._change_once(random, "PATCH", f"/graphs/{graph_id}", edit)
        if reply is None:
            return
        self._expect(reply, f"edit {edit} of {name}", 200, 409, 422)
        if reply.status != 200:
            self.refused[graph_id].add(new_id)
            return
        self.counts["accepted edits"] += 1
        self.accepted[graph_id].add(new_id)
        if version in self._versions[graph_id] or reply.body["version"] != version + 1:
            self.broken.append(f"{name} was edited twice in version {version}: {reply}")
        self._versions[graph_id].add(version)

    async def _retry(self, random: Random, name: str) -> None:
        states = states_in(await self._shown(random, name))
        ended = [node_id for node_id, state in states.items() if state in _RETRYABLE]
        if not ended:
            return
        node_id = random.choice(ended)
        self.changed.add((self.ids[name], node_id))
        reply = await self._change_once(random, "POST", f"/graphs/{self.ids[name]}/nodes/{node_id}/retry")
        if reply is not None:
            self._expect(reply, f"the retry of {name}.{node_id}", 202, 409)
            self.counts["retries"] += reply.status == 202

    async def _change_once(
        self, random: Random, method: str, path: str, body: dict[str, Any] | None = None
    ) -> Reply | None:
        """Send what lets a graph go on after a cancellation. Without an answer, it may take place at any time."""
        graph_id = path.split("/")[2]
        self.cancelled.pop(graph_id, None)
        self._begun[graph_id] += 1
        reply = await self._ask_once(random, method, path, body)
        self._over[graph_id] += reply is not None
        return reply

    async def _cancel(self, random: Random, name: str) -> None:
        """Cancel a graph until it has ended. Nothing of it begins after that."""
        graph_id = self.ids[name]
        while True:
            changes = self._begun[graph_id]
            reply = await self._ask(random, "DELETE", f"/graphs/{graph_id}")
            if reply.status != 202:
                break
            await trio.sleep(self._repeat_after)
        self._expect(reply, f"the cancellation of {name}", 200)
        self.counts["cancellations"] += 1
        if changes == self._begun[graph_id] == self._over[graph_id]:
            self.cancelled[graph_id] = wall_clock.now().timestamp()
