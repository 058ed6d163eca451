"""How a reply in a chat ended, in words. Pure."""

from __future__ import annotations

from llmctl.events import End, Finished, Resumed
from llmctl.talk import at

GOES_ON = "/resume goes on, /drop forgets it; a new message keeps it as it is"
"""What a person may do with a reply that was stopped."""


def ending(finished: Finished, resumed: Resumed | None) -> list[str]:
    """Return the lines that say how a reply ended."""
    facts = [at(finished.position), f"{finished.timing.duration_s - finished.timing.paused_s:.1f}s"]
    if finished.timing.tokens_per_s is not None:
        facts.append(f"{finished.timing.tokens_per_s:.0f} tok/s")
    facts.append(_outcome(finished))
    if resumed is not None:
        facts.append(f"resumed: {resumed.strategy}, {resumed.guarantee}")
    lines = ["· " + " · ".join(facts)]
    if finished.problem is not None:
        lines.append(f"llmctl: {finished.problem.message}")
        if finished.problem.hint is not None:
            lines.append(f"hint: {finished.problem.hint}")
    return lines


def _outcome(finished: Finished) -> str:
    match finished.end:
        case End.SIGINT:
            return "stopped"
        case End.COMPLETE:
            return finished.finish_reason or "end"
        case end:
            return f"{end.status} ({end.cause})"
