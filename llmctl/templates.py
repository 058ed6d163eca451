"""Templates: Markdown files that begin with what they need, in TOML between two ``+++``.

::

    +++
    description = "Translate into another language."
    role = "user"                       # or "system", which is the default
    version = 2                         # counts what its author changes; 1 if left out

    [variables]
    language = ""                       # a default; a variable without one must be given
    tone = "neutral"

    [options]
    temperature = 0.2

    [markers]
    "!!DONE" = "stop"
    +++
    Translate into {{language}}, in a {{tone}} tone:

    {{prompt}}

A name is looked up among the user's own templates first, then among the installed ones.
In a user template ``{{prompt}}`` stands for what the person asks; a system template leaves
that alone. Every other ``{{name}}`` is a variable; one that is not listed has no default.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from llmctl.config import checked_setting
from llmctl.environment import Environment
from llmctl.errors import UsageError, reason
from llmctl.events import Action
from llmctl.profiles import nearest

_FRONT = re.compile(
    r"\A\+\+\+[ \t]*\n(?P<front>.*?)^\+\+\+[ \t]*\n(?P<body>.*)\Z", re.DOTALL | re.MULTILINE
)
_VARIABLE = re.compile(r"\{\{\s*([A-Za-z_][A-Za-z0-9_]*)\s*\}\}")
_PROMPT = "prompt"
_ROLES = ("system", "user")
_OPTIONS = ("temperature", "top_p", "seed", "max_tokens", "stop")
_MEND = "'llmctl prompts show concise' shows how one is written."
_KEYS = ("description", "role", "version", "variables", "options", "markers")


@dataclass(frozen=True, slots=True)
class Rendered:
    """A template with its variables filled in.

    Attributes:
        system: the system message; None if it is a user template.
        prompt: what to ask.
        options: generation options it brings, by the names of `Options`.
        markers: markers to listen for.
    """

    system: str | None
    prompt: str
    options: Mapping[str, Any]
    markers: Mapping[str, Action]


@dataclass(frozen=True, slots=True, kw_only=True)
class Template:
    """A template as its file has it.

    Attributes:
        name: the file's name without its suffix.
        path: the file.
        body: the text, with variables in double braces.
        description: one line for people.
        role: whose words the text is, ``system`` or ``user``.
        version: counts the changes of its text.
        defaults: what variables are where they are not given.
        options: generation options it brings.
        markers: markers to listen for.
    """

    name: str
    path: Path
    body: str
    description: str = ""
    role: str = "system"
    version: int = 1
    defaults: Mapping[str, str] = field(default_factory=dict)
    options: Mapping[str, Any] = field(default_factory=dict)
    markers: Mapping[str, Action] = field(default_factory=dict)

    @property
    def variables(self) -> list[str]:
        """The variables it knows, in the order of their first use."""
        used = dict.fromkeys(_VARIABLE.findall(self.body)) | dict.fromkeys(self.defaults)
        return [name for name in used if name != _PROMPT]

    @property
    def asks_by_itself(self) -> bool:
        """Whether it is a message that needs no words of the person's."""
        return self.role == "user" and _PROMPT not in _VARIABLE.findall(self.body)

    def render(self, given: Mapping[str, str], prompt: str = "") -> Rendered:
        """Fill in the variables.

        Args:
            given: the variables from the command line.
            prompt: what the person asks.

        Raises:
            UsageError: a variable is missing, or one is given that it does not know.
        """
        self._check(given)
        values = {**self.defaults, **given}
        if self.role == "system":
            return Rendered(self._filled(values), prompt, self.options, self.markers)
        text = self._filled({**values, _PROMPT: prompt})
        if prompt and _PROMPT not in _VARIABLE.findall(self.body):
            text = f"{text}\n\n{prompt}"
        return Rendered(None, text, self.options, self.markers)

    def _check(self, given: Mapping[str, str]) -> None:
        known = self.variables
        for name in given:
            if name not in known:
                close = nearest(name, known)
                listed = f"It has {', '.join(known)}." if known else "It has none: leave -V out."
                raise UsageError(
                    f"The template '{self.name}' has no variable '{name}'.",
                    f"Did you mean '{close}'?" if close else listed,
                )
        for name in known:
            if name not in given and name not in self.defaults:
                raise UsageError(
                    f"The template '{self.name}' needs the variable '{name}'.",
                    f"Add -V {name}=VALUE.",
                )

    def _filled(self, values: Mapping[str, str]) -> str:
        return _VARIABLE.sub(lambda found: values.get(found[1], found[0]), self.body)


