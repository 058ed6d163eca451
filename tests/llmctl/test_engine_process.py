"""The engine's process: private, silent, and never left behind."""

from __future__ import annotations

import os
import socket
import stat
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from urllib.parse import urlsplit

import httpx2
import pytest

from llmctl.backends import engine as engine_module
from llmctl.backends.embedded import Embedded
from llmctl.backends.engine import LOG_LIMIT_BYTES, Engine, EngineSettings
from llmctl.errors import Disconnected, Unreachable
from llmctl.events import Strategy
from tests.support.engine import ask, weights_or_skip, whole

pytestmark = pytest.mark.anyio

ROOT = Path(__file__).parents[2]

SMALL = EngineSettings(context=256, threads=1)

PARENT = """
import signal, sys, time
from pathlib import Path
import anyio
from llmctl.backends.embedded import Embedded
signal.signal(signal.SIGHUP, signal.SIG_IGN)  # as under nohup
async def main():
    embedded = Embedded(Path(sys.argv[1]))
    await embedded.ready()
    if sys.argv[2] == "held":
        embedded.engine.hold()
    print(embedded.engine.pid, flush=True)
    await anyio.sleep_forever()
anyio.run(main)
"""


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


def eventually(holds: Callable[[], bool], seconds: float = 10.0) -> bool:
    """Wait until something holds."""
    end = time.monotonic() + seconds
    while not holds() and time.monotonic() < end:
        time.sleep(0.01)
    return holds()


