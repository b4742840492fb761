"""The daemon's page in a real browser, with a real daemon, server and devices.

With ``GALAXY_TRIO_SCREENSHOTS=docs/images`` the tests also take the documentation's pictures.
"""

from __future__ import annotations

import json
import re
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import pytest
import trio

pytest.importorskip("playwright", reason="the page's tests have a session of their own")

from playwright.sync_api import Page, expect

from galaxy_trio.daemon.store.events import delete_events
from galaxy_trio.daemon.store.store import open_store
from tests.daemon.support.page import (
    check_accessibility,
    device_row,
    open_page,
    problem_of,
    submit,
    take_screenshot,
    task_row,
)
from tests.daemon.support.page_browser import World, open_world

if TYPE_CHECKING:
    from collections.abc import Generator
    from pathlib import Path

    from playwright.sync_api import Browser

pytestmark = pytest.mark.page

TOKEN = "a-token-for-the-page"


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Generator[World]:
    """A world with three connected devices and one that never connects."""
    with open_world(tmp_path_factory.mktemp("world"), missing=["printer"]) as world:
        yield world


@pytest.fixture
def page(browser: Browser, world: World) -> Generator[Page]:
    """The page when it is live."""
    for page in open_page(browser, world.url):
        expect(page.locator("#live-words")).to_have_text("Live")
        yield page


def test_devices_are_shown_with_their_information_or_the_reason_why_they_are_not_connected(page: Page) -> None:
    expect(page.locator("#sum-devices")).to_have_text("3")
    expect(page.locator("#sum-devices-of")).to_have_text("of 4")
    expect(device_row(page, "laptop")).to_contain_text("linux · cli · browser")
    expect(device_row(page, "laptop").locator(".state")).to_have_text("idle")
    expect(device_row(page, "printer").locator(".state")).to_have_text("disconnected")
    expect(problem_of(page, "printer")).to_contain_text("is not connected")
    expect(problem_of(page, "printer")).to_contain_text("under this name? Next try")
    # Devices that need attention come first.
    assert page.locator("#device-rows th").first.inner_text().startswith("printer")
    page.get_by_label("Find").fill("printer")
    expect(page.locator("#device-rows tr:visible")).to_have_count(2)
    page.get_by_label("Find").fill("android")
    expect(page.locator("#device-rows tr:visible")).to_have_count(1)
    expect(device_row(page, "phone")).to_be_visible()
    page.get_by_label("Find").fill("toaster")
    expect(page.locator("#no-devices-words")).to_have_text("None of 4 devices matches.")


def test_page_without_tasks_and_devices_shows_how_to_start(browser: Browser, tmp_path: Path) -> None:
    with open_world(tmp_path, [], missing=["laptop"]) as world:
        for page in open_page(browser, world.url):
            expect(page.locator("#no-tasks")).to_contain_text("There are no tasks yet.")
            expect(page.locator("#no-tasks")).to_contain_text("galaxy-trio task submit")
            expect(page.locator("#no-devices")).to_contain_text("No device is connected. Is their server running?")
            expect(page.locator("#no-devices")).to_contain_text("galaxy-trio agent ws://127.0.0.1:5000/ws laptop")
            check_accessibility(page)
            take_screenshot(page, "empty")


def test_submitted_task_runs_and_shows_its_result(page: Page) -> None:
    submit(page, "list")
    expect(task_row(page, "list").locator(".state")).to_have_text("completed")
    expect(task_row(page, "list")).to_contain_text("laptop")
    expect(page.locator("#events")).to_contain_text("completed on laptop: list")
    page.get_by_role("button", name="Show task: list").first.click()
    dialog = page.get_by_role("dialog", name="Task")
    expect(dialog.locator("#task-result")).to_have_text("laptop")
    expect(dialog.locator("dl")).to_contain_text("completed")
    page.keyboard.press("Escape")
    expect(dialog).to_be_hidden()


def test_task_for_any_device_runs_on_one_that_fits(page: Page) -> None:
    page.get_by_label("What to do").fill("echo somewhere")
    page.get_by_label("Device", exact=True).select_option("")
    page.get_by_label("Operating system").fill("android")
    page.get_by_label("Capabilities").fill("cli, browser")
    page.get_by_label("Priority").fill("-7")
    page.get_by_label("What to do").press("Control+Enter")
    expect(task_row(page, "echo somewhere").locator("td").nth(2)).to_have_text("phone")
    page.get_by_role("button", name="Show task: echo somewhere").first.click()
    expect(page.get_by_role("dialog", name="Task").locator("dl")).to_contain_text("Priority-7")
    page.keyboard.press("Escape")
    page.get_by_label("Priority").fill("0")
    # A task that names a device has no other requirement.
    page.get_by_label("Device", exact=True).select_option("laptop")
    expect(page.get_by_label("Operating system")).to_be_disabled()


