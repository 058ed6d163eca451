"""What is in force: defaults < file < environment < flags, merged into one frozen object.

The file is TOML. Its top level holds the settings of `Config`; each ``[profiles.NAME]``
describes a back end, starting from the preset it names (or shares its name with)::

    model = "work/llama-3"
    idle_timeout = "90s"

    [profiles.work]
    preset = "vllm"
    base_url = "http://10.0.0.7:8000/v1"
    api_key_cmd = "pass show work/llm"

A key that nobody knows and a value of the wrong type are errors that say where they are.
"""

from __future__ import annotations

import math
import tomllib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from enum import StrEnum
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, TypeVar

from llmctl.durations import parse_duration
from llmctl.errors import UsageError, reason
from llmctl.events import Guarantee
from llmctl.prices import Prices, is_price
from llmctl.profiles import (
    PRESETS,
    RESERVED,
    Api,
    PrefixDialect,
    Profile,
    ReasoningDialect,
    checked_url,
    nearest,
)

if TYPE_CHECKING:
    from llmctl.environment import Environment

FILE_NAME = "config.toml"

_NAME_FILE = "Name another with --config or LLMCTL_CONFIG, or leave both out."
_LOOK_THERE = "Look at --config and --home, LLMCTL_CONFIG and LLMCTL_HOME: they say where it is."

_GIVE_ANOTHER = "Give it another value, or leave it out."

_Choice = TypeVar("_Choice", bound=StrEnum)


class Color(StrEnum):
    """When to use colour."""

    AUTO = "auto"
    ALWAYS = "always"
    NEVER = "never"


class OnPause(StrEnum):
    """What a pause does to the generation; auto lets the command decide."""

    AUTO = "auto"
    HOLD = "hold"
    CUT = "cut"


class Pace(StrEnum):
    """How a chat shows a reply: as it comes, or a screenful at a time."""

    STREAM = "stream"
    PAGE = "page"


@dataclass(frozen=True, slots=True, kw_only=True)
class Config:
    """All settings, after merging. Durations are in seconds; None means no limit.

    Attributes:
        model: the model where ``-m`` names none; None means the embedded default.
        color: when to use colour.
        plain: append-only output for screen readers.
        pace: how a chat shows a reply.
        system: system message of new conversations.
        temperature: sampling temperature.
        top_p: nucleus sampling mass.
        max_tokens: bound on a reply, in tokens.
        on_pause: what a pause does to the generation.
        require: the weakest guarantee a resume may have.
        connect_timeout: for a connection to be made.
        first_token_timeout: from the request to the first token.
        idle_timeout: between two tokens.
        timeout: for this process's share of a reply.
        profiles: the back ends, presets included.
        base_url: the server given for this command alone.
        api: the protocol spoken there.
        api_key_env: the variable with its key.
        file: the configuration file, whether or not it exists.
        origins: for each setting that is not a default, where it came from.
    """

    model: str | None = None
    color: Color = Color.AUTO
    plain: bool = False
    pace: Pace = Pace.STREAM
    system: str | None = None
    temperature: float | None = None
    top_p: float | None = None
    max_tokens: int | None = None
    on_pause: OnPause = OnPause.AUTO
    require: Guarantee = Guarantee.TEXT
    connect_timeout: float | None = 10.0
    first_token_timeout: float | None = None
    idle_timeout: float | None = None
    timeout: float | None = None
    profiles: Mapping[str, Profile] = field(default_factory=lambda: PRESETS)
    base_url: str | None = None
    api: Api = Api.AUTO
    api_key_env: str | None = None
    file: Path = Path(FILE_NAME)
    origins: Mapping[str, str] = field(default_factory=dict)

    def system_under(self, said: str | None, template: str | None = None) -> str | None:
        """Return the system message; one that is said to be empty is none, whatever is set."""
        return (template or self.system if said is None else said) or None

    def wants_color(self, env: Environment, descriptor: int) -> bool:
        """Say whether to use colour on a descriptor."""
        if self.color is Color.AUTO:
            return env.allows_color(descriptor)
        return self.color is Color.ALWAYS


class _WrongTypeError(Exception):
    """A value is not what its setting takes; the text says what it takes."""


def load(
    env: Environment,
    *,
    file: str | Path | None = None,
    flags: Mapping[str, Any] = MappingProxyType({}),
) -> Config:
    """Read the configuration.

    Args:
        env: gives the variables and the default place of the file.
        file: the file to read instead; it must exist.
        flags: settings from the command line, by the names of `Config`; None is not given.

    Raises:
        UsageError: the file can't be read, or says something nobody understands.
    """
    path = config_path(env, file)
    named = file is not None or env.variable("LLMCTL_CONFIG") is not None
    settings, profiles = parse(read_text(path, must_exist=named), path)
    origins = dict.fromkeys(settings, str(path))
    for name, value, origin in _overrides(env, flags):
        settings[name] = _value(name, value, _SETTINGS | _FLAGS, origin, _GIVE_ANOTHER)
        origins[name] = origin
    return Config(**settings, profiles=profiles, file=path, origins=origins)


