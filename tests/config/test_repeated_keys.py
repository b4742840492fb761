"""A key that is given twice is refused in every format, with its path, and its line where the parser gives one."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from galaxy_trio import ConfigError
from galaxy_trio._config.files import read_configuration_file
from galaxy_trio._config.reader import MAX_PROBLEMS
from galaxy_trio._config.strict_json import RepeatedKeys, decode_json

if TYPE_CHECKING:
    from pathlib import Path

_DASH = ", or begin another item with a dash"


def _problems(folder: Path, name: str, text: str) -> tuple[str, ...]:
    (folder / name).write_text(text, encoding="utf-8")
    with pytest.raises(ConfigError) as caught:
        read_configuration_file(folder / name, "the configuration")
    assert f"the configuration {folder / name} is wrong at " in str(caught.value)
    return caught.value.problems


def test_a_forgotten_dash_in_yaml_is_reported_with_the_lines_of_both_keys(tmp_path: Path) -> None:
    text = "devices:\n- device_id: a\n  server_url: ws://a\n  device_id: b\n  server_url: ws://b\n"
    assert _problems(tmp_path, "c.yaml", text) == (
        f"devices[0].device_id: is given twice, in line 2 and in line 4: leave out one{_DASH}",
        f"devices[0].server_url: is given twice, in line 3 and in line 5: leave out one{_DASH}",
    )


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("devices: []\nMAX_STEP: 1\ndevices: []", "devices: is given twice, in line 1 and in line 3: leave out one"),
        ("a: {b: [{c: 1}, {c: 1, c: 2}]}", f"a.b[1].c: is given twice, in line 1: leave out one{_DASH}"),
        ("1: a\n0x1: b", "1: is given twice, in line 1 and in line 2: leave out one"),
        ("true: a\nyes: b", "true: is given twice, in line 1 and in line 2: leave out one"),
        ("a: &a {b: 1}\nc: {<<: *a, <<: *a}", "c['<<']: is given twice, in line 2: leave out one"),
        ("'a b': {c-d: 1, 'c-d': 2}", "'a b'['c-d']: is given twice, in line 1: leave out one"),
        ("a: &a [*a, {b: 1, b: 2}]", f"a[1].b: is given twice, in line 1: leave out one{_DASH}"),
    ],
)
def test_a_repeated_key_in_yaml_is_reported_with_its_path(text: str, problem: str, tmp_path: Path) -> None:
    assert _problems(tmp_path, "c.yaml", text) == (problem,)


def test_a_repeated_key_of_an_anchor_is_reported_once(tmp_path: Path) -> None:
    problem = "x.a: is given twice, in line 1: leave out one"
    assert _problems(tmp_path, "c.yaml", "x: &x {a: 1, a: 2}\ny: *x\nz: [*x, *x]\n") == (problem,)


def test_the_number_of_repeated_keys_that_are_reported_is_limited(tmp_path: Path) -> None:
    lines = "".join(f"k{number}: 1\nk{number}: 2\n" for number in range(MAX_PROBLEMS + 1))
    assert len(_problems(tmp_path, "c.yaml", lines)) == MAX_PROBLEMS
    members = ", ".join(f'"k{number}": 1, "k{number}": 2' for number in range(MAX_PROBLEMS + 1))
    assert len(_problems(tmp_path, "c.json", f"{{{members}}}")) == MAX_PROBLEMS


def test_a_key_may_replace_a_merged_one_and_differ_from_another_only_by_its_type(tmp_path: Path) -> None:
    text = "base: &base {a: 1, b: 2}\nderived: {<<: *base, b: 3}\n? [x]\n: list\n1: integer\n'1': text\n"
    path = tmp_path / "c.yaml"
    path.write_text(text.replace("? [x]\n: list\n", ""))
    assert read_configuration_file(path, "the configuration") == {
        "base": {"a": 1, "b": 2},
        "derived": {"a": 1, "b": 3},
        1: "integer",
        "1": "text",
    }
    path.write_text(text)
    with pytest.raises(ConfigError, match="is not YAML: found unhashable key"):
        read_configuration_file(path, "the configuration")


@pytest.mark.parametrize(
    ("text", "problems"),
    [
        ('{"a": 1, "b": 2, "a": 3}', ["a"]),
        ('[{"a": {"b": 1, "b": 1}}]', ["[0].a.b"]),
        ('{"a": 1, "a": {"b": 1, "b": 2, "b": 3}, "": 0, "": 1}', ["a", "''", "a.b"]),
        (f'{{"{"k" * 100}": 1, "{"k" * 100}": 1}}', ["k" * 60]),
    ],
)
def test_repeated_keys_in_json_are_reported_with_their_paths(text: str, problems: list[str], tmp_path: Path) -> None:
    expected = tuple(f"{path}: is given twice: leave out one" for path in problems)
    assert _problems(tmp_path, "c.json", text) == expected
    with pytest.raises(RepeatedKeys) as caught:
        decode_json(text)
    assert str(caught.value) == "; ".join(expected)


@pytest.mark.parametrize(
    ("text", "path", "line"),
    [
        ("a = 1\na = 2", "a", 2),
        ("[[devices]]\na = 1\n[[devices]]\na = 1\nb = '''\nx = 1\n'''\na = 2\n", "devices[1].a", 8),
        ("[devices]\n[devices]", "devices", 2),
        ("[devices]\n[[devices]]\n", "devices", 2),
        ("devices = []\n[[devices]]\n", "devices", 2),
        ("a = 1\n[a]\nb = 2\n", "a", 2),
        ("[[d]]\n[d.m]\nx = 1\nx = 2\n", "d[0].m.x", 4),
        ("[[d]]\n[[d.e]]\n[[d.e]]\n[[d]]\n[[d.e]]\nq = 1\nq = [\n1,\n2]\n", "d[1].e[0].q", 9),
        ("a.b = 1\na = 2\n", "a", 2),
        ("[a]\n'x y' = 1\n\"x y\" = 2\n", "a['x y']", 3),
        ("a = {b = 1, b = 2}\n", "a.b", 1),
    ],
)
def test_a_repeated_key_in_toml_is_reported_with_its_path_and_line(
    text: str, path: str, line: int, tmp_path: Path
) -> None:
    problem = f"{path}: is given twice, the second time in line {line}: leave out one"
    assert _problems(tmp_path, "c.toml", text) == (problem,)
