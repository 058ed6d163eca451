"""One function for each reader of foreign bytes; it raises where the reader breaks its word."""

from __future__ import annotations

import json
import re
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from types import MappingProxyType

from llmctl.backends.chat_reply import ErrorEvent, ReplyReader
from llmctl.backends.chunked import BadBody, InChunks
from llmctl.backends.engine_reply import ChatReader, CompletionReader
from llmctl.backends.error_bodies import codes, context_tokens, retry_after_s, sentence
from llmctl.backends.responses_reader import ResponsesReader
from llmctl.backends.row_reader import ResponsesRowReader, RowReader
from llmctl.backends.sse import SseDecoder
from llmctl.backends.token_counts import TokenCounter
from llmctl.batch.forms import Recipe, id_of_line, row_of
from llmctl.batch.lines import BadLine, Line
from llmctl.batch.records import read_live
from llmctl.batch.row import Path as RowPath
from llmctl.config import load
from llmctl.errors import LlmctlError, UsageError
from llmctl.events import Action, Chunk
from llmctl.journal import Journal, JournalDamaged, read
from llmctl.keys import KeyFile
from llmctl.markers import Item, MarkerScanner, Text
from llmctl.replies import as_reply
from llmctl.templates import parse_template
from llmctl.terminal.keys import KeyParser
from llmctl.terminal.markdown.stream import Markdown
from llmctl.terminal.sanitizer import sanitize
from llmctl.terminal.spans import plain
from llmctl.turn import Turn
from tests.support.fake_environment import fake_environment

Target = Callable[[bytes], None]

TOO_MANY = 10**9
"""Tokens that no reply has."""

_ACTS = re.compile(r"[\x00-\x09\x0b-\x1f\x7f-\x9f]")


def sse(data: bytes) -> None:
    """Any bytes are a stream of events, the same ones however they are cut."""
    decoder = SseDecoder()
    whole = decoder.feed(data)
    pieces = SseDecoder()
    cut = [event for n in range(len(data)) for event in pieces.feed(data[n : n + 1])]
    assert whole == cut


def chunked(data: bytes) -> None:
    """Any bytes are a body in chunks or are said to be none; reading comes to an end."""
    for step in (1, len(data) or 1):
        body, buffer = InChunks(), bytearray()
        with suppress(BadBody):
            for at in range(0, len(data), step):
                buffer += data[at : at + step]
                body.take(buffer)


def events(data: bytes) -> None:
    """What a server sends as events is text, an error of its, or no event."""
    for make in (ReplyReader, RowReader):
        _events(data, make(TokenCounter()))
    _events(data, ResponsesReader())
    _events(data, ResponsesRowReader())


def _events(data: bytes, reader: ReplyReader) -> None:
    turn = Turn({})
    with suppress(ErrorEvent, ValueError):
        for line in data.decode("utf-8", "replace").splitlines():
            _receive(turn, reader.read(line))
        _receive(turn, reader.last())


def _receive(turn: Turn, chunks: Iterable[Chunk]) -> None:
    """Have a turn take what a server sent: its text is well-formed, its counts only grow."""
    for chunk in chunks:
        chunk.text.encode()
        assert isinstance(chunk.finish_reason, str | None)
        before = turn.received.tokens
        turn.receive(chunk)
        assert turn.received.tokens is None or (before or 0) <= turn.received.tokens < TOO_MANY


def engine(data: bytes) -> None:
    """What a llama-server sends as events is text, an error of its, or not of its protocol."""
    for make in (CompletionReader, ChatReader):
        reader, turn = make(9), Turn({})
        with suppress(ErrorEvent, ValueError):
            for line in data.decode("utf-8", "replace").splitlines():
                _receive(turn, reader.read(line))


def error_body(data: bytes) -> None:
    """What a server says in an error becomes one sentence, without the key."""
    body = _json(data)
    said = sentence(body, "sk-planted")
    assert "sk-planted" not in said
    assert sanitize(said) == said.replace("\r", "")
    codes(body)
    context_tokens(body)
    retry_after_s({"retry-after": data.decode("latin-1")})


def journal(data: bytes) -> None:
    """A journal is read as far as it is whole, or is damaged; looking changes nothing."""
    with _file(data, "g1.jsonl") as path:
        with suppress(JournalDamaged):
            whole, recorded = read(path)
            assert 0 < whole <= len(data)
            turn = Turn(recorded.header.markers, mark=recorded.mark)
            for chunk in recorded.chunks:
                turn.receive(chunk)
            as_reply(recorded, 1.0)
            taken, _ = Journal.reopen(path, _broken)
            taken.close()
            assert path.read_bytes().startswith(data[:whole])
            return
        assert path.read_bytes() == data


