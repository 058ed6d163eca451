"""What ``llmctl batch`` makes of its words, and how it tells what comes of them."""

from __future__ import annotations

import json
import math
import shutil
import tempfile
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from llmctl.batch.check import Census
from llmctl.batch.job import Job
from llmctl.batch.merge import Merged
from llmctl.batch.program import Program
from llmctl.batch.rules import DEFAULT_SHARE
from llmctl.batch.status import BatchStatus
from llmctl.batch.watchers import Bar, Events, Lines, Progress
from llmctl.cli.invocation import Invocation
from llmctl.config import Config
from llmctl.counts import counted
from llmctl.environment import DIRECTORY_MODE, Environment, open_private
from llmctl.errors import UsageError, reason
from llmctl.prices import Prices, is_price


def run_job(
    job: Job, config: Config, invocation: Invocation, *, as_json: bool, dry_run: bool
) -> int:
    """Run a job, or only look at it, and return the exit status.

    Raises:
        UsageError: it can't be run as described.
    """
    env = invocation.env
    progress = progress_for(env, as_json=as_json, plain=config.plain)
    program = Program(job, config, env, key_for=invocation.key_for, progress=progress)
    if dry_run:
        census, complete = program.look()
        env.say(estimate(census, complete, job, as_json=as_json))
        return 0
    report = program.run()
    if invocation.verbose:
        for bug in program.bugs:
            env.note("".join(traceback.format_exception(bug)))
    return report.status


def progress_for(env: Environment, *, as_json: bool, plain: bool) -> Progress:
    """Return what tells a person, a log or a program how things go."""
    if as_json:
        return Events(env.say)
    if env.is_a_tty(env.stderr) and not plain and env.variable("TERM") != "dumb":
        return Bar(env)
    return Lines(env.note)


def estimate(census: Census, complete: int, job: Job, *, as_json: bool) -> str:
    """Return what a run would ask for, and what that may cost.

    Args:
        census: what the input holds.
        complete: items that are complete already.
        job: with the prices.
        as_json: as one object, not for people.
    """
    most = None if census.unbounded else census.bounded_tokens
    cost = None
    if job.prices is not None and most is not None:
        cost = job.prices.of(census.prompt_tokens, most)
    if as_json:
        return json.dumps(
            {
                "items": census.rows,
                "complete": complete,
                "prompt_tokens": census.prompt_tokens,
                "max_output_tokens": most,
                "max_cost": cost,
            }
        )
    lines = [f"{counted(census.rows, 'item')}, {complete:,} complete already"]
    lines.append(f"about {counted(census.prompt_tokens, 'prompt token')}")
    if most is None:
        unbounded = counted(census.unbounded, "item")
        lines.append(f"no bound on the replies of {unbounded} (--max-tokens)")
    else:
        lines.append(f"at most {counted(most, 'token')} of replies")
    if cost is not None:
        lines.append(f"at most ${cost:,.2f} for all items")
    return "\n".join(lines)


@contextmanager
def spooled(source: str, env: Environment, *, sharded: bool) -> Iterator[Path]:
    """Give the input as a file; '-', a pipe or a terminal is read to its end first.

    Raises:
        UsageError: it can't be read; what is no file can't be sharded.
    """
    path = env.resolve(source)
    if source != "-" and (path.is_file() or path.is_dir() or not path.exists()):
        yield path
        return
    if sharded:
        hint = "Write the lines into a file that every shard reads."
        raise UsageError(f"--shard needs a file, not '{source}'.", hint)
    name = "stdin" if source == "-" else path.name
    with tempfile.TemporaryDirectory(prefix="llmctl-batch-") as folder:
        spool = Path(folder, name)
        spool.parent.chmod(DIRECTORY_MODE)  # a umask may have taken bits from the owner too
        with _source(source, path, env) as pipe, open_private(spool, "wb") as file:
            shutil.copyfileobj(pipe, file)
        yield spool


def _source(source: str, path: Path, env: Environment) -> BinaryIO:
    if source == "-":
        return open(env.stdin, "rb", closefd=False)
    try:
        return path.open("rb")
    except OSError as error:
        raise UsageError(f"{path} can't be read: {reason(error)}.", "Name another file.") from error


