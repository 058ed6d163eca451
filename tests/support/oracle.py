"""A language model that is a hash: the reference against which a resume is proved exact.

The next token is a pure function of the *whole* token-id prefix. One wrong, missing or extra token
in a prefix therefore changes everything after it, so ``full == part + resumed`` for every cut is a
proof that no token was lost, repeated or invented. Nothing here does I/O or reads a clock.

Theory of operation
    The prefix is folded into a rolling 16-byte digest, one token at a time. The digest is turned
    into a draw, the draw picks from the tokens that may stand next. ``Rng`` says what else goes
    into the draw:

    ========== ========================================== ===================================
    mode       draw depends on                            same seed again after a resume
    ========== ========================================== ===================================
    pure       prefix                                     same text
    positional prefix, sampling options, seed, position   same text
    stateful   prefix, sampling options, RNG state        *other* text: the RNG starts anew
    ========== ========================================== ===================================

    At temperature 0 every mode is ``pure``, as on a real server.

The vocabulary is made to hurt: ``a``, ``b`` and ``ab`` are all tokens, words carry leading spaces,
some characters exist only as two or three tokens, and any byte can be encoded. A ``canonical``
oracle only emits token sequences that its own tokenizer would produce from the text, so a text
prefix cut at a token boundary loses nothing. With ``canonical=False`` it also emits ``a`` ``b``
where the tokenizer would say ``ab``, and a resume from text drifts, as real ones do.
"""

from __future__ import annotations

import codecs
import hashlib
import itertools
import random
import struct
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import IntEnum, StrEnum

__all__ = [
    "VOCABULARY",
    "Message",
    "Oracle",
    "Plan",
    "Rng",
    "Sampling",
    "Special",
    "StopFilter",
    "Vocabulary",
    "content_before",
    "render",
    "text_of",
]


class Special(IntEnum):
    """Token ids that stand for structure and never for text."""

    EOS = 0
    BOS = 1
    SYSTEM = 2
    DEVELOPER = 3
    USER = 4
    ASSISTANT = 5
    TOOL = 6
    END = 7
    THINK = 8
    THINK_END = 9


class Rng(StrEnum):
    """What a draw depends on besides the prefix."""

    PURE = "pure"
    POSITIONAL = "positional"
    STATEFUL = "stateful"


# Pieces the model may say. Grouped by the hazard they bring.
_MERGES = ("a", "b", "ab", "abab", " a", " ab", "re", " re", "sume", " resume", "s", "ing", "in")
_WORDS = (
    " the", "the", " of", " to", " and", " is", " stream", " token", " pause", " again", " model",
    " never", " lost", " word", " every", " time", " one", " It", "It", " We", "ed", "er",
)  # fmt: skip
_BLANKS = (" ", "  ", "    ", "\n", "\n\n", "\n  ", ".\n\n", "\t")
_SIGNS = (
    ".", ",", "!", "!!", "?", ":", ";", "-", " -", "(", ")", "()", "{", "}", '"', '": ', "[", "]",
    "\\", "/", "<", ">", "<|", "&", "=", " =", "+", "#", "*", "**", "_", "'", "$", "%",
)  # fmt: skip
_DIGITS = ("0", "1", "2", "7", "9", "10", "100", " 42", "3.14")
_WIDE = (
    "世", "界", "你", "好", "。", "日本", "日", "本", "語", "한", "국", "어", "é", "ü", "ß", "Ж",
    "🙂", "👍", "👩", "\u200d", "💻", "\ufe0f", "e\u0301", "न", "म", "العربية",
)  # fmt: skip
# Characters no single token spells: each comes as the tokens listed.
_SPLIT: Mapping[str, tuple[bytes, ...]] = {
    "猫": (b"\xe7\x8c", b"\xab"),
    "犬": (b"\xe7\x8a", b"\xac"),
    "鳥": (b"\xe9", b"\xb3\xa5"),
    "ñ": (b"\xc3", b"\xb1"),
    "🚀": (b"\xf0\x9f", b"\x9a", b"\x80"),
    "🎉": (b"\xf0\x9f", b"\x8e\x89"),
    "🦀": (b"\xf0\x9f", b"\xa6", b"\x80"),
}
_LONGEST_SPLIT = max(len(tokens) for tokens in _SPLIT.values())
# Encodable, never said: a fence in random text would switch marker detection off.
_UNSAID = ("```", "```\n", "```python\n", "`", "<|end|>")


def _said() -> tuple[bytes, ...]:
    words = (*_MERGES, *_WORDS, *_BLANKS, *_SIGNS, *_DIGITS, *_WIDE)
    return tuple(word.encode() for word in words)