def batch_line(data: bytes) -> None:
    """A line of a batch is an item, or is bad."""
    recipe = Recipe(model="m")
    for is_json in (True, False):
        line = Line(1, data.replace(b"\n", b" "))
        with suppress(BadLine):
            row = row_of(line, recipe, is_json=is_json)
            assert row.id == id_of_line(line, is_json=is_json)
            assert row.path in set(RowPath)


def batch_state(data: bytes) -> None:
    """What a killed batch left is read as far as it is whole."""
    with _file(data, "live-1.jsonl") as path:
        for _id, _digest, kept in read_live(path):
            list(kept.chunks())


def keys(data: bytes) -> None:
    """Any bytes are keys, the same ones however they are cut; nothing of them is left over."""
    whole = KeyParser()
    presses = [*whole.feed(data), *whole.flush()]
    pieces = KeyParser()
    cut = [press for n in range(len(data)) for press in pieces.feed(data[n : n + 1])]
    cut += pieces.flush()
    if b"\x1b" not in data:  # a sequence that is cut short may be one, or an Esc by itself
        assert presses == cut
    assert not whole.pending


def terminal(data: bytes) -> None:
    """Nothing that a terminal acts on gets through, and cleaning twice is cleaning once."""
    clean = sanitize(data.decode("utf-8", "replace"))
    assert all(c in "\n\t" or (c >= " " and not "\x7f" <= c <= "\x9f") for c in clean)
    assert sanitize(clean) == clean


def markdown(data: bytes) -> None:
    """A reply's Markdown is the same however it is cut, and nothing in it acts on a terminal."""
    columns, text = 1 + sum(data[:1]) % 120, data[1:].decode("utf-8", "replace")
    whole, pieces = Markdown(columns), Markdown(columns)
    shown = [*whole.feed(text), *whole.finish()]
    cut = []
    for at, character in enumerate(text):
        cut += pieces.feed(character)
        if at & (at - 1) == 0:
            assert not _ACTS.search(plain(span for row in pieces.tail() for span in row))
    assert plain(shown) == plain([*cut, *pieces.finish()])
    assert not _ACTS.search(plain(shown))


def markers(data: bytes) -> None:
    """Markers come out the same however the text is cut, and no character is lost."""
    text = data.decode("utf-8", "replace")
    wanted = {"!!PAUSE": Action.PAUSE, "!!P": Action.STOP, "``": Action.ASK}
    whole, pieces = MarkerScanner(wanted), MarkerScanner(wanted)
    found = [*whole.feed(text), *whole.finish()]
    cut = [item for c in text for item in pieces.feed(c)]
    cut += pieces.finish()
    assert _joined(found) == _joined(cut)
    assert "".join(map(_text, found)) == text


def config_file(data: bytes) -> None:
    """A configuration file is used or refused; so are a template and a file of keys."""
    with fake_environment(Path(tempfile.gettempdir())) as fake:
        with _file(data, "config.toml") as path, suppress(UsageError):
            load(fake.env, file=path)
        with _file(data, "template.md") as path, suppress(UsageError):
            parse_template("template", path).render({}, "prompt")


def key_file(data: bytes) -> None:
    """A damaged file of keys is said to be one, and is left as it is."""
    with tempfile.TemporaryDirectory() as folder, fake_environment(Path(folder)) as fake:
        file = KeyFile(fake.env)
        file.path.parent.mkdir(parents=True)
        file.path.write_bytes(data)
        try:
            file.set("name", "value")
        except LlmctlError:
            assert file.path.read_bytes() == data


TARGETS: Mapping[str, Target] = MappingProxyType(
    {
        target.__name__: target
        for target in (
            sse, chunked, events, engine, error_body, journal, batch_line, batch_state,
            keys, terminal, markdown, markers, config_file, key_file,
        )
    }
)  # fmt: skip


def _joined(items: list[Item]) -> list[tuple[str, str]]:
    joined: list[tuple[str, str]] = []
    for item in items:
        kind = type(item).__name__
        if joined and joined[-1][0] == kind == "Text":
            joined[-1] = (kind, joined[-1][1] + _text(item))
        else:
            joined.append((kind, _text(item)))
    return joined


def _text(item: Item) -> str:
    return item.text if isinstance(item, Text) else item.marker


def _json(data: bytes) -> object:
    try:
        return json.loads(data)
    except (ValueError, RecursionError):
        return data.decode("utf-8", "replace")


@contextmanager
def _file(data: bytes, name: str) -> Iterator[Path]:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / name
        path.write_bytes(data)
        yield path


def _broken(error: OSError) -> None:
    raise AssertionError(error)
