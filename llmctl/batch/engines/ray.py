"""Workers as actors of Ray: on this machine, or on the cluster that ``RAY_ADDRESS`` names.

Ray places the actors, starts their processes and says when one has died; it keeps no state that
matters. Of a Ray that is started here nothing listens beyond this machine, nothing is reported to
anybody, and it ends with this process, however that ends.
"""

from __future__ import annotations

import logging
import os
import shutil
import signal
import tempfile
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from typing import Any

from llmctl.batch.engines.crew import WorkerLost
from llmctl.batch.engines.worker import Brief, Order, Report, Worker
from llmctl.errors import UsageError

MOST = 16
"""Workers at most: one process hands out the work, and is busy with about as many."""

_STORE_BYTES = 100 * 1024 * 1024
_ALONE = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",  # what makes Ray listen on the loopback alone
}


class RayCluster:
    """A cluster of Ray; made in the main thread, with whose end a Ray started here ends.

    Attributes:
        size: how many workers it has room for: one for each CPU, `MOST` at the most.

    Args:
        address: the cluster's; None starts one on this machine.

    Raises:
        UsageError: Ray is not installed, or there is no such cluster.
    """

    def __init__(self, address: str | None) -> None:
        if not address:
            os.environ.update(_ALONE)
        try:
            import ray  # noqa: PLC0415  (an extra)
        except ImportError as error:
            raise UsageError(
                "--engine ray needs Ray.", "Install it with: pip install 'llmctl[ray]'."
            ) from error
        self._ray = ray
        self._folder = None if address else tempfile.mkdtemp(prefix="llmctl-ray-")
        with _signals_kept():
            self._start(address)
        self.size = min(MOST, max(1, int(ray.cluster_resources().get("CPU", 1))))
        self._actor = ray.remote(Worker).options(
            num_cpus=1, max_restarts=0, max_concurrency=1000, scheduling_strategy="SPREAD"
        )

    def hire(self, brief: Brief) -> RayHand:
        """Start an actor."""
        return RayHand(self._ray, self._actor.remote(brief))

    def close(self) -> None:
        """Leave the cluster; one that was started here ends."""
        self._ray.shutdown()
        if self._folder is not None:
            shutil.rmtree(self._folder, ignore_errors=True)

    def _start(self, address: str | None) -> None:
        quiet = {"log_to_driver": False, "logging_level": logging.ERROR}
        try:
            if address:
                self._ray.init(address, **quiet)
                return
            self._ray.init(
                "local",
                include_dashboard=False,
                object_store_memory=_STORE_BYTES,
                _temp_dir=self._folder,
                **quiet,
            )
        except (ConnectionError, RuntimeError, ValueError) as error:
            raise UsageError(f"Ray can't be used: {error}", "Is RAY_ADDRESS right?") from error


class RayHand:
    """An actor, as seen from here; see `llmctl.batch.engines.crew.Hand`."""

    def __init__(self, ray: Any, actor: Any) -> None:  # noqa: ANN401  (Ray has no useful types)
        self._ray = ray
        self._actor = actor

    async def take(self, orders: list[Order]) -> None:
        """Give it orders."""
        await self._call(lambda: self._actor.take.remote(orders))

    async def report(self) -> Report:
        """Wait for its next report."""
        told: Report = await self._call(self._actor.report.remote)
        return told

    async def leave(self) -> None:
        """Let it close what is open."""
        await self._call(self._actor.leave.remote)

    def kill(self) -> None:
        """End its process."""
        self._ray.kill(self._actor)

    async def _call(self, method: Callable[[], Awaitable[Any]]) -> Any:  # noqa: ANN401
        try:
            return await method()
        except self._ray.exceptions.RayActorError as error:
            raise WorkerLost(str(error)) from error


@contextmanager
def _signals_kept() -> Iterator[None]:
    """Put back the handlers of signals that Ray replaces by its own."""
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
