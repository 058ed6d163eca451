"""What ``llmctl batch`` says that a run has cost, and the budgets that rest on it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.support.batches import Batch, prompt
from tests.support.oracle_server import Fault, OracleServer, Script, Settings
from tests.support.oracle_wire import Feature

pytestmark = pytest.mark.slow

EIGHTS = Settings(tokens_per_chunk=8, features=(Feature.USAGE,))
ALONE = ("--concurrency", "1")


def told(batch: Batch, *more: str, exit_code: int = 0) -> dict[str, Any]:
    """Run a batch; return its last event."""
    done = batch.run("--json", *more)
    assert done.returncode == exit_code, done.errors
    end: dict[str, Any] = json.loads(done.text.splitlines()[-1])
    return end


def written(batch: Batch) -> int:
    """Return the tokens that OUTPUT says were generated."""
    return sum(row["response"]["body"]["usage"]["completion_tokens"] for row in batch.rows())


def asked(batch: Batch) -> int:
    return sum(row["response"]["body"]["usage"]["prompt_tokens"] for row in batch.rows())


def test_what_the_server_counted_is_what_is_told(tmp_path: Path) -> None:
    with OracleServer(EIGHTS) as server:
        batch = Batch(tmp_path, server, items=6, length=60)
        end = told(batch, "--price", "1000,2000")
    assert end["output_tokens"] == written(batch) == 6 * 60
    assert end["cost"] == pytest.approx((asked(batch) * 1000 + 360 * 2000) / 1e6)


@pytest.mark.parametrize("budget", [("--max-cost", "0.3"), ("--max-output-tokens", "130")])
def test_a_budget_ends_the_run_by_the_servers_count(
    tmp_path: Path, budget: tuple[str, str]
) -> None:
    with OracleServer(EIGHTS) as server:
        batch = Batch(tmp_path, server, items=6, length=60)
        end = told(batch, "--price", "1,2000", *budget, *ALONE, exit_code=9)
    assert end["cause"] == budget[0].removeprefix("--")
    assert len(batch.rows()) == 3  # what was whole when the budget was spent is not thrown away
    assert end["output_tokens"] == 3 * 60


def test_what_prompts_cost_ends_the_run_too(tmp_path: Path) -> None:
    with OracleServer(EIGHTS) as server:
        batch = Batch(tmp_path, server, items=6, length=8)
        end = told(batch, "--price", "1e6,0", "--max-cost", "1", *ALONE, exit_code=9)
    assert end["cause"] == "max-cost"
    assert len(batch.rows()) == 1


def test_usage_counts_where_a_reply_broke_off(tmp_path: Path) -> None:
    """Running totals come with every piece; those of an attempt that was cut count, too."""
    features = (Feature.USAGE, Feature.CONTINUOUS_USAGE)
    with OracleServer(Settings(tokens_per_chunk=8, features=features)) as server:
        batch = Batch(tmp_path, server, items=1, length=64)
        home = Path(batch.cli.env["LLMCTL_HOME"])
        (home / "config.toml").write_text(f'[profiles.oracle]\nbase_url = "{server.base_url}"\n')
        assert batch.cli.run("models", "probe", "-m", "oracle/oracle").returncode == 0
        fault = Fault("cut", after_tokens=32)
        server.enqueue(Script(fault=fault, reasoning=24, match=prompt(0, 64)))
        end = told(batch)
    assert end["output_tokens"] == 32 + written(batch)


def test_where_nothing_is_told_pieces_count(tmp_path: Path) -> None:
    with OracleServer(Settings(features=())) as server:
        batch = Batch(tmp_path, server, items=2, length=30)
        end = told(batch)
    assert 0 < end["output_tokens"] <= 2 * 30


def test_a_run_that_is_read_on_counts_once(tmp_path: Path) -> None:
    """The server tells the usage of the whole run; its beginning was counted when it came."""
    with OracleServer(Settings(features=(Feature.RESPONSES,), tokens_per_chunk=4)) as server:
        batch = Batch(tmp_path, server, items=1, length=40)
        body = {"input": prompt(0, 40), "model": "oracle", "background": True}
        line = {"custom_id": "row-0", "url": "/v1/responses", "body": body}
        batch.input.write_text(json.dumps(line))
        server.enqueue(Script(fault=Fault("cut", after_tokens=20)))
        end = told(batch)
        (row,) = batch.rows()
    assert row["llmctl"]["resumes"][0]["strategy"] == "cursor"
    assert end["output_tokens"] == 40


def test_a_request_that_was_turned_away_costs_nothing(tmp_path: Path) -> None:
    with OracleServer(EIGHTS) as server:
        batch = Batch(tmp_path, server, items=1, length=8)
        server.enqueue(*[Script(fault=Fault("http", status=429, retry_after="0"))] * 5)
        end = told(batch, "--price", "1e6,0")
    assert end["requests"] == 6
    assert end["cost"] == pytest.approx(asked(batch))
