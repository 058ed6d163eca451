"""Tools for testing code that can be cancelled: virtual time, a recorder, scripted streams."""

from __future__ import annotations

from ._clock import VirtualTimeLoop, run_virtual, virtual_backend

__all__ = ("VirtualTimeLoop", "run_virtual", "virtual_backend")
