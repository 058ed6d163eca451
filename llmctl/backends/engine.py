"""The embedded engine as seen from here: a child process, its life and its HTTP.

`Engine` starts the child, waits for it, holds it, talks to it and ends it; what is said is
the back end's business (`llmctl.backends.embedded`). A child that has died is replaced by
the next `start`. Every request has a connection of its own: on a reused one llama.cpp's
server now and then hangs up on the request behind a stream.
"""

from __future__ import annotations

import asyncio
import importlib
import json
import os
import secrets
import signal
import subprocess
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import anyio

from llmctl.backends.engine_errors import check
from llmctl.environment import open_private, private_dir, running_interpreter
from llmctl.errors import Disconnected, Unreachable

if TYPE_CHECKING:
    import httpx2

LOG_LIMIT_BYTES = 256 * 1024
"""What the engine may have said on stderr before its log starts anew."""

LAST_WORD_S = 0.2
"""Seconds to wait for the exit code of a child that hung up."""

END_WAIT_S = 5.0
"""Seconds given to the kernel to take a killed engine away."""

_CHILD = Path(__file__).with_name("engine_child.py")


def default_threads() -> int:
    """Return how many threads the engine gets: four processors, or half, and at most 16."""
    count = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    processors = count or 1
    return min(processors, max(4, processors // 2), 16)


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineSettings:
    """What fixes the engine's arithmetic, besides the weights.

    Attributes:
        context: tokens that prompt and reply may have together.
        batch: prompt tokens evaluated at once; also how long a cut has to wait at most.
        threads: threads that compute.
    """

    context: int = 4096
    batch: int = 128
    threads: int = field(default_factory=default_threads)


class Engine:
    """A child process with one model.

    Args:
        settings: sizes and threads.
        home: a directory for its log and for slot states; None writes nothing to disk.
    """

    def __init__(self, settings: EngineSettings, home: Path | None = None) -> None:
        self.settings = settings
        self.home = home
        self.facts: Mapping[str, Any] = {}
        self._process: subprocess.Popen[bytes] | None = None
        self._client: httpx2.AsyncClient | None = None
        self._secret = ""
        self._lock = anyio.Lock()

    @property
    def slots(self) -> Path | None:
        """Where slot states are kept; None where nothing may be written."""
        return None if self.home is None else self.home / "slots"

    @property
    def log(self) -> Path | None:
        """What the engine said on stderr lately."""
        return None if self.home is None else self.home / "engine.log"

    @property
    def pid(self) -> int | None:
        """The child's process id while it lives."""
        process = self._process
        return None if process is None or process.poll() is not None else process.pid

    def start(self, model: Path) -> None:
        """Start a child that loads a GGUF file, if there is none; return at once."""
        if self.pid is not None:
            return
        self._close_pipes()
        self._secret = secrets.token_urlsafe(32)
        self._client = None
        with _stderr(self.log) as stderr:
            self._process = subprocess.Popen(  # noqa: S603  (our own script)
                [running_interpreter(), "-P", str(_CHILD)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=stderr,
                process_group=0,
            )
        os.write(_descriptor(self._process.stdin), json.dumps(self._order(model)).encode() + b"\n")

    async def ready(self) -> None:
        """Wait until it answers requests.

        Raises:
            Unreachable: it is not installed, can't load the file, or died.
        """
        async with self._lock:
            if self._client is None:
                await asyncio.to_thread(importlib.import_module, "httpx2")  # while it loads
                self.facts = await self._hello()
                self._client = _client(self.facts["url"], self._secret)

    def hold(self) -> bool:
        """Stop the child where it is; False if there is none."""
        return self._signal(signal.SIGSTOP)

    def release(self) -> None:
        """Let a held child go on."""
        self._signal(signal.SIGCONT)

    async def ask(self, path: str, body: Mapping[str, Any] | None = None) -> Any:  # noqa: ANN401  (JSON)
        """Send one request and return the JSON answer; GET where there is no body.

        Raises:
            Refused: the engine said no.
            Disconnected: it is gone.
        """
        method = "GET" if body is None else "POST"
        response = await self._send(self._http.build_request(method, path, json=body))
        check(response.status_code, response.content)
        return response.json()

    @asynccontextmanager
    async def stream(self, path: str, body: Mapping[str, Any]) -> AsyncIterator[httpx2.Response]:
        """Send a request whose answer is a stream; leaving closes its connection.

        Raises:
            Refused: the engine said no.
            Disconnected: it is gone.
        """
        request = self._http.build_request("POST", path, json=body)
        response = await self._send(request, stream=True)
        try:
            if response.is_error:
                check(response.status_code, await response.aread())
            yield response
        finally:
            with anyio.CancelScope(shield=True):
                await response.aclose()

    async def _send(self, request: httpx2.Request, *, stream: bool = False) -> httpx2.Response:
        """Send a request; once more if the engine hangs up without a word."""
        import httpx2  # noqa: PLC0415  (100 ms that commands without an engine don't pay)

        try:
            try:
                return await self._http.send(request, stream=stream)
            except httpx2.RemoteProtocolError:
                return await self._http.send(request, stream=stream)
        except httpx2.TransportError as error:
            raise await self.gone() from error

    async def gone(self) -> Disconnected:
        """Return the error that says how the child was lost."""
        with anyio.move_on_after(LAST_WORD_S):
            await self._ended()
        code = None if self._process is None else self._process.poll()
        how = "does not answer" if code is None else f"ended unexpectedly ({_how(code)})"
        hint = None if self.log is None else f"Its log is {self.log}."
        return Disconnected(f"The embedded engine {how}.", hint)

    async def aclose(self) -> None:
        """End the child at once."""
        client, self._client = self._client, None
        with anyio.CancelScope(shield=True):
            if client is not None:
                await client.aclose()
            await self.kill()

    async def kill(self) -> None:
        """Kill the child and wait until it is gone; held or not, computing or not."""
        self._client = None
        if self._process is None:
            return
        self._process.kill()
        with anyio.move_on_after(END_WAIT_S):
            await self._ended()
        self._close_pipes()
        self._process = None

    async def _ended(self) -> None:
        while self.pid is not None:  # noqa: ASYNC110  (another process's state)
            await anyio.sleep(0.002)

    def _close_pipes(self) -> None:
        process = self._process
        for pipe in () if process is None else (process.stdin, process.stdout):
            if pipe is not None:
                pipe.close()

    @property
    def _http(self) -> httpx2.AsyncClient:
        if self._client is None:
            raise Disconnected("The embedded engine was ended.")
        return self._client

    def _signal(self, number: int) -> bool:
        if self._process is None or self._process.poll() is not None:
            return False
        self._process.send_signal(number)
        return True

    def _order(self, model: Path) -> dict[str, Any]:
        slots = "" if self.slots is None else f"{private_dir(self.slots)}{os.sep}"
        return {
            "model": str(model),
            "secret": self._secret,
            "context": self.settings.context,
            "batch": self.settings.batch,
            "threads": self.settings.threads,
            "slots": slots,
            "parent": os.getpid(),
        }

    async def _hello(self) -> Mapping[str, Any]:
        process = self._process
        line = await _line(_descriptor(None if process is None else process.stdout))
        answer = json.loads(line) if line else {}
        if "url" in answer:
            return dict(answer)
        await self.kill()
        raise self._failure(answer)

    def _failure(self, answer: Mapping[str, Any]) -> Unreachable:
        if answer.get("error") in ("ImportError", "ModuleNotFoundError"):
            return Unreachable(
                "The embedded engine is not installed.",
                "Install it with: pip install 'llmctl[local]'",
            )
        where = "Try --verbose." if self.log is None else f"The engine's log is {self.log}."
        return Unreachable("The embedded engine can't load this model.", where)


def _descriptor(pipe: IO[bytes] | None) -> int:
    if pipe is None:
        raise Unreachable("The embedded engine was closed while it was starting.", "Try again.")
    return pipe.fileno()


async def _line(descriptor: int) -> bytes:
    """Read up to a line's end or the pipe's."""
    line = b""
    while not line.endswith(b"\n"):
        await anyio.wait_readable(descriptor)
        piece = os.read(descriptor, 65536)
        if not piece:
            break
        line += piece
    return line


def _client(url: str, secret: str) -> httpx2.AsyncClient:
    import httpx2  # noqa: PLC0415  (as above)

    return httpx2.AsyncClient(
        base_url=url,
        headers={"Authorization": f"Bearer {secret}"},
        timeout=None,  # time limits are the session's, and a held engine is silent for long
        limits=httpx2.Limits(max_keepalive_connections=0),
        trust_env=False,
    )


def _stderr(log: Path | None) -> IO[Any]:
    if log is None:
        return Path(os.devnull).open("wb")  # the caller closes it
    private_dir(log.parent)
    file = open_private(log, "ab")
    if os.fstat(file.fileno()).st_size > LOG_LIMIT_BYTES:
        file.truncate(0)
    return file


def _how(code: int) -> str:
    return signal.Signals(-code).name if code < 0 else f"exit {code}"
