"""The commands that pages show are run, on a scripted model and a strict server."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.batches import vllm
from tests.support.oracle_server import OracleServer
from tests.support.processes import Cli
from tests.test_documentation import FENCE, ROOT

PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]

ELSEWHERE = {
    "make": "the set-up and the tests themselves",
    "python -m build": "tests/test_packaging.py builds both distributions",
    "python -m venv": "installs other clients, for the benchmarks",
    "LLMCTL_BENCH_PEERS": "the benchmarks: minutes",
    ".venv/bin/python -m pytest": "the tests themselves",
    "pipx": "installs from a registry",
    "llmctl chat": "needs a terminal: tests/e2e/test_chat.py",
    "llmctl conversations show --tree c4f1": "that conversation: tests/llmctl/test_branches.py",
    "llmctl conversations fork c4f1": "that conversation: tests/llmctl/test_branches.py",
    "#SBATCH": "tests/e2e/test_batch_contract.py runs shards by their variables",
    "exec llmctl batch": "the same",
    "parallel": "GNU parallel may not be there; its line is that of xargs above it",
    "RAY_ADDRESS": "a cluster",
    "llmctl batch in.jsonl -o out.jsonl": "Ray: tests/e2e/test_batch_ray.py",
}
"""What is not run here, by how it begins, and why."""

ENDS = {0, 5, 6, 124}
"""Statuses of commands that did what their page says."""

SERVERS = re.compile(r"http://(?:gpu1|127\.0\.0\.1):\d+/v1")
REPLY = (
    "Here it is.\n\n```python\ndef add(a, b):\n    return a + b\n```\n"
    + "A word and one more. " * 60
)


def blocks(page: Path) -> Iterator[tuple[str, str]]:
    for kind, block in FENCE.findall(page.read_text()):
        if kind == "sh":
            yield block.lstrip().partition("\n")[0], block
        elif kind == "console":
            lines = re.findall(r"^\$ (.*)$", block, re.MULTILINE)
            yield from ((line, line) for line in lines)


def kept(block: str) -> str:
    """Return a block without the lines that stand in `ELSEWHERE`."""
    lines = block.replace("sleep 4", "sleep 0.5").replace("timeout 1s", "timeout 0.3s").split("\n")
    return "\n".join(line for line in lines if not line.startswith(tuple(ELSEWHERE)))


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    with OracleServer(vllm(models=("qwen3", "my-model"), length=20)) as server:
        yield server.base_url


@pytest.fixture
def cli(tmp_path: Path, url: str) -> Cli:
    """A home with a scripted model, a server, and a folder under version control."""
    cli = Cli(tmp_path)
    words = re.findall(r"\S+\s*", REPLY)
    script = {"chunks": [{"text": word, "tokens": 1} for word in words], "delay_s": 0.002}
    (tmp_path / "reply.json").write_text(json.dumps(script))
    cli.data.mkdir()
    (cli.data / "config.toml").write_text(f'[profiles.vllm]\npreset = "vllm"\nbase_url = "{url}"\n')
    for name in ("in.jsonl", "requests.jsonl"):
        (cli.cwd / name).write_text('{"id": "a", "prompt": "hi"}\n{"id": "b", "prompt": "ho"}\n')
    for words_ in (["init", "-q"], ["add", "in.jsonl"]):
        subprocess.run(["git", *words_], cwd=cli.cwd, check=True)
    (cli.cwd / "in.jsonl").write_text('{"id": "a", "prompt": "hi"}\n')
    cli.env["LLMCTL_MODEL"] = f"scripted:{tmp_path / 'reply.json'}"
    cli.env["PATH"] = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    return cli


@pytest.mark.parametrize(
    "page",
    [page for page in PAGES if any(map(kept, dict(blocks(page)).values()))],
    ids=lambda p: p.stem,
)
def test_what_a_page_shows_does_what_it_says(cli: Cli, url: str, page: Path) -> None:
    for _, block in blocks(page):
        done = subprocess.run(
            ["bash", "-o", "pipefail", "-c", SERVERS.sub(url, kept(block))],
            cwd=cli.cwd, env=cli.env, capture_output=True, text=True, stdin=subprocess.DEVNULL,
            timeout=60, check=False,
        )  # fmt: skip
        assert done.returncode in ENDS, (block, done.stderr)
        for sign in ("Usage:", "Traceback", "not found"):
            assert sign not in done.stderr, (block, done.stderr)


def test_every_reason_is_needed() -> None:
    shown = "\n".join(block for page in PAGES for _, block in blocks(page)).split("\n")
    for begin in ELSEWHERE:
        assert any(line.startswith(begin) for line in shown), begin
