"""The routes of the HTTP interface, and their description in the OpenAPI document."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

import pytest

from galaxy_trio.daemon.web.routes import DOCUMENT
from tests.daemon.support.daemon import open_daemon

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.daemon


async def test_unknown_path_and_wrong_method_are_answered_with_a_json_error(tmp_path: Path) -> None:
    async with open_daemon(tmp_path, "d1") as daemon:
        assert await daemon.ask("GET", "/fridges", 404) == {"error": "there is no path '/fridges': see /openapi.json"}
        assert (await daemon.ask("DELETE", "/tasks", 405))["error"].startswith("DELETE is not allowed at")


@pytest.mark.parametrize("path", ["/tasks/", "/devices/", "/tasks/1/"])
async def test_daemon_redirects_nothing(path: str, tmp_path: Path) -> None:
    async with open_daemon(tmp_path, "d1") as daemon:
        await daemon.ask("GET", path, 404)


@pytest.mark.parametrize(
    ("path", "problem"),
    [
        ("/tasks?limt=2", "'limt' is no parameter here; did you mean 'limit'?"),
        ("/tasks?state=queued&state=running", "state: is given twice: leave out one"),
        ("/tasks/1?seconds=2", "'seconds' is no parameter here; known: 'wait'"),
        ("/tasks/1?wait=1&wait=2", "wait: is given twice: leave out one"),
    ],
)
async def test_query_with_an_unknown_or_repeated_parameter_is_refused(path: str, problem: str, tmp_path: Path) -> None:
    async with open_daemon(tmp_path, "d1") as daemon:
        assert await daemon.ask("GET", path, 400) == {"error": problem}


async def test_document_is_served(tmp_path: Path) -> None:
    async with open_daemon(tmp_path, "d1") as daemon:
        assert await daemon.ask("GET", "/openapi.json") == DOCUMENT


async def test_every_operation_documents_its_refusals(tmp_path: Path) -> None:
    (tmp_path / "tokens").write_text("a-token")
    paths = cast("dict[str, dict[str, Any]]", DOCUMENT["paths"])
    async with open_daemon(tmp_path, "d1", settings='token_file = "tokens"') as daemon:
        for path, operations in paths.items():
            for method, operation in operations.items():
                for headers in ({}, {"Host": "attacker.example"}, {"Origin": "http://attacker.example"}):
                    response = await daemon.client.request(method, path, headers=headers)
                    assert str(response.status_code) in operation["responses"], f"{method} {path}"
                assert ("401" in operation["responses"]) == (path != "/health")
