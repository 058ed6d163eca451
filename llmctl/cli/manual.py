"""The manual page, made from the commands' own help."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator

from llmctl._version import __version__
from llmctl.cli.tree import Node, Parameter

_EXITS = (
    (0, "complete"),
    (1, "a fault of the program, or something is broken (doctor)"),
    (2, "usage or bad input"),
    (3, "refused by the back end: key, model, request"),
    (4, "unreachable, or the connection was lost"),
    (5, "paused: the reply can be gone on with"),
    (6, "truncated at the token limit or a full context"),
    (7, "no way to go on is as exact as --require"),
    (8, "batch: some items failed or timed out"),
    (9, "batch: too many failures, deadline or budget"),
    (124, "a time limit"),
    (129, "SIGHUP, or the terminal is gone"),
    (130, "SIGINT"),
    (141, "the reader of stdout has gone"),
    (143, "SIGTERM"),
)
_VARIABLES = (
    ("LLMCTL_HOME", "data and configuration in one folder, as --home"),
    ("LLMCTL_CONFIG", "the configuration file, as --config"),
    ("LLMCTL_MODEL", "the model, as -m"),
    ("LLMCTL_MODELS", "the folder for weights"),
    ("LLMCTL_PLAIN", "chat in plain text, as --plain"),
    ("NO_COLOR, CLICOLOR_FORCE", "against and for colour, as --color"),
)


def page(tree: Node) -> str:
    """Return the page in roff's man macros."""
    return "\n".join(_lines(tree)) + "\n"


def _lines(tree: Node) -> Iterator[str]:
    yield f'.TH LLMCTL 1 "" "llmctl {__version__}" "User Commands"'
    yield from (".SH NAME", rf"llmctl \- {_text(tree.summary.rstrip('.'))}")
    yield from (".SH SYNOPSIS", r".B llmctl", r"[\fIoptions\fR] \fIcommand\fR ...")
    yield from (".SH OPTIONS", *_parameters(tree.options))
    yield ".SH COMMANDS"
    for node in tree:
        if node.path and (node.options or not node.children):
            yield from _command(node)
    yield ".SH EXIT STATUS"
    yield from _list((str(code), text) for code, text in _EXITS)
    yield ".SH ENVIRONMENT"
    yield from _list(_VARIABLES)


def _command(node: Node) -> Iterator[str]:
    takes = " ".join(argument.head.partition(" <")[0] for argument in node.arguments)
    yield f'.SS "{_text(" ".join(["llmctl", *node.path, *([takes] if takes else [])]))}"'
    yield from _paragraphs(node.help)
    yield from _parameters((*node.arguments, *node.options))


def _paragraphs(text: str) -> Iterator[str]:
    for number, paragraph in enumerate(re.split(r"\n\s*\n", text)):
        if number:
            yield ".PP"
        yield _text(" ".join(paragraph.split()))


def _parameters(parameters: Iterable[Parameter]) -> Iterator[str]:
    return _list((one.head, one.help) for one in parameters)


def _list(rows: Iterable[tuple[str, str]]) -> Iterator[str]:
    for head, text in rows:
        yield ".TP"
        yield rf"\fB{_text(head)}\fR"
        yield _text(text) if text else r"\&"


def _text(text: str) -> str:
    r"""Return text as roff reads it back: no escapes, no requests, hyphens that can be copied.

    >>> _text(".x --y\\z 'q")
    '\\&.x \\-\\-y\\ez \\(aqq'
    """
    safe = text.replace("\\", r"\e").replace("-", r"\-").replace("'", r"\(aq").replace('"', r"\(dq")
    return rf"\&{safe}" if safe.startswith(".") else safe
