"""The real llama-server in a process of its own: xllamacpp's, as anybody might run it."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.support.engine import weights_or_skip

__all__ = ["llama_server"]

_SCRIPT = """
import sys, xllamacpp
model, slots, parallel, threads = sys.argv[1:]
params = xllamacpp.CommonParams()
params.model.path = model
params.n_ctx, params.n_parallel = 2048, int(parallel)
params.n_batch = params.n_ubatch = 128
params.cpuparams.n_threads = params.cpuparams_batch.n_threads = int(threads)
params.slot_save_path, params.endpoint_slots = slots, True
params.warmup = params.ui = False
params.verbosity = 0
server = xllamacpp.Server(params)
print(server.listening_address, flush=True)
sys.stdin.read()
"""


@contextmanager
def llama_server(*, slots: int = 1, threads: int = 2) -> Iterator[str]:
    """Run one on the embedded engine's weights; give its address.

    Args:
        slots: how many replies it generates at once.
        threads: threads that compute.
    """
    model = weights_or_skip()
    with tempfile.TemporaryDirectory(prefix="slots-") as folder:
        child = subprocess.Popen(
            [sys.executable, "-c", _SCRIPT, str(model), f"{folder}/", str(slots), str(threads)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env={"GOMP_SPINCOUNT": "1000"},
            text=True,
        )
        assert child.stdout is not None
        try:
            address = child.stdout.readline().strip()
            assert address, f"the server did not start: exit {child.wait(5)}"
            yield address
        finally:
            child.kill()
            child.communicate()
            assert Path(folder).is_dir()
