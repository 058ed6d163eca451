"""A batch on the real engine, disturbed in every way, ends as if it never had been."""

from __future__ import annotations

import json
import signal
from pathlib import Path

import pytest

from tests.support.engine import weights_or_skip
from tests.support.processes import Cli

pytestmark = [pytest.mark.slow, pytest.mark.engine]

TOPICS = ("a river", "the moon", "an old clock", "two cats", "a red door")
LONG_S = 1800.0


def write(path: Path, prompts: int) -> None:
    rows = ({"id": f"row-{n}", "prompt": f"Tell me about {TOPICS[n % 5]}, part {n}."}
            for n in range(prompts))  # fmt: skip
    path.write_text("".join(f"{json.dumps(row)}\n" for row in rows))


def texts(path: Path) -> dict[str, str]:
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    assert len(rows) == len({row["custom_id"] for row in rows})
    assert all(row["llmctl"]["wasted_tokens"] == 0 for row in rows)
    return {r["custom_id"]: r["response"]["body"]["choices"][0]["message"]["content"] for r in rows}


def go_through(folder: Path, prompts: int, tokens: int, deadline_s: float, cuts: int) -> None:
    """Compare an undisturbed run with one that meets limits and signals."""
    cli = Cli(folder, env={"LLMCTL_MODELS": str(weights_or_skip().parent)})
    source, calm, rough = (folder / name for name in ("in.jsonl", "calm.jsonl", "rough.jsonl"))
    write(source, prompts)
    ask = ("batch", str(source), "-m", "local", "--seed", "7", "--max-tokens", str(tokens), "-o")
    assert cli.run(*ask, str(calm), timeout_s=LONG_S).returncode == 0
    late = cli.run(*ask, str(rough), "--deadline", str(deadline_s), timeout_s=LONG_S)
    assert late.returncode == 9, late.errors
    short = cli.run(*ask, str(rough), "--item-timeout", "20ms", "--max-failures", "2",
                    timeout_s=LONG_S)  # fmt: skip
    assert short.returncode == 9, short.errors
    for _ in range(cuts):
        with cli.start(*ask, str(rough), "--json") as process:
            assert process.stdout is not None
            process.stdout.wait_for(b'"type": "item"', LONG_S)
            for _ in range(2):
                process.send_signal(signal.SIGINT)
                process.stdout.wait_for(b"stopping", 30)
            assert process.wait(60).returncode == 130
    done = cli.run(*ask, str(rough), timeout_s=LONG_S)
    assert done.returncode == 0, done.errors
    assert texts(rough) == texts(calm)
    cli.assert_no_leftovers()


def test_a_disturbed_batch_is_the_undisturbed_one(tmp_path: Path) -> None:
    go_through(tmp_path, prompts=6, tokens=24, deadline_s=0.5, cuts=1)


@pytest.mark.exhaustive
def test_two_hundred_prompts(tmp_path: Path) -> None:
    go_through(tmp_path, prompts=200, tokens=16, deadline_s=20, cuts=10)
