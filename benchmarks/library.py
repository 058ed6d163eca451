"""What the library costs, as ratios to the same thing done with anyio or asyncio alone.

Run ``python benchmarks/library.py``. Each figure compares two programs that run in
turns in one process, by processor time where nobody waits, and is the median of the rounds'
ratios. Times are not printed: they say more about the machine than about the library.

    limit   what
    3.00    enter and leave ``with_timeout`` / ``anyio.move_on_after``
    1.25    an item of ``stream`` / an item of a pass-through async generator
    1.50    ``import cancelable_core`` / ``import anyio``, over a bare interpreter
    1.25    memory of a live operation with its task / the same with a bare scope
    1.50    cancel from a thread to wake-up / ``call_soon_threadsafe`` to wake-up

With ``--check`` the exit code says whether every limit holds.

Where the library that this field has today is installed, it takes part (it needs Python 3.13):
all but the waking from a thread, for which it has to be set up in another way.
"""

from __future__ import annotations

import asyncio
import compileall
import contextlib
import gc
import importlib.util
import json
import resource
import statistics
import subprocess
import sys
import threading
import time
import tracemalloc
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from dataclasses import dataclass
from typing import Any

import anyio

from cancelable_core import Cancelable, CancelationToken

CLOCK = time.thread_time  # what other programs take does not count
ROUNDS = 101
Program = Callable[[], Awaitable[float]]


@dataclass(frozen=True)
class Library:
    """A library that takes part.

    Attributes:
        package: what is imported.
        cancelable: its operations.
        token: its tokens.
        suffix: what stands behind the names of its figures.
    """

    package: str
    cancelable: Any
    token: Any
    suffix: str = ""


OURS = Library("cancelable_core", Cancelable, CancelationToken)


def libraries() -> list[Library]:
    """Return ours, and the peer where it is installed."""
    if importlib.util.find_spec("hother") is None:
        return [OURS]
    peer = importlib.import_module("hother.cancelable")
    return [OURS, Library(peer.__name__, peer.Cancelable, peer.CancelationToken, " (the peer)")]


async def ratio(ours: Program, theirs: Program, rounds: int = ROUNDS) -> float:
    """The median of ``ours / theirs``, in turns."""
    await ours()
    await theirs()
    gc.collect()
    gc.disable()
    try:
        return statistics.median([await ours() / await theirs() for _ in range(rounds)])
    finally:
        gc.enable()


# -- enter and leave ---------------------------------------------------------------------


def blocks(make: Callable[[], Any], number: int = 60) -> Program:
    """Enter and leave ``make()``: the seconds it takes."""

    async def with_async() -> float:
        start = CLOCK()
        for _ in range(number):
            async with make():
                pass
        return CLOCK() - start

    async def with_sync() -> float:
        start = CLOCK()
        for _ in range(number):
            with make():
                pass
        return CLOCK() - start

    return with_async if hasattr(make(), "__aenter__") else with_sync


async def entering(library: Library) -> dict[str, float]:
    bare = blocks(lambda: anyio.move_on_after(30))
    kind, token = library.cancelable, library.token()
    variants: dict[str, Callable[[], Any]] = {
        "with_timeout": lambda: kind.with_timeout(30),
        "with_token": lambda: kind.with_token(token),
        "timeout.combine(token)": lambda: kind.with_timeout(30).combine(kind.with_token(token)),
    }
    if sniff() == "asyncio" and library is OURS:
        variants["asyncio.timeout"] = lambda: asyncio.timeout(30)
    return {name: await ratio(blocks(make), bare) for name, make in variants.items()}


def sniff() -> str:
    """The name of the running event loop."""
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return "trio"
    return "asyncio"


# -- streams -----------------------------------------------------------------------------


async def numbers(count: int) -> AsyncIterator[int]:
    for number in range(count):
        yield number


async def pass_through(source: AsyncIterator[int]) -> AsyncIterator[int]:
    async for item in source:
        yield item


async def consume(source: Any) -> float:
    start = CLOCK()
    async for _ in source:
        pass
    return CLOCK() - start


async def streaming(library: Library, count: int = 20_000) -> dict[str, float]:
    async with library.cancelable() as cancel:

        async def ours() -> float:
            return await consume(cancel.stream(numbers(count), buffer_partial=False))

        async def buffered() -> float:
            return await consume(cancel.stream(numbers(count), buffer_partial=True))

        async def theirs() -> float:
            return await consume(pass_through(numbers(count)))

        return {
            "stream": await ratio(ours, theirs, 41),
            "stream, everything kept": await ratio(buffered, theirs, 41),
        }


# -- waking from a thread ------------------------------------------------------------------


