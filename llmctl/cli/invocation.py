"""What commands are made of: a plain Typer application, and the invocation they belong to."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

import typer
from typer.core import TyperOption

from llmctl.errors import UsageError

if TYPE_CHECKING:
    from llmctl.config import Config
    from llmctl.environment import Environment
    from llmctl.profiles import Profile


class Invocation:
    """One run of the program, as its commands see it.

    Args:
        env: the process to run in; None means this one, looked at when it is needed.

    Attributes:
        config_file: what ``--config`` named.
        color: what ``--color`` was given.
        verbose: errors show where they come from.
        secrets: keys that were read, so that no message shows them.
    """

    def __init__(self, env: Environment | None = None) -> None:
        self._env = env
        self.config_file: str | None = None
        self.color: str | None = None
        self.verbose = False
        self.secrets: set[str] = set()

    @property
    def env(self) -> Environment:
        """The process, with ``--home`` applied."""
        if self._env is None:
            from llmctl.environment import Environment  # noqa: PLC0415  (start-up)

            self._env = Environment.of_process()
        return self._env

    def move_home(self, folder: str) -> None:
        """Keep data and configuration in one folder from now on.

        Raises:
            UsageError: no folder is named.
        """
        if not folder:
            raise UsageError("--home needs a folder.", "Leave it out for the usual places.")
        self._env = self.env.at_home(folder)

    def read_from(self, file: str) -> None:
        """Read this configuration file from now on.

        Raises:
            UsageError: no file is named.
        """
        if not file:
            raise UsageError("--config needs a file.", "Leave it out for the usual place.")
        self.config_file = file

    def config(self, **flags: Any) -> Config:  # noqa: ANN401  (each setting has its own type)
        """Read the configuration and lay this command's flags over it.

        Args:
            **flags: settings by the names of `Config`; None means not given.

        Raises:
            UsageError: the file or a setting can't be used.
        """
        from llmctl.config import load  # noqa: PLC0415  (start-up)

        return load(self.env, file=self.config_file, flags={"color": self.color, **flags})

    def key_for(self, profile: Profile) -> str | None:
        """Return the key for a back end, None where it has none.

        Raises:
            Refused: it can't be asked without one, or its command failed.
        """
        from llmctl.keys import find_key  # noqa: PLC0415  (start-up)

        found = find_key(profile, self.env)
        if found is None:
            return None
        self.secrets.add(found.key)
        return found.key


def here(context: typer.Context) -> Invocation:
    """Return the invocation that a command belongs to."""
    return cast("Invocation", context.find_root().obj)


class _Option(TyperOption):
    """An option that costs nothing where it was not given.

    Typer loads pydantic, which is a sixth of a start, to find that nothing is nothing.
    """

    def process_value(self, ctx: Any, value: Any) -> Any:  # noqa: ANN401  (click's own)
        """Check and convert a value; what was not given is None, or no values at all."""
        if value is not None or self.required:
            return super().process_value(ctx, value)
        nothing = () if self.multiple else None
        return nothing if self.callback is None else self.callback(ctx, self, nothing)


def spare_options(command: Any) -> None:  # noqa: ANN401  (a command of Typer's own kind)
    """Have the options of a command cost nothing where they are not given."""
    context = command.context_class(command, **command.context_settings)
    for parameter in command.get_params(context):
        if type(parameter) is TyperOption:
            parameter.__class__ = _Option


_HELP = {"help_option_names": ["-h", "--help"]}


class _App(typer.Typer):
    """Gives every command the same words for help; Typer hands those of a group not on."""

    def command(self, name: str | None = None, **settings: Any) -> Any:  # noqa: ANN401  (Typer's own)
        """Register a command."""
        return super().command(name, **{"context_settings": _HELP, **settings})


def new_app(**settings: Any) -> typer.Typer:  # noqa: ANN401  (Typer's own settings)
    """Make a Typer application that looks as all commands here do: plain, no rich."""
    return _App(
        rich_markup_mode=None,
        add_completion=False,
        pretty_exceptions_enable=False,
        context_settings=_HELP,
        **settings,
    )


def show_text(env: Environment, text: str) -> None:
    """Write text of other people to stdout; a terminal gets nothing of it that acts there."""
    from llmctl.terminal.sanitizer import sanitize  # noqa: PLC0415  (start-up)

    env.write(sanitize(text) if env.is_a_tty(env.stdout) else text)
