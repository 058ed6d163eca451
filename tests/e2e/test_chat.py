"""The chat as a person meets it: a real terminal, real keys, a scripted model."""

from __future__ import annotations

import json
import random
import re
import signal
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import pytest

from llmctl.chat.keyboard import STOP_GUARD_S
from llmctl.terminal.prompt_line import LEAVING_HINT
from tests.support.oracle_server import OracleServer, Settings
from tests.support.oracle_server import Script as ServerScript
from tests.support.processes import Cli
from tests.support.pty_driver import PtyProgram

WORDS = 400
"""Length of the scripted reply."""

REPLY = " ".join(f"w{number}" for number in range(WORDS)) + "\n"

STOPPED = re.compile("stopped.*^> ?$", re.DOTALL | re.MULTILINE)
"""The prompt behind a reply that was stopped."""

Start = Callable[..., PtyProgram]


@pytest.fixture
def cli(tmp_path: Path) -> Iterator[Cli]:
    cli = Cli(tmp_path)
    yield cli
    cli.assert_no_leftovers()


@pytest.fixture
def script(cli: Cli) -> Callable[..., str]:
    """Write a script and return the model name that plays it.

    ``stalls_after``: nothing comes behind so many words, until the reply is gone on with anew;
    so it has not ended when a key is pressed, however late that is.
    """

    def write(
        text: str = REPLY,
        *,
        delay_s: float = 0.005,
        name: str = "reply",
        stalls_after: int | None = None,
        times: int = 1,
    ) -> str:
        file = cli.cwd / f"{name}.json"
        words = re.findall(r"\S+\s*|\s+", text)
        chunks = [{"text": word, "tokens": 1} for word in words]
        stall = {"kind": "stall", "after": stalls_after, "times": times}
        faults = [] if stalls_after is None else [stall]
        file.write_text(
            json.dumps({"chunks": chunks, "delay_s": delay_s, "faults": faults}), "utf-8"
        )
        return f"scripted:{file.name}"  # a path may hold any word, and is on the screen

    return write


@pytest.fixture
def start(cli: Cli) -> Iterator[Start]:
    """Start a chat in a terminal of its own and wait for its prompt."""
    running: list[PtyProgram] = []

    def begin(model: str, *more: str, columns: int = 80, rows: int = 24) -> PtyProgram:
        words = cli.command("chat", "-m", model, *more)
        chat = PtyProgram(words, env=cli.env, cwd=cli.cwd, columns=columns, rows=rows)
        running.append(chat.__enter__())
        ready = re.compile(r"^> ?$|PAUSED|^> hello|^\[paused at", re.MULTILINE)
        chat.wait_for_screen(ready, timeout_s=20)
        return chat

    yield begin
    for chat in running:
        chat.__exit__(None, None, None)


def ask(chat: PtyProgram, text: str = "hello") -> None:
    chat.send(f"{text}\r")


def text_on(chat: PtyProgram) -> str:
    """Return everything the terminal shows and has scrolled, as one line."""
    return "".join(chat.scrollback)


def interrupt_until_it_leaves(chat: PtyProgram) -> None:
    """Interrupt a prompt that has hinted; one that comes too late for that only hints again."""
    said = LEAVING_HINT.encode()
    while chat.poll() is None:
        hints = chat.output.count(said)
        chat.send_signal(signal.SIGINT)
        chat.wait_until(partial(more_or_over, chat, said, hints))


def more_or_over(chat: PtyProgram, said: bytes, times: int) -> bool:
    return chat.poll() is not None or chat.output.count(said) > times


def is_at_prompt(chat: PtyProgram) -> bool:
    return STOPPED.search("\n".join(chat.screen)) is not None


def words_of(text: str) -> list[str]:
    return re.findall(r"w\d+", text)


def exported(cli: Cli) -> list[dict[str, object]]:
    rows = json.loads(cli.run("conversations", "list", "--json").text)
    shown = cli.run("conversations", "export", rows[0]["id"], "--format", "json")
    messages: list[dict[str, object]] = json.loads(shown.text)["messages"]
    return messages


