"""What the replies of a probe say about a server. Pure.

A server that goes on behind a prefix is known by its own words: its first reply, at
temperature 0, is cut in two, and asked to go on behind the first part it must write the
second. One that begins a new message instead writes something else. The cut is best made
inside a word, where no new message would begin by chance, and at the border of two deltas,
which is one of tokens.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import accumulate
from typing import Any

from llmctl.backends.token_counts import Counted, TokenCounter
from llmctl.capabilities import Outcome
from llmctl.conversation import Prefix
from llmctl.profiles import TokenCounts

QUESTION = "Repeat exactly, nothing else: Xylokvarnip zutrembolant quiffendrax ombwicklepash"
"""Words that nobody knows: they are many tokens, and no message begins in the middle of one."""

BLANKS = (" ", "\n\n")
"""What is put behind a prefix to see whether it is counted."""

_ENOUGH = 2
"""Characters that two texts must share before they are taken for the same."""


@dataclass(frozen=True, slots=True)
class Answer:
    """One reply to a probe.

    Attributes:
        deltas: its text as it came.
        told: how it told its tokens.
        prompt_tokens: of the prompt; None where that was not told.
        prompt_ids: of the prompt; None where they were not told.
        ids: of each delta's tokens; None where they were not told.
    """

    deltas: tuple[str, ...]
    told: frozenset[TokenCounts] = frozenset()
    prompt_tokens: int | None = None
    prompt_ids: tuple[int, ...] | None = None
    ids: tuple[tuple[int, ...] | None, ...] = ()

    def beginning(self, text: str) -> Prefix:
        """Return what of it spells ``text``, a whole number of deltas."""
        ends = accumulate(map(len, self.deltas))
        parts = [ids for end, ids in zip(ends, self.ids, strict=True) if end <= len(text)]
        known = None if None in parts else tuple(id_ for ids in parts for id_ in ids or ())
        return Prefix(text, ids=known)

    @property
    def text(self) -> str:
        """All of it."""
        return "".join(self.deltas)


@dataclass(slots=True)
class Listener(TokenCounter):
    """Notes in which ways every delta of a reply told its tokens."""

    heard: set[TokenCounts] = field(default_factory=lambda: set(TokenCounts))

    def count(self, text: str, choice: Mapping[str, Any], chunk: Mapping[str, Any]) -> Counted:
        """Strike out what this delta did not tell; return its ids."""
        if text:
            self.heard &= _told(choice, chunk)
        ids = tuple(choice.get("token_ids") or ())
        return self._from_ids(text, ids) if ids or self._ids else Counted()


def _told(choice: Mapping[str, Any], chunk: Mapping[str, Any]) -> set[TokenCounts]:
    told = {
        TokenCounts.LOGPROBS: (choice.get("logprobs") or {}).get("content"),
        TokenCounts.IDS: choice.get("token_ids"),
        TokenCounts.USAGE: (chunk.get("usage") or {}).get("completion_tokens"),
        TokenCounts.TIMINGS: (chunk.get("timings") or {}).get("predicted_n"),
    }
    return {way for way, value in told.items() if value}


def best_count(told: frozenset[TokenCounts]) -> TokenCounts | None:
    """Return the way to ask for: ids say most, log probabilities cost most."""
    order = (TokenCounts.IDS, TokenCounts.TIMINGS, TokenCounts.USAGE, TokenCounts.LOGPROBS)
    return next((way for way in order if way in told), None)


def cut(deltas: Sequence[str]) -> tuple[str, str] | None:
    """Return a reply's two parts, cut where going on shows best; None if it has no such place."""
    text = "".join(deltas)
    places = [at for at in accumulate(map(len, deltas)) if _is_clean(text[:at], text[at:])]
    if not places:
        return None
    at = max(places, key=lambda at: (_shows(text[:at], text[at:]), -abs(2 * at - len(text))))
    return text[:at], text[at:]


def _is_clean(left: str, right: str) -> bool:
    return left.rstrip() == left != "" and len(right.strip()) >= _ENOUGH


def _shows(left: str, right: str) -> int:
    """Say how unlikely it is that a new message begins with ``right``."""
    if left[-1].isalnum() and right[0].isalnum():
        return 2
    return 1 if right[0].isspace() else 0


def outcome(prefix: str, rest: str, answer: str) -> Outcome:
    """Say what an answer to ``prefix`` is, where ``rest`` would be its continuation."""
    if _same(answer, rest):
        return Outcome.CONTINUES
    if answer.startswith(prefix) and _same(answer.removeprefix(prefix), rest):
        return Outcome.ECHOES
    return Outcome.ANEW


def _same(one: str, other: str) -> bool:
    shared = min(len(one), len(other))
    return shared >= _ENOUGH and one[:shared] == other[:shared]


def is_echo(sent: str, answer: str) -> bool:
    """Say whether a reply of one token repeats ``sent``.

    One that begins a new message with the same words is no longer than their first token.
    """
    return len(answer) > len(sent) and answer.startswith(sent)


def keeps_blanks(bare: Answer, padded: Sequence[Answer | None]) -> bool:
    """Say whether every prefix with blanks at its end made a longer prompt than the bare one."""
    counts = [None if answer is None else answer.prompt_tokens for answer in padded]
    before = bare.prompt_tokens
    return before is not None and all(n is not None and n > before for n in counts)
