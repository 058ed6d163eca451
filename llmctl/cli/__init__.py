"""The command line: which commands there are, the global options, and how errors end.

A command is a row of `COMMANDS`: its module is `llmctl.cli.NAME`, which holds a Typer
application called ``app`` and is imported only when that command is asked for. A command
returns its exit status (None is 0). What it raises becomes a sentence, a hint and an exit
status in `_report`, here and nowhere else.
"""

from __future__ import annotations

import re
import traceback
from collections.abc import Iterator, Mapping, Sequence
from importlib import import_module
from types import MappingProxyType
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from llmctl._version import __version__
from llmctl.cli.invocation import Invocation, here, new_app
from llmctl.environment import Environment, ExitStatus
from llmctl.errors import LlmctlError, UsageError

COMMANDS: Mapping[str, str] = MappingProxyType(
    {
        "models": "Fetch, list and remove the weights for the embedded engine.",
        "prompts": "List and show templates.",
        "config": "Show and change the configuration.",
        "keys": "Store and list the keys of back ends.",
        "doctor": "Say what is wrong here and what to do about it.",
    }
)

# How Typer ends a message about a word that it nearly knows.
_SUGGESTION = re.compile(r" (?:Did you mean|\(Possible options:) (?P<names>.*)$", re.DOTALL)

_BUG = "This is a fault of the program; --verbose shows where it is."


class _Commands(Mapping[str, Any]):
    """The commands by name, each imported when it is asked for."""

    def __getitem__(self, name: str) -> Any:  # noqa: ANN401  (a command of Typer's own kind)
        if name not in COMMANDS:
            raise KeyError(name)
        command = typer.main.get_command(import_module(f"{__name__}.{name}").app)
        command.name = name
        return command

    def __iter__(self) -> Iterator[str]:
        return iter(COMMANDS)

    def __len__(self) -> int:
        return len(COMMANDS)


class _Root(TyperGroup):
    """The group of all commands; listing them imports none of them."""

    def __init__(self, **settings: Any) -> None:  # noqa: ANN401  (handed on as they are)
        super().__init__(**settings)
        self.commands = _Commands()  # type: ignore[assignment]

    def list_commands(self, ctx: Any) -> list[str]:  # noqa: ANN401, ARG002
        """Return the names in the order of the table."""
        return list(COMMANDS)

    def format_commands(self, ctx: Any, formatter: Any) -> None:  # noqa: ANN401, ARG002
        """Write the table into the help text."""
        with formatter.section("Commands"):
            formatter.write_dl(list(COMMANDS.items()))


app = new_app(cls=_Root, no_args_is_help=True)


def _show_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"llmctl {__version__}")
        raise typer.Exit


@app.callback()
def _global_options(
    context: typer.Context,
    *,
    home: Annotated[
        str | None,
        typer.Option(metavar="DIR", help="Keep data and configuration in this folder."),
    ] = None,
    config: Annotated[
        str | None, typer.Option(metavar="FILE", help="Read this configuration file.")
    ] = None,
    color: Annotated[
        str | None, typer.Option(metavar="WHEN", help="auto, always or never.")
    ] = None,
    verbose: Annotated[
        bool, typer.Option("--verbose", help="Show where an error comes from.")
    ] = False,
    _version: Annotated[
        bool,
        typer.Option(
            "--version", callback=_show_version, is_eager=True, help="Show the version and exit."
        ),
    ] = False,
) -> None:
    """Talk to language models; pause, resume, interrupt a reply and lose nothing of it."""
    invocation = here(context)
    invocation.verbose = verbose
    if home is not None:
        invocation.env = invocation.env.at_home(home)
    if color not in (None, "auto", "always", "never"):
        raise UsageError(f"--color is auto, always or never, not '{color}'.")
    invocation.config_file, invocation.color = config, color


def main(args: Sequence[str] | None = None, env: Environment | None = None) -> int:
    """Run one command line and return its exit status.

    Args:
        args: the words after the program's name; None means this process's own.
        env: the process to run in; None means this one.
    """
    invocation = Invocation(env or Environment.of_process())
    words = invocation.env.arguments if args is None else args
    try:
        return _run(list(words), invocation)
    except BrokenPipeError:
        invocation.env.discard_output()
        return ExitStatus.CLOSED_PIPE
    except (KeyboardInterrupt, typer.Abort):
        return ExitStatus.SIGINT
    except Exception as error:  # noqa: BLE001  (told to the person, with an exit status)
        return _report(error, invocation)


def _run(args: list[str], invocation: Invocation) -> int:
    command = typer.main.get_command(app)
    try:
        with command.make_context("llmctl", args, obj=invocation) as context:
            return int(command.invoke(context) or ExitStatus.OK)
    except typer.Exit as leaving:
        return leaving.exit_code


def _report(error: Exception, invocation: Invocation) -> int:
    from llmctl.keys import redact  # noqa: PLC0415  (start-up)

    told, status = _explain(error)
    if invocation.verbose:
        told = "".join(traceback.format_exception(error)) + told
    invocation.env.note(redact(told, invocation.secrets))
    return status


def _explain(error: Exception) -> tuple[str, int]:
    """Return the words for the person and the exit status that an error is worth."""
    match error:
        case LlmctlError():
            return _told(error.message, error.hint), error.exit_code
        case typer.TyperException():
            return _explain_usage(error), ExitStatus.USAGE
        case OSError(strerror=str(reason)):
            what = f"{error.filename}: {reason}." if error.filename else f"{reason}."
            return _told(what), ExitStatus.INTERNAL_ERROR
        case _:
            return _told(f"{type(error).__name__}: {error}", _BUG), ExitStatus.INTERNAL_ERROR


def _explain_usage(error: typer.TyperException) -> str:
    message = error.format_message()
    if message.startswith("Usage:"):  # a group without a command: its help, as it is
        return message
    context = getattr(error, "ctx", None)
    path = context.command_path if context is not None else "llmctl"
    if (close := _SUGGESTION.search(message)) is not None:
        return _told(message[: close.start()], f"Did you mean {close['names'].rstrip(')?')}?")
    return _told(message, f"'{path} --help' lists what there is.")


def _told(message: str, hint: str | None = None) -> str:
    return f"llmctl: {message}" if hint is None else f"llmctl: {message}\nhint: {hint}"
