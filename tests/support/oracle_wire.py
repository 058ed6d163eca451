"""The chat-completions wire format as the oracle server speaks it: pure, no I/O.

Three parts: what a request may contain (``parse_chat``), how a reply is cut into pieces
(``pieces``), and how pieces become JSON (``Encoder``). Shapes follow the OpenAI API reference for
chat completions and its streaming events; the fields of other servers are allowed by ``Dialect``
and ``Feature`` only.
"""

from __future__ import annotations

import base64
import codecs
import functools
import hashlib
import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import Any, NamedTuple

from tests.support.oracle import VOCABULARY, Message, Sampling, Special, StopFilter

__all__ = [
    "ANTHROPIC_REJECTION",
    "GEMINI_REJECTION",
    "ApiError",
    "ChatRequest",
    "CompletionEncoder",
    "Encoder",
    "Feature",
    "Piece",
    "PieceCutter",
    "Prefill",
    "Rules",
    "parse_chat",
    "parse_completion",
    "picture",
]

Json = dict[str, Any]

ANTHROPIC_REJECTION = (
    "This model does not support assistant message prefill. "
    "The conversation must end with a user message."
)
GEMINI_REJECTION = (
    "Requests ending with a model turn are not supported unless the last part is a "
    "function response."
)
_MISTRAL_REJECTION = (
    "Expected last role User or Tool (or Assistant with prefix True) for serving but got assistant"
)
_BOTH_FLAGS = "Cannot set both `continue_final_message` and `add_generation_prompt` to True."


class Prefill(StrEnum):
    """What a server does with an assistant message at the end of the conversation."""

    CONTINUE = "continue"  # goes on with it, no flag needed
    CONTINUE_FINAL_MESSAGE = "continue_final_message"  # vLLM: only with its two flags
    PREFIX = "prefix"  # DeepSeek, Mistral: only with a flag on the message, else 400
    IGNORED = "ignored"  # OpenAI: a new answer, no error
    REJECTED = "rejected"  # 400


class Feature(StrEnum):
    """What a server can tell about the tokens in a reply."""

    LOGPROBS = "logprobs"
    USAGE = "usage"
    CONTINUOUS_USAGE = "continuous_usage"  # vLLM: stream_options.continuous_usage_stats
    TIMINGS = "timings"  # llama.cpp: timings_per_token
    TOKEN_IDS = "token_ids"  # noqa: S105  (no password; vLLM: return_token_ids)
    REASONING = "reasoning"  # accepts reasoning_content in messages
    NAMED_REASONING = "named_reasoning"  # llama.cpp: and is told which field is gone on with
    RESPONSES = "responses"  # /responses
    COMPLETIONS = "completions"  # /completions behind a text
    TOKEN_PROMPTS = "token_prompts"  # noqa: S105  (vLLM: /completions behind ids, /detokenize)


class ApiError(Exception):
    """An answer in OpenAI's error shape."""

    def __init__(
        self,
        status: int,
        message: str,
        *,
        kind: str = "invalid_request_error",
        param: str | None = None,
        code: str | None = None,
    ) -> None:
        """Keep the five things a client may look at."""
        super().__init__(message)
        self.status = status
        self.body: Json = {
            "error": {"message": message, "type": kind, "param": param, "code": code}
        }


@dataclass(frozen=True, slots=True)
class Rules:
    """Which requests a server takes."""

    prefill: Prefill = Prefill.CONTINUE
    prefix_field: str = "prefix"
    rejection: str = ANTHROPIC_REJECTION
    features: frozenset[Feature] = frozenset({Feature.LOGPROBS, Feature.USAGE})
    strict: bool = True
    models: tuple[str, ...] = ("oracle",)
    seed_field: str = "seed"
    null_bound: bool = True  # a completion's max_tokens may be null, which is no bound (vLLM)


