"""The site made of these pages: ``make docs``. Every warning is an error."""

from __future__ import annotations

import typer.main
from docutils import nodes
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective

from llmctl._version import __version__
from llmctl.cli import app
from llmctl.cli.tree import Node, tree_of

project = "llmctl"
release = __version__
extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
myst_heading_anchors = 3
html_theme = "furo"
html_title = f"llmctl {release}"
html_copy_source = False
autodoc_default_options = {"members": True, "member-order": "bysource"}
autodoc_typehints = "description"
# The picture of layers is of no language; Sphinx 8.2 misspells what it says of that.
suppress_warnings = ["misc.highlighting_failure", "misc.higlighting_failure"]


class Commands(SphinxDirective):
    """Every command with its options, from the program itself."""

    def run(self) -> list[nodes.Node]:
        """Return a section for each."""
        command = typer.main.get_command(app)
        tree = tree_of(command, command.context_class(command, **command.context_settings))
        text = "\n".join(_described(tree))
        return self.parse_text_to_nodes(text, allow_section_headings=True)


def _described(node: Node) -> list[str]:
    lines = [f"## {' '.join(('llmctl', *node.path))}", "", node.help, ""]
    for parameter in (*node.arguments, *node.options):
        lines += [f"- `{parameter.head}`: {parameter.help}"]
    lines.append("")
    for child in node.children:
        lines += _described(child)
    return lines


def setup(sphinx: Sphinx) -> None:
    """Add the directive."""
    sphinx.add_directive("commands", Commands)
