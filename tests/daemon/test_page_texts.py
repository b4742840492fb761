"""Texts from devices, files and users stay texts in the dialogs, the messages and the events of the daemon's page, in a real browser."""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING

import pytest

pytest.importorskip("playwright", reason="the page's tests have a session of their own")

from playwright.sync_api import Page, expect

from galaxy_trio._printable import printable
from tests.daemon.support.page import check_accessibility, open_page, submit
from tests.daemon.support.page_browser import World, open_world
from tests.daemon.support.page_graphs import ask, node, open_graph, submit_graph
from tests.daemon.support.page_requests import HeldRequests
from tests.daemon.support.page_world import HOSTILE

if TYPE_CHECKING:
    from collections.abc import Generator

    from playwright.sync_api import Browser, FilePayload

pytestmark = pytest.mark.page

SHOWN = printable(HOSTILE)
# Numbers instead of characters: no text in JSON has lone surrogates.
HIDDEN = """async (most) => {
    const { shown } = await import(new URL('page/dom.js', document.baseURI));
    const found = [];
    for (let point = 0; point <= most; point += 1) {
        const text = String.fromCodePoint(point);
        if (shown(text) !== text) found.push([point, shown(text)]);
    }
    return [found, shown('a\\r\\nb'), shown('a\\rb')];
}"""


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Generator[World]:
    """A world with two devices, one with a hostile name."""
    with open_world(tmp_path_factory.mktemp("world"), ["laptop", HOSTILE]) as world:
        yield world


@pytest.fixture
def page(browser: Browser, world: World) -> Generator[Page]:
    """The overview."""
    for page in open_page(browser, world.url):
        expect(page.locator("#live-words")).to_have_text("Live")
        yield page


def _check(page: Page) -> None:
    assert page.locator("main img, main script, dialog img, dialog script").count() == 0
    assert "\u202e" not in page.locator("body").inner_text()


def test_page_and_command_line_show_the_same_characters_as_escapes(page: Page) -> None:
    found, lines, returned = page.evaluate(HIDDEN, sys.maxunicode)
    assert found == [
        [point, printable(chr(point))] for point in range(sys.maxunicode + 1) if printable(chr(point)) != chr(point)
    ]
    assert (lines, returned) == ("a\r\nb", "a\\u000db")


def test_hostile_name_is_a_text_in_the_dialog_that_cancels_its_graph(browser: Browser, world: World) -> None:
    graph = submit_graph(world, [node("a", "hold")], name=HOSTILE)
    for page in open_graph(browser, world, graph):
        page.get_by_role("button", name="Cancel graph…").click()
        expect(page.locator("#cancel-words")).to_contain_text(f"Cancel {SHOWN}? Nodes that")
        _check(page)
        check_accessibility(page)
        page.get_by_role("dialog").get_by_role("button", name="Cancel the graph").click()
        expect(page.locator("#graph-outcome")).to_have_text(f"Cancelled: {SHOWN}")
        _check(page)


def test_hostile_texts_are_texts_in_the_list_of_events_and_in_the_tables(page: Page, world: World) -> None:
    submit(page, f"fail {HOSTILE}", HOSTILE)
    events = page.locator("#events")
    expect(events).to_contain_text(f"failed on {SHOWN}: fail {SHOWN}")
    graph = submit_graph(world, [node("a")], name=HOSTILE)
    expect(events).to_contain_text(f"{SHOWN}: completed")
    world.do("kill device", HOSTILE)
    submit(page, "echo", HOSTILE)
    expect(events).to_contain_text(f"{SHOWN}: disconnected")
    expect(page.locator("#device-rows th", has_text=SHOWN)).to_be_visible()
    expect(page.locator("#task-rows .problem", has_text=SHOWN)).to_be_visible()
    _check(page)
    world.do("device", HOSTILE)
    assert graph


def test_hostile_name_of_a_file_is_a_text_while_it_is_submitted_and_after_it(page: Page) -> None:
    page.get_by_role("link", name="Graphs").click()
    importing = HeldRequests(page, "**/graphs", "POST")
    content = json.dumps({"name": HOSTILE, "nodes": [node("a")]}).encode()
    file: FilePayload = {
        "name": f"{HOSTILE.replace('/', '-')}.json",
        "mimeType": "application/json",
        "buffer": content,
    }
    with page.expect_file_chooser() as chooser:
        page.get_by_role("button", name="Import a file…").click()
    chooser.value.set_files(file)
    importing.wait()
    expect(page.locator("#graphs-outcome")).to_have_text(f"Submitting {SHOWN.replace('/', '-')}.json…")
    _check(page)
    page.get_by_role("link", name="Overview").click()
    importing.release()
    page.get_by_role("link", name="Graphs").click()
    expect(page.locator("#graphs-outcome")).to_have_text(f"Imported {SHOWN.replace('/', '-')}.json as {SHOWN}.")
    _check(page)


def test_list_of_events_has_the_last_50(page: Page, world: World) -> None:
    for number in range(30):
        ask(world, "POST", "/tasks", {"request": f"echo {number}", "device": "laptop"})
    # Each runs and ends.
    expect(page.locator("#events li").first).to_contain_text("completed on laptop: echo 29")
    expect(page.locator("#events li")).to_have_count(50)
