"""Going on behind token ids: a completion whose prompt is what the model had before it.

The ids of the prompt and of the reply come with the chat stream (``return_token_ids``, as
vLLM has it, and SGLang for completions: ``prompt_token_ids`` on the first chunk, ``token_ids``
on every choice). Put one
behind the other they are a prompt for ``/completions`` that no template and no tokenizer
touches. What is claimed is checked: the ids must spell the reply's text (``/detokenize``),
and the server must say that they are its prompt.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

from llmctl.conversation import Options, Prefix
from llmctl.errors import Refused, StrategyUnavailable


class Asks(Protocol):
    """What the server is asked through."""

    async def ask(self, path: str, body: Mapping[str, Any]) -> object:
        """Return the JSON that answers a body."""


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


async def spelling(client: Asks, model: str, prefix: Prefix) -> tuple[int, ...]:
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


async def _spelled(client: Asks, model: str, ids: tuple[int, ...]) -> str:
    try:
        answer = await client.ask("/detokenize", {"model": model, "tokens": ids})
    except Refused as refusal:
        raise StrategyUnavailable("Nobody can tell what the known ids spell.") from refusal
    told = answer if isinstance(answer, Mapping) else {}
    return str(told.get("prompt") or told.get("text") or "")  # vLLM's word, and SGLang's
