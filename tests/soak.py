"""Chat, run and batch on one store, under random faults, until the time is over; then the count.

``python -m tests.soak [--seconds 600] [--workers 3] [--seed 1]``. Each worker asks an oracle for
replies whose text is known, through a proxy that breaks connections, and ends its program by
signals, time limits, pauses, full and read-only disks at random, some under a wall clock that
jumps; it goes on with what was cut until it is complete, and compares. All workers' programs
share one home. Nothing may be lost or doubled, nothing may hang, the store must be whole at the
end and no process be left.
"""

from __future__ import annotations

import argparse
import json
import random
import re
import signal
import sys
import tempfile
import threading
import time
import traceback
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from llmctl.store_repair import trouble
from tests.support import clock_jumps
from tests.support.batches import CONFIG, Batch, prompt, vllm
from tests.support.fault_proxy import FaultProxy, LinkPlan, TroubleKind, random_plan
from tests.support.oracle_server import OracleProcess
from tests.support.processes import Cli, Finished
from tests.support.pty_driver import PtyProgram
from tests.support.read_only import can_be_read_only, read_only

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGKILL)
FATES = ["nothing", "signal", "timeout", "pause", "full disk"]
HANGS_S = 90.0
"""Seconds after which a program hangs, whatever was done to it."""
TRIES = 60
FULL_DISK = ("sh", "-c", 'ulimit -f 8; PYTHONDONTWRITEBYTECODE=1 exec "$@"', "sh")
"""Python itself would leave compiled files that are cut off."""
_REAL = {TroubleKind.CUT, TroubleKind.STALL, TroubleKind.OUTAGE, TroubleKind.DRIP,
         TroubleKind.HALF_CLOSE, TroubleKind.TRUNCATE_CHUNKED}  # fmt: skip
"""What networks do; bytes that are wrong and unnoticed are not among it."""
Say = Callable[[str], None]


def weather(chance: random.Random) -> LinkPlan:
    """Return what happens to a connection: half the time nothing."""
    if chance.random() < 0.5:
        return LinkPlan()
    plan = random_plan(chance.randrange(2**31), reach=30_000)
    troubles = [
        replace(one, seconds=min(one.seconds or 0.3, 0.3))
        for one in plan.troubles
        if one.kind in _REAL
    ]
    return LinkPlan(*troubles)


