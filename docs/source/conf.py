"""Builds the documentation: Markdown pages, the navigation of `_toctree.yml`, and `[[autodoc]] Name` for a class."""

import re
from importlib import import_module
from pathlib import Path

import yaml


SOURCE = Path(__file__).parent

project = "tts_models"
author = "The tts_models authors"
extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
html_theme = "furo"
html_title = "tts_models"
html_show_copyright = False
exclude_patterns = ["_build"]
suppress_warnings = ["myst.header"]
# Docstrings write `name` for code, as in Markdown.
default_role = "code"
autodoc_typehints = "none"
autodoc_member_order = "bysource"
myst_heading_anchors = 3
napoleon_custom_sections = [("Yields", "returns_style")]

_AUTODOC = re.compile(r"^\[\[autodoc\]\] (\S+)((?:\n    - \S+)*)$", re.MULTILINE)
_FENCE = re.compile(r"^( *)```\w*\n(.*?)^ *```$", re.MULTILINE | re.DOTALL)
_LINK = re.compile(r"\[(`[^`]+`)\]|\[([^\]]+)\]\((https?:[^)]+)\)")


def toctree() -> str:
    """The navigation as hidden `toctree` directives, from `_toctree.yml`."""
    sections = yaml.safe_load((SOURCE / "_toctree.yml").read_text(encoding="utf-8"))
    blocks = []
    for section in sections:
        pages = [f"{page['title']} <{page['local']}>" for page in section["sections"] if page["local"] != "index"]
        blocks.append("\n".join([f"```{{toctree}}\n:hidden:\n:caption: {section['title']}\n", *pages, "```"]))
    return "\n\n".join(blocks)


def autodoc_block(match: re.Match) -> str:
    """The directive that documents one public name, and the methods listed below it."""
    name, methods = match.group(1), re.findall(r"- (\S+)", match.group(2))
    module, _, attribute = f"tts_models.{name}".rpartition(".")
    kind = "autoclass" if isinstance(getattr(import_module(module), attribute), type) else "autofunction"
    lines = ["```{eval-rst}", f".. {kind}:: {module}.{attribute}"]
    lines += [f"   :members: {', '.join(methods)}"] if methods else []
    return "\n".join([*lines, "```"])


def read_page(app: object, name: str, content: list[str]) -> None:
    """Expands `[[autodoc]]` in a page, and puts the navigation at the end of the index."""
    text = _AUTODOC.sub(autodoc_block, content[0])
    content[0] = f"{text}\n\n{toctree()}\n" if name == "index" else text


def _code_block(match: re.Match) -> str:
    indent, code = match.groups()
    lines = [f"{indent}    {line.removeprefix(indent)}".rstrip() for line in code.splitlines()]
    return "\n".join([f"{indent}.. code-block:: python", "", *lines, ""])


def read_docstring(app: object, what: str, name: str, obj: object, options: object, lines: list[str]) -> None:
    """Turns the Markdown of a docstring (fences, links) into reStructuredText; runs before napoleon."""
    text = _FENCE.sub(_code_block, "\n".join(lines))
    text = _LINK.sub(lambda match: match.group(1) or f"`{match.group(2)} <{match.group(3)}>`__", text)
    lines[:] = text.split("\n")


def setup(app: object) -> None:
    """Connects the two readers."""
    app.connect("source-read", read_page)
    app.connect("autodoc-process-docstring", read_docstring, priority=100)
