"""Tokens are read from files and environment variables, and no error contains one."""

from __future__ import annotations

import os
import traceback
from typing import TYPE_CHECKING

import pytest

from galaxy_trio import ConfigError
from galaxy_trio._config.tokens import read_token_file, read_token_variable, require_one

if TYPE_CHECKING:
    from pathlib import Path

SECRET = "s3cr3t-t0k3n"
VARIABLE = "GALAXY_TRIO_TEST_TOKEN"


@pytest.mark.parametrize(
    ("content", "tokens"),
    [
        (b"one", ("one",)),
        (b"\n one \r\n\ntwo\n", ("one", "two")),
        (b"\xef\xbb\xbfone", ("one",)),
        (b"one\n\xef\xbb\xbftwo\r\n\xef\xbb\xbf\n", ("one", "two")),
    ],
)
def test_a_file_contains_one_token_per_line(content: bytes, tokens: tuple[str, ...], tmp_path: Path) -> None:
    path = tmp_path / "tokens"
    path.write_bytes(content)
    assert read_token_file(path) == tokens


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b" \n\n", "there is no token in it; write one on a line of its own"),
        (SECRET.encode() + b"\xff", "it is not UTF-8 text: save it as UTF-8"),
        (f"{SECRET}\u200b\n".encode(), "a token contains invisible characters: type it, or copy it again"),
        (SECRET.encode("utf-16"), "it is UTF-16 text: save it as UTF-8"),
    ],
)
def test_a_file_without_readable_tokens_is_refused_and_nothing_of_it_is_shown(
    content: bytes, reason: str, tmp_path: Path
) -> None:
    path = tmp_path / "tokens"
    path.write_bytes(content)
    with pytest.raises(ConfigError) as caught:
        read_token_file(path, "the token of device 'd'")
    assert str(caught.value) == f"the token of device 'd' cannot be read from {path}: {reason}"
    assert SECRET not in "".join(traceback.format_exception(caught.value))
    assert SECRET not in repr(caught.value.__context__)


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        (SECRET, "No such file or directory"),
        (f"tokens/{SECRET}", "Not a directory"),
        (SECRET * 100, "File name too long"),
    ],
)
def test_a_token_that_was_given_instead_of_a_file_is_not_shown(name: str, reason: str, tmp_path: Path) -> None:
    (tmp_path / "tokens").write_text("one")
    with pytest.raises(ConfigError) as caught:
        read_token_file(tmp_path / name)
    assert str(caught.value) == f"the token cannot be read from its file, whose name is not shown: {reason}"
    assert SECRET not in "".join(traceback.format_exception(caught.value))
    assert caught.value.__context__ is None


def test_a_variable_contains_one_token_per_line_and_none_if_it_is_not_set(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(VARIABLE, raising=False)
    assert read_token_variable(VARIABLE) == ()
    monkeypatch.setenv(VARIABLE, " one\ntwo\n")
    assert read_token_variable(VARIABLE) == ("one", "two")
    monkeypatch.setenv(VARIABLE, "\ufeffone")
    assert read_token_variable(VARIABLE) == ("one",)
    monkeypatch.setenv(VARIABLE, "o\u2060ne")
    with pytest.raises(ConfigError, match=f"from the environment variable {VARIABLE}: a token contains invisible"):
        read_token_variable(VARIABLE)


def test_a_variable_that_is_not_valid_utf_8_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(VARIABLE, os.fsdecode(SECRET.encode() + b"\xff"))
    with pytest.raises(ConfigError, match=f"environment variable {VARIABLE}: it is not valid UTF-8$") as caught:
        read_token_variable(VARIABLE)
    assert SECRET not in str(caught.value)


def test_several_tokens_are_refused_where_one_is_needed() -> None:
    assert require_one(("one",)) == "one"
    with pytest.raises(
        ConfigError, match=r"^the token must be a single one, and the file f contains 2 lines: "
    ) as caught:
        require_one((SECRET, "two"), where="the file f")
    assert SECRET not in str(caught.value)
