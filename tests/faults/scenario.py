"""What may happen to one reply: a server, what goes wrong with it, and a person's wishes. Pure.

`draw(seed)` makes one up, the same for the same seed. Faults come from two sides: the server's
own count tokens (`oracle_settings.Fault`), those of the network count bytes (`fault_proxy`).
"""

from __future__ import annotations

import random
from dataclasses import dataclass, field, replace
from typing import Any

from llmctl.events import Action
from llmctl.profiles import PrefixDialect, Profile, ReasoningDialect, TokenCounts
from tests.support.fault_proxy import Direction, LinkPlan, Trouble, TroubleKind
from tests.support.oracle_server import Fault, FaultKind, Script, Settings
from tests.support.oracle_wire import Feature, Prefill

LIMIT_S = 0.5
"""Seconds of the time limits that are set: a stall costs as much."""

HEAD = 300
"""Bytes within which the head of an answer lies."""

SLOW_BYTES = 40
"""Bytes that a drip brings at a time, at least: it is slow, and ends."""

WHILE = 0.08
"""Seconds for which the network is gone."""

TOLD = {
    TokenCounts.LOGPROBS: Feature.LOGPROBS,
    TokenCounts.TIMINGS: Feature.TIMINGS,
    TokenCounts.USAGE: Feature.CONTINUOUS_USAGE,
    None: Feature.USAGE,
}
DIALECTS = {
    PrefixDialect.TRAILING_ASSISTANT: Prefill.CONTINUE,
    PrefixDialect.PREFIX_FLAG: Prefill.PREFIX,
    PrefixDialect.CONTINUE_FINAL_MESSAGE: Prefill.CONTINUE_FINAL_MESSAGE,
}
REASONING = {
    PrefixDialect.TRAILING_ASSISTANT: ReasoningDialect.NAMED,
    PrefixDialect.PREFIX_FLAG: ReasoningDialect.FIELD,
    PrefixDialect.CONTINUE_FINAL_MESSAGE: ReasoningDialect.BEHIND,
}


@dataclass(frozen=True, slots=True)
class Share:
    """What one process does with the reply.

    Attributes:
        json: events instead of text.
        full: print what earlier ones printed, too.
        pause_after: content tokens after which it pauses.
        hold: a pause reads on.
        limited: it has time limits.
        total: seconds for all of it.
    """

    json: bool = True
    full: bool = False
    pause_after: int | None = None
    hold: bool = False
    limited: bool = True
    total: float | None = None


@dataclass(frozen=True, slots=True)
class Scenario:
    """One reply and what happens to it.

    Attributes:
        settings: the server.
        known: what the profile says of it.
        scripts: what the server does wrong, request by request.
        plans: what the network does wrong, connection by connection.
        shares: the processes that have a share in the reply, before all is well again.
        markers: what is listened for.
        max_tokens: the bound on the reply.
    """

    seed: int
    settings: Settings
    known: dict[str, Any]
    scripts: tuple[Script, ...] = ()
    plans: tuple[LinkPlan, ...] = ()
    shares: tuple[Share, ...] = (Share(),)
    markers: dict[str, Action] = field(default_factory=dict)
    max_tokens: int | None = None

    def profile(self, base_url: str) -> Profile:
        """Return what is known of the server beforehand."""
        return Profile(name="here", base_url=base_url, **self.known)

    @property
    def goes_on(self) -> bool:
        """Whether the server is known to go on with a reply at every place."""
        return self.known["prefix"] is not None


def draw(seed: int) -> Scenario:
    """Return the scenario of a seed."""
    dice = random.Random(seed)  # noqa: S311  (no secret)
    settings, known = _server(dice)
    inserts: dict[int, str] = {}
    markers: dict[str, Action] = {}
    if dice.random() < 0.25:
        markers = {"!!M": dice.choice(list(Action))}
        inserts = {dice.randrange(settings.length or 1): "!!M"}
    scripts = tuple(_script(dice, settings.length or 1) for _ in range(dice.randint(0, 3)))
    plans = tuple(_plan(dice, settings) for _ in range(dice.randint(0, 4)))
    return Scenario(
        seed,
        settings,
        known,
        tuple(replace(script, inserts=inserts) for script in scripts),
        plans,
        tuple(_share(dice) for _ in range(dice.randint(1, 5))),
        markers,
        dice.randint(4, 30) if dice.random() < 0.15 else None,
    )


