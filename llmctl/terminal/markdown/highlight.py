"""Code to coloured spans, a line at a time. Pure.

A line is final as soon as it is there, so a lexer must be able to stop behind any line and go
on from what it then knows. Lexers made for whole files can't: their patterns for comments and
strings reach over many lines. This one knows words, numbers, strings and comments, which is
what a reader's eye looks for; all it remembers is how what is open at a line's end will close.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cache

from llmctl.terminal.spans import COMMENT, KEYWORD, NAME, NUMBER, REMOVED, STRING, Line

Open = tuple[str, int] | None
"""What closes what is open, and its style."""

LONGEST = 2000
"""Characters of a line above which it is not coloured."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Language:
    """What is told apart in a language.

    Attributes:
        words: its keywords.
        values: words that are values.
        comments: what begins a comment that ends with its line, as patterns.
        blocks: what begins and ends a comment of several lines.
        quotes: what begins and ends a string.
        texts: what begins and ends a string of several lines.
        names: what else stands out, as a pattern.
        caseless: keywords may be written in capitals.
    """

    words: frozenset[str] = frozenset()
    values: frozenset[str] = frozenset()
    comments: tuple[str, ...] = ()
    blocks: dict[str, str] = field(default_factory=dict)
    quotes: str = "\"'"
    texts: tuple[str, ...] = ()
    names: str = ""
    caseless: bool = False


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


_VALUES = _words("true false null nil None True False undefined NaN this self super")
_C_BLOCKS = {"/*": "*/"}
_SHARED = "if else for while do switch case default break continue return try catch finally throw "
_TYPES = "int long short char float double void bool boolean string byte unsigned signed const "
_CLASSES = "class interface enum extends implements new public private protected static abstract "

_PYTHON = Language(
    words=_words(
        "and as assert async await break class continue def del elif else except finally for from "
        "global if import in is lambda match case nonlocal not or pass raise return try while "
        "with yield type"
    ),
    values=_VALUES,
    comments=("#",),
    texts=('"""', "'''"),
    names=r"@[\w.]+",
)
_SCRIPT = Language(
    words=_words(
        _SHARED + _CLASSES + "async await const delete export from function get import in "
        "instanceof let of set typeof var yield type readonly namespace declare as keyof"
    ),
    values=_VALUES,
    comments=("//",),
    blocks=_C_BLOCKS,
    texts=("`",),
)
_C = Language(
    words=_words(
        _SHARED + _CLASSES + _TYPES + "auto extern goto inline namespace operator register sizeof "
        "struct template this typedef typename union using virtual volatile package import final "
        "throws synchronized instanceof foreach in is var let val fun when override sealed data "
        "object companion internal readonly async await yield record guard func protocol "
        "extension where constexpr noexcept nullptr"
    ),
    values=_VALUES,
    comments=("//",),
    blocks=_C_BLOCKS,
    names=r"^ *\#\w+|@\w+",
)
_GO = Language(
    words=_words(
        "break case chan const continue default defer else fallthrough for func go goto if import "
        "interface map package range return select struct switch type var string int int64 bool "
        "byte error float64 any"
    ),
    values=_VALUES | _words("iota"),
    comments=("//",),
    blocks=_C_BLOCKS,
    texts=("`",),
)
_RUST = Language(
    words=_words(
        "as async await break const continue crate dyn else enum extern fn for if impl in let loop "
        "match mod move mut pub ref return static struct super trait type unsafe use where while"
    ),
    values=_VALUES | _words("Some Ok Err Self"),
    comments=("//",),
    blocks=_C_BLOCKS,
    quotes='"',  # an apostrophe begins a lifetime more often than a character
    names=r"\#!?\[.*\]|\w+!|'\w+\b(?!')",
)
_SHELL = Language(
    words=_words(
        "if then else elif fi for in do done while until case esac function return exit export "
        "local source alias set unset shift trap readonly declare echo cd sudo"
    ),
    comments=(r"(?<!\S)#",),
    names=r"\$\w+|\$\{[^}]*\}|(?<=\s)--?[A-Za-z][\w-]*",
)
_SQL = Language(
    words=_words(
        "select from where insert into values update set delete create table drop alter add index "
        "primary key foreign references unique not and or in is like between join left right inner "
        "outer full on group by order having limit offset union all distinct as case when then "
        "else end exists with recursive view begin commit rollback default constraint returning "
        "asc desc count sum avg min max integer text varchar timestamp boolean"
    ),
    values=_words("null true false"),
    comments=("--",),
    blocks=_C_BLOCKS,
    caseless=True,
)
_RUBY = Language(
    words=_words(
        "alias and begin break case class def do else elsif end ensure for if in module next not "
        "or redo rescue retry return then undef unless until when while yield require attr_reader "
        "attr_accessor puts local function repeat"
    ),
    values=_VALUES,
    comments=("#",),
    names=r"(?<![:\w]):\w+|@\w+",
)
_LUA = Language(words=_RUBY.words, values=_VALUES, comments=("--",), blocks={"--[[": "]]"})
_PHP = Language(
    words=_SCRIPT.words | _words("echo namespace use fn foreach as elseif isset unset array"),
    values=_VALUES,
    comments=("//", "#"),
    blocks=_C_BLOCKS,
    names=r"\$\w+|<\?php|\?>",
)
_MARKUP = Language(blocks={"<!--": "-->"}, names=r"</?[\w:-]+|/?>|[\w:-]+(?==)")
_STYLE = Language(blocks=_C_BLOCKS, names=r"[@.#]?[\w-]+(?=[^;{}]*\{)|[\w-]+(?=\s*:)")
_SETTINGS = Language(
    values=_VALUES | _words("yes no on off"),
    comments=(r"(?<!\S)#", "^;"),
    texts=('"""', "'''"),
    names=r"^\s*(?:- )?[\w.\"-]+(?=\s*[:=])|^\s*\[.*\]",
)
_JSON = Language(values=_VALUES, comments=("//",), names=r'"(?:[^"\\]|\\.)*"(?=\s*:)', quotes='"')
_DOCKER = Language(
    words=_words(
        "from run cmd label expose env add copy entrypoint volume user workdir arg as all phony"
    ),
    comments=(r"(?<!\S)#",),
    names=r"\$\w+|\$[{(][^})]*[})]|^[\w.%/-]+(?=\s*:)",
    caseless=True,
)
_ADDED = re.compile(r"\+(?!\+\+)|>")