def a_file(output: Path, env: Environment) -> Path:
    """Return where OUTPUT is.

    Raises:
        UsageError: '-' was meant to be stdout, or no file is named.
    """
    if str(output) == ".":  # what an empty text becomes
        raise UsageError("-o needs the name of a file.", "Write -o FILE.")
    if str(output) == "-":
        raise UsageError("OUTPUT is a file that later runs go on with, not '-'.", "Write -o FILE.")
    return env.resolve(output)


def number_or_auto(text: str) -> int | None:
    """Read ``--concurrency``; None is auto.

    Raises:
        UsageError: it is neither.
    """
    if text == "auto":
        return None
    if text.isdecimal() and int(text) > 0:
        return int(text)
    hint = "auto finds out how much the server takes."
    raise UsageError(f"--concurrency takes a number above 0 or auto, not '{text}'.", hint)


def failures_of(text: str | None) -> tuple[int | None, float | None]:
    """Read ``--max-failures``: a number, or a share of what has ended.

    Raises:
        UsageError: it is neither.
    """
    if text is None:
        return None, DEFAULT_SHARE
    number = text.removesuffix("%")
    is_share = number != text
    try:
        value = float(number) / (100 if is_share else 1)
    except ValueError:
        value = -1.0
    if not (0 <= value <= 1 if is_share else value >= 0 and value.is_integer()):
        raise UsageError(f"--max-failures takes N or P%, not '{text}'.", "Write 10 or 5%.")
    return (None, value) if is_share else (int(value), None)


def prices_of(text: str | None, config: Config) -> Prices | None:
    """Read ``--price``; without it, the profile's prices hold.

    Raises:
        UsageError: it is not two numbers of 0 or more.
    """
    if text is None:
        name = "" if config.base_url or config.model is None else config.model
        profile = config.profiles.get(name.partition("/")[0])
        return None if profile is None else profile.price
    try:
        prompt, completion = map(float, text.split(","))
    except ValueError:
        prompt = completion = math.nan
    if is_price(prompt) and is_price(completion):
        return Prices(prompt, completion)
    hint = "Dollars for a million tokens, read and written: --price 0.5,1.5"
    raise UsageError(f"--price takes IN,OUT, not '{text}'.", hint)


def choice(text: str, option: str, among: tuple[str, ...]) -> str:
    """Return ``text`` if it is one of these.

    Raises:
        UsageError: it is not.
    """
    if text in among:
        return text
    hint = f"Without {option} it is {among[0]}."
    raise UsageError(f"{option} takes {' or '.join(among)}, not '{text}'.", hint)


def status_words(status: BatchStatus) -> str:
    """Return how a batch stands, for people."""
    of = "" if status.items is None else f" of {status.items:,}"
    tokens = ("at least " if status.uncounted else "") + counted(status.tokens, "token")
    is_known = status.uncounted < status.complete or not status.complete
    lines = [f"{status.complete:,}{of} complete" + (f", {tokens}" if is_known else "")]
    lines += [f"{count:,} {standing}" for standing, count in status.ended.items()]
    if status.holder is not None:
        owner, silent_s = status.holder.owner, status.holder.silent_s
        what = "running" if status.is_live else "left behind"
        lines.append(f"{what}: pid {owner.pid} on {owner.host}, heartbeat {silent_s:.0f} s ago")
    return "\n".join(lines)


def ordering(order: str, source: Path | None, env: Environment) -> Path | None:
    """Return the input whose order is wanted, None for that of the files.

    Raises:
        UsageError: the input is wanted and not named, or named and not wanted.
    """
    if choice(order, "--order", ("files", "input")) == "files":
        return None
    if source is None:
        raise UsageError("--order input needs the input.", "Add --input INPUT.")
    return env.resolve(source)


def merge_words(merged: Merged) -> str:
    """Return what came of a merge, for people."""
    parts = [f"{merged.complete:,} complete", f"{merged.failed:,} failed"]
    if merged.twice:
        whose = "an item that was" if merged.twice == 1 else "items that were"
        parts.append(f"{counted(merged.twice, 'line')} for {whose} there already")
    if merged.missing:
        have = "has" if merged.missing == 1 else "have"
        parts.append(f"{counted(merged.missing, 'item')} {have} no line")
    return "merge: " + ", ".join(parts)
