"""What ``llmctl batch`` makes of servers that refuse, break, stall or queue.

Its throughput beside what they allow, while enough is left to be asked (nine of ten requests).

Three servers, each in a process of its own, in real time:

- *storm*: of all requests 30 % are refused with Retry-After, 10 % are a 500, 5 % are cut, 5 %
  stall, and one row in a thousand never gets a reply that can be read. Each refusal closes the
  server for as long as it says, so what it allows is one full house of requests in that time
  (``--concurrency`` of them, but for the places of those that stall).
- *rate*: so many requests a second are let through, the others are told to come back; what is let
  through fares as in the storm. It allows its rate (``--concurrency auto``).
- *queue*: so many requests are worked on, the others wait in a queue without end. It allows what
  the best fixed ``--concurrency`` gets out of it.

``python benchmarks/batch_storm.py [storm rate queue] [--scale X]``
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

HERE = Path(__file__)
TOKENS = 5
TOKEN_S = 0.1
REPLY_S = TOKENS * TOKEN_S
RETRY_AFTER_S = 1.0
IDLE_S = 1.0
REFUSED, FAILED, CUT, STALLED = 0.30, 0.10, 0.05, 0.05
WIDTH = 24
"""Requests at a time in the storm."""
RATE = 40.0
"""Requests a second that the rate limit lets through."""
PLACES = 40
"""Requests that the queueing server works on."""
FIXED = (20, 40, 80)
ON_ITS_WAY_S = 0.5
"""A request may have been written before a refusal was read, on a busy machine."""
POISON = "question 7."

HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"


def text_of(prompt: str) -> list[str]:
    """Return the reply to a prompt, in tokens."""
    return [f" {prompt.partition('.')[0].split()[-1]}-{n}" for n in range(TOKENS)]


# --- The server


@dataclass
class Server:
    """Answers, and keeps count.

    Attributes:
        kind: storm, rate or queue.
    """

    kind: str
    refusals: list[float] = field(default_factory=list)
    arrivals: list[float] = field(default_factory=list)
    taken: list[float] = field(default_factory=list)

    def __post_init__(self) -> None:
        """Begin with a full bucket and empty places."""
        self.chance = random.Random(1)  # noqa: S311
        self.places = asyncio.Semaphore(PLACES if self.kind == "queue" else 1 << 20)
        self.bucket, self.filled_at = RATE, time.monotonic()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Answer the requests of one connection."""
        try:
            while await self._one(reader, writer):
                pass
        except (ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError):
            pass  # it left, or all is over
        finally:
            writer.close()

    async def _one(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        head = (await reader.readuntil(b"\r\n\r\n")).lower()
        length = int(head.split(b"content-length: ")[1].split(b"\r\n")[0])
        body = json.loads(await reader.readexactly(length))
        prompt = str(body["messages"][-1]["content"])
        self.arrivals.append(time.monotonic())
        fate = self._fate()
        if fate == "refuse":
            self.refusals.append(time.monotonic())
            writer.write(_error(429, f"Retry-After: {RETRY_AFTER_S}\r\n"))
            return True
        self.taken.append(time.monotonic())
        if fate == "fail":
            writer.write(_error(500))
            return True
        async with self.places:
            return await self._reply(writer, prompt, fate)

    def _fate(self) -> str:
        if self.kind == "queue":
            return "reply"
        shares = {"fail": FAILED, "cut": CUT, "stall": STALLED}
        if self.kind == "storm":
            shares["refuse"] = REFUSED
        elif not self._let_through():
            return "refuse"
        fates = [*shares, "reply"]
        return self.chance.choices(fates, [*shares.values(), 1 - sum(shares.values())])[0]

    def _let_through(self) -> bool:
        now = time.monotonic()
        self.bucket = min(RATE, self.bucket + (now - self.filled_at) * RATE)
        self.filled_at = now
        if self.bucket < 1:
            return False
        self.bucket -= 1
        return True

    async def _reply(self, writer: asyncio.StreamWriter, prompt: str, fate: str) -> bool:
        writer.write(HEAD)
        for number, token in enumerate(text_of(prompt)):
            if fate == "cut" and number == TOKENS // 3:
                return False
            if fate == "stall" and number == TOKENS // 3:
                await asyncio.sleep(3600)
            writer.write(_event({"content": token}))
            await writer.drain()
            await asyncio.sleep(TOKEN_S)
        poisoned = self.kind != "queue" and POISON in prompt
        garbage = _chunked(b"data: {not json\n\n") if poisoned else b""
        writer.write(garbage + _event({}, "stop") + _chunked(b"data: [DONE]\n\n") + b"0\r\n\r\n")
        return True

    def told(self) -> dict[str, Any]:
        """Return what was counted."""
        after_s = [at - end for at in self.arrivals for end in self.refusals]
        early = [s for s in after_s if ON_ITS_WAY_S < s < RETRY_AFTER_S]
        bulk = self.taken[: len(self.taken) * 9 // 10]
        return {
            "requests": len(self.arrivals),
            "refused": len(self.refusals),
            "early": len(early),
            "latest": max(early, default=0.0),
            "rate": (len(bulk) - 1) / (bulk[-1] - bulk[0]),
            "span_s": self.taken[-1] - self.taken[0],
        }


def _error(status: int, more: str = "") -> bytes:
    body = b'{"error":{"message":"no","type":"x"}}'
    return f"HTTP/1.1 {status} X\r\n{more}Content-Length: {len(body)}\r\n\r\n".encode() + body


def _chunked(data: bytes) -> bytes:
    return f"{len(data):x}\r\n".encode() + data + b"\r\n"


def _event(delta: dict[str, str], finish: str | None = None) -> bytes:
    choice = {"index": 0, "delta": delta, "finish_reason": finish}
    return _chunked(b"data: " + json.dumps({"id": "c", "choices": [choice]}).encode() + b"\n\n")


async def serve(kind: str) -> None:
    """Serve until stdin closes; then print what was counted."""
    counts = Server(kind)
    server = await asyncio.start_server(counts.serve, "127.0.0.1", 0, backlog=4096)
    print(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/v1", flush=True)
    await asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)
    print(json.dumps(counts.told()), flush=True)


# --- The client


def run(kind: str, items: int, concurrency: str) -> dict[str, Any]:
    """Run a batch on a fresh server; return what both say."""
    words = [sys.executable, str(HERE), "--serve", kind]
    server = subprocess.Popen(  # noqa: S603
        words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert server.stdin is not None  # noqa: S101
    assert server.stdout is not None  # noqa: S101
    url = server.stdout.readline().strip()
    with tempfile.TemporaryDirectory() as folder:
        source, output = Path(folder, "in.jsonl"), Path(folder, "out.jsonl")
        prompts = [f"question {n}." for n in range(items)]
        rows = (json.dumps({"id": prompt, "prompt": prompt}) for prompt in prompts)
        source.write_text("".join(f"{row}\n" for row in rows))
        words = [sys.executable, "-m", "llmctl", "--home", folder, "batch", str(source), "-o",
                 str(output), "-m", "m", "--base-url", url, "--concurrency", concurrency,
                 "--canary", "0", "--idle-timeout", f"{IDLE_S}s", "--retries", "8"]  # fmt: skip
        done = subprocess.run(words, check=False, capture_output=True, text=True)  # noqa: S603
        assert done.returncode in {0, 8}, done.stderr  # noqa: S101
        _check(output, prompts)
    server.stdin.close()
    told = dict(json.loads(server.stdout.read()))
    server.wait()
    return told


def _check(output: Path, prompts: list[str]) -> None:
    """See that every item has ended, complete ones with their text, all but the poisoned one."""
    rows = [json.loads(line) for line in output.read_text().splitlines()]
    failed = Path(f"{output}.errors.jsonl").read_text().splitlines()
    errors = [json.loads(line) for line in failed]
    assert sorted(row["custom_id"] for row in rows + errors) == sorted(prompts)  # noqa: S101
    assert all(row["custom_id"] == POISON for row in errors), errors[:3]  # noqa: S101
    for row in rows:
        said = row["response"]["body"]["choices"][0]["message"]["content"]
        assert said == "".join(text_of(row["custom_id"])), row  # noqa: S101


def storm(items: int) -> None:
    """Compare with a full house for each Retry-After, but for the places that stalls hold."""
    told = run("storm", items, str(WIDTH))
    allowed = WIDTH / (RETRY_AFTER_S / (1 - REFUSED) + STALLED * IDLE_S)
    _say("storm", told, allowed)


def rate(items: int) -> None:
    """Compare with the rate."""
    _say("rate", run("rate", items, "auto"), RATE)


def queue(items: int) -> None:
    """Compare with the best fixed number."""
    took = {
        concurrency: run("queue", items, concurrency)["span_s"] + REPLY_S
        for concurrency in (*map(str, FIXED), "auto")
    }
    best = min((s, name) for name, s in took.items() if name != "auto")
    print(f"queue        auto takes {took['auto'] / best[0]:.2f} of the time of --concurrency "
          f"{best[1]} (at most 1.10); {', '.join(f'{n}: {s:.1f} s' for n, s in took.items())}",
          flush=True)  # fmt: skip


def _say(name: str, told: dict[str, Any], allowed: float) -> None:
    print(
        f"{name:12} {told['rate'] / allowed:.2f} of what is allowed (at least 0.70):"
        f" {told['rate']:.0f} of {allowed:.0f} requests a second taken; {told['requests']} sent,"
        f" {told['refused']} refused, {told['early']} before their time"
        f" (the latest {told['latest']:.2f} s behind a refusal)",
        flush=True,
    )


KINDS = {"storm": (storm, 500), "rate": (rate, 900), "queue": (queue, 2400)}
"""The questions, and for how many items they are asked."""


def main() -> None:
    """Compare, or be a server."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--serve", help=argparse.SUPPRESS)
    parser.add_argument("--scale", type=float, default=1.0, help="how long to look")
    parser.add_argument("kinds", nargs="*", default=list(KINDS))
    arguments = parser.parse_args()
    if arguments.serve:
        asyncio.run(serve(arguments.serve))
        return
    for kind in arguments.kinds:
        question, items = KINDS[kind]
        question(int(items * arguments.scale))


if __name__ == "__main__":
    main()
