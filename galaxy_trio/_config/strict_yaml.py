"""Parses YAML with PyYAML's safe loader, and refuses keys that are given twice: PyYAML itself keeps the last one.

PyYAML belongs to extras: only `galaxy_trio._config.files` imports this module, when it reads a YAML file.
"""

from __future__ import annotations

import re
from itertools import islice
from typing import TYPE_CHECKING, Final, cast

import yaml

from galaxy_trio._config.reader import MAX_PROBLEMS, check_problems, member_path
from galaxy_trio._config.text import backslash_hint
from galaxy_trio.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

_MERGE: Final = "tag:yaml.org,2002:merge"


def parse_yaml(text: str, shown: str) -> object:
    """Parse a document. A key may replace one that a merge key (``<<``) brings.

    Args:
        text: The document.
        shown: The subject of error messages.

    Raises:
        ConfigError: The text is not YAML, or keys are given twice: each is a problem with its path and its lines.
    """
    problem = "it is nested too deeply"
    try:
        value, problems = _parse(yaml.SafeLoader(text))
    except yaml.MarkedYAMLError as error:
        problem = _without_content(error)
    except yaml.YAMLError as error:
        problem = " ".join(str(error).split())
    except ValueError:
        problem = "it contains an invalid number or date"
    except RecursionError:
        pass
    else:
        check_problems(shown, problems)
        return value
    raise ConfigError(f"{shown} is not YAML: {problem}{backslash_hint(problem)}")


def _parse(loader: yaml.SafeLoader) -> tuple[object, list[str]]:
    """Return the value of the document, and the keys that are given twice. With these, the value is incomplete."""
    try:
        document = loader.get_single_node()
        if document is None:
            return None, []
        problems = list(islice(_repeated_keys(loader, document), MAX_PROBLEMS))
        # Its stub has no types.
        construct = cast("Callable[[yaml.Node], object]", loader.construct_document)  # pyright: ignore[reportUnknownMemberType]
        return construct(document), problems
    finally:
        loader.dispose()


def _repeated_keys(loader: yaml.SafeLoader, document: yaml.Node) -> Iterator[str]:
    remaining: list[tuple[str, yaml.Node, bool]] = [("", document, False)]
    # An alias is the same node as its anchor, and may even be inside of it.
    seen: set[int] = set()
    while remaining:
        path, node, is_item = remaining.pop()
        if id(node) in seen:
            continue
        seen.add(id(node))
        if isinstance(node, yaml.MappingNode):
            pairs = cast("list[tuple[yaml.Node, yaml.Node]]", node.value)
            lines: dict[object, int] = {}
            inner: list[tuple[str, yaml.Node, bool]] = []
            for key_node, value in pairs:
                if not isinstance(key_node, yaml.ScalarNode):
                    continue
                key = _key(loader, key_node)
                line = key_node.start_mark.line + 1
                at = member_path(path, "<<" if key == (_MERGE,) else key)
                if key in lines:
                    first = lines[key]
                    where = f"in line {line}" if first == line else f"in line {first} and in line {line}"
                    hint = ", or begin another item with a dash" if is_item else ""
                    yield f"{at}: is given twice, {where}: leave out one{hint}"
                lines.setdefault(key, line)
                inner.append((at, value, False))
            remaining += reversed(inner)
        elif isinstance(node, yaml.SequenceNode):
            items = cast("list[yaml.Node]", node.value)
            remaining += reversed([(f"{path}[{index}]", item, True) for index, item in enumerate(items)])


def _key(loader: yaml.SafeLoader, node: yaml.Node) -> object:
    """Return a key as it will be in the object, where 1 and 0x1 are the same."""
    if node.tag == _MERGE:
        return (_MERGE,)
    construct = cast("Callable[[yaml.Node], object]", loader.construct_object)  # pyright: ignore[reportUnknownMemberType]
    return construct(node)


def _without_content(error: yaml.MarkedYAMLError) -> str:
    """Return the problem and its position. PyYAML also quotes the line, which may contain a token: so its error is not chained."""
    problem = error.problem or "it cannot be read"
    if problem.startswith("but "):
        problem = f"{error.context} {problem}"
    # PyYAML's own names, such as <document start>, are in quotes too.
    problem = re.sub("'(<[a-z ]+>)'", r"\1", problem)
    problem = re.sub(r"""(['"]).{4,}\1""", "what stands there", problem)
    mark = error.problem_mark
    return problem if mark is None else f"{problem} (at line {mark.line + 1}, column {mark.column + 1})"
