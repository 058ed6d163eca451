"""What is wrong with this installation and what to do about it, one check after another.

A check looks and says one sentence. ``ok`` needs nothing, ``warn`` means that something
people may want is missing, ``fail`` that something is broken. No check asks the network,
loads the engine or reads a key's value aloud.
"""

from __future__ import annotations

import codecs
import importlib.metadata
import locale
import platform
import shutil
import stat
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from enum import StrEnum

from llmctl import weights
from llmctl._version import __version__
from llmctl.config import Config
from llmctl.environment import Environment, private_dir
from llmctl.errors import LlmctlError
from llmctl.keys import KeyFile, keys_found

OLDEST_PYTHON = (3, 11)
PACKAGES = (
    "anyio",
    "httpx2",
    "jiter",
    "openai",
    "platformdirs",
    "prompt-toolkit",
    "rich",
    "tomlkit",
    "typer",
    "wcwidth",
)
LIBRARY = "cancelable-core"
"""The library as a distribution of its own, which holds the same files as this program's."""
ENGINE = "xllamacpp"
SPACE_WANTED = 500_000_000
"""Bytes that a first start wants for the weights, with room for conversations."""

_OTHERS_MAY_READ = stat.S_IRWXG | stat.S_IRWXO


class State(StrEnum):
    """How a check went."""

    OK = "ok"
    WARN = "warn"
    FAIL = "fail"


@dataclass(frozen=True, slots=True)
class Finding:
    """What a check found.

    Attributes:
        name: what was checked.
        state: how it went.
        message: what is there.
        advice: what to do; empty if nothing is to be done.
    """

    name: str
    state: State
    message: str
    advice: str = ""

    def as_json(self) -> dict[str, str]:
        """Return the published form."""
        return {
            "name": self.name,
            "state": str(self.state),
            "message": self.message,
            "advice": self.advice,
        }


def examine(env: Environment, read_config: Callable[[], Config]) -> Iterator[Finding]:
    """Check everything, in the order in which one thing needs another.

    Args:
        env: the process.
        read_config: reads the configuration; what it raises is a finding too.
    """
    yield _python()
    yield _system()
    yield _packages()
    yield _store(env)
    yield _engine()
    yield _weights(env)
    yield _terminal(env)
    try:
        config = read_config()
    except LlmctlError as error:
        yield Finding("configuration", State.FAIL, error.message, error.hint or "")
    else:
        yield _configuration(config)
        yield _keys(env, config)


def _python() -> Finding:
    version = platform.python_version()
    if sys.version_info < OLDEST_PYTHON:
        return Finding("python", State.FAIL, f"Python {version}", "Use Python 3.11 or newer.")
    return Finding("python", State.OK, f"Python {version}")


def _system() -> Finding:
    name = f"{platform.system()} {platform.machine()}"
    if platform.system() in ("Linux", "Darwin"):
        return Finding("system", State.OK, name)
    return Finding("system", State.WARN, f"{name} is untried", "Use Linux or macOS.")


def _packages() -> Finding:
    versions = {name: _version(name) for name in PACKAGES}
    missing = [name for name, version in versions.items() if version is None]
    if missing:
        advice = "Install llmctl again: pipx reinstall llmctl."
        return Finding("packages", State.FAIL, "missing: " + ", ".join(missing), advice)
    if (beside := _version(LIBRARY)) not in (None, __version__):
        message = f"{LIBRARY} {beside} is installed over the {__version__} that llmctl brings"
        advice = f"pip uninstall {LIBRARY}, then pip install --force-reinstall --no-deps llmctl."
        return Finding("packages", State.FAIL, message, advice)
    found = ", ".join(f"{name} {version}" for name, version in versions.items())
    return Finding("packages", State.OK, found)


def _engine() -> Finding:
    version = _version(ENGINE)
    if version is None:
        advice = "Install it with pipx install 'llmctl[local]', or name a server with -m."
        return Finding("engine", State.WARN, "the embedded engine is not installed", advice)
    return Finding("engine", State.OK, f"{ENGINE} {version}")


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def _weights(env: Environment) -> Finding:
    found = weights.installed(env.models)
    if not found:
        advice = "They are fetched when local is first used; 'llmctl models pull' does it now."
        return Finding("weights", State.WARN, f"no weights in {env.models}", advice)
    return Finding("weights", State.OK, ", ".join(str(file) for file in found))


def _store(env: Environment) -> Finding:
    advice = "Choose another folder with --home or LLMCTL_HOME."
    try:
        with tempfile.TemporaryFile(dir=private_dir(env.data)):
            free = shutil.disk_usage(env.data).free
    except OSError as error:
        message = f"{env.data} can't be written: {error.strerror}"
        return Finding("store", State.FAIL, message, advice)
    message = f"{env.data}, {free / 1e9:.1f} GB free"
    if free < SPACE_WANTED:
        return Finding("store", State.WARN, message, f"Make room, or: {advice}")
    return Finding("store", State.OK, message)


def _terminal(env: Environment) -> Finding:
    if not (env.is_a_tty(env.stdin) and env.is_a_tty(env.stdout)):
        return Finding("terminal", State.OK, "not a terminal: run, resume and batch work, chat no")
    name = env.variable("TERM") or "unknown"
    if name in ("dumb", "unknown"):
        return Finding("terminal", State.WARN, f"TERM is {name}", "Use chat --plain.")
    encoding = codecs.lookup(locale.getencoding()).name
    if encoding != "utf-8":
        advice = "Choose a UTF-8 locale, for example LC_ALL=C.UTF-8."
        return Finding("terminal", State.WARN, f"the locale's encoding is {encoding}", advice)
    return Finding("terminal", State.OK, f"{name}, {encoding}")


def _configuration(config: Config) -> Finding:
    exists = "" if config.file.exists() else " (not there: defaults)"
    return Finding("configuration", State.OK, f"{config.file}{exists}")


def _keys(env: Environment, config: Config) -> Finding:
    try:
        places = keys_found(config.profiles, env)
    except LlmctlError as error:
        return Finding("keys", State.FAIL, error.message, error.hint or "")
    found = ", ".join(f"{name} ({place})" for name, place in places.items())
    message = found or "none found; local and servers of your own need none"
    path = KeyFile(env).path
    if path.exists() and path.stat().st_mode & _OTHERS_MAY_READ:
        return Finding("keys", State.WARN, f"others may read {path}", f"chmod 600 {path}")
    return Finding("keys", State.OK, message)
