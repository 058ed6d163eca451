"""From the pieces of a streamed reply to the object a server would have sent unstreamed. Pure.

The text of the first choice is the session's business (it removes markers, and has what came
before an interruption); everything else is put together here: further choices, tool calls,
log probabilities, refusals, whatever fields a server adds.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

_SPOKEN = {"content", "reasoning_content", "reasoning", "role"}
_PIECEWISE = {"content", "reasoning_content", "reasoning", "refusal", "arguments", "text"}
_OF_STREAM = {"choices", "usage", "obfuscation", "timings", "prompt_token_ids"}
_OF_CHOICE = {"index", "delta", "message", "text", "logprobs", "finish_reason", "token_ids"}


class Fold:
    """Puts one reply together.

    Attributes:
        finished: choices whose end was told.

    Args:
        ids: token ids are part of it; otherwise they came for our own sake.
    """

    def __init__(self, *, ids: bool = False) -> None:
        self.finished = 0
        self._ids = ids
        self._head: dict[str, Any] = {}
        self._choices: dict[int, dict[str, Any]] = {}
        self._usage: Any = None
        self._whole: dict[str, Any] | None = None
        self._thinks_in = "reasoning_content"  # or ``reasoning``: servers differ

    def add(self, event: Mapping[str, Any]) -> None:
        """Take in one event of the stream."""
        if event.get("usage") is not None:
            self._usage = event["usage"]
        if not self._head:
            self._head = {k: v for k, v in event.items() if k not in _OF_STREAM}
            if self._ids and "prompt_token_ids" in event:
                self._head["prompt_token_ids"] = event["prompt_token_ids"]
        for choice in event.get("choices") or ():
            self._choice(choice)

    def add_whole(self, body: Mapping[str, Any]) -> None:
        """Take the object that the server itself sent at the end."""
        self._whole = dict(body)
        self._usage = body.get("usage") or self._usage

    def as_json(self) -> dict[str, Any]:
        """Return a form that `from_json` reads back."""
        choices = {str(index): choice for index, choice in self._choices.items()}
        return {
            "head": self._head,
            "choices": choices,
            "usage": self._usage,
            "whole": self._whole,
            "thinks_in": self._thinks_in,
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any] | None) -> Fold:
        """Read what `as_json` wrote; None gives an empty one."""
        fold = cls()
        if data is not None:
            fold._head, fold._usage, fold._whole = data["head"], data["usage"], data["whole"]
            fold._thinks_in = data.get("thinks_in", fold._thinks_in)
            fold._choices = {int(index): choice for index, choice in data["choices"].items()}
        return fold

    @property
    def usage(self) -> Mapping[str, Any] | None:
        """The accounting, as the server sent it."""
        return dict(self._usage) if isinstance(self._usage, Mapping) else None

    def body(
        self, content: str, reasoning: str, finish_reason: str | None, usage: object, *, api: str
    ) -> dict[str, Any]:
        """Return the object.

        Args:
            content: the first choice's text.
            reasoning: and what it thought before.
            finish_reason: and its end.
            usage: the accounting of the whole reply.
            api: chat, completions or responses.
        """
        if self._whole is not None:
            return {**self._whole, "usage": usage}
        choices = {0: {}, **self._choices}
        chat = api == "chat"
        made = _chat_choice if chat else _text_choice
        thought = {self._thinks_in: reasoning} if reasoning else {}
        done = [
            made(index, choice, content if not index else None, thought, finish_reason)
            for index, choice in sorted(choices.items())
        ]
        kind = "chat.completion" if chat else "text_completion"
        return {**self._head, "object": kind, "choices": done, "usage": usage}

    def _choice(self, choice: Mapping[str, Any]) -> None:
        index = choice.get("index") or 0
        delta = choice.get("delta") or choice.get("message") or {}
        self.finished += choice.get("finish_reason") is not None
        if delta.get("reasoning") and "reasoning_content" not in delta:
            self._thinks_in = "reasoning"
        logprobs = choice.get("logprobs")
        plain = not (index or self._ids) and logprobs is None and _SPOKEN.issuperset(delta)
        if plain and index in self._choices and not (choice.keys() - _OF_CHOICE):
            return  # the common case: its text is the session's business
        kept = self._choices.setdefault(index, {"message": {}})
        _merge(kept["message"], delta, skip=() if index else _SPOKEN - {"role"})
        if index and "text" in choice:
            _merge(kept, {"text": choice["text"]})
        if self._ids and choice.get("token_ids"):
            _merge(kept, {"token_ids": choice["token_ids"]})
        if logprobs is not None:
            _merge(kept.setdefault("logprobs", {}), logprobs)
        if index and choice.get("finish_reason"):
            kept["finish_reason"] = choice["finish_reason"]
        kept |= {k: v for k, v in choice.items() if k not in _OF_CHOICE}


def _merge(into: dict[str, Any], delta: Mapping[str, Any], *, skip: Iterable[str] = ()) -> None:
    for name, value in delta.items():
        if name in skip:
            continue
        before = into.get(name)
        match value:
            case None:
                into.setdefault(name, None)
            case str() if isinstance(before, str) and name in _PIECEWISE:
                into[name] = before + value
            case list():
                into[name] = _merged_list(before or [], value)
            case dict() if isinstance(before, dict):
                _merge(before, value)
            case _:
                into[name] = value


def _merged_list(before: list[Any], more: list[Any]) -> list[Any]:
    """Append, or merge entries that say which one they continue (tool calls)."""
    if not all(isinstance(entry, dict) and "index" in entry for entry in more):
        return [*before, *more]
    entries = {entry["index"]: entry for entry in before}
    for entry in more:
        _merge(entries.setdefault(entry["index"], {}), entry)
    return [entries[index] for index in sorted(entries)]


def _chat_choice(
    index: int,
    kept: Mapping[str, Any],
    content: str | None,
    thought: Mapping[str, str],
    finish: str | None,
) -> dict[str, Any]:
    message = {"role": "assistant", "content": None, **kept.get("message", {})}
    if "tool_calls" in message:
        message["tool_calls"] = [_without_index(call) for call in message["tool_calls"] or ()]
    if content is not None:
        refusal = message.get("refusal")
        said = "" if content == refusal else content
        mute = "tool_calls" in message or refusal
        message |= {"content": None if mute and not said else said, **thought}
    rest = {k: v for k, v in kept.items() if k != "message"}
    end = rest.pop("finish_reason", finish)
    return {"index": index, "message": message, "logprobs": None, **rest, "finish_reason": end}


def _text_choice(
    index: int,
    kept: Mapping[str, Any],
    content: str | None,
    _: Mapping[str, str],
    finish: str | None,
) -> dict[str, Any]:
    rest = {k: v for k, v in kept.items() if k != "message"}
    text = rest.pop("text", "") if content is None else content
    end = rest.pop("finish_reason", finish)
    return {"index": index, "text": text, "logprobs": None, **rest, "finish_reason": end}


def _without_index(call: Mapping[str, Any]) -> dict[str, Any]:
    return {k: v for k, v in call.items() if k != "index"}
