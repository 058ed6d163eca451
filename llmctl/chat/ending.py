"""How a reply in a chat ended, in words. Pure."""

from __future__ import annotations

from llmctl.chat.reply import LiveReply
from llmctl.events import End, Finished
from llmctl.talk import at


def ending(finished: Finished, live: LiveReply) -> list[str]:
    """Return the lines that say how a reply ended."""
    facts = [at(finished.position), f"{finished.timing.duration_s - finished.timing.paused_s:.1f}s"]
    if finished.timing.tokens_per_s is not None:
        facts.append(f"{finished.timing.tokens_per_s:.0f} tok/s")
    facts.append(_outcome(finished))
    if live.resumed is not None:
        facts.append(f"resumed: {live.resumed.strategy}, {live.resumed.guarantee}")
    lines = ["· " + " · ".join(facts)]
    if finished.problem is not None:
        lines.append(f"llmctl: {finished.problem.message}")
        if finished.problem.hint is not None:
            lines.append(f"hint: {finished.problem.hint}")
    if finished.resumable and not live.left:
        lines.append("/resume goes on, /drop forgets it; a new message keeps it as it is")
    return lines


def _outcome(finished: Finished) -> str:
    match finished.end:
        case End.SIGINT:
            return "stopped"
        case End.COMPLETE:
            return finished.finish_reason or "end"
        case end:
            return f"{end.status} ({end.cause})"
