"""Waits for the end of a task of the daemon, with all its attempts, and prints it."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Final
from urllib.parse import quote

from galaxy_trio._cli.daemon_reading import MAX_RESULT, is_id, unreadable
from galaxy_trio._cli.loaded_graph import parse_graph
from galaxy_trio._cli.terminal import echo_json, echo_result, spinner
from galaxy_trio._printable import one_line
from galaxy_trio.errors import RequestTimeout, TaskFailed
from galaxy_trio.graph import NodeResult, NodeState

if TYPE_CHECKING:
    from galaxy_trio._cli.daemon_client import DaemonClient
    from galaxy_trio.messages import JSON

LONGEST_WAIT: Final = 45.0
"""Seconds that one request waits at the daemon: less than the 60 s after which proxies usually end it."""
_ENDED: Final = {"completed": "completed", "failed": "failed", "cancelled": "was cancelled", "lost": "was lost"}
_MAY_REPEAT: Final = ("failed", "lost")
_PAUSE: Final = 1.0
"""The least time in seconds between two questions for a task."""
_MAX_REASON: Final = 1_000
"""Characters of the reason that is given for a task that did not complete."""


def path_of(task_id: str) -> str:
    """The path of a task in the daemon's HTTP interface."""
    return f"/tasks/{quote(task_id, safe='')}"


def wait_for_end(client: DaemonClient, task_id: str, timeout: float | None = None) -> dict[str, JSON]:
    """Wait until a task has ended, and will not be tried again. Returns its last attempt, with the result.

    Raises:
        RequestTimeout: It has not ended after `timeout` seconds.
        InvalidMessage: What the daemon says of it cannot be read.
    """
    with spinner(f"task {task_id}"):
        deadline = None if timeout is None else time.monotonic() + timeout
        attempt_id = task_id
        while True:
            asked = time.monotonic()
            left = LONGEST_WAIT if deadline is None else min(LONGEST_WAIT, max(0.0, deadline - asked))
            task = client.request("GET", path_of(attempt_id), params={"wait": round(left, 3)})
            following = _attempt_after(client, task)
            if following is None and task["state"] in _ENDED:
                if "result" not in task and task.get("result_url"):
                    task["result"] = client.get_json(str(task["result_url"]), limit=MAX_RESULT)
                return task
            if deadline is not None and time.monotonic() >= deadline:
                raise RequestTimeout(f"task {task_id} is still {_unfinished(task)} after {timeout:g} s")
            attempt_id = following or attempt_id
            # It waits for its next attempt, attempts follow each other quickly, or a daemon that stops has answered early.
            time.sleep(max(0.0, min(_PAUSE, left) - (time.monotonic() - asked)))


def _attempt_after(client: DaemonClient, task: dict[str, JSON]) -> str | None:
    """The id of the latest attempt of a node whose task has ended, if its graph has not ended with it."""
    graph_id, node_id = task.get("graph"), task.get("node")
    if task["state"] not in _MAY_REPEAT or graph_id is None:
        return None
    if not is_id(graph_id) or not isinstance(node_id, str):
        raise unreadable(client.shown, f"task {task['id']} with a graph or a node that cannot be read")
    snapshot = parse_graph(client.request("GET", f"/graphs/{graph_id}"), client.shown).snapshot
    # An edit may have removed it.
    node = snapshot.nodes.get(node_id, NodeResult())
    latest = node.task_id or str(task["id"])
    return latest if latest != task["id"] or node.state is NodeState.READY else None


def _unfinished(task: dict[str, JSON]) -> str:
    return "waiting for its next attempt" if task["state"] in _ENDED else str(task["state"])


def print_end(task: dict[str, JSON], *, as_json: bool) -> int:
    """Print the result of a task that has ended. Returns the exit status.

    Raises:
        TaskFailed: It did not complete.
    """
    if as_json:
        echo_json(task)
        return 0 if task["state"] == "completed" else 1
    result = task.get("result")
    if result is not None:
        echo_result(result)
    if task["state"] != "completed":
        reason = str(task.get("error") or "no reason was given")
        if len(reason) > _MAX_REASON:
            whole = f"{len(reason):,} characters: galaxy-trio task show {task['id']}"
            reason = f"{one_line(reason[:_MAX_REASON])}… ({whole})"
        raise TaskFailed(f"task {task['id']} {_ENDED[str(task['state'])]}: {reason}")
    return 0