@dataclass(frozen=True, slots=True)
class ChatRequest:
    """A request that was found good."""

    model: str
    messages: tuple[Message, ...]
    continue_final: bool
    stream: bool = False
    max_tokens: int | None = None
    temperature: float = 1.0
    top_p: float = 1.0
    seed: int | None = None
    stops: tuple[str, ...] = ()
    logprobs: bool = False
    top_logprobs: int = 0
    usage: bool = False
    continuous_usage: bool = False
    timings: bool = False
    token_ids: bool = False
    prompt_ids: tuple[int, ...] | None = None  # a completion's
    schema: Json | None = None
    tools: tuple[Json, ...] = ()
    background: bool = False
    store: bool = False

    def sampling(self, spare_seed: int) -> Sampling:
        """Return the sampling options; ``spare_seed`` serves a request without a seed."""
        seed = spare_seed if self.seed is None else self.seed
        return Sampling(self.temperature, self.top_p, seed)


# --- Requests ------------------------------------------------------------------------------------

Check = Callable[[object], bool]


def is_a(*kinds: type) -> Check:
    """Return what finds a value of one of these types good."""
    return lambda value: isinstance(value, kinds) and (bool in kinds or not isinstance(value, bool))


def number_from(low: float, high: float) -> Check:
    """Return what finds a number in a range good."""

    def check(value: object) -> bool:
        plain = isinstance(value, int | float) and not isinstance(value, bool)
        return plain and low <= float(value) <= high  # type: ignore[arg-type]

    return check


def whole_from(low: int, high: int = 2**63 - 1) -> Check:
    """Return what finds a whole number in a range good."""
    return lambda value: type(value) is int and low <= value <= high


def _stop(value: object) -> bool:
    if isinstance(value, str):
        return bool(value)
    many = isinstance(value, list) and 1 <= len(value) <= 4
    return many and all(isinstance(stop, str) and stop for stop in value)  # type: ignore[attr-defined]


_FIELDS: Mapping[str, Check] = {
    "messages": lambda value: isinstance(value, list) and bool(value),
    "model": is_a(str),
    "stream": is_a(bool),
    "stream_options": is_a(dict),
    "max_tokens": whole_from(1),
    "max_completion_tokens": whole_from(1),
    "temperature": number_from(0, 2),
    "top_p": number_from(0, 1),
    "seed": whole_from(-(2**63)),
    "stop": _stop,
    "n": whole_from(1, 1),
    "logprobs": is_a(bool),
    "top_logprobs": whole_from(0, 20),
    "presence_penalty": number_from(-2, 2),
    "frequency_penalty": number_from(-2, 2),
    "logit_bias": is_a(dict),
    "user": is_a(str),
    "response_format": is_a(dict),
    "tools": is_a(list),
    "tool_choice": is_a(str, dict),
    "parallel_tool_calls": is_a(bool),
    "metadata": is_a(dict),
    "store": is_a(bool),
    "service_tier": is_a(str),
    "reasoning_effort": is_a(str),
    "verbosity": is_a(str),
    "safety_identifier": is_a(str),
    "prompt_cache_key": is_a(str),
}
_VLLM_FIELDS: Mapping[str, Check] = {
    "continue_final_message": is_a(bool),
    "add_generation_prompt": is_a(bool),
    "echo": is_a(bool),
}
_LLAMACPP_FIELDS: Mapping[str, Check] = {
    "continue_final_message": is_a(bool, str),
    "add_generation_prompt": is_a(bool),
}
_FEATURE_FIELDS: Mapping[Feature, str] = {
    Feature.TIMINGS: "timings_per_token",
    Feature.TOKEN_IDS: "return_token_ids",
}
_ROLES = frozenset({"system", "developer", "user", "assistant", "tool"})
_MESSAGE_FIELDS = frozenset({"role", "content", "name", "tool_calls", "tool_call_id", "refusal"})


def parse_chat(body: object, rules: Rules) -> ChatRequest:
    """Check a request body and return what it asks for.

    Raises:
        ApiError: If the body is not what ``rules`` allow.
    """
    if not isinstance(body, dict):
        raise ApiError(400, "We could not parse the JSON body of your request.")
    given = {name: value for name, value in body.items() if value is not None}
    _check_fields(given, rules)
    for name in ("model", "messages"):
        if name not in given:
            raise ApiError(400, f"You must provide a {name} parameter.", param=name)
    if given["model"] not in rules.models:
        text = f"The model `{given['model']}` does not exist or you do not have access to it."
        raise ApiError(404, text, code="model_not_found", param="model")
    messages = [_message(m, n, rules) for n, m in enumerate(given["messages"])]
    return _request(given, tuple(messages), _continues(given, rules), rules)