def test_space_pauses_and_resumes_and_nothing_is_lost(start: Start, cli: Cli) -> None:
    with OracleServer(Settings(length=60)) as server:
        server.enqueue(ServerScript(hold_at=20))
        chat = start("oracle", "--temperature", "0", "--base-url", server.base_url)
        ask(chat)
        server.wait_until(lambda counters: counters.held == 1)
        chat.wait_for_screen("streaming")
        chat.send_keys("space")
        chat.wait_for_screen("PAUSED at")
        server.release()
        chat.wait_for_screen("reply complete")
        chat.send_keys("space")
        chat.wait_for_screen("resumed: held, exact", timeout_s=20)
        chat.send_keys("ctrl-d")
        assert chat.wait() == 0
        assert exported(cli)[-1]["content"] == server.expected("hello")


@pytest.mark.slow
def test_a_hundred_pauses_lose_and_double_nothing(
    start: Start, script: Callable[..., str], cli: Cli
) -> None:
    """The model stands still at each pause, so that waiting for one takes nothing of the reply."""
    seeded = random.Random(7)  # noqa: S311  (not for secrets)
    long = " ".join(f"w{number}" for number in range(20_000)) + "\n"
    chat = start(script(long, delay_s=0.002), "--on-pause", "hold")
    ask(chat)
    chat.wait_for("w10")
    for resumes in range(100):
        so_far = len(chat.output)
        if resumes:
            chat.send_keys("space")
            time.sleep(seeded.uniform(0.01, 0.08))
        chat.send_keys("space")
        chat.wait_for("PAUSED at", since=so_far)
    chat.send_keys("ctrl-d")
    assert chat.wait() == 5
    paused = str(exported(cli)[-1]["content"])
    assert long.startswith(paused)
    assert len(words_of(paused)) > 500
    script(long, delay_s=0)
    assert cli.run("resume").returncode == 0
    assert exported(cli)[-1]["content"] == long


def test_a_limit_pauses_each_reply_and_space_goes_on_to_its_end(
    start: Start, script: Callable[..., str], cli: Cli
) -> None:
    chat = start(script(), "--pause-after", "40")
    for question in ("hello", "again"):
        ask(chat, question)
        chat.wait_for_screen(re.compile("PAUSED at 40 tok"))
        assert f"w{40}" not in words_of("\n".join(chat.screen))
        chat.send(b" ")
        chat.wait_for_screen(re.compile(r"held, exact\s*\n>\s*\Z"))
    assert [message["content"] for message in exported(cli)[1::2]] == [REPLY, REPLY]


@pytest.mark.parametrize("form", [(), ("--plain",)])
def test_a_page_at_a_time_shows_every_line_while_the_model_runs_ahead(
    start: Start, script: Callable[..., str], cli: Cli, form: tuple[str, ...]
) -> None:
    text = "".join(f"w{n} {'and more ' * (n % 9)}\n\n" for n in range(60))
    chat = start(script(text, delay_s=0.001), "--pace", "page", *form, columns=40, rows=14)
    ask(chat)
    chat.wait_for_screen("w0")
    seen, pages = -1, 0
    page = r"\[page; Space goes on\]\s*\Z" if form else "^PAGE"
    while not chat.wait_for_screen(re.compile(rf"{page}|^>\s*\Z", re.MULTILINE)).text.startswith(
        ">"
    ):
        if not form and not pages:
            chat.wait_for_screen("tok waiting")  # the reply is complete; a page of it is shown
        numbers = [int(word[1:]) for word in words_of("\n".join(chat.screen))]
        assert numbers == list(range(numbers[0], numbers[-1] + 1))
        assert numbers[0] <= seen + 1
        seen, pages = numbers[-1], pages + 1
        chat.send(b" ")
        chat.wait_for_screen(re.compile(rf"w{seen + 1}\b|^>\s*\Z", re.MULTILINE))
    assert pages > 10
    chat.send(b"\x04")
    assert chat.wait() == 0
    assert exported(cli)[-1]["content"] == text


@pytest.mark.parametrize("leave", [b"\x03", b"\x04"])
def test_what_was_read_on_at_a_page_is_there_at_once_when_the_reply_goes_on(
    start: Start, script: Callable[..., str], cli: Cli, leave: bytes
) -> None:
    lines = "".join(f"w{n}\n\n" for n in range(60))
    model = script(lines, delay_s=0.05)
    chat = start(model, "--pace", "page", "--plain", columns=60, rows=14)
    ask(chat)
    chat.wait_for_screen("[page; Space goes on]")
    journal = next((cli.data / "journals").glob("*.jsonl"))
    chat.wait_until(lambda: b'"w30' in journal.read_bytes())  # it runs ahead
    chat.send(leave)
    if leave == b"\x04":
        assert chat.wait() == 5
        chat = start(model, "-c", "--pace", "page", "--plain", columns=60, rows=14)
        chat.send(b" ")
    else:
        chat.wait_for_screen(re.compile(r"^> ?\Z", re.MULTILINE))
        chat.send("/resume\r")
    chat.wait_for("(held, exact)]")


