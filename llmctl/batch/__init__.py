"""Many replies from a file of requests, never asking twice for what has come.

From Python::

    from pathlib import Path
    from llmctl.batch import Job, run

    report = run(Job(input=Path("requests.jsonl"), output=Path("replies.jsonl")), model="local")
    print(report.tally.complete, "complete, exit status", report.status)

It does what ``llmctl batch`` does: the same files, the same going on where it was stopped.
"""

from __future__ import annotations

from dataclasses import replace

from llmctl.batch.job import Job
from llmctl.batch.lines import Shard
from llmctl.batch.program import Program, Report
from llmctl.batch.tally import Tally
from llmctl.batch.watchers import Progress
from llmctl.config import load
from llmctl.environment import Environment
from llmctl.keys import find_key
from llmctl.prices import Prices
from llmctl.profiles import Profile

__all__ = ["Job", "Prices", "Progress", "Report", "Shard", "Tally", "run"]


def run(job: Job, *, model: str | None = None, progress: Progress | None = None) -> Report:
    """Run a job in this process, from its main thread, until it is done or has to stop.

    Args:
        job: what to run.
        model: as ``-m`` takes it; None means the configured one.
        progress: is told what happens.

    Raises:
        UsageError: the input, the output or the state can't be used.
        LlmctlError: a key, a file or the engine is missing.
    """
    env = Environment.of_process()
    config = load(env)

    def key_for(profile: Profile) -> str | None:
        found = find_key(profile, env)
        return None if found is None else found.key

    chosen = config if model is None else replace(config, model=model)
    return Program(job, chosen, env, key_for=key_for, progress=progress).run()
