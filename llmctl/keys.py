"""Where a back end's key comes from: its command, a variable, the key file, the keyring.

They are asked in this order and the first that answers wins. A key goes in by a hidden
prompt or stdin, never on a command line (which other users can see), and comes out nowhere:
`redact` cleans what is about to be shown. The system keyring is asked only for a name that
was stored there, because asking may unlock it, and is given up after two seconds, because
it may wait for a window that nobody sees.
"""

from __future__ import annotations

import importlib
import json
import shlex
import subprocess
import threading
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any

from llmctl.environment import Environment, write_private
from llmctl.errors import Refused, UsageError
from llmctl.profiles import Profile

KEYRING_PATIENCE_S = 2.0
"""Seconds that the system keyring may take to answer."""

COMMAND_PATIENCE_S = 60.0
"""Seconds that an ``api_key_cmd`` may take (it may ask for a passphrase)."""

FILE_NAME = "keys.json"
REDACTED = "[key]"
_SHORTEST_SECRET = 6
_SERVICE = "llmctl"
_KEYS_ANEW = "Move it away and store the keys again with 'llmctl keys set'."
_TRY_COMMAND = "Try the command by itself: the first line it prints is the key."
_WITHOUT_KEYRING = "Store the key in the key file with 'llmctl keys set'."


class Place(StrEnum):
    """Where a key was found."""

    COMMAND = "command"
    ENVIRONMENT = "environment"
    FILE = "file"
    KEYRING = "keyring"


@dataclass(frozen=True, slots=True)
class Key:
    """A key; its text form says only where it is from.

    Attributes:
        key: the secret.
        place: where it was found.
        detail: the variable or file, for people.
    """

    key: str
    place: Place
    detail: str

    def __repr__(self) -> str:
        """Keep the secret out of tracebacks."""
        return f"Key({REDACTED!r}, {self.place}, {self.detail!r})"


def find_key(profile: Profile, env: Environment) -> Key | None:
    """Return the key for a back end, None where it has none and needs none.

    Raises:
        Refused: it can't be asked without one, or what should have given it failed.
    """
    for look in (_from_command, _from_variable, _from_store):
        key = look(profile, env)
        if key is not None:
            return key
    if profile.requires_key:
        raise Refused(f"There is no key for {profile.name}.", _how_to_give_one(profile))
    return None


def key_place(profile: Profile, env: Environment) -> str | None:
    """Say in words where a back end's key would come from; None if it has none."""
    if profile.api_key_cmd is not None:
        return "api_key_cmd"
    if profile.api_key_env is not None and env.variable(profile.api_key_env) is not None:
        return profile.api_key_env
    place = KeyFile(env).places().get(profile.name)
    return None if place is None else f"key {place}" if place is Place.FILE else str(place)


def keys_found(profiles: Mapping[str, Profile], env: Environment) -> dict[str, str]:
    """Return the back ends that have a key, each with where it is, in words."""
    places = {name: key_place(profile, env) for name, profile in profiles.items()}
    return {name: place for name, place in places.items() if place is not None}


def redact(text: str, keys: Iterable[str]) -> str:
    """Return ``text`` without the keys; a longer one goes before one that it contains.

    >>> redact("401: wrong key sk-secret-1", ["sk-secret-1"])
    '401: wrong key [key]'
    """
    for key in sorted(keys, key=len, reverse=True):
        if len(key) >= _SHORTEST_SECRET:  # a shorter "key" is a word, not a secret
            text = text.replace(key, REDACTED)
    return text


def can_be_key(text: str) -> bool:
    """Say whether a header can carry it: one word of visible ASCII characters."""
    return bool(text) and text.isascii() and text.isprintable() and " " not in text


class KeyFile:
    """The keys a person stored, and the names of those that are in the system keyring.

    Args:
        env: says where the file is.
    """

    def __init__(self, env: Environment) -> None:
        self.path = env.config / FILE_NAME

    def get(self, name: str) -> Key | None:
        """Return the key stored under a name, asking the keyring if it is there."""
        stored = self._read().get(name)
        if isinstance(stored, str):
            return Key(stored, Place.FILE, str(self.path))
        return None if stored is None else _from_keyring(name)

    def set(self, name: str, key: str) -> None:
        """Store a key in the file."""
        self._write({**self._read(), name: key})

    def set_in_keyring(self, name: str, key: str) -> None:
        """Store a key in the system keyring, and in the file only that it is there.

        Raises:
            UsageError: there is no keyring, or it does not answer.
        """
        keyring = _keyring()
        _patiently(lambda: keyring.set_password(_SERVICE, name, key))
        self._write({**self._read(), name: {"keyring": True}})

    def remove(self, name: str) -> bool:
        """Forget a key; say whether there was one."""
        stored = self._read()
        found = stored.pop(name, None)
        if found is None:
            return False
        if not isinstance(found, str):
            _patiently(lambda: _keyring().delete_password(_SERVICE, name))
        self._write(stored)
        return True

    def places(self) -> Mapping[str, Place]:
        """Return the stored names and where each one's key is."""
        return {
            name: Place.FILE if isinstance(stored, str) else Place.KEYRING
            for name, stored in self._read().items()
        }

    def _read(self) -> dict[str, Any]:
        return _read_keys(self.path)

    def _write(self, stored: Mapping[str, Any]) -> None:
        write_private(self.path, json.dumps(stored, indent=2) + "\n")


