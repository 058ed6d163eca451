"""OpenTelemetry spans of replies, for who installed the ``otel`` extra and says where they go.

The places are OpenTelemetry's own variables: ``OTEL_TRACES_EXPORTER`` (``otlp`` or
``console``), ``OTEL_EXPORTER_OTLP_ENDPOINT`` and its kin. Without any, nothing is imported and
nothing is sent. A span is this process's share of one reply; names follow the semantic
conventions for generative models. No text of a prompt or a reply, no message of a server and
no key is ever in it.
"""

from __future__ import annotations

import importlib.util
import logging
import threading
from typing import TYPE_CHECKING

from llmctl._version import __version__
from llmctl.environment import Environment
from llmctl.events import Delta, Event, Finished, MarkerFound, Paused, Resumed, Retrying, Started
from llmctl.watched import Watcher

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import SpanExporter
    from opentelemetry.trace import Span, Tracer
    from opentelemetry.util.types import AttributeValue

CLOSE_S = 2.0
"""Seconds that spans still have to get out when the program ends."""

_ENDPOINTS = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT")


def destination(env: Environment) -> str | None:
    """Return the name of the exporter that the environment asks for; None if it asks for none."""
    if env.flag("OTEL_SDK_DISABLED"):
        return None
    named = env.variable("OTEL_TRACES_EXPORTER")
    if named is None:
        return "otlp" if any(map(env.variable, _ENDPOINTS)) else None
    return named if named in ("otlp", "console") else None


def is_installed() -> bool:
    """Say whether the ``otel`` extra is here."""
    return importlib.util.find_spec("opentelemetry") is not None


class Tracing:
    """Makes spans of replies, or none.

    Args:
        provider: where spans go; None makes none.
    """

    def __init__(self, provider: TracerProvider | None = None) -> None:
        self._provider = provider

    @classmethod
    def of(cls, env: Environment) -> Tracing:
        """Return what the environment asks for."""
        name = destination(env)
        if name is None or not is_installed():
            return cls()
        return cls(_provider(name))

    def watchers(self) -> tuple[Watcher, ...]:
        """Return what makes the span of one reply."""
        if self._provider is None:
            return ()
        return (ReplySpan(self._provider.get_tracer("llmctl", __version__)),)

    def close(self) -> None:
        """Send what is there; a collector that does not answer holds nobody up for long."""
        if self._provider is not None:
            closing = threading.Thread(target=self._provider.shutdown, daemon=True)
            closing.start()
            closing.join(CLOSE_S)


def _provider(name: str) -> TracerProvider:
    from opentelemetry.sdk.resources import Resource  # noqa: PLC0415  (only where it is wanted)
    from opentelemetry.sdk.trace import TracerProvider  # noqa: PLC0415
    from opentelemetry.sdk.trace.export import BatchSpanProcessor  # noqa: PLC0415

    # What it would say about a collector that is gone belongs on nobody's terminal.
    logging.getLogger("opentelemetry").addHandler(logging.NullHandler())
    resource = Resource.create({"service.name": "llmctl", "service.version": __version__})
    provider = TracerProvider(resource=resource, shutdown_on_exit=False)
    provider.add_span_processor(BatchSpanProcessor(_exporter(name)))
    return provider


def _exporter(name: str) -> SpanExporter:
    if name == "console":
        import sys  # noqa: PLC0415  (stdout is the reply's)

        from opentelemetry.sdk.trace.export import ConsoleSpanExporter  # noqa: PLC0415

        return ConsoleSpanExporter(out=sys.stderr)
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import (  # noqa: PLC0415
        OTLPSpanExporter,
    )

    return OTLPSpanExporter()


class ReplySpan:
    """The span of one reply: begun, first token, pauses, resumes, tries, ended."""

    def __init__(self, tracer: Tracer) -> None:
        self._tracer = tracer
        self._span: Span | None = None
        self._came = False

    def __call__(self, event: Event) -> None:
        """Take an event."""
        if isinstance(event, Started):
            self._begin(event)
        if self._span is not None:
            self._take(event, self._span)

    def _begin(self, event: Started) -> None:
        from opentelemetry.trace import SpanKind  # noqa: PLC0415  (only where it is wanted)

        self._span = self._tracer.start_span(
            f"chat {event.model}",
            kind=SpanKind.CLIENT,
            attributes={
                "gen_ai.operation.name": "chat",
                "gen_ai.provider.name": event.backend,
                "gen_ai.request.model": event.model,
                "gen_ai.conversation.id": event.conversation,
                "llmctl.generation": event.generation,
                "llmctl.api": event.api,
            },
        )

    def _take(self, event: Event, span: Span) -> None:
        match event:
            case Delta():
                if not self._came:
                    self._came = True
                    span.add_event("first token")
            case MarkerFound(_, action):
                span.add_event("marker", {"action": str(action)})
            case Paused(reason, mode, position):
                why = {"reason": str(reason), "mode": str(mode)}
                span.add_event("paused", {**why, "chars": position.chars})
            case Resumed(strategy, guarantee, position):
                how = {"strategy": str(strategy), "guarantee": str(guarantee)}
                span.add_event("resumed", {**how, "chars": position.chars})
            case Retrying(_, delay_s):
                span.add_event("retrying", {"delay_s": delay_s})
            case Finished():
                self._end(event, span)

    def _end(self, event: Finished, span: Span) -> None:
        from opentelemetry.trace import Status, StatusCode  # noqa: PLC0415

        span.set_attributes(_figures(event))
        if event.problem is not None:
            span.set_attribute("error.type", event.problem.kind)
            span.set_status(Status(StatusCode.ERROR, event.end.cause))
        span.end()
        self._span = None


def _figures(event: Finished) -> dict[str, AttributeValue]:
    usage, position = event.usage, event.position
    figures: dict[str, AttributeValue | None] = {
        "llmctl.status": str(event.end.status),
        "llmctl.cause": event.end.cause,
        "llmctl.resumable": event.resumable,
        "llmctl.chars": position.chars,
        "llmctl.tokens": position.tokens,
        "llmctl.first_token_s": event.timing.first_token_s,
        "llmctl.paused_s": event.timing.paused_s,
        "gen_ai.response.finish_reasons": (event.finish_reason,) if event.finish_reason else None,
        "gen_ai.usage.input_tokens": usage.prompt_tokens if usage else None,
        "gen_ai.usage.output_tokens": usage.completion_tokens if usage else None,
    }
    return {name: value for name, value in figures.items() if value is not None}