def _server(dice: random.Random) -> tuple[Settings, dict[str, Any]]:
    dialect = dice.choice(list(DIALECTS))
    by_ids = dialect is PrefixDialect.CONTINUE_FINAL_MESSAGE and dice.random() < 0.7
    counts = TokenCounts.IDS if by_ids else dice.choice(list(TOLD))
    thinks = REASONING[dialect] is not ReasoningDialect.BEHIND
    named = REASONING[dialect] is ReasoningDialect.NAMED
    told = {Feature.TOKEN_IDS, Feature.TOKEN_PROMPTS} if by_ids else {TOLD[counts]}
    settings = Settings(
        length=dice.choice((3, 10, 30, 60, 120)),
        prefill=DIALECTS[dialect],
        features=tuple(
            sorted({Feature.USAGE, Feature.REASONING, *told, *([Feature.NAMED_REASONING] * named)})
        ),
        reasoning=dice.choice((0, 0, 1, 9)) if thinks else 0,
        echo=dice.random() < 0.15,
        gzip=dice.random() < 0.2,
        http10=dice.random() < 0.15,
        ping_s=dice.choice((None, None, 0.01)),
        send_each=dice.random() < 0.7,
        tokens_per_chunk=dice.choice((1, 1, (1, 5))),
        delay_s=dice.choice((0.0, 0.0, 0.0005)),
        seed=dice.randrange(1000),
    )
    known: dict[str, Any] = {
        "prefix": dialect,
        "prefix_echoed": settings.echo,
        "prefix_keeps_blanks": True,
        "reasoning": REASONING[dialect],
        "token_counts": counts,
        "token_prompts": by_ids,
        "accepts_seed": dice.random() < 0.5,
    }
    return settings, known


def _share(dice: random.Random) -> Share:
    return Share(
        json=dice.random() < 0.7,
        full=dice.random() < 0.1,
        pause_after=dice.randint(1, 25) if dice.random() < 0.4 else None,
        hold=dice.random() < 0.5,
        total=0.02 if dice.random() < 0.1 else None,
    )


_EVENTS = (
    'data: {"choices":[{"index":0,"delta":{"content":"los',
    "data: <html><body>502 Bad Gateway</body></html>",
    "data: {not json",
    "data: []",
    'data: {"error": {"message": "upstream went away", "code": 502}}',
    'data: {"error": "boom"}',
    'event: error\ndata: {"message": "boom"}',
)


def _script(dice: random.Random, length: int) -> Script:
    after = dice.randint(0, length)
    kind = dice.choice(list(FaultKind))
    match kind:
        case FaultKind.HTTP:
            status = dice.choice((429, 500, 502, 503, 529))
            wait = dice.choice((None, "0", "0.03"))
            fault = Fault(kind, status=status, html=dice.random() < 0.5, retry_after=wait)
        case FaultKind.STALL:
            fault = Fault(kind, after, ping_s=dice.choice((None, 0.01)))
        case FaultKind.NO_DONE:
            fault = Fault(kind, None)
        case FaultKind.GARBAGE:
            fault = Fault(kind, after, line=dice.choice(_EVENTS))
        case FaultKind.ERROR_EVENT:
            fault = Fault(kind, after, status=500)
        case _:
            fault = Fault(kind, after, reset=dice.random() < 0.5)
    return Script(fault=fault)


def _plan(dice: random.Random, settings: Settings) -> LinkPlan:
    """Return what happens to a connection: nothing, or one or two troubles."""
    kinds = set(TroubleKind)
    if settings.gzip:  # altered, it may well spell another text
        kinds -= {TroubleKind.GARBAGE, TroubleKind.DUPLICATE}
    chosen = dice.sample(sorted(kinds), dice.choice((0, 1, 1, 1, 2)))
    delay_s = dice.choice((0.0, 0.0, 0.02))
    return LinkPlan(*(_trouble(dice, kind, settings) for kind in chosen), connect_delay_s=delay_s)


def _trouble(dice: random.Random, kind: TroubleKind, settings: Settings) -> Trouble:
    reach = dice.choice((HEAD, HEAD + 200 * (settings.length or 1)))
    ends = {TroubleKind.CUT, TroubleKind.HALF_CLOSE, TroubleKind.STALL}
    up = kind in ends and dice.random() < 0.2
    short = {TroubleKind.STALL: dice.choice((0.02, None)), TroubleKind.OUTAGE: WHILE}
    return Trouble(
        kind,
        after_bytes=dice.randrange(200 if up else reach),
        direction=Direction.UP if up else Direction.DOWN,
        reset=dice.random() < 0.5,
        seconds=short.get(kind, 0.0001),
        size=max(dice.randint(1, 400), SLOW_BYTES if kind is TroubleKind.DRIP else 1),
        data=b"\x00\xff" + dice.randbytes(dice.randint(0, 30)),
    )