def lives(pid: int) -> bool:
    """Say whether a process exists and is no zombie."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


@pytest.mark.engine
@pytest.mark.parametrize("state", ["running", "held"])
def test_it_goes_with_a_parent_that_is_killed(state: str) -> None:
    command = [sys.executable, "-c", PARENT, str(weights_or_skip()), state]
    with subprocess.Popen(command, stdout=subprocess.PIPE, cwd=ROOT) as parent:
        assert parent.stdout is not None
        pid = int(parent.stdout.readline())
        assert lives(pid)
        parent.kill()
    assert eventually(lambda: not lives(pid))


@pytest.mark.engine
def test_it_goes_with_a_parent_that_is_killed_while_it_loads() -> None:
    code = (
        "import os, sys; from pathlib import Path; from llmctl.backends.embedded import Embedded;"
        "e = Embedded(Path(sys.argv[1])); e.start(); print(e.engine.pid, flush=True);"
        "os.kill(os.getpid(), 9)"
    )
    command = [sys.executable, "-c", code, str(weights_or_skip())]
    done = subprocess.run(command, stdout=subprocess.PIPE, cwd=ROOT, check=False)
    assert eventually(lambda: not lives(int(done.stdout)))


@pytest.mark.engine
async def test_others_can_neither_read_its_secret_nor_use_it(tmp_path: Path) -> None:
    embedded = Embedded(weights_or_skip(), home=tmp_path, settings=SMALL)
    await embedded.ready()
    engine = embedded.engine
    assert engine.pid is not None
    process = Path(f"/proc/{engine.pid}")
    for place in ("cmdline", "environ"):
        assert engine._secret.encode() not in (process / place).read_bytes()
    url = str(engine.facts["url"])
    assert urlsplit(url).hostname == "127.0.0.1"
    async with httpx2.AsyncClient(base_url=url, trust_env=False) as client:
        for path in ("/completion", "/v1/chat/completions", "/tokenize", "/slots/0?action=save"):
            assert (await client.post(path, json={"prompt": "hi"})).status_code == 401
        assert (await client.get("/slots")).status_code == 401
        assert (await client.get("/props")).status_code == 401
    assert os.getpgid(engine.pid) == engine.pid != os.getpgid(0)
    assert os.getsid(engine.pid) == os.getsid(0)
    await embedded.aclose()


@pytest.mark.engine
async def test_what_it_writes_is_private_and_goes_to_its_log(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    home = tmp_path / "engine"
    embedded = Embedded(weights_or_skip(), home=home, settings=SMALL)
    request = ask("Tell me a story.", max_tokens=20)
    async with embedded.open(request) as stream:
        for _ in range(4):
            await anext(aiter(stream))
        assert await stream.save() is not None
    await embedded.aclose()
    modes = {stat.S_IMODE(file.stat().st_mode) for file in home.rglob("*") if file.is_file()}
    assert modes == {0o600}
    assert {stat.S_IMODE(d.stat().st_mode) for d in (home, home / "slots")} == {0o700}
    assert capfd.readouterr() == ("", "")


@pytest.mark.engine
async def test_without_a_home_nothing_is_kept_and_kv_is_not_offered() -> None:
    embedded = Embedded(weights_or_skip(), settings=SMALL)
    first = await whole(embedded, ask("Tell me a story.", max_tokens=5))
    request = ask("Tell me a story.", first.text, "Go on.", max_tokens=5)
    second = await whole(embedded, request)
    assert second.conditions["start"] == "empty"
    again = await whole(embedded, request, again=second.conditions, by=Strategy.REPLAY)
    assert (again.chunks, again.conditions) == (second.chunks, second.conditions)
    assert Strategy.KV not in embedded.supports
    await embedded.aclose()


@pytest.mark.engine
async def test_closing_twice_or_before_it_is_up_is_fine() -> None:
    embedded = Embedded(weights_or_skip(), settings=SMALL)
    await embedded.aclose()
    embedded.start()
    pid = embedded.engine.pid
    await embedded.aclose()
    await embedded.aclose()
    assert pid is not None
    assert not lives(pid)


@pytest.mark.engine
async def test_closing_while_held_ends_it() -> None:
    embedded = Embedded(weights_or_skip(), settings=SMALL)
    await embedded.ready()
    pid = embedded.engine.pid
    assert embedded.engine.hold()
    await embedded.aclose()
    assert pid is not None
    assert not lives(pid)
    assert not embedded.engine.hold()


@pytest.mark.engine
async def test_a_file_that_is_no_model_is_said_with_the_log(tmp_path: Path) -> None:
    weights_or_skip()
    file = tmp_path / "no.gguf"
    file.write_bytes(b"GGUF" + bytes(100))
    embedded = Embedded(file, home=tmp_path / "engine")
    with pytest.raises(Unreachable, match="can't load") as caught:
        await embedded.ready()
    assert caught.value.hint is not None
    assert str(embedded.engine.log) in caught.value.hint
    assert embedded.engine.pid is None


async def test_an_engine_that_is_not_installed_is_said_with_the_command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    child = tmp_path / "child.py"
    child.write_text("""print('{"error": "ModuleNotFoundError", "message": "x"}')\n""")
    monkeypatch.setattr(engine_module, "_CHILD", child)
    with pytest.raises(Unreachable) as caught:
        await Embedded(tmp_path / "model.gguf").ready()
    assert caught.value.hint == "Install it with: pip install 'llmctl[local]'"


async def test_a_child_that_dies_while_it_loads_is_unreachable(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    child = tmp_path / "child.py"
    child.write_text("import os; os.abort()\n")
    monkeypatch.setattr(engine_module, "_CHILD", child)
    with pytest.raises(Unreachable):
        await Embedded(tmp_path / "model.gguf").ready()


async def test_nothing_can_be_asked_of_an_engine_that_is_not_there() -> None:
    with pytest.raises(Disconnected):
        await Engine(SMALL).ask("/props")


def test_the_log_starts_anew_when_it_is_long(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    child = tmp_path / "child.py"
    child.write_text("import sys; sys.stderr.write('new')\n")
    monkeypatch.setattr(engine_module, "_CHILD", child)
    engine = Engine(SMALL, tmp_path / "home")
    assert engine.log is not None
    engine.log.parent.mkdir()
    engine.log.write_bytes(b"x" * (LOG_LIMIT_BYTES + 1))
    engine.start(tmp_path / "model.gguf")
    assert eventually(lambda: engine.pid is None)
    assert engine.log.read_text() == "new"
    engine._close_pipes()


@pytest.mark.engine
async def test_a_proxy_in_the_environment_is_not_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        proxy = f"http://127.0.0.1:{closed.getsockname()[1]}"
        for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
            monkeypatch.setenv(name, proxy)
        embedded = Embedded(weights_or_skip(), settings=SMALL)
        assert (await whole(embedded, ask("hi", max_tokens=1))).text
        await embedded.aclose()