class Vocabulary:
    """A byte-complete tokenizer with greedy longest-match encoding."""

    def __init__(self) -> None:
        """Number the specials, then every byte, then the pieces."""
        pieces: list[bytes] = [b""] * len(Special)
        pieces += [bytes([value]) for value in range(256)]
        split = [token for tokens in _SPLIT.values() for token in tokens]
        for piece in (*_said(), *split, *(text.encode() for text in _UNSAID)):
            if piece not in pieces:
                pieces.append(piece)
        self.pieces: tuple[bytes, ...] = tuple(pieces)
        self.ids: dict[bytes, int] = {
            piece: number for number, piece in enumerate(pieces) if number >= len(Special)
        }
        self._longest = max(map(len, pieces))
        self.whole: tuple[int, ...] = tuple(self.ids[piece] for piece in _said())
        self.openers: tuple[int, ...] = tuple(
            dict.fromkeys(self.ids[tokens[0]] for tokens in _SPLIT.values())
        )
        self._follow = self._followers()
        self._extensions: dict[int, tuple[bytes, ...]] = {}

    def __len__(self) -> int:
        """Count the tokens, specials included."""
        return len(self.pieces)

    def encode(self, text: str | bytes) -> list[int]:
        """Return the greedy longest-match tokens of ``text``; specials are never produced."""
        data = text.encode("utf-8", "surrogatepass") if isinstance(text, str) else text
        ids: list[int] = []
        start = 0
        while start < len(data):
            token, size = self._longest_at(data, start)
            ids.append(token)
            start += size
        return ids

    def _longest_at(self, data: bytes, start: int) -> tuple[int, int]:
        for size in range(min(self._longest, len(data) - start), 0, -1):
            token = self.ids.get(data[start : start + size])
            if token is not None:
                return token, size
        raise AssertionError("every single byte is a token")

    def decode(self, ids: Sequence[int]) -> bytes:
        """Return the bytes of ``ids``; specials are skipped."""
        pieces = self.pieces
        return b"".join([pieces[token] for token in ids])

    def followers(self, pending: bytes) -> tuple[int, ...]:
        """Return the tokens that go on with a character of which ``pending`` is the start."""
        return self._follow[pending]

    def clashes(self, left: int, right: int) -> bool:
        """Tell whether the tokenizer might merge ``right`` into ``left``.

        Conservative: it is also true when only a third token would complete the merge.
        """
        after = self.pieces[right]
        return any(
            after.startswith(rest) or rest.startswith(after) for rest in self._rests(left) if after
        )

    def _rests(self, left: int) -> tuple[bytes, ...]:
        if left not in self._extensions:
            stem = self.pieces[left]
            longer = (p for p in self.ids if stem and len(p) > len(stem) and p.startswith(stem))
            self._extensions[left] = tuple(piece[len(stem) :] for piece in longer)
        return self._extensions[left]

    def _followers(self) -> dict[bytes, tuple[int, ...]]:
        follow: dict[bytes, dict[int, None]] = {}
        for tokens in _SPLIT.values():
            for count in range(1, len(tokens)):
                ids = follow.setdefault(b"".join(tokens[:count]), {})
                ids[self.ids[tokens[count]]] = None
        return {pending: tuple(ids) for pending, ids in follow.items()}


VOCABULARY = Vocabulary()


@dataclass(frozen=True, slots=True)
class Sampling:
    """The sampling options of one request; ``seed`` is settled before the run starts."""

    temperature: float = 1.0
    top_p: float = 1.0
    seed: int = 0


@dataclass(frozen=True, slots=True)
class Plan:
    """How long a reply gets and which tokens in it are not left to the hash.

    Positions count content tokens from the start of the reply, so a plan means the same for a
    continuation. ``length`` is exact; without it the reply ends where the hash says so, on average
    after ``eos_every`` tokens. ``inserts`` puts text at a position (a marker, say), ``text`` is the
    whole reply, ``reasoning`` is the number of reasoning tokens before the content.
    """

    length: int | None = None
    eos_every: int = 200
    text: str | None = None
    inserts: Mapping[int, str] = field(default_factory=dict)
    reasoning: int = 0

    def forced(self) -> dict[int, int]:
        """Return the token that must stand at each forced position."""
        chosen: dict[int, int] = {}
        for start, text in {**self.inserts, **({0: self.text} if self.text else {})}.items():
            for offset, token in enumerate(VOCABULARY.encode(text)):
                chosen[start + offset] = token
        return chosen

    def end(self) -> int | None:
        """Return the number of content tokens, or None where the hash decides."""
        return len(VOCABULARY.encode(self.text)) if self.text is not None else self.length


