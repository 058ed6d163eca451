"""Slash commands as a person meets them: a real terminal, a real editor, files, branches."""

from __future__ import annotations

import json
import re
import signal
import stat
from base64 import b64decode
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.conftest import Program
from tests.support.pty_driver import PtyProgram

PROMPT = re.compile(r"^> ?$|PAUSED", re.MULTILINE)
LONG = " ".join(f"w{number}" for number in range(300)) + "\n"
STALLS: dict[str, Any] = {"delay_s": 0.01, "faults": [{"kind": "stall", "after": 100}]}
"""A reply that has not ended when it is stopped, however late that is."""

Start = Callable[..., PtyProgram]


@pytest.fixture
def start(program: Program) -> Iterator[Start]:
    """Start a chat in a terminal of its own and wait for its prompt."""
    running: list[PtyProgram] = []

    def begin(model: str, *more: str, **environment: str) -> PtyProgram:
        words = program.cli.command("chat", "-m", model, *more)
        env = {**program.cli.env, **environment}
        chat = PtyProgram(words, env=env, cwd=program.cli.cwd, columns=80, rows=24)
        running.append(chat.__enter__())
        chat.wait_for_screen(PROMPT, timeout_s=20)
        return chat

    yield begin
    for chat in running:
        chat.__exit__(None, None, None)


def editor(program: Program, code: str) -> str:
    """Return an editor that is a line of Python; ``t`` is the text."""
    file = program.cli.cwd / "editor.py"
    file.write_text(
        "import sys, pathlib\n"
        "p = pathlib.Path(sys.argv[1])\n"
        "t = p.read_text()\n"
        f"{code}\n"
        "p.write_text(t)\n"
    )
    return f"python3 {file}"


def ended(chat: PtyProgram) -> None:
    """Wait for the line about the end of the newest reply."""
    chat.wait_for_screen(re.compile(r"· (stop|stopped)( ·.*)?\n(/resume .*\n)?> ?$", re.MULTILINE))


def tree(program: Program) -> list[str]:
    rows = json.loads(program.run("conversations", "list", "--json").text)
    return program.run("conversations", "show", "--tree", rows[0]["id"]).text.splitlines()


def said(program: Program) -> list[dict[str, Any]]:
    rows = json.loads(program.run("conversations", "list", "--json").text)
    shown = program.run("conversations", "export", rows[0]["id"], "--format", "json")
    messages: list[dict[str, Any]] = json.loads(shown.text)["messages"]
    return messages


def stopped(chat: PtyProgram, word: str = "w9") -> None:
    """Ask, and stop the reply in its middle."""
    chat.send("hello\r")
    chat.wait_for_screen(word)
    chat.send_keys("ctrl-c")
    chat.wait_for_screen(re.compile(r"stopped.*^> ?$", re.DOTALL | re.MULTILINE))


# /edit


def test_an_edited_reply_goes_on_as_text(program: Program, start: Start) -> None:
    model = program.script(LONG, **STALLS)
    chat = start(model, EDITOR=editor(program, "t = ' '.join(t.split()[:4])"))
    stopped(chat)
    chat.send("/edit\r")
    chat.wait_for_screen("w0 w1 w2 w3")
    chat.wait_for_screen("resumed: prefix, text", timeout_s=20)
    assert chat.attributes() != chat.attributes_at_start, "the terminal was taken back"
    chat.send_keys("ctrl-d")
    assert chat.wait() == 0
    assert chat.attributes() == chat.attributes_at_start
    reply = said(program)[-1]
    assert (reply["content"], reply["guarantee"]) == (LONG, "text")


def test_an_edit_that_changes_nothing_is_as_exact_as_before(program: Program, start: Start) -> None:
    chat = start(program.script(LONG, **STALLS), EDITOR=editor(program, "t += '\\n'"))
    stopped(chat)
    chat.send("/edit\r")
    chat.wait_for_screen("nothing was changed")
    chat.wait_for_screen("resumed: replay, exact", timeout_s=20)
    chat.send_keys("ctrl-d")
    assert chat.wait() == 0
    assert said(program)[-1]["content"] == LONG


