"""What replies cost: counted where the back end counted, else an estimate that says so."""

from __future__ import annotations

from pathlib import Path

import pytest

from llmctl.chat.ending import ending, figures
from llmctl.config import parse
from llmctl.conversation import Message, Request
from llmctl.errors import UsageError
from llmctl.events import End, Finished, Position, Timing, Usage
from llmctl.prices import Cost, Prices, cost_of

REQUEST = Request("m", (Message("user", "x" * 399),))
PRICES = Prices(prompt=10.0, completion=100.0)


def finished(usage: Usage | None, tokens: int | None = 50) -> Finished:
    timing = Timing(0.25, 3.0, 1.0, 25.0)
    return Finished(
        generation="g1",
        end=End.COMPLETE,
        resumable=False,
        finish_reason="stop",
        position=Position(200, tokens),
        usage=usage,
        timing=timing,
    )


@pytest.mark.parametrize(
    ("usage", "tokens", "whole", "cost"),
    [
        (Usage(1000, 60, 1060), 50, True, Cost(0.016)),
        (Usage(1000, 60, 1060), 50, False, Cost(0.016, estimated=True)),
        (Usage(1000, 20, 1020), 50, False, Cost(0.015, estimated=True)),
        (None, 50, True, Cost(0.006, estimated=True)),
        (None, None, True, Cost(0.006, estimated=True)),
        (Usage(1000, None, None), 50, True, Cost(0.015, estimated=True)),
    ],
)
def test_costs(usage: Usage | None, tokens: int | None, whole: bool, cost: Cost) -> None:
    found = cost_of(finished(usage, tokens), REQUEST, PRICES, whole=whole)
    assert found.dollars == pytest.approx(cost.dollars)
    assert found.estimated is cost.estimated


def test_prices_come_from_the_configuration_alone() -> None:
    profiles = parse("[profiles.openai]\nprice = [2.5, 10]\n", Path("config.toml"))[1]
    assert profiles["openai"].price == Prices(2.5, 10.0)
    assert {p.price for name, p in profiles.items() if name != "openai"} == {None}
    for wrong in ("[1]", "[1, -2]", '"1,2"', "[1, true]"):
        with pytest.raises(UsageError, match="price must be two numbers"):
            parse(f"[profiles.openai]\nprice = {wrong}\n", Path("config.toml"))


def test_the_end_says_what_is_known_and_no_more() -> None:
    with_cost = ending(finished(None), None, Cost(0.00123, estimated=True))
    assert with_cost == ["· 50 tok · 2.0s · first token 0.2s · 25 tok/s · ~$0.0012 · stop"]
    assert ending(finished(None), None) == ["· 50 tok · 2.0s · first token 0.2s · 25 tok/s · stop"]
    assert figures(finished(Usage(7, 50, 57))) == [
        "50 tok",
        "3.0 s",
        "first token after 0.25 s",
        "25 tok/s",
        "paused for 1.0 s",
        "7 tok read",
        "50 tok written, as the back end counts",
    ]