def _ids(value: object) -> bool:
    return isinstance(value, list) and all(
        type(token) is int and 0 <= token < len(VOCABULARY) for token in value
    )


_COMPLETION_ONLY: Mapping[str, Check] = {
    "prompt": lambda value: isinstance(value, str) or _ids(value),
    "top_k": whole_from(-1),
    "min_p": number_from(0, 1),
    "repetition_penalty": number_from(0, 2),
}
_BOTH = (
    "model", "stream", "stream_options", "max_tokens", "temperature", "top_p", "seed", "stop",
    "presence_penalty", "frequency_penalty", "logit_bias", "response_format",
)  # fmt: skip
_COMPLETION_FIELDS = {**{name: _FIELDS[name] for name in _BOTH}, **_COMPLETION_ONLY}
_COMPLETION_BOUND = 16


def parse_completion(body: object, rules: Rules) -> ChatRequest:
    """Check the body of a streamed completion: its prompt is a text or, where allowed, token ids.

    A bound that is left out is 16 tokens; null is none, where it is allowed.

    Raises:
        ApiError: If the body is not what ``rules`` allow.
    """
    if not isinstance(body, dict):
        raise ApiError(400, "We could not parse the JSON body of your request.")
    given = {name: value for name, value in body.items() if value is not None}
    if not rules.null_bound and body.get("max_tokens", _COMPLETION_BOUND) is None:
        raise ApiError(400, "max_tokens: Input should be a valid integer", param="max_tokens")
    told = {_FEATURE_FIELDS[f]: is_a(bool) for f in rules.features if f in _FEATURE_FIELDS}
    check_each(given, {**_COMPLETION_FIELDS, **told}, rules)
    for name in ("model", "prompt", "stream"):
        if not given.get(name):
            raise ApiError(400, f"You must provide a {name} parameter.", param=name)
    if given["model"] not in rules.models:
        raise ApiError(404, f"The model `{given['model']}` does not exist.", param="model")
    bounded = {"max_tokens": _COMPLETION_BOUND, **given}
    request = _request(bounded, (), goes_on=False, rules=rules)
    bound = request.max_tokens if body.get("max_tokens", _COMPLETION_BOUND) else None
    prompt = given["prompt"]
    if isinstance(prompt, str):
        return replace(request, max_tokens=bound, prompt_ids=bare(prompt))
    if Feature.TOKEN_PROMPTS not in rules.features:
        raise ApiError(400, "Invalid type for 'prompt': expected a string.", param="prompt")
    return replace(request, max_tokens=bound, prompt_ids=tuple(prompt))


def bare(text: str) -> tuple[int, ...]:
    """Return the tokens of a prompt that no template touches."""
    return (Special.BOS, *VOCABULARY.encode(text))


def _check_fields(given: Mapping[str, object], rules: Rules) -> None:
    known = {rules.seed_field if name == "seed" else name: c for name, c in _FIELDS.items()}
    if rules.prefill is Prefill.CONTINUE_FINAL_MESSAGE:
        known.update(_VLLM_FIELDS)
    if Feature.NAMED_REASONING in rules.features:
        known.update(_LLAMACPP_FIELDS)
    known.update({_FEATURE_FIELDS[f]: is_a(bool) for f in rules.features if f in _FEATURE_FIELDS})
    check_each(given, known, rules)


def check_each(
    given: Mapping[str, object],
    known: Mapping[str, Check],
    rules: Rules,
    *,
    unknown: str = "Unrecognized request argument supplied: {}",
) -> None:
    """Check names and values of a body's fields.

    Raises:
        ApiError: If one is not known, or not what it has to be.
    """
    for name, value in given.items():
        if name not in known:
            if rules.strict:
                raise ApiError(400, unknown.format(name), code="unknown_parameter", param=name)
        elif not known[name](value):
            text = f"Invalid value for '{name}': {json.dumps(value)[:80]}"
            raise ApiError(400, text, code="invalid_value", param=name)