def test_task_for_a_disconnected_device_is_shown_as_queued(page: Page) -> None:
    submit(page, "echo later", "printer")
    expect(page.locator("#submit-outcome")).to_contain_text(
        "printer is not connected: the task stays queued until it is."
    )
    expect(task_row(page, "echo later").locator(".state")).to_have_text("queued")
    page.get_by_role("button", name="Cancel: echo later").click()
    expect(task_row(page, "echo later").locator(".state")).to_have_text("cancelled")


def test_refused_task_shows_the_reason_and_keeps_the_form(page: Page) -> None:
    page.get_by_label("What to do").fill("echo x")
    page.get_by_label("Device", exact=True).select_option("laptop")
    page.get_by_label("Timeout, seconds").evaluate("element => { element.max = ''; element.value = '999999999'; }")
    page.get_by_role("button", name="Submit").click()
    expect(page.locator("#submit-outcome")).to_contain_text("Timeout: expected a number of seconds above 0")
    expect(page.get_by_label("What to do")).to_have_value("echo x")


def test_running_task_is_cancelled_and_retried(page: Page) -> None:
    submit(page, "hold it")
    expect(task_row(page, "hold it").locator(".state")).to_have_text("running")
    expect(device_row(page, "laptop").locator(".state")).to_have_text("busy")
    page.get_by_role("button", name="Cancel: hold it").click()
    expect(task_row(page, "hold it").locator(".state")).to_have_text("cancelled")
    page.get_by_role("button", name="Retry: hold it").click()
    expect(task_row(page, "hold it").locator(".state")).to_have_text("running")
    task_row(page, "hold it").get_by_role("button", name="Show task: hold it").click()
    dialog = page.get_by_role("dialog", name="Task")
    expect(dialog).to_contain_text("Retry of")
    dialog.get_by_role("button", name="Cancel: hold it").click()
    expect(dialog.locator("dl")).to_contain_text("cancelled")
    dialog.get_by_role("button", name="Close").click()
    expect(device_row(page, "laptop").locator(".state")).to_have_text("idle")


def test_failed_task_shows_the_reason(page: Page) -> None:
    submit(page, "fail no paper left")
    expect(task_row(page, "fail no paper left")).to_contain_text("no paper left")
    expect(task_row(page, "fail no paper left").locator(".state")).to_have_text("failed")
    expect(page.locator("#figure-bad")).to_have_class("figure bad")


def test_results_are_shown_as_text_folded_json_or_pictures_and_large_ones_are_downloaded(page: Page) -> None:
    for request in ("json", "picture", "large"):
        submit(page, request, "server")
        expect(task_row(page, request).locator(".state")).to_have_text("completed")
    dialog = page.get_by_role("dialog", name="Task")
    page.get_by_role("button", name="Show task: json").first.click()
    expect(dialog).to_contain_text("list of 30")
    expect(dialog.get_by_text("Window 29")).to_be_hidden()
    dialog.get_by_text("list of 30").click()
    expect(dialog.get_by_text("Window 29")).to_be_visible()
    check_accessibility(page)
    take_screenshot(page, "result")
    page.keyboard.press("Escape")
    page.get_by_role("button", name="Show task: picture").first.click()
    picture = dialog.get_by_role("img")
    expect(picture).to_be_visible()
    assert picture.evaluate("image => image.naturalWidth") == 120
    check_accessibility(page)
    take_screenshot(page, "picture")
    page.keyboard.press("Escape")
    page.get_by_role("button", name="Show task: large").first.click()
    with page.expect_download() as download:
        dialog.get_by_role("button", name="Download").click()
    assert json.loads(download.value.path().read_text()) == "x" * 2_000_000


def test_tasks_are_filtered_by_state_and_older_ones_are_loaded_on_demand(page: Page, world: World) -> None:
    submit(page, "hold until cancelled")
    page.get_by_role("button", name="Cancel: hold until cancelled").click()
    expect(task_row(page, "hold until cancelled").locator(".state")).to_have_text("cancelled")
    for number in range(60):
        _post(world, {"request": f"echo number {number}", "device": "server"})
    expect(page.get_by_role("button", name="Show task: echo number 59", exact=True)).to_be_visible()
    page.reload()
    expect(page.locator("#task-rows tr")).to_have_count(50)
    page.get_by_role("button", name="Show older tasks").click()
    expect(page.get_by_role("button", name="Show task: echo number 0", exact=True)).to_be_attached()
    page.get_by_label("Show", exact=True).select_option("cancelled")
    expect(page.locator("#task-rows .state").first).to_have_text("cancelled")
    page.get_by_label("Show", exact=True).select_option("lost")
    expect(page.locator("#no-tasks-words")).to_have_text("There are no lost tasks.")


