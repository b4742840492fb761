"""The focus of the keyboard is not lost when the daemon's page changes what has it, in a real browser."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

pytest.importorskip("playwright", reason="the page's tests have a session of their own")

from playwright.sync_api import Page, expect

from tests.daemon.support.page import device_row, open_page, submit, task_row
from tests.daemon.support.page_browser import World, open_world
from tests.daemon.support.page_graphs import ask, edge, graph_row, node, node_box, node_row, open_graph, submit_graph

if TYPE_CHECKING:
    from collections.abc import Generator

    from playwright.sync_api import Browser, Locator

pytestmark = pytest.mark.page

UPDATE_DEVICE = """async ([name, status]) => {
    const devices = await import(new URL('page/devices.js', document.baseURI));
    devices.update('status', { device_id: name, status });
}"""


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Generator[World]:
    """A world with two devices. The server holds what is to run on."""
    with open_world(tmp_path_factory.mktemp("world"), ["laptop", "server"]) as world:
        yield world


@pytest.fixture
def page(browser: Browser, world: World) -> Generator[Page]:
    """The overview."""
    for page in open_page(browser, world.url):
        expect(page.locator("#live-words")).to_have_text("Live")
        yield page


@pytest.fixture
def graph(world: World) -> Generator[str]:
    """A graph whose first node is held."""
    graph = submit_graph(world, [node("a", "hold", device="server"), node("b")], [edge("a", "b")], name="Held")
    yield graph
    ask(world, "DELETE", f"/graphs/{graph}")


def _press(page: Page, control: Locator) -> None:
    control.focus()
    page.keyboard.press("Enter")


def test_button_that_another_one_replaces_leaves_the_focus_in_its_row_and_its_dialog(page: Page) -> None:
    submit(page, "hold one")
    show = page.get_by_role("button", name="Show task: hold one", exact=True).first
    _press(page, task_row(page, "hold one").get_by_role("button", name="Cancel"))
    expect(task_row(page, "hold one").locator(".state")).to_have_text("cancelled")
    # Not on what has replaced it: a second press would retry the task.
    expect(show).to_be_focused()
    _press(page, task_row(page, "hold one").get_by_role("button", name="Retry"))
    expect(page.get_by_role("button", name="Show task: hold one", exact=True)).to_have_count(2)
    _press(page, show)
    dialog = page.locator("#task-dialog")
    _press(page, dialog.get_by_role("button", name="Cancel"))
    expect(dialog.locator("dl")).to_contain_text("cancelled")
    expect(page.locator("#task-title")).to_be_focused()


def test_link_in_a_dialog_that_is_drawn_again_keeps_the_focus(page: Page, world: World) -> None:
    submit(page, "hold first")
    _press(page, task_row(page, "hold first").get_by_role("button", name="Cancel"))
    expect(task_row(page, "hold first").locator(".state")).to_have_text("cancelled")
    first = ask(world, "GET", "/tasks?limit=1")["tasks"][0]["id"]
    second = ask(world, "POST", f"/tasks/{first}/retry")["id"]
    page.goto(f"{world.url}/#/tasks/{second}")
    link = page.locator("#task-facts").get_by_role("link", name=first)
    link.focus()
    ask(world, "DELETE", f"/tasks/{second}")
    expect(page.locator("#task-facts")).to_contain_text("cancelled")
    expect(link).to_be_focused()


def test_focus_returns_from_a_dialog_to_what_has_replaced_its_opener(
    browser: Browser, world: World, graph: str
) -> None:
    for page in open_graph(browser, world, graph):
        node_box(page, "a").focus()
        page.keyboard.press("Enter")
        _press(page, page.get_by_role("link", name="Open its task"))
        expect(page.locator("#task-title")).to_be_focused()
        ask(world, "POST", f"/graphs/{graph}/nodes/a/cancel")
        expect(page.locator("#node-facts")).to_contain_text("cancelled")
        page.keyboard.press("Escape")
        expect(page.get_by_role("link", name="Open its task")).to_be_focused()
        # The same in the list.
        page.get_by_role("button", name="Close the node").click()
        page.get_by_role("link", name="List").click()
        _press(page, page.get_by_role("link", name="Open the task of a"))
        expect(page.locator("#task-title")).to_be_focused()
        ask(world, "POST", f"/graphs/{graph}/nodes/a/retry")
        expect(node_row(page, "a")).to_contain_text("running")
        page.keyboard.press("Escape")
        expect(page.get_by_role("link", name="Open the task of a")).to_be_focused()


def test_row_that_goes_leaves_the_focus_at_its_table(browser: Browser, world: World, graph: str) -> None:
    for page in open_graph(browser, world, graph):
        page.get_by_role("link", name="List").click()
        page.get_by_label("In state").select_option("running")
        _press(page, page.get_by_role("button", name="Cancel: a"))
        expect(page.locator("#node-rows tr")).to_have_count(0)
        expect(page.get_by_role("group", name="Table of nodes")).to_be_focused()
        page.get_by_role("link", name="All graphs").click()
        page.get_by_label("State", exact=True).select_option("failed")
        graph_row(page, "Held").get_by_role("link").focus()
        ask(world, "POST", f"/graphs/{graph}/nodes/a/retry")
        expect(page.locator("#graph-rows a", has_text="Held")).to_have_count(0)
        expect(page.get_by_role("group", name="Table of graphs")).to_be_focused()


def test_row_that_goes_does_not_give_the_focus_to_an_equal_button_of_another_row(
    browser: Browser, world: World
) -> None:
    twins = [node("a", "hold", name="twin"), node("b", "hold", device="server", name="twin")]
    graph = submit_graph(world, twins)
    for page in open_graph(browser, world, graph):
        page.get_by_role("link", name="List").click()
        page.get_by_label("In state").select_option("running")
        expect(page.locator("#node-rows tr")).to_have_count(2)
        _press(page, page.get_by_role("button", name="Cancel: twin").first)
        expect(page.locator("#node-rows tr")).to_have_count(1)
        # A second press would cancel the other one.
        expect(page.get_by_role("group", name="Table of nodes")).to_be_focused()
    ask(world, "DELETE", f"/graphs/{graph}")


def test_panel_of_a_node_returns_the_focus_to_its_row(browser: Browser, world: World, graph: str) -> None:
    for page in open_graph(browser, world, graph):
        page.get_by_role("link", name="List").click()
        show = page.get_by_role("button", name="Show node: b")
        _press(page, show)
        expect(page.locator("#node-title")).to_be_focused()
        page.keyboard.press("Escape")
        expect(show).to_be_focused()
        page.keyboard.press("Enter")
        # Its row is not shown any more.
        page.get_by_label("Search").fill("nothing")
        _press(page, page.get_by_role("button", name="Close the node"))
        expect(page.get_by_role("group", name="Table of nodes")).to_be_focused()


def test_row_that_moves_takes_the_focus_along(page: Page) -> None:
    button = device_row(page, "server").get_by_role("button")
    button.focus()
    page.evaluate(UPDATE_DEVICE, ["server", "failed"])
    expect(page.locator("#device-rows th").first).to_contain_text("server")
    expect(button).to_be_focused()
    page.keyboard.press("Enter")
    expect(device_row(page, "server")).to_contain_text("reconnect")
    expect(button).not_to_have_attribute("aria-disabled", "true")
    expect(button).to_be_focused()


def test_button_keeps_the_focus_while_it_works_and_leaves_it_at_its_part_of_the_page_when_it_goes(
    page: Page, world: World
) -> None:
    page.route("**/tasks", lambda route: route.abort())
    page.get_by_label("What to do").fill("echo x")
    _press(page, page.get_by_role("button", name="Submit"))
    expect(page.locator("#submit-outcome")).to_contain_text("The daemon does not respond")
    expect(page.get_by_role("button", name="Submit")).to_be_focused()
    page.unroute("**/tasks")
    for number in range(51):
        ask(world, "POST", "/tasks", {"request": f"echo {number}", "device": "laptop"})
    page.reload()
    expect(page.locator("#task-rows tr")).to_have_count(50)
    _press(page, page.get_by_role("button", name="Show older tasks"))
    expect(page.get_by_role("button", name="Show older tasks")).to_be_hidden()
    expect(page.locator("#tasks")).to_be_focused()


def test_change_of_the_form_by_the_history_leaves_the_focus_in_the_graph(
    browser: Browser, world: World, graph: str
) -> None:
    for page in open_graph(browser, world, graph):
        _press(page, page.get_by_role("link", name="List"))
        expect(page.get_by_role("link", name="List")).to_be_focused()
        page.get_by_role("button", name="Show node: b").focus()
        page.go_back()
        expect(page.locator("#graph")).to_be_focused()
        # A graph that does not exist any more.
        node_box(page, "b").focus()
        page.route(f"**/graphs/{graph}", lambda route: route.fulfill(status=404, json={"error": "there is no graph"}))
        ask(world, "PATCH", f"/graphs/{graph}", {"add": [node("c")]})
        expect(page.locator("#graph-body")).to_be_hidden()
        expect(page.locator("#graph")).to_be_focused()


def test_edit_of_a_graph_leaves_the_focus_on_its_node_or_near_it(browser: Browser, world: World, graph: str) -> None:
    for page in open_graph(browser, world, graph):
        node_box(page, "b").focus()
        ask(world, "PATCH", f"/graphs/{graph}", {"add": [node("c")], "connect": [edge("b", "c")]})
        expect(node_box(page, "c")).to_be_visible()
        expect(node_box(page, "b")).to_be_focused()
        node_box(page, "c").focus()
        ask(world, "PATCH", f"/graphs/{graph}", {"remove": ["c"]})
        expect(node_box(page, "c")).to_have_count(0)
        expect(page.locator("#picture")).to_be_focused()
        # Of two nodes with the same name, it is the same one.
        ask(world, "PATCH", f"/graphs/{graph}", {"add": [node("d", name="twin"), node("e", name="twin")]})
        node_box(page, "twin").nth(1).focus()
        expect(node_box(page, "twin").nth(1)).to_be_focused()
        ask(world, "PATCH", f"/graphs/{graph}", {"add": [node("f")]})
        expect(node_box(page, "f")).to_be_visible()
        expect(node_box(page, "twin").nth(1)).to_be_focused()
        node_box(page, "b").focus()
        page.keyboard.press("Enter")
        page.get_by_role("button", name="Cancel: b").focus()
        ask(world, "PATCH", f"/graphs/{graph}", {"remove": ["b"]})
        expect(page.locator("#node")).to_be_hidden()
        expect(page.locator("#graph")).to_be_focused()


def test_graph_that_was_cancelled_by_its_dialog_has_the_focus(browser: Browser, world: World, graph: str) -> None:
    for page in open_graph(browser, world, graph):
        _press(page, page.get_by_role("button", name="Cancel graph…"))
        dialog = page.get_by_role("dialog", name="Cancel the graph")
        _press(page, dialog.get_by_role("button", name="Let it run"))
        expect(page.get_by_role("button", name="Cancel graph…")).to_be_focused()
        page.keyboard.press("Enter")
        _press(page, dialog.get_by_role("button", name="Cancel the graph"))
        expect(page.get_by_role("button", name="Cancel graph…")).to_be_hidden()
        expect(page.locator("#graph-title")).to_be_focused()


def test_more_of_a_long_result_is_unfolded_with_the_keyboard(page: Page) -> None:
    submit(page, "numbers")
    expect(task_row(page, "numbers").locator(".state")).to_have_text("completed")
    _press(page, page.get_by_role("button", name="Show task: numbers"))
    _press(page, page.get_by_role("button", name="150 more"))
    expect(page.get_by_role("button", name="50 more", exact=True)).to_be_focused()
    page.keyboard.press("Enter")
    expect(page.locator("#task-result li")).to_have_count(250)
    expect(page.locator("#task-result summary")).to_be_focused()


@pytest.mark.parametrize("by", ["a click", "Tab"])
def test_focus_that_the_user_took_away_stays_away(page: Page, by: str) -> None:
    device_row(page, "server").get_by_role("button").focus()
    if by == "a click":
        page.locator("h1").click()
    else:
        # A headless browser has nothing outside of the page to which Tab could lead.
        page.evaluate("() => new Promise((done) => { document.activeElement.blur(); setTimeout(done); })")
    page.evaluate(UPDATE_DEVICE, ["server", "failed"])
    expect(device_row(page, "server").locator(".state")).to_have_text("failed")
    assert page.evaluate("() => document.activeElement === document.body")
