"""Plays a scenario through the real program, in this process, and judges what came out.

All that `llmctl run` and `llmctl resume` do behind the command line happens: sockets, journal,
store, output. What must hold, whatever goes wrong:

- what the processes printed, one behind the other, is the uninterrupted reply: at every moment a
  beginning of it, in the end all of it;
- each process ends with a row of the contract's table, the exit code and the event say the same,
  and the row fits what had been asked and what had happened;
- a resume says where it is and claims no more than was earned;
- the server was asked to go on behind what it had said, to the character or the token;
- nobody waits longer than the limits allow, and no fault of the program shows.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import accumulate
from pathlib import Path
from typing import Any

import pytest

from llmctl import run as run_module
from llmctl.config import Config, OnPause
from llmctl.conversation import Options
from llmctl.events import Action, End, Guarantee, Status, Strategy
from llmctl.foreground import Manner
from llmctl.profiles import Selection
from llmctl.records import Records
from llmctl.retries import Patience
from llmctl.run import Ask
from llmctl.session import Policy
from llmctl.unfinished import resume
from tests.faults.scenario import LIMIT_S, Scenario, Share
from tests.support.fake_environment import Captured, fake_environment
from tests.support.fault_proxy import FaultProxy, Link
from tests.support.oracle import VOCABULARY, Oracle, Plan, Sampling, Special, render, text_of
from tests.support.oracle import Message as Said
from tests.support.oracle_server import OracleServer
from tests.support.oracle_server import Script as Happens

Json = dict[str, Any]

QUICK = Patience(delays_s=(0.005, 0.01, 0.02, 0.03), in_reply_s=2.0)
"""The program's own patience, in a quicker time."""

PROMPT = "hi"
LAST = Share(limited=False)
HANG_S = 20.0
"""Seconds that one process may take at the very most."""

OF_TABLE = {(each.status, each.cause): each.exit_code for each in End}


@dataclass(slots=True)
class Shown:
    """What one process printed and told.

    Attributes:
        code: its exit status.
        text: content on stdout.
        errors: stderr.
        events: with ``--json``.
        took_s: how long it took.
    """

    code: int
    text: str
    errors: str
    events: list[Json]
    took_s: float

    @property
    def status(self) -> tuple[str, str] | None:
        """Status and cause, where events tell them."""
        return (self.events[-1]["status"], self.events[-1]["cause"]) if self.events else None

    def of(self, kind: str) -> list[Json]:
        """The events of one type."""
        return [event for event in self.events if event["type"] == kind]


@dataclass(slots=True)
class Tally:
    """What was seen over many scenarios, so that a test that sees nothing is found out.

    Attributes:
        shares: processes.
        codes: how often each exit code was seen.
        ways: how often a reply went on in each way.
        retries: further tries.
        altered: scenarios whose bytes were changed into another well-formed reply.
    """

    shares: int = 0
    codes: dict[int, int] = field(default_factory=dict)
    ways: dict[str, int] = field(default_factory=dict)
    retries: int = 0
    altered: int = 0
    longest_s: float = 0.0

    def add(self, shown: Shown) -> None:
        """Count one process."""
        self.shares += 1
        self.codes[shown.code] = self.codes.get(shown.code, 0) + 1
        self.retries += len(shown.of("retrying"))
        self.longest_s = max(self.longest_s, shown.took_s)
        for event in shown.of("resumed"):
            way = f"{event['strategy']} {event['guarantee']}"
            self.ways[way] = self.ways.get(way, 0) + 1


