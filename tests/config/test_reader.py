"""The strict reader reports every problem of an object, each with its path, and shows no text of it."""

from __future__ import annotations

from datetime import date
from typing import TYPE_CHECKING

import pytest

from galaxy_trio import ConfigError
from galaxy_trio._config.reader import MAX_PROBLEMS, ObjectReader, check_problems

if TYPE_CHECKING:
    from collections.abc import Callable

SECRET = "s3cr3t-t0k3n"

_READS: dict[str, Callable[[ObjectReader], object]] = {
    "text": lambda reader: reader.text("key"),
    "a text with a condition": lambda reader: reader.text("key", "a short text", accept=lambda text: len(text) < 5),
    "a required text": lambda reader: reader.text("key", required=True),
    "a secret text": lambda reader: reader.text("key", secret=True),
    "integer": lambda reader: reader.integer("key"),
    "an integer from 1": lambda reader: reader.integer("key", minimum=1),
    "an integer from 1 to 5": lambda reader: reader.integer("key", minimum=1, maximum=5),
    "number": lambda reader: reader.number("key"),
    "a number from 0": lambda reader: reader.number("key", "days", zero=True),
    "a number up to 5": lambda reader: reader.number("key", maximum=5, nullable=False),
    "boolean": lambda reader: reader.boolean("key"),
    "texts": lambda reader: reader.texts("key"),
    "texts with a condition": lambda reader: reader.texts("key", item="a text", accept=bool, nullable=False),
    "pairs": lambda reader: reader.pairs("key"),
    "object": lambda reader: reader.any_object("key"),
}


@pytest.mark.parametrize(
    ("kind", "value"),
    [
        ("text", ""),
        ("a text with a condition", "four"),
        ("a required text", ""),
        ("integer", -(10**30)),
        ("an integer from 1", 1),
        ("an integer from 1 to 5", 5),
        ("number", 1e-300),
        ("number", 3),
        ("a number from 0", 0),
        ("a number up to 5", 5.0),
        ("boolean", False),
        ("object", {"a": {"b": None}}),
    ],
)
def test_a_valid_member_is_returned_unchanged(kind: str, value: object) -> None:
    problems: list[str] = []
    assert _READS[kind](ObjectReader({"key": value}, "", problems)) == value
    assert problems == []


def test_lists_of_texts_and_pairs_are_returned_as_tuples() -> None:
    problems: list[str] = []
    assert _READS["texts"](ObjectReader({"key": ["a", ""]}, "", problems)) == ("a", "")
    assert _READS["pairs"](ObjectReader({"key": {"a": "b"}}, "", problems)) == (("a", "b"),)
    assert problems == []


@pytest.mark.parametrize(
    "kind", sorted(set(_READS) - {"a required text", "a number up to 5", "texts with a condition"})
)
@pytest.mark.parametrize("document", [{}, {"key": None}])
def test_an_absent_or_null_member_is_empty_and_no_problem(kind: str, document: dict[str, object]) -> None:
    problems: list[str] = []
    assert not _READS[kind](ObjectReader(document, "", problems))
    assert problems == []


@pytest.mark.parametrize(
    ("kind", "value", "problem"),
    [
        ("text", 5, "expected a string, got 5"),
        ("a text with a condition", "fifth", "expected a short text"),
        ("a required text", None, "is missing"),
        ("a secret text", 12345, "expected a string"),
        ("integer", True, "expected a whole number, got true"),
        ("integer", 1.0, "expected a whole number, got 1.0"),
        ("an integer from 1", 0, "expected a whole number of 1 or more, got 0"),
        ("an integer from 1 to 5", 6, "expected a whole number from 1 to 5, got 6"),
        ("number", 0, "expected a number of seconds above 0, got 0"),
        ("number", float("nan"), "expected a number of seconds above 0, got nan"),
        ("number", 1e999, "expected a number of seconds above 0, got inf"),
        ("number", 10**4000, "expected a number of seconds above 0, got 1000"),
        ("a number from 0", -1, "expected a number of days of 0 or more, got -1"),
        ("a number up to 5", 5.5, "expected a number of seconds above 0, of at most 5, got 5.5"),
        ("a number up to 5", None, "expected a number of seconds above 0, of at most 5, got null"),
        ("boolean", "yes", "expected true or false, got a string"),
        ("texts", "a", "expected a list of strings, got a string"),
        ("text", date(2026, 1, 1), "expected a string, got a date"),
        ("text", b"\0", "expected a string, got a bytes"),
        ("texts with a condition", None, "expected a list of strings, got null"),
        ("pairs", {"a": 1}, "expected an object of strings"),
        ("pairs", ["a"], "expected an object of strings"),
        ("object", ["a"], "expected an object, got a list"),
    ],
)
def test_an_invalid_member_is_reported_with_its_path_and_read_as_absent(kind: str, value: object, problem: str) -> None:
    problems: list[str] = []
    assert not _READS[kind](ObjectReader({"key": value}, "devices[3]", problems))
    [found] = problems
    assert found.startswith(f"devices[3].key: {problem}")


