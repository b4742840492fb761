"""Text from anywhere is made printable by one function."""

from __future__ import annotations

import json
import sys
import unicodedata
from typing import TYPE_CHECKING

from hypothesis import given
from hypothesis import strategies as st
from rich.text import Text

from galaxy_trio._cli.terminal import open_console
from galaxy_trio._printable import one_line, printable
from tests.cli.support.hostile import EVIL, harmful_characters

if TYPE_CHECKING:
    import pytest

_LINE_ENDS_AND_TABS = "\n\t"
# Letters that have no width: fillers of Hangul and Khmer, the grapheme joiner, selectors of variants.
_INVISIBLE = "\u034f\u115f\u1160\u17b4\u17b5\u180b\u180f\u3164\uffa0\U000e0100\U000e01ef"


def test_every_character_that_controls_a_terminal_or_is_not_seen_is_escaped() -> None:
    for number in range(sys.maxunicode + 1):
        character = chr(number)
        harmful = unicodedata.category(character) in ("Cc", "Cf", "Cs", "Zl", "Zp") or character in _INVISIBLE
        if harmful and character not in _LINE_ENDS_AND_TABS:
            escaped = printable(character)
            assert (escaped[:2], escaped.isascii()) == ("\\u", True), hex(number)
            assert json.loads(f'"{escaped}"').encode("utf-16", "surrogatepass") == character.encode(
                "utf-16", "surrogatepass"
            )


def test_what_is_seen_stays_as_it_is() -> None:
    for text in ("one\r\ntwo\n\tthree", "Köln\u00a0日本\u3000العربية עברית हिन्दी", "😀 ⚠\ufe0f ✓", "\\u001b", ""):  # noqa: RUF001
        assert printable(text) == text
    assert printable("a\rb") == "a\\u000db"
    assert one_line("one\r\ntwo\u2028three\x85\tfour\x9b") == "one two three four\\u009b"


_json = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text() | st.sampled_from([EVIL, "\U000e0041\x7f"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
)


@given(_json, st.booleans())
def test_json_stays_the_same_json(value: object, ensure_ascii: bool) -> None:
    shown = printable(json.dumps(value, ensure_ascii=ensure_ascii))
    assert json.loads(shown) == value
    assert not harmful_characters(shown)
    assert printable(shown) == shown


def test_console_of_tables_and_of_the_demonstration_prints_only_printable_text(
    capsys: pytest.CaptureFixture[str],
) -> None:
    console = open_console(max_width=80)
    console.print(Text(EVIL, style="bold"))
    console.print(EVIL)
    shown = capsys.readouterr().out
    assert shown.count("\\u009b") == 2
    assert not harmful_characters(shown)
