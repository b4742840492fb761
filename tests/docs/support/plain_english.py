"""Find words that the project's prose does not use: ``python tests/docs/support/plain_english.py``. Exits with 1 if there are any.

Checked are the documentation, the page, and in Python files the comments, the docstrings and other texts, and the names of tests.
"""

from __future__ import annotations

import io
import re
import sys
import tokenize
from pathlib import Path
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterator

_ROOT: Final = Path(__file__).parents[3]
_INSTEAD: Final = {
    r"whoever|whomever": "name the actor",
    r"(?<!those )who (?:is|has|asks|waits|wants|reads|runs|comes|gives|gets|knows|does|sends|holds|uses|lags)": "name the actor",
    r"(?:is|are|was|were|be) told|tells? of|told of": "notified, reports",
    r"(?<!there )(?-i:is none)": "is not a …, there is no …",
    r"(?<!there )is another(?! \w)": "changed",
    r"anew": "again",
    r"nobody": "no caller, no client",
    r"what becomes of": "name what happens",
    r"is right": "is valid, is correct",
    r"hopes?": "candidate",
    r"beside": "besides, next to",
    r"his": "its, the caller's",
    r"lets? go of|letting go of": "releases, drops",
    r"meanwhile": "leave it out",
    r"at once": "immediately, or together",
}
_BANNED: Final = re.compile("|".join(rf"(\b(?:{words})\b)" for words in _INSTEAD), re.IGNORECASE)
_ADVICE: Final = tuple(_INSTEAD.values())
_STRINGS: Final = {tokenize.STRING, tokenize.COMMENT, getattr(tokenize, "FSTRING_MIDDLE", tokenize.STRING)}


def _prose_of_python(text: str) -> Iterator[tuple[int, str]]:
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        if token.type in _STRINGS:
            for offset, line in enumerate(token.string.splitlines()):
                yield token.start[0] + offset, line
        elif token.type == tokenize.NAME and token.string.startswith("test_"):
            yield token.start[0], token.string.replace("_", " ")


def _prose_of(path: Path) -> Iterator[tuple[int, str]]:
    text = path.read_text("utf-8")
    return _prose_of_python(text) if path.suffix == ".py" else iter(enumerate(text.splitlines(), 1))


def _files() -> Iterator[Path]:
    for folder in ("galaxy_trio", "tests", "docs"):
        for suffix in ("py", "md", "html", "js", "service"):
            yield from (_ROOT / folder).rglob(f"*.{suffix}")
    yield from _ROOT.glob("*.md")
    yield _ROOT / "noxfile.py"


def main() -> int:
    """Print each finding with what to write instead. Returns the exit status."""
    found = 0
    for path in sorted(_files()):
        if path == Path(__file__) or "_build" in path.parts:
            continue
        for number, line in _prose_of(path):
            for match in _BANNED.finditer(line):
                found += 1
                advice = _ADVICE[(match.lastindex or 1) - 1]
                sys.stdout.write(f"{path.relative_to(_ROOT)}:{number}: {match[0]!r}; write: {advice}\n")
    sys.stdout.write(f"{found} words that plain English does not need\n" if found else "")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
