"""Hostile texts in graphs are shown as texts in all places of the daemon's page, in a real browser."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import pytest

pytest.importorskip("playwright", reason="the page's tests have a session of their own")

from playwright.sync_api import Page, expect

from galaxy_trio._printable import printable
from tests.daemon.support.page import check_accessibility, open_page
from tests.daemon.support.page_browser import World, open_world
from tests.daemon.support.page_graphs import PHONE, ask, edge, node, open_graph, submit_graph
from tests.daemon.support.page_world import HOSTILE

if TYPE_CHECKING:
    from collections.abc import Generator

    from playwright.sync_api import Browser

pytestmark = pytest.mark.page

LONG = "ab\u0000\u0007\u202e" * 2_000
IDS = [
    HOSTILE,
    "\u202egnp.exe\u2066",
    "\0\x1b[31m\r\n",
    "x" * 200,
    "__proto__",
    "constructor",
    "a/b?c#d%2F..",
    "../../health",
    "\U0001f680" * 100,
    "報告" * 40,
]
TITLES = [
    "<img src=x onerror=alert(1)><script>alert(2)</script>\\u202e",
    "\\u202egnp.exe\\u2066",
    "\\u0000\\u001b[31m",
    "x" * 160 + "…",
    "__proto__",
    "constructor",
    "a/b?c#d%2F..",
    "../../health",
]


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Generator[World]:
    """A world with two devices, one with a hostile name."""
    with open_world(tmp_path_factory.mktemp("world"), ["laptop", HOSTILE]) as world:
        yield world


@pytest.fixture(scope="module")
def graph(world: World) -> str:
    """A graph with a hostile text in each place; its last node runs."""
    nodes = [node(node_id, f"fail {LONG}", device=HOSTILE, name=None) for node_id in IDS]
    named = node("named", f"hold {HOSTILE}{LONG}", name=f"{HOSTILE}{LONG}", tips=[HOSTILE])
    condition = {"at": f"/{HOSTILE.replace('/', '~1')}", "is": "eq", "value": {HOSTILE: LONG}}
    edges = [edge(node_id, "named", "end") for node_id in IDS]
    last = node("last", device=None, os=f"{HOSTILE}")
    del last["device"]
    edges += [edge("named", "last", "condition", condition=condition)]
    return submit_graph(world, [*nodes, named, node("last")], edges, name=f"{HOSTILE}{LONG}")


def _check(page: Page) -> None:
    """Nothing became markup, and the page does not scroll sideways."""
    assert page.locator("main img, main script, dialog img").count() == 0
    assert page.evaluate("() => document.documentElement.scrollWidth <= window.innerWidth")
    check_accessibility(page)


@pytest.mark.parametrize("device", ["desk", "phone"])
def test_hostile_texts_are_shown_as_texts_in_all_places(
    browser: Browser, world: World, graph: str, device: str
) -> None:
    for page in open_graph(browser, world, graph, **(PHONE if device == "phone" else {})):
        expect(page.locator("#picture .node.failed")).to_have_count(len(IDS))
        expect(page.locator("#graph-title")).to_have_text(
            re.compile(r"^<img src=x .*\\u202eab\\u0000\\u0007\\u202eab.*…$")
        )
        assert "\u202e" not in page.title()
        _check(page)
        # Each text in the picture stays in its box.
        wide = page.locator("#picture .node").evaluate_all(
            """nodes => nodes.filter((node) => {
                const box = node.querySelector('rect').getBoundingClientRect();
                return [...node.querySelectorAll('text')].some((text) => text.getBoundingClientRect().right > box.right + 1);
            }).length"""
        )
        assert wide == 0
        # Characters that are not seen are shown as escapes, so that names cannot pretend to be others.
        texts = "".join(page.locator("#picture text").all_text_contents())
        assert printable(texts) == texts
        page.get_by_role("link", name="List").click()
        for title in TITLES:
            expect(page.get_by_role("button", name=f"Show node: {title}".strip(), exact=True)).to_have_count(1)
        _check(page)
        page.get_by_role("button", name="Show node: <img").last.click()
        expect(page.locator("#node-facts")).to_contain_text("Before")
        _check(page)
        page.get_by_role("button", name="Show node: constructor").click()
        expect(page.locator("#node-facts")).to_contain_text("Whyab\\u0000\\u0007\\u202e")
        expect(page.locator("#node-facts")).to_contain_text("…")
        _check(page)
        page.get_by_role("link", name="Open its task").click()
        expect(page.locator("#task-facts")).to_contain_text("Nodeconstructor")
        assert "\0" not in page.title()
        _check(page)
    for page in open_page(browser, f"{world.url}/#/graphs"):
        expect(page.locator("#graph-rows a", has_text="<img")).to_have_text(re.compile(r"^<img src=x .*\\u202eab"))
        _check(page)


@pytest.mark.parametrize(
    "node_id", ["a/b?c#d%2F..", "../../health", "__proto__", HOSTILE, "\0\x1b[31m\r\n", "報告", "a b+c"]
)
def test_node_with_any_id_is_cancelled_and_retried(browser: Browser, world: World, node_id: str) -> None:
    other = submit_graph(world, [node(node_id, "hold", device=HOSTILE)])
    for page in open_graph(browser, world, other):
        expect(page.locator("#picture .node.running")).to_have_count(1)
        page.locator("#picture .node").click()
        page.locator("#node-actions").get_by_role("button").click()
        expect(page.locator("#picture .node.cancelled")).to_have_count(1)
        page.locator("#node-actions").get_by_role("button", name="Retry").click()
        expect(page.locator("#picture .node.running")).to_have_count(1)
    ask(world, "DELETE", f"/graphs/{other}")


@pytest.mark.parametrize("node_id", [".", ".."])
def test_node_that_a_browser_cannot_name_is_said_to_be_so(browser: Browser, world: World, node_id: str) -> None:
    other = submit_graph(world, [node(node_id, "hold", device=HOSTILE)])
    for page in open_graph(browser, world, other):
        page.locator("#picture .node").click()
        page.locator("#node-actions").get_by_role("button").click()
        expect(page.locator("#graph-outcome")).to_contain_text("A browser cannot name this node in a URL")
    ask(world, "DELETE", f"/graphs/{other}")
