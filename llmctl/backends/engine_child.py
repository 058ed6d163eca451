"""The process in which the model runs: llama.cpp's own server, on the loopback device only.

It is started by `llmctl.backends.engine` as a plain script and imports nothing of ours.
One JSON line on stdin says what to load and holds the secret (arguments and variables of
a process can be read by others, a pipe cannot); one JSON line on stdout answers with the
address, or with what went wrong. After that it only waits for the end of stdin.

It never outlives its parent, in three ways. stdin ends when the parent does. Linux kills
it even while it is stopped (``PR_SET_PDEATHSIG``; that is tied to the *thread* that
started it). Elsewhere a stopped process group that is orphaned gets SIGHUP and SIGCONT
(POSIX, "Orphaned Process Group"), which is why it has a group of its own in the session
of its parent, and why SIGHUP has its default action here even under nohup.
"""

from __future__ import annotations

import ctypes
import json
import os
import signal
import sys
from typing import Any

_PR_SET_PDEATHSIG = 1
_CHANGE_ARITHMETIC = ("OMP_", "GOMP_", "GGML_", "LLAMA_")


def main() -> None:
    """Serve until stdin ends."""
    hello = _own_stdout()
    os.umask(0o077)
    signal.signal(signal.SIGHUP, signal.SIG_DFL)
    order = json.loads(_first_line())
    _die_with(order["parent"])
    _set_variables()
    try:
        server, answer = _serve(order)
    except (ImportError, RuntimeError) as error:
        _say(hello, {"error": type(error).__name__, "message": str(error)})
        os._exit(1)
    _say(hello, answer)
    while os.read(0, 4096):
        pass
    os._exit(0)  # without the native destructors: nothing here needs them
    del server


def _serve(order: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
    """Load the model and listen; return the server and what the parent must know.

    Raises:
        ImportError: the engine is not installed.
        RuntimeError: the engine can't load this file.
    """
    import xllamacpp  # noqa: PLC0415  (its absence is one of the answers)

    server = xllamacpp.Server(_parameters(xllamacpp.CommonParams(), order))
    devices = [device["description"] for device in xllamacpp.get_device_info()]
    return server, {
        "url": server.listening_address,
        "version": xllamacpp.__version__,
        "build": xllamacpp.BUILD_INFO,
        "system": xllamacpp.get_system_info().strip(),
        "devices": devices,
    }


def _parameters(params: Any, order: dict[str, Any]) -> Any:  # noqa: ANN401  (a native type)
    """Fix everything that the arithmetic depends on, and open nothing but one slot."""
    params.model.path = order["model"]
    params.api_keys = [order["secret"]]
    params.n_ctx = order["context"]
    params.n_batch = params.n_ubatch = order["batch"]
    params.cpuparams.n_threads = params.cpuparams_batch.n_threads = order["threads"]
    params.n_parallel = 1
    params.slot_save_path = order["slots"]
    params.cache_ram_mib = 0  # no second cache that would decide where a turn starts
    params.n_ctx_checkpoints = 0
    params.fit_params = False  # no sizes that depend on the memory that happens to be free
    params.warmup = False
    params.ui = False
    params.endpoint_slots = True
    params.timeout_read = params.timeout_write = 10**6  # seconds; it may be stopped for long
    params.verbosity = 2  # warnings
    return params


def _own_stdout() -> int:
    """Return a descriptor for the answer, and make native code's stdout its stderr."""
    hello = os.dup(1)
    os.dup2(2, 1)
    return hello


def _first_line() -> bytes:
    line = b""
    while not line.endswith(b"\n"):
        piece = os.read(0, 65536)
        if not piece:
            os._exit(0)
        line += piece
    return line


def _die_with(parent: int) -> None:
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != parent:  # it went before we asked
        os._exit(0)


def _set_variables() -> None:
    """Drop what would change the arithmetic, and let waiting threads go to sleep soon.

    OpenMP threads that spin for long while they wait make an engine several times slower
    as soon as something else wants a processor (docs/engine.md).
    """
    for name in list(os.environ):
        if name.startswith(_CHANGE_ARITHMETIC):
            del os.environ[name]
    os.environ["GOMP_SPINCOUNT"] = "1000"


def _say(descriptor: int, answer: dict[str, Any]) -> None:
    os.write(descriptor, json.dumps(answer).encode() + b"\n")
    os.close(descriptor)


if __name__ == "__main__":
    main()
