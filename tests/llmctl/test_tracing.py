"""Spans of replies: what is in them, and what never is."""

from __future__ import annotations

import gzip
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from llmctl.events import (
    Action,
    Channel,
    Delta,
    End,
    Event,
    Finished,
    Guarantee,
    MarkerFound,
    Mode,
    Paused,
    PauseReason,
    Position,
    Problem,
    Resumed,
    Retrying,
    Started,
    Strategy,
    Timing,
    Usage,
)
from llmctl.tracing import Tracing, destination
from tests.e2e.conftest import Program
from tests.support.fake_environment import fake_environment

STARTED = Started("g1", "c1", "some-model", "oracle", "chat")
HERE = Position(3, 1)
SECRET = "sk-secret"  # noqa: S105  (planted)


def finished(end: End = End.COMPLETE, problem: Problem | None = None) -> Finished:
    timing = Timing(0.25, 2.0, 0.5, 10.0)
    return Finished("g1", end, end.resumable, "stop", HERE, Usage(7, 5, 12), timing, problem)


def span_of(*events: Event) -> ReadableSpan:
    """Return the one span that these events make."""
    exporter = InMemorySpanExporter()
    provider = TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    tracing = Tracing(provider)
    [watcher] = tracing.watchers()
    for event in events:
        watcher(event)
    tracing.close()
    [span] = exporter.get_finished_spans()
    return span


def test_a_span_is_a_reply_with_its_pauses() -> None:
    span = span_of(
        STARTED,
        Delta(Channel.CONTENT, "abc", HERE),
        Delta(Channel.CONTENT, "d", HERE),
        MarkerFound("!!PAUSE", Action.PAUSE, HERE),
        Paused(PauseReason.MARKER, Mode.HOLD, HERE),
        Resumed(Strategy.HELD, Guarantee.EXACT, HERE),
        Retrying("disconnected", 0.5, HERE),
        finished(),
    )
    assert span.name == "chat some-model"
    names = [event.name for event in span.events]
    assert names == ["first token", "marker", "paused", "resumed", "retrying"]
    assert dict(span.events[3].attributes or {}) == {
        "strategy": "held",
        "guarantee": "exact",
        "chars": 3,
    }
    facts = dict(span.attributes or {})
    assert facts["gen_ai.request.model"] == "some-model"
    assert facts["gen_ai.usage.output_tokens"] == 5
    assert facts["gen_ai.response.finish_reasons"] == ("stop",)
    assert (facts["llmctl.status"], facts["llmctl.first_token_s"]) == ("complete", 0.25)
    assert span.status.is_unset


def test_no_text_and_no_message_is_ever_in_it() -> None:
    span = span_of(
        STARTED,
        Delta(Channel.CONTENT, f"the reply {SECRET}", HERE),
        Delta(Channel.REASONING, f"the thought {SECRET}", HERE),
        MarkerFound(f"!!{SECRET}", Action.PAUSE, HERE),
        Retrying(f"the server said {SECRET}", 0.5, HERE),
        finished(End.REFUSED, Problem("refused", f"wrong key {SECRET}", SECRET)),
    )
    assert SECRET not in span.to_json()
    assert (span.status.is_ok, span.status.description) == (False, "refused")


@pytest.mark.parametrize(
    ("variables", "name"),
    [
        ({}, None),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:4318"}, "otlp"),
        ({"OTEL_TRACES_EXPORTER": "console"}, "console"),
        ({"OTEL_TRACES_EXPORTER": "none", "OTEL_EXPORTER_OTLP_ENDPOINT": "http://x"}, None),
        ({"OTEL_SDK_DISABLED": "true", "OTEL_TRACES_EXPORTER": "otlp"}, None),
    ],
)
def test_where_they_go(variables: dict[str, str], name: str | None, tmp_path: Path) -> None:
    with fake_environment(tmp_path, **variables) as fake:
        assert destination(fake.env) == name


class _Collector(BaseHTTPRequestHandler):
    taken: list[ExportTraceServiceRequest]

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        if self.headers.get("Content-Encoding") == "gzip":
            body = gzip.decompress(body)
        self.taken.append(ExportTraceServiceRequest.FromString(body))
        self.send_response(200)
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002  (the base's)
        """Say nothing."""


@contextmanager
def collector() -> Iterator[tuple[str, list[ExportTraceServiceRequest]]]:
    """A collector on this machine, and what it was sent."""
    taken: list[ExportTraceServiceRequest] = []
    handler = type("Handler", (_Collector,), {"taken": taken})
    with HTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}", taken
        finally:
            server.shutdown()
            thread.join()


@pytest.mark.slow
def test_the_program_sends_them(tmp_path: Path) -> None:
    program = Program(tmp_path)
    model = program.script("one two three")
    with collector() as (url, taken):
        env = {"OTEL_EXPORTER_OTLP_ENDPOINT": url}
        done = program.run("run", "-m", model, "--pause-after", "2", "a question", env=env)
        assert (done.returncode, done.text) == (5, "one two")
        assert program.run("resume", env=env).text == " three"
    spans = [
        span
        for request in taken
        for resource in request.resource_spans
        for scope in resource.scope_spans
        for span in scope.spans
    ]
    assert [[event.name for event in span.events] for span in spans] == [
        ["first token", "paused"],
        ["resumed", "first token"],
    ]
    sent = " ".join(str(request) for request in taken)
    assert "one two" not in sent
    assert "a question" not in sent


@pytest.mark.slow
def test_a_collector_that_is_gone_changes_nothing_but_a_moment(tmp_path: Path) -> None:
    program = Program(tmp_path)
    env = {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:9"}
    done = program.run("run", "-m", program.script("one two"), "hi", "--json", env=env)
    assert (done.returncode, done.errors) == (0, "")
    assert json.loads(done.text.splitlines()[-1])["status"] == "complete"
    assert done.seconds < 10


@pytest.mark.slow
def test_verbose_says_what_happens_and_stdout_stays_the_reply(tmp_path: Path) -> None:
    program = Program(tmp_path)
    model = program.script("one two three")
    done = program.run("--verbose", "run", "-m", model, "--pause-after", "2", "a question")
    assert done.text == "one two"
    for told in ("asking scripted for", "the first text is here", "paused by limit at 2 tok"):
        assert told in done.errors
    assert "exit 5, resumable" in done.errors
    assert "a question" not in done.errors
