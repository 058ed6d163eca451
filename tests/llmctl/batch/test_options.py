"""The options of ``llmctl batch`` that are more than a number."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path

import pytest

from llmctl.batch.job import Job
from llmctl.batch.tally import Tally
from llmctl.cli.batch_parts import failures_of, prices_of
from llmctl.config import Config
from llmctl.errors import UsageError
from llmctl.prices import Prices


@pytest.mark.parametrize(
    ("text", "found"),
    [("0", (0, None)), ("10", (10, None)), ("5%", (None, 0.05)), ("100%", (None, 1.0))],
)
def test_failures_are_a_number_or_a_share(
    text: str, found: tuple[int | None, float | None]
) -> None:
    assert failures_of(text) == found


@pytest.mark.parametrize("text", ["", "%", "-1", "1.5", "inf", "nan", "300%", "-5%", "nan%", "x"])
def test_failures_that_are_neither_are_refused(text: str) -> None:
    with pytest.raises(UsageError, match="--max-failures"):
        failures_of(text)


@pytest.mark.parametrize("text", ["1", "1,2,3", "a,b", "-1,2", "1,-2", "nan,1", "1,inf", "1e400,1"])
def test_prices_are_two_numbers_of_dollars(text: str) -> None:
    with pytest.raises(UsageError, match=r"--price takes IN,OUT") as raised:
        prices_of(text, Config())
    assert "0.5,1.5" in (raised.value.hint or "")


@pytest.mark.parametrize(
    ("option", "field"), [("--rpm", "rpm"), ("--tpm", "tpm"), ("--max-cost", "max_cost")]
)
@pytest.mark.parametrize("value", [0.0, -1.0, math.nan, math.inf])
def test_rates_and_budgets_are_numbers_above_0(option: str, field: str, value: float) -> None:
    job = Job(input=Path("in"), output=Path("out"), prices=Prices(1, 2))
    job = replace(job, **{field: value})  # type: ignore[arg-type]
    with pytest.raises(UsageError, match=f"{option} takes a number above 0, not"):
        job.check()


@pytest.mark.parametrize("prices", [Prices(-1, 2), Prices(1, math.nan)])
def test_prices_of_a_job_are_looked_at_too(prices: Prices) -> None:
    with pytest.raises(UsageError, match="are no prices"):
        Job(input=Path("in"), output=Path("out"), prices=prices).check()


def test_what_is_told_is_json_whatever_it_costs() -> None:
    tally = Tally(units=10**9, prompt_tokens=10**9, prices=Prices(1e308, 1e308))
    json.loads(json.dumps(tally.as_json(), allow_nan=False))
