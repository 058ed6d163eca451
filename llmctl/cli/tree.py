"""The commands as plain data: what completion scripts and the manual page are made from.

Only what every version of Typer tells in public is asked of it: names, and the two columns of
its help. A hidden command of a group is what the group does by itself (``batch INPUT``).
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

_CHOICES = re.compile(r"<([\w-]+(?:\|[\w-]+)+)>")
_FILES = {"FILE", "INPUT", "OUTPUT"}


class Takes(StrEnum):
    """What a word may be."""

    NOTHING = "nothing"
    FILE = "file"
    FOLDER = "folder"
    TEXT = "text"


@dataclass(frozen=True, slots=True)
class Parameter:
    """An option or an argument.

    Attributes:
        names: an option's names, short before long; empty for an argument.
        head: how the help writes it, with what it takes.
        help: what it is for.
        takes: what its value may be.
        words: all that its value can be, where that is known.
    """

    names: tuple[str, ...]
    head: str
    help: str
    takes: Takes
    words: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Node:
    """A command or a group of them.

    Attributes:
        path: the words that lead to it; none for the program itself.
        summary: one sentence.
        help: all that its help says before the parameters.
        options: its own options.
        arguments: what it takes besides.
        children: the commands below it.
    """

    path: tuple[str, ...]
    summary: str
    help: str
    options: tuple[Parameter, ...]
    arguments: tuple[Parameter, ...]
    children: tuple[Node, ...] = ()

    def __iter__(self) -> Iterator[Node]:
        """Yield the node and all below it."""
        yield self
        for child in self.children:
            yield from child


def tree_of(command: Any, context: Any, path: tuple[str, ...] = ()) -> Node:  # noqa: ANN401  (Typer's own)
    """Return a Typer command and all below it.

    Args:
        command: the command.
        context: its context.
        path: the words that lead to it.
    """
    below = [command.commands[name] for name in _names(command, context)]
    implied = next((one for one in below if one.hidden), None)
    does = implied or command
    parameters = [_parameter(one, context) for one in does.params if not _hidden(one)]
    help_option = does.get_help_option(context)
    return Node(
        path,
        summary=command.get_short_help_str(limit=200),
        help=(does.help or command.help or "").strip(),
        options=(*(one for one in parameters if one.names), _parameter(help_option, context)),
        arguments=tuple(one for one in parameters if not one.names),
        children=tuple(
            tree_of(one, _context(one, context), (*path, str(one.name)))
            for one in below
            if not one.hidden
        ),
    )


def _names(command: Any, context: Any) -> list[str]:  # noqa: ANN401
    return list(command.list_commands(context)) if hasattr(command, "commands") else []


def _hidden(parameter: Any) -> bool:  # noqa: ANN401
    return bool(getattr(parameter, "hidden", False))


def _context(command: Any, parent: Any) -> Any:  # noqa: ANN401
    return command.context_class(
        command, info_name=command.name, parent=parent, **command.context_settings
    )


def _parameter(parameter: Any, context: Any) -> Parameter:  # noqa: ANN401
    record = parameter.get_help_record(context)
    head, text = record if record is not None else (str(parameter.name), "")
    names = tuple(sorted((n for n in parameter.opts if n.startswith("-")), key=len))
    shape = head.rpartition(names[-1])[2].strip() if names else head
    found = _CHOICES.search(shape)
    words = tuple(found[1].split("|")) if found else ()
    return Parameter(names, head, text.strip(), _takes(shape), words)


def _takes(shape: str) -> Takes:
    name = re.split(r"\W", shape.lstrip("["), maxsplit=1)[0]
    if not shape or (shape.startswith("[") and not shape.startswith("[ID")):
        return Takes.NOTHING  # a flag, or a value that may be left out
    if name in _FILES:
        return Takes.FILE
    return Takes.FOLDER if name == "DIR" else Takes.TEXT