_BY_NAME = {
    "python py python3 pycon ipython": _PYTHON,
    "javascript js jsx typescript ts tsx node mjs": _SCRIPT,
    "c h cpp c++ cc hpp csharp cs c# java kotlin kt swift scala objc dart groovy proto": _C,
    "go golang": _GO,
    "rust rs": _RUST,
    "bash sh shell zsh console shell-session fish": _SHELL,
    "sql sqlite postgres postgresql mysql": _SQL,
    "ruby rb elixir": _RUBY,
    "lua haskell": _LUA,
    "php": _PHP,
    "html xml svg vue htm": _MARKUP,
    "css scss sass less": _STYLE,
    "yaml yml toml ini cfg conf properties": _SETTINGS,
    "json jsonc json5 jsonl": _JSON,
    "dockerfile docker makefile make": _DOCKER,
}
_LANGUAGES = {name: language for names, language in _BY_NAME.items() for name in names.split()}


def highlighted(name: str, line: str, open_: Open) -> tuple[Line, Open]:
    """Return a line of code as spans, and what is open behind it.

    Args:
        name: the language, as the fence calls it.
        line: the line, without its end.
        open_: what was open before it.
    """
    if len(line) > LONGEST:
        return [(line, 0)], None
    if name in {"diff", "patch"}:
        return [(line, _change(line))], None
    language = _LANGUAGES.get(name)
    if language is None:
        return [(line, 0)], None
    return _Lexer(name, language, open_).lex(line)


def _change(line: str) -> int:
    if line.startswith("@@"):
        return NAME
    if _ADDED.match(line):
        return STRING
    return REMOVED if line.startswith(("-", "<")) and not line.startswith("---") else 0


@cache
def _pattern(name: str) -> re.Pattern[str]:
    """Return the pattern of a language: whatever is told apart, in the order of precedence."""
    language = _LANGUAGES[name]
    strings = [rf"{quote}(?:[^{quote}\\]|\\.)*+{quote}?" for quote in language.quotes]
    opening = [*language.blocks, *language.texts]
    parts = [
        ("names", language.names),
        ("open", "|".join(map(re.escape, opening))),
        ("comment", "|".join(f"{begin}.*" for begin in language.comments)),
        ("string", "|".join(strings)),
        ("number", r"(?<![\w.])(?:0[xX][\da-fA-F_]+|\d[\d_]*(?:\.\d+)?(?:[eE][+-]?\d+)?)\w*"),
        ("word", r"[^\W\d]\w*"),
    ]
    return re.compile("|".join(f"(?P<{key}>{pattern})" for key, pattern in parts if pattern))


class _Lexer:
    def __init__(self, name: str, language: Language, open_: Open) -> None:
        self._pattern = _pattern(name)
        self._language = language
        self._open = open_
        self._after_definition = False

    def lex(self, line: str) -> tuple[Line, Open]:
        spans = [(text, style) for text, style in self._spans(line) if text]
        return spans, self._open

    def _spans(self, line: str) -> Iterator[tuple[str, int]]:
        at = 0
        if self._open is not None:
            close, style = self._open
            at = self._end(line, 0, close)
            yield line[:at], style
        while match := self._pattern.search(line, at):
            yield line[at : match.start()], 0
            at = match.end()
            if match.lastgroup == "open":
                close = self._language.blocks.get(match[0], match[0])
                style = COMMENT if match[0] in self._language.blocks else STRING
                self._open = (close, style)
                at = self._end(line, at, close)
                yield line[match.start() : at], style
            else:
                yield match[0], self._style(match)
        yield line[at:], 0

    def _end(self, line: str, start: int, close: str) -> int:
        """Return where what is open ends in this line, or its end."""
        found = line.find(close, start)
        if found < 0:
            return len(line)
        self._open = None
        return found + len(close)

    def _style(self, match: re.Match[str]) -> int:
        match match.lastgroup:
            case "comment":
                return COMMENT
            case "string":
                return STRING
            case "number":
                return NUMBER
            case "names":
                return NAME
            case _:
                return self._word(match[0])

    def _word(self, word: str) -> int:
        defined, self._after_definition = self._after_definition, word in _DEFINING
        if defined:
            return NAME
        if word in self._language.values:
            return NUMBER
        known = word.lower() if self._language.caseless else word
        return KEYWORD if known in self._language.words else 0


_DEFINING = frozenset({"def", "class", "function", "func", "fn", "fun", "struct", "interface"})