def _read_keys(path: Path) -> dict[str, Any]:
    try:
        stored = json.loads(path.read_text("utf-8"))
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        raise UsageError(f"The key file {path} can't be read.", _KEYS_ANEW) from error
    if not isinstance(stored, dict):
        raise UsageError(f"The key file {path} is not an object of names.", _KEYS_ANEW)
    return stored


def _from_command(profile: Profile, _env: Environment) -> Key | None:
    command = profile.api_key_cmd
    if command is None:
        return None
    lines = _output_of(_words(command, profile.name), profile.name).splitlines()
    if not lines or not lines[0].strip():
        raise Refused(f"The api_key_cmd of {profile.name} printed no key.", _TRY_COMMAND)
    return Key(lines[0].strip(), Place.COMMAND, "api_key_cmd")


def _words(command: str | tuple[str, ...], name: str) -> list[str]:
    if not isinstance(command, str):
        return list(command)
    try:
        return shlex.split(command)
    except ValueError as error:
        message = f"The api_key_cmd of {name} can't be read as a command: {error}."
        raise UsageError(
            message, "Write its words as a shell would take them, or a list."
        ) from error


def _output_of(words: list[str], name: str) -> str:
    try:
        done = subprocess.run(  # noqa: S603  (the user's own command, no shell)
            words,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            timeout=COMMAND_PATIENCE_S,
            check=True,
            text=True,
        )
    except subprocess.CalledProcessError as error:
        raise Refused(
            f"The api_key_cmd of {name} failed with exit status {error.returncode}.", _TRY_COMMAND
        ) from error
    except subprocess.TimeoutExpired as error:
        raise Refused(
            f"The api_key_cmd of {name} took more than {COMMAND_PATIENCE_S:g} s.", _TRY_COMMAND
        ) from error
    except OSError as error:
        message = f"The api_key_cmd of {name} can't be run: {error.strerror}."
        raise Refused(message, _TRY_COMMAND) from error
    return done.stdout


def _from_variable(profile: Profile, env: Environment) -> Key | None:
    name = profile.api_key_env
    value = None if name is None else env.variable(name)
    return None if name is None or value is None else Key(value.strip(), Place.ENVIRONMENT, name)


def _from_store(profile: Profile, env: Environment) -> Key | None:
    return KeyFile(env).get(profile.name)


def _from_keyring(name: str) -> Key | None:
    keyring = _keyring()
    key = _patiently(lambda: keyring.get_password(_SERVICE, name))
    return None if key is None else Key(key, Place.KEYRING, "system keyring")


def _keyring() -> Any:  # noqa: ANN401  (an optional package without types)
    try:
        return importlib.import_module("keyring")
    except ImportError as error:
        raise UsageError(
            "The system keyring needs the package 'keyring', which is not installed.",
            "Install it beside llmctl, or store the key without --keyring.",
        ) from error


def _patiently(ask: Callable[[], str | None]) -> str | None:
    """Return what the keyring answers, within `KEYRING_PATIENCE_S`.

    The thread is left behind if it hangs: nothing can end a call into the system's keyring.
    """
    answers: list[str | None] = []
    failures: list[Exception] = []

    def call() -> None:
        try:
            answers.append(ask())
        except Exception as error:  # noqa: BLE001  (told below: keyrings raise anything)
            failures.append(error)

    thread = threading.Thread(target=call, daemon=True, name="keyring")
    thread.start()
    thread.join(KEYRING_PATIENCE_S)
    if failures:
        message = f"The system keyring failed: {failures[0]}."
        raise Refused(message, _WITHOUT_KEYRING) from failures[0]
    if not answers:
        raise Refused(
            f"The system keyring did not answer within {KEYRING_PATIENCE_S:g} s.",
            "Unlock it, or store the key in the key file with 'llmctl keys set'.",
        )
    return answers[0]


def _how_to_give_one(profile: Profile) -> str:
    store = f"'llmctl keys set {profile.name}'"
    if profile.is_an_address:
        return f"Set {profile.api_key_env}."
    if profile.api_key_env is None:
        return f"Store one with {store}."
    return f"Set {profile.api_key_env}, or store one with {store}."
