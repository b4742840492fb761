"""The picture of a graph on the daemon's page, in a real browser with a real daemon."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import pytest

pytest.importorskip("playwright", reason="the page's tests have a session of their own")

from playwright.sync_api import Page, expect

from tests.daemon.support.page import check_accessibility, open_page, take_screenshot
from tests.daemon.support.page_browser import World, open_world
from tests.daemon.support.page_graphs import (
    PHONE,
    ask,
    edge,
    node,
    node_box,
    node_row,
    open_graph,
    submit_graph,
)

if TYPE_CHECKING:
    from collections.abc import Generator
    from pathlib import Path

    from playwright.sync_api import Browser

pytestmark = pytest.mark.page

REPORT_NODES = [
    node("fetch", name="Download the sales figures"),
    node("check", "json", name="Check the figures"),
    node("repair", name="Repair missing rows"),
    node("merge", name="Merge the sheets of all regions"),
    node("print", "fail no paper left", name="Print a draft"),
    node("mail", "hold", device="server", name="Mail the report"),
    node("alarm", name="Call the operator"),
    node("tidy", name="Delete the downloads"),
    node("archive", name="Archive"),
]
REPORT_EDGES = [
    edge("fetch", "check"),
    edge("check", "repair", "condition", condition={"at": "/active", "is": "truthy"}),
    edge("check", "merge", "condition", condition={"at": "/windows/0/title", "is": "eq", "value": "Window 0"}),
    edge("check", "mail"),
    edge("merge", "mail"),
    edge("merge", "print"),
    edge("print", "alarm", "failure"),
    edge("mail", "tidy", "end"),
    edge("alarm", "tidy", "end"),
    edge("fetch", "archive", "end"),
]


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Generator[World]:
    """A world with two devices. The server holds what is to run on."""
    with open_world(tmp_path_factory.mktemp("world"), ["laptop", "server"]) as world:
        yield world


def _submit_report(world: World) -> str:
    return submit_graph(world, REPORT_NODES, REPORT_EDGES, name="Monthly report")


def test_nodes_and_edges_differ_by_shapes_words_and_dashes(browser: Browser, world: World) -> None:
    graph = _submit_report(world)
    for page in open_graph(browser, world, graph):
        expect(page).to_have_title("Graph Monthly report · galaxy_trio")
        expect(page.locator("#graph-title")).to_be_focused()
        expect(node_box(page, "Mail the report")).to_contain_text("running · server")
        expect(node_box(page, "Print a draft")).to_contain_text("failed · laptop")
        expect(node_box(page, "Repair missing rows")).to_contain_text("skipped")
        expect(node_box(page, "Delete the downloads")).to_contain_text("waiting")
        shapes = page.locator("#picture .shape").evaluate_all(
            "shapes => new Set(shapes.map(s => s.getAttribute('d'))).size"
        )
        assert shapes == 5
        words = set(page.locator("#picture .labels text").all_text_contents())
        assert {"failure", "any end", "✕ if /active is true"} <= words
        assert any(word.startswith("if /windows/0/title") for word in words)
        dashes = [
            page.locator(f"#picture .edge.{when}").first.evaluate("edge => getComputedStyle(edge).strokeDasharray")
            for when in ("success", "failure", "end", "condition")
        ]
        assert len(set(dashes)) == 4
        expect(page.locator("#graph-counts")).to_contain_text("1 running")
    ask(world, "DELETE", f"/graphs/{graph}")


def test_nodes_that_are_skipped_by_a_condition_are_drawn_when_the_condition_is_decided(
    browser: Browser, world: World
) -> None:
    nodes = [node("gate", "hold", device="server"), node("check", "json"), node("repair")]
    condition = edge("check", "repair", "condition", condition={"at": "/active", "is": "truthy"})
    graph = submit_graph(world, nodes, [edge("gate", "check", "end"), condition])
    for page in open_graph(browser, world, graph):
        expect(node_box(page, "gate")).to_contain_text("running")
        ask(world, "POST", f"/graphs/{graph}/nodes/gate/cancel")
        expect(node_box(page, "check")).to_contain_text("completed")
        expect(node_box(page, "repair")).to_contain_text("skipped")


def test_only_what_changed_is_drawn_again(browser: Browser, world: World) -> None:
    nodes = [node("gate", "hold", device="server"), *(node(f"n{number}") for number in range(30))]
    edges = [
        edge("gate", "n0", "end"),
        edge("n0", "n29"),
        *(edge(f"n{number}", f"n{number + 1}") for number in range(1, 27)),
    ]
    graph = submit_graph(world, nodes, edges)
    for page in open_graph(browser, world, graph):
        expect(node_box(page, "gate")).to_contain_text("running")
        expect(node_box(page, "n27")).to_contain_text("completed")
        page.evaluate(
            """() => {
                window.touched = {};
                const edges = [...document.querySelectorAll('#picture .edge')];
                const nameOf = (element) => {
                    if (element.closest('.node')) return element.closest('.node').getAttribute('aria-label').split(':')[0];
                    if (edges.includes(element)) return `edge ${edges.indexOf(element)}`;
                    return element.closest('.labels') ? 'label' : 'picture';
                };
                new MutationObserver((changes) => changes.forEach(({ target }) => {
                    const name = nameOf(target.closest ? target : target.parentElement);
                    window.touched[name] = (window.touched[name] ?? 0) + 1;
                })).observe(
                    document.querySelector('#picture svg'), { subtree: true, childList: true, attributes: true, characterData: true }
                );
            }"""
        )
        ask(world, "POST", f"/graphs/{graph}/nodes/gate/cancel")
        expect(node_box(page, "n29")).to_contain_text("completed")
        touched = page.evaluate("() => window.touched")
        assert touched.keys() == {"gate", "n0", "n29", "edge 0", "edge 1"}
        # An edge changes once, although its source also was ready and running.
        assert (touched["edge 0"], touched["edge 1"]) == (1, 1)
        expect(page.locator("#graph-about")).to_contain_text("30 completed")


def test_node_is_cancelled_and_retried_and_opens_its_latest_task(browser: Browser, world: World) -> None:
    graph = submit_graph(world, [node("a", "hold", device="server"), node("b")], [edge("a", "b")], name="Two")
    for page in open_graph(browser, world, graph):
        node_box(page, "a").click()
        panel = page.get_by_role("region", name="a", exact=True)
        expect(page.locator("#node-title")).to_be_focused()
        expect(panel.locator("dl")).to_contain_text("Attempts1 of 1")
        panel.get_by_role("button", name="Cancel: a").click()
        expect(node_box(page, "a")).to_contain_text("cancelled")
        expect(node_box(page, "b")).to_contain_text("skipped")
        expect(page.locator("#graph-outcome")).to_have_text("Cancelled: a")
        first = page.get_by_role("link", name="Open its task").get_attribute("href")
        panel.get_by_role("button", name="Retry: a").click()
        expect(node_box(page, "a")).to_contain_text("running")
        expect(node_box(page, "b")).to_contain_text("waiting")
        expect(page.get_by_role("link", name="Open its task")).not_to_have_attribute("href", str(first))
        page.get_by_role("link", name="Open its task").click()
        dialog = page.locator("#task-dialog")
        expect(dialog.locator("dl")).to_contain_text("Nodea")
        dialog.get_by_role("button", name="Cancel: hold").click()
        expect(dialog.locator("dl")).to_contain_text("cancelled")
        page.keyboard.press("Escape")
        expect(dialog).to_be_hidden()
        expect(page).to_have_url(f"{world.url}/#/graphs/{graph}")
        expect(page).to_have_title("Graph Two · galaxy_trio")
        expect(node_box(page, "a")).to_contain_text("cancelled")
        node_box(page, "a").dblclick()
        expect(dialog).to_be_visible()
        dialog.get_by_role("link", name=graph).click()
        expect(dialog).to_be_hidden()
        expect(node_box(page, "a")).to_be_visible()


def test_attempts_are_counted_until_the_last(browser: Browser, world: World) -> None:
    graph = submit_graph(world, [node("a", "fail again", retries=2, backoff=0.01)])
    for page in open_graph(browser, world, graph):
        expect(node_box(page, "a")).to_contain_text("failed")
        node_box(page, "a").click()
        expect(page.locator("#node-facts")).to_contain_text("Attempts3 of 3")
        expect(page.locator("#node-facts")).to_contain_text("Whyagain")
        page.get_by_role("button", name="Close the node").click()
        expect(node_box(page, "a")).to_be_focused()


def test_graph_is_cancelled_after_a_confirmation(browser: Browser, world: World) -> None:
    graph = submit_graph(world, [node("a", "hold", device="server"), node("b")], [edge("a", "b")], name="To stop")
    for page in open_graph(browser, world, graph):
        page.get_by_role("button", name="Cancel graph…").click()
        dialog = page.get_by_role("dialog", name="Cancel the graph")
        expect(dialog).to_contain_text("Cancel To stop?")
        check_accessibility(page)
        dialog.get_by_role("button", name="Let it run").click()
        expect(node_box(page, "a")).to_contain_text("running")
        page.get_by_role("button", name="Cancel graph…").click()
        dialog.get_by_role("button", name="Cancel the graph").click()
        expect(page.locator("#graph-state-now")).to_have_text("cancelled")
        expect(node_box(page, "b")).to_contain_text("cancelled")
        expect(page.get_by_role("button", name="Cancel graph…")).to_be_hidden()


def wait_drawn(page: Page) -> None:
    """Wait until what has been done is drawn: the picture is moved in the next frame."""
    page.evaluate("new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)))")


def test_edit_appears_and_the_part_that_is_shown_stays(browser: Browser, world: World) -> None:
    graph = submit_graph(world, [node("a", "hold", device="server"), node("b")], [edge("a", "b")])
    for page in open_graph(browser, world, graph):
        node_box(page, "b").click()
        picture = page.locator("#picture > svg")
        wait_drawn(page)
        first = picture.get_attribute("style")
        page.locator("#picture").focus()
        page.keyboard.press("ArrowLeft")
        wait_drawn(page)
        before = picture.get_attribute("style")
        assert before != first
        ask(world, "PATCH", f"/graphs/{graph}", {"add": [node("c")], "connect": [edge("b", "c")]})
        expect(node_box(page, "c")).to_contain_text("waiting")
        assert picture.get_attribute("style") == before
        ask(world, "PATCH", f"/graphs/{graph}", {"remove": ["c", "b"]})
        expect(node_box(page, "c")).to_have_count(0)
        # The node that was chosen has gone.
        expect(page.locator("#node")).to_be_hidden()
    ask(world, "DELETE", f"/graphs/{graph}")


def test_picture_follows_the_graph_after_a_restart_of_the_daemon(browser: Browser, tmp_path: Path) -> None:
    with open_world(tmp_path, ["laptop", "server"]) as world:
        graph = submit_graph(world, [node("a", "hold", device="server"), node("b")], [edge("a", "b", "failure")])
        for page in open_graph(browser, world, graph):
            expect(node_box(page, "a")).to_contain_text("running")
            world.do("stop daemon")
            expect(page.locator("#live-words")).to_contain_text("Not live")
            node_box(page, "a").click()
            page.get_by_role("button", name="Cancel: a").click()
            expect(page.locator("#graph-outcome")).to_have_text("The daemon does not respond: is it running?")
            world.do("start daemon")
            expect(page.locator("#live-words")).to_have_text("Live")
            expect(node_box(page, "b")).to_contain_text("completed")
            expect(page.locator("#graph-state-now")).to_have_text("partially failed")


@pytest.mark.parametrize("graph", ["0" * 32, "a b", "%3Cimg%20src=x%3E"])
def test_unknown_graph_shows_that_there_is_none(browser: Browser, world: World, graph: str) -> None:
    for page in open_page(browser, f"{world.url}/#/graphs/{graph}"):
        expect(page.locator("#graph-outcome")).to_contain_text("There is no graph")
        expect(page.locator("#graph-title")).to_have_text(re.compile("^Graph .* is not shown$"))
        expect(page.locator("#graph-title")).to_be_focused()
        expect(page).to_have_title("Graph not found · galaxy_trio")
        check_accessibility(page)
        page.get_by_role("link", name="All graphs").click()
        expect(page.locator("#graphs-title")).to_be_focused()


def test_graph_that_was_deleted_is_not_shown_any_more(browser: Browser, world: World) -> None:
    graph = submit_graph(world, [node("a", "hold", device="server")], name="Gone")
    for page in open_graph(browser, world, graph):
        expect(node_box(page, "a")).to_be_visible()
        page.route(f"**/graphs/{graph}", lambda route: route.fulfill(status=404, json={"error": "there is no graph"}))
        # The page loads the graph again.
        ask(world, "PATCH", f"/graphs/{graph}", {"add": [node("b")]})
        expect(page.locator("#graph-outcome")).to_contain_text("There is no graph")
        expect(page.locator("#graph-body")).to_be_hidden()
    ask(world, "DELETE", f"/graphs/{graph}")


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("device", ["desk", "phone"])
def test_axe_finds_no_violation_in_the_picture_and_the_list_in_either_color_scheme_on_a_desk_and_on_a_phone(
    browser: Browser, world: World, scheme: str, device: str
) -> None:
    graph = _submit_report(world)
    for page in open_graph(browser, world, graph, color_scheme=scheme, **(PHONE if device == "phone" else {})):
        expect(node_box(page, "Call the operator")).to_contain_text("completed")
        expect(node_box(page, "Mail the report")).to_contain_text("running")
        for form in ("picture", "list"):
            page.get_by_role("link", name=form.title(), exact=True).click()
            check_accessibility(page)
            assert page.evaluate("() => document.documentElement.scrollWidth <= window.innerWidth")
            _take(page, form, device, scheme)
        node_row(page, "Print a draft").get_by_role("button", name="Show node").click()
        page.get_by_role("link", name="Picture", exact=True).click()
        expect(page.locator("#node-facts")).to_contain_text("no paper left")
        check_accessibility(page)
        assert page.evaluate("() => document.documentElement.scrollWidth <= window.innerWidth")
        _take(page, "node", device, scheme)
    ask(world, "DELETE", f"/graphs/{graph}")


def _take(page: Page, form: str, device: str, scheme: str) -> None:
    names = {
        ("picture", "desk", "light"): "graph-desk-light",
        ("picture", "desk", "dark"): "graph-desk-dark",
        ("picture", "phone", "light"): "graph-phone",
        ("list", "desk", "light"): "graph-nodes",
        ("node", "desk", "light"): "graph-node",
    }
    if (form, device, scheme) in names:
        page.locator("h1").click()
        take_screenshot(page, names[form, device, scheme], whole=device == "phone")