@dataclass(frozen=True, slots=True)
class Message:
    """One chat message as the template sees it."""

    role: str
    content: str
    reasoning: str | None = None


def render(
    messages: Sequence[Message], *, continue_final: bool = False, trim: bool = False
) -> list[int]:
    """Apply the chat template.

    Args:
        messages: The conversation.
        continue_final: Leave the last message open instead of opening a new assistant message.
        trim: Behave like the templates that strip the white space at the end of the last message
            when it is an assistant's: a text prefix then loses it.
    """
    ids: list[int] = [Special.BOS]
    for number, message in enumerate(messages):
        last = number == len(messages) - 1
        strip = trim and last and message.role == "assistant"
        ids += _render_message(message, strip=strip)
        if not (last and continue_final):
            ids.append(Special.END)
    return ids if continue_final else [*ids, Special.ASSISTANT]


def _render_message(message: Message, *, strip: bool) -> list[int]:
    ids: list[int] = [Special[message.role.upper()]]
    if message.reasoning is not None:
        ids += [Special.THINK, *VOCABULARY.encode(message.reasoning)]
        if message.content:
            ids.append(Special.THINK_END)
    content = message.content.rstrip() if strip else message.content
    return ids + VOCABULARY.encode(content)


def text_of(ids: Sequence[int]) -> str:
    """Return the text a server has sent once ``ids`` are sampled.

    A character whose last byte has not come yet is held back, as servers do.
    """
    return codecs.getincrementaldecoder("utf-8")("replace").decode(VOCABULARY.decode(ids))


class _Place:
    """Where in an assistant message a prefix ends: what the next token may be."""

    __slots__ = ("content", "pending", "previous", "reasoning", "thinking")

    def __init__(self, prompt: Sequence[int]) -> None:
        self.content = 0
        self.reasoning = 0
        self.thinking = False
        self.previous: int = Special.ASSISTANT
        self.pending = b""
        opened = 0  # a bare prompt's beginning of text
        if Special.ASSISTANT in prompt:
            opened = len(prompt) - 1 - list(reversed(prompt)).index(Special.ASSISTANT)
        for token in prompt[opened + 1 :]:
            self.step(token)

    def step(self, token: int) -> None:
        """Take one token in."""
        self.previous = token
        if token < len(Special):
            self.thinking = token == Special.THINK
            return
        if self.thinking:
            self.reasoning += 1
        else:
            self.content += 1
        pending = self.pending + VOCABULARY.pieces[token]
        self.pending = pending if pending in VOCABULARY._follow else b""


def content_before(prompt: Sequence[int]) -> int:
    """Return how many content tokens of the open message, or of the bare text, there are."""
    return _Place(prompt).content


