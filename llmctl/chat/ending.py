"""How a reply in a chat ended, in words. Pure."""

from __future__ import annotations

from llmctl.conversation import Options
from llmctl.events import End, Finished, Resumed
from llmctl.prices import Cost
from llmctl.talk import at, penalties_begin_anew

GOES_ON = "/resume goes on, /drop forgets it; a new message keeps it as it is"
"""What a person may do with a reply that was stopped."""


BELOW = "Enter lets the model go on in its own words (best-effort); everything is kept."
"""What a person is asked where nothing goes on as exactly as is wanted."""


def ending(
    finished: Finished,
    resumed: Resumed | None,
    cost: Cost | None = None,
    *,
    options: Options = Options(),  # noqa: B008  (immutable)
) -> list[str]:
    """Return the lines that say how a reply ended, and what it was asked with if that matters."""
    took_s = max(0.0, finished.timing.duration_s - finished.timing.paused_s)
    facts = [at(finished.position), f"{took_s:.1f}s"]
    if finished.timing.first_token_s is not None:
        facts.append(f"first token {finished.timing.first_token_s:.1f}s")
    if finished.timing.tokens_per_s is not None:
        facts.append(f"{finished.timing.tokens_per_s:.0f} tok/s")
    if cost is not None:
        facts.append(str(cost))
    facts.append(_outcome(finished))
    if resumed is not None:
        facts.append(f"resumed: {resumed.strategy}, {resumed.guarantee}")
        if penalties_begin_anew(resumed, options):
            facts.append("penalties begun anew there")
    lines = ["· " + " · ".join(facts)]
    if finished.problem is not None:
        lines.append(f"llmctl: {finished.problem.message}")
        hint = BELOW if finished.end is End.BELOW_REQUIRE else finished.problem.hint
        if hint is not None:
            lines.append(f"hint: {hint}")
    return lines


def figures(finished: Finished) -> list[str]:
    """Return what is known of a reply in figures."""
    timing, usage = finished.timing, finished.usage
    found = [at(finished.position), f"{timing.duration_s:.1f} s"]
    if timing.first_token_s is not None:
        found.append(f"first token after {timing.first_token_s:.2f} s")
    if timing.tokens_per_s is not None:
        found.append(f"{timing.tokens_per_s:.0f} tok/s")
    if timing.paused_s:
        found.append(f"paused for {timing.paused_s:.1f} s")
    if usage is not None and usage.prompt_tokens is not None:
        found.append(f"{usage.prompt_tokens:,} tok read")
    if usage is not None and usage.completion_tokens is not None:
        found.append(f"{usage.completion_tokens:,} tok written, as the back end counts")
    return found


def _outcome(finished: Finished) -> str:
    match finished.end:
        case End.SIGINT:
            return "stopped"
        case End.COMPLETE:
            return finished.finish_reason or "end"
        case end:
            return f"{end.status} ({end.cause})"
