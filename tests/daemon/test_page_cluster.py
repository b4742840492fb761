"""The card of the daemon's page that shows the daemons of a cluster, in a real browser, with answers of the test in place of a cluster."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

pytest.importorskip("playwright", reason="the page's tests have a session of their own")

from playwright.sync_api import Locator, Page, expect

from galaxy_trio._printable import printable
from tests.daemon.support.page import check_accessibility, open_page, take_screenshot
from tests.daemon.support.page_browser import World, open_world
from tests.daemon.support.page_world import HOSTILE

if TYPE_CHECKING:
    from collections.abc import Generator, Sequence

    from playwright.sync_api import Browser, Locator

pytestmark = pytest.mark.page

NOW = "2026-11-30T12:00:00+00:00"
EVENT = "id: 1\nevent: cluster\ndata: {}\n\n"
PHONE = {"viewport": {"width": 390, "height": 844}, "has_touch": True, "is_mobile": True}


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Generator[World]:
    """A world with one daemon on SQLite."""
    with open_world(tmp_path_factory.mktemp("world"), ["laptop"]) as world:
        yield world


def _daemon(name: str, seconds: int | None, *, died: str | None = None, **more: object) -> dict[str, Any]:
    """A daemon with the seconds until its lease ends."""
    minute, second = divmod(60 * 60 + (seconds or 0), 60)
    expires = None if seconds is None else f"2026-11-30T{11 + minute // 60}:{minute % 60:02}:{second:02}+00:00"
    shown = {"id": name, "name": name, "url": None, "answers": False, "started": NOW, "expires": expires}
    return {**shown, "died": died, "draining": False, "devices": 0, "running": 0, **more}


def _answer(page: Page, daemons: Sequence[dict[str, Any]], unowned: int = 0) -> None:
    """Let the page load these daemons from now on."""
    body = {"now": NOW, "daemons": daemons, "devices": 7, "unowned": unowned}
    page.route("**/cluster", lambda route: route.fulfill(json=body))


FOUR = (
    _daemon("one", 9, answers=True, url="http://10.0.0.1:8765", devices=4, running=2),
    _daemon("two", -3, devices=1, running=1),
    _daemon("three", 0, died="2026-11-30T11:58:00+00:00"),
    _daemon("four", 9, draining=True),
)


def _row(page: Page, name: str) -> Locator:
    return page.locator("#daemon-rows tr", has=page.get_by_role("rowheader", name=name))


def test_card_is_hidden_while_the_only_daemon_has_no_lease(browser: Browser, world: World) -> None:
    for page in open_page(browser, world.url):
        expect(page.locator("#daemon-rows tr")).to_have_count(1)
        expect(page.locator("#cluster")).to_be_hidden()


def test_card_shows_daemons_with_lease_devices_and_tasks_and_since_when_one_is_gone(
    browser: Browser, world: World
) -> None:
    for page in open_page(browser, world.url):
        _answer(page, FOUR, unowned=2)
        page.reload()
        expect(page.locator("#cluster")).to_be_visible()
        columns = {name: _row(page, name).locator("td") for name in ("one", "two", "three", "four")}
        expect(columns["one"]).to_have_text(["alive", "9 s left", "4", "2"])
        expect(columns["two"]).to_have_text(["late", "over 3 s ago", "1", "1"])
        expect(columns["three"]).to_have_text(["gone", "2 min ago", "0", "0"])
        expect(columns["four"]).to_have_text(["draining", "9 s left", "0", "0"])
        expect(_row(page, "one").locator("small")).to_have_text("shows this page · http://10.0.0.1:8765")
        expect(page.locator("#unowned")).to_have_text("2 of 7 devices have no owner at the moment.")


def test_daemon_that_was_restarted_is_shown_once(browser: Browser, world: World) -> None:
    dead = [_daemon("one", 0, died=f"2026-11-30T11:5{minute}:00+00:00") for minute in (9, 8)]
    gone = [_daemon("two", 0, died=f"2026-11-30T11:5{minute}:00+00:00") for minute in (7, 6)]
    for page in open_page(browser, world.url):
        _answer(page, [_daemon("one", 9), *dead, *gone])
        page.reload()
        expect(page.locator("#daemon-rows th")).to_have_text(["one", "two"])
        expect(_row(page, "one")).to_contain_text("alive")
        expect(_row(page, "two")).to_contain_text("3 min ago")


def test_event_of_the_cluster_loads_the_daemons_again(browser: Browser, world: World) -> None:
    for page in open_page(browser, world.url):
        # Without timers, only the event remains.
        page.add_init_script("window.setInterval = () => 0")
        page.route("**/events", lambda route: route.fulfill(body=": nothing\n\n", content_type="text/event-stream"))
        _answer(page, FOUR)
        page.reload()
        expect(page.locator("#daemon-rows tr")).to_have_count(4)
        _answer(page, FOUR[:1])
        page.unroute("**/events")
        page.route("**/events", lambda route: route.fulfill(body=EVENT, content_type="text/event-stream"))
        expect(page.locator("#daemon-rows tr")).to_have_count(1)


def test_daemons_are_loaded_periodically_because_leases_have_no_events(browser: Browser, world: World) -> None:
    for page in open_page(browser, world.url):
        page.add_init_script(
            "const set = window.setInterval; window.setInterval = (work, time) => set(work, time / 100)"
        )
        _answer(page, [_daemon("one", 9)])
        page.reload()
        expect(_row(page, "one")).to_contain_text("9 s left")
        _answer(page, [_daemon("one", 5)])
        expect(_row(page, "one")).to_contain_text("5 s left")


def test_names_and_addresses_of_daemons_are_texts(browser: Browser, world: World) -> None:
    for page in open_page(browser, world.url):
        _answer(page, [_daemon(HOSTILE, 9, url=f"javascript:{HOSTILE}")])
        page.reload()
        expect(page.locator("#daemon-rows th")).to_contain_text(printable(HOSTILE))
        expect(page.locator("#daemon-rows small")).to_have_text(f"javascript:{printable(HOSTILE)}")
        assert page.locator("#cluster img, #cluster script, #cluster a").count() == 0


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("device", ["desk", "phone"])
def test_axe_finds_no_violation_in_the_card_in_either_color_scheme_on_a_desk_and_on_a_phone(
    browser: Browser, world: World, scheme: str, device: str
) -> None:
    for page in open_page(browser, world.url, color_scheme=scheme, **(PHONE if device == "phone" else {})):
        _answer(page, FOUR, unowned=2)
        page.reload()
        expect(_row(page, "three")).to_be_visible()
        expect(page.locator("#live-words")).to_have_text("Live")
        check_accessibility(page)
        assert page.evaluate("() => document.documentElement.scrollWidth <= window.innerWidth")
        if (device, scheme) == ("desk", "light"):
            take_screenshot(page, "cluster")
