"""What Tab offers, and which files it makes go along with a message."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from llmctl.attachments import LARGEST, attached, with_attachments
from llmctl.chat.commands import commands
from llmctl.chat.completion import Completions
from llmctl.chat.history import Forgotten
from llmctl.chat.setup import Setup
from llmctl.config import Config
from llmctl.conversation import Message, Request
from llmctl.environment import Environment
from llmctl.errors import UsageError
from llmctl.events import Action, End
from llmctl.images import Images
from llmctl.journal import Header, NoJournal
from llmctl.profiles import Selection
from tests.support.fake_environment import fake_environment


@pytest.fixture
def env(tmp_path: Path) -> Iterator[Environment]:
    with fake_environment(tmp_path) as captured:
        yield captured.env


@pytest.fixture
def offers(env: Environment) -> Completions:
    (env.cwd / "notes.md").write_text("note")
    (env.cwd / "notes two.md").write_text("note")
    (env.cwd / ".hidden").write_text("")
    (env.cwd / "bad\x1b]0;x\x07.md").write_text("")
    (env.cwd / "folder").mkdir()
    (env.cwd / "folder" / "model.gguf").write_text("")
    history = Forgotten()
    header = Header(
        "gone1", history.id, 1.0, Request("m", (Message("user", "q"),)), 0, {}, {}, "chat"
    )
    history.settle(NoJournal(), header, "a", End.COMPLETE)
    setup = Setup(Selection("local"), markers={"!!P": Action.PAUSE})
    return Completions(commands(), setup=setup, history=history, config=Config(), env=env)


def filled(offers: Completions, text: str) -> list[str]:
    """Return the lines that may come of a line."""
    return [text[: len(text) - s.over] + s.text for s in offers.suggest(text)]


@pytest.mark.parametrize(
    ("text", "lines"),
    [
        ("/re", ["/resume ", "/retry"]),
        ("/ra", ["/raw"]),
        ("/resume t", ["/resume token", "/resume text"]),
        ("/copy ", ["/copy code"]),
        ("/fork g", ["/fork gone1"]),
        ("/export j", ["/export json", "/export jsonl"]),
        ("/export fold", ["/export folder/"]),
        ("/save notes", ["/save notes two.md", "/save notes.md"]),
        ("/save -f folder/", ["/save -f folder/model.gguf"]),
        ("/save .h", ["/save .hidden"]),
        ("/save bad", []),
        ("/save no/such/", []),
        ("/model vl", ["/model vllm/"]),
        ("/model loc", ["/model local"]),
        ("/model local:folder/", ["/model local:folder/model.gguf"]),
        ("/model local:n", []),
        ("/template trans", ["/template translate"]),
        ("/template translate l", ["/template translate language="]),
        ("/template nosuch x", []),
        ("/marker !", ["/marker !!P="]),
        ("/marker !!X=s", ["/marker !!X=stop"]),
        ("/timeout i", ["/timeout idle"]),
        ("/nosuch x", []),
        ("//re", []),
        ("hello /re", []),
        ("see @fold", ["see @folder/"]),
        ("see @folder/", ["see @folder/model.gguf"]),
        ("me@notes", []),
        ("see @notes", ['see @"notes two.md"', "see @notes.md"]),
        ('see @"notes', ['see @"notes two.md"', 'see @"notes.md"']),
    ],
)
def test_what_tab_offers(offers: Completions, text: str, lines: list[str]) -> None:
    assert filled(offers, text) == lines


def test_only_what_was_completed_goes_along_and_once(offers: Completions, env: Environment) -> None:
    assert offers.attachments("see @notes.md") == []
    filled(offers, "see @no")
    assert offers.attachments("see @notes.md, please") == [env.cwd / "notes.md"]
    assert offers.attachments("see @notes.md") == []
    filled(offers, "see @no")
    assert offers.attachments("write to me@notes.md or @notes.mdx") == []
    filled(offers, "see @no")
    assert offers.attachments('@"notes two.md"') == [env.cwd / "notes two.md"]


def test_an_attachment_is_text_in_its_tag(env: Environment) -> None:
    (env.cwd / "a.txt").write_text("one\n")
    (env.cwd / "empty").write_text("")
    sent = with_attachments("look", [Path("a.txt"), env.cwd / "empty"], env, None)
    assert sent == ('look\n\n<file name="a.txt">\none\n\n</file>\n\n<file name="empty">\n\n</file>')


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (b"%PDF-1.7\n\xff", "it is a PDF document"),
        (b"\xff\xfe", "it is not UTF-8 text"),
        (b"a\0b", "it is not UTF-8 text"),
        (b"x" * (LARGEST + 1), "larger than 16 MiB"),
    ],
)
def test_what_is_neither_text_nor_image_is_refused_by_name(
    env: Environment, data: bytes, why: str
) -> None:
    (env.cwd / "file").write_bytes(data)
    with pytest.raises(UsageError, match=why) as caught:
        attached(Path("file"), env, Images())
    assert caught.value.hint


@pytest.mark.parametrize("name", ["missing", "."])
def test_what_cant_be_read_is_refused(env: Environment, name: str) -> None:
    with pytest.raises(UsageError, match="can't be attached"):
        attached(Path(name), env, None)
