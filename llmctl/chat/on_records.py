"""Slash commands about what was said: branches, copies, files, the search."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import anyio.to_thread

from llmctl.chat.copying import copy
from llmctl.chat.history import History
from llmctl.chat.keyboard import as_typed
from llmctl.chat.parts import OnChat
from llmctl.counts import plural
from llmctl.environment import open_private
from llmctl.errors import UsageError, reason
from llmctl.export import FORMS, exported
from llmctl.extract import code_blocks
from llmctl.replies import content_of

MOST_FOUND = 12
"""Lines of a search's result that are shown."""

CODE = "code"
FORCE = "-f "
_SUFFIXES = {".json": "json", ".jsonl": "jsonl"}


class OnRecords(OnChat):
    """What was said, taken elsewhere."""

    def do_fork(self, argument: str) -> None:
        """Branch off before your last message: /fork [N|REPLY].

        /fork N goes back before your N-th last message and puts it into the input; /fork REPLY
        goes on behind a reply of any branch, by its id ('llmctl conversations show --tree'
        draws them); /fork 0 stands at the end again. Nothing is lost: the old way stays.
        """
        history = self._chat.history
        if argument and not argument.isdecimal():
            history.stand_behind(argument)
            self._chat.desk.say(f"behind {argument}: your next message begins a branch")
            return
        turns = int(argument or 1)
        question = history.rewind(turns)
        if question is None and turns:
            hint = "/fork goes back one."
            raise UsageError(f"There is no message of yours {turns} back.", hint)
        if question is None:
            self._chat.desk.say("at the end of the conversation again")
            return
        self._chat.draft.text = as_typed(question)
        self._chat.desk.say("what you send now begins a branch there; /fork 0 stays where you were")

    async def do_copy(self, argument: str) -> None:
        """Copy the last reply, or its code: /copy [N], /copy code [N].

        N counts from the last: /copy 2 is the reply before it, /copy code the last code
        block of the last reply. The text goes to the terminal's clipboard (through tmux); where
        there is none, into a file that only you can read, which is named.
        """
        what, _, number = argument.rpartition(" ") if argument != CODE else (CODE, "", "")
        if what not in ("", CODE):
            raise UsageError(f"'{argument}' can't be copied.", "/copy N, or /copy code N.")
        text = self._code(number) if what else self._reply(number)
        chat = self._chat
        try:
            said = await anyio.to_thread.run_sync(
                partial(copy, text, chat.env, chat.desk.write, plain=chat.desk.plain)
            )
        except OSError as error:
            hint = "/save FILE writes it into a file."
            raise UsageError(f"It can't be copied: {reason(error)}.", hint) from error
        chat.desk.say(said)

    def do_raw(self, argument: str) -> None:
        """Show the source of the last reply: /raw [N].

        N counts replies from the last.
        """
        self._chat.desk.say(self._reply(argument))

    async def do_save(self, argument: str) -> None:
        """Write the last reply to a file: /save [-f] FILE.

        With -f a file that is there already is replaced.
        """
        await self._write(argument, self._reply(""))

    async def do_export(self, argument: str) -> None:
        """Write or show the conversation: /export [-f] FILE|FORMAT.

        The file's suffix says the format: .json, .jsonl, else Markdown; a format alone
        (markdown, json, jsonl) shows it. Branches are kept. With -f a file is replaced.
        """
        whole = await anyio.to_thread.run_sync(self._chat.history.whole)
        if argument in FORMS:
            self._chat.desk.say(exported(whole, argument))
            return
        form = _SUFFIXES.get(Path(argument).suffix, "markdown")
        await self._write(argument, exported(whole, form))

    async def do_search(self, argument: str) -> None:
        """Find messages by their words: /search WORDS.

        All conversations are looked through; all words must occur, in any case.
        A part of a word will do.
        """
        words = argument.split()
        if not words:
            raise UsageError("What is to be found?", "/search WORDS")
        found = await anyio.to_thread.run_sync(self._chat.history.search, words)
        for one in found[:MOST_FOUND]:
            excerpt = " ".join(one.excerpt.split())
            self._chat.desk.say(f"{one.conversation}  {one.role}: {excerpt}")
        more = len(found) - MOST_FOUND
        if more > 0:
            self._chat.desk.say(f"… and {more} more: 'llmctl conversations search' shows all")
        if not found:
            self._chat.desk.say("nothing has these words")

    # -- inside

    def _reply(self, number: str) -> str:
        return _last(replies(self._chat.history), number, "reply")

    def _code(self, number: str) -> str:
        return _last(code_blocks(self._reply("")), number, "code block")

    async def _write(self, argument: str, text: str) -> None:
        force = argument.startswith(FORCE)
        name = argument.removeprefix(FORCE).strip()
        if not name:
            raise UsageError("Which file?", "Name it behind the command.")
        path = self._chat.env.resolve(name)
        await anyio.to_thread.run_sync(partial(_write_file, path, text, force=force))
        self._chat.desk.say(f"wrote {path}")


def replies(history: History) -> list[str]:
    """Return the replies of a conversation, the unfinished one too, the newest last."""
    found = [message.content for message in history.messages if message.role == "assistant"]
    if history.unfinished is not None:
        found.append(content_of(history.unfinished.recorded)[0])
    return found


def _last(texts: list[str], number: str, noun: str) -> str:
    """Return the last text, or the ``number``-th last.

    Raises:
        UsageError: there are not so many, or it is no number.
    """
    if number and not (number.isdecimal() and int(number)):
        raise UsageError(f"'{number}' is no number.", f"1 is the last {noun}.")
    if len(texts) < int(number or 1):
        only = f"is one {noun}" if len(texts) == 1 else f"are {len(texts) or 'no'} {plural(noun)}"
        hint = f"1 is the last {noun}." if texts else "Type a message."
        raise UsageError(f"There {only}.", hint)
    return texts[-int(number or 1)]


def _write_file(path: Path, text: str, *, force: bool) -> None:
    """Write a file of the person's.

    Raises:
        UsageError: it is there already and may not be replaced, or it can't be written.
    """
    try:
        if path.exists() and not path.is_file():
            raise UsageError(f"{path} is no file.", "Name another one.")
        with open_private(path, "w" if force else "x") as file:
            file.write(text)
    except FileExistsError as error:
        raise UsageError(f"{path} is there already.", "-f before its name replaces it.") from error
    except OSError as error:
        hint = "Name another file."
        raise UsageError(f"{path} can't be written: {reason(error)}.", hint) from error
