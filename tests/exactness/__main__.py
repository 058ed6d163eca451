"""Try many combinations and say what was found: ``python -m tests.exactness --count 600``."""

# ruff: noqa: T201  (a program that prints)

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import asdict
from pathlib import Path

from tests.exactness.chats import Chats, attempt_chat
from tests.exactness.laboratory import Laboratory
from tests.exactness.plan import chat_combinations, combinations
from tests.exactness.report import summary
from tests.exactness.trial import Outcome, attempt
from tests.support.engine import obtain_weights


def main() -> int:
    """Run, report, and return 1 if a combination was not exact."""
    asked = _asked()
    if obtain_weights() is None:
        sys.exit("the weights can't be had")
    outcomes: list[Outcome] = []
    began = time.monotonic()
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="exactness-")))
        report = stack.enter_context(asked.report.open("a")) if asked.report else None
        laboratory = Laboratory(folder)
        jobs = stack.enter_context(ThreadPoolExecutor(asked.jobs))
        try:
            for outcome in _outcomes(asked, laboratory, jobs):
                outcomes.append(outcome)
                _say(outcome, len(outcomes), time.monotonic() - began)
                if report is not None:
                    print(json.dumps(asdict(outcome), ensure_ascii=False), file=report, flush=True)
        except KeyboardInterrupt:
            jobs.shutdown(cancel_futures=True)
        print(f"\n{summary(outcomes, laboratory.replies)}")
    return int(any(outcome.problems for outcome in outcomes))


def _outcomes(
    asked: argparse.Namespace, laboratory: Laboratory, jobs: ThreadPoolExecutor
) -> Iterator[Outcome]:
    if asked.chat:
        chats, sittings = Chats(laboratory), chat_combinations(asked.count, asked.seed)
        return jobs.map(lambda each: attempt_chat(each, chats), sittings[asked.first :])
    plan = combinations(asked.count, asked.seed)
    return jobs.map(lambda each: attempt(each, laboratory), plan[asked.first :])


def _asked() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.exactness", description=__doc__)
    parser.add_argument("--chat", action="store_true", help="in chats, by keys and signals")
    parser.add_argument("--count", type=int, default=600, help="how many combinations")
    parser.add_argument("--seed", type=int, default=1, help="what chooses them")
    parser.add_argument("--first", type=int, default=0, help="leave out those before this one")
    parser.add_argument("--jobs", type=int, default=1, help="how many at once (engines disturb)")
    parser.add_argument("--report", type=Path, help="append each outcome, one JSON object a line")
    return parser.parse_args()


def _say(outcome: Outcome, done: int, seconds: float) -> None:
    ways = ", ".join(f"{strategy} {guarantee}" for strategy, guarantee in outcome.resumes)
    print(
        f"{done:4} {seconds:6.0f}s {outcome.combination}: {outcome.cut}/{outcome.length} chars, "
        f"{ways or 'not resumed'}",
        flush=True,
    )
    for problem in outcome.problems:
        print(f"     WRONG: {problem}", flush=True)


if __name__ == "__main__":
    sys.exit(main())