def test_a_number_too_long_to_be_shown_is_reported_without_its_digits() -> None:
    problems: list[str] = []
    _READS["text"](ObjectReader({"key": 16**5000}, "", problems))
    assert problems == ["key: expected a string, got a number of very many digits; put it in quotes"]


def test_each_invalid_item_of_a_list_is_reported_and_the_others_are_returned() -> None:
    problems: list[str] = []
    assert _READS["texts with a condition"](ObjectReader({"key": ["a", "", 5, "b"]}, "", problems)) == ("a", "b")
    assert problems == ["key[1]: expected a text", "key[2]: expected a text, got 5"]


@pytest.mark.parametrize("value", [SECRET, [SECRET], {SECRET: SECRET}, {SECRET}, SECRET.encode()], ids=repr)
@pytest.mark.parametrize("kind", _READS)
def test_no_problem_contains_text_of_the_document(kind: str, value: object) -> None:
    problems: list[str] = []
    _READS[kind](ObjectReader({"key": value}, "", problems))
    assert SECRET not in str(problems)


@pytest.mark.parametrize(("path", "shown"), [("", "the file"), ("devices[0]", "devices[0]")])
def test_a_value_that_is_not_an_object_is_one_problem(path: str, shown: str) -> None:
    problems: list[str] = []
    reader = ObjectReader([SECRET], path, problems)
    assert reader.text("key", required=True) is None
    reader.refuse_unknown()
    assert problems == [f"{shown}: expected an object, got a list"]


@pytest.mark.parametrize(
    ("key", "problem"),
    [
        ("Timeuot", "Timeuot: unknown key; did you mean 'timeout'?"),
        ("zzz", "zzz: unknown key; known are timeout, log"),
        (5, "5: unknown key; known are timeout, log"),
        pytest.param(16**5000, "a number of very many digits: unknown key; known are timeout, log", id="long"),
        (date(2026, 1, 1), "a date: unknown key; known are timeout, log"),
        ("a\nb", "'a\\nb': unknown key; known are timeout, log"),
        ("x" * 1000, f"{'x' * 60}: unknown key; known are timeout, log"),
    ],
)
def test_an_unknown_key_is_reported_with_the_nearest_known_one(key: object, problem: str) -> None:
    problems: list[str] = []
    reader = ObjectReader({"timeout": 5, key: 1}, "", problems)
    reader.number("timeout")
    reader.text("log")
    reader.refuse_unknown()
    assert problems == [problem]


def test_the_number_of_problems_is_limited() -> None:
    problems: list[str] = []
    reader = ObjectReader({"texts": [1] * (MAX_PROBLEMS + 1), "a": 1}, "", problems)
    reader.texts("texts")
    reader.refuse_unknown()
    assert len(problems) == MAX_PROBLEMS


def test_values_that_are_not_objects_count_towards_the_limit_of_problems() -> None:
    problems: list[str] = []
    for index in range(MAX_PROBLEMS + 1):
        ObjectReader(None, f"devices[{index}]", problems)
    assert len(problems) == MAX_PROBLEMS


def test_a_document_is_not_searched_for_more_problems_than_are_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    compared: list[str] = []

    def compare(key: str, _known: object) -> str:
        compared.append(key)
        return ""

    monkeypatch.setattr("galaxy_trio._config.reader.did_you_mean", compare)
    accepted: list[str] = []
    problems: list[str] = []
    members = {"texts": [*[1] * 3, *["a"] * 100], **{f"{number}{'x' * 1000}": 1 for number in range(100)}}
    ObjectReader(members, "", [], 5).refuse_unknown()
    assert compared == list(members)[:5]
    reader = ObjectReader(members, "", problems, 3)

    def accept(text: str) -> bool:
        accepted.append(text)
        return True

    assert reader.texts("texts", accept=accept) == ()
    assert not accepted
    assert len(problems) == 3


def test_the_length_of_a_list_can_be_limited() -> None:
    problems: list[str] = []
    reader = ObjectReader({"texts": ["a"] * 3}, "", problems)
    assert reader.texts("texts", "a list of at most 3 texts", maximum=3) == ("a", "a", "a")
    assert reader.texts("texts", "a list of at most 2 texts", maximum=2) == ()
    assert problems == ["texts: expected a list of at most 2 texts"]


def test_all_problems_are_raised_as_one_error() -> None:
    check_problems("the file f", [])
    with pytest.raises(ConfigError, match=r"^the file f is wrong at one place: a: b$"):
        check_problems("the file f", ["a: b"])
    with pytest.raises(ConfigError, match=r"^the file f is wrong at 2 places: a: b; c: d$") as caught:
        check_problems("the file f", ["a: b", "c: d"])
    assert caught.value.problems == ("a: b", "c: d")
