"""The list of graphs on the daemon's page, in a real browser."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

pytest.importorskip("playwright", reason="the page's tests have a session of their own")

from playwright.sync_api import Page, expect

from tests.daemon.support.page import check_accessibility, open_page, take_screenshot
from tests.daemon.support.page_browser import World, open_world
from tests.daemon.support.page_graphs import PHONE, ask, edge, graph_row, node, submit_graph

if TYPE_CHECKING:
    from collections.abc import Generator

    from playwright.sync_api import Browser

pytestmark = pytest.mark.page


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Generator[World]:
    """A world that holds graphs in each state."""
    with open_world(tmp_path_factory.mktemp("world"), ["laptop", "server"]) as world:
        yield world


@pytest.fixture
def page(browser: Browser, world: World) -> Generator[Page]:
    """The list of graphs."""
    for page in open_page(browser, f"{world.url}/#/graphs"):
        expect(page.locator("#live-words")).to_have_text("Live")
        yield page


def test_list_without_graphs_says_so(page: Page) -> None:
    expect(page.locator("#no-graphs")).to_contain_text("There are no graphs yet.")
    page.get_by_label("State", exact=True).select_option("failed")
    expect(page.locator("#no-graphs")).to_contain_text("There are no failed graphs.")


def test_graphs_appear_and_change_live_with_the_counts_of_their_nodes(world: World, page: Page) -> None:
    graph = submit_graph(world, [node("a"), node("b", "hold"), node("c")], [edge("b", "c")], name="Live one")
    row = graph_row(page, "Live one")
    expect(row.locator("td").first).to_have_text("running")
    expect(row.locator(".counts .state.completed")).to_have_text("1 completed")
    expect(row.locator(".counts .state.waiting")).to_have_text("1 waiting")
    # A state has a shape as well.
    expect(row.locator("td .icon")).to_have_count(row.locator(".state").count())
    ask(world, "DELETE", f"/graphs/{graph}")
    expect(row.locator("td").first).to_have_text("cancelled")
    expect(row.locator(".counts .state.cancelled")).to_have_text("2 cancelled")
    expect(row).to_contain_text("3 nodes")


def test_graph_without_a_name_has_the_beginning_of_its_id(world: World, page: Page) -> None:
    graph = submit_graph(world, [node("a")])
    expect(graph_row(page, f"graph {graph[:8]}")).to_contain_text("1 node ·")


def test_list_is_filtered_by_state_and_older_graphs_are_loaded_on_demand(world: World, page: Page) -> None:
    for number in range(60):
        submit_graph(world, [node("a", "fail" if number == 7 else "echo")], name=f"Number {number}")
    expect(graph_row(page, "Number 59").locator("td").first).to_have_text("completed")
    page.reload()
    expect(page.locator("#graph-rows tr")).to_have_count(50)
    page.get_by_role("button", name="Show older graphs").click()
    expect(graph_row(page, "Number 0")).to_be_attached()
    # An event loads the newest page again: the older ones stay.
    submit_graph(world, [node("a")], name="One more")
    expect(graph_row(page, "One more").locator("td").first).to_have_text("completed")
    expect(graph_row(page, "Number 0")).to_be_attached()
    page.get_by_label("State", exact=True).select_option("failed")
    expect(graph_row(page, "Number 7")).to_be_visible()
    expect(page.locator("#graph-rows .state.completed")).to_have_count(0)


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("device", ["desk", "phone"])
def test_axe_finds_no_violation_in_the_list_in_either_color_scheme_on_a_desk_and_on_a_phone(
    browser: Browser, world: World, scheme: str, device: str
) -> None:
    nodes = [node("fetch"), node("convert", "fail no paper left"), node("mail")]
    # On another device: the nodes of the other graphs would wait behind it.
    nodes.append(node("tidy", "hold", device="server"))
    edges = [edge("fetch", "convert"), edge("convert", "mail"), edge("convert", "tidy", "failure")]
    running = submit_graph(world, nodes, edges, name="Monthly report of the northern region")
    submit_graph(world, nodes[:3], edges[:2], name="Invoices")
    submit_graph(world, [node("a", "fail at the beginning")], name="Nightly check")
    for page in open_page(
        browser, f"{world.url}/#/graphs", color_scheme=scheme, **(PHONE if device == "phone" else {})
    ):
        expect(page.locator("#live-words")).to_have_text("Live")
        expect(graph_row(page, "Nightly check").locator("td").first).to_have_text("failed")
        expect(graph_row(page, "Invoices").locator("td").first).to_have_text("partially failed")
        expect(graph_row(page, "Monthly report of the northern region").locator("td").first).to_have_text("running")
        check_accessibility(page)
        assert page.evaluate("() => document.documentElement.scrollWidth <= window.innerWidth")
        if scheme == "light":
            take_screenshot(page, "graph-list" if device == "desk" else "graph-list-phone")
    ask(world, "DELETE", f"/graphs/{running}")
