"""Checks the links and signatures of the built site: ``python tests/docs/support/built_site.py FOLDER``."""

from __future__ import annotations

import re
import sys
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit


class _Page(HTMLParser):
    def __init__(self, path: Path) -> None:
        super().__init__()
        self.places: set[str] = {""}
        self.links: list[str] = []
        self.feed(path.read_text("utf-8"))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:  # noqa: ARG002
        """Collect anchors and links; called for each tag."""
        for name, value in attrs:
            if name in ("id", "name") and value:
                self.places.add(value)
            if name in ("href", "src") and value:
                self.links.append(value)


def broken_links(site: Path) -> list[str]:
    """Return the broken links, each with its page."""
    pages = {path.resolve(): _Page(path) for path in sorted(site.rglob("*.html"))}
    broken: list[str] = []
    for path, page in pages.items():
        for link in page.links:
            parts = urlsplit(link)
            if parts.scheme or parts.netloc:
                continue
            target = (path.parent / unquote(parts.path)).resolve() if parts.path else path
            target = target / "index.html" if target.is_dir() else target
            there = target.exists() and (target not in pages or unquote(parts.fragment) in pages[target].places)
            if not there:
                broken.append(f"{path.relative_to(site.resolve())}: {link}")
    return broken


# sphinxcontrib-trio marks these. The marks are silently lost if Sphinx does not use the classes that it hooks into.
SIGNATURES = {
    "connection": ["async with galaxy_trio.open_connection(", "await device_info("],
    "constellation": [
        "async with galaxy_trio.open_constellation(",
        "async with reserve(",
        "async with subscribe(",
        "await run_task(",
        "await remove_device(",
    ],
    "graph": ["async with galaxy_trio.graph.open_graph(", "async with subscribe(", "with hold(", "await wait("],
    "server": ["async with galaxy_trio.server.open_server(", "await execute("],
    "agent": ["async with galaxy_trio.agent.open_agent(", "await wait_registered("],
    "testing": ["async with galaxy_trio.testing.open_memory_fleet(", "await kill_server("],
}


def wrong_signatures(site: Path) -> list[str]:
    """Return the signatures that lack `await` or `async with`."""
    wrong: list[str] = []
    for page, signatures in SIGNATURES.items():
        text = (site / "reference" / "api" / f"{page}.html").read_text("utf-8")
        plain = re.sub(r"\s+", " ", re.sub(r"<[^>]+>", "", text))
        wrong += [f"reference/api/{page}.html: no {signature!r}" for signature in signatures if signature not in plain]
    return wrong


if __name__ == "__main__":
    found = [problem for check in (broken_links, wrong_signatures) for problem in check(Path(sys.argv[1]))]
    sys.stdout.writelines(f"{line}\n" for line in found)
    sys.exit(1 if found else 0)
