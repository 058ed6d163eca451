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
from pathlib import Path

from llmctl import weights
from llmctl._version import __version__
from llmctl.config import Config
from llmctl.environment import Environment, private_dir
from llmctl.errors import LlmctlError
from llmctl.images import FOLDER as IMAGES
from llmctl.journal import JournalDamaged, read_header
from llmctl.keys import KeyFile, keys_found
from llmctl.profiles import is_on_this_machine
from llmctl.records import DATABASE, JOURNALS
from llmctl.store_repair import trouble
from llmctl.templates import all_templates
from llmctl.tracing import destination
from llmctl.tracing import is_installed as tracing_is_installed

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

NAMED = 3
"""Files that a message names."""

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
    yield _conversations(env)
    yield _replies(env)
    yield _privacy(env)
    yield _engine()
    yield _weights(env)
    yield _terminal(env)
    yield _templates(env)
    yield _traces(env)
    try:
        config = read_config()
    except LlmctlError as error:
        yield Finding("configuration", State.FAIL, error.message, error.hint or "")
    else:
        yield _configuration(config)
        yield _keys(env, config)
        yield _plain_addresses(config)


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


def _conversations(env: Environment) -> Finding:
    path = env.data / DATABASE
    found = trouble(path)
    if found is None:
        return Finding("conversations", State.OK, str(path) if path.exists() else "none yet")
    advice = "'llmctl doctor --repair' moves it aside and saves what can be saved."
    return Finding("conversations", State.FAIL, f"{path} is damaged: {found}", advice)


def _replies(env: Environment) -> Finding:
    """Look at the journals of replies in flight; none is touched."""
    damaged = []
    files = sorted((env.data / JOURNALS).glob("*.jsonl"))
    for path in files:
        try:
            read_header(path)
        except JournalDamaged as error:
            damaged.append(error.message)
        except FileNotFoundError:
            continue
    if damaged:
        message = f"{len(damaged)} of {len(files)} can't be read: {'; '.join(damaged)}"
        advice = (
            f"They are kept in {env.data / JOURNALS}; delete them there if they are not wanted."
        )
        return Finding("replies", State.WARN, message, advice)
    return Finding("replies", State.OK, f"{len(files)} live or unfinished")


def _privacy(env: Environment) -> Finding:
    """Look for what others may read: files that were copied here, or made by hand."""
    kept = [env.data / DATABASE, env.data / JOURNALS, env.data / "history", KeyFile(env).path]
    many = ((JOURNALS, "*.jsonl"), (IMAGES, "*"))
    files = (path for name, kind in many for path in (env.data / name).glob(kind))
    places = {env.data, env.config, *kept, env.data / IMAGES, *files}
    seen = [str(path) for path in sorted(places) if path.exists() and _others_may_read(path)]
    if seen:
        rest = f" and {len(seen) - NAMED} more" if len(seen) > NAMED else ""
        message = f"others may read {', '.join(seen[:NAMED])}{rest}"
        folders = " ".join(map(str, dict.fromkeys((env.data, env.config))))
        return Finding("privacy", State.WARN, message, f"chmod -R go= {folders}")
    return Finding("privacy", State.OK, "nobody else may read what is stored")


def _others_may_read(path: Path) -> bool:
    return bool(path.stat().st_mode & _OTHERS_MAY_READ)


def _traces(env: Environment) -> Finding:
    name = destination(env)
    if name is None:
        return Finding("traces", State.OK, "nobody asked for them")
    if not tracing_is_installed():
        advice = "pipx install --force 'llmctl[local,otel]', or unset the OTEL_ variables."
        return Finding("traces", State.WARN, f"{name} is asked for and not installed", advice)
    return Finding("traces", State.OK, f"they go to {name}")


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


def _templates(env: Environment) -> Finding:
    usable, problems = all_templates(env)
    if problems:
        message = " ".join(problem.message for problem in problems)
        return Finding("templates", State.WARN, message, problems[0].hint or "")
    return Finding("templates", State.OK, f"{len(usable)}, your own in {env.user_templates}")


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
    return Finding("keys", State.OK, message)


def _plain_addresses(config: Config) -> Finding:
    """Look for servers elsewhere that would be sent a key or a prompt unencrypted."""
    plain = [
        name
        for name, profile in config.profiles.items()
        if profile.base_url.startswith("http://") and not is_on_this_machine(profile.base_url)
    ]
    if plain:
        message = f"not encrypted: {', '.join(plain)}"
        return Finding("addresses", State.WARN, message, "Use https:// for them, or a tunnel.")
    return Finding("addresses", State.OK, "all servers elsewhere are asked over TLS")
