"""The Responses wire format as the oracle server speaks it: pure, no I/O.

What a request may contain (``parse_responses``), and the events of a reply (``Events``). Shapes
follow the OpenAI API reference for responses and their streaming events.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from enum import StrEnum
from typing import Any

from tests.support.oracle import Message
from tests.support.oracle_wire import (
    ApiError,
    ChatRequest,
    Check,
    Json,
    Piece,
    Rules,
    check_each,
    is_a,
    number_from,
    picture,
    schema_of,
    whole_from,
)

__all__ = ["Events", "Keeping", "parse_responses"]

SMALLEST_BOUND = 16


class Keeping(StrEnum):
    """What a server does with a response in the background."""

    KEPT = "kept"  # generates it whoever listens, streams it again from any event
    REFUSED = "refused"  # 400
    IGNORED = "ignored"  # takes the field and does nothing about it (llama-server)
    LOST = "lost"  # says that it keeps it, and knows nothing of it afterwards
    TOO_OLD = "too_old"  # keeps it, but streams it no more (OpenAI after five minutes)
    WHOLE = "whole"  # keeps it, and gives it out in one piece whatever is asked (SGLang)
    FROM_START = "from_start"  # streams it again from its beginning, whatever is asked
    WITH_GAP = "with_gap"  # streams it again without the event that was asked for first
    ALTERED = "altered"  # gives out another text than it streamed


_FIELDS: Mapping[str, Check] = {
    "model": is_a(str),
    "input": is_a(str, list),
    "instructions": is_a(str),
    "stream": is_a(bool),
    "stream_options": is_a(dict),
    "background": is_a(bool),
    "store": is_a(bool),
    "max_output_tokens": whole_from(SMALLEST_BOUND),
    "temperature": number_from(0, 2),
    "top_p": number_from(0, 1),
    "text": is_a(dict),
    "reasoning": is_a(dict),
    "include": is_a(list),
    "metadata": is_a(dict),
    "tools": is_a(list),
    "tool_choice": is_a(str, dict),
    "parallel_tool_calls": is_a(bool),
    "max_tool_calls": whole_from(1),
    "previous_response_id": is_a(str),
    "prompt_cache_key": is_a(str),
    "safety_identifier": is_a(str),
    "service_tier": is_a(str),
    "top_logprobs": whole_from(0, 20),
    "truncation": is_a(str),
    "user": is_a(str),
}
_ROLES = {"system", "developer", "user", "assistant"}


def parse_responses(body: object, rules: Rules, keeping: Keeping) -> ChatRequest:
    """Check a request body and return what it asks for.

    Raises:
        ApiError: If the body is not what ``rules`` allow.
    """
    if not isinstance(body, dict):
        raise ApiError(400, "We could not parse the JSON body of your request.")
    given = {name: value for name, value in body.items() if value is not None}
    check_each(given, _FIELDS, rules, unknown="Unknown parameter: '{}'.")
    for name in ("model", "input"):
        if not given.get(name):
            raise ApiError(400, f"Missing required parameter: '{name}'.", param=name)
    if given["model"] not in rules.models:
        text = f"The requested model '{given['model']}' does not exist."
        raise ApiError(400, text, code="model_not_found", param="model")
    background, store = given.get("background", False), given.get("store", True)
    if background and keeping is Keeping.REFUSED:
        raise ApiError(400, "background is not supported.", param="background")
    if background and not store:
        raise ApiError(400, "background=true requires store=true.", param="store")
    heard = tuple(_messages(given["input"]))
    if "instructions" in given:
        heard = (Message("system", given["instructions"]), *heard)
    return ChatRequest(
        model=given["model"],
        messages=heard,
        continue_final=False,
        stream=given.get("stream", False),
        max_tokens=given.get("max_output_tokens"),
        temperature=given.get("temperature", 1.0),
        top_p=given.get("top_p", 1.0),
        schema=schema_of((given.get("text") or {}).get("format")),
        background=background and keeping is not Keeping.IGNORED,
        store=store,
    )


def _messages(input_: str | Sequence[Mapping[str, Any]]) -> Sequence[Message]:
    if isinstance(input_, str):
        return [Message("user", input_)]
    return [_message(value, f"input[{number}]") for number, value in enumerate(input_)]


def _message(value: object, where: str) -> Message:
    match value:
        case {"role": str(role), "content": str(content), **rest}:
            if role in _ROLES and rest.keys() <= {"type"}:
                return Message(role, content)
        case {"role": str(role), "content": [_, *_] as parts, **rest}:
            seen = [_part(part, pictures=role == "user") for part in parts]
            if role in _ROLES and rest.keys() <= {"type"} and None not in seen:
                return Message(role, "".join(part for part in seen if part is not None))
    raise ApiError(400, f"Invalid value: '{where}'.", param=where, code="invalid_value")


def _part(part: object, *, pictures: bool) -> str | None:
    match part:
        case {"type": "input_text" | "output_text", "text": str(text), **rest} if not rest:
            return text
        case {"type": "input_image", "image_url": str(url), **rest}:
            return picture(url) if pictures and rest.keys() <= {"detail"} else None
    return None


class Events:
    """The events of one reply, in order; each knows its own number."""

    def __init__(self, request: ChatRequest, run: str, created: int, prompt_tokens: int) -> None:
        """Prepare what every event of this reply shares."""
        self.status = "queued" if request.background else "in_progress"
        self._request = request
        self._run = run
        self._created = created
        self._prompt_tokens = prompt_tokens
        self._tokens = 0
        self._text = ""
        self._reasoning = ""
        self._why: str | None = None
        self._count = 0

    def opening(self) -> list[bytes]:
        """Return the events before the first text."""
        events = [self._event("response.created", response=self.whole())]
        if self.status == "queued":
            events.append(self._event("response.queued", response=self.whole()))
            self.status = "in_progress"
        part = {"type": "output_text", "text": "", "annotations": []}
        return [
            *events,
            self._event("response.in_progress", response=self.whole()),
            self._event("response.output_item.added", output_index=0, item=self._item()),
            self._event("response.content_part.added", **self._place(), part=part),
        ]

    def piece(self, piece: Piece) -> list[bytes]:
        """Return the event for a piece; none where there is nothing to tell."""
        self._tokens += len(piece.ids)
        if not piece.text:
            return []
        if piece.thinking:
            self._reasoning += piece.text
            kind = "response.reasoning_text.delta"
        else:
            self._text += piece.text
            kind = "response.output_text.delta"
        return [self._event(kind, **self._place(), delta=piece.text)]

    def ending(self, finish_reason: str) -> list[bytes]:
        """Return the events behind the last text."""
        self.status = "incomplete" if finish_reason == "length" else "completed"
        self._why = "max_output_tokens" if finish_reason == "length" else None
        return [
            self._event("response.output_text.done", **self._place(), text=self._text),
            self._event("response.output_item.done", output_index=0, item=self._item()),
            self._event(f"response.{self.status}", response=self.whole()),
        ]

    def whole(self, *, altered: bool = False) -> Json:
        """Return the response as it stands; its output comes with its end."""
        ended = self.status in {"completed", "incomplete"}
        output = [self._item(altered=altered)] if ended else []
        return {
            "id": self._run,
            "object": "response",
            "created_at": self._created,
            "status": self.status,
            "background": self._request.background,
            "store": self._request.store,
            "error": None,
            "incomplete_details": None if self._why is None else {"reason": self._why},
            "model": self._request.model,
            "output": output,
            "usage": self._usage() if ended else None,
        }

    def _item(self, *, altered: bool = False) -> Json:
        text = "?" + self._text if altered else self._text
        part = {"type": "output_text", "text": text, "annotations": []}
        return {
            "id": f"msg_{self._run}",
            "type": "message",
            "status": self.status,
            "role": "assistant",
            "content": [part] if text else [],
        }

    def _place(self) -> Json:
        return {"item_id": f"msg_{self._run}", "output_index": 0, "content_index": 0}

    def _usage(self) -> Json:
        total = self._prompt_tokens + self._tokens
        return {
            "input_tokens": self._prompt_tokens,
            "output_tokens": self._tokens,
            "total_tokens": total,
        }

    def _event(self, kind: str, **fields: object) -> bytes:
        value = {"type": kind, "sequence_number": self._count, **fields}
        self._count += 1
        return f"event: {kind}\ndata: {json.dumps(value, ensure_ascii=False)}\n\n".encode()