def test_best_effort_is_asked_for_first(program: Program, start: Start) -> None:
    chat = start(program.script(LONG, **STALLS), EDITOR=editor(program, "t = 'My own words'"))
    stopped(chat)
    chat.send("/edit\r")
    chat.wait_for_screen(
        re.compile(r"below-require.*in its own words.*^> /resume best", re.MULTILINE | re.DOTALL)
    )
    assert said(program)[-1]["content"] == "My own words"
    chat.send_keys("enter")
    chat.wait_for_screen("resumed: instruct, best-effort", timeout_s=20)
    chat.send_keys("ctrl-d")
    assert chat.wait() == 0
    assert said(program)[-1]["guarantee"] == "best-effort"


def test_an_edit_outlives_a_kill(program: Program, start: Start) -> None:
    chat = start(
        program.script(LONG, delay_s=0.02, faults=STALLS["faults"]),
        EDITOR=editor(program, "t = ' '.join(t.split()[:4])"),
    )
    stopped(chat)
    since = len(chat.output)
    chat.send("/edit\r")
    chat.wait_for("w0 w1 w2 w3", since=since)
    chat.wait_for("streaming", since=since)
    chat.send_signal(signal.SIGKILL)
    chat.wait()
    kept = said(program)[-1]["content"]
    assert LONG.startswith(kept)
    done = program.run("resume", "--full")
    assert done.text == LONG
    assert "exact" not in done.errors
    assert said(program)[-1]["guarantee"] == "text"


@pytest.mark.parametrize(
    ("code", "words"),
    [
        ("sys.exit(3)", "ended with status 3; nothing was changed"),
        ("t = ''", "the edit is empty; the reply is as it was"),
    ],
)
def test_an_edit_that_failed_leaves_the_reply_as_it_was(
    program: Program, start: Start, code: str, words: str
) -> None:
    chat = start(program.script(LONG, **STALLS), EDITOR=editor(program, code))
    stopped(chat)
    before = said(program)[-1]["content"]
    chat.send("/edit\r")
    chat.wait_for_screen(words)
    chat.wait_for_screen(PROMPT)
    assert said(program)[-1]["content"] == before
    chat.send("/resume\r")
    chat.wait_for_screen("resumed: replay, exact", timeout_s=20)


def test_an_editor_that_is_not_there_and_nothing_to_edit(program: Program, start: Start) -> None:
    chat = start(program.script(LONG, **STALLS), EDITOR="no-such-editor --wait")
    chat.send("/edit\r")
    chat.wait_for_screen("No reply is unfinished.")
    stopped(chat)
    chat.send("/edit\r")
    chat.wait_for_screen("The editor 'no-such-editor' can't be started")
    chat.send_keys("ctrl-d")
    assert chat.wait() == 0
    assert chat.attributes() == chat.attributes_at_start


def test_the_editor_has_the_terminal_and_sigterm_ends_it(program: Program, start: Start) -> None:
    busy = editor(program, "print('EDITING', sys.stdin.isatty(), flush=True); input()")
    chat = start(program.script(LONG, **STALLS), EDITOR=busy)
    stopped(chat)
    chat.send("/edit\r")
    chat.wait_for("EDITING True")
    assert chat.attributes() == chat.attributes_at_start, "the editor has it as it was"
    chat.send_signal(signal.SIGTERM)
    assert chat.wait() == 143
    assert chat.attributes() == chat.attributes_at_start
    assert LONG.startswith(said(program)[-1]["content"])


def test_a_command_given_at_a_pause_keeps_the_reply_resumable(
    program: Program, start: Start
) -> None:
    chat = start(program.script(LONG, **STALLS))
    chat.send("hello\r")
    chat.wait_for_screen("w9")
    chat.send_keys("space")
    chat.wait_for_screen("PAUSED at")
    chat.send("/raw\r")
    chat.wait_for_screen("> /raw")
    chat.send("/resume\r")
    chat.wait_for_screen(re.compile("resumed: (held|replay), exact"), timeout_s=20)
    chat.send_keys("ctrl-d")
    assert chat.wait() == 0
    assert said(program)[-1]["content"] == LONG


# Branches.