def test_a_message_that_begins_with_a_slash_comes_back_as_it_is_typed(
    start: Start, script: Callable[..., str], cli: Cli
) -> None:
    chat = start(script("answer\n"))
    for command in ("/fork", None):
        ask(chat, "//slash text")
        chat.wait_for_screen(re.compile(r"tok ·.*\n>\s*\Z"))
        if command:
            ask(chat, command)
            chat.wait_for_screen(re.compile(r"^> //slash text\s*\Z", re.MULTILINE))
            chat.send(b"\x15")  # it was sent so once, and is again
    chat.send(b"\x04")
    assert chat.wait() == 0
    assert exported(cli)[0]["content"] == "/slash text"


def test_ctrl_c_stops_the_reply_and_resume_goes_on(
    start: Start, script: Callable[..., str], cli: Cli
) -> None:
    chat = start(script(stalls_after=200))
    ask(chat)
    chat.wait_for_screen("w30")
    chat.send_keys("ctrl-c", "ctrl-c", "ctrl-c")
    chat.wait_for_screen("stopped")
    stopped = str(exported(cli)[-1]["content"])
    assert REPLY.startswith(stopped)
    assert stopped
    chat.send("/resume\r")
    chat.wait_for_screen("resumed: replay, exact", timeout_s=20)
    chat.send_keys("ctrl-d")
    assert chat.wait() == 0
    assert exported(cli)[-1]["content"] == REPLY


def test_leaving_a_paused_chat_and_coming_back(
    start: Start, script: Callable[..., str], cli: Cli
) -> None:
    model = script(stalls_after=200)
    chat = start(model)
    ask(chat)
    chat.wait_for_screen("w25")
    chat.send_keys("space")
    chat.wait_for_screen("PAUSED at")
    chat.send_keys("ctrl-d")
    assert chat.wait() == 5
    assert "llmctl chat -c" in text_on(chat)
    again = start(model, "-c")
    again.wait_for_screen("resume goes on from token")
    again.send_keys("space")
    again.wait_for_screen("resumed: replay, exact", timeout_s=20)
    again.send_keys("ctrl-d")
    assert again.wait() == 0
    assert exported(cli)[-1]["content"] == REPLY


def test_a_draft_is_queued_and_sent_when_the_reply_ends(
    start: Start, script: Callable[..., str], cli: Cli
) -> None:
    chat = start(script(" ".join(f"w{n}" for n in range(60)), delay_s=0.01))
    ask(chat, "first")
    chat.wait_for_screen("w5")
    chat.send("second one")
    chat.wait_for_screen("> second one")
    chat.send_keys("enter")
    chat.wait_for_screen("> second one")
    chat.wait_for_screen(re.compile(r"> second one.*tok/s · stop", re.DOTALL), timeout_s=20)
    chat.send_keys("ctrl-d")
    assert chat.wait() == 0
    assert [message["role"] for message in exported(cli)] == ["user", "assistant"] * 2
    assert exported(cli)[2]["content"] == "second one"


def test_steering_keeps_the_reply_where_it_was_paused(
    start: Start, script: Callable[..., str], cli: Cli
) -> None:
    chat = start(script(stalls_after=40, times=2))
    ask(chat, "first")
    chat.wait_for_screen("w15")
    chat.send_keys("space")
    chat.wait_for_screen("PAUSED at")
    chat.send("rather this\r")
    chat.wait_for_screen(re.compile("steered.*> rather this.*w5.*streaming", re.DOTALL))
    chat.send_keys("ctrl-c")
    chat.wait_for_screen("stopped")
    chat.send("/quit\r")
    assert chat.wait() == 0
    first = exported(cli)[1]
    assert (first["status"], first["cause"]) == ("complete", "steered")
    assert REPLY.startswith(str(first["content"]))


def test_escape_sets_the_draft_aside_and_up_brings_it_back(
    start: Start, script: Callable[..., str]
) -> None:
    chat = start(script(stalls_after=40))
    ask(chat)
    chat.wait_for_screen("w5")
    chat.send("precious")
    chat.wait_for_screen("> precious")
    chat.send_keys("esc")
    chat.wait_until(lambda: "> precious" not in "\n".join(chat.screen))
    chat.send_keys("up")
    chat.wait_for_screen("> precious")
    chat.send_keys("ctrl-c")
    chat.wait_for_screen("stopped")
    chat.wait_for_screen(re.compile("^> precious", re.MULTILINE))