def config_path(env: Environment, file: str | Path | None = None) -> Path:
    """Return the configuration file's place: ``--config``, ``LLMCTL_CONFIG``, the default."""
    chosen = file or env.variable("LLMCTL_CONFIG")
    return env.config / FILE_NAME if chosen is None else env.resolve(chosen)


def parse(text: str, path: Path) -> tuple[dict[str, Any], Mapping[str, Profile]]:
    """Return the settings and the profiles that a configuration file's text holds.

    Raises:
        UsageError: it is not TOML, or says something nobody understands.
    """
    settings, profiles, found = _read(text, path)
    for problem in found.values():
        raise problem
    return settings, profiles


def problems(text: str, path: Path) -> Mapping[str, UsageError]:
    """Return what is wrong with a configuration file's text, by the setting that says it.

    Raises:
        UsageError: it is not TOML.
    """
    return _read(text, path)[2]


def checked_setting(name: str, value: object, where: str, hint: str) -> Any:  # noqa: ANN401
    """Return what one setting's value means, whoever says it.

    Args:
        name: a setting of the file.
        value: what it is to be.
        where: what the message of an error calls it.
        hint: what to do about a value of the wrong type.

    Raises:
        UsageError: there is no such setting, or it can't have this value.
    """
    return _value(name, value, _SETTINGS, where, hint)


def setting_names() -> list[str]:
    """Return the settings that a configuration file may hold, profiles aside."""
    return list(_SETTINGS)


def read_text(path: Path, *, must_exist: bool = False) -> str:
    """Return a configuration file's text, empty where there is no file.

    Raises:
        UsageError: it can't be read, or does not exist and must.
    """
    try:
        return path.read_text("utf-8-sig")  # some editors put a mark before a text
    except FileNotFoundError as error:
        if must_exist:
            raise UsageError(f"There is no configuration file {path}.", _NAME_FILE) from error
        return ""
    except (OSError, UnicodeDecodeError) as error:
        message = f"The configuration file {path} can't be read: {reason(error)}."
        raise UsageError(message, _LOOK_THERE) from error


def _overrides(env: Environment, flags: Mapping[str, Any]) -> list[tuple[str, Any, str]]:
    """List what stands above the file, weakest first, each with its origin."""
    found: list[tuple[str, Any, str]] = []
    if (model := env.variable("LLMCTL_MODEL")) is not None:
        found.append(("model", model, "LLMCTL_MODEL"))
    if "LLMCTL_PLAIN" in env.variables:
        found.append(("plain", env.flag("LLMCTL_PLAIN"), "LLMCTL_PLAIN"))
    return found + [
        (name, value, f"--{name.replace('_', '-')}")
        for name, value in flags.items()
        if value is not None
    ]


_Kinds = Mapping[str, Callable[[object], Any]]


def _read(
    text: str, path: Path
) -> tuple[dict[str, Any], Mapping[str, Profile], dict[str, UsageError]]:
    try:
        tables = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise UsageError(f"{path} is not TOML: {error}.", "Mend it there.") from error
    found: dict[str, UsageError] = {}
    profiles = dict(PRESETS)
    described = tables.pop("profiles", {})
    settings = _checked(tables, _SETTINGS, path, "", found)
    if not isinstance(described, dict):
        message = f"{path}: profiles must be tables."
        found["profiles"] = UsageError(message, "Write [profiles.NAME].")
        described = {}
    for name, table in described.items():
        try:
            profiles[name] = _profile(name, table, path, found)
        except UsageError as error:
            found[f"profiles.{name}"] = error
    return settings, profiles, found


def _profile(name: str, table: object, path: Path, found: dict[str, UsageError]) -> Profile:
    where = f"{path}: profiles.{name}"
    if not name or name in RESERVED or "/" in name:
        raise UsageError(f"{where} can't be the name of a profile.", "Choose another one.")
    if not isinstance(table, dict):
        raise UsageError(f"{where} must be a table.", f"Write [profiles.{name}].")
    known = _checked(table, _PROFILE_SETTINGS, path, f"profiles.{name}.", found)
    base = known.pop("preset", None) or PRESETS.get(name)
    if base is not None:
        return replace(base, **{**known, "name": name})
    if "base_url" not in table and "preset" not in table:
        hint = "Add the server's base_url, or the preset that it is like."
        raise UsageError(f"{where} has neither base_url nor preset.", hint)
    return Profile(**{"base_url": "", **known, "name": name})


