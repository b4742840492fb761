"""Serves the files of the page at ``/``."""

from __future__ import annotations

from importlib.resources import files
from typing import TYPE_CHECKING, Final

import trio
from starlette.responses import Response
from starlette.routing import Route

from galaxy_trio.daemon.web.security import MAX_GRAPH_BODY

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from starlette.requests import Request

_TYPES: Final = {
    "css": "text/css; charset=utf-8",
    "html": "text/html; charset=utf-8",
    "js": "text/javascript; charset=utf-8",
    "svg": "image/svg+xml",
}
_FILES: Final = (
    "page.css",
    "graphs.css",
    "icon.svg",
    "api.js",
    "cluster.js",
    "devices.js",
    "dom.js",
    "focus.js",
    "graph.js",
    "graph_files.js",
    "graph_layout.js",
    "graph_model.js",
    "graph_node.js",
    "graph_picture.js",
    "graph_table.js",
    "graph_viewport.js",
    "graphs.js",
    "icons.js",
    "live.js",
    "main.js",
    "result.js",
    "router.js",
    "tasks.js",
)
_POLICY: Final = "; ".join(
    (
        "default-src 'none'",
        "script-src 'self'",
        "style-src 'self'",
        "connect-src 'self'",
        # A result may be a picture.
        "img-src 'self' data:",
        "base-uri 'none'",
        "form-action 'none'",
        "frame-ancestors 'none'",
        # Text from devices must never become markup or code.
        "require-trusted-types-for 'script'",
        "trusted-types 'none'",
    )
)

PAGE_PATHS: Final = ("/", *(f"/page/{name}" for name in _FILES))
"""The paths that need no token: the files are public, being part of the package."""


def page_routes() -> list[Route]:
    """The routes of the page's files. Reads the files."""
    return [
        Route("/", _serve("index.html")),
        *(Route(f"/page/{name}", _serve(name)) for name in _FILES),
    ]


def _serve(name: str) -> Callable[[Request], Awaitable[Response]]:
    content = files("galaxy_trio.daemon.web").joinpath("static", name).read_bytes()
    if name == "index.html":
        content = content.replace(b"{MAX_GRAPH_BODY}", str(MAX_GRAPH_BODY).encode())
    headers = {"Content-Security-Policy": _POLICY}

    async def page(_request: Request) -> Response:
        await trio.lowlevel.checkpoint()
        return Response(content, media_type=_TYPES[name.rpartition(".")[2]], headers=headers)

    return page
