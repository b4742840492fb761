"""Tokens and certificates of the commands that connect to a server."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import trio
import trustme

from galaxy_trio import (
    ConnectFailed,
)
from galaxy_trio._cli.destination import Destination
from galaxy_trio._cli.main import info
from tests.cli.support.command_line import (
    DEVICE,
    TOKEN,
    Call,
    call_process,
    is_one_sentence,
)
from tests.cli.support.world import open_world
from tests.support.waiting import SECONDS

if TYPE_CHECKING:
    from pathlib import Path


def test_token_file_takes_precedence_over_the_environment_and_is_stripped(
    call: Call, url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GALAXY_TRIO_TOKEN", "wrong")
    assert call("info", url, DEVICE).status == 5
    file = tmp_path / "token"
    file.write_text(f"\ufeff {TOKEN}\r\n", "utf-8")
    assert call("info", url, DEVICE, "--token-file", str(file)).status == 0


@pytest.mark.parametrize("variable", [None, "", " \n"])
def test_no_token_is_sent_without_a_token(
    call: Call, url: str, monkeypatch: pytest.MonkeyPatch, variable: str | None
) -> None:
    if variable is None:
        monkeypatch.delenv("GALAXY_TRIO_TOKEN")
    else:
        monkeypatch.setenv("GALAXY_TRIO_TOKEN", variable)
    outcome = call("info", url, DEVICE)
    assert (outcome.status, "403" in outcome.err) == (5, True)


def test_invalid_token_file_is_a_usage_error_that_does_not_show_its_content(
    call: Call, url: str, tmp_path: Path
) -> None:
    file = tmp_path / "token"

    def problem() -> str:
        outcome = call("info", url, DEVICE, "--token-file", str(file))
        assert (outcome.status, outcome.out) == (2, "")
        assert is_one_sentence(outcome)
        return outcome.err

    assert problem().endswith(": No such file or directory\n")
    file.mkdir()
    assert problem().endswith(": Is a directory\n")
    file.rmdir()
    file.write_bytes(b" \n")
    assert problem().endswith(": there is no token in it; write one on a line of its own\n")
    file.write_bytes(TOKEN.encode() + b"\xff")
    assert problem().endswith("is not UTF-8 text: save it as UTF-8\n")


def test_token_in_the_environment_that_is_not_utf_8_is_a_usage_error(
    call: Call, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GALAXY_TRIO_TOKEN", f"{TOKEN}\udcff")
    outcome = call("info", url, DEVICE)
    assert (outcome.status, is_one_sentence(outcome)) == (2, True)


async def test_certificate_is_accepted_only_with_its_authoritys_file(tmp_path: Path) -> None:
    authority = trustme.CA()
    file = tmp_path / "ca.pem"
    authority.cert_pem.write_to_path(str(file))
    async with open_world(authority=authority) as server:
        assert (await call_process("info", server.url, DEVICE, "--ca-file", str(file))).status == 0
        with trio.fail_after(SECONDS), pytest.raises(ConnectFailed, match="certificate"):
            await info(Destination(server.url, DEVICE, TOKEN), 10)
