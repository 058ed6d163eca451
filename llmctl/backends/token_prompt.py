"""Going on behind token ids: a completion whose prompt is what the model had before it.

The ids of the prompt and of the reply come with the chat stream (``return_token_ids``, as
vLLM has it: ``prompt_token_ids`` on the first chunk, ``token_ids`` on every choice). Put one
behind the other they are a prompt for ``/completions`` that no template and no tokenizer
touches. What is claimed is checked: the ids must spell the reply's text (``/detokenize``),
and the server must say that they are its prompt.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from llmctl.conversation import Options, Prefix, Request
from llmctl.errors import Refused, StrategyUnavailable
from llmctl.profiles import Profile

if TYPE_CHECKING:
    from llmctl.backends.openai_client import OpenAiClient

_SAMPLING = {
    "top_k", "min_p", "typical_p", "presence_penalty", "frequency_penalty", "repetition_penalty",
    "logit_bias", "ignore_eos", "min_tokens", "stop_token_ids",
}  # fmt: skip
"""Fields that mean the same for a completion. Another may change how a reply is parsed."""


def check_options(options: Options) -> None:
    """See that a completion can be asked for with the same options.

    Raises:
        StrategyUnavailable: one shapes the reply by more than the tokens before.
    """
    if options.schema is not None or not options.extra.keys() <= _SAMPLING:
        raise StrategyUnavailable("The request has options that a completion does not take.")


async def spelling(client: OpenAiClient, model: str, prefix: Prefix) -> tuple[int, ...]:
    """Return the ids of a reply's beginning, seen to spell its text.

    A chunk of several tokens may end in the middle of a character, whose text is held back:
    then they spell more than there is.

    Raises:
        StrategyUnavailable: they are not known, spell something else, or nobody can tell.
    """
    if not prefix.ids or prefix.reasoning:
        raise StrategyUnavailable("The ids of the reply's tokens are not all known.")
    if await _spelled(client, model, prefix.ids) != prefix.text:
        raise StrategyUnavailable("The known ids do not spell the reply's text.")
    return prefix.ids


async def _spelled(client: OpenAiClient, model: str, ids: tuple[int, ...]) -> str:
    try:
        answer = await client.ask("/detokenize", {"model": model, "tokens": ids})
    except Refused as refusal:
        raise StrategyUnavailable("Nobody can tell what the known ids spell.") from refusal
    return str(answer.get("prompt", "")) if isinstance(answer, Mapping) else ""


def completion_body(profile: Profile, request: Request, ids: tuple[int, ...]) -> dict[str, Any]:
    """Return the body that asks for what follows ``ids``.

    Without a bound the field is null: left out it would mean 16.
    """
    options = request.options
    chosen = {
        "temperature": options.temperature,
        "top_p": options.top_p,
        "seed": options.seed,
        "stop": list(options.stop) or None,
    }
    usage = {"stream_options": {"include_usage": True}} if profile.usage_in_stream else {}
    return {
        "model": request.model,
        "prompt": ids,
        "max_tokens": options.max_tokens,
        "stream": True,
        "return_token_ids": True,
        **usage,
        **{name: value for name, value in chosen.items() if value is not None},
        **options.extra,
    }
