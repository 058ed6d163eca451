"""``llmctl keys``: put keys in, list their names, take them out. No command shows one."""

from __future__ import annotations

from getpass import GetPassWarning, getpass
from typing import TYPE_CHECKING, Annotated
from warnings import catch_warnings, simplefilter

import typer

from llmctl.cli.invocation import Invocation, here, new_app
from llmctl.errors import UsageError
from llmctl.keys import KeyFile, can_be_key, keys_found
from llmctl.profiles import nearest

if TYPE_CHECKING:
    from llmctl.environment import Environment

app = new_app(no_args_is_help=True, help="Store and list the keys of back ends.")

Name = Annotated[str, typer.Argument(metavar="NAME", help="The profile that the key is for.")]


@app.command("set")
def set_(
    context: typer.Context,
    name: Name,
    *,
    keyring: Annotated[
        bool, typer.Option("--keyring", help="Store it in the system keyring.")
    ] = False,
) -> None:
    """Store a key, read from a hidden prompt or from stdin."""
    invocation = here(context)
    _check_name(name, invocation)
    store = KeyFile(invocation.env)
    key = _read_key(name, invocation.env)
    if keyring:
        store.set_in_keyring(name, key)
    else:
        store.set(name, key)
    place = "the system keyring" if keyring else str(store.path)
    invocation.env.note(f"The key for {name} is in {place}.")


@app.command("list")
def list_(context: typer.Context) -> None:
    """List the back ends that have a key, and where it is."""
    invocation = here(context)
    for name, place in keys_found(invocation.config().profiles, invocation.env).items():
        invocation.env.say(f"{name}\t{place}")


@app.command()
def remove(context: typer.Context, name: Name) -> None:
    """Forget a stored key."""
    invocation = here(context)
    if not KeyFile(invocation.env).remove(name):
        raise UsageError(f"No key is stored for '{name}'.", "'llmctl keys list' shows them.")


def _check_name(name: str, invocation: Invocation) -> None:
    profiles = invocation.config().profiles
    if name not in profiles:
        close = nearest(name, profiles)
        hint = f"Did you mean '{close}'?" if close else "'llmctl config show' lists them."
        raise UsageError(f"No back end is called '{name}'.", hint)


def _read_key(name: str, env: Environment) -> str:
    text = _ask(name) if env.is_a_tty(env.stdin) else env.read_input()
    key = text.removeprefix("\ufeff").strip()  # some editors put that before a text
    if not can_be_key(key):
        said = "A key is one word of ASCII characters; nothing was stored."
        raise UsageError(said, "Paste it, or pipe it in.")
    return key


def _ask(name: str) -> str:
    with catch_warnings():
        simplefilter("error", GetPassWarning)  # never echo a key because hiding it failed
        try:
            return getpass(f"Key for {name} (not shown): ")
        except (EOFError, GetPassWarning) as error:
            raise UsageError(
                "No key was given; nothing was stored.", "Paste it, or pipe it in."
            ) from error