class Worker:
    """One of several that share a home, a server and a proxy."""

    def __init__(self, number: int, seed: int, place: Place) -> None:
        self.counts: Counter[str] = Counter()
        self.faults: list[str] = []
        self._number = number
        self._chance = random.Random(seed * 1000 + number)  # noqa: S311  (repeatable)
        self._place = place
        self._asked = 0

    def work(self, until: float) -> None:
        """Do one thing after the other until the time is over."""
        while time.monotonic() < until:
            thing = self._chance.choice([self._run, self._run, self._chat, self._batch])
            try:
                thing()
            except Exception as error:  # noqa: BLE001  (counted, and told at the end)
                self.counts["failures"] += 1
                self.faults.append(f"{thing.__name__}: {error!r}\n{traceback.format_exc(limit=-3)}")

    def _clock(self, env: Mapping[str, str]) -> dict[str, str]:
        """Return what makes one in three programs see a wall clock that jumps."""
        if self._chance.randrange(3):
            return {}
        self.counts["clocks that jump"] += 1
        return clock_jumps.environment(env, self._chance.randrange(2**31))

    def _question(self) -> tuple[str, str]:
        self._asked += 1
        number = self._number * 100_000 + self._asked
        text = prompt(number, self._chance.randrange(20, 300))
        return text, self._place.server.expected(text)

    def _run(self) -> None:
        question, expected = self._question()
        words = ["run", "-n", "-m", "oracle/oracle", "--seed", "7", question]
        said, killed, generation = "", False, None
        for attempt in range(TRIES):
            fate = "nothing" if attempt > TRIES // 2 else self._chance.choice(FATES)
            done = self._once(words, fate)
            self.counts["processes"] += 1
            said += done.text
            killed = killed or done.returncode == -signal.SIGKILL
            if done.returncode == 0:
                break
            if "no longer being saved" in done.errors:
                self.counts["disks full"] += 1
            generation = generation or self._unfinished(question)
            if generation is None:  # it was ended before it was begun
                said = ""
                continue
            words = ["resume", generation, "--require", "token"]
        else:
            raise AssertionError(f"not complete after {TRIES} tries: {done.errors}")
        self.counts["replies"] += 1
        if not killed:
            self._compare("run", said, expected)
        if generation is not None:
            whole = self._place.cli.run("resume", generation, "--full", timeout_s=HANGS_S)
            self._compare("run --full", whole.text, expected)

    def _once(self, words: Sequence[str], fate: str) -> Finished:
        self._place.proxy.enqueue(weather(self._chance))
        self.counts[fate] += 1
        more: list[str] = []
        if fate == "timeout":
            more = ["--timeout", f"{self._chance.randrange(200, 1500)}ms"]
        if fate == "pause":
            more = ["--pause-after", str(self._chance.randrange(1, 60))]
            more += ["--on-pause", self._chance.choice(["hold", "cut"])]
        disks = {"full disk": FULL_DISK, "read-only disk": read_only(self._place.cli.data)}
        cli = self._place.cli
        with cli.start(
            *words, *more, wrap=disks.get(fate, ()), env=self._clock(cli.env)
        ) as process:
            if fate == "signal":
                sign = self._chance.choice(SIGNALS)
                if self._chance.random() < 0.5:
                    process.kill_after_bytes(self._chance.randrange(1, 800), sign)
                else:
                    process.kill_after(self._chance.uniform(0.3, 3.0), sign)
            done = process.wait(HANGS_S)
        if "Traceback" in done.errors or "fault of the program" in done.errors:
            raise AssertionError(done.errors)
        return done

    def _unfinished(self, question: str) -> str | None:
        rows = json.loads(self._place.cli.run("resume", "--list", "--json").text)
        return next((row["generation"] for row in rows if row["title"] == question), None)

    def _chat(self) -> None:
        question, expected = self._question()
        cli = self._place.cli
        self._place.proxy.enqueue(weather(self._chance))
        words = cli.command("chat", "-m", "oracle/oracle", "--seed", "7", "--require", "token")
        env = {**cli.env, **self._clock(cli.env)}
        with PtyProgram(words, env=env, cwd=cli.cwd, columns=100, rows=30) as chat:
            chat.wait_for("/help", timeout_s=HANGS_S)
            chat.send(f"{question}\r")
            chat.wait_for_screen(re.compile("streaming|tok ·"), timeout_s=HANGS_S)
            for _ in range(self._chance.randrange(4)):
                time.sleep(self._chance.uniform(0.05, 0.3))
                chat.send(self._chance.choice([b" ", b" ", b"\x03"]))
            time.sleep(0.3)
            chat.send(b"\x04")  # at the prompt or paused: leave; while it streams: a hint
            time.sleep(0.3)
            if chat.poll() is None:
                chat.send_signal(
                    self._chance.choice([signal.SIGTERM, signal.SIGHUP, signal.SIGKILL])
                )
            chat.wait(HANGS_S)
        self.counts["chats"] += 1
        generation = self._unfinished(question)
        for _ in range(TRIES):
            if generation is None:
                break
            self._once(["resume", generation, "--require", "token"], "nothing")
            generation = self._unfinished(question)
        rows = json.loads(cli.run("conversations", "list", "--json").text)
        for row in rows:
            if row["title"] == question and row["messages"] > 1:
                shown = cli.run("conversations", "export", row["id"], "--format", "json")
                self._compare("chat", json.loads(shown.text)["messages"][-1]["content"], expected)

    def _batch(self) -> None:
        with tempfile.TemporaryDirectory() as folder:
            batch = Batch(Path(folder), self._place.server, items=12, length=60)
            home = Path(batch.cli.env["LLMCTL_HOME"])
            (home / "config.toml").write_text(CONFIG.format(url=self._place.proxy.base_url))
            for attempt in range(TRIES):
                self._place.proxy.enqueue(*(weather(self._chance) for _ in range(6)))
                fate = "nothing" if attempt > 5 else self._chance.choice(["nothing", "signal"])
                with batch.start("--concurrency", "4", "--idle-timeout", "5", "--wait-ready", "20s",
                                 "--require", "token", "--retry-failed",
                                 env=self._clock(batch.cli.env)) as process:  # fmt: skip
                    if fate == "signal":
                        sign = self._chance.choice([signal.SIGTERM, signal.SIGKILL, signal.SIGINT])
                        process.kill_after(self._chance.uniform(0.5, 4.0), sign)
                    done = process.wait(HANGS_S)
                self.counts["processes"] += 1
                self.counts[fate] += 1
                if done.returncode == 0:
                    break
            else:
                raise AssertionError(f"batch not complete after {TRIES} tries: {done.errors}")
            self.counts["batch items"] += 12
            try:
                batch.assert_complete()
            except AssertionError:
                self.counts["wrong"] += 1
                raise
            batch.cli.assert_no_leftovers()

    def _compare(self, what: str, said: str, expected: str) -> None:
        self.counts["compared"] += 1
        if said != expected:
            self.counts["wrong"] += 1
            at = next((n for n, (a, b) in enumerate(zip(said, expected)) if a != b), -1)  # noqa: B905
            told = f"{what}: {len(said)} of {len(expected)} chars, differs at {at}"
            raise AssertionError(f"{told}: {said[at : at + 60]!r} / {expected[at : at + 60]!r}")


