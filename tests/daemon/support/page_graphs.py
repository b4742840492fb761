"""Submits graphs to the daemon of the page's tests, and finds their parts on the page."""

from __future__ import annotations

import json
import urllib.request
from typing import TYPE_CHECKING, Any

from playwright.sync_api import expect

from tests.daemon.support.page import open_page

if TYPE_CHECKING:
    from collections.abc import Generator, Sequence

    from playwright.sync_api import Browser, Locator, Page

    from tests.daemon.support.page_browser import World

PHONE: dict[str, Any] = {"viewport": {"width": 390, "height": 844}, "has_touch": True, "is_mobile": True}
"""The options of a context that is a phone's."""


def ask(world: World, method: str, path: str, body: object = None, token: str = "") -> dict[str, Any]:
    """Send a request to the daemon, and return the JSON of its response."""
    headers = {"Content-Type": "application/json", **({"Authorization": f"Bearer {token}"} if token else {})}
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(f"{world.url}{path}", data, headers, method=method)  # noqa: S310
    with urllib.request.urlopen(request, timeout=60) as response:  # noqa: S310
        answer: dict[str, Any] = json.loads(response.read())
    return answer


def node(node_id: str, request: str = "echo", **more: object) -> dict[str, object]:
    """A node for the laptop."""
    return {"id": node_id, "request": request, "device": "laptop", **more}


def edge(source: str, target: str, when: str = "success", **more: object) -> dict[str, object]:
    return {"source": source, "target": target, "when": when, **more}


def submit_graph(
    world: World,
    nodes: Sequence[dict[str, object]],
    edges: Sequence[dict[str, object]] = (),
    *,
    name: str | None = None,
    token: str = "",
) -> str:
    """Submit a graph, and return its id."""
    document = {"name": name, "nodes": list(nodes), "edges": list(edges)}
    return str(ask(world, "POST", "/graphs", document, token)["id"])


def graph_row(page: Page, name: str) -> Locator:
    """The row of a graph in the list of graphs."""
    return page.locator("#graph-rows tr", has=page.get_by_role("link", name=name, exact=True)).first


def open_graph(browser: Browser, world: World, graph: str, **more: Any) -> Generator[Page]:
    """The page with the picture of a graph, when it is live."""
    for page in open_page(browser, f"{world.url}/#/graphs/{graph}", **more):
        expect(page.locator("#live-words")).to_have_text("Live")
        expect(page.locator("#graph-title")).not_to_have_text("Graph")
        yield page


def node_box(page: Page, title: str) -> Locator:
    """A node in the picture."""
    return page.locator("#picture").get_by_role("button", name=f"{title}:")


def node_row(page: Page, title: str) -> Locator:
    """A node in the list."""
    return page.locator("#node-rows tr", has=page.get_by_role("button", name=f"Show node: {title}", exact=True))