def _message(value: object, number: int, rules: Rules) -> Message:
    where = f"messages[{number}]"
    if not isinstance(value, dict):
        raise ApiError(400, f"Invalid type for '{where}': expected an object.", param=where)
    if value.get("role") not in _ROLES:
        text = f"Invalid value for '{where}.role': {value.get('role')!r}"
        raise ApiError(400, text, param=f"{where}.role", code="invalid_value")
    allowed = set(_MESSAGE_FIELDS)
    if rules.prefill is Prefill.PREFIX:
        allowed.add(rules.prefix_field)
    if Feature.REASONING in rules.features:
        allowed.add("reasoning_content")
    if rules.strict and (unknown := set(value) - allowed):
        name = min(unknown)
        raise ApiError(400, f"Unrecognized field: {where}.{name}", param=f"{where}.{name}")
    reasoning = value.get("reasoning_content") if "reasoning_content" in allowed else None
    return Message(value["role"], _content(value, where), reasoning)


def _content(message: Mapping[str, object], where: str) -> str:
    content = message.get("content")
    if isinstance(content, str):
        return content
    if content is None and message["role"] == "assistant":
        return ""
    if isinstance(content, list) and content:
        parts = [_part(part, pictures=message["role"] == "user") for part in content]
        if None not in parts:
            return "".join(part for part in parts if part is not None)
    text = f"Invalid type for '{where}.content': expected a string or an array of text parts."
    raise ApiError(400, text, param=f"{where}.content")


def _part(part: object, *, pictures: bool) -> str | None:
    """Return what the model sees of a part of a message; None if it is none."""
    match part:
        case {"type": "text", "text": str(text), **rest} if not rest:
            return text
        case {"type": "image_url", "image_url": {"url": str(url), **more}, **rest}:
            return picture(url) if pictures and not rest and more.keys() <= {"detail"} else None
    return None


_PICTURE = re.compile(r"data:image/(png|jpeg|gif|webp);base64,([A-Za-z0-9+/]+={0,2})")
_SIGNATURES = {"png": b"\x89PNG", "jpeg": b"\xff\xd8\xff", "gif": b"GIF8", "webp": b"RIFF"}


def picture(url: str) -> str | None:
    """Return what the model sees of an image: its hash; None if the URL holds none of its kind."""
    found = _PICTURE.fullmatch(url)
    if found is None:
        return None
    data = base64.b64decode(found[2], validate=True)
    seen = hashlib.sha256(data).hexdigest()[:8]
    return f"[image {seen}]" if data.startswith(_SIGNATURES[found[1]]) else None


def _continues(given: Mapping[str, Any], rules: Rules) -> bool:
    """Tell whether the reply goes on with the last message."""
    trailing: bool = given["messages"][-1]["role"] == "assistant"
    match rules.prefill:
        case Prefill.CONTINUE if trailing and Feature.NAMED_REASONING in rules.features:
            return _continues_llamacpp(given)
        case Prefill.CONTINUE:
            return trailing
        case Prefill.IGNORED:
            return False
        case Prefill.CONTINUE_FINAL_MESSAGE:
            return _continues_vllm(given, trailing=trailing)
        case Prefill.PREFIX:
            if trailing and given["messages"][-1].get(rules.prefix_field) is not True:
                raise ApiError(400, _MISTRAL_REJECTION)
            return trailing
        case Prefill.REJECTED:
            if trailing:
                raise ApiError(400, rules.rejection)
            return False


def _continues_vllm(given: Mapping[str, Any], *, trailing: bool) -> bool:
    goes_on = given.get("continue_final_message", False)
    if goes_on and given.get("add_generation_prompt", True):
        raise ApiError(400, _BOTH_FLAGS, kind="BadRequestError")
    if goes_on and not trailing:
        raise ApiError(400, "The final message is not an assistant message.")
    last = given["messages"][-1]
    if goes_on and last.get("reasoning_content") and not last.get("content"):
        text = "continue_final_message is set but the final message does not appear in the chat."
        raise ApiError(400, text, kind="BadRequestError")
    return bool(goes_on)


def _continues_llamacpp(given: Mapping[str, Any]) -> bool:
    """Go on with the last message; which field of it must be said where it has reasoning."""
    last, named = given["messages"][-1], given.get("continue_final_message")
    if named and given.get("add_generation_prompt", True):
        raise ApiError(400, _BOTH_FLAGS)
    wanted = "content" if last.get("content") else "reasoning_content"
    if last.get("reasoning_content") and named != wanted:
        raise ApiError(400, "Assistant response prefill is incompatible with enable_thinking.")
    return True


