"""How Sphinx makes the site: ``nox -s docs``."""

from __future__ import annotations

import inspect
import re
from importlib.metadata import version as installed_version
from typing import TYPE_CHECKING

from sphinx.util.nodes import make_refnode

if TYPE_CHECKING:
    from docutils import nodes
    from sphinx.addnodes import pending_xref
    from sphinx.application import Sphinx
    from sphinx.environment import BuildEnvironment

project = "galaxy_trio"
author = copyright = "The galaxy_trio contributors"  # noqa: A001  # Sphinx's name
release = version = installed_version("galaxy_trio")

extensions = [
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "sphinxcontrib_trio",
    "sphinx_click",
    "sphinx_copybutton",
]
exclude_patterns = ["_build", "examples"]
# Options keep their two dashes.
smartquotes = False
html_theme = "furo"
html_title = f"galaxy_trio {release}"
html_favicon = "images/logo.svg"
html_theme_options = {"navigation_with_keys": True}

myst_enable_extensions = ["colon_fence", "deflist", "attrs_inline"]
myst_heading_anchors = 3

# sphinxcontrib-trio hooks into the documenters that are classes: without them its `async` and `async with` are missing.
autodoc_use_legacy_class_based = True
autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_typehints_format = "short"
# A signature shows the alias, not the union that it stands for.
autodoc_type_aliases = {"JSON": "galaxy_trio.messages.JSON"}
python_use_unqualified_type_names = True
napoleon_numpy_docstring = False
napoleon_use_ivar = True
napoleon_use_rtype = False

# A name in single backticks is a name of the package, or a parameter.
default_role = "py:obj"
nitpicky = True
nitpick_ignore_regex = [
    ("py:.*", r"(trio|ssl|collections|os|math|random|datetime|pytest|repr)\b.*"),
    ("py:obj", r"[a-z_]+|(.*\.)?E"),
    ("py:class", r"(.*\.)?(P|R_co|T|Ts|Random)"),
    ("py:exc", "TransportEnded"),
    (
        "py:class",
        r"AbstractContextManager|PathLike|Connect|Where|Mapping\[str|(.*\.)?TransportEnded|AttrsInstance|enum\.StrEnum",
    ),
]

copybutton_prompt_text = r"\$ "
copybutton_prompt_is_regexp = True
copybutton_only_copy_prompt_lines = True


def setup(app: Sphinx) -> None:
    """Called by Sphinx."""
    app.connect("autodoc-process-signature", simplify_signature)
    app.connect("autodoc-process-docstring", link_pages)
    app.connect("missing-reference", find_public_name)


def simplify_signature(
    app: Sphinx, what: str, name: str, what_it_is: object, options: object, signature: str | None, returns: str | None
) -> tuple[str | None, str | None]:
    """Leave out constructors that only this package calls, those of errors among them, and show each alias by its name."""
    made_here = what == "exception" or re.search(r"\bMade by\b", inspect.getdoc(what_it_is) or "")
    # Sphinx shows an alias within another type as `TypeAliasForwardRef`.
    return "" if made_here else _with_aliases(signature), _with_aliases(returns)


def _with_aliases(text: str | None) -> str | None:
    return text and re.sub(r"TypeAliasForwardRef\('([\w.]+)'\)", r"\1", text)


def link_pages(app: Sphinx, what: str, name: str, what_it_is: object, options: object, lines: list[str]) -> None:
    """Let docstrings name a page by its path, which works in a checkout as well."""
    lines[:] = [re.sub(r"docs/([\w/-]+)\.md", r":doc:`/\1`", line) for line in lines]


def find_public_name(
    app: Sphinx, env: BuildEnvironment, node: pending_xref, content: nodes.TextElement
) -> nodes.reference | None:
    """Find what annotations name by the module that it is in, and the reference by the one that it is taken from."""
    if node.get("refdomain") != "py":
        return None
    python = env.get_domain("py")
    target = node["reftarget"]
    # An attribute without an entry of its own is described with its class.
    for words in filter(None, (target, target.rpartition(".")[0])):
        name = words.removeprefix("galaxy_trio.").rpartition(".")[2] if words.startswith("galaxy_trio.") else words
        # A name and where it is taken from are one place under two names.
        places = {
            (entry.docname, entry.node_id)
            for whole, entry in python.objects.items()
            if f".{whole}".endswith(f".{name}")
        }
        if len(places) == 1:
            [(page, place)] = places
            return make_refnode(app.builder, node["refdoc"], page, place, content, target)
    return None
