"""The known names nearest to one that is not known."""

from __future__ import annotations

import time

import pytest

from galaxy_trio._nearest import did_you_mean, did_you_mean_or_known, nearest


@pytest.mark.parametrize(
    ("name", "known", "found"),
    [
        ("clik", ["scroll", "click", "double_click"], ["click"]),
        ("lptop", ["desktop", "laptop", "phone"], ["laptop"]),
        ("Laptop", ["laptop"], ["laptop"]),
        ("laptop", ["LAPTOP", "Laptop"], ["LAPTOP"]),
        ("kye", ["key", "x"], ["key"]),
        ("time", ["get_current_time", "other"], ["get_current_time"]),
        ("fs.read_all", ["read"], ["read"]),
        ("linux_9", [f"linux_{number}" for number in range(5)], ["linux_0", "linux_1", "linux_2"]),
        ("fridge", ["phone", "desktop"], []),
        ("ab", ["cabinet"], []),
        ("", ["a"], []),
        ("a", [""], []),
        ("", [""], [""]),
        ("x", [], []),
    ],
)
def test_names_of_similar_spelling_or_that_contain_the_name_are_near(
    name: str, known: list[str], found: list[str]
) -> None:
    assert nearest(name, iter(known)) == found


def test_error_ends_with_a_question_or_the_known_names() -> None:
    assert did_you_mean("clik", ["click"]) == "; did you mean 'click'?"
    assert did_you_mean("linux_9", ["linux_1", "linux_2"]) == "; did you mean 'linux_1' or 'linux_2'?"
    assert did_you_mean("fridge", ["phone"]) == ""
    assert did_you_mean_or_known("clik", ["click"]) == "; did you mean 'click'?"
    assert did_you_mean_or_known("fridge", ["phone", "desk"]) == "; known: 'phone', 'desk'"
    assert did_you_mean_or_known("fridge", []) == ""
    assert did_you_mean_or_known("x", [str(number) for number in range(12)]).endswith("'8', '9', and 2 more")


def test_long_names_are_shortened() -> None:
    assert len(did_you_mean("x" * 10_000, [f"{'x' * 10_000}{number}" for number in range(5)])) < 250
    assert len(did_you_mean_or_known("y", ["x" * 10_000] * 100)) < 800


def test_time_does_not_depend_on_the_number_and_length_of_names() -> None:
    names = [f"{number}{'ab' * 500}" for number in range(100_000)]
    began = time.thread_time()
    nearest("ba" * 100_000, names)
    assert time.thread_time() - began < 0.5
