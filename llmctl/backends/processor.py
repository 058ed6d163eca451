"""Which processor this is, as far as an engine's choice of kernels depends on it."""

from __future__ import annotations

import hashlib
import platform
from pathlib import Path


def processor() -> dict[str, str]:
    """Return the architecture, the processor's name and a hash of its features."""
    described = _described()
    name = described.get("model name") or platform.processor() or "unknown"
    features = described.get("flags") or described.get("Features") or ""
    return {
        "machine": platform.machine(),
        "name": name,
        "features": hashlib.sha256(features.encode()).hexdigest()[:16],
    }


def _described() -> dict[str, str]:
    """Return what Linux says about the first processor; nothing elsewhere."""
    try:
        text = Path("/proc/cpuinfo").read_text("utf-8", "replace")
    except OSError:
        return {}
    pairs = (line.partition(":") for line in text.split("\n\n", 1)[0].splitlines())
    return {name.strip(): value.strip() for name, _, value in pairs}