async def waking(number: int = 1000) -> dict[str, float]:
    """Cancel an idle loop's operation from a plain thread, beside the loop's own call."""
    ours, theirs = [], []
    post = _native_post()
    for _ in range(number):
        ours.append(await _wake_by_cancel())
        theirs.append(await _wake_by_event(post))
    return {"cancel from a thread": statistics.median(ours) / statistics.median(theirs)}


def _native_post() -> Callable[[Callable[[], object]], object]:
    native: Any = anyio.lowlevel.current_token().native_token
    post: Any = getattr(native, "call_soon_threadsafe", None) or native.run_sync_soon
    return post  # type: ignore[no-any-return]


class _Stamp:
    at = 0.0


async def _wake_by_cancel() -> float:
    token, stamp = CancelationToken(), _Stamp()

    def cancel() -> None:
        stamp.at = time.perf_counter()
        token.cancel()

    async with Cancelable.with_token(token, when_cancelled="absorb"):
        thread = threading.Timer(0.0005, cancel)
        thread.start()
        try:
            await anyio.Event().wait()
        finally:
            woken = time.perf_counter()
    thread.join()
    return woken - stamp.at


async def _wake_by_event(post: Callable[[Callable[[], object]], object]) -> float:
    stamp = _Stamp()
    with anyio.CancelScope() as scope:

        def cancel() -> None:
            stamp.at = time.perf_counter()
            post(scope.cancel)

        thread = threading.Timer(0.0005, cancel)
        thread.start()
        try:
            await anyio.Event().wait()
        finally:
            woken = time.perf_counter()
    thread.join()
    return woken - stamp.at


# -- memory ------------------------------------------------------------------------------


async def memory(library: Library, number: int = 2000) -> dict[str, float]:
    async def bare(release: anyio.Event) -> None:
        with anyio.move_on_after(600):
            await release.wait()

    async def operation(release: anyio.Event) -> None:
        async with library.cancelable.with_timeout(600):
            await release.wait()

    await _bytes_a_task(operation, 50)
    theirs = await _bytes_a_task(bare, number)
    return {"a live operation": await _bytes_a_task(operation, number) / theirs}


async def _bytes_a_task(
    body: Callable[[anyio.Event], Coroutine[Any, Any, None]], number: int
) -> float:
    release = anyio.Event()
    gc.collect()
    async with anyio.create_task_group() as group:
        await anyio.wait_all_tasks_blocked()
        tracemalloc.start()
        for _ in range(number):
            group.start_soon(body, release)
        await anyio.wait_all_tasks_blocked()
        gc.collect()
        used = tracemalloc.get_traced_memory()[0]
        tracemalloc.stop()
        release.set()
    return used / number


# -- importing -----------------------------------------------------------------------------


def importing(rounds: int = 25) -> dict[str, float]:
    names = [library.package for library in libraries()]
    for name in ("anyio", *names):  # an installed package is compiled; a checkout may not be
        compileall.compile_dir(importlib.import_module(name).__path__[0], quiet=2)
    programs = ("", *(f"import {name}" for name in ("anyio", *names)))
    costs = [[_start(program) for program in programs] for _ in range(rounds)]
    bare, theirs, *each = (statistics.median(column) for column in zip(*costs, strict=True))
    return {
        f"import{library.suffix}": (cost - bare) / (theirs - bare)
        for library, cost in zip(libraries(), each, strict=True)
    }


def _start(code: str) -> float:
    """Processor seconds of an interpreter that runs ``code``."""
    before = _children()
    subprocess.run([sys.executable, "-c", code], check=True)  # noqa: S603  (ourselves)
    return _children() - before


def _children() -> float:
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


LIMITS = {
    "with_timeout": 3.0,
    "stream": 1.25,
    "import": 1.5,
    "a live operation": 1.25,
    "cancel from a thread": 1.5,
}


async def measure() -> dict[str, float]:
    """Measure everything that needs an event loop."""
    found = await waking()
    for library in libraries():
        for part in (entering, streaming, memory):
            figures = await part(library)
            found |= {f"{name}{library.suffix}": value for name, value in figures.items()}
    return found


def main() -> int:
    """Measure, print, and say whether the limits hold."""
    found: dict[str, dict[str, float]] = {"asyncio": anyio.run(measure)}
    with contextlib.suppress(LookupError, ImportError):
        found["trio"] = anyio.run(measure, backend="trio")
    found["process"] = importing()
    if "--json" in sys.argv:
        print(json.dumps(found, indent=2))
    broken = 0
    for loop, figures in found.items():
        for name, value in figures.items():
            limit = LIMITS.get(name)
            broken += limit is not None and value > limit
            verdict = "" if limit is None else f"  (limit {limit:.2f})"
            print(f"{loop:8} {name:34} {value:6.2f}{verdict}")
    return 1 if broken and "--check" in sys.argv else 0


if __name__ == "__main__":
    sys.exit(main())
