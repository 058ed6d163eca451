"""What was found, as a table. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence

from tests.exactness.laboratory import Reply
from tests.exactness.trial import Outcome

_GROUPS: tuple[tuple[str, Callable[[Outcome], str]], ...] = (
    ("way", lambda outcome: outcome.way),
    ("kind", lambda outcome: outcome.kind),
    ("turn", lambda outcome: str(outcome.turn)),
    ("temperature", lambda outcome: f"{outcome.temperature:g}"),
)


def summary(outcomes: Sequence[Outcome], replies: Sequence[Reply] = ()) -> str:
    """Return the figures of a run in Markdown."""
    exact = sum(not outcome.problems for outcome in outcomes)
    lines = [f"{exact} of {len(outcomes)} combinations exact", ""]
    for name, group in _GROUPS:
        lines += [*_table(name, group, outcomes), ""]
    lines += [*_strategies(outcomes), ""]
    if replies:
        lines += [*_replies(replies), *_repeats(outcomes)]
    return "\n".join(lines)


def _table(name: str, group: Callable[[Outcome], str], outcomes: Sequence[Outcome]) -> list[str]:
    tried = Counter(group(outcome) for outcome in outcomes)
    exact = Counter(group(outcome) for outcome in outcomes if not outcome.problems)
    rows = [f"| {key} | {exact[key]} of {tried[key]} |" for key in sorted(tried)]
    return [f"| {name} | exact |", "|---|---|", *rows]


def _strategies(outcomes: Sequence[Outcome]) -> list[str]:
    found = Counter(resume for outcome in outcomes for resume in outcome.resumes)
    rows = [f"| {way}, {label} | {count} |" for (way, label), count in sorted(found.items())]
    return ["| resumed by | times |", "|---|---|", *rows]


def _replies(replies: Sequence[Reply]) -> Iterator[str]:
    tried = [reply for reply in replies if reply.repeated is not None]
    yield f"{len(replies)} replies, {sum(r.in_kind for r in replies)} in the kind of text asked for"
    yield f"{sum(bool(r.repeated) for r in tried)} of {len(tried)} repeated when asked for twice"


def _repeats(outcomes: Sequence[Outcome]) -> Iterator[str]:
    killed = [outcome for outcome in outcomes if outcome.way == "kill"]
    twice = [outcome.repeated for outcome in killed if outcome.repeated]
    yield (
        f"{len(twice)} of {len(killed)} hard kills printed a piece again, "
        f"{max(twice, default=0)} characters at most"
    )
    nothing = sum(outcome.cut == 0 for outcome in outcomes)
    yield f"{nothing} replies were interrupted before their first character"