class Oracle:
    """The model. Immutable; share one between threads and requests.

    Example:
        >>> oracle = Oracle()
        >>> prompt = render([Message("user", "hello")])
        >>> plan = Plan(length=40)
        >>> full = oracle.reply(prompt, plan=plan)
        >>> all(
        ...     full[:k] + oracle.reply(prompt + full[:k], plan=plan) == full for k in range(41)
        ... )
        True
    """

    def __init__(self, rng: Rng | str = Rng.PURE, *, canonical: bool = True) -> None:
        """Choose what a draw depends on, and whether token sequences are the tokenizer's own."""
        self.rng = Rng(rng)
        self.canonical = canonical
        self._choices: dict[tuple[int, bytes, bool], tuple[int, ...]] = {}

    def reply(
        self,
        prompt: Sequence[int],
        *,
        sampling: Sampling | None = None,
        plan: Plan | None = None,
        max_tokens: int | None = None,
    ) -> list[int]:
        """Return the whole rest of the reply, at most ``max_tokens`` long."""
        ids: list[int] = []
        for token in self.generate(prompt, sampling=sampling, plan=plan):
            if max_tokens is not None and len(ids) >= max_tokens:
                break
            ids.append(token)
        return ids

    def generate(
        self,
        prompt: Sequence[int],
        *,
        sampling: Sampling | None = None,
        plan: Plan | None = None,
    ) -> Iterator[int]:
        """Yield the tokens after ``prompt``: an open assistant message, or a bare text.

        In a bare text positions count from its beginning.

        The end-of-text token ends the iteration and is not yielded.
        """
        plan = plan or Plan()
        place = _Place(prompt)
        draw_from = _drawer(self.rng, sampling or Sampling(), len(prompt))
        digest = _digest(prompt)
        forced = plan.forced()
        end = plan.end()
        narrow = _narrow(forced, end)
        blake2b, step = hashlib.blake2b, place.step
        while True:
            draw = draw_from(digest)
            token = self._special(place, plan, end, digest)
            if token is None:
                token = forced.get(place.content) if not place.thinking else None
            if token is None:
                token = self._pick(place, draw, forced, narrow)
            if token == Special.EOS:
                return
            yield token
            step(token)
            digest = blake2b(digest + token.to_bytes(2, "big"), digest_size=16).digest()

    def _special(self, place: _Place, plan: Plan, end: int | None, digest: bytes) -> int | None:
        if place.pending:
            return None
        if place.thinking:
            return Special.THINK_END if place.reasoning >= plan.reasoning else None
        if plan.reasoning and place.previous == Special.ASSISTANT:
            return Special.THINK
        if end is not None:
            return Special.EOS if place.content >= end else None
        rare = int.from_bytes(digest[8:], "big") % plan.eos_every == 0
        return Special.EOS if rare and place.content else None

    def _pick(
        self, place: _Place, draw: int, forced: Mapping[int, int], narrow: frozenset[int]
    ) -> int:
        position = place.content
        whole_only = position in narrow or place.thinking
        choices = self._allowed(place.previous, place.pending, whole_only)
        after = forced.get(position + 1)
        if after is not None and self.canonical and not place.thinking:
            choices = tuple(c for c in choices if not VOCABULARY.clashes(c, after))
        return choices[draw % len(choices)]

    def _allowed(self, previous: int, pending: bytes, whole_only: bool) -> tuple[int, ...]:
        key = (previous, pending, whole_only)
        found = self._choices.get(key)
        if found is None:
            found = self._choices[key] = self._find_allowed(*key)
        return found

    def _find_allowed(self, previous: int, pending: bytes, whole_only: bool) -> tuple[int, ...]:
        if pending:
            return VOCABULARY.followers(pending)
        tokens = VOCABULARY.whole if whole_only else VOCABULARY.whole + VOCABULARY.openers * 2
        if not self.canonical:
            return tokens
        return tuple(token for token in tokens if not VOCABULARY.clashes(previous, token))


def _narrow(forced: Mapping[int, int], end: int | None) -> frozenset[int]:
    """Return the positions too close to a fixed one for a character of several tokens."""
    starts = {position for position in forced if position - 1 not in forced}
    if end is not None:
        starts.add(end)
    return frozenset(s - back for s in starts for back in range(1, _LONGEST_SPLIT))


def _digest(prompt: Sequence[int]) -> bytes:
    digest = b"oracle".ljust(16, b"\0")
    for token in prompt:
        digest = hashlib.blake2b(digest + token.to_bytes(2, "big"), digest_size=16).digest()
    return digest


def _drawer(rng: Rng, sampling: Sampling, position: int) -> Callable[[bytes], int]:
    """Return the function that turns a prefix's digest into a draw, called once a token."""
    if rng is Rng.PURE or sampling.temperature == 0:
        return lambda digest: int.from_bytes(digest[:8], "big")
    salt = struct.pack(">ddq", sampling.temperature, sampling.top_p, sampling.seed)
    if rng is Rng.STATEFUL:
        state = random.Random(salt)  # noqa: S311  (no secret)
        return lambda digest: int.from_bytes(digest[:8], "big") ^ state.getrandbits(64)
    positions = itertools.count(position)

    def positional(digest: bytes) -> int:
        key = digest + salt + next(positions).to_bytes(8, "big")
        return int.from_bytes(hashlib.blake2b(key, digest_size=8).digest(), "big")

    return positional


class StopFilter:
    """Find stop strings in text that comes in pieces; hold back only what may become one."""

    def __init__(self, stops: Sequence[str]) -> None:
        """Watch for any of ``stops``; the earliest wins."""
        self._stops = tuple(stops)
        self._held = ""

    def feed(self, text: str) -> tuple[str, bool]:
        """Take text in; return what may be sent, and whether a stop string was met."""
        if not self._stops:
            return text, False
        text = self._held + text
        found = [at for at in map(text.find, self._stops) if at >= 0]
        if found:
            self._held = ""
            return text[: min(found)], True
        keep = self._partial(text)
        self._held = text[len(text) - keep :]
        return text[: len(text) - keep], False

    def flush(self) -> str:
        """Return what was held, at the end of the reply."""
        held, self._held = self._held, ""
        return held

    def _partial(self, text: str) -> int:
        longest = max(map(len, self._stops)) - 1
        for size in range(min(longest, len(text)), 0, -1):
            if any(stop.startswith(text[-size:]) for stop in self._stops):
                return size
        return 0