def test_retry_and_fork_make_branches(program: Program, start: Start) -> None:
    chat = start(program.script("a short answer\n"))
    for question in ("first", "second"):
        chat.send(f"{question}\r")
        ended(chat)
        chat.send("/clear\r")
        chat.wait_for_screen(re.compile(r"\A> ?$", re.MULTILINE))
    chat.send("/retry\r")
    ended(chat)
    chat.send("/fork 2\r")
    chat.wait_for_screen(re.compile("^> first", re.MULTILINE))
    chat.send(" again\r")
    chat.wait_for_screen(re.compile("> first again.*· stop", re.DOTALL))
    chat.send("/fork 0\r")
    chat.wait_for_screen("at the end of the conversation again")
    chat.send_keys("ctrl-d")
    assert chat.wait() == 0
    drawing = [re.sub(r"  g\w+", "", line) for line in tree(program)]
    assert drawing == [
        "├─ 1 user: first",
        "│  2 assistant: a short answer",
        "│  ├─ 3 user: second",
        "│  │  4 assistant: a short answer",
        "│  └─ 5 user: second",
        "│     6 assistant: a short answer",
        "└─ 7 user: first again",
        "   8 assistant: a short answer  ← here",
    ]


def test_the_chat_goes_on_behind_a_reply_of_another_branch(program: Program, start: Start) -> None:
    chat = start(program.script("a short answer\n"))
    chat.send("first\r")
    ended(chat)
    old = said(program)[-1]["generation"]
    chat.send("/retry\r")
    chat.wait_for_screen(re.compile(r"(· stop.*){2}", re.DOTALL))
    chat.send(f"/fork {old}\r")
    chat.wait_for_screen(f"behind {old}")
    chat.send("then\r")
    chat.wait_for_screen(re.compile(r"(· stop.*){3}", re.DOTALL))
    chat.send("/fork gnone\r")
    chat.wait_for_screen("'gnone' stands for 0 replies")
    chat.send_keys("ctrl-d")
    assert chat.wait() == 0
    assert [m["id"] for m in said(program)] == [1, 2, 5, 6]


def test_escape_twice_edits_the_last_message_in_a_branch(program: Program, start: Start) -> None:
    chat = start(program.script("a short answer\n"))
    chat.send("hello\r")
    ended(chat)
    chat.send_keys("esc", "esc")
    chat.wait_for_screen(re.compile(r"instead of your last message.*\n> hello"))
    chat.send(" there\r")
    chat.wait_for_screen(re.compile("> hello there.*· stop", re.DOTALL))
    chat.send_keys("ctrl-d")
    assert chat.wait() == 0
    assert [re.sub(r"  g\w+", "", line) for line in tree(program)] == [
        "├─ 1 user: hello",
        "│  2 assistant: a short answer",
        "└─ 3 user: hello there",
        "   4 assistant: a short answer  ← here",
    ]


# Copies and files.

BLOCKS = "Here:\n```py\na = 1\n```\nand\n```sh\nls\n```\n"


def copied(chat: PtyProgram) -> str:
    found = re.findall(rb"\x1b\]52;c;([A-Za-z0-9+/=]*)\x07", chat.output)
    return b64decode(found[-1]).decode()


def test_copy_hands_replies_and_code_to_the_clipboard(program: Program, start: Start) -> None:
    chat = start(program.script(BLOCKS))
    chat.send("hello\r")
    ended(chat)
    for command, text in (("/copy", BLOCKS), ("/copy code", "ls"), ("/copy code 2", "a = 1")):
        since = len(chat.output)
        chat.send(f"{command}\r")
        chat.wait_for(f"sent {len(text):,} characters", since=since)
        assert copied(chat) == text
    for command, words in (
        ("/copy 2", "There is one reply."),
        ("/copy code 3", "There are 2 code blocks."),
        ("/copy soap", "'soap' is no number."),
    ):
        chat.send(f"{command}\r")
        chat.wait_for_screen(words)


