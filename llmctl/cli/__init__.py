"""The command line: which commands there are, the global options, and how errors end.

A command is a row of `COMMANDS`: its module is `llmctl.cli.NAME`, which holds a Typer
application called ``app`` and is imported only when that command is asked for. A command
returns its exit status (None is 0). What it raises becomes a sentence, a hint and an exit
status in `llmctl.cli.failures` and nowhere else.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from importlib import import_module
from types import MappingProxyType
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer
from typer.core import TyperGroup

from llmctl._version import __version__
from llmctl.cli.invocation import Invocation, here, new_app, spare_options

if TYPE_CHECKING:
    from llmctl.environment import Environment

COMMANDS: Mapping[str, str] = MappingProxyType(
    {
        "chat": "Talk with a model; Space pauses and resumes its reply.",
        "run": "Ask for one reply and write it to stdout.",
        "resume": "Go on with an unfinished reply.",
        "batch": "Ask for many replies; go on where it was stopped.",
        "conversations": "List, show, export and delete conversations.",
        "models": "Fetch, list and remove the weights for the embedded engine; probe servers.",
        "prompts": "List and show templates.",
        "config": "Show and change the configuration.",
        "keys": "Store and list the keys of back ends.",
        "top": "Show the replies and batches that run now.",
        "completion": "Print a completion script for a shell, or the manual page.",
        "doctor": "Say what is wrong here and what to do about it.",
    }
)


class _Commands(Mapping[str, Any]):
    """The commands by name, each imported when it is asked for."""

    def __getitem__(self, name: str) -> Any:  # noqa: ANN401  (a command of Typer's own kind)
        if name not in COMMANDS:
            raise KeyError(name)
        command = typer.main.get_command(import_module(f"{__name__}.{name}").app)
        command.name = name
        for each in (command, *getattr(command, "commands", {}).values()):
            spare_options(each)
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
        Literal["auto", "always", "never"] | None, typer.Option(help="When to use colour.")
    ] = None,
    verbose: Annotated[
        bool,
        typer.Option("--verbose", help="Say more: what happens, and where an error comes from."),
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
        invocation.move_home(home)
    if config is not None:
        invocation.read_from(config)
    invocation.color = color


def main(words: Sequence[str], env: Environment | None = None) -> int:
    """Run one command line and return its exit status.

    Args:
        words: what stands after the program's name.
        env: the process to run in; None means this one.
    """
    invocation = Invocation(env)
    try:
        return _run(list(words), invocation)
    except (Exception, KeyboardInterrupt) as error:  # noqa: BLE001  (told, with an exit status)
        from llmctl.cli.failures import report  # noqa: PLC0415  (start-up)

        return report(error, invocation)


def _run(words: list[str], invocation: Invocation) -> int:
    command = typer.main.get_command(app)
    spare_options(command)
    try:
        with command.make_context("llmctl", words, obj=invocation) as context:
            return int(command.invoke(context) or 0)
    except typer.Exit as leaving:
        return leaving.exit_code
