"""Every reader of foreign bytes takes whatever comes; the long form runs until somebody stops it.

See `tests.fuzz`.
"""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.fuzz.seeds import SEEDS
from tests.fuzz.targets import TARGETS

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=5), inner, max_size=2)
    ),
    max_leaves=3,
)
EDITS = st.lists(
    st.tuples(st.integers(0, 4000), st.integers(0, 20), st.binary(max_size=8)), max_size=4
)


def edited(data: bytes, edits: list[tuple[int, int, bytes]]) -> bytes:
    """Cut pieces out of well-formed bytes and put others in."""
    for at, length, more in edits:
        place = at % (len(data) + 1)
        data = data[:place] + more + data[place + length :]
    return data


def misshaped(data: bytes, line: int, steps: list[int], value: Any) -> bytes:
    """Put another value somewhere into one of the lines of JSON."""
    lines = data.split(b"\n")
    at = line % len(lines)
    try:
        whole = [json.loads(lines[at])]
    except ValueError:
        return data
    holder: Any = whole
    key: Any = 0
    for step in steps:
        inner = holder[key]
        if not isinstance(inner, dict | list) or not inner:
            break
        holder, key = (
            inner,
            (list(inner) if isinstance(inner, dict) else range(len(inner)))[step % len(inner)],
        )
    holder[key] = value
    lines[at] = json.dumps(whole[0]).encode()
    return b"\n".join(lines)


@pytest.mark.parametrize("name", TARGETS)
def test_well_formed_input(name: str) -> None:
    for seed in SEEDS[name]:
        TARGETS[name](seed)


@pytest.mark.parametrize("name", TARGETS)
@given(st.data())
def test_bytes_that_were_changed(name: str, data: st.DataObject) -> None:
    seed = data.draw(st.sampled_from([*SEEDS[name], b""]))
    TARGETS[name](edited(seed, data.draw(EDITS)))


@pytest.mark.parametrize("name", ["error_body", "events", "engine", "batch_line"])
@given(st.data())
def test_values_of_another_shape(name: str, data: st.DataObject) -> None:
    seed = data.draw(st.sampled_from(SEEDS[name]))
    line, steps = data.draw(st.integers(0, 20)), data.draw(st.lists(st.integers(0, 9), max_size=5))
    TARGETS[name](misshaped(seed, line, steps, data.draw(VALUES)))


# What the coverage-guided fuzzer found.


@pytest.mark.parametrize("date", ["1 Oct 4 7:08888888888888888888", "1e999", "nan", "-1"])
def test_a_date_of_no_year_that_there_is(date: str) -> None:
    TARGETS["error_body"](date.encode())


@pytest.mark.parametrize("ids", ["[-1]", "[1e400]", "[1.5]", '"ab"', "[99999999999999999999]"])
def test_ids_of_no_token(ids: str) -> None:
    for name, known in (("events", b'"token_ids": [1]'), ("engine", b'"tokens": [5]')):
        seed = SEEDS[name][0]
        assert known in seed
        TARGETS[name](seed.replace(known, known.partition(b"[")[0] + ids.encode()))


@pytest.mark.parametrize("total", ["-1", "1.5", "1e9", "1000000000000", "true"])
def test_a_total_of_no_reply(total: str) -> None:
    for seed in SEEDS["engine"]:
        assert b'"predicted_n": 1' in seed
        TARGETS["engine"](seed.replace(b'"predicted_n": 1', f'"predicted_n": {total}'.encode()))


def test_an_id_of_no_token_in_a_state() -> None:
    assert b"[5]" in SEEDS["batch_state"][0]
    TARGETS["batch_state"](SEEDS["batch_state"][0].replace(b"[5]", b"[%d]" % 10**30))


@pytest.mark.parametrize("name", [b'"marker":"!!P"', b'"end":1'])
def test_a_marker_record_without_a_part(name: bytes) -> None:
    seed = SEEDS["journal"][1]
    assert name in seed
    TARGETS["journal"](seed.replace(name, name.replace(b'":', b'_":', 1)))


@pytest.mark.parametrize(
    "change",
    [(b'"text":"a"', b'"text":[1]'), (b'"tokens":1', b'"tokens":"1"'), (b"[5]", b"[-1]")],
)
def test_a_chunk_of_other_types(change: tuple[bytes, bytes]) -> None:
    seed = SEEDS["journal"][1]  # of version 1: no checksum forbids it
    assert change[0] in seed
    TARGETS["journal"](seed.replace(*change))


@pytest.mark.parametrize("place", range(3))
def test_a_record_that_is_none_ends_a_journal(place: int) -> None:
    lines = SEEDS["journal"][0].splitlines(keepends=True)
    lines[place] = b"null\n"
    TARGETS["journal"](b"".join(lines))


def test_a_chunk_of_a_negative_size_is_no_chunk() -> None:
    TARGETS["chunked"](b"-6\r\nabc")  # read as a size, it would be read again for ever


@pytest.mark.parametrize(
    "name", ["error_body", "events", "engine", "batch_line", "journal", "batch_state"]
)
def test_nesting_without_end(name: str) -> None:
    TARGETS[name](b'{"type":' * 100_000)
    TARGETS[name](b"[" * 100_000)
