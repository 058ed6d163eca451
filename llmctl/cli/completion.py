"""``llmctl completion``: scripts for shells, and the manual page."""

from __future__ import annotations

from typing import Annotated

import typer

from llmctl.cli.completion_scripts import SHELLS, Known, script
from llmctl.cli.invocation import Invocation, here, new_app
from llmctl.cli.manual import page
from llmctl.cli.tree import Node, tree_of
from llmctl.errors import UsageError

app = new_app()

_MANUAL = "man"


@app.command()
def completion(
    context: typer.Context,
    shell: Annotated[
        str, typer.Argument(metavar="<bash|zsh|fish|man>", help="For which shell; man: the manual.")
    ],
) -> None:
    """Print a completion script for a shell, or the manual page.

    The script starts no Python: the commands, models and templates of now are written into
    it. Its first line says where it goes. Print it again after an upgrade.
    """
    invocation = here(context)
    tree = _whole_tree(context)
    if shell == _MANUAL:
        invocation.env.write(page(tree))
    elif shell in SHELLS:
        invocation.env.write(script(shell, tree, _known(invocation)))
    else:
        names = ", ".join([*SHELLS, _MANUAL])
        raise UsageError(f"There is nothing for '{shell}'.", f"There is {names}.")


def _whole_tree(context: typer.Context) -> Node:
    root = context.find_root()
    return tree_of(root.command, root)


def _known(invocation: Invocation) -> Known:
    from llmctl.config import setting_names  # noqa: PLC0415  (start-up)
    from llmctl.templates import template_names  # noqa: PLC0415

    profiles = tuple(invocation.config().profiles)
    templates = tuple(template_names(invocation.env))
    return {
        "--model": ("local", *(f"{name}/" for name in profiles)),
        "--template": templates,
        "--otherwise": ("restart", "fail"),
        "--order": ("files", "input"),
        "--format": ("markdown", "json", "jsonl"),
        "prompts show": templates,
        "keys set": profiles,
        "keys remove": profiles,
        "config set": tuple(setting_names()),
        "completion": (*SHELLS, _MANUAL),
    }
