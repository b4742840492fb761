"""The picture and the list of a graph on the daemon's page are used with the keyboard, the pointer and the wheel, in a real browser."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import pytest

pytest.importorskip("playwright", reason="the page's tests have a session of their own")

from playwright.sync_api import Page, expect

from galaxy_trio.daemon.graph_limits import MAX_EDGES
from tests.daemon.support.page import check_accessibility, open_page
from tests.daemon.support.page_browser import World, open_world
from tests.daemon.support.page_graphs import PHONE, ask, edge, node, node_box, node_row, open_graph, submit_graph

if TYPE_CHECKING:
    from collections.abc import Generator

    from playwright.sync_api import Browser

pytestmark = pytest.mark.page


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Generator[World]:
    """A world with two devices. The server holds what is to run on."""
    with open_world(tmp_path_factory.mktemp("world"), ["laptop", "server"]) as world:
        yield world


@pytest.fixture
def page(browser: Browser, world: World) -> Generator[Page]:
    """The picture of a graph with three layers, one node of which is held."""
    nodes = [node("a"), node("b1"), node("b2", "hold", device="server"), node("b3"), node("c")]
    edges = [edge("a", "b1"), edge("a", "b2"), edge("a", "b3"), edge("b2", "c")]
    graph = submit_graph(world, nodes, edges, name="Keys")
    for page in open_graph(browser, world, graph):
        expect(node_box(page, "b2")).to_contain_text("running")
        expect(node_box(page, "b3")).to_contain_text("completed")
        yield page
    ask(world, "DELETE", f"/graphs/{graph}")


def _transform(page: Page) -> tuple[float, float, float]:
    """The place and the scale of the picture, when the last change is drawn."""
    x, y, scale = page.evaluate(
        """async () => {
            await new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)));
            const [frame, svg] = ['#picture', '#picture > svg'].map((name) => document.querySelector(name));
            const [outer, inner] = [frame.getBoundingClientRect(), svg.getBoundingClientRect()];
            return [inner.left - outer.left, inner.top - outer.top, inner.width / svg.viewBox.baseVal.width];
        }"""
    )
    return round(x), round(y), round(scale, 3)


def test_everything_is_done_with_the_keyboard_alone(page: Page) -> None:
    page.locator("#picture").focus()
    x, y, scale = _transform(page)
    page.keyboard.press("ArrowLeft")
    page.keyboard.press("ArrowUp")
    assert _transform(page) == (x + 60, y + 60, scale)
    page.keyboard.press("+")
    assert _transform(page)[2] == pytest.approx(scale * 1.3, rel=1e-3)
    page.keyboard.press("-")
    page.keyboard.press("-")
    assert _transform(page)[2] == pytest.approx(scale / 1.3, rel=1e-3)
    page.keyboard.press("0")
    assert _transform(page) == (x, y, scale)
    # One node is reached by Tab; arrows go along the edges, and from node to node in a layer.
    page.keyboard.press("Tab")
    expect(node_box(page, "a")).to_be_focused()
    page.keyboard.press("ArrowRight")
    expect(page.locator("#picture .node:focus")).to_have_attribute("aria-label", re.compile("^b"))
    for _ in range(3):
        page.keyboard.press("ArrowUp")
    for _ in range(3):
        if node_box(page, "b2").evaluate("element => element === document.activeElement"):
            break
        page.keyboard.press("ArrowDown")
    page.keyboard.press("ArrowRight")
    expect(node_box(page, "c")).to_be_focused()
    page.keyboard.press("ArrowRight")
    page.keyboard.press("ArrowLeft")
    expect(node_box(page, "b2")).to_be_focused()
    page.keyboard.press("Enter")
    expect(page.locator("#node-title")).to_be_focused()
    page.keyboard.press("Escape")
    expect(node_box(page, "b2")).to_be_focused()
    expect(page.locator("#node")).to_be_hidden()
    page.keyboard.press("Space")
    page.keyboard.press("Tab")
    expect(page.get_by_role("button", name="Close the node")).to_be_focused()
    page.keyboard.press("Tab")
    expect(page.get_by_role("link", name="Open its task")).to_be_focused()
    page.keyboard.press("Enter")
    expect(page.locator("#task-title")).to_be_focused()
    page.keyboard.press("Escape")
    expect(page.get_by_role("link", name="Open its task")).to_be_focused()
    page.keyboard.press("Tab")
    page.keyboard.press("Enter")
    expect(node_box(page, "b2")).to_contain_text("cancelled")
    # Shift and Enter open the task.
    page.keyboard.press("Escape")
    expect(node_box(page, "b2")).to_be_focused()
    page.keyboard.press("Shift+Enter")
    expect(page.locator("#task-title")).to_be_focused()


def test_picture_is_dragged_and_zoomed_around_the_pointer(page: Page) -> None:
    box = page.locator("#picture").bounding_box()
    assert box is not None
    x, y, scale = _transform(page)
    page.mouse.move(box["x"] + 60, box["y"] + 60)
    page.mouse.down()
    page.mouse.move(box["x"] + 160, box["y"] + 90, steps=5)
    page.mouse.up()
    moved = _transform(page)
    assert moved[0] - x == pytest.approx(100, abs=6)
    assert moved[1] - y == pytest.approx(30, abs=6)
    assert moved[2] == scale
    # The point under the pointer stays.
    page.mouse.move(box["x"] + 300, box["y"] + 200)
    page.keyboard.down("Control")
    page.mouse.wheel(0, -100)
    page.keyboard.up("Control")
    zoomed = _transform(page)
    while zoomed[2] == scale:
        zoomed = _transform(page)
    assert zoomed[2] > scale
    assert (300 - zoomed[0]) / zoomed[2] == pytest.approx((300 - moved[0]) / scale, abs=1)
    assert (200 - zoomed[1]) / zoomed[2] == pytest.approx((200 - moved[1]) / scale, abs=1)
    # The wheel alone scrolls the page, not the picture.
    page.mouse.wheel(0, 100)
    assert _transform(page) == zoomed
    page.get_by_role("button", name="Fit").click()
    assert _transform(page) == (x, y, scale)
    page.get_by_role("button", name="Zoom in").click()
    assert _transform(page)[2] > scale
    page.get_by_role("button", name="Zoom out").click()
    assert _transform(page)[2] == pytest.approx(scale)
    # It never leaves its frame as a whole.
    page.locator("#picture").focus()
    for _ in range(60):
        page.keyboard.press("ArrowRight")
    assert _transform(page)[0] < box["width"]


def test_dragging_over_a_node_does_not_choose_it(page: Page) -> None:
    box = node_box(page, "a").bounding_box()
    assert box is not None
    page.mouse.move(box["x"] + 20, box["y"] + 20)
    page.mouse.down()
    page.mouse.move(box["x"] + 90, box["y"] + 50, steps=4)
    page.mouse.up()
    expect(page.locator("#node")).to_be_hidden()
    node_box(page, "a").click()
    expect(page.locator("#node")).to_be_visible()


def test_two_fingers_zoom(browser: Browser, world: World) -> None:
    graph = submit_graph(world, [node("a"), node("b")], [edge("a", "b")])
    for page in open_graph(browser, world, graph, **PHONE):
        expect(node_box(page, "b")).to_contain_text("completed")
        scale = _transform(page)[2]
        session = page.context.new_cdp_session(page)
        for kind, apart in (("Start", 30), ("Move", 40), ("Move", 50), ("Move", 60), ("End", 0)):
            touches = {"type": f"touch{kind}", "touchPoints": _fingers(page, apart)}
            session.send("Input.dispatchTouchEvent", touches)  # pyright: ignore[reportUnknownMemberType]
        assert _transform(page)[2] > scale * 1.3


def _fingers(page: Page, apart: float) -> list[dict[str, float]]:
    """Two fingers on the picture; none if they are not apart."""
    box = page.locator("#picture").bounding_box()
    assert box is not None
    x, y = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
    return [{"x": x + apart * sign, "y": y, "id": 2 + sign} for sign in (-1, 1)] if apart else []


def test_list_has_the_same_graph_by_layers_with_its_actions(page: Page, world: World) -> None:
    page.get_by_role("link", name="List").focus()
    page.keyboard.press("Enter")
    expect(page).to_have_url(re.compile("/list$"))
    rows = page.locator("#node-rows tr")
    expect(rows).to_have_count(5)
    expect(rows.locator("small")).to_have_text(["layer 1", "layer 2", "layer 2", "layer 2", "layer 3"])
    expect(node_row(page, "b2").locator("td").nth(1)).to_have_text("server")
    expect(node_row(page, "b2").locator(".before")).to_have_text("✓ a")
    expect(node_row(page, "c").locator(".before")).to_have_text("… b2")
    page.get_by_label("In state").select_option("running")
    expect(rows).to_have_count(1)
    page.get_by_role("button", name="Cancel: b2").focus()
    page.keyboard.press("Enter")
    # It has another state now.
    expect(rows).to_have_count(0)
    expect(page.locator("#no-nodes")).to_be_visible()
    page.get_by_label("In state").select_option("")
    expect(node_row(page, "c")).to_contain_text("skipped")
    expect(node_row(page, "c").locator(".before")).to_have_text("✕ b2")
    page.get_by_role("button", name="Retry: b2").click()
    expect(node_row(page, "b2")).to_contain_text("running")
    page.get_by_label("Search").fill("server")
    expect(rows).to_have_count(1)
    page.get_by_role("button", name="Show node: b2").click()
    expect(page.locator("#node-title")).to_be_focused()
    page.keyboard.press("Escape")
    page.get_by_role("link", name="Open the task of b2").click()
    expect(page.locator("#task-dialog")).to_be_visible()
    page.keyboard.press("Escape")
    expect(page).to_have_url(re.compile("/list$"))
    page.go_back()
    expect(node_box(page, "a")).to_be_visible()


def test_large_graph_is_a_list_first_and_drawn_on_request(browser: Browser, world: World) -> None:
    # All wait for the first, so that they do not run.
    nodes = [node("gate", "hold", device="server"), *(node(f"n{number}") for number in range(1_100))]
    graph = submit_graph(world, nodes, [edge("gate", f"n{number}") for number in range(1_100)], name="Large")
    for page in open_graph(browser, world, graph):
        expect(page.locator("#too-large")).to_contain_text("This graph has 1,101 nodes")
        expect(page.locator("#picture .node")).to_have_count(0)
        expect(page.locator("#node-rows tr")).to_have_count(200)
        page.get_by_role("button", name="Show more: 901 left").click()
        expect(page.locator("#node-rows tr")).to_have_count(400)
        check_accessibility(page)
        page.get_by_role("button", name="Draw it").click()
        expect(page.locator("#picture .node")).to_have_count(1_101)
        expect(page.locator("#picture")).to_be_focused()
        ask(world, "DELETE", f"/graphs/{graph}")
        # The event names the first 50 nodes that changed: the others are loaded.
        expect(page.locator("#picture .node.cancelled")).to_have_count(1_101)


def test_largest_graph_of_a_daemon_is_drawn_on_request_and_the_page_says_so_first(
    browser: Browser, world: World
) -> None:
    count, each = 10_000, MAX_EDGES // 10_000
    nodes = [{"id": f"n{number}", "request": "x"} for number in range(count)]
    # Each has an edge from the node in the middle before it, and one from its neighbour.
    pairs = [(number // 2, number) for number in range(1, count)] + [(number - 1, number) for number in range(3, count)]
    edges = [edge(f"n{source}", f"n{target}", id=f"{at}") for at, (source, target) in enumerate(pairs)]
    assert count * each - 5 < len(edges) <= count * each
    record = {"id": "0" * 32, "number": 1, "name": "Largest", "state": "running", "version": 1}
    times = {"created": "2026-11-30T12:00:00+00:00", "ended": None}
    whole = {**record, **times, "graph": {"nodes": nodes, "edges": edges}}
    for page in open_page(browser, world.url):
        page.route("**/graphs/0*", lambda route: route.fulfill(json=whole))
        page.evaluate("() => { location.hash = '#/graphs/' + '0'.repeat(32); }")
        expect(page.locator("#node-rows tr")).to_have_count(200)
        expect(page.locator("#too-large")).to_contain_text(
            "This graph has 10,000 nodes: its picture is large and slow."
        )
        said, before = page.evaluate(
            """async () => {
                document.querySelector('#draw-anyway').click();
                await new Promise(requestAnimationFrame);
                return [document.querySelector('#draw-words').textContent, document.querySelectorAll('#picture .node').length];
            }"""
        )
        assert (said, before) == (f"Drawing 10,000 nodes and {len(edges):,} edges…", 0)
        expect(page.locator("#picture .node")).to_have_count(count)
        expect(page.locator("#picture .edge")).to_have_count(len(edges))
        # Eight elements for a node, one for an edge: an edge without words has no label.
        assert page.locator("#picture *").count() <= 8 * count + len(edges) + 10
        place = _transform(page)
        page.keyboard.press("ArrowLeft")
        assert _transform(page) == (place[0] + 60, place[1], place[2])
        page.evaluate(
            """async (graph) => {
                const { applyTask } = await import(new URL('page/graph.js', document.baseURI));
                applyTask({ id: '1', graph, node: 'n9999', state: 'running', device: 'server', started: null });
            }""",
            record["id"],
        )
        expect(page.locator("#picture .node.running")).to_have_count(1)