def test_copy_inside_a_tmux_that_does_not_answer_passes_through_it(
    program: Program, start: Start
) -> None:
    chat = start(program.script(BLOCKS), TMUX=f"{program.cli.cwd}/no-socket,1,0")
    chat.send("hello\r")
    ended(chat)
    chat.send("/copy\r")
    chat.wait_for("to the terminal's clipboard")
    wrapped = re.search(rb"\x1bPtmux;\x1b(\x1b\]52;c;[A-Za-z0-9+/=]*\x07)\x1b\\", chat.output)
    assert wrapped is not None


def test_copy_without_a_clipboard_names_a_private_file(program: Program, start: Start) -> None:
    chat = start(program.script(BLOCKS), "--plain", TMPDIR=str(program.cli.cwd))
    chat.send("hello\r")
    chat.wait_for("· stop")
    chat.send("/copy\r")
    seen = chat.wait_for(re.compile(r"copied \d+ characters to (\S+)\r"))
    file = Path(seen.text.split()[-1])
    assert file.read_text() == BLOCKS
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert b"\x1b]52" not in chat.output


def test_raw_save_export_and_search(program: Program, start: Start) -> None:
    folder = program.cli.cwd
    chat = start(program.script(BLOCKS))
    chat.send("hello\r")
    ended(chat)
    chat.send("/clear\r/raw\r")
    chat.wait_for_screen(re.compile(r"^```py\na = 1\n```\nand\n```sh$", re.MULTILINE))
    chat.send("/save my reply.md\r")
    chat.wait_for(f"wrote {folder}/my reply.md")
    assert (folder / "my reply.md").read_text() == BLOCKS
    assert stat.S_IMODE((folder / "my reply.md").stat().st_mode) == 0o600
    chat.send("/save my reply.md\r")
    chat.wait_for("is there already.")
    (folder / "my reply.md").write_text("old")
    chat.send("/save -f my reply.md\r/search code blocks\r")
    chat.wait_for_screen("nothing has these words")
    assert (folder / "my reply.md").read_text() == BLOCKS
    chat.send("/export all.json\r/export md\r")
    chat.wait_for(f"wrote {folder}/md")
    assert [m["role"] for m in json.loads((folder / "all.json").read_text())["messages"]] == [
        "user",
        "assistant",
    ]
    assert (folder / "md").read_text().startswith("## user\n\nhello\n")
    chat.send("/clear\r/export markdown\r")
    chat.wait_for_screen(re.compile("^## user\n\nhello$", re.MULTILINE))
    chat.send("/search HELLO\r")
    chat.wait_for_screen(re.compile(r"^c\w+  user: hello$", re.MULTILINE))
    chat.send("/save no/such/folder/x\r/search\r")
    chat.wait_for_screen("No such file")
    chat.wait_for_screen("What is to be found?")


# Completion.


def test_a_file_goes_along_only_if_its_name_was_completed(program: Program, start: Start) -> None:
    (program.cli.cwd / "notes.md").write_text("the note\n")
    chat = start(program.script("a short answer\n"))
    chat.send("see @no\t")
    chat.wait_for_screen("> see @notes.md")
    chat.send_keys("enter")
    chat.wait_for_screen("attached notes.md")
    ended(chat)
    chat.send("see @notes.md\r")
    chat.wait_for_screen(re.compile(r"(· stop.*){2}", re.DOTALL))
    chat.send("/export js\t")
    chat.wait_for_screen("jsonl")
    chat.send_keys("ctrl-c", "ctrl-d")
    assert chat.wait() == 0
    first, _, second, _ = (message["content"] for message in said(program))
    assert first == 'see @notes.md\n\n<file name="notes.md">\nthe note\n\n</file>'
    assert second == "see @notes.md"


def test_attached_files_go_along_with_the_first_message(program: Program, start: Start) -> None:
    (program.cli.cwd / "notes.md").write_text("the note\n")
    chat = start(program.script("a short answer\n"), "--attach", "notes.md")
    chat.wait_for_screen("notes.md goes along with your first message")
    chat.send("hello\r")
    ended(chat)
    chat.send_keys("ctrl-d")
    assert chat.wait() == 0
    assert said(program)[0]["content"].startswith('hello\n\n<file name="notes.md">')
    chat = start(program.script("a short answer\n"), "--attach", "notes.md")
    (program.cli.cwd / "notes.md").unlink()
    chat.send("hello\r")
    chat.wait_for_screen(re.compile(r"notes.md can't be attached(.*\n)+> hello"))
    chat.send_keys("enter")
    ended(chat)
    refused = program.run("chat", "-m", program.script("x"), "--attach", "no.md")
    assert (refused.returncode, refused.errors.count("\n")) == (2, 2)
    assert "no.md can't be attached: No such file" in refused.errors


