"""The addresses of the daemon's page: a link, a reload and the history show the same again, in a real browser."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import pytest

pytest.importorskip("playwright", reason="the page's tests have a session of their own")

from playwright.sync_api import Page, expect

from tests.daemon.support.page import check_accessibility, open_page, submit
from tests.daemon.support.page_browser import World, open_world
from tests.daemon.support.page_graphs import ask, node, submit_graph
from tests.daemon.support.page_requests import sent_by

if TYPE_CHECKING:
    from collections.abc import Generator
    from pathlib import Path

    from playwright.sync_api import Browser, Locator

pytestmark = pytest.mark.page

TOKEN = "a-token-for-the-page"
REQUESTED = ("/events", "/tasks", "?format=ours", "/result")


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Generator[World]:
    """A world with one device."""
    with open_world(tmp_path_factory.mktemp("world"), ["laptop"]) as world:
        yield world


@pytest.fixture
def page(browser: Browser, world: World) -> Generator[Page]:
    """The page when it is live."""
    for page in open_page(browser, world.url):
        expect(page.locator("#live-words")).to_have_text("Live")
        yield page


def _dialog(page: Page) -> Locator:
    return page.locator("#task-dialog")


def test_task_has_an_address_that_a_reload_and_another_browser_show_again(
    browser: Browser, world: World, page: Page
) -> None:
    submit(page, "echo shared")
    page.get_by_role("button", name="Show task: echo shared").first.click()
    expect(_dialog(page)).to_be_visible()
    expect(page.locator("#task-title")).to_be_focused()
    expect(page).to_have_title("Task echo shared · galaxy_trio")
    expect(page).to_have_url(re.compile("/#/tasks/[0-9a-f]{32}$"))
    page.reload()
    expect(_dialog(page)).to_contain_text("echo shared")
    for other in open_page(browser, page.url):
        expect(_dialog(other)).to_contain_text("echo shared")
        # Closing it shows the overview beneath it: there is nothing to go back to.
        other.keyboard.press("Escape")
        expect(_dialog(other)).to_be_hidden()
        expect(other.locator("#overview")).to_be_visible()
        expect(other).to_have_title("galaxy_trio")
        expect(other).to_have_url(f"{world.url}/#/")


def test_history_opens_and_closes_what_was_shown(world: World, page: Page) -> None:
    submit(page, "echo history")
    page.get_by_role("button", name="Show task: echo history").first.click()
    expect(_dialog(page)).to_be_visible()
    page.go_back()
    expect(_dialog(page)).to_be_hidden()
    expect(page.get_by_role("button", name="Show task: echo history").first).to_be_focused()
    page.go_forward()
    expect(_dialog(page)).to_be_visible()
    page.get_by_role("button", name="Close").click()
    expect(_dialog(page)).to_be_hidden()
    expect(page).to_have_url(f"{world.url}/")
    page.get_by_role("link", name="Graphs").click()
    expect(page.get_by_role("heading", name="Graphs")).to_be_focused()
    expect(page).to_have_title("Graphs · galaxy_trio")
    expect(page.locator("#overview")).to_be_hidden()
    page.go_back()
    expect(page.locator("#overview")).to_be_visible()
    expect(page.locator("#overview-title")).to_be_focused()


def test_task_of_a_task_goes_back_to_the_view_when_it_is_closed(world: World, page: Page) -> None:
    first = ask(world, "POST", "/tasks", {"request": "fail first", "device": "laptop"})["id"]
    ask(world, "GET", f"/tasks/{first}?wait=60")
    again = ask(world, "POST", f"/tasks/{first}/retry")["id"]
    expect(page.get_by_role("button", name="Show task: fail first")).to_have_count(2)
    page.get_by_role("button", name="Show task: fail first").first.click()
    expect(_dialog(page)).to_contain_text(again)
    _dialog(page).get_by_role("link", name=first).click()
    expect(page.locator("#task-facts")).not_to_contain_text("Retry of")
    page.keyboard.press("Escape")
    expect(_dialog(page)).to_be_hidden()
    expect(page).to_have_url(f"{world.url}/")


@pytest.mark.parametrize("task", ["0" * 32, "a b", "%3Cimg%20src=x%3E", "\u202e" * 20])
def test_unknown_task_shows_that_there_is_none(browser: Browser, world: World, task: str) -> None:
    for page in open_page(browser, f"{world.url}/#/tasks/{task}"):
        expect(_dialog(page)).to_contain_text("There is no task")
        expect(page.get_by_role("heading", name="is not shown")).to_be_focused()
        expect(page).to_have_title("Task not found · galaxy_trio")
        check_accessibility(page)
        page.get_by_role("button", name="Close").click()
        expect(page.locator("#overview")).to_be_visible()


@pytest.mark.parametrize("path", ["nothing", "tasks/", "tasks", "graphs/a/b", "tasks/a/b", "%ff", "graphs/a/list/b"])
def test_unknown_address_is_named_as_such(browser: Browser, world: World, path: str) -> None:
    for page in open_page(browser, f"{world.url}/#/{path}"):
        expect(page.get_by_role("heading", name="There is nothing at this address")).to_be_focused()
        expect(page).to_have_title("Nothing here · galaxy_trio")
        check_accessibility(page)
        page.get_by_role("link", name="Show the overview").click()
        expect(page.locator("#overview")).to_be_visible()


def _check_no_token(page: Page) -> None:
    """The token is neither in the page nor in what the browser keeps when its tab is closed."""
    assert TOKEN not in page.url
    assert TOKEN not in page.content()
    assert TOKEN not in page.evaluate("() => JSON.stringify([{ ...localStorage }, document.cookie, history.state])")


def test_shared_link_asks_for_the_token_first_and_never_has_it(browser: Browser, tmp_path: Path) -> None:
    with open_world(tmp_path, ["laptop"], token=TOKEN) as world:
        task = ask(world, "POST", "/tasks", {"request": "echo secret", "device": "laptop"}, TOKEN)["id"]
        submit_graph(world, [node("a")], name="Guarded", token=TOKEN)
        for page in open_page(browser, "about:blank"):
            sent = sent_by(page)
            page.goto(f"{world.url}/#/tasks/{task}")
            page.get_by_label("Token", exact=True).fill(TOKEN)
            page.keyboard.press("Enter")
            expect(_dialog(page)).to_contain_text("echo secret")
            _check_no_token(page)
            page.keyboard.press("Escape")
            page.get_by_role("link", name="Graphs").click()
            page.get_by_role("link", name="Guarded").click()
            with page.expect_download():
                page.get_by_role("button", name="Export", exact=True).click()
            page.get_by_role("link", name="Overview").click()
            submit(page, "large")
            page.get_by_role("button", name="Show task: large").click()
            with page.expect_download():
                page.get_by_role("button", name="Download").click()
            assert all(any(request.url.endswith(end) for request in sent) for end in REQUESTED)
            assert not [request.url for request in sent if TOKEN in f"{request.url} {request.post_data}"]
            _check_no_token(page)


def test_skip_link_leads_to_what_is_shown_and_keeps_the_address(world: World, page: Page) -> None:
    page.get_by_role("link", name="Graphs").click()
    page.get_by_role("link", name="Skip to the graphs").focus()
    page.keyboard.press("Enter")
    expect(page.locator("#graphs")).to_be_focused()
    expect(page).to_have_url(f"{world.url}/#/graphs")