class Play:
    """One scenario on the stage."""

    def __init__(self, scenario: Scenario, folder: Path, tally: Tally) -> None:
        self._scenario = scenario
        self._folder = folder
        self._tally = tally
        self._text = ""

    def play(self) -> None:
        """Play it to the end; what must hold is asserted on the way."""
        scenario = self._scenario
        settled = Happens(inserts=self._inserts())
        with (
            OracleServer(scenario.settings, otherwise=settled) as server,
            FaultProxy(server.url) as proxy,
        ):
            self._server, self._proxy = server, proxy
            self._whole, self._stops = self._expected()
            server.enqueue(*scenario.scripts)
            proxy.enqueue(*scenario.plans)
            if not self._shares():
                self._heal()
                self._last_shares()
            self._check_requests()

    # -- what happens

    def _shares(self) -> bool:
        """Play the processes of the scenario; say whether the reply is complete."""
        for number, share in enumerate(self._scenario.shares):
            shown = self._run(share) if number == 0 else self._resume(share)
            if self._is_over(shown):
                return True
        return False

    def _last_shares(self) -> None:
        """All is well again: the reply is completed."""
        for _ in range(80):
            if self._is_over(self._resume(LAST)):
                return
        raise AssertionError("the reply is never complete")

    def _heal(self) -> None:
        self._server._core.scripts.clear()
        self._proxy._proxy.plans.clear()

    def _is_over(self, shown: Shown) -> bool:
        if shown.code == 0:
            assert self._text == self._whole
            self._check_store()
        return shown.code == 0

    def _run(self, share: Share) -> Shown:
        selection = Selection("oracle", self._scenario.profile(self._proxy.base_url))
        options = Options(temperature=0.0, max_tokens=self._scenario.max_tokens)
        ask = Ask(
            prompt=PROMPT, selection=selection, options=options, markers=self._scenario.markers
        )
        return self._watched(
            share, lambda manner, config, env: run_module.run(ask, manner, config, env)
        )

    def _resume(self, share: Share) -> Shown:
        return self._watched(share, lambda manner, config, env: resume(None, manner, config, env))

    def _watched(self, share: Share, program: Any) -> Shown:
        links = len(self._proxy.links)
        with fake_environment(self._folder) as captured:
            began = time.monotonic()
            code = program(self._manner(share), self._config(share), captured.env)
            shown = _shown(code, captured, share, time.monotonic() - began)
        self._tally.add(shown)
        assert shown.took_s < HANG_S
        if any(is_altered(link) for link in self._proxy.links[links:]):
            raise Altered
        self._judge(share, shown)
        self._judge_waits(shown)
        return shown

    def _manner(self, share: Share) -> Manner:
        return Manner(
            json=share.json,
            full=share.full,
            pause_after=share.pause_after,
            key_for=lambda _profile: None,
        )

    def _config(self, share: Share) -> Config:
        limit = LIMIT_S if share.limited else None
        return Config(
            profiles={"here": self._scenario.profile(self._proxy.base_url)},
            on_pause=OnPause.HOLD if share.hold else OnPause.CUT,
            first_token_timeout=limit,
            idle_timeout=limit,
            timeout=share.total,
        )

    # -- what must hold

    def _judge(self, share: Share, shown: Shown) -> None:
        before = self._text
        if share.full:
            assert shown.text.startswith(before)
            self._text = shown.text
        else:
            self._text += shown.text
        assert self._whole.startswith(self._text), (self._whole, before, shown.text)
        assert "Traceback" not in shown.errors
        assert "internal" not in shown.errors
        assert shown.code in OF_TABLE.values()
        if shown.events:
            self._judge_events(share, shown, before)
        self._judge_code(share, shown, len(self._text) > len(before))

    def _judge_events(self, share: Share, shown: Shown, before: str) -> None:
        end = shown.events[-1]
        assert end["type"] == "finished"
        assert OF_TABLE[Status(end["status"]), end["cause"]] == end["exit_code"] == shown.code
        assert end["position"]["chars"] == len(self._text)
        chars = len(before)
        for number, event in enumerate(shown.events):
            match event["type"]:
                case "delta" if event["channel"] == "content":
                    if not (share.full and before and number == 1):
                        chars += len(event["text"])
                case "resumed":
                    self._judge_label(event, chars)
            if "position" in event:
                assert event["position"]["chars"] == chars, (event, chars, before)
                self._judge_tokens(event["position"])

    def _judge_label(self, event: Json, chars: int) -> None:
        strategy, guarantee = Strategy(event["strategy"]), Guarantee(event["guarantee"])
        match strategy:
            case Strategy.HELD:
                pass  # as good as what was read was
            case Strategy.REPLAY:
                assert chars == 0
            case Strategy.TOKENS:
                assert guarantee is Guarantee.TOKEN or not guarantee.at_least(Guarantee.TOKEN)
            case Strategy.PREFIX:
                assert not guarantee.at_least(Guarantee.TOKEN)
            case _:
                raise AssertionError(event)

    def _judge_tokens(self, position: Json) -> None:
        if position["tokens"] is None or self._scenario.markers:
            return
        ends = list(self._ends())
        behind = sum(end <= position["chars"] for end in ends)
        assert position["tokens"] == behind, (
            position,
            behind,
            self._whole[: position["chars"]][-12:],
            self._whole[position["chars"] :][:5],
        )

    def _judge_code(self, share: Share, shown: Shown, got_on: bool) -> None:
        """Only what was asked for and what went wrong may have ended it."""
        code, said = shown.code, shown.errors
        match code:
            case 0:
                pass
            case 4:  # lost before anything came: given up soon
                assert not got_on, said
            case 5:
                paused = share.pause_after is not None or self._stops is not None
                assert paused or self._scenario.markers
            case 6:
                assert self._scenario.max_tokens is not None
            case 124:
                assert share.limited or share.total is not None
            case _:
                raise AssertionError((code, said))

    def _judge_waits(self, shown: Shown) -> None:
        """A server that said when to come back is not asked before."""
        faults = [script.fault for script in self._scenario.scripts if script.fault]
        for event in shown.of("retrying"):
            asked = [f.retry_after for f in faults if f"(HTTP {f.status})" in event["reason"]]
            assert event["delay_s"] >= min((float(s or 0) for s in asked), default=0.0)

    def _check_requests(self) -> None:
        """The server was asked to go on behind the beginning of what it says, and told it all."""
        spoken = self._model_text()
        ids = self._ids()
        thoughts = text_of(ids[: self._content_at(ids)])
        start = render([Said("user", PROMPT)])
        for record in self._server.requests:
            if not isinstance(record.body, dict):
                continue  # cut on its way
            if "prompt" in record.body:
                asked = record.body["prompt"]
                assert asked == [*start, *ids][: len(asked)]
                continue
            last = record.body["messages"][-1]
            if last["role"] == "assistant":
                assert spoken.startswith(last["content"])
                assert thoughts.startswith(last.get("reasoning_content", ""))
                assert thoughts == last.get("reasoning_content", "") or not last["content"]

    def _check_store(self) -> None:
        with fake_environment(self._folder) as captured, Records(captured.env.data) as records:
            assert records.in_flight() == []
            (row,) = records.conversations()
            asked, answer = records.conversation(str(row["id"])).messages
            assert (asked.content, answer.content) == (PROMPT, self._whole)

    # -- what is expected

    def _inserts(self) -> dict[int, str]:
        scripts = self._scenario.scripts
        return dict(scripts[0].inserts) if scripts else {}

    def _model_text(self) -> str:
        return self._server.expected(PROMPT, script=Happens(inserts=self._inserts()))

    def _expected(self) -> tuple[str, str | None]:
        """Return the whole content, and the marker in the reply if there is one."""
        text = self._model_text()
        for marker, action in self._scenario.markers.items():
            head, found, tail = text.partition(marker)
            if found:
                return head if action is Action.STOP else head + tail, marker
        return text, None

    def _ids(self) -> list[int]:
        """Return the ids of the whole reply, reasoning included."""
        settings = self._scenario.settings
        plan = Plan(length=settings.length, inserts=self._inserts(), reasoning=settings.reasoning)
        oracle = Oracle(settings.rng, canonical=settings.canonical)
        return oracle.reply(
            render([Said("user", PROMPT)]), sampling=Sampling(temperature=0), plan=plan
        )

    def _content_at(self, ids: list[int]) -> int:
        return ids.index(Special.THINK_END) + 1 if Special.THINK_END in ids else 0

    def _ends(self) -> Iterator[int]:
        """Yield where in the content each of its tokens ends, in characters begun."""
        ids = self._ids()
        pieces = [VOCABULARY.pieces[i] for i in ids[self._content_at(ids) :]]
        raw = b"".join(pieces)
        for end in accumulate(map(len, pieces)):
            yield len(raw[:end].decode("utf-8", "ignore")) + _is_inside(raw, end)