def _checked(
    table: Mapping[str, object], kinds: _Kinds, path: Path, under: str, found: dict[str, UsageError]
) -> dict[str, Any]:
    """Return what the settings' own readers make of a table; what they refuse is ``found``."""
    known = {}
    for name, value in table.items():
        key = under + name
        mend = f"'llmctl config set {key} VALUE' puts it right."
        try:
            known[name] = _value(name, value, kinds, f"{path}: {key}", mend)
        except UsageError as error:
            found[key] = error
    return known


def _value(name: str, value: object, kinds: _Kinds, where: str, mend: str) -> Any:  # noqa: ANN401
    """Return what the setting's own reader makes of a value; ``mend`` is the hint of an error."""
    if name not in kinds:
        close = nearest(name, kinds)
        hint = f"Did you mean '{close}'?" if close else f"Known are {', '.join(kinds)}."
        raise UsageError(f"{where} is not a setting.", hint)
    try:
        return kinds[name](value)
    except _WrongTypeError as error:
        raise UsageError(f"{where} must be {error}, not {value!r}.", mend) from error
    except UsageError as error:
        raise UsageError(f"{where}: {error.message}", error.hint) from error


def _text(value: object) -> str:
    if isinstance(value, str):
        return value
    raise _WrongTypeError("a string")


def _name(value: object) -> str:
    if text := _text(value):
        return text
    raise _WrongTypeError("a text that is not empty")


def _flag(value: object) -> bool:
    if isinstance(value, bool):
        return value
    raise _WrongTypeError("true or false")


def _number(value: object) -> float:
    if isinstance(value, int | float) and not isinstance(value, bool):
        return float(value)
    raise _WrongTypeError("a number")


def _temperature(value: object) -> float:
    number = _number(value)
    if not 0 <= number < math.inf:
        raise _WrongTypeError("a number of 0 or more")
    return number


def _mass(value: object) -> float:
    number = _number(value)
    if not 0 <= number <= 1:
        raise _WrongTypeError("a number from 0 to 1")
    return number


def _count(value: object) -> int:
    if isinstance(value, int) and not isinstance(value, bool) and value > 0:
        return value
    raise _WrongTypeError("a whole number above 0")


def _duration(value: object) -> float:
    if isinstance(value, str):
        return parse_duration(value)
    seconds = _number(value)
    if not 0 <= seconds < math.inf:
        raise _WrongTypeError("a duration")
    return seconds


def _one_of(choices: type[_Choice]) -> Callable[[object], _Choice]:
    def read(value: object) -> _Choice:
        try:
            return choices(_text(value))
        except (ValueError, _WrongTypeError) as error:
            raise _WrongTypeError("one of " + ", ".join(choices)) from error

    return read


def _url(value: object) -> str:
    return checked_url(_text(value))


def _command(value: object) -> str | tuple[str, ...]:
    if isinstance(value, str):
        return value
    if isinstance(value, list) and value and all(isinstance(word, str) for word in value):
        return tuple(value)
    raise _WrongTypeError("a command: a string or a list of strings")


def _prices(value: object) -> Prices:
    match value:
        case [read, written] if is_price(read) and is_price(written):
            return Prices(float(read), float(written))
        case _:
            raise _WrongTypeError("two numbers: dollars for a million tokens, read and written")


def _preset(value: object) -> Profile:
    try:
        return PRESETS[_text(value)]
    except KeyError as error:
        raise _WrongTypeError("one of " + ", ".join(PRESETS)) from error


_SETTINGS: dict[str, Callable[[object], Any]] = {
    "model": _name,
    "color": _one_of(Color),
    "plain": _flag,
    "pace": _one_of(Pace),
    "system": _text,
    "temperature": _temperature,
    "top_p": _mass,
    "max_tokens": _count,
    "on_pause": _one_of(OnPause),
    "require": _one_of(Guarantee),
    "connect_timeout": _duration,
    "first_token_timeout": _duration,
    "idle_timeout": _duration,
    "timeout": _duration,
}

# What only a command line says.
_FLAGS: dict[str, Callable[[object], Any]] = {
    "base_url": _url,
    "api": _one_of(Api),
    "api_key_env": _text,
}

_PROFILE_SETTINGS: dict[str, Callable[[object], Any]] = {
    "preset": _preset,
    "base_url": _url,
    "api": _one_of(Api),
    "api_key_env": _text,
    "api_key_cmd": _command,
    "requires_key": _flag,
    "billed": _flag,
    "model": _name,
    "prefix": _one_of(PrefixDialect),
    "reasoning": _one_of(ReasoningDialect),
    "prefix_base_url": _url,
    "prefix_echoed": _flag,
    "accepts_seed": _flag,
    "seed_field": _text,
    "usage_in_stream": _flag,
    "max_tokens_field": _text,
    "price": _prices,
    "background": _flag,
}
