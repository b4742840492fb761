"""Graphs that the daemon's page imports from files and exports, in a real browser."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

pytest.importorskip("playwright", reason="the page's tests have a session of their own")

from playwright.sync_api import Page, Route, expect

from galaxy_trio.daemon.web.security import MAX_BODY, MAX_GRAPH_BODY
from galaxy_trio.graph import read_graph
from tests.daemon.support.page import check_accessibility, open_page
from tests.daemon.support.page_browser import World, open_world
from tests.daemon.support.page_graphs import ask, edge, node, node_box, open_graph, submit_graph
from tests.daemon.support.page_requests import sent_by

if TYPE_CHECKING:
    from collections.abc import Generator

    from playwright.sync_api import Browser

pytestmark = pytest.mark.page

OURS = json.dumps({"name": "Imported", "nodes": [node("a"), node("b")], "edges": [edge("a", "b")]})
ORIGINAL = json.dumps(
    {
        "name": "From the original",
        "tasks": {"t1": {"task_id": "t1", "description": "echo one", "target_device_id": "laptop"}},
        "dependencies": {},
    }
)
INVALID = {"nodes": [{"id": "a"}, node("b", priority="high")], "edges": [edge("b", "<img src=x>\u202e")]}
DROP = """([text, names]) => {
    const files = new DataTransfer();
    for (const name of names) files.items.add(new File([text], name));
    const target = document.querySelector('main');
    target.dispatchEvent(new DragEvent('dragover', { bubbles: true, cancelable: true, dataTransfer: files }));
    window.marked = document.body.classList.contains('dropping');
    target.dispatchEvent(new DragEvent('drop', { bubbles: true, cancelable: true, dataTransfer: files }));
}"""


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Generator[World]:
    """A world with one device."""
    with open_world(tmp_path_factory.mktemp("world"), ["laptop"]) as world:
        yield world


@pytest.fixture
def page(browser: Browser, world: World) -> Generator[Page]:
    """The list of graphs."""
    for page in open_page(browser, f"{world.url}/#/graphs"):
        expect(page.locator("#live-words")).to_have_text("Live")
        yield page


def _choose(page: Page, name: str, content: bytes) -> None:
    with page.expect_file_chooser() as chooser:
        page.get_by_role("button", name="Import a file…").click()
    chooser.value.set_files({"name": name, "mimeType": "application/json", "buffer": content})


@pytest.mark.parametrize(("text", "name", "shown"), [(OURS, "Imported", "b"), (ORIGINAL, "From the original", "t1")])
def test_file_in_either_form_is_imported_and_shown(page: Page, text: str, name: str, shown: str) -> None:
    _choose(page, "plan.json", text.encode())
    expect(page.locator("#graph-title")).to_have_text(name)
    expect(node_box(page, shown)).to_contain_text("completed")


def test_file_that_is_larger_than_other_requests_is_imported(page: Page) -> None:
    large = {"name": "Large", "nodes": [node("a", f"echo {'x' * (MAX_BODY - 5)}")]}
    _choose(page, "large.json", json.dumps(large).encode())
    expect(page.locator("#graph-title")).to_have_text("Large")


def test_file_is_imported_where_it_is_dropped_on_the_page(page: Page) -> None:
    page.get_by_role("link", name="Overview").click()
    page.evaluate(DROP, [OURS, ["plan.json"]])
    expect(page.locator("#graph-title")).to_have_text("Imported")
    assert page.evaluate("() => window.marked && !document.body.classList.contains('dropping')")
    page.evaluate(DROP, [OURS, ["one.json", "two.json"]])
    expect(page.locator("#import-title")).to_have_text("2 files: not imported, 1 problem")


def test_file_that_is_dropped_while_a_dialog_is_open_is_not_imported(page: Page, world: World) -> None:
    sent = sent_by(page)
    task = ask(world, "POST", "/tasks", {"request": "echo", "device": "laptop"})["id"]
    page.evaluate("path => { location.hash = path; }", f"#/tasks/{task}")
    expect(page.locator("#task-dialog")).to_be_visible()
    page.evaluate(DROP, [OURS, ["plan.json"]])
    assert not page.evaluate("() => window.marked")
    page.keyboard.press("Escape")
    expect(page.locator("#task-dialog")).to_be_hidden()
    after = OURS.replace("Imported", "After the dialog")
    page.evaluate(DROP, [after, ["plan.json"]])
    expect(page.locator("#graph-title")).to_have_text("After the dialog")
    assert [request.post_data for request in sent if request.method == "POST"] == [after]


def test_all_problems_of_a_file_are_shown_with_their_paths(page: Page) -> None:
    _choose(page, "bad\u202e.json", json.dumps(INVALID).encode())
    expect(page.locator("#import-title")).to_have_text("bad\\u202e.json: not imported, 3 problems")
    expect(page.locator("#import-title")).to_be_focused()
    expect(page.locator("#import-list code")).to_have_text(["nodes[0].request", "nodes[1].priority", "edges[0].target"])
    expect(page.locator("#import-list")).to_contain_text("<img src=x>")
    assert page.locator("#import-problems img").count() == 0
    check_accessibility(page)
    page.get_by_role("button", name="Close the problems").click()
    expect(page.get_by_role("button", name="Import a file…")).to_be_focused()
    many = {"nodes": [{"id": f"n{number}"} for number in range(200)]}
    _choose(page, "many.json", json.dumps(many).encode())
    expect(page.locator("#import-list li")).to_have_count(200)


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("plan.yaml", b"nodes: []", "The page imports JSON only. The command line reads YAML and TOML"),
        ("plan.toml", b"nodes = []", "The page imports JSON only. The command line reads YAML and TOML"),
        ("plan.json", b"nodes: []", "The file is not JSON: "),
        ("plan.json", b"\xff\xfe{}", "The file is not JSON: it is no text in UTF-8"),
        ("plan.json", b"[]", "The body must be a graph"),
        ("plan.json", b" " * (MAX_GRAPH_BODY + 1), f"the daemon accepts at most {MAX_GRAPH_BODY:,}."),
        ("plan.json", b'{"nodes": [{"id": "\\ud800", "request": "x"}]}', "lone surrogate"),
    ],
)
def test_what_the_daemon_cannot_take_is_refused_with_the_reason(
    page: Page, name: str, content: bytes, words: str
) -> None:
    _choose(page, name, content)
    expect(page.locator("#import-list")).to_contain_text(words)


def test_import_whose_answer_was_lost_is_not_a_second_graph(page: Page, world: World) -> None:
    def lose(route: Route) -> None:
        route.fetch()
        route.abort()

    lost = OURS.replace("Imported", "Once only")
    page.route("**/graphs", lose)
    _choose(page, "plan.json", lost.encode())
    expect(page.locator("#import-list")).to_have_text("The daemon does not respond: is it running?")
    page.unroute("**/graphs")
    _choose(page, "plan.json", lost.encode())
    expect(page.locator("#graph-title")).to_have_text("Once only")
    page.goto(f"{world.url}/#/graphs")
    expect(page.get_by_role("link", name="Once only")).to_have_count(1)


@pytest.mark.parametrize(
    ("name", "file"),
    [
        ("Monthly report", "Monthly report"),
        ("../../etc/passwd\0", "etc-passwd-u0000"),
        ('a<b>:"/\\|?*c', "a-b-c"),
        ("Ünïcode 报告", "Ünïcode 报告"),
        ("con.txt", None),
        ("...", None),
        (None, "graph"),
        ("x" * 10_000, "x" * 80),
    ],
)
def test_export_in_both_forms_has_a_safe_name_and_can_be_read_again(
    browser: Browser, world: World, name: str | None, file: str | None
) -> None:
    graph = submit_graph(world, [node("a"), node("b", "fail")], [edge("a", "b")], name=name)
    expected = f"graph-{graph[:8]}" if file is None else f"graph {graph[:8]}" if file == "graph" else file
    for page in open_graph(browser, world, graph):
        expect(node_box(page, "b")).to_contain_text("failed")
        for button, suffix in (("Export", ".json"), ("Export for UFO³", ".original.json")):
            with page.expect_download() as download:
                page.get_by_role("button", name=button, exact=True).click()
            assert download.value.suggested_filename == f"{expected}{suffix}"
            written = json.loads(download.value.path().read_text())
            assert ("nodes" in written) == (suffix == ".json")
            assert [one.id for one in read_graph(written).graph.nodes] == ["a", "b"]


def test_graph_that_cannot_be_exported_shows_the_reason(browser: Browser, world: World) -> None:
    graph = submit_graph(world, [node("a")], name="Too large")
    for page in open_graph(browser, world, graph):
        page.route("**/graphs/*?format=*", lambda route: route.fulfill(status=413, json={"error": "it is too large"}))
        page.get_by_role("button", name="Export", exact=True).click()
        expect(page.locator("#graph-outcome")).to_have_text("It is too large")