def _post(world: World, body: object, token: str = "") -> None:
    headers = {"Content-Type": "application/json", **({"Authorization": f"Bearer {token}"} if token else {})}
    request = urllib.request.Request(f"{world.url}/tasks", json.dumps(body).encode(), headers)  # noqa: S310
    urllib.request.urlopen(request, timeout=60).close()  # noqa: S310


def test_long_request_and_error_are_cut_in_the_list_and_whole_in_the_dialog(page: Page) -> None:
    request = "fail " + "paper " * 1_000 + "end"
    submit(page, request)
    row = page.locator("#task-rows tr", has=page.get_by_role("button", name=re.compile("Show task: fail paper"))).first
    expect(row.locator(".state")).to_have_text("failed")
    expect(row.locator(".problem")).to_have_text(re.compile("paper.*…$"))
    row.get_by_role("button", name=re.compile("Show task")).click()
    dialog = page.get_by_role("dialog", name="Task")
    expect(dialog.locator("#task-request")).to_have_text(request)
    expect(dialog.locator("dd", has_text="paper end")).to_have_count(1)
    expect(dialog).not_to_contain_text("(cut:")
    page.keyboard.press("Escape")
    # The daemon does not send the whole task now.
    page.route("**/tasks/*", lambda route: route.abort())
    row.get_by_role("button", name=re.compile("Show task")).click()
    expect(dialog.locator("#task-request")).to_have_text(f"{request[:1024]}… (cut: it has {len(request):,} bytes)")
    expect(dialog.locator("dd", has_text="(cut: it has 6,")).to_have_count(1)
    page.unroute("**/tasks/*")


def test_device_with_many_features_shows_the_first_and_their_number(browser: Browser, tmp_path: Path) -> None:
    with open_world(tmp_path, ["laptop"], missing=["many"]) as world:
        world.do("device", "many", "linux", [f"feature-{number}" for number in range(1_000)])
        for page in open_page(browser, world.url):
            expect(device_row(page, "many")).to_contain_text(
                re.compile(r"linux · feature-0 · feature-1 · .* · and \d{3} more")
            )
            expect(device_row(page, "many")).not_to_contain_text("feature-999")
            expect(device_row(page, "laptop")).not_to_contain_text("more")


def test_device_that_dies_and_returns_is_shown_as_disconnected_and_connected(browser: Browser, tmp_path: Path) -> None:
    with open_world(tmp_path, ["laptop", "server"]) as world:
        for page in open_page(browser, world.url):
            submit(page, "echo first")
            expect(task_row(page, "echo first").locator(".state")).to_have_text("completed")
            world.do("kill device", "laptop")
            # Its server and the daemon's connections stay: only the next task, sent on that of the first, reveals that the device has left.
            submit(page, "list")
            expect(device_row(page, "laptop").locator(".state")).to_have_text("disconnected")
            # The next attempt to connect may have failed already, with a reason of its own.
            expect(problem_of(page, "laptop")).to_contain_text(re.compile("has left its server|is not connected"))
            expect(task_row(page, "list").locator(".state")).to_have_text("queued")
            expect(page.locator("#sum-devices")).to_have_text("1")
            check_accessibility(page)
            take_screenshot(page, "device-away")
            world.do("device", "laptop")
            expect(task_row(page, "list").locator(".state")).to_have_text("completed")
            expect(device_row(page, "laptop").locator(".state")).to_have_text("idle")
            expect(problem_of(page, "laptop")).to_have_count(0)
            device_row(page, "laptop").get_by_role("button").click()
            expect(device_row(page, "laptop")).to_contain_text("reconnect")


def test_page_shows_that_it_is_not_live_and_reconnects_to_the_next_daemon(browser: Browser, tmp_path: Path) -> None:
    with open_world(tmp_path, ["laptop"]) as world:
        for page in open_page(browser, world.url):
            submit(page, "echo before")
            expect(task_row(page, "echo before").locator(".state")).to_have_text("completed")
            world.do("stop daemon")
            expect(page.locator("#live-words")).to_have_text("Not live: reconnecting to the daemon…")
            page.get_by_label("What to do").fill("echo offline")
            page.get_by_role("button", name="Submit").click()
            expect(page.locator("#submit-outcome")).to_have_text("The daemon does not respond: is it running?")
            check_accessibility(page)
            take_screenshot(page, "not-live")
            world.do("start daemon")
            expect(page.locator("#live-words")).to_have_text("Live")
            page.get_by_role("button", name="Submit").click()
            expect(task_row(page, "echo offline").locator(".state")).to_have_text("completed")
            expect(task_row(page, "echo before").locator(".state")).to_have_text("completed")