def _request(
    given: Mapping[str, Any], messages: tuple[Message, ...], goes_on: bool, rules: Rules
) -> ChatRequest:
    options = _stream_options(given, rules)
    if "max_tokens" in given and "max_completion_tokens" in given:
        raise ApiError(400, "Set either max_tokens or max_completion_tokens, not both.")
    if "top_logprobs" in given and not given.get("logprobs"):
        raise ApiError(400, "top_logprobs needs logprobs to be true.", param="top_logprobs")
    if rules.strict and given.get("logprobs") and Feature.LOGPROBS not in rules.features:
        raise ApiError(400, "logprobs is not supported with this model.", param="logprobs")
    stop = given.get("stop", ())
    return ChatRequest(
        model=given["model"],
        messages=messages,
        continue_final=goes_on,
        stream=given.get("stream", False),
        max_tokens=given.get("max_completion_tokens", given.get("max_tokens")),
        temperature=given.get("temperature", 1.0),
        top_p=given.get("top_p", 1.0),
        seed=given.get(rules.seed_field),
        stops=(stop,) if isinstance(stop, str) else tuple(stop),
        logprobs=given.get("logprobs", False) and Feature.LOGPROBS in rules.features,
        top_logprobs=given.get("top_logprobs", 0),
        usage=options.get("include_usage", False) and Feature.USAGE in rules.features,
        continuous_usage=options.get("continuous_usage_stats", False)
        and Feature.CONTINUOUS_USAGE in rules.features,
        timings=given.get("timings_per_token", False) and Feature.TIMINGS in rules.features,
        token_ids=given.get("return_token_ids", False) and Feature.TOKEN_IDS in rules.features,
        schema=schema_of(given.get("response_format")),
        tools=tuple(given.get("tools", ())),
    )


def schema_of(form: object) -> Json | None:
    """Return the schema that a reply is to satisfy.

    Raises:
        ApiError: If it is asked for in another way than the protocol's.
    """
    match form:
        case None | {"type": "text"}:
            return None
        case {"type": "json_schema", "json_schema": {"name": str(), "schema": dict(schema)}}:
            return schema
        case {"type": "json_schema", "name": str(), "schema": dict(schema)}:  # Responses
            return schema
    raise ApiError(400, "Invalid value for 'response_format'.", param="response_format")


def _stream_options(given: Mapping[str, Any], rules: Rules) -> Mapping[str, bool]:
    options: Mapping[str, bool] = given.get("stream_options", {})
    if options and not given.get("stream") and rules.strict:
        raise ApiError(400, "stream_options needs stream to be true.", param="stream_options")
    known = {"include_usage"}
    if Feature.CONTINUOUS_USAGE in rules.features:
        known.add("continuous_usage_stats")
    for name, value in options.items():
        if rules.strict and name not in known | {"include_obfuscation"}:
            raise ApiError(400, f"Unrecognized field: stream_options.{name}")
        if not isinstance(value, bool):
            raise ApiError(400, f"Invalid type for 'stream_options.{name}': expected a boolean.")
    return options


# --- Replies -------------------------------------------------------------------------------------


class Piece(NamedTuple):
    """What one streamed chunk carries; ``text`` lags behind ``ids`` while bytes are held back."""

    text: str
    ids: tuple[int, ...]
    thinking: bool


