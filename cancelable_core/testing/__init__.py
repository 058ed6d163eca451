"""Tools for testing code that can be cancelled: virtual time, a recorder, scripted streams."""

from __future__ import annotations

from ._clock import VirtualTimeLoop, run_virtual, virtual_backend
from ._recorder import OperationRecorder
from ._simulator import SimulatedStream, StreamScript

__all__ = (
    "OperationRecorder",
    "SimulatedStream",
    "StreamScript",
    "VirtualTimeLoop",
    "run_virtual",
    "virtual_backend",
)
