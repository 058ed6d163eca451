"""A headless Chromium, driven by the DevTools protocol through a pair of pipes.

::

    with Browser(program, tmp_path / "profile") as browser:
        browser.open(url)
        browser.wait_for("document.querySelector('button')")     # until the page has one
        browser.press("Tab")
        browser.press("Enter")
        assert browser.evaluate("document.title") == "Done"
    assert browser.complaints == []                    # errors of its scripts, refusals by policy

The protocol is JSON, each message ended by a NUL; the browser reads descriptor 3 and writes 4.
https://chromedevtools.github.io/devtools-protocol/
"""

from __future__ import annotations

import fcntl
import json
import os
import select
import shutil
import signal
import time
from pathlib import Path
from types import TracebackType
from typing import Any, Self

__all__ = ["Browser", "find_browser"]

_PATIENCE_S = 30.0
_FLAGS = (
    "--headless", "--remote-debugging-pipe", "--disable-gpu", "--disable-quic", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--disable-sync",
    "--disable-dev-shm-usage", "--disable-extensions", "--no-default-browser-check",
)  # fmt: skip
_KEYS = {"Tab": (9, ""), "Enter": (13, "\r")}
# Looks at the page now and after each change of it.
_WAIT = """new Promise((done) => {
  const look = () => { if (%s) { watch.disconnect(); done(true); } };
  const watch = new MutationObserver(look);
  watch.observe(document, {
    attributes: true, characterData: true, childList: true, subtree: true,
  });
  look();
})"""


def find_browser() -> str | None:
    """Return the path of a Chromium, None where there is none."""
    return shutil.which("chromium") or shutil.which("google-chrome")


class Browser:
    """One browser with one page. Leaving the ``with`` block ends it and all that it started."""

    def __init__(self, program: str, profile: Path) -> None:
        """Start ``program`` with an empty ``profile`` of its own."""
        self.complaints: list[str] = []
        self._session = ""
        self._calls = 0
        self._unread = b""
        commands, self._write = _pipe()
        self._read, answers = _pipe()
        root = ("--no-sandbox",) if os.geteuid() == 0 else ()
        self._pid = os.posix_spawn(
            program,
            [program, *_FLAGS, *root, f"--user-data-dir={profile}", "about:blank"],
            # Elsewhere settings of the desktop's user would have a say.
            {"PATH": os.environ["PATH"], "HOME": str(profile), "LANG": "C.UTF-8"},
            file_actions=[
                (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0),
                (os.POSIX_SPAWN_OPEN, 1, os.devnull, os.O_WRONLY, 0),
                (os.POSIX_SPAWN_OPEN, 2, os.devnull, os.O_WRONLY, 0),
                (os.POSIX_SPAWN_DUP2, commands, 3),
                (os.POSIX_SPAWN_DUP2, answers, 4),
            ],
            setpgroup=0,
        )
        os.close(commands)
        os.close(answers)

    def __enter__(self) -> Self:
        """Take its first page."""
        try:
            (page, *_) = (
                target["targetId"]
                for target in self.call("Target.getTargets")["targetInfos"]
                if target["type"] == "page"
            )
            answer = self.call("Target.attachToTarget", targetId=page, flatten=True)
            self._session = answer["sessionId"]
            for domain in ("Page", "Runtime", "Log"):
                self.call(f"{domain}.enable")
        except BaseException:
            self._end()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """End the browser."""
        self._end()

    def open(self, url: str) -> None:
        """Go to a page; returns before its scripts have done anything."""
        answer = self.call("Page.navigate", url=url)
        assert "errorText" not in answer, answer

    def evaluate(self, expression: str) -> Any:
        """Return the value of a JavaScript expression, of a promise's when it is kept."""
        answer = self.call(
            "Runtime.evaluate", expression=expression, awaitPromise=True, returnByValue=True
        )
        assert "exceptionDetails" not in answer, answer["exceptionDetails"]
        return answer["result"].get("value")

    def wait_for(self, condition: str) -> None:
        """Wait until a JavaScript expression is true of the page, at each change of its tree.

        Raises:
            TimeoutError: If it is not for half a minute.
        """
        try:
            assert self.evaluate(_WAIT % condition) is True
        except TimeoutError as error:
            shown = self.evaluate("document.body.innerText")
            raise TimeoutError(
                f"never came: {condition}; complaints: {self.complaints}; the page says: {shown}"
            ) from error

    def press(self, key: str) -> None:
        """Press and release a key, as at a keyboard."""
        code, text = _KEYS[key]
        about = {"key": key, "code": key, "windowsVirtualKeyCode": code}
        self.call("Input.dispatchKeyEvent", type="keyDown", text=text, **about)
        self.call("Input.dispatchKeyEvent", type="keyUp", **about)

    def click(self, element: str) -> None:
        """Click the middle of what a JavaScript expression names, as with a mouse."""
        where = self.evaluate(
            f"(({element}).scrollIntoView(), (({element}).getBoundingClientRect().toJSON()))"
        )
        at = {"x": where["x"] + where["width"] / 2, "y": where["y"] + where["height"] / 2}
        for kind in ("mousePressed", "mouseReleased"):
            self.call("Input.dispatchMouseEvent", type=kind, button="left", clickCount=1, **at)

    def call(self, method: str, **parameters: object) -> dict[str, Any]:
        """Call a method of the protocol and return what it answers.

        Raises:
            TimeoutError: If there is no answer for half a minute.
        """
        self._calls += 1
        message: dict[str, Any] = {"id": self._calls, "method": method, "params": parameters}
        if self._session:
            message["sessionId"] = self._session
        os.write(self._write, json.dumps(message).encode() + b"\0")
        deadline = time.monotonic() + _PATIENCE_S
        while (answer := self._receive(deadline)).get("id") != self._calls:
            self._hear(answer)
        assert "error" not in answer, f"{method}: {answer['error']}"
        return dict(answer["result"])

    def _receive(self, deadline: float) -> dict[str, Any]:
        while b"\0" not in self._unread:
            left = max(0.0, deadline - time.monotonic())
            if not select.select([self._read], [], [], left)[0]:
                raise TimeoutError("the browser does not answer")
            data = os.read(self._read, 1 << 16)
            assert data, "the browser has ended"
            self._unread += data
        message, _, self._unread = self._unread.partition(b"\0")
        return dict(json.loads(message))

    def _hear(self, event: dict[str, Any]) -> None:
        match event:
            case {"method": "Runtime.exceptionThrown", "params": {"exceptionDetails": details}}:
                self.complaints.append(str(details))
            case {"method": "Log.entryAdded", "params": {"entry": entry}}:
                self.complaints.append(str(entry))

    def _end(self) -> None:
        # Its helpers are in its group; those that report crashes are not, and end with it.
        os.killpg(self._pid, signal.SIGKILL)
        os.waitpid(self._pid, 0)
        os.close(self._write)
        os.close(self._read)


def _pipe() -> tuple[int, int]:
    """Return a pipe whose descriptors are none of those that the browser gets."""
    low = os.pipe()
    high = tuple(fcntl.fcntl(end, fcntl.F_DUPFD_CLOEXEC, 10) for end in low)
    for end in low:
        os.close(end)
    return high[0], high[1]