class Altered(Exception):
    """The network has made another well-formed reply of the server's: nobody can tell."""


def _is_inside(raw: bytes, end: int) -> int:
    """Say whether a place is inside a character: its token is told with the whole of it."""
    return int(end < len(raw) and 0x80 <= raw[end] < 0xC0)


def is_altered(link: Link) -> bool:
    """Say whether what went on spells other events than what came."""
    came, went = _events(bytes(link.came)), _events(bytes(link.went))
    return went != came[: len(went)]


def _events(data: bytes) -> list[Any]:
    found = []
    for line in data.splitlines():
        if line.startswith(b"data: "):
            try:
                found.append(json.loads(line[6:]))
            except ValueError:
                continue
    return found


def _shown(code: int, captured: Captured, share: Share, took_s: float) -> Shown:
    out, err = captured.out, captured.err
    if not share.json:
        return Shown(code, out, err, [], took_s)
    events = [json.loads(line) for line in out.splitlines()]
    deltas = (e for e in events if e["type"] == "delta" and e["channel"] == "content")
    return Shown(code, "".join(e["text"] for e in deltas), err, events, took_s)


def play(scenario: Scenario, folder: Path, tally: Tally) -> None:
    """Play a scenario.

    Raises:
        AssertionError: something did not hold; the scenario is in its notes.
    """
    try:
        Play(scenario, folder, tally).play()
    except Altered:
        tally.altered += 1
    except BaseException as error:
        error.add_note(f"seed {scenario.seed}: {scenario}")
        raise


@contextmanager
def quick_patience(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Shorten the program's waiting."""
    with monkeypatch.context() as patch:
        patch.setattr("llmctl.foreground.Policy", lambda **given: Policy(**given, patience=QUICK))
        yield
