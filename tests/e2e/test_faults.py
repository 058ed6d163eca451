"""The scenarios of `tests.faults` from outside: the program itself, its exit codes and signals."""

from __future__ import annotations

import random
import signal
from dataclasses import replace
from pathlib import Path

import pytest

from llmctl.events import End
from tests.e2e.conftest import Program, Told, told
from tests.faults.playing import is_altered
from tests.faults.scenario import Scenario, Share, draw
from tests.support.fault_proxy import FaultProxy
from tests.support.oracle_server import OracleServer
from tests.support.oracle_wire import Feature, Prefill

pytestmark = pytest.mark.slow

CODES = {each.exit_code for each in End}


def scenario(seed: int) -> Scenario:
    """Return the scenario of a seed for a server that a preset describes."""
    made = draw(seed)
    settings = replace(
        made.settings,
        prefill=Prefill.CONTINUE_FINAL_MESSAGE,
        features=(Feature.USAGE,),
        reasoning=0,
        echo=False,
    )
    scripts = tuple(replace(script, inserts={}) for script in made.scripts)
    return replace(made, settings=settings, scripts=scripts, markers={}, max_tokens=None)


def options(share: Share) -> list[str]:
    words = ["--json", "--on-pause", "hold" if share.hold else "cut"]
    if share.pause_after is not None:
        words += ["--pause-after", str(share.pause_after)]
    return [*words, "--idle-timeout", "700ms", "--first-token-timeout", "2s"]


def play(folder: Path, seed: int) -> None:
    """Run, and resume until the reply is complete; its text is the uninterrupted one."""
    dice, made = random.Random(seed), scenario(seed)  # noqa: S311  (no secret)
    program = Program(folder)
    with OracleServer(made.settings) as server, FaultProxy(server.url) as proxy:
        server.enqueue(*made.scripts)
        proxy.enqueue(*made.plans)
        program.cli.data.mkdir(mode=0o700, exist_ok=True)
        (program.cli.data / "config.toml").write_text(
            f'[profiles.here]\npreset = "sglang"\nbase_url = "{proxy.base_url}"\n'
        )
        whole, text = server.expected("hi"), ""
        for share in (*made.shares, *[Share(limited=False)] * 20):
            words = ("resume",) if program.cli.data.joinpath("journals").is_dir() else (
                "run", "-n", "-m", "here/oracle", "--temperature", "0", "hi")  # fmt: skip
            done = _share(program, [*words, *options(share)], dice)
            if any(map(is_altered, proxy.links)):
                return
            text += done.text
            assert whole.startswith(text)
            assert done.end["exit_code"] == done.done.returncode in CODES
            assert done.end["position"]["chars"] == len(text)
            assert done.end["cause"] != "internal-error"
            if done.done.returncode == 0:
                break
            proxy._proxy.plans.clear() if share.limited is False else None
        assert text == whole
    program.cli.assert_no_leftovers()


def _share(program: Program, words: list[str], dice: random.Random) -> Told:
    with program.start(*words) as process:
        if dice.random() < 0.3:
            assert process.stdout is not None
            if process.stdout.wait_for(b'"delta"', 3):
                process.send_signal(dice.choice((signal.SIGINT, signal.SIGTERM)))
        return told(process.wait(60))


@pytest.mark.parametrize("seed", range(2))
def test_from_outside(tmp_path: Path, seed: int) -> None:
    play(tmp_path, seed)


@pytest.mark.exhaustive
@pytest.mark.parametrize("seed", range(2, 100))
def test_from_outside_at_length(tmp_path: Path, seed: int) -> None:
    play(tmp_path, seed)
