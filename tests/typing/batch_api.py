"""Never run: mypy reads it, so that the types of `llmctl.batch` stay what scripts rely on."""

from __future__ import annotations

from pathlib import Path
from typing import assert_type

from llmctl.batch import Job, Prices, Progress, Report, Shard, Tally, run


def a_run_reports(progress: Progress) -> None:
    job = Job(
        input=Path("in.jsonl"),
        output=Path("out-{shard}.jsonl"),
        base_urls=("http://127.0.0.1:8000/v1",),
        concurrency=64,
        item_timeout_s=60.0,
        deadline_s=3600.0,
        prices=Prices(0.5, 2.0),
        max_cost=10.0,
        shard=Shard(0, 4),
        engine="local",
    )
    report = run(job, model="qwen3", progress=progress)
    assert_type(report, Report)
    assert_type(report.status, int)
    assert_type(report.left, int)
    assert_type(report.cause, str | None)
    assert_type(report.tally, Tally)
    assert_type(report.tally.complete, int)
    assert_type(report.tally.cost, float | None)
