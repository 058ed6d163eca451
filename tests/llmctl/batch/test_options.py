"""The options of ``llmctl batch`` that are more than a number."""

from __future__ import annotations

import pytest

from llmctl.cli.batch_parts import failures_of
from llmctl.errors import UsageError


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