def test_tasks_that_the_page_has_missed_are_listed_in_order(browser: Browser, tmp_path: Path) -> None:
    with open_world(tmp_path, ["laptop"]) as world:
        for page in open_page(browser, world.url):
            # After an event, the page resumes the stream. It loads the newest tasks if events that it has missed are deleted.
            submit(page, "echo 0")
            expect(task_row(page, "echo 0").locator(".state")).to_have_text("completed")
            world.do("stop daemon")
            expect(page.locator("#live-words")).to_have_text("Not live: reconnecting to the daemon…")
            page.context.set_offline(True)
            # Playwright has an event loop in this thread.
            with ThreadPoolExecutor() as threads:
                threads.submit(trio.run, _delete_events, tmp_path / "galaxy.db").result()
            world.do("start daemon")
            # More than a page of tasks: it loads the newest ones.
            for number in range(1, 61):
                _post(world, {"request": f"echo {number}", "device": "laptop"})
            page.context.set_offline(False)
            expect(page.locator("#task-rows tr")).to_have_count(60)
            expect(page.locator("#task-rows .link")).to_have_text([f"echo {number}" for number in range(60, 0, -1)])


async def _delete_events(path: Path) -> None:
    """Delete all events, of which the page has not received the newest."""
    async with open_store(path) as store:
        await store.publish([("other", {})])
        _, newest = await store.event_bounds()
        await store.write(lambda transaction: delete_events(transaction, newest))


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("device", ["desk", "phone"])
def test_axe_finds_no_violation_in_either_color_scheme_on_a_desk_and_on_a_phone(
    browser: Browser, world: World, scheme: str, device: str
) -> None:
    phone = {"viewport": {"width": 390, "height": 844}, "has_touch": True, "is_mobile": True}
    for page in open_page(browser, world.url, color_scheme=scheme, **(phone if device == "phone" else {})):
        expect(page.locator("#live-words")).to_have_text("Live")
        for request in ("echo once", "fail no paper left", "hold on", "sleep 0.1"):
            submit(page, request)
        expect(task_row(page, "hold on").locator(".state")).to_have_text("running")
        expect(device_row(page, "laptop").locator(".count")).to_have_text("1")
        check_accessibility(page)
        # The page does not scroll sideways.
        assert page.evaluate("() => document.documentElement.scrollWidth <= window.innerWidth")
        take_screenshot(page, f"{device}-{scheme}", whole=device == "phone")
        page.get_by_role("button", name="Cancel: hold on").click()
        expect(task_row(page, "hold on").locator(".state")).to_have_text("cancelled")


def test_page_can_be_used_with_the_keyboard_alone(page: Page) -> None:
    page.keyboard.press("Tab")
    expect(page.get_by_role("link", name="Skip to the tasks")).to_be_focused()
    page.keyboard.press("Enter")
    expect(page.locator("#tasks")).to_be_focused()
    page.get_by_label("What to do").focus()
    page.keyboard.type("hold by hand")
    page.keyboard.press("Tab")
    page.keyboard.type("lap")
    page.get_by_label("What to do").focus()
    page.keyboard.press("Control+Enter")
    expect(task_row(page, "hold by hand").locator(".state")).to_have_text("running")
    page.get_by_role("button", name="Show task: hold by hand").first.focus()
    page.keyboard.press("Enter")
    dialog = page.get_by_role("dialog", name="Task")
    expect(dialog).to_be_visible()
    cancel = dialog.get_by_role("button", name="Cancel: hold by hand")
    for _ in range(20):
        if cancel.evaluate("element => element === document.activeElement"):
            break
        page.keyboard.press("Tab")
    page.keyboard.press("Enter")
    expect(dialog.locator("dl")).to_contain_text("cancelled")
    page.keyboard.press("Escape")
    # The focus has returned.
    expect(page.get_by_role("button", name="Show task: hold by hand").first).to_be_focused()


def test_page_stays_usable_with_300_devices_and_10_000_tasks(browser: Browser, tmp_path: Path) -> None:
    names = [f"device-{number:03}" for number in range(300)]
    with open_world(tmp_path, names, ended=10_000) as world:
        for page in open_page(browser, world.url):
            expect(page.locator("#sum-devices")).to_have_text("300")
            expect(page.locator("#sum-completed")).to_have_text("10,000")
            with ThreadPoolExecutor(8) as pool:
                for number in range(300):
                    pool.submit(_post, world, {"request": f"echo {number}", "device": names[number]})
                expect(page.locator("#sum-completed")).to_have_text("10,300")
            expect(page.locator("#device-rows tr")).to_have_count(300)
            page.get_by_label("Find").fill("device-123")
            expect(page.locator("#device-rows tr:visible")).to_have_count(1)
            page.get_by_label("Find").fill("")
            take_screenshot(page, "300-devices")
            page.get_by_label("Show", exact=True).select_option("completed")
            page.get_by_role("button", name="Show older tasks").click()
            expect(page.locator("#task-rows tr")).to_have_count(100)
