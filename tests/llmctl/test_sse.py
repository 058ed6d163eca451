"""The decoder against the WHATWG's grammar, and against every way to split its input."""

from __future__ import annotations

import doctest
import json
import time
from itertools import pairwise
from types import ModuleType

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llmctl.backends import sse, surrogates
from llmctl.backends.sse import ServerSentEvent, SseDecoder


def decode(*reads: bytes) -> list[ServerSentEvent]:
    decoder = SseDecoder()
    return [event for read in reads for event in decoder.feed(read)]


def data_of(*reads: bytes) -> list[str]:
    return [event.data for event in decode(*reads)]


# The specification's own examples (HTML, section 9.2.6).


def test_one_message_of_three_lines() -> None:
    assert data_of(b"data: YHOO\ndata: +2\ndata: 10\n\n") == ["YHOO\n+2\n10"]


def test_four_blocks_of_which_one_is_a_comment_and_the_last_is_unfinished() -> None:
    stream = (
        b": test stream\n\ndata: first event\nid: 1\n\ndata:second event\nid\n\ndata:  third event"
    )
    assert decode(stream) == [
        ServerSentEvent("first event", id="1"),
        ServerSentEvent("second event", id=""),
    ]
    assert decode(stream, b"\n\n")[-1] == ServerSentEvent(" third event")


def test_data_without_a_value_still_counts_as_a_line() -> None:
    assert data_of(b"data\n\ndata\ndata\n\ndata:") == ["", "\n"]


def test_one_space_behind_the_colon_is_no_difference() -> None:
    assert data_of(b"data:test\n\ndata: test\n\n") == ["test", "test"]


# The rest of the grammar.


def test_event_types_last_for_one_event() -> None:
    events = decode(b"event: add\ndata: 1\n\ndata: 2\n\nevent: gone\n\ndata: 3\n\n")
    assert [(e.type, e.data) for e in events] == [("add", "1"), ("message", "2"), ("message", "3")]


def test_ids_last_until_the_next_and_may_not_have_a_null() -> None:
    events = decode(b"id: a\ndata: 1\n\ndata: 2\n\nid: b\0\ndata: 3\n\n")
    assert [e.id for e in events] == ["a", "a", "a"]


def test_retry_is_digits_or_nothing() -> None:
    decoder = SseDecoder()
    decoder.feed(b"retry: soon\n")
    assert decoder.retry_ms is None
    decoder.feed(b"retry: 1500\n")
    assert decoder.retry_ms == 1500


def test_comments_and_unknown_fields_are_nothing() -> None:
    assert data_of(b": OPENROUTER PROCESSING\n\nfoo: bar\ndata: x\nData: y\n\n") == ["x"]


@pytest.mark.parametrize("bom", [b"\xef\xbb\xbf", b""])
def test_a_byte_order_mark_is_skipped_at_the_start_only(bom: bytes) -> None:
    assert data_of(bom + b"data: a\n\n") == ["a"]
    assert data_of(b"data: a\n\n" + b"\xef\xbb\xbfdata: b\n\n") == ["a"]
    assert data_of(b"\xef\xbb\xbf\xef\xbb\xbfdata: a\n\n") == []


def test_a_carriage_return_dispatches_at_once_and_its_line_feed_later_is_nothing() -> None:
    decoder = SseDecoder()
    assert decoder.feed(b"data: a\r") == []
    assert [e.data for e in decoder.feed(b"\r")] == ["a"]
    assert decoder.feed(b"\ndata: b") == []
    assert [e.data for e in decoder.feed(b"\r\n\r\n")] == ["b"]


def test_other_line_separators_are_text() -> None:
    text = "a\u2028b\u0085c\x0bd\x0ce\x1cf"
    assert data_of(f"data: {text}\n\n".encode()) == [text]


def test_broken_utf8_is_replaced_and_nothing_else_lost() -> None:
    assert data_of(b"data: a\xffb\n\ndata: c\n\n") == ["a\ufffdb", "c"]


# However it is split.

STREAM = (
    b'\xef\xbb\xbf: hello\r\n\r\ndata: {"a": 1}\n\nevent: x\r\ndata: one\r\ndata: two\r\n\r\n'
    + "id: 7\rdata: Grüße 🎉\r\rdata:\n\n: ping\n\ndata: [DONE]\n\n".encode()
)


@pytest.mark.parametrize("newline", [b"\n", b"\r", b"\r\n"])
def test_every_split_into_two_reads(newline: bytes) -> None:
    stream = STREAM.replace(b"\r\n", b"\n").replace(b"\r", b"\n").replace(b"\n", newline)
    whole = decode(stream)
    assert [e.data for e in whole] == ['{"a": 1}', "one\ntwo", "Grüße 🎉", "", "[DONE]"]
    for cut in range(len(stream) + 1):
        assert decode(stream[:cut], stream[cut:]) == whole, cut


def test_one_byte_a_read() -> None:
    assert decode(*(STREAM[i : i + 1] for i in range(len(STREAM)))) == decode(STREAM)


@settings(deadline=None)  # a busy machine is no failure
@given(st.binary(max_size=60), st.lists(st.integers(0, 60), max_size=6))
def test_any_bytes_and_any_cuts(stream: bytes, cuts: list[int]) -> None:
    edges = [0, *sorted(cut for cut in cuts if cut <= len(stream)), len(stream)]
    reads = [stream[a:b] for a, b in pairwise(edges)]
    assert decode(*reads) == decode(stream)


@settings(deadline=None)
@given(st.lists(st.text(alphabet=st.characters(exclude_categories=["Cs"]))))
def test_json_comes_through(texts: list[str]) -> None:
    stream = b"".join(b"data: " + json.dumps(text).encode() + b"\n\n" for text in texts)
    assert [json.loads(data) for data in data_of(stream)] == texts


def test_a_long_line_in_small_reads_takes_linear_time() -> None:
    def seconds(size: int) -> float:
        decoder = SseDecoder()
        began = time.process_time()
        for _ in range(size):
            decoder.feed(b"xxxxxxxx")
        return time.process_time() - began

    seconds(1_000)
    assert seconds(40_000) < 40 * max(seconds(4_000), 1e-4)


@pytest.mark.parametrize("module", [sse, surrogates])
def test_examples(module: ModuleType) -> None:
    failed, tried = doctest.testmod(module)
    assert tried > 0
    assert failed == 0
