import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmctl.durations import parse_duration
from llmctl.errors import UsageError


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("0", 0.0),
        ("7", 7.0),
        ("0.5", 0.5),
        (".5", 0.5),
        ("500ms", 0.5),
        ("90s", 90.0),
        ("5m", 300.0),
        ("1.5m", 90.0),
        ("1h", 3600.0),
        (" 2 H ", 7200.0),
        ("30d", 2592000.0),
    ],
)
def test_what_people_write(text: str, seconds: float) -> None:
    assert parse_duration(text) == pytest.approx(seconds)


@pytest.mark.parametrize(
    "text",
    ["", "-1", "-1s", "nan", "inf", "1e3", "1w", "5 min", "s", "1h30m", "٣s", "9" * 400, "1_000"],
)
def test_what_is_no_duration(text: str) -> None:
    with pytest.raises(UsageError) as caught:
        parse_duration(text)
    assert "500ms" in (caught.value.hint or "")


@given(st.integers(0, 10**9))
def test_milliseconds_and_seconds_agree(number: int) -> None:
    assert parse_duration(f"{number}000ms") == pytest.approx(parse_duration(f"{number}s"))
