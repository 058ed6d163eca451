"""What well-formed input looks like, for each target: mutations of it go deepest."""

from __future__ import annotations

import json
import re
import tempfile
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType

from llmctl.batch.journal import LiveJournal
from llmctl.batch.kept import Kept
from llmctl.conversation import Message, Request
from llmctl.events import (
    Action,
    Channel,
    Chunk,
    End,
    Guarantee,
    MarkerFound,
    Mode,
    Paused,
    PauseReason,
    Position,
    Resumed,
    Strategy,
    Timing,
    Usage,
)
from llmctl.journal import Header, Journal
from llmctl.received import Received
from llmctl.turn import Mark
from tests.support.markdown_corpus import CORPUS


def _chunk(**choice: object) -> str:
    event = {
        "id": "x",
        "object": "chat.completion.chunk",
        "model": "m",
        "choices": [{"index": 0, **choice}],
        "usage": {"prompt_tokens": 3, "completion_tokens": 2, "total_tokens": 5},
    }
    return json.dumps(event)


_CHUNKS = (
    _chunk(delta={"role": "assistant", "content": "a"}, token_ids=[1]),
    _chunk(delta={"content": [{"type": "text", "text": "b"}], "reasoning": "c"}),
    _chunk(
        delta={"content": "\ud83d", "tool_calls": [{"index": 0, "function": {"name": "f"}}]},
        logprobs={"content": [{"token": "a", "bytes": [97], "logprob": -1, "top_logprobs": []}]},
    ),
    _chunk(delta={}, text="d", finish_reason="stop", prompt_token_ids=[1, 2]),
    json.dumps({"type": "response.output_text.delta", "delta": "e"}),
    json.dumps(
        {
            "type": "response.completed",
            "response": {"status": "completed", "output": [], "usage": {"input_tokens": 1}},
        }
    ),
    json.dumps({"error": {"message": "no", "code": 400}}),
    "[DONE]",
)


_TIMINGS = {"cache_n": 0, "prompt_n": 3, "predicted_n": 1}
_PIECES = (
    json.dumps({"content": "a", "tokens": [5], "stop": False, "timings": _TIMINGS}),
    json.dumps(
        {"content": "", "tokens": [], "stop": True, "stop_type": "eos", "timings": _TIMINGS}
    ),
)
_TIMED_CHUNKS = (_chunk(delta={"role": "assistant", "content": None}), *(
    json.dumps({**json.loads(chunk), "timings": _TIMINGS})
    for chunk in (_chunk(delta={"content": "a"}), _chunk(delta={}, finish_reason="length"))
))  # fmt: skip


def _unsealed(journal: bytes) -> bytes:
    """Return it as version 1 wrote it: without checksums, which keep mutations out."""
    return re.sub(rb',"crc":\d+}', b"}", journal).replace(b'"journal":2', b'"journal":1')


def _journal() -> bytes:
    header = Header(
        generation="g1",
        conversation="c1",
        created=1.0,
        request=Request("m", (Message("user", "hi"),)),
        history=0,
        target={"profile": "x"},
        markers={"!!P": Action.PAUSE},
        command="run",
    )
    here, mark = Position(1, 1), Mark(1, 1, 1, 0)
    with tempfile.TemporaryDirectory() as folder:
        journal = Journal.create(Path(folder) / "g1.jsonl", header, lambda _error: None)
        journal.conditions({"seed": 7})
        journal.received(Chunk("a", tokens=1, ends=(1,), ids=(5,)))
        journal.received(Chunk("b", Channel.REASONING))
        journal.delivered(mark)
        journal.marker(MarkerFound("!!P", Action.PAUSE, here), mark)
        journal.paused(Paused(PauseReason.MARKER, Mode.HOLD, here))
        journal.resumed(Resumed(Strategy.HELD, Guarantee.EXACT, here))
        journal.saved({"slot": "x"})
        journal.bound(20)
        journal.received(Chunk("c", finish_reason="stop", usage=Usage(1, 2, 3)))
        journal.ended(End.COMPLETE, Timing(0.1, 1.0, 0.0, 5.0), resumable=False)
        journal.close()
        return journal.path.read_bytes()


def _batch_state() -> bytes:
    with tempfile.TemporaryDirectory() as folder:
        live = LiveJournal(Path(folder), lambda _error: None)
        item = live.item("row-0", bytes(16), Kept(), Received(), dict)
        item.received(Chunk("a", tokens=1, ids=(5,)))
        item.conditions({"seed": 7})
        item.resumed(Resumed(Strategy.TOKENS, Guarantee.TOKEN, Position(1, 1)))
        item.received(Chunk("b"))
        [path] = Path(folder).iterdir()
        data = path.read_bytes()
        live.close()
        return data


_LINES = (
    {"custom_id": "a", "method": "POST", "url": "/v1/chat/completions",
     "body": {"model": "m", "messages": [{"role": "user", "content": "hi"}], "n": 1}},
    {"custom_id": "b", "method": "POST", "url": "/v1/responses", "body": {"input": "hi"}},
    {"custom_id": "c", "method": "POST", "url": "/v1/completions", "body": {"prompt": "hi"}},
    {"id": "d", "prompt": "hi", "vars": {"a": "b"}, "metadata": {}, "temperature": 0.5},
    {"id": 5, "messages": [{"role": "user", "content": "hi"}], "max_tokens": 4, "stop": ["x"]},
)  # fmt: skip

SEEDS: Mapping[str, tuple[bytes, ...]] = MappingProxyType(
    {
        "sse": (b": hi\nid: 1\nevent: add\nretry: 5\ndata: one\ndata\r\n\r\rdata: two\n\n",),
        "chunked": (b"3\r\nabc\r\n2;x=y\r\nde\r\n0\r\nTrailer: x\r\n\r\n",),
        "events": ("\n".join(_CHUNKS).encode(),),
        "engine": ("\n".join(_PIECES).encode(), "\n".join(_TIMED_CHUNKS).encode()),
        "error_body": (
            b'{"error": {"message": "wrong key sk-planted", "code": "x", "type": ["y"]}}',
            b'{"detail": [{"msg": "maximum context length is 8 tokens, however you asked for 9"}]}',
            b"120",
            b"Wed, 21 Oct 2015 07:28:00 GMT",
        ),
        "journal": (_journal(), _unsealed(_journal())),
        "batch_line": tuple(json.dumps(line).encode() for line in _LINES),
        "batch_state": (_batch_state(),),
        "keys": (b"a\x1b[A\x1b[1;5C\x1b[200~pasted\x1b[201~\x1bOP\xc3\xa9\x1b[<0;1;1M\x1b",),
        "terminal": ("a\x1b[31mb\x9b0m\u202ec\r\nd\x07".encode(),),
        "markdown": tuple(f"P{text}".encode() for text in CORPUS.values()),
        "markers": (b"a !!PAUSE b\n```py\n!!P\n```\n!!P `` c",),
        "config_file": (
            b'timeout = "5m"\ncolor = "never"\n[profiles.x]\npreset = "vllm"\nbase_url = "http://x"\n',
            b'+++\ndescription = "d"\n[options]\ntemperature = 0.5\n+++\n{{ prompt }}',
            b'+++\n[markers]\n"!!P" = "pause"\n[variables]\nname = "x"\n+++\nhello {{ name }}',
        ),
        "key_file": (b'{"keys": {"groq": "sk"}, "keyring": ["openai"]}', b'{"groq": "sk"}'),
    }
)
"""Well-formed input by the target's name."""
