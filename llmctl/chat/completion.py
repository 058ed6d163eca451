"""What Tab completes: commands, their arguments, and files behind an ``@``.

A file is sent along with a message only if its ``@name`` was completed while the message was
typed. The same text typed or pasted by hand is just text: nothing is read because of what
stands in it.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path

from llmctl.chat.history import History
from llmctl.chat.setup import Setup
from llmctl.config import Config
from llmctl.environment import Environment
from llmctl.events import Action, Guarantee
from llmctl.export import FORMS
from llmctl.profiles import LOCAL
from llmctl.templates import Template, all_templates
from llmctl.terminal.prompt_line import Suggestion

MOST = 200
"""Files of one folder that are offered."""

_AT = re.compile(r'(?:^|\s)(?P<token>@(?:"(?P<quoted>[^"\n]*)|(?P<plain>[^\s"]*)))\Z')


class Completions:
    """Says what may stand for the text before the cursor.

    Args:
        commands: the names of the commands.
        setup: the markers in force.
        history: the replies that one can go back to.
        config: the back ends.
        env: where files and templates are.
    """

    def __init__(
        self,
        commands: Iterable[str],
        *,
        setup: Setup,
        history: History,
        config: Config,
        env: Environment,
    ) -> None:
        self._commands = tuple(commands)
        self._setup = setup
        self._history = history
        self._config = config
        self._env = env
        self._offered: dict[str, Path] = {}
        self._arguments: Mapping[str, Callable[[str], Iterator[Suggestion]]] = {
            "resume": lambda text: _words(text, Guarantee),
            "fork": lambda text: _words(text, self._replies()),
            "copy": lambda text: _words(text, ["code"]),
            "save": self._file,
            "export": lambda text: (*_words(text, FORMS), *self._file(text)).__iter__(),
            "model": self._model,
            "template": self._template,
            "marker": self._marker,
            "timeout": lambda text: _words(text, ["first-token", "idle", "total"]),
            "search": lambda _text: iter(()),
            "system": lambda _text: iter(()),
        }

    def suggest(self, text: str) -> Iterator[Suggestion]:
        """Yield what may stand for the end of the text before the cursor."""
        if text.startswith("/") and "\n" not in text:
            yield from self._command(text[1:])
        elif (at := _AT.search(text)) is not None:
            yield from self._attachment(at)

    def attachments(self, text: str) -> list[Path]:
        """Return the files that were completed while this text was typed, and forget them."""
        found = [path for token, path in self._offered.items() if _stands_in(token, text)]
        self._offered.clear()
        return found

    def _command(self, text: str) -> Iterator[Suggestion]:
        word, blank, argument = text.partition(" ")
        if blank:
            known = self._arguments.get(word)
            yield from known(argument.lstrip()) if known is not None else ()
            return
        for name in self._commands:
            if name.startswith(word):
                behind = " " if name in self._arguments else ""
                yield Suggestion(f"{name}{behind}", over=len(word), shown=f"/{name}")

    def _attachment(self, at: re.Match[str]) -> Iterator[Suggestion]:
        typed = at["plain"] if at["quoted"] is None else at["quoted"]
        for name, path in self._paths(typed):
            folder = name.endswith("/")
            quoted = f'@"{name}' + ("" if folder else '"')
            token = quoted if " " in name or at["quoted"] is not None else f"@{name}"
            if not folder:
                self._offered[token] = path
            yield Suggestion(token, over=len(at["token"]), shown=name)

    def _file(self, text: str) -> Iterator[Suggestion]:
        typed = text.removeprefix("-f ")
        for name, _ in self._paths(typed):
            yield Suggestion(name, over=len(typed))

    def _model(self, text: str) -> Iterator[Suggestion]:
        if text.startswith(f"{LOCAL}:"):
            typed = text.removeprefix(f"{LOCAL}:")
            for name, path in self._paths(typed):
                if path.is_dir() or path.suffix == ".gguf":
                    yield Suggestion(name, over=len(typed))
            return
        profiles = self._config.profiles.values()
        yield from _words(text, [LOCAL, *(f"{p.name}/{p.model or ''}" for p in profiles)])

    def _template(self, text: str) -> Iterator[Suggestion]:
        name, blank, rest = text.partition(" ")
        templates = self._templates()
        if not blank:
            yield from _words(name, templates)
        elif name in templates:
            word = rest.rpartition(" ")[2]
            yield from _words(word, [f"{each}=" for each in templates[name].variables])

    def _marker(self, text: str) -> Iterator[Suggestion]:
        marker, equals, action = text.rpartition("=")
        if equals and marker:
            yield from _words(action, Action)
        else:
            yield from _words(text, ["none", *(f"{each}=" for each in self._setup.markers)])

    def _templates(self) -> dict[str, Template]:
        usable, _ = all_templates(self._env)
        return {template.name: template for template in usable}

    def _replies(self) -> list[str]:
        whole = self._history.whole()
        both = (*whole.messages, *whole.branches)
        return [message.generation for message in both if message.generation is not None]

    def _paths(self, typed: str) -> Iterator[tuple[str, Path]]:
        """Yield the files whose name goes on like this, as they are written, and where they are."""
        folder, slash, begun = typed.rpartition("/")
        try:
            where = self._env.resolve(folder + slash or ".")
            entries = sorted(where.iterdir())
        except OSError:
            return
        fits = (entry for entry in entries if entry.name.startswith(begun))
        shown = [e for e in fits if e.name.isprintable() and (begun or e.name[0] != ".")]
        for entry in shown[:MOST]:
            yield folder + slash + entry.name + ("/" if entry.is_dir() else ""), entry


def _words(begun: str, known: Iterable[str]) -> Iterator[Suggestion]:
    return (Suggestion(word, over=len(begun)) for word in known if word.startswith(begun))


def _stands_in(token: str, text: str) -> bool:
    return re.search(rf"(?:^|\s){re.escape(token)}(?=$|[\s.,;:!?)])", text) is not None