@dataclass(slots=True)
class PieceCutter:
    """Cuts a run of tokens into pieces and knows, at the end, why it ended.

    ``sizes`` yields the number of tokens of each piece; a piece never crosses a token count in
    ``edges`` nor the border between reasoning and content. After the iteration ``finish_reason``
    is ``stop`` or ``length``.
    """

    tokens: Iterator[int]
    sizes: Iterator[int]
    max_tokens: int | None = None
    stops: Sequence[str] = ()
    edges: frozenset[int] = frozenset()
    thinking: bool = False
    finish_reason: str = "stop"
    count: int = 0
    _decoder: codecs.IncrementalDecoder = field(
        default_factory=lambda: codecs.getincrementaldecoder("utf-8")("replace")
    )

    def __iter__(self) -> Iterator[Piece]:
        """Yield the pieces."""
        stop_filter = StopFilter(self.stops)
        run = self._one_piece() if self.max_tokens != 0 else iter(())
        for ids, thinking in run:
            text = self._decoder.decode(VOCABULARY.decode(ids))
            if self.stops and not thinking:
                text, stopped = stop_filter.feed(text)
                if stopped:
                    yield Piece(text, ids, thinking)
                    self.finish_reason = "stop"
                    return
            yield Piece(text, ids, thinking)
        if rest := stop_filter.flush():
            yield Piece(rest, (), thinking=False)

    def _one_piece(self) -> Iterator[tuple[tuple[int, ...], bool]]:
        ids: list[int] = []
        want = next(self.sizes)
        for token in self.tokens:
            if token == Special.THINK:
                self.thinking = True
            ids.append(token)
            self.count += 1
            full = self.count == self.max_tokens
            closing = token == Special.THINK_END
            if len(ids) >= want or full or closing or self.stops or self.count in self.edges:
                yield tuple(ids), self.thinking
                ids = []
                want = next(self.sizes)
                self.thinking = self.thinking and not closing
            if full:
                self.finish_reason = "length"
                return
        if ids:
            yield tuple(ids), self.thinking


# --- JSON ----------------------------------------------------------------------------------------


@functools.lru_cache(maxsize=4096)
def _quoted(text: str) -> bytes:
    return json.dumps(text, ensure_ascii=False).encode("utf-8", "surrogatepass")


def _event(value: Json) -> bytes:
    return b"data: " + json.dumps(value, ensure_ascii=False).encode() + b"\n\n"


class Encoder:
    """Turns one reply into server-sent events or one JSON object."""

    DONE = b"data: [DONE]\n\n"
    OBJECT = "chat.completion.chunk"

    def __init__(
        self, request: ChatRequest, *, reply_id: str, created: int, prompt: Sequence[int]
    ) -> None:
        """Prepare the parts that every chunk of this reply shares."""
        self._request = request
        self._prompt = list(prompt)
        self._prompt_tokens = len(prompt)
        self._sent = 0
        self._common: Json = {
            "id": reply_id,
            "created": created,
            "model": request.model,
            "system_fingerprint": "fp_oracle",
        }
        shared = json.dumps({**self._common, "object": "chat.completion.chunk"})[:-1].encode()
        usage = b',"usage":null' if request.usage else b""
        self._head = b"data: " + shared + b',"choices":[{"index":0,"delta":{"'
        self._tail = b'},"logprobs":null,"finish_reason":null}]' + usage + b"}\n\n"
        self._plain = not (
            request.logprobs or request.continuous_usage or request.timings or request.token_ids
        )

    def opening(self) -> bytes:
        """Return the first chunk, which names the role and, if asked, the prompt's tokens."""
        extra: Json = {"prompt_token_ids": self._prompt} if self._request.token_ids else {}
        return self._chunk({"role": "assistant", "content": ""}, extra)

    def piece(self, piece: Piece) -> bytes:
        """Return the chunk for a piece; empty when there is nothing to tell."""
        self._sent += len(piece.ids)
        name = "reasoning_content" if piece.thinking else "content"
        if self._plain:
            if not piece.text:
                return b""
            return self._head + name.encode() + b'":' + _quoted(piece.text) + self._tail
        return self._chunk({name: piece.text}, self._details(piece.ids))

    def text(self, text: str) -> bytes:
        """Return a chunk for text that is no token of this reply (an echoed prefix)."""
        return self._chunk({"content": text}, {})

    def ending(self, finish_reason: str) -> bytes:
        """Return the chunk with the finish reason, then the usage chunk if asked for."""
        data = self._chunk({}, {}, finish_reason)
        if self._request.usage:
            value = {**self._common, "object": self.OBJECT, "choices": []}
            data += _event({**value, "usage": self._usage(self._sent)})
        return data

    def whole(self, pieces: Iterable[Piece], echoed: str, cutter: PieceCutter) -> bytes:
        """Return the unstreamed reply."""
        parts = list(pieces)
        message: Json = {
            "role": "assistant",
            "content": echoed + "".join(p.text for p in parts if not p.thinking),
            "refusal": None,
        }
        if reasoning := "".join(p.text for p in parts if p.thinking):
            message["reasoning_content"] = reasoning
        ids = [token for part in parts for token in part.ids]
        choice: Json = {
            "index": 0,
            "message": message,
            "logprobs": self._logprobs(ids) if self._request.logprobs else None,
            "finish_reason": cutter.finish_reason,
        }
        if self._request.token_ids:
            choice["token_ids"] = ids
        value = {**self._common, "object": "chat.completion", "choices": [choice]}
        return json.dumps({**value, "usage": self._usage(len(ids))}, ensure_ascii=False).encode()

    def _chunk(self, delta: Json, details: Json, finish_reason: str | None = None) -> bytes:
        choice: Json = {
            "index": 0,
            "delta": delta,
            "logprobs": details.pop("logprobs", None),
            "finish_reason": finish_reason,
        }
        if "token_ids" in details:
            choice["token_ids"] = details.pop("token_ids")
        value: Json = {**self._common, "object": "chat.completion.chunk", "choices": [choice]}
        if self._request.continuous_usage:
            value["usage"] = self._usage(self._sent)
        elif self._request.usage:
            value["usage"] = None
        return _event({**value, **details})

    def _details(self, ids: Sequence[int]) -> Json:
        details: Json = {}
        if self._request.logprobs:
            details["logprobs"] = self._logprobs(ids)
        if self._request.token_ids:
            details["token_ids"] = list(ids)
        if self._request.timings:
            details["timings"] = {"prompt_n": self._prompt_tokens, "predicted_n": self._sent}
        return details

    def _logprobs(self, ids: Sequence[int]) -> Json:
        return {"content": [self._logprob(token) for token in ids], "refusal": None}

    def _logprob(self, token: int) -> Json:
        entries = [_logprob_entry(token, rank) for rank in range(self._request.top_logprobs + 1)]
        return {**entries[0], "top_logprobs": entries[: self._request.top_logprobs]}

    def _usage(self, completion: int) -> Json:
        return {
            "prompt_tokens": self._prompt_tokens,
            "completion_tokens": completion,
            "total_tokens": self._prompt_tokens + completion,
        }


