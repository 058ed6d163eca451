"""What commands are made of: a plain Typer application, and the invocation they belong to."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, cast

import typer

from llmctl.environment import Environment

if TYPE_CHECKING:
    from llmctl.config import Config
    from llmctl.profiles import Profile


@dataclass(slots=True)
class Invocation:
    """One run of the program, as its commands see it.

    Attributes:
        env: the process, with ``--home`` applied.
        config_file: what ``--config`` named.
        color: what ``--color`` was given.
        verbose: errors show where they come from.
        secrets: keys that were read, so that no message shows them.
    """

    env: Environment
    config_file: str | None = None
    color: str | None = None
    verbose: bool = False
    secrets: set[str] = field(default_factory=set)

    def config(self, **flags: Any) -> Config:  # noqa: ANN401  (each setting has its own type)
        """Read the configuration and lay this command's flags over it.

        Args:
            **flags: settings by the names of `Config`; None means not given.

        Raises:
            UsageError: the file or a setting can't be used.
        """
        from llmctl.config import Color, load  # noqa: PLC0415  (start-up)

        color = None if self.color is None else Color(self.color)
        return load(self.env, file=self.config_file, flags={"color": color, **flags})

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


def new_app(**settings: Any) -> typer.Typer:  # noqa: ANN401  (Typer's own settings)
    """Make a Typer application that looks as all commands here do: plain, no rich."""
    return typer.Typer(
        rich_markup_mode=None,
        add_completion=False,
        pretty_exceptions_enable=False,
        context_settings={"help_option_names": ["-h", "--help"]},
        **settings,
    )