def test_a_paste_goes_into_the_draft_whatever_is_in_it(
    start: Start, script: Callable[..., str]
) -> None:
    chat = start(script(stalls_after=40))
    ask(chat)
    chat.wait_for_screen("w5")
    chat.paste("a b\x03\x1a\x04 c")
    chat.wait_for_screen("> a b")
    chat.wait_for_screen("streaming")
    chat.send_keys("ctrl-c")
    chat.wait_for_screen("stopped")


@pytest.mark.parametrize(
    ("sign", "status"), [(signal.SIGTERM, 143), (signal.SIGHUP, 129)], ids=["TERM", "HUP"]
)
def test_signals_keep_the_reply_and_give_the_terminal_back(
    start: Start, script: Callable[..., str], cli: Cli, sign: signal.Signals, status: int
) -> None:
    chat = start(script(stalls_after=200))
    ask(chat)
    chat.wait_for_screen("w20")
    chat.send_signal(sign)
    assert chat.wait() == status
    assert chat.attributes() == chat.attributes_at_start
    kept = exported(cli)[-1]
    assert kept["status"] == "interrupted"
    assert REPLY.startswith(str(kept["content"]))


def test_signals_at_the_prompt_leave(start: Start, script: Callable[..., str]) -> None:
    chat = start(script())
    chat.send_signal(signal.SIGTERM)
    assert chat.wait() == 143
    assert chat.attributes() == chat.attributes_at_start


def test_sigint_is_ctrl_c_also_after_a_prompt_has_returned(
    start: Start, script: Callable[..., str]
) -> None:
    chat = start(script(stalls_after=40))
    ask(chat)
    chat.wait_for_screen("w10")
    chat.send_signal(signal.SIGINT)
    chat.wait_for_screen(STOPPED)
    chat.send("typed")
    chat.wait_for_screen("> typed")
    chat.send_signal(signal.SIGINT)
    chat.wait_for_screen(re.compile("^> ?$", re.MULTILINE))
    chat.send_signal(signal.SIGINT)
    chat.wait_for_screen(LEAVING_HINT)
    interrupt_until_it_leaves(chat)
    assert chat.wait() == 130
    assert chat.attributes() == chat.attributes_at_start


def test_markers_pause_and_ask(start: Start, script: Callable[..., str], cli: Cli) -> None:
    chat = start(script("one two !!PAUSE three four !!ASK five\n", delay_s=0.01))
    ask(chat)
    chat.wait_for_screen("PAUSED by the model")
    chat.send_keys("space")
    chat.wait_for_screen("three four")
    chat.wait_for_screen("type the answer")
    chat.send("my answer\r")
    chat.wait_for_screen("> my answer")
    chat.wait_for_screen("PAUSED by the model")
    chat.send_keys("ctrl-d")
    assert chat.wait() == 5
    assert exported(cli)[1]["content"] == "one two  three four "
    assert "!!" not in text_on(chat)


def test_an_unknown_command_is_not_sent(start: Start, script: Callable[..., str]) -> None:
    chat = start(script(stalls_after=40))
    chat.send("/hepl\r")
    chat.wait_for_screen("did you mean /help?")
    chat.send("//slash\r")
    chat.wait_for_screen("w3")
    chat.send_keys("ctrl-c")
    chat.wait_for_screen("stopped")


def test_plain_output_moves_nothing(start: Start, script: Callable[..., str]) -> None:
    endless = " ".join(f"w{number}" for number in range(8000))
    chat = start(script(endless), "--plain")
    ask(chat)
    begin = chat.wait_for("w0 ").end
    chat.send_keys("space")
    paused = chat.wait_for("paused at")
    chat.send_keys("space")
    end = chat.wait_for(re.compile(r"w\d+ "), since=paused.end).end
    assert b"\x1b[J" not in chat.output[begin:end]


def test_plain_output_says_that_a_reply_is_opened_paused(
    start: Start, script: Callable[..., str]
) -> None:
    chat = start(script(stalls_after=40))
    ask(chat)
    chat.wait_for_screen("w20")
    chat.send_signal(signal.SIGTERM)
    assert chat.wait() == 143
    again = start(script(), "-c", "--plain")
    again.wait_for_screen(re.compile(r"w20(.*\n)*\[paused at \d+ tok\]"))


