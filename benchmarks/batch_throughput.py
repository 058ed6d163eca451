"""Tokens a CPU-second: ``llmctl batch`` beside the usual loop and a bare client.

The server (`fast_server.py`) has one core, the client the other; each client runs in a
process of its own and says how much CPU its work took (imports left out). All kinds at one
width share the machine's mood, so only their ratios mean something. With aiohttp installed
the bare client is measured, too.

``python benchmarks/batch_throughput.py [--streams 64,256,1000] [--tokens 100]``
"""

from __future__ import annotations

import argparse
import asyncio
import importlib.util
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

HERE = Path(__file__).parent
ROUNDS = 2
LEAST = 512
"""Requests; with fewer, what a run does once would hide what it does a thousand times."""
KINDS = ("openai", "llmctl", "aiohttp")


def cpu_s() -> float:
    """Return the CPU seconds of this process so far."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


def messages(number: int) -> list[dict[str, str]]:
    """Return what request ``number`` asks."""
    return [{"role": "user", "content": f"question {number}"}]


# --- The clients


async def openai_loop(url: str, streams: int, requests: int) -> int:
    """Read replies with the package's typed streams."""
    import httpx2  # noqa: PLC0415
    import openai  # noqa: PLC0415

    limits = httpx2.Limits(max_connections=streams, max_keepalive_connections=streams)
    client = openai.AsyncOpenAI(
        base_url=url, api_key="x", http_client=openai.DefaultAsyncHttpxClient(limits=limits)
    )
    count = 0

    async def worker(numbers: list[int]) -> None:
        nonlocal count
        for number in numbers:
            stream = await client.chat.completions.create(
                model="m",
                messages=messages(number),  # type: ignore[arg-type]
                stream=True,
                stream_options={"include_usage": True},
            )
            text = [
                chunk.choices[0].delta.content
                async for chunk in stream
                if chunk.choices and chunk.choices[0].delta.content
            ]
            count += len(text)

    await asyncio.gather(*(worker(list(range(n, requests, streams))) for n in range(streams)))
    return count


async def aiohttp_loop(url: str, streams: int, requests: int) -> int:
    """Read replies with as little as possible."""
    import aiohttp  # noqa: PLC0415

    count = 0
    connector = aiohttp.TCPConnector(limit=0)
    async with aiohttp.ClientSession(connector=connector) as session:

        async def worker(numbers: list[int]) -> None:
            nonlocal count
            for number in numbers:
                body = {"model": "m", "messages": messages(number), "stream": True}
                async with session.post(f"{url}/chat/completions", json=body) as response:
                    rest, text = b"", []
                    async for data in response.content.iter_any():
                        *events, rest = (rest + data).split(b"\n\n")
                        for event in events:
                            if event[6:7] == b"{":
                                choices = json.loads(event[6:])["choices"]
                                if choices and (piece := choices[0]["delta"].get("content")):
                                    text.append(piece)
                    count += len(text)

        await asyncio.gather(*(worker(list(range(n, requests, streams))) for n in range(streams)))
    return count


def llmctl_batch(url: str, streams: int, requests: int) -> int:
    """Run a batch: journal, output and state on disk."""
    from llmctl.batch import Job, run  # noqa: PLC0415

    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder, "in.jsonl")
        rows = ({"id": str(n), "messages": messages(n)} for n in range(requests))
        source.write_text("".join(f"{json.dumps(row)}\n" for row in rows))
        job = Job(
            input=source,
            output=Path(folder, "out.jsonl"),
            base_urls=(url,),
            concurrency=streams,
            canary=0,
        )
        report = run(job, model="m")
        assert report.status == 0, report  # noqa: S101
        output = map(json.loads, Path(folder, "out.jsonl").read_text().splitlines())
        text = (row["response"]["body"]["choices"][0]["message"]["content"] for row in output)
        return sum(part.count(" token") for part in text)


def measure(kind: str, url: str, streams: int, requests: int) -> None:
    """Run one client here and print what it took."""
    os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
    for module in ("openai", "httpx2", "llmctl.batch", "llmctl.backends.wire_client"):
        if kind != "aiohttp":
            importlib.import_module(module)
    before, began = cpu_s(), time.monotonic()
    if kind == "llmctl":
        tokens = llmctl_batch(url, streams, requests)
    else:
        loop = openai_loop if kind == "openai" else aiohttp_loop
        tokens = asyncio.run(loop(url, streams, requests))
    peak_mb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(
        json.dumps(
            {
                "tokens": tokens,
                "cpu_s": cpu_s() - before,
                "wall_s": time.monotonic() - began,
                "peak_mb": peak_mb,
            }
        )
    )


# --- The comparison


def run_client(kind: str, url: str, streams: int, requests: int) -> dict[str, float]:
    """Measure one client in a process of its own."""
    words = [sys.executable, __file__, "--client", kind, url, str(streams), str(requests)]
    done = subprocess.run(words, check=True, capture_output=True, text=True)  # noqa: S603
    return dict(json.loads(done.stdout.splitlines()[-1]))


def compare(streams: int, tokens: int) -> None:
    """Print a row for each client at one width."""
    server = subprocess.Popen(  # noqa: S603
        [sys.executable, HERE / "fast_server.py", str(tokens)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: os.sched_setaffinity(0, {min(os.sched_getaffinity(0))}),  # noqa: PLW1509
    )
    assert server.stdout is not None  # noqa: S101
    url = server.stdout.readline().strip()
    usual = None
    try:
        for kind in KINDS:
            if kind == "aiohttp" and importlib.util.find_spec("aiohttp") is None:
                continue
            requests = max(streams * ROUNDS, LEAST)
            got = run_client(kind, url, streams, requests)
            assert got["tokens"] == requests * tokens, got  # noqa: S101
            each = got["tokens"] / got["cpu_s"]
            usual = usual or each
            print(
                f"{streams:5} streams  {kind:8} {each:9,.0f} tok/CPU-s  {each / usual:5.1f} x"
                f"  {got['wall_s']:6.1f} s  {got['peak_mb']:5.0f} MB",
                flush=True,
            )
    finally:
        server.kill()
        server.communicate()


def main() -> None:
    """Compare at every width, or be one client."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--client", nargs=4, help=argparse.SUPPRESS)
    parser.add_argument("--streams", default="64,256,1000")
    parser.add_argument("--tokens", type=int, default=100)
    arguments = parser.parse_args()
    if arguments.client:
        kind, url, streams, requests = arguments.client
        measure(kind, url, int(streams), int(requests))
        return
    for streams in map(int, arguments.streams.split(",")):
        compare(streams, arguments.tokens)


if __name__ == "__main__":
    main()
