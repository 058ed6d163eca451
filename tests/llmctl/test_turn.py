"""One reply: every cut, every chunking, every way of telling tokens.

The reference is written down the long way: which characters of the model's text are
content, and which tokens lie wholly behind a place and have a character that is.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from llmctl.events import (
    Action,
    Channel,
    Chunk,
    Delta,
    End,
    MarkerFound,
    Mode,
    Paused,
    PauseReason,
)
from llmctl.markers import Marker, MarkerScanner
from llmctl.turn import TRANSITIONS, Control, Mark, Phase, Turn

MARKERS = {"!!P": Action.PAUSE, "!!PX": Action.ASK}
FORMS = ("ends", "count", "unknown")


def chunked(tokens: Sequence[str], cuts: Iterable[int], forms: Sequence[str]) -> list[Chunk]:
    """Cut the text of ``tokens`` into chunks that tell their tokens in the given forms."""
    text = "".join(tokens)
    ends = list(itertools.accumulate(map(len, tokens)))
    edges = sorted({0, *(cut for cut in cuts if 0 < cut < len(text)), len(text)})
    chunks = []
    for n, (a, b) in enumerate(itertools.pairwise(edges)):
        here = tuple(end - a for end in ends if a < end <= b)
        form = forms[n % len(forms)]
        chunks.append(
            Chunk(
                text[a:b],
                tokens=None if form == "unknown" else len(here),
                ends=here if form == "ends" else None,
            )
        )
    return [*chunks, Chunk(finish_reason="stop")]


@dataclass
class Reader:
    """Takes what a turn delivers; may stop after so many characters, as a reader that leaves."""

    limit: int | None = None
    text: str = ""
    markers: list[tuple[str, int]] = field(default_factory=list)
    marks: list[Mark] = field(default_factory=list)
    mark: Mark = field(default_factory=Mark)
    full: bool = False

    def read(self, turn: Turn) -> None:
        """Deliver all there is; a pause is gone on with at once."""
        before = turn.mark
        while not self.full and (events := turn.deliver()):
            for event in events:
                self._take(event, before, turn.mark)
            before = turn.mark
            turn.resume()

    def _take(self, event: Delta | MarkerFound | Paused, before: Mark, mark: Mark) -> None:
        if isinstance(event, Delta):
            room = len(event.text) if self.limit is None else self.limit - len(self.text)
            missing = max(0, len(event.text) - room)
            self.text += event.text[: len(event.text) - missing]
            self.full = missing > 0 or (self.limit is not None and len(self.text) == self.limit)
            mark = mark.short_of(before, missing) if missing < len(event.text) else before
        elif isinstance(event, MarkerFound):
            self.markers.append((event.marker, mark.model))
        self.mark = mark
        self.marks.append(mark)


def deliver(chunks: Sequence[Chunk], turn: Turn, reader: Reader) -> Reader:
    reader.mark = turn.mark
    for chunk in chunks:
        turn.receive(chunk)
        reader.read(turn)
    return reader


def markers_in(text: str) -> list[tuple[int, int]]:
    scanner = MarkerScanner(MARKERS)
    items = [*scanner.feed(text), *scanner.finish()]
    return [(i.end - len(i.marker), i.end) for i in items if isinstance(i, Marker)]


def check(mark: Mark, tokens: Sequence[str]) -> None:
    """A mark says the truth, as far as it says anything."""
    text = "".join(tokens)
    spans = markers_in(text)
    content = [n for n in range(len(text)) if not any(a <= n < b for a, b in spans)]
    assert mark.chars == sum(1 for n in content if n < mark.model)
    starts = [0, *itertools.accumulate(map(len, tokens))]
    behind = sum(
        1
        for a, b in itertools.pairwise(starts)
        if b <= mark.model and any(n in content for n in range(a, b))
    )
    assert mark.position.tokens in {None, behind}


TOKENS = st.lists(
    st.sampled_from(["a", "b ", "!", "!!", "P", "!!P", "PX", "x!!P", "P y", "X", " !!PX", "cd"]),
    min_size=1,
    max_size=8,
)
CUTS = st.lists(st.integers(0, 24), max_size=6)
KINDS = st.lists(st.sampled_from(FORMS), min_size=1, max_size=4)


@given(TOKENS, CUTS, KINDS, st.integers(0, 24), st.integers(0, 8))
@example(["x!!P", "P y", "X"], [3], ["ends"], 1, 8)
@example(["b ", "!!P!", "!PX"], [], ["ends"], 2, 1)
@example(["a", "b !!P!!P", "a"], [], ["count"], 2, 2)
def test_cut_and_gone_on_with_is_the_uninterrupted_reply(
    tokens: list[str], cuts: list[int], forms: list[str], limit: int, received: int
) -> None:
    chunks = chunked(tokens, cuts, forms)
    whole = deliver(chunks, Turn(MARKERS), Reader())
    first = deliver(chunks[: received + 1], Turn(MARKERS), Reader(limit=max(1, limit)))
    rest = deliver(chunks, Turn(MARKERS, mark=first.mark), Reader())
    assert first.text + rest.text == whole.text
    assert first.markers + rest.markers == whole.markers
    for mark in (*whole.marks, *first.marks, *rest.marks, rest.mark):
        check(mark, tokens)
    assert rest.mark.chars == len(whole.text)


@given(TOKENS, CUTS, st.integers(1, 24))
def test_a_count_is_known_wherever_every_token_is_told(
    tokens: list[str], cuts: list[int], limit: int
) -> None:
    """With every end told, the number is lost in no place (but one: see `_one_token`)."""
    chunks = chunked(tokens, cuts, ["ends"])
    whole = deliver(chunks, Turn(MARKERS), Reader(limit=limit))
    assert all(mark.tokens is not None for mark in whole.marks)
    text = "".join(tokens)
    if not markers_in(text):
        rest = deliver(chunks, Turn(MARKERS, mark=whole.mark), Reader())
        assert rest.mark.position.tokens == len(tokens)


def test_a_lost_count_stays_lost() -> None:
    """Three tokens with a marker among them: how many of them are content nobody knows."""
    chunk = Chunk("ab!!Pcd", tokens=3)
    turn = Turn(MARKERS)
    turn.receive(chunk)
    while turn.phase is Phase.STREAMING:
        turn.deliver()
    again = Turn(MARKERS, mark=turn.mark)
    again.receive(chunk)
    (delta,) = again.deliver()
    assert isinstance(delta, Delta)
    assert (delta.text, delta.position.tokens) == ("cd", None)


def test_bytes_of_a_character_count_where_it_appears() -> None:
    turn = Turn({})
    for chunk in (
        Chunk("", tokens=1, ends=()),
        Chunk("", tokens=1, ends=()),
        Chunk("猫 a", tokens=2, ends=(1, 3)),
    ):
        turn.receive(chunk)
    turn.deliver()
    assert turn.position.tokens == 4


@pytest.mark.parametrize("phase", Phase)
@pytest.mark.parametrize("control", Control)
def test_the_table_is_total(phase: Phase, control: Control) -> None:
    turn = Turn({})
    if phase is not Phase.STREAMING:
        turn.pause(PauseReason.KEY)
    if phase is Phase.ENDED:
        turn.stop(End.SIGINT)
    match control:
        case Control.PAUSE:
            changed = turn.pause(PauseReason.KEY, Mode.CUT) is not None
        case Control.RESUME:
            changed = turn.resume()
        case Control.STOP:
            changed = turn.stop(End.SIGTERM)
    assert changed == ((phase, control) in TRANSITIONS)
    assert turn.phase == TRANSITIONS.get((phase, control), phase)
    assert turn.end == {Phase.ENDED: End.SIGINT}.get(
        phase, End.SIGTERM if changed and control is Control.STOP else None
    )


def test_nothing_is_delivered_while_paused_and_nothing_is_lost() -> None:
    turn = Turn({})
    turn.pause(PauseReason.KEY)
    turn.receive(Chunk("one ", tokens=1, ends=(4,)))
    turn.receive(Chunk("two", tokens=1, ends=(3,)))
    assert turn.deliver() == []
    assert (turn.waiting, turn.position.chars) == (7, 0)
    turn.resume()
    assert [
        event.text for _ in range(2) for event in turn.deliver() if isinstance(event, Delta)
    ] == [
        "one ",
        "two",
    ]
    assert turn.waiting == 0


def test_what_the_scanner_holds_back_does_not_wait() -> None:
    turn = Turn(MARKERS)
    turn.receive(Chunk("a!!", tokens=1))
    turn.deliver()
    assert turn.waiting == 0


# Limits.


def limited(chunks: Sequence[Chunk], after: int, markers: dict[str, Action] | None = None) -> Turn:
    turn = Turn(markers or {}, mode=Mode.CUT, pause_after=after)
    for chunk in chunks:
        turn.receive(chunk)
    while turn.phase is Phase.STREAMING and turn.deliver():
        pass
    return turn


def test_a_limit_in_the_middle_of_a_chunk_keeps_the_rest() -> None:
    chunks = [Chunk("a b c d", tokens=4, ends=(1, 3, 5, 7))]
    turn = limited(chunks, 2)
    assert (turn.phase, turn.position.chars, turn.position.tokens) == (Phase.PAUSED, 3, 2)
    rest = deliver(chunks, Turn({}, mark=turn.mark), Reader())
    assert rest.text == " c d"
    assert rest.mark.position.tokens == 4


def test_a_limit_counts_deltas_where_tokens_are_not_told() -> None:
    turn = limited([Chunk("one two ", tokens=None), Chunk("three", tokens=None)], 1)
    assert (turn.phase, turn.position.chars, turn.position.tokens) == (Phase.PAUSED, 8, None)


def test_a_limit_is_at_or_behind_the_next_known_boundary() -> None:
    turn = limited([Chunk("one two three ", tokens=3), Chunk("four", tokens=1)], 2)
    assert (turn.phase, turn.position.chars, turn.position.tokens) == (Phase.PAUSED, 14, 3)


def test_an_end_at_the_limit_wins() -> None:
    turn = limited(chunked(["a", " b"], [1], ["ends"]), 2)
    assert turn.phase is Phase.STREAMING or turn.end is End.COMPLETE
    assert turn.end is End.COMPLETE


@pytest.mark.parametrize("cuts", [(), (2,), (3,), (4,), (2, 3, 4)])
def test_a_marker_at_the_limit_wins(cuts: tuple[int, ...]) -> None:
    turn = limited(chunked(["a", " ", "!!P", "c"], cuts, ["ends"]), 2, MARKERS)
    assert turn.position.chars == 2
    assert turn.mark.model == 5
    again = Turn({}, mark=turn.mark, pause_after=1)
    assert deliver(chunked(["a", " ", "!!P", "c"], cuts, ["ends"]), again, Reader()).text == "c"


def test_a_limit_is_counted_from_where_this_process_began() -> None:
    chunks = chunked(["a", "b", "c", "d", "e"], range(5), ["ends"])
    first = limited(chunks, 2)
    second = Turn({}, mark=first.mark, pause_after=2)
    for chunk in chunks:
        second.receive(chunk)
    while second.phase is Phase.STREAMING and second.deliver():
        pass
    assert second.position.tokens == 4


# Ends.


@pytest.mark.parametrize(
    ("last", "end", "told"),
    [
        (Chunk(finish_reason="stop"), End.COMPLETE, ["a", "!!"]),
        (Chunk(finish_reason="length"), End.TOKEN_LIMIT, ["a"]),  # "P" may follow
        (Chunk(finish_reason="length", context_full=True), End.CONTEXT_FULL, ["a", "!!"]),
    ],
)
def test_an_end_comes_behind_the_last_character(last: Chunk, end: End, told: list[str]) -> None:
    turn = Turn(MARKERS)
    turn.receive(Chunk("a!!", tokens=1))
    turn.receive(last)
    texts = []
    while events := turn.deliver():
        texts += [event.text for event in events if isinstance(event, Delta)]
    assert (texts, turn.end) == (told, end)


def test_a_marker_is_found_across_a_token_limit() -> None:
    chunks = [Chunk("a!!", tokens=1), Chunk("P b", tokens=1), Chunk(finish_reason="stop")]
    first = deliver([chunks[0], Chunk(finish_reason="length")], Turn(MARKERS), Reader())
    rest = deliver(chunks, Turn(MARKERS, mark=first.mark), Reader())
    assert (first.text, rest.text) == ("a", " b")
    assert rest.markers == [("!!P", 4)]


def test_a_stop_marker_ends_the_reply_and_drops_the_rest() -> None:
    turn = Turn({"!!S": Action.STOP})
    turn.receive(Chunk("a!!Sb", tokens=1))
    events = [*turn.deliver(), *turn.deliver()]
    assert [type(event) for event in events] == [Delta, MarkerFound]
    assert (turn.end, turn.deliver()) == (End.STOPPED_BY_MARKER, [])


def test_reasoning_is_delivered_apart_and_not_twice() -> None:
    chunks = [Chunk("hm ", Channel.REASONING), Chunk("!!P", Channel.REASONING), Chunk("a")]
    turn = Turn(MARKERS)
    for chunk in chunks:
        turn.receive(chunk)
    first = turn.deliver()
    assert first == [Delta(Channel.REASONING, "hm ", turn.position)]
    again = Turn(MARKERS, mark=turn.mark)
    for chunk in chunks:
        again.receive(chunk)
    texts = [event.text for _ in range(3) for event in again.deliver() if isinstance(event, Delta)]
    assert texts == ["!!P", "a"]


# Tokens that end in the middle of a character.


def counted(*chunks: Chunk) -> list[int | None]:
    """Return the number of tokens at each delta, with every chunk delivered as it comes."""
    turn, found = Turn({}), list[int | None]()
    for chunk in chunks:
        turn.receive(chunk)
        found += [event.position.tokens for event in turn.deliver() if isinstance(event, Delta)]
    return found


def test_the_last_of_several_tokens_may_be_half_a_character() -> None:
    """Three tokens came with "ab": the third may be the first half of the cat."""
    several = Chunk("ab", tokens=3)
    assert counted(several, Chunk("猫", tokens=1, ends=(1,))) == [None, 4]
    assert counted(several, Chunk("c", tokens=1, ends=(1,))) == [None, 4]
    turn = Turn({})
    turn.receive(several)
    turn.receive(Chunk("c", tokens=1, ends=(1,)))
    turn.deliver()
    assert turn.position.tokens == 3  # a character of one byte has no half before it
    assert counted(Chunk("ab", tokens=3, ends=(1, 1, 2)), Chunk("猫", tokens=2)) == [3, None]


@pytest.mark.parametrize(
    ("reason", "end", "tokens"),
    [("stop", End.COMPLETE, 3), ("length", End.TOKEN_LIMIT, None)],
)
def test_the_end_of_the_reply_settles_it_unless_a_bound_made_it(
    reason: str, end: End, tokens: int | None
) -> None:
    turn = Turn({})
    turn.receive(Chunk("ab", tokens=3))
    turn.deliver()
    assert turn.position.tokens is None
    turn.receive(Chunk(finish_reason=reason))
    turn.deliver()
    assert turn.end is end
    assert turn.position.tokens == tokens


@pytest.mark.parametrize("delivered", [False, True])
def test_half_a_character_is_counted_once_where_the_reply_goes_on_behind_its_text(
    delivered: bool,
) -> None:
    """Whether the third token was such a half is never known: nor is the count from there on."""
    turn = Turn({})
    turn.receive(Chunk("ab", tokens=3))
    if delivered:
        turn.deliver()
    turn.seam()
    turn.receive(Chunk("猫", tokens=2, ends=(1, 1)))
    while turn.deliver():
        pass
    assert turn.position.tokens is None
    assert turn.received.tokens is None
    again = Turn({}, mark=turn.mark)
    again.receive(Chunk("ab猫", tokens=None))
    assert again.position.tokens is None


def test_a_seam_behind_whole_tokens_changes_nothing() -> None:
    for chunk in (Chunk("ab", tokens=1), Chunk("ab", tokens=2, ends=(1, 2)), Chunk("a")):
        turn = Turn({})
        turn.receive(chunk)
        turn.deliver()
        before = (turn.position, turn.received.tokens)
        turn.seam()
        assert (turn.position, turn.received.tokens) == before


def test_one_pause_in_another_mode_leaves_the_next_in_its_own() -> None:
    turn = Turn({"!!P": Action.PAUSE}, mode=Mode.CUT)
    assert turn.pause(PauseReason.PAGE, Mode.HOLD) == Paused(
        PauseReason.PAGE, Mode.HOLD, turn.position
    )
    turn.resume()
    turn.receive(Chunk("!!P "))
    _, paused = turn.deliver()
    assert isinstance(paused, Paused)
    assert paused.mode is Mode.CUT


def test_a_model_has_asked_until_the_next_pause() -> None:
    turn = Turn({"!!A": Action.ASK})
    turn.receive(Chunk("!!A and on"))
    turn.deliver()
    assert turn.asked
    turn.resume()
    turn.pause(PauseReason.KEY)
    assert not turn.asked


def test_a_reply_that_stands_before_its_end_has_no_finish_reason() -> None:
    turn = Turn({}, pause_after=2)
    for chunk in (Chunk("one ", tokens=1), Chunk("two ", tokens=1), Chunk("three", tokens=1)):
        turn.receive(chunk)
    turn.receive(Chunk(finish_reason="stop"))
    while turn.deliver():
        pass
    assert (turn.position.tokens, turn.phase, turn.finish_reason) == (2, Phase.PAUSED, None)
    turn.resume()
    while turn.deliver():
        pass
    assert (turn.end, turn.finish_reason) == (End.COMPLETE, "stop")