def load_template(name: str, env: Environment) -> Template:
    """Return the template called ``name``.

    Raises:
        UsageError: there is none, or its file can't be used.
    """
    found = _files(env)
    if name in found:
        return parse_template(name, found[name])
    close = nearest(name, found)
    hint = f"Did you mean '{close}'?" if close else "'llmctl prompts list' shows what there is."
    raise UsageError(f"There is no template '{name}'.", hint)


def template_names(env: Environment) -> list[str]:
    """Return the names there are, without a look into the files."""
    return sorted(_files(env))


def all_templates(env: Environment) -> tuple[list[Template], list[UsageError]]:
    """Return every template by name, and what is wrong with the files that can't be used.

    The user's own stand instead of the installed ones that they hide.
    """
    templates: list[Template] = []
    problems: list[UsageError] = []
    for name, path in sorted(_files(env).items()):
        try:
            templates.append(parse_template(name, path))
        except UsageError as error:
            problems.append(error)
    return templates, problems


def parse_template(name: str, path: Path) -> Template:
    """Read one template's file.

    Raises:
        UsageError: it can't be read, or its front matter says something nobody understands.
    """
    try:
        text = path.read_text("utf-8-sig")  # some editors put a mark before a text
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"The template {path} can't be read: {reason(error)}.", _MEND) from error
    parts = _FRONT.match(text)
    if parts is None:
        return Template(name=name, path=path, body=text.strip())
    front = _front_matter(parts["front"], path)
    return Template(
        name=name,
        path=path,
        body=parts["body"].strip(),
        description=str(front.get("description", "")),
        role=_one_of(front.get("role", "system"), _ROLES, f"{path}: role"),
        version=_count(front.get("version", 1), f"{path}: version"),
        defaults={key: str(value) for key, value in front.get("variables", {}).items()},
        options=_options(front.get("options", {}), f"{path}: options"),
        markers={
            text: Action(_one_of(action, list(Action), f"{path}: the marker {text}"))
            for text, action in front.get("markers", {}).items()
        },
    )


def _front_matter(text: str, path: Path) -> Mapping[str, Any]:
    try:
        front = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise UsageError(f"{path}: the front matter is not TOML: {error}.", _MEND) from error
    _known(front, _KEYS, str(path))
    for key in ("variables", "options", "markers"):
        if not isinstance(front.get(key, {}), dict):
            raise UsageError(f"{path}: {key} must be a table.", f"Write [{key}].")
    return front


def _known(table: Mapping[str, Any], names: tuple[str, ...], where: str) -> Mapping[str, Any]:
    for name in table:
        if name not in names:
            close = nearest(name, names)
            hint = f"Did you mean '{close}'?" if close else f"Known are {', '.join(names)}."
            raise UsageError(f"{where}: '{name}' is not known.", hint)
    return table


def _options(table: Mapping[str, Any], where: str) -> Mapping[str, Any]:
    _known(table, _OPTIONS, where)
    return {name: _option(name, value, f"{where}.{name}") for name, value in table.items()}


def _option(name: str, value: object, where: str) -> object:
    match name, value:
        case "stop", str():
            return (value,)
        case "stop", list() if all(isinstance(text, str) for text in value):
            return tuple(value)
        case "stop", _:
            raise UsageError(f"{where} must be a text or a list of texts, not {value!r}.", _MEND)
        case "seed", _ if not isinstance(value, int) or isinstance(value, bool):
            raise UsageError(f"{where} must be a whole number, not {value!r}.", _MEND)
        case "seed", _:
            return value
    return checked_setting(name, value, where, _MEND)


def _one_of(value: object, choices: tuple[str, ...] | list[Action], where: str) -> str:
    if isinstance(value, str) and value in choices:
        return value
    raise UsageError(f"{where} must be one of {', '.join(choices)}, not {value!r}.", _MEND)


def _count(value: object, where: str) -> int:
    if isinstance(value, int) and not isinstance(value, bool) and value > 0:
        return value
    raise UsageError(f"{where} must be a whole number above 0, not {value!r}.", "Write 1.")


def _files(env: Environment) -> dict[str, Path]:
    """Return each name's file; a later folder hides an earlier one."""
    folders = (installed_templates(), env.user_templates)
    return {path.stem: path for folder in folders for path in sorted(folder.glob("*.md"))}


def installed_templates() -> Path:
    """Return the folder of the templates that came with the program.

    In an installed package it lies inside; in a source checkout, beside it.
    """
    package = Path(__file__).parent
    inside = package / "_prompts"
    return inside if inside.is_dir() else package.parent / "prompts"