def test_control_bytes_of_the_model_never_reach_the_terminal(
    start: Start, script: Callable[..., str]
) -> None:
    chat = start(script("a\x1b]52;c;aGk=\x07b\x9b2J\x1b[2Jc\u202edone\n"))
    ask(chat)
    chat.wait_for("done")
    assert b"]52;" in chat.output
    assert b"\x1b]52" not in chat.output
    assert b"\x1b[2J" not in chat.output
    assert "\x9b".encode() not in chat.output
    assert "\u202e".encode() not in chat.output


def test_a_stop_brings_what_was_queued_back_into_the_input(
    start: Start, script: Callable[..., str], cli: Cli
) -> None:
    chat = start(script(stalls_after=40))
    ask(chat, "first")
    chat.wait_for_screen("w5")
    chat.send("second\r")
    chat.wait_for_screen("queued: second")
    chat.send("third")
    chat.wait_for_screen("> third")
    chat.send_keys("ctrl-c")
    chat.wait_for_screen(re.compile("^> second\n\n? *third", re.MULTILINE))
    assert [message["role"] for message in exported(cli)] == ["user", "assistant"]


@pytest.mark.parametrize("leaves", ["ctrl-d", "signal"])
def test_what_was_typed_and_not_sent_is_there_in_the_next_chat(
    start: Start, script: Callable[..., str], leaves: str
) -> None:
    chat = start(script(stalls_after=40))
    ask(chat, "first")
    chat.wait_for_screen("w5")
    chat.send("second\r")
    chat.wait_for_screen("queued: second")
    if leaves == "ctrl-d":
        chat.send_keys("space")
        chat.wait_for_screen("PAUSED")
        chat.send_keys("ctrl-d")
    else:
        chat.send("third")
        chat.wait_for_screen("> third")
        chat.send_signal(signal.SIGTERM)
    chat.wait_for("What was typed and not sent is in the history")
    chat.wait()
    again = start(script(name="again"))
    again.send_keys("up")
    again.wait_for_screen("> second" if leaves == "ctrl-d" else re.compile("> second\n\n? *third"))
    assert ("third" in "".join(again.screen)) is (leaves == "signal")


def test_presses_just_after_a_stop_do_nothing(start: Start, script: Callable[..., str]) -> None:
    for _ in range(5):
        chat = start(script(stalls_after=40))
        ask(chat)
        chat.wait_for_screen("w5")
        stopped_ns = chat.send_keys("ctrl-c")
        chat.wait_until(partial(is_at_prompt, chat))  # as soon as it is
        chat.send_keys("ctrl-c", "ctrl-c", "ctrl-c")
        chat.send("still here")
        seen = chat.wait_for_screen(re.compile("^> still here|Ctrl-C again", re.MULTILINE))
        if seen.at_ns - stopped_ns < STOP_GUARD_S * 1e9:
            break  # else that was not just after it
    assert seen.text == "> still here"
    assert "Ctrl-C again" not in text_on(chat)


def test_a_prompt_stopped_before_its_first_token_comes_back_before_the_draft(
    start: Start, script: Callable[..., str], cli: Cli
) -> None:
    chat = start(script(delay_s=60))
    ask(chat, "first")
    chat.wait_for_screen("waiting for the first token")
    chat.send("next")
    chat.wait_for_screen("> next")
    chat.send_keys("ctrl-c")
    chat.wait_for_screen(re.compile("^> first\n\n? *next", re.MULTILINE))
    assert "/resume" not in text_on(chat)
    assert json.loads(cli.run("conversations", "list", "--json").text) == []


@pytest.mark.parametrize("way", ["key", "TERM"])
def test_a_chat_left_before_the_first_token_can_be_gone_on_with(
    start: Start, script: Callable[..., str], way: str
) -> None:
    chat = start(script(delay_s=60))
    ask(chat, "first")
    chat.wait_for_screen("waiting for the first token")
    if way == "TERM":
        chat.send_signal(signal.SIGTERM)
    else:
        chat.send_keys("space")
        chat.wait_for_screen("PAUSED")
        chat.send_keys("ctrl-d")
    assert chat.wait() == (5 if way == "key" else 143)
    assert "llmctl chat -c" in text_on(chat)
    again = start(script(name="again"), "-c")
    again.wait_for_screen(re.compile("> first.*PAUSED", re.DOTALL))
