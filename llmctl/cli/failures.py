"""How errors end: the one place that turns an exception into words and an exit status."""

from __future__ import annotations

import errno
import re
import traceback
from collections.abc import Iterator

import typer

from llmctl.cli.invocation import Invocation
from llmctl.environment import CANT_BE_WRITTEN, ExitStatus
from llmctl.errors import LlmctlError
from llmctl.keys import redact

# How Typer ends a message about a word that it nearly knows.
_SUGGESTION = re.compile(r" (?:Did you mean|\(Possible options:) (?P<names>.*)$", re.DOTALL)

# What the system says of a place that a person chose badly; all else is trouble with the disk.
_BAD_PLACE = {
    errno.ENOENT,
    errno.EEXIST,
    errno.ENOTDIR,
    errno.EISDIR,
    errno.ELOOP,
    *CANT_BE_WRITTEN,
}

# What it says where this process, or the machine, may open no more files or connections.
_TOO_MANY_OPEN = {errno.EMFILE, errno.ENFILE}

_FULL = "No more files can be opened: too many are open already."
_PLACE = "Name another place; 'llmctl doctor' looks at those that are in use."
_DISK = "Check the place and the disk; 'llmctl doctor' looks at what it uses itself."
_OPEN = "Allow more with 'ulimit -n 4096', or ask for less at a time (in a batch: --concurrency)."
_BUG = "This is a fault of the program; --verbose shows where it is."


def report(error: Exception | KeyboardInterrupt, invocation: Invocation) -> int:
    """Tell the person on stderr what ended the program, and return the exit status."""
    error = _meant(error)
    match error:
        case BrokenPipeError():
            invocation.env.discard_output()
            return ExitStatus.CLOSED_PIPE
        case KeyboardInterrupt() | typer.Abort():
            return ExitStatus.SIGINT
    told, status = _explain(error)
    if invocation.verbose:
        told = "".join(traceback.format_exception(error)) + told
    invocation.env.note(redact(told, invocation.secrets))
    return status


def _meant(error: Exception | KeyboardInterrupt) -> Exception | KeyboardInterrupt:
    """Return what tasks that failed together have to say: the only fault, or what is behind it."""
    leaves = list(_leaves(error))
    if len(leaves) == 1:
        return leaves[0]
    short = (e for e in leaves if isinstance(e, OSError) and e.errno in _TOO_MANY_OPEN)
    return next(short, error)


def _leaves(error: Exception | KeyboardInterrupt) -> Iterator[Exception | KeyboardInterrupt]:
    if isinstance(error, ExceptionGroup):
        for each in error.exceptions:
            yield from _leaves(each)
    else:
        yield error


def _explain(error: Exception) -> tuple[str, int]:
    """Return the words for the person and the exit status that an error is worth."""
    match error:
        case LlmctlError():
            return _told(error.message, error.hint), error.exit_code
        case typer.TyperException():
            return _explain_usage(error), ExitStatus.USAGE
        case OSError(errno=number) if number in _TOO_MANY_OPEN:
            return _told(_FULL, _OPEN), ExitStatus.INTERNAL_ERROR
        case OSError(strerror=str(reason)):
            what = f"{error.filename}: {reason}." if error.filename else f"{reason}."
            if error.filename and error.errno in _BAD_PLACE:
                return _told(what, _PLACE), ExitStatus.USAGE
            return _told(what, _DISK), ExitStatus.INTERNAL_ERROR
        case _:
            return _told(f"{type(error).__name__}: {error}", _BUG), ExitStatus.INTERNAL_ERROR


def _explain_usage(error: typer.TyperException) -> str:
    message = error.format_message().replace("Value error, ", "")  # pydantic says that
    if message.startswith("Usage:"):  # a group without a command: its help, as it is
        return message
    context = getattr(error, "ctx", None)
    path = context.command_path if context is not None else "llmctl"
    if (close := _SUGGESTION.search(message)) is not None:
        return _told(message[: close.start()], f"Did you mean {close['names'].rstrip(')?')}?")
    return _told(message, f"'{path} --help' lists what there is.")


def _told(message: str, hint: str | None = None) -> str:
    return f"llmctl: {message}" if hint is None else f"llmctl: {message}\nhint: {hint}"
