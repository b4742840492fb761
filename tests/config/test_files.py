"""Configuration files are parsed strictly, and no error contains their text."""

from __future__ import annotations

import traceback
from typing import TYPE_CHECKING

import pytest

from galaxy_trio import ConfigError
from galaxy_trio._config.files import read_configuration_file

if TYPE_CHECKING:
    from pathlib import Path

SECRET = "s3cr3t-t0k3n"


def read(folder: Path, name: str, text: str) -> object:
    path = folder / name
    path.write_text(text, encoding="utf-8")
    return read_configuration_file(path, "the configuration")


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("c.json", '{"a": [1, {"b": "x"}]}'),
        ("c.toml", 'a = [1, {b = "x"}]'),
        ("c.yaml", "a:\n- 1\n- b: x\n"),
        ("without a suffix", "{a: [1, {b: x}]}"),
    ],
)
def test_the_suffix_selects_the_format(name: str, text: str, tmp_path: Path) -> None:
    assert read(tmp_path, name, text) == {"a": [1, {"b": "x"}]}


@pytest.mark.parametrize("constant", ["NaN", "Infinity", "-Infinity"])
def test_a_constant_that_json_does_not_have_is_refused(constant: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=f"is not JSON: {constant} is not JSON$"):
        read(tmp_path, "c.json", f'{{"a": {constant}}}')


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("c.json", f'{{"token": "{SECRET}" 1}}'),
        ("c.toml", f'token = "{SECRET}"\n='),
        ("c.yaml", f"token: '{SECRET}' 1"),
        ("c.yaml", f"token: '{SECRET}'\ntoken: '{SECRET}'"),
    ],
)
def test_an_error_about_a_files_text_has_no_cause_that_contains_it(name: str, text: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        read(tmp_path, name, text)
    assert (caught.value.__cause__, caught.value.__context__) == (None, None)
    assert SECRET not in "".join(traceback.format_exception(caught.value))
