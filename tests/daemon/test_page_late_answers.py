"""An answer that arrives when the daemon's page shows something else changes nothing there, in a real browser."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING

import pytest

pytest.importorskip("playwright", reason="the page's tests have a session of their own")

from playwright.sync_api import Page, expect

from tests.daemon.support.page import open_page, submit
from tests.daemon.support.page_browser import World, open_world
from tests.daemon.support.page_graphs import ask, graph_row, node, node_box, open_graph, submit_graph
from tests.daemon.support.page_requests import HeldRequests

if TYPE_CHECKING:
    from collections.abc import Generator

    from playwright.sync_api import Browser

pytestmark = pytest.mark.page

Pair = tuple[str, str]


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Generator[World]:
    """A world with two devices. The server holds what is to run on."""
    with open_world(tmp_path_factory.mktemp("world"), ["laptop", "server"]) as world:
        yield world


@pytest.fixture
def pair(world: World) -> Generator[Pair]:
    """Two graphs with nodes that are held."""
    held = [node("a", "hold", device="server"), node("b", "hold", device="server")]
    pair = (submit_graph(world, held, name="First"), submit_graph(world, held, name="Second"))
    yield pair
    for graph in pair:
        ask(world, "DELETE", f"/graphs/{graph}")


@pytest.fixture
def page(browser: Browser, world: World) -> Generator[Page]:
    """The list of graphs."""
    for page in open_page(browser, f"{world.url}/#/graphs"):
        expect(page.locator("#live-words")).to_have_text("Live")
        yield page


def _show(page: Page, path: str) -> None:
    page.evaluate("path => { location.hash = path; }", path)


def _state(world: World, graph: str) -> object:
    return ask(world, "GET", f"/graphs/{graph}")["state"]


def test_dialog_that_cancels_a_graph_closes_when_the_history_shows_another_graph(
    browser: Browser, world: World, pair: Pair
) -> None:
    for page in open_graph(browser, world, pair[0]):
        _show(page, f"#/graphs/{pair[1]}")
        expect(page.locator("#graph-title")).to_have_text("Second")
        page.get_by_role("button", name="Cancel graph…").click()
        dialog = page.get_by_role("dialog", name="Cancel the graph")
        expect(dialog).to_contain_text("Cancel Second?")
        page.go_back()
        expect(page.locator("#graph-title")).to_have_text("First")
        expect(dialog).to_be_hidden()
        expect(page.locator("#graph-title")).to_be_focused()
        # Also when the address is that of a task above the same graph.
        submit_task = ask(world, "POST", "/tasks", {"request": "echo", "device": "laptop"})
        page.get_by_role("button", name="Cancel graph…").click()
        _show(page, f"#/tasks/{submit_task['id']}")
        expect(page.locator("#task-dialog")).to_be_visible()
        expect(dialog).to_be_hidden()
        page.keyboard.press("Escape")
        page.get_by_role("button", name="Cancel graph…").click()
        dialog.get_by_role("button", name="Cancel the graph").click()
        expect(page.locator("#graph-state-now")).to_have_text("cancelled")
        assert (_state(world, pair[0]), _state(world, pair[1])) == ("cancelled", "running")


@pytest.mark.parametrize("is_missing", [False, True])
def test_late_answer_for_another_graph_changes_nothing(page: Page, world: World, pair: Pair, is_missing: bool) -> None:
    first = HeldRequests(page, f"**/graphs/{pair[0]}")
    _show(page, f"#/graphs/{pair[0]}")
    first.wait()
    # It is not waited for.
    _show(page, f"#/graphs/{pair[1]}")
    expect(page.locator("#graph-title")).to_have_text("Second")
    if is_missing:
        first.fail(404, "there is no graph")
    else:
        first.release()
    expect(page.locator("#graph-title")).to_have_text("Second")
    expect(page).to_have_title("Graph Second · galaxy_trio")
    expect(page.locator("#graph-outcome")).to_have_text("")
    # Events still find it.
    ask(world, "POST", f"/graphs/{pair[1]}/nodes/a/cancel")
    expect(node_box(page, "a")).to_contain_text("cancelled")


def test_answer_from_an_earlier_visit_of_the_same_graph_changes_nothing(page: Page, world: World, pair: Pair) -> None:
    whole = ask(world, "GET", f"/graphs/{pair[0]}")
    first = HeldRequests(page, f"**/graphs/{pair[0]}")
    _show(page, f"#/graphs/{pair[0]}")
    first.wait()
    first.hold_no_more()
    _show(page, "#/graphs")
    ask(world, "PATCH", f"/graphs/{pair[0]}", {"add": [node("c")]})
    _show(page, f"#/graphs/{pair[0]}")
    expect(node_box(page, "c")).to_be_visible()
    first.release(lambda route: route.fulfill(json=whole))
    expect(page.locator("#picture .node")).to_have_count(3)


def test_action_on_a_graph_says_nothing_about_the_next_one(browser: Browser, world: World, pair: Pair) -> None:
    for page in open_graph(browser, world, pair[0]):
        cancelling = HeldRequests(page, "**/nodes/a/cancel", "POST")
        node_box(page, "a").click()
        page.get_by_role("button", name="Cancel: a").click()
        cancelling.wait()
        exporting = HeldRequests(page, "**/graphs/*?format=ours")
        page.get_by_role("button", name="Export", exact=True).click()
        exporting.wait()
        _show(page, f"#/graphs/{pair[1]}")
        expect(page.locator("#graph-title")).to_have_text("Second")
        cancelling.release()
        exporting.fail(413, "it is too large")
        expect(page.locator("#graph-outcome")).to_have_text("")
        # Its buttons do not wait for those of the other graph.
        with page.expect_download() as download:
            page.get_by_role("button", name="Export", exact=True).click()
        assert download.value.suggested_filename == "Second.json"


def test_imported_graph_is_not_shown_to_a_user_in_another_view(page: Page) -> None:
    content = json.dumps({"name": "Late", "nodes": [node("a")]}).encode()
    for is_valid in (True, False):
        importing = HeldRequests(page, "**/graphs", "POST")
        with page.expect_file_chooser() as chooser:
            page.get_by_role("button", name="Import a file…").click()
        text = content if is_valid else content.replace(b"request", b"reqest")
        chooser.value.set_files({"name": "plan.json", "mimeType": "application/json", "buffer": text})
        importing.wait()
        page.get_by_role("link", name="Overview").click()
        page.get_by_label("What to do").focus()
        importing.release()
        expect(page.get_by_label("What to do")).to_be_focused()
        expect(page.locator("#overview")).to_be_visible()
        page.get_by_role("link", name="Graphs").click()
        if is_valid:
            expect(page.locator("#graphs-outcome")).to_have_text("Imported plan.json as Late.")
            expect(page.get_by_role("link", name="Late")).to_be_visible()
        else:
            expect(page.locator("#import-title")).to_have_text("plan.json: not imported, 2 problems")


@pytest.mark.usefixtures("pair")
def test_late_page_of_graphs_in_another_state_is_not_shown(page: Page) -> None:
    failed = HeldRequests(page, "**/graphs?*state=failed*")
    page.get_by_label("State", exact=True).select_option("failed")
    failed.wait()
    with page.expect_response("**/graphs?*state=running*") as response:
        page.get_by_label("State", exact=True).select_option("running")
    response.value.finished()
    expect(graph_row(page, "First")).to_be_visible()
    # After an event the list would be loaded again.
    again = HeldRequests(page, "**/graphs?*state=running*")
    failed.release(lambda route: route.fulfill(json={"graphs": [], "before": None}))
    assert graph_row(page, "First").is_visible()
    again.release()
    # Nor one from an earlier visit, not even the reason why it could not be loaded.
    running = HeldRequests(page, "**/graphs?*state=running*")
    page.reload()
    page.get_by_label("State", exact=True).select_option("running")
    running.wait()
    page.get_by_role("link", name="Overview").click()
    running.fail(503, "it is busy")
    page.get_by_role("link", name="Graphs").click()
    expect(graph_row(page, "First")).to_be_visible()
    expect(page.locator("#graphs-outcome")).to_have_text("")


def test_late_answer_for_another_task_is_not_shown(page: Page, world: World) -> None:
    page.get_by_role("link", name="Overview").click()
    for request in ("echo one", "echo two"):
        submit(page, request)
    one, two = (task["id"] for task in ask(world, "GET", "/tasks?limit=2")["tasks"][::-1])
    late = HeldRequests(page, f"**/tasks/{one}")
    _show(page, f"#/tasks/{one}")
    late.wait()
    _show(page, f"#/tasks/{two}")
    expect(page.locator("#task-request")).to_have_text("echo two")
    late.release()
    expect(page.locator("#task-request")).to_have_text("echo two")
    expect(page).to_have_title("Task echo two · galaxy_trio")


def test_events_that_arrive_while_a_graph_is_loading_are_bounded_and_it_is_loaded_again(page: Page, pair: Pair) -> None:
    """Each event is kept until the answer arrives. There are 2,001, of which the last one has what the answer does not."""
    task = {"id": "0" * 32, "graph": pair[0], "node": "a", "device": "server", "started": None, "ended": None}
    loading = HeldRequests(page, f"**/graphs/{pair[0]}")
    _show(page, f"#/graphs/{pair[0]}")
    loading.wait()
    page.evaluate(
        """async (task) => {
            const graph = await import(new URL('page/graph.js', document.baseURI));
            for (let at = 0; at < 2000; at += 1) graph.applyTask({ ...task, state: 'running' });
            window.read = 0;
            graph.applyTask({ ...task, state: 'running', get device() { window.read += 1; return 'server'; } });
        }""",
        task,
    )
    with page.expect_request(re.compile(f"/graphs/{pair[0]}$")):
        loading.release()
    expect(node_box(page, "a")).to_contain_text("running")
    # The last one was not kept.
    assert page.evaluate("() => window.read") == 0
