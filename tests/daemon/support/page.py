"""Opens the daemon's page in a browser, and finds and checks its parts."""

from __future__ import annotations

import os
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any

from playwright.sync_api import Locator, Page, expect

from tests.daemon.support.page_browser import options

if TYPE_CHECKING:
    from collections.abc import Generator

    from playwright.sync_api import Browser, ConsoleMessage, Error

SCREENSHOTS = os.environ.get("GALAXY_TRIO_SCREENSHOTS")
AXE = files("axe_playwright_python").joinpath("axe.min.js").read_text("utf-8")
expect.set_options(timeout=60_000)


class Watched:
    """Collects the errors that the browser reports about a page."""

    def __init__(self) -> None:
        self.complaints: list[str] = []

    def watch(self, page: Page) -> None:
        def said(message: ConsoleMessage) -> None:
            # The browser also reports responses with an error status, and what the last test of the policy provokes.
            expected = ("Failed to load resource", "requires 'TrustedHTML' assignment")
            if message.type in ("error", "warning") and not any(words in message.text for words in expected):
                self.complaints.append(message.text)

        def failed(error: Error) -> None:
            self.complaints.append(str(error))

        page.on("console", said)
        page.on("pageerror", failed)
        page.on("dialog", lambda dialog: self.complaints.append(f"a dialog: {dialog.message}"))


def open_page(browser: Browser, url: str, **more: Any) -> Generator[Page]:
    watched = Watched()
    with browser.new_context(**options(**more)) as context:
        page = context.new_page()
        watched.watch(page)
        page.goto(url)
        yield page
    assert watched.complaints == []


def take_screenshot(page: Page, name: str, *, whole: bool = False) -> None:
    """Take a picture for the documentation, if they are wanted."""
    if SCREENSHOTS:
        page.screenshot(path=str(Path(SCREENSHOTS) / f"page-{name}.png"), full_page=whole)


def submit(page: Page, request: str, device: str = "laptop") -> None:
    page.get_by_label("What to do").fill(request)
    page.get_by_label("Device", exact=True).select_option(device)
    page.get_by_role("button", name="Submit").click()
    expect(page.locator("#submit-outcome")).to_contain_text("Accepted as")


def task_row(page: Page, request: str) -> Locator:
    return page.locator("#task-rows tr", has=page.get_by_role("button", name=f"Show task: {request}", exact=True)).first


def device_row(page: Page, name: str) -> Locator:
    return page.locator("#device-rows tr", has=page.get_by_role("button", name=f"Reconnect {name}", exact=True))


def problem_of(page: Page, name: str) -> Locator:
    return device_row(page, name).locator("xpath=following-sibling::tr[1]/td[@colspan]")


def check_accessibility(page: Page) -> None:
    """Check that axe finds no violation."""
    # The page's content security policy forbids foreign scripts; `evaluate` is exempt.
    page.evaluate(f"() => {{ {AXE} }}")
    found = page.evaluate("() => axe.run()")
    assert [(rule["id"], [node["html"] for node in rule["nodes"]][:3]) for rule in found["violations"]] == []
