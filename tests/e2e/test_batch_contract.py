"""What ``llmctl batch`` promises, from outside: files, exit statuses, going on."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.batches import Batch, content, prompt, vllm
from tests.support.oracle_responses import Keeping
from tests.support.oracle_server import Fault, OracleServer, Record, Script, Settings
from tests.support.oracle_wire import Feature, Prefill

pytestmark = pytest.mark.slow


@pytest.fixture
def server() -> Iterator[OracleServer]:
    with OracleServer(vllm()) as server:
        yield server


@pytest.fixture
def batch(tmp_path: Path, server: OracleServer) -> Batch:
    return Batch(tmp_path, server, items=6, length=12)


def test_all_complete_and_again_is_nothing_to_do(batch: Batch, server: OracleServer) -> None:
    done = batch.run()
    assert (done.returncode, done.stdout) == (0, b"")
    batch.assert_complete()
    row = batch.rows()[0]
    assert row["error"] is None
    assert row["response"]["status_code"] == 200
    assert row["response"]["body"]["object"] == "chat.completion"
    assert row["response"]["body"]["usage"]["completion_tokens"] == 12
    assert set(row["llmctl"]) >= {
        "attempts",
        "resumes",
        "finish_reason",
        "first_token_s",
        "duration_s",
        "wasted_tokens",
    }
    assert batch.errors() == []
    asked = server.counters.requests
    assert batch.run().returncode == 0
    assert server.counters.requests == asked
    batch.assert_complete()


def test_new_lines_are_new_work_changed_ones_are_not_taken(
    batch: Batch, server: OracleServer
) -> None:
    assert batch.run().returncode == 0
    batch.items = 8
    batch.write(range(8))
    assert batch.run().returncode == 0
    batch.assert_complete()
    batch.write(range(8), temperature=0.5)
    refused = batch.run()
    assert refused.returncode == 2
    assert "changed: row-0" in refused.errors
    batch.write(range(7))
    refused = batch.run()
    assert refused.returncode == 2
    assert "gone: row-7" in refused.errors
    asked = server.counters.requests
    batch.write(range(7), max_tokens=5)
    assert batch.run("--accept-changed").returncode == 0
    assert server.counters.requests == asked + 7
    assert len(batch.rows()) == 8
    assert batch.run().returncode == 0
    status = batch.cli.run("batch", "status", str(batch.output)).text
    assert status.startswith("7 of 7 complete, ")


def test_without_its_state_what_is_complete_counts(batch: Batch, server: OracleServer) -> None:
    assert batch.run().returncode == 0
    for file in batch.state.iterdir():
        file.unlink()
    batch.state.rmdir()
    asked = server.counters.requests
    assert batch.run().returncode == 0
    assert server.counters.requests == asked
    batch.assert_complete()


@pytest.mark.parametrize(
    ("lines", "said"),
    [
        (["{"], "line 1: not JSON"),
        (['{"custom_id":"a","method":"POST","url":"/v1/x","body":{}}'], "line 1: unknown url"),
        (['{"id":"a","prompt":"x"}'] * 2, "line 2: the id 'a' is already on line 1"),
        (['{"id":"a","prompt":"x","model":"other"}'], "line 1: model 'other'"),
        (['{"id":"a","promt":"x"}'], "did you mean 'prompt'"),
        (['{"id":"a"}'], "line 1: no 'prompt'"),
        (["\xff"], "line 1: not UTF-8"),
        (['{"id":"a","prompt":"x","max_tokens":"many"}'], "line 1: 'max_tokens' is not a number"),
    ],
)
def test_bad_lines_are_told_before_anything_is_spent(
    batch: Batch, server: OracleServer, lines: list[str], said: str
) -> None:
    batch.input.write_bytes("\n".join(lines).encode("latin-1"))
    done = batch.run()
    assert done.returncode == 2
    assert said in done.errors
    assert server.counters.requests == 0
    assert not batch.output.exists()


def test_forms_of_input(batch: Batch, tmp_path: Path) -> None:
    text = tmp_path / "prompts.txt"
    text.write_bytes(b"\xef\xbb\xbfone length=3\r\n\r\ntwo length=3\r\n")
    done = batch.cli.run("batch", str(text), "-o", str(batch.output), "-m", "oracle/oracle")
    assert done.returncode == 0, done.errors
    assert {row["custom_id"] for row in batch.rows()} == {"line-1", "line-3"}
    lines = '{"id":"m","messages":[{"role":"user","content":"hi length=3"}],"metadata":{"k":1}}\n'
    piped = batch.cli.run(
        "batch", "-", "-o", str(tmp_path / "piped.jsonl"), "-m", "oracle/oracle",
        stdin=lines.encode(),
    )  # fmt: skip
    assert piped.returncode == 0, piped.errors
    (row,) = [json.loads(line) for line in (tmp_path / "piped.jsonl").read_text().splitlines()]
    assert row["metadata"] == {"k": 1}


def test_bodies_are_those_of_replies_that_were_not_streamed(tmp_path: Path) -> None:
    features = (Feature.USAGE, Feature.LOGPROBS, Feature.RESPONSES, Feature.COMPLETIONS)
    with OracleServer(Settings(features=features)) as server:
        batch = Batch(tmp_path, server, items=0)
        asked = [{"role": "user", "content": "hi length=6"}]
        wanted: list[tuple[str, dict[str, Any]]] = [
            ("chat/completions", {"messages": asked, "seed": 1}),
            ("chat/completions", {"messages": asked, "seed": 1, "logprobs": True}),
            ("chat/completions", {"messages": asked, "seed": 1, "max_tokens": 3}),
            ("responses", {"input": "hi length=6"}),
        ]
        lines = [
            {"custom_id": str(n), "url": f"/v1/{path}", "body": {"model": "oracle", **body}}
            for n, (path, body) in enumerate(wanted)
        ]
        batch.input.write_text("".join(f"{json.dumps(line)}\n" for line in lines))
        # a profile that is wrong about this server: what it refuses is left out
        done = batch.run()
        assert done.returncode == 0, done.errors
        bodies = {row["custom_id"]: row["response"]["body"] for row in batch.rows()}
        for n, (path, body) in enumerate(wanted):
            whole = unstreamed(f"{server.base_url}/{path}", {"model": "oracle", **body})
            assert comparable(bodies[str(n)]) == comparable(whole)


def unstreamed(url: str, body: dict[str, Any]) -> dict[str, Any]:
    """Ask the server itself."""
    headers = {"Content-Type": "application/json"}
    request = urllib.request.Request(url, json.dumps(body).encode(), headers)  # noqa: S310
    with urllib.request.urlopen(request, timeout=10) as answer:  # noqa: S310
        return dict(json.load(answer))


def comparable(body: dict[str, Any]) -> Any:
    """Return a body without what differs from reply to reply, or is only told unstreamed."""
    same = {k: v for k, v in body.items() if k not in {"id", "created", "created_at"}}
    for each in (*same.get("output", ()), *(c["message"] for c in same.get("choices", ()))):
        each.pop("id", None)
        each.pop("refusal", None)
    return {**same, "names": sorted(body)}


def test_a_system_message_from_the_command_line_is_for_every_form(
    batch: Batch, server: OracleServer
) -> None:
    batch.write([0])
    with batch.input.open("a") as file:
        file.write('{"id": "short", "prompt": "hi length=3"}\n')
    assert batch.run("-s", "Be brief.").returncode == 0
    roles = [[m["role"] for m in request.body["messages"]] for request in server.requests]
    assert roles == [["system", "user"]] * 2


def test_what_is_no_output_is_left_as_it_is(
    batch: Batch, server: OracleServer, tmp_path: Path
) -> None:
    failed = '{"custom_id":"row-0","response":null,"error":{"kind":"refused"}}\n'
    files = {"errors": failed, "text": "my only note", "lines": "a\nb\n"}
    for name, held in files.items():
        (tmp_path / name).write_text(held)
    words = ["batch", str(batch.input), "-m", "oracle/oracle", "-o"]
    for name in (*files, "in.jsonl"):
        before = (tmp_path / name).read_bytes()
        done = batch.cli.run(*words, str(tmp_path / name))
        assert (done.returncode, name) == (2, name), done.errors
        assert (tmp_path / name).read_bytes() == before
    assert batch.cli.run(*words, "-").returncode == 2
    for name in ("errors", "lines"):
        done = batch.cli.run("batch", "status", str(tmp_path / name))
        assert done.returncode == 2
        assert "something else than complete items (line 1)" in done.errors
    assert server.counters.requests == 0


def test_a_pipe_is_read_to_its_end_first(batch: Batch, tmp_path: Path) -> None:
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    with batch.cli.start("batch", str(fifo), "-o", str(batch.output), "-m", "oracle/oracle") as run:
        fifo.write_text("hi length=3\n")
        assert run.wait(30).returncode == 0
    assert [row["custom_id"] for row in batch.rows()] == ["line-1"]
    done = batch.cli.run("batch", "/dev/stdin", "-o", str(batch.output), "-m", "oracle/oracle",
                         stdin=b"other\n")  # fmt: skip
    assert done.returncode == 2
    assert "changed: line-1" in done.errors


def test_a_last_line_without_an_end_counts(batch: Batch, tmp_path: Path) -> None:
    assert batch.run().returncode == 0
    whole = batch.output.read_bytes()
    batch.output.write_bytes(whole[:-1])
    merged = tmp_path / "merged.jsonl"
    done = batch.cli.run("batch", "merge", str(batch.output), "-o", str(merged))
    assert done.returncode == 0, done.errors
    assert merged.read_bytes() == whole
    asked = batch.server.counters.requests
    assert batch.run().returncode == 0
    assert batch.server.counters.requests == asked
    assert batch.output.read_bytes() == whole


def test_merge_takes_the_failed_items_of_shards_along(batch: Batch, server: OracleServer) -> None:
    server.enqueue(Script(fault=Fault("http", status=400, message="no"), match=prompt(3, 12)))
    assert batch.run().returncode == 8
    merged = batch.output.with_name("merged.jsonl")
    done = batch.cli.run("batch", "merge", str(batch.output), "-o", str(merged))
    assert done.returncode == 8
    assert "5 complete, 1 failed" in done.errors
    assert merged.with_name("merged.jsonl.errors.jsonl").read_bytes() == (
        batch.errors_file.read_bytes()
    )
    refused = batch.cli.run("batch", "merge", str(batch.input), "-o", str(merged))
    assert refused.returncode == 2


def test_refused_rows_fail_and_are_tried_again_only_when_asked(
    batch: Batch, server: OracleServer
) -> None:
    poison = Script(fault=Fault("http", status=400, message="no"), match=prompt(3, 12))
    server.enqueue(poison)
    done = batch.run()
    assert done.returncode == 8
    (error,) = batch.errors()
    assert error["custom_id"] == "row-3"
    assert error["response"] is None
    assert error["error"]["kind"] == "refused"
    assert len(batch.rows()) == 5
    asked = server.counters.requests
    assert batch.run().returncode == 8
    assert server.counters.requests == asked
    assert batch.run("--retry-failed").returncode == 0
    batch.assert_complete()
    assert batch.errors() == []


def test_transient_faults_are_retried_and_gone_on_with(batch: Batch, server: OracleServer) -> None:
    server.enqueue(
        Script(fault=Fault("http", status=500), match=prompt(1, 12)),
        Script(fault=Fault("cut", after_tokens=5), match=prompt(2, 12)),
        Script(fault=Fault("garbage", after_tokens=4), match=prompt(4, 12)),
    )
    assert batch.run().returncode == 0
    batch.assert_complete()
    facts = {row["custom_id"]: row["llmctl"] for row in batch.rows()}
    assert facts["row-1"]["attempts"] == 2
    assert facts["row-2"]["resumes"][0]["strategy"] == "tokens"
    assert facts["row-2"]["resumes"][0]["position"] == {"chars": 9, "tokens": 5}
    usage = {row["custom_id"]: row["response"]["body"]["usage"] for row in batch.rows()}
    assert usage["row-2"]["completion_tokens"] == 12
    assert usage["row-2"]["prompt_tokens"] == usage["row-1"]["prompt_tokens"]


def test_the_last_item_is_tried_as_often_as_any(batch: Batch, server: OracleServer) -> None:
    batch.items = 1
    batch.write([0])
    server.enqueue(*[Script(fault=Fault("http", status=500))] * 3)
    done = batch.run("--canary", "0")
    assert done.returncode == 0, done.errors
    batch.assert_complete()
    assert batch.rows()[0]["llmctl"]["attempts"] == 4


def test_a_row_that_always_breaks_at_the_same_place_fails(tmp_path: Path) -> None:
    with OracleServer(Settings(prefill="ignored")) as server:  # so every try begins anew
        batch = Batch(tmp_path, server, items=3, length=12)
        poison = Script(fault=Fault("garbage", after_tokens=5), match=prompt(1, 12))
        server.enqueue(*[poison] * 40)
        done = batch.cli.run("batch", str(batch.input), "-o", str(batch.output), "-m", "oracle",
                             "--base-url", server.base_url, "--retries", "2")  # fmt: skip
        assert done.returncode == 8, done.errors
        (error,) = batch.errors()
        assert error["llmctl"]["attempts"] <= 6
        assert error["partial"]["content"]


def test_what_cannot_be_gone_on_with_begins_anew_or_fails(tmp_path: Path) -> None:
    with OracleServer(Settings(prefill="ignored")) as server:
        batch = Batch(tmp_path, server, items=2, length=12)
        words = ["batch", str(batch.input), "-o", str(batch.output), "-m", "oracle",
                 "--base-url", server.base_url]  # fmt: skip
        server.enqueue(Script(fault=Fault("cut", after_tokens=5), match=prompt(1, 12)))
        failed = batch.cli.run(*words, "--otherwise", "fail")
        assert failed.returncode == 8
        (error,) = batch.errors()
        assert error["partial"]["content"]
        assert batch.cli.run(*words).returncode == 0
        batch.assert_complete()
        (row,) = [row for row in batch.rows() if row["custom_id"] == "row-1"]
        assert row["llmctl"]["wasted_tokens"] > 0


def test_wrong_key_and_unknown_model_stop_at_the_canary(tmp_path: Path) -> None:
    with OracleServer(vllm(api_key="right", models=("oracle",))) as server:
        batch = Batch(tmp_path, server, items=5)
        done = batch.run()
        assert done.returncode == 3
        assert "API key" in done.errors
        assert server.counters.requests == 1


def test_nobody_there_is_exit_4(batch: Batch) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{free.getsockname()[1]}/v1"
    words = ["batch", str(batch.input), "-o", str(batch.output), "-m", "oracle", "--base-url", url]
    done = batch.cli.run(*words)
    assert done.returncode == 4
    assert "Nothing answers" in done.errors


def test_item_timeout_keeps_the_partial_reply(tmp_path: Path) -> None:
    with OracleServer(vllm()) as server:
        batch = Batch(tmp_path, server, items=3, length=100)
        server.enqueue(Script(fault=Fault("stall", after_tokens=10), match=prompt(1, 100)))
        done = batch.run("--item-timeout", "5", "--canary", "0")
        assert done.returncode == 8, done.errors
        (error,) = batch.errors()
        assert error["llmctl"]["cause"] == "total"
        assert batch.server.expected(prompt(1, 100)).startswith(error["partial"]["content"])
        assert error["partial"]["tokens"] == 10
        assert batch.run().returncode == 0
        batch.assert_complete()
        assert server.counters.tokens <= 302  # a token of half a character is generated again


def test_idle_timeout_cuts_and_goes_on(tmp_path: Path) -> None:
    with OracleServer(vllm()) as server:
        batch = Batch(tmp_path, server, items=3)
        server.enqueue(Script(fault=Fault("stall", after_tokens=10), match=prompt(1, 30)))
        assert batch.run("--idle-timeout", "1").returncode == 0
        batch.assert_complete()
        assert server.counters.tokens <= 92  # a token of half a character is generated again


def test_deadline_is_exit_9_and_resumable(tmp_path: Path) -> None:
    with OracleServer(vllm()) as server:
        batch = Batch(tmp_path, server, items=4, length=100)
        server.enqueue(*[Script(fault=Fault("stall", after_tokens=10))] * 4)
        done = batch.run("--deadline", "2", "--canary", "0")
        assert done.returncode == 9, done.errors
        assert {row["llmctl"]["cause"] for row in batch.errors()} == {"deadline"}
        assert batch.run("--canary", "0").returncode == 0
        batch.assert_complete()


def test_budgets_are_exit_9(batch: Batch, server: OracleServer) -> None:
    done = batch.run("--max-requests", "2")
    assert done.returncode == 9
    assert server.counters.requests == 2
    assert batch.run("--max-output-tokens", "20", "--concurrency", "1").returncode == 9
    assert batch.cli.run(*batch.words("--max-cost", "1")).returncode == 2
    assert batch.run().returncode == 0
    batch.assert_complete()


def test_first_interrupt_drains_second_cuts(tmp_path: Path) -> None:
    with OracleServer(vllm()) as server:
        batch = Batch(tmp_path, server, items=6, length=60)
        server.enqueue(*[Script(hold_at=10)] * 4)
        with batch.start("--concurrency", "2", "--canary", "0") as process:
            server.wait_until(lambda counters: counters.held == 2, timeout_s=30)
            process.send_signal(signal.SIGINT)
            assert process.stderr.wait_for(b"stopping (SIGINT), 2 still running; Ctrl-C cuts", 30)
            server.release()
            done = process.wait(60)
        assert done.returncode == 130, done.errors
        assert len(batch.rows()) == 2
        with batch.start("--concurrency", "2", "--canary", "0") as process:
            server.wait_until(lambda counters: counters.held == 2, timeout_s=30)
            process.send_signal(signal.SIGINT)
            assert process.stderr.wait_for(b"stopping (SIGINT), 2 still running; Ctrl-C cuts", 30)
            process.send_signal(signal.SIGINT)
            done = process.wait(60)
        assert done.returncode == 130, done.errors
        assert len(batch.errors()) == 2
        assert batch.run("--concurrency", "6").returncode == 0
        batch.assert_complete()


def test_sigterm_drains_for_the_grace(tmp_path: Path) -> None:
    with OracleServer(vllm(delay_s=0.05)) as server:
        batch = Batch(tmp_path, server, items=3, length=400)
        with batch.start("--canary", "0", "--grace", "500ms") as process:
            server.wait_until(lambda counters: counters.tokens > 10, timeout_s=30)
            process.send_signal(signal.SIGTERM)
            began = time.monotonic()
            done = process.wait(60)
        assert done.returncode == 143, done.errors
        assert time.monotonic() - began < 10
        assert {row["llmctl"]["cause"] for row in batch.errors()} == {"SIGTERM"}


def test_second_process_is_told(tmp_path: Path) -> None:
    with OracleServer(vllm()) as server:
        batch = Batch(tmp_path, server, items=3, length=200)
        server.enqueue(*[Script(hold_at=5)] * 3)
        with batch.start("--canary", "0") as process:
            server.wait_until(lambda counters: counters.held == 3, timeout_s=30)
            second = batch.run()
            assert second.returncode == 2
            assert f"pid {process.pid}" in second.errors
            assert socket.gethostname() in second.errors
            status = json.loads(batch.cli.run("batch", "status", str(batch.output), "--json").text)
            assert status["live"]["pid"] == process.pid
            process.send_signal(signal.SIGKILL)
            process.wait(30)


def test_retry_after_holds_the_whole_endpoint(tmp_path: Path) -> None:
    """Three of four places are taken: the next request comes in that of the one refused."""
    with OracleServer(vllm()) as server:
        batch = Batch(tmp_path, server, items=8)
        fault = Fault("http", status=429, retry_after="2")
        server.enqueue(Script(fault=fault, match=prompt(3, 30)))
        server.enqueue(*(Script(hold_at=1, match=prompt(n, 30)) for n in range(3)))
        with batch.start("--concurrency", "4", "--canary", "0") as process:
            server.wait_until(lambda counters: counters.requests == 5, timeout_s=30)
            server.release()
            assert process.wait(30).returncode == 0
        batch.assert_complete()
        (refusal,) = [record for record in server.requests if record.status == 429]
        assert refusal.ended_ns is not None
        later = [r for r in server.requests if r.number != refusal.number and not is_early(r)]
        assert len(later) == 5
        assert min(r.arrived_ns for r in later) >= refusal.ended_ns + 2_000_000_000


def is_early(record: Record) -> bool:
    return any(prompt(n, 30) in json.dumps(record.body) for n in range(3))


def test_a_rate_is_kept_from_the_first_request_on(tmp_path: Path, server: OracleServer) -> None:
    # A server that is late to see the first sees the sixth too soon after it; hardly thrice.
    took = (seconds_of_six(tmp_path / str(number), server) for number in range(3))
    assert any(seconds >= 1.2 for seconds in took)  # two at once, then each half a second


def seconds_of_six(folder: Path, server: OracleServer) -> float:
    batch = Batch(folder, server, items=6, length=12)
    assert batch.run("--rpm", "120", "--canary", "0").returncode == 0
    arrived = [request.arrived_ns for request in server.requests[-6:]]
    return (arrived[5] - arrived[0]) / 1e9


def test_shards_and_merge(batch: Batch, tmp_path: Path) -> None:
    pattern = str(tmp_path / "part-{shard}.jsonl")
    assert batch.cli.run("batch", str(batch.input), "-o", "x.jsonl", "--shard", "0/3",
                         "-m", "oracle/oracle").returncode == 2  # fmt: skip
    for index in range(3):
        done = batch.cli.run("batch", str(batch.input), "-o", pattern, "--shard", f"{index}/3",
                             "-m", "oracle/oracle")  # fmt: skip
        assert done.returncode == 0, done.errors
    parts = [str(tmp_path / f"part-{index}.jsonl") for index in range(3)]
    merged = batch.cli.run("batch", "merge", "-o", str(batch.output), "--order", "input",
                           "--input", str(batch.input), *reversed(parts))  # fmt: skip
    assert merged.returncode == 0, merged.errors
    batch.assert_complete()
    assert [row["custom_id"] for row in batch.rows()] == [f"row-{n}" for n in range(6)]


def test_dry_run_asks_nothing(batch: Batch, server: OracleServer) -> None:
    done = batch.run("--dry-run", "--max-tokens", "100", "--price", "1,10", "--json")
    assert done.returncode == 0
    told: dict[str, Any] = json.loads(done.text)
    assert told["items"] == 6
    assert told["max_output_tokens"] == 600
    assert told["max_cost"] > 0.006
    assert server.counters.requests == 0
    assert not batch.output.exists()
    assert not batch.state.exists()


def test_events(batch: Batch) -> None:
    done = batch.run("--json")
    events = [json.loads(line) for line in done.text.splitlines()]
    assert events[0]["type"] == "started"
    assert sum(event["type"] == "item" for event in events) == 6
    assert (events[-1]["type"], events[-1]["exit_code"]) == ("finished", 0)


@pytest.mark.skipif(os.geteuid() == 0, reason="root writes everywhere")
def test_read_only_output_is_told(batch: Batch, tmp_path: Path) -> None:
    batch.output.touch(0o400)
    done = batch.run("--state", str(tmp_path / "state"))
    assert done.returncode == 2


def test_markers(batch: Batch, server: OracleServer) -> None:
    server.enqueue(
        Script(inserts={3: "!!STOP"}, match=prompt(1, 12)),
        Script(inserts={3: "!!PAUSE"}, match=prompt(2, 12)),
    )
    assert batch.run("--marker", "!!STOP=stop", "--marker", "!!PAUSE=pause").returncode == 0
    rows = {row["custom_id"]: row for row in batch.rows()}
    assert rows["row-1"]["llmctl"]["markers"][0]["action"] == "stop"
    assert rows["row-2"]["llmctl"]["markers"][0]["marker"] == "!!PAUSE"
    assert "!!" not in content(rows["row-1"]) + content(rows["row-2"])


@pytest.mark.parametrize(("tokens", "trim"), [(True, False), (False, False), (False, True)])
def test_every_cut_goes_on_as_if_there_had_been_none(
    tmp_path: Path, *, tokens: bool, trim: bool
) -> None:
    with OracleServer(vllm(tokens=tokens, trim=trim)) as server:
        batch = Batch(tmp_path, server, items=40, length=40)
        server.enqueue(
            *(Script(fault=Fault("cut", after_tokens=n), match=f"question {n} ") for n in range(40))
        )
        assert batch.run("--concurrency", "8").returncode == 0
        batch.assert_complete()
        resumed = sum(bool(row["llmctl"]["resumes"]) for row in batch.rows())
        assert resumed >= 25


def test_a_cut_behind_a_blank_goes_on_behind_the_same_tokens(tmp_path: Path) -> None:
    with OracleServer(vllm()) as server:
        batch = Batch(tmp_path, server, items=15, length=60)
        batch.write([14])  # its 17th token is '": ', which no text without the blank spells
        server.enqueue(Script(fault=Fault("cut", after_tokens=17), match=prompt(14, 60)))
        assert batch.run().returncode == 0
        batch.assert_complete([14])
        (resume,) = batch.rows()[0]["llmctl"]["resumes"]
        assert (resume["strategy"], resume["guarantee"]) == ("tokens", "token")
        assert resume["position"]["tokens"] == 17


def test_token_ids_are_in_the_body_only_where_the_row_asks_for_them(batch: Batch) -> None:
    asking = [batch.row(0), batch.row(1, return_token_ids=True)]
    batch.input.write_text("".join(f"{json.dumps(row)}\n" for row in asking))
    assert batch.run().returncode == 0
    bodies = {row["custom_id"]: row["response"]["body"] for row in batch.rows()}
    assert "token_ids" not in json.dumps(bodies["row-0"])
    assert len(bodies["row-1"]["choices"][0]["token_ids"]) >= 12
    assert bodies["row-1"]["prompt_token_ids"]


def responses(folder: Path, server: OracleServer, **body: Any) -> Batch:
    """Return a batch of six rows for the Responses API."""
    batch = Batch(folder, server, items=6, length=40)
    lines = [
        {
            "custom_id": f"row-{n}",
            "url": "/v1/responses",
            "body": {"input": prompt(n, 40), "model": "oracle", **body},
        }
        for n in range(6)
    ]
    batch.input.write_text("".join(f"{json.dumps(line)}\n" for line in lines))
    return batch


@pytest.mark.parametrize("keeping", [Keeping.KEPT, Keeping.TOO_OLD, Keeping.WHOLE])
def test_responses_in_the_background_are_read_on(tmp_path: Path, keeping: Keeping) -> None:
    settings = Settings(features=(Feature.RESPONSES,), keeping=keeping)
    with OracleServer(settings) as server:
        batch = responses(tmp_path, server, background=True)
        server.enqueue(
            *(Script(fault=Fault("cut", after_tokens=5 + n), match=prompt(n, 40)) for n in (1, 2)),
        )
        done = batch.run()
        assert done.returncode == 0, done.errors
        texts = {
            row["custom_id"]: row["response"]["body"]["output"][-1]["content"][0]["text"]
            for row in batch.rows()
        }
        assert texts == batch.expected()
        resumes = {row["custom_id"]: row["llmctl"]["resumes"] for row in batch.rows()}
        for name in ("row-1", "row-2"):
            (resume,) = resumes[name]
            assert (resume["strategy"], resume["guarantee"]) == ("cursor", "exact")
        assert server.counters.tokens == 6 * 40


def wait_until_text_is_noted(batch: Batch, items: int) -> None:
    """Wait until there is text of so many items in what the batch has noted of running ones."""
    deadline = time.monotonic() + 30
    while len(set(re.findall(r'^\["got",(\d+),"[^"]', noted(batch), re.MULTILINE))) < items:
        assert time.monotonic() < deadline, noted(batch)
        time.sleep(0.01)


def noted(batch: Batch) -> str:
    return "".join(file.read_text() for file in batch.state.glob("live-*.jsonl"))


def test_a_killed_batch_reads_its_responses_on(tmp_path: Path) -> None:
    settings = Settings(features=(Feature.RESPONSES,))
    with OracleServer(settings) as server:
        batch = responses(tmp_path, server, background=True)
        server.enqueue(*[Script(hold_at=20)] * 6)
        with batch.start("--canary", "0") as process:
            server.wait_until(lambda counters: counters.held == 6, timeout_s=30)
            wait_until_text_is_noted(batch, 6)
            process.send_signal(signal.SIGKILL)
            process.wait(30)
        server.release()
        assert batch.run("--canary", "0").returncode == 0
        strategies = [row["llmctl"]["resumes"][0]["strategy"] for row in batch.rows()]
        assert strategies == ["cursor"] * 6
        assert server.counters.tokens == 6 * 40


def test_a_response_that_its_server_has_lost_is_asked_for_again(tmp_path: Path) -> None:
    settings = Settings(features=(Feature.RESPONSES,), keeping=Keeping.LOST)
    with OracleServer(settings) as server:
        batch = responses(tmp_path, server, background=True)
        server.enqueue(Script(fault=Fault("cut", after_tokens=7), match=prompt(1, 40)))
        assert batch.run().returncode == 0
        facts = {row["custom_id"]: row["llmctl"] for row in batch.rows()}
        assert facts["row-1"]["resumes"] == []
        assert facts["row-1"]["wasted_tokens"] > 0


@pytest.mark.parametrize(
    "features",
    [
        (Feature.USAGE, Feature.LOGPROBS),
        (Feature.USAGE, Feature.TIMINGS),
        (Feature.USAGE, Feature.TOKEN_IDS),
        (Feature.USAGE, Feature.CONTINUOUS_USAGE),
    ],
    ids=lambda features: features[-1],
)
def test_a_probe_changes_no_body(tmp_path: Path, features: tuple[Feature, ...]) -> None:
    """What counts tokens for our own sake is no part of what the row asked for."""
    bodies, sent = [], []
    with OracleServer(Settings(features=features)) as server:
        for name in ("before", "after"):
            folder = tmp_path / name
            folder.mkdir()
            batch = Batch(folder, server, items=1, length=12)
            config = Path(batch.cli.env["LLMCTL_HOME"]) / "config.toml"
            config.write_text(f'[profiles.oracle]\nbase_url = "{server.base_url}"\n')
            batch.write([0], seed=1)
            if name == "after":
                assert batch.cli.run("models", "probe", "-m", "oracle/oracle").returncode == 0
            assert batch.run().returncode == 0
            sent.append(server.requests[-1].body)
            bodies.append(comparable(batch.rows()[0]["response"]["body"]))
    assert bodies[0] == bodies[1]
    assert "logprobs" not in sent[1]  # many times the bytes, for what the usage tells at the end


def test_a_bound_holds_over_a_cut_where_tokens_are_not_told(tmp_path: Path) -> None:
    """A piece counts as a token then, however many pieces came in one read."""
    settings = Settings(prefill=Prefill.CONTINUE_FINAL_MESSAGE, features=(Feature.USAGE,))
    with OracleServer(settings) as server:
        batch = Batch(tmp_path, server, items=1, length=60)
        config = Path(batch.cli.env["LLMCTL_HOME"]) / "config.toml"
        config.write_text(
            f'[profiles.oracle]\nbase_url = "{server.base_url}"\n'
            'prefix = "continue_final_message"\n'
        )
        batch.write([0], max_tokens=40)
        pieces = Script(text="word " * 60, fault=Fault("cut", after_tokens=20))
        server.enqueue(pieces)
        assert batch.run().returncode == 0
        (resume,) = batch.rows()[0]["llmctl"]["resumes"]
        assert resume["strategy"] == "prefix"
        assert server.requests[-1].body["max_tokens"] < 40 - 10


def test_a_wrong_model_that_was_refused_is_no_obstacle(batch: Batch) -> None:
    words = ["batch", str(batch.input), "-o", str(batch.output), "-m"]
    refused = batch.cli.run(*words, "oracle/nosuch")
    assert refused.returncode == 3
    assert batch.run().returncode == 0
    batch.assert_complete()


def test_another_model_is_told_as_such(batch: Batch) -> None:
    assert batch.run().returncode == 0
    words = ["batch", str(batch.input), "-o", str(batch.output), "-m"]
    refused = batch.cli.run(*words, "oracle/other", "--temperature", "0.5")
    assert refused.returncode == 2
    assert "-m (was 'oracle', is 'other'), --temperature." in refused.errors
    assert "--accept-changed" in refused.errors
    assert batch.run().returncode == 0  # as it was: nothing to do


def test_what_was_begun_is_not_begun_anew_unasked(batch: Batch, server: OracleServer) -> None:
    faults = [Script(fault=Fault("cut", after_tokens=5)) for _ in range(9)]
    server.enqueue(*faults)
    assert batch.run("--retries", "0", "--max-failures", "0").returncode == 9
    assert not batch.rows()
    refused = batch.run("--max-tokens", "9")
    assert refused.returncode == 2
    assert "--max-tokens" in refused.errors
