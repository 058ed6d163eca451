"""Each test of a defect fails when the library is broken in that place.

A copy of the library is broken with one replacement, and the test is run on the copy.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow
HERE = Path(__file__).parent
ROOT = HERE.parents[1]

# defect: (file, what stands there, what breaks it)
BREAKS: dict[str, tuple[str, str, str]] = {
    "d1": ("_loops.py", "        loop.call_soon_threadsafe(callback)\n", "        pass\n"),
    "d2": (
        "_token.py",
        "            raise error_for(cause, self.name)\n",
        '            raise TypeError("trio.Cancelled has no public constructor")\n',
    ),
    "d3": ("_token.py", "            link.close()\n", "            pass\n"),
    "d4": (
        "_deadline.py",
        "        if now + seconds < self.expires:\n",
        "        if True:\n",
    ),
    "d4b": (
        "_operation.py",
        "            sources=tuple(source for member in members for source in member._sources),\n",
        "            sources=(),\n",
    ),
    "d5": ("_composites.py", "        self._host.run(expire)\n", "        del expire\n"),
    "d6": (
        "_background.py",
        "        await self._group.__aexit__(None, None, None)\n",
        "        pass\n",
    ),
    "d7": ("_hooks.py", "FINAL_SECONDS, shield=True", "FINAL_SECONDS"),
    "d8": (
        "_signals.py",
        "            if not remaining:\n",
        "            if True:\n",
    ),
    "d9": ("_sources.py", "        if inspect.isawaitable(answer):\n", "        if False:\n"),
    "d10": (
        "_stream.py",
        "            if causes:\n                await self._until_stopped()\n",
        "",
    ),
    "d11": (
        "_control.py",
        "        won = self._decide(cause)\n",
        "        won = self._decide(cause)\n        [token.cancel() for token in self._upstream]\n",
    ),
    "d12": (
        "_decorators.py",
        "sources=() if timeout is None else",
        "sources=() if not timeout else",
    ),
    "d13": (
        "_operation.py",
        '        self._require_pending("entered")\n',
        "        pass\n",
    ),
    "d14": (
        "_control.py",
        "        return min(own, parent.deadline) if parent._loop == self._loop else own\n",
        "        return own\n",
    ),
    "d15": (
        "_threads.py",
        "    return _thread_token.get() or current_operation()\n",
        "    return None\n",
    ),
    "d16": (
        "integrations/asgi.py",
        "            self._inbox.append(message)\n",
        "            pass\n",
    ),
    "d17": (
        "_operation.py",
        "                raise error_for(cause, self.label) from raised\n",
        "                return False\n",
    ),
    "d18": (
        "_token.py",
        (
            "        # Announced by losers too: the winner may have been interrupted half-way.\n"
            "        self._announce()\n"
            "        return self._causes[0] is cause\n"
        ),
        (
            "        if self._causes[0] is cause:\n"
            "            self._announce()\n"
            "        return self._causes[0] is cause\n"
        ),
    ),
    "d19": (
        "_operation.py",
        '            member._require_pending("combined")\n',
        "            pass\n",
    ),
    "d20": (
        "../examples/06_llm/01_llm_streaming.py",
        "            if self._marker.startswith(self._held[-size:]):\n",
        "            if False:\n",
    ),
}


@pytest.mark.parametrize("defect", BREAKS)
def test_it_fails_on_a_broken_build(defect: str, tmp_path: Path) -> None:
    name, whole, broken = BREAKS[defect]
    shutil.copytree(ROOT / "cancelable_core", tmp_path / "cancelable_core")
    shutil.copytree(ROOT / "examples", tmp_path / "examples")
    target = tmp_path / "cancelable_core" / name
    source = target.read_text()
    assert source.count(whole) >= 1, f"{name} no longer has the line that this breaks"
    target.write_text(source.replace(whole, broken))
    tests = tmp_path / "tests" / "core"
    tests.mkdir(parents=True)
    for each in ("conftest.py", "test_defects.py"):
        shutil.copy(HERE / each, tests)
    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "pytest",
            "-q",
            "-x",
            "-p",
            "no:cacheprovider",
            "-k",
            f"test_{defect}_",
            ".",
        ],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 1, done.stdout + done.stderr
    assert "failed" in done.stdout
