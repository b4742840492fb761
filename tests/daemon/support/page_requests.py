"""Requests of the daemon's page that a test holds, to let their answers arrive late."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    from playwright.sync_api import Page, Request, Route


def sent_by(page: Page) -> list[Request]:
    """A list to which the requests of a page are appended from now on."""
    requests: list[Request] = []

    def note(request: Request) -> None:
        requests.append(request)

    page.on("request", note)
    return requests


class HeldRequests:
    """Holds the requests of a page for some addresses, until they are released.

    Args:
        page: The page.
        url: The addresses.
        method: Requests with another method are not held.
    """

    def __init__(self, page: Page, url: str, method: str = "GET") -> None:
        self._page = page
        self._url = url
        self._method = method
        self._held: list[Route] = []
        self._takes = True
        page.route(url, self._take)

    def _take(self, route: Route) -> None:
        if self._takes and route.request.method == self._method:
            self._held.append(route)
        else:
            route.fallback()

    def wait(self, number: int = 1) -> None:
        """Wait until so many requests are held."""
        while len(self._held) < number:
            self._page.wait_for_timeout(10)

    def hold_no_more(self) -> None:
        """Let further requests pass."""
        self._takes = False

    def fail(self, status: int, error: str) -> None:
        """Release the requests with an error in place of the daemon's answer."""
        self.release(lambda route: route.fulfill(status=status, json={"error": error}))

    def release(self, answer: Callable[[Route], None] | None = None) -> None:
        """Let the answers of the requests arrive, and hold no others. Returns when the page has seen them."""
        self.hold_no_more()
        for route in self._held:
            with self._page.expect_response(route.request.url) as response:
                if answer is None:
                    route.fallback()
                else:
                    answer(route)
            response.value.finished()
        # The page has read them when it has read the answer to a later request.
        self._page.evaluate(
            """async () => {
                await (await fetch('health')).json();
                await new Promise((done) => requestAnimationFrame(() => setTimeout(done)));
            }"""
        )