class Place:
    """What the workers share."""

    def __init__(self, folder: Path, server: OracleProcess, proxy: FaultProxy) -> None:
        self.cli = Cli(folder)
        self.server = server
        self.proxy = proxy
        self.cli.data.mkdir(mode=0o700, parents=True, exist_ok=True)
        (self.cli.data / "config.toml").write_text(CONFIG.format(url=proxy.base_url))


def main() -> int:
    """Soak, print the count, and say whether anything was wrong."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--seconds", type=float, default=600)
    parser.add_argument("--workers", type=int, default=3)
    parser.add_argument("--seed", type=int, default=1)
    wanted = parser.parse_args()
    for number in (signal.SIGINT, signal.SIGHUP):  # nohup ignores them, and so would what we start
        signal.signal(number, signal.default_int_handler)
    with (
        tempfile.TemporaryDirectory(prefix="llmctl-soak-") as folder,
        OracleProcess(vllm(delay_s=0.004)) as server,
        FaultProxy(server.url) as proxy,
    ):
        place = Place(Path(folder), server, proxy)
        if can_be_read_only(place.cli.data):
            FATES.append("read-only disk")
        workers = [Worker(number, wanted.seed, place) for number in range(wanted.workers)]
        until = time.monotonic() + wanted.seconds
        threads = [threading.Thread(target=worker.work, args=(until,)) for worker in workers]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        return report(workers, place)


def report(workers: Sequence[Worker], place: Place) -> int:
    """Print the count; look at what is left."""
    say: Say = print
    counts: Counter[str] = sum((worker.counts for worker in workers), Counter())
    faults = [fault for worker in workers for fault in worker.faults]
    damaged = trouble(place.cli.data / "conversations.db")
    place.cli.assert_no_leftovers()
    left = [path.name for path in place.cli.data.rglob("*") if path.name.startswith(".")]
    for fault in faults:
        say(fault)
    say(json.dumps(dict(sorted(counts.items()))))
    say(f"failures {len(faults)}, store {damaged or 'whole'}, files left over {left}")
    return 1 if faults or damaged or left else 0


if __name__ == "__main__":
    sys.exit(main())