# The rest, and a hard day.


def test_the_commands_that_show_and_set_things(program: Program, start: Start) -> None:
    chat = start(program.script("a short answer\n"))
    for command, words in (
        ("/system Be brief.", "system: Be brief."),
        ("/marker !!DONE=stop", "!!DONE ("),
        ("/marker =stop", "A marker can't be empty."),
        ("/marker none", "markers: none"),
        ("/timeout idle 5s", "idle 5 s"),
        ("/timeout soon", "hint: "),
        ("/model nosuch/x", "No back end is called 'nosuch'."),
        ("/template", "summary: Sum up"),
        ("/template translate language=it's -- hi", "Quotes come in pairs."),
        ("/template translate language=de", "The template 'translate' needs a text."),
        ("/help copy", "N counts from the last"),
        ("/help keys", "Once something is typed, Space is text."),
        ("/help soap", "/soap is not a command"),
        ("/stats", "0 messages"),
        ("/retry", "There is no question yet."),
        ("/keep", "No reply is unfinished."),
        ("/undo", "There is no stop to take back."),
    ):
        chat.send(f"/clear\r{command}\r")
        chat.wait_for_screen(words)
    chat.send("/clear\r/template translate language=de -- hello\r")
    ended(chat)
    chat.send("/clear\r/stats\r")
    chat.wait_for_screen(re.compile(r"3 messages\nlast reply: 4 tok, .* s, first token after"))
    chat.send("/quit\r")
    assert chat.wait() == 0
    system, question, _ = said(program)
    assert system["content"] == "Be brief."
    assert "into de" in question["content"]


def test_a_paste_of_every_control_byte_a_resize_and_a_kill(program: Program, start: Start) -> None:
    controls = "".join(map(chr, [*range(1, 32), 127, *range(128, 160), 0x202E, 0xFEFF]))
    paste = (f"\x1b]52;c;aGk=\x07\x1b[2J{controls}x\n" * 140)[:10_000]
    chat = start(program.script("| a | b |\n|---|---|\n" + "| w | x |\n" * 200, delay_s=0.03))
    chat.send("hello\r")
    chat.wait_for_screen("streaming")
    chat.paste(paste)
    chat.wait_for_screen("> (+")
    chat.resize(50, 20)
    chat.send_keys("enter")
    chat.wait_for_screen("queued:")
    chat.resize(100, 30)
    chat.send_keys("space")
    chat.wait_for_screen("PAUSED")
    chat.send_keys("space")
    chat.wait_for_screen(re.compile("queued:.*streaming", re.DOTALL))
    chat.send_signal(signal.SIGTERM)
    assert chat.wait() == 143
    assert chat.attributes() == chat.attributes_at_start
    for act in (b"\x1b]52", b"\x1b[2J", b"\x9b2", "\x9b".encode(), "\u202e".encode(), b"\x07"):
        assert act not in chat.output
    question, reply = said(program)
    assert (question["content"], reply["status"]) == ("hello", "interrupted")


def test_a_paste_at_the_prompt_is_sent_as_it_was(program: Program, start: Start) -> None:
    controls = "".join(chr(code) for code in [*range(1, 32), 127, *range(128, 160)])
    paste = (f"\x1b]52;c;aGk={controls}\x1b[2Jx" * 120)[:10_000]
    chat = start(program.script("a short answer\n"))
    chat.paste(paste)
    chat.send_keys("enter")
    chat.wait_for("· stop", timeout_s=30)
    chat.send_keys("ctrl-d")
    assert chat.wait() == 0
    sent = said(program)[0]["content"]
    assert sent == paste.replace("\r\n", "\n").replace("\r", "\n")
    assert b"\x1b]52" not in chat.output
