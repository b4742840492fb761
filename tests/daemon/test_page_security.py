"""What the daemon's page does with tokens, with markup from devices, and with other hosts, in a real browser."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

pytest.importorskip("playwright", reason="the page's tests have a session of their own")

from playwright.sync_api import expect

from tests.daemon.support.page import (
    check_accessibility,
    device_row,
    open_page,
    submit,
    take_screenshot,
    task_row,
)
from tests.daemon.support.page_browser import open_world, options
from tests.daemon.support.page_world import HOSTILE

if TYPE_CHECKING:
    from pathlib import Path

    from playwright.sync_api import Browser

pytestmark = pytest.mark.page

TOKEN = "a-token-for-the-page"


def test_page_asks_for_the_token_once_and_keeps_it_for_the_session(browser: Browser, tmp_path: Path) -> None:
    with open_world(tmp_path, ["laptop"], token=TOKEN) as world:
        for page in open_page(browser, world.url):
            dialog = page.get_by_role("dialog", name="This daemon requires a token")
            expect(dialog).to_be_visible()
            page.keyboard.press("Escape")
            expect(dialog).to_be_visible()
            check_accessibility(page)
            take_screenshot(page, "token")
            for wrong in ("wrong", "w\u2026ong"):
                page.get_by_label("Token", exact=True).fill(wrong)
                page.get_by_role("button", name="Continue").click()
                expect(page.locator("#token-problem")).to_have_text("The token is wrong.")
            page.get_by_label("Token", exact=True).fill(TOKEN)
            page.keyboard.press("Enter")
            expect(page.locator("#live-words")).to_have_text("Live")
            expect(dialog).to_be_hidden()
            submit(page, "list")
            page.reload()
            expect(page.locator("#live-words")).to_have_text("Live")
            expect(task_row(page, "list").locator(".state")).to_have_text("completed")
            assert TOKEN not in page.content()
            with page.context.expect_page() as opened:
                page.evaluate("url => window.open(url, '_blank', 'noopener')", world.url)
            # Each tab has its own session.
            expect(opened.value.get_by_role("dialog", name="This daemon requires a token")).to_be_visible()


def test_markup_from_devices_and_results_is_shown_as_text(browser: Browser, tmp_path: Path) -> None:
    with open_world(tmp_path, ["laptop", HOSTILE]) as world:
        for page in open_page(browser, world.url):
            expect(device_row(page, "laptop").locator(".state")).to_have_text("idle")
            expect(page.locator("#device-rows th").filter(has_text="<img src=x")).to_be_visible()
            submit(page, "hostile", HOSTILE)
            submit(page, HOSTILE)
            expect(page.locator("#task-rows .state", has_text="completed")).to_have_count(2)
            page.get_by_role("button", name="Show task: hostile").click()
            expect(page.locator("#task-result")).to_contain_text("<script>alert(2)</script>")
            assert page.locator("#task-result img").count() == 0
            assert page.evaluate("() => document.querySelectorAll('script').length") == 1
            # The policy forbids making markup from text, which the page never does.
            assert (
                page.evaluate("() => { try { document.body.innerHTML = '<p>'; } catch (error) { return error.name; } }")
                == "TypeError"
            )


def test_content_security_policy_is_strict_and_no_other_host_is_requested(browser: Browser, tmp_path: Path) -> None:
    with open_world(tmp_path, ["laptop"]) as world, browser.new_context(**options()) as context:
        page = context.new_page()
        asked: list[str] = []
        page.on("request", lambda request: asked.append(request.url))
        response = page.goto(world.url)
        assert response is not None
        policy = response.headers["content-security-policy"]
        assert "default-src 'none'" in policy
        assert "unsafe" not in policy
        expect(page.locator("#live-words")).to_have_text("Live")
        assert all(url.startswith(world.url) for url in asked)