class CallEncoder(Encoder):
    """Tells the tokens from ``call_at`` on as the arguments of a call of the first tool."""

    def __init__(self, request: ChatRequest, *, call_at: int, **about: Any) -> None:
        """Know the tool."""
        super().__init__(request, **about)
        self._call_at = call_at
        self._called = False
        self._tool = request.tools[0]["function"]["name"]

    def piece(self, piece: Piece) -> bytes:
        """Return the chunk for a piece of text, or of arguments."""
        if piece.thinking or self._sent < self._call_at:
            return super().piece(piece)
        self._sent += len(piece.ids)
        call: Json = {"index": 0, "function": {"arguments": piece.text}}
        if not self._called:
            call |= {"id": f"call_{self._prompt_tokens}", "type": "function"}
            call["function"] = {"name": self._tool, "arguments": piece.text}
        self._called = True
        return self._chunk({"tool_calls": [call]}, self._details(piece.ids))

    def ending(self, finish_reason: str) -> bytes:
        """Return the end, which a call is."""
        called = self._called and finish_reason == "stop"
        return super().ending("tool_calls" if called else finish_reason)


class CompletionEncoder(Encoder):
    """Turns the tokens behind a bare prompt into server-sent events."""

    OBJECT = "text_completion"

    def opening(self) -> bytes:
        """Return nothing: completions begin with their first text."""
        self._plain = False
        return b""

    def _chunk(self, delta: Json, details: Json, finish_reason: str | None = None) -> bytes:
        choice: Json = {
            "index": 0,
            "text": delta.get("content", ""),
            "logprobs": None,
            "finish_reason": finish_reason,
        }
        if self._request.token_ids:
            choice["token_ids"] = details.get("token_ids", [])
            choice["prompt_token_ids"], self._prompt = self._prompt or None, []
        timings = {name: value for name, value in details.items() if name == "timings"}
        return _event({**self._common, "object": self.OBJECT, "choices": [choice], **timings})


def _logprob_entry(token: int, rank: int) -> Json:
    """Return the token itself (rank 0) or a made-up, ever less likely alternative."""
    first = len(Special)
    other = token if rank == 0 else first + (token + rank) % (len(VOCABULARY) - first)
    data = VOCABULARY.pieces[other]
    text = data.decode("utf-8", "replace")
    return {"token": text, "logprob": -(other % 97) / 97 - rank, "bytes": list(data)}
