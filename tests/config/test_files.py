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


@pytest.mark.parametrize(
    ("name", "text", "problem"),
    [
        ("c.json", '{"a": 1, "b": 2, "a": 3}', "is not JSON: the key 'a' is given twice"),
        ("c.json", '[{"a": {"b": 1, "b": 1}}]', "is not JSON: the key 'b' is given twice"),
        ("c.json", f'{{"{"k" * 100}": 1, "{"k" * 100}": 1}}', f"the key '{'k' * 60}' is given twice"),
        ("c.toml", "a = 1\na = 2", "is not TOML: Cannot overwrite a value"),
        ("c.yaml", "a: 1\nb: 2\na: 3", "is not YAML: a key is given twice (at line 3, column 1)"),
        ("c.yaml", "- {b: 1, 'b': 1}", "is not YAML: a key is given twice (at line 1, column 10)"),
    ],
)
def test_a_duplicate_key_is_refused(name: str, text: str, problem: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        read(tmp_path, name, text)
    assert problem in str(caught.value)


def test_a_key_may_replace_a_merged_one_and_differ_from_another_only_by_its_type(tmp_path: Path) -> None:
    text = "base: &base {a: 1, b: 2}\nderived: {<<: *base, b: 3}\n? [x]\n: list\n1: integer\n'1': text\n"
    assert read(tmp_path, "c.yaml", text.replace("? [x]\n: list\n", "")) == {
        "base": {"a": 1, "b": 2},
        "derived": {"a": 1, "b": 3},
        1: "integer",
        "1": "text",
    }
    with pytest.raises(ConfigError, match="is not YAML: found unhashable key"):
        read(tmp_path, "c.yaml", text)


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
