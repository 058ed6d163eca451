"""The page of the monitoring example: what it serves, whom it refuses, how a browser shows it."""

from __future__ import annotations

import http.client
import json
import re
import socket
import sys
from collections.abc import Iterator
from contextlib import closing
from importlib import import_module
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import anyio
import pytest

from cancelable_core import Cancelable, OperationRegistry, OperationStatus
from tests.support._loop_thread import LoopThread
from tests.support.browser import Browser, find_browser

pytest.importorskip("fastapi")
uvicorn = pytest.importorskip("uvicorn")

ROOT = Path(__file__).parents[2]
HOSTILE = "<img src=x onerror=\"document.title = 'taken over'\"></script><script>alert(1)</script>"
REASON = "<b onmouseover=alert(1)>because\n\ndata: {}</b>"


class Served:
    """The example's application at a real socket, in a thread; and operations beside it."""

    def __init__(self, loop: LoopThread) -> None:
        self.registry = OperationRegistry()
        self._loop = loop
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self.origin = f"http://127.0.0.1:{self.port}"
        app = _example().make_app(self.registry)
        self._server = uvicorn.Server(uvicorn.Config(app, log_level="warning", lifespan="on"))
        self._serving = loop.spawn(self._server.serve([self._listener]))

    def stop(self) -> None:
        self._server.should_exit = True
        self._serving.result(30)

    def start(self, name: str, *, operation_id: str | None = None) -> str:
        """Start an operation that ends when it is cancelled; return its id."""
        return self._loop.call(self._start, name, operation_id)

    async def _start(self, name: str, operation_id: str | None) -> str:
        started = anyio.Event()
        operation = Cancelable(operation_id, name, registry=self.registry, when_cancelled="absorb")

        async def run() -> None:
            async with operation:
                await operation.report_progress(f"progress of {name}")
                started.set()
                await anyio.sleep_forever()

        self._loop.spawn(run())
        await started.wait()
        return operation.id

    def cancel(self, operation: str, message: str) -> None:
        """Cancel an operation without the page."""

        async def cancel() -> None:
            self.registry.cancel(operation, message=message)
            await self.registry.wait_until_done(operation)

        self._loop.call(cancel)

    def wait_until_ended(self, operation: str) -> None:
        self._loop.call(self.registry.wait_until_done, operation)

    def ask(
        self, method: str, path: str, headers: dict[str, str] | None = None
    ) -> tuple[int, http.client.HTTPMessage, str]:
        with closing(http.client.HTTPConnection("127.0.0.1", self.port, timeout=20)) as connection:
            connection.request(method, path, headers=headers or {})
            answer = connection.getresponse()
            return answer.status, answer.headers, answer.read().decode()

    def ask_to_cancel(self, operation: str, **headers: str) -> tuple[int, Any]:
        query = urlencode({"operation": operation})
        status, _, body = self.ask("POST", f"/cancel?{query}", headers)
        return status, json.loads(body) if body.startswith(("{", "true", "false")) else body

    def figures(self) -> dict[str, Any]:
        """What the first event tells."""
        with closing(http.client.HTTPConnection("127.0.0.1", self.port, timeout=20)) as connection:
            connection.request("GET", "/events")
            answer = connection.getresponse()
            assert answer.headers["content-type"].startswith("text/event-stream")
            line, end = answer.readline(), answer.readline()
        assert end == b"\n"
        return dict(json.loads(line.removeprefix(b"data: ")))


def _example() -> Any:
    sys.path.insert(0, str(ROOT))
    try:
        return import_module("examples.05_monitoring.02_monitoring_page")
    finally:
        sys.path.remove(str(ROOT))


@pytest.fixture
def served() -> Iterator[Served]:
    with LoopThread("monitoring page") as loop:
        served = Served(loop)
        yield served
        served.stop()


# -- what it serves ---------------------------------------------------------------------------


def test_the_page_allows_only_its_own_script(served: Served) -> None:
    pages = [served.ask("GET", "/") for _ in range(2)]
    nonces = []
    for status, headers, html in pages:
        policy = headers["content-security-policy"]
        assert status == 200
        assert headers["content-type"].startswith("text/html")
        assert policy.startswith("default-src 'none'; ")
        assert "unsafe" not in policy
        (nonce,) = re.findall(r"script-src 'nonce-([\w-]{22,})'", policy)
        assert re.findall(r"<(script|style)\b([^>]*)>", html) == [
            ("style", f' nonce="{nonce}"'),
            ("script", f' nonce="{nonce}"'),
        ]
        nonces.append(nonce)
    assert nonces[0] != nonces[1]


def test_the_page_needs_nothing_from_elsewhere_and_makes_no_markup_of_words(
    served: Served,
) -> None:
    _, _, html = served.ask("GET", "/")
    assert re.findall(r"https?:|//[a-z]|@import|url\(", html) == []
    assert re.findall(r"innerHTML|outerHTML|insertAdjacentHTML|document\.write", html) == []
    assert re.findall(r"\bon\w+=|\bstyle=", html) == []  # the policy would not run them


def test_the_figures_are_json_also_before_anything_ended(served: Served) -> None:
    assert served.figures() == {
        "window": 60.0,
        "perSecond": 0.0,
        "p50": None,
        "p95": None,
        "recently": {},
        "inAll": {},
        "running": [],
        "ended": [],
    }


def test_the_figures_tell_what_runs_and_how_it_ended(served: Served) -> None:
    stays, goes = served.start("stays"), served.start(HOSTILE)
    served.cancel(goes, REASON)
    figures = served.figures()
    (running,), (ended,) = figures["running"], figures["ended"]
    assert (running["id"], running["name"], running["state"]) == (stays, "stays", "running")
    assert running["progress"] == "progress of stays"
    assert (ended["name"], ended["state"]) == (HOSTILE, "cancelled")
    assert ended["reason"] == f"manual: {REASON}"
    assert figures["recently"] == figures["inAll"] == {"cancelled": 1}
    assert figures["p50"] == figures["p95"] == ended["seconds"] >= 0


# -- who may cancel ---------------------------------------------------------------------------


def test_a_post_cancels(served: Served) -> None:
    first, second = served.start("first"), served.start("second", operation_id="a/b?c&d=é")
    assert served.ask_to_cancel(first, Origin=served.origin) == (200, True)
    served.wait_until_ended(first)
    assert served.ask_to_cancel(first, Origin=served.origin) == (200, False)
    assert [each.id for each in served.registry.list()] == [second]
    assert served.ask_to_cancel(second) == (200, True)  # no browser asks without an origin
    served.wait_until_ended(second)
    causes = [each.cause for each in served.registry.history()]
    assert [str(cause) for cause in causes] == ["manual: from the page"] * 2


@pytest.mark.parametrize(
    "origin",
    [
        "http://elsewhere.example",
        "null",
        "",
        "http://127.0.0.1",
        "http://127.0.0.1:1",
        "https://127.0.0.1:{port}",
        "http://127.0.0.1:{port}.elsewhere.example",
        "http://localhost:{port}",
        "http://[",
    ],
)
def test_the_page_of_another_site_cancels_nothing(served: Served, origin: str) -> None:
    operation = served.start("stays")
    status, body = served.ask_to_cancel(operation, Origin=origin.format(port=served.port))
    assert (status, list(body)) == (403, ["detail"])
    (snapshot,) = served.registry.list()
    assert (snapshot.status, snapshot.cause) == (OperationStatus.RUNNING, None)


def test_a_foreign_name_that_leads_here_is_refused(served: Served) -> None:
    operation, name = served.start("stays"), f"elsewhere.example:{served.port}"
    status, _ = served.ask_to_cancel(operation, Host=name, Origin=f"http://{name}")
    assert status == 400
    assert served.ask("GET", "/", {"Host": name})[0] == 400
    assert len(served.registry) == 1


def test_a_get_cancels_nothing(served: Served) -> None:
    operation = served.start("stays")
    assert served.ask("GET", f"/cancel?operation={operation}")[0] == 405
    assert len(served.registry) == 1


# -- in a browser -----------------------------------------------------------------------------


@pytest.fixture
def browser(tmp_path: Path) -> Iterator[Browser]:
    program = find_browser()
    if program is None:
        pytest.skip("neither chromium nor google-chrome is on PATH")
    with Browser(program, tmp_path / "profile") as browser:
        yield browser


def _texts(selector: str) -> str:
    return f"[...document.querySelectorAll({json.dumps(selector)})].map((e) => e.textContent)"


@pytest.mark.slow
def test_a_browser_shows_names_as_text_and_cancels_by_keyboard_and_mouse(
    served: Served, browser: Browser
) -> None:
    first, second, stays = served.start("first"), served.start(HOSTILE), served.start("stays")
    browser.open(f"{served.origin}/")
    browser.wait_for("document.querySelectorAll('#running button').length === 3")
    assert browser.evaluate(_texts("#running th")) == ["first", HOSTILE, "stays"]
    assert browser.evaluate(_texts("#running .progress"))[0] == "progress of first"
    assert browser.evaluate("document.querySelector('#counts').textContent").startswith(
        "3 running; "
    )

    browser.press("Tab")
    focused = "document.activeElement.getAttribute('aria-label')"
    assert browser.evaluate(focused) == "Cancel first"
    browser.press("Enter")
    served.wait_until_ended(first)
    browser.wait_for("document.querySelectorAll('#running button').length === 2")
    assert browser.evaluate(_texts("#ended th")) == ["first"]
    assert browser.evaluate(focused) == f"Cancel {HOSTILE}"  # the next one, not the page's start

    browser.click("document.querySelector('#running button')")
    served.wait_until_ended(second)
    browser.wait_for("document.querySelectorAll('#running button').length === 1")
    assert browser.evaluate(_texts("#ended th")) == [HOSTILE, "first"]
    assert browser.evaluate(_texts("#ended td"))[0::3] == ["cancelled", "cancelled"]
    assert browser.evaluate(_texts("#ended td:last-child")) == ["manual: from the page"] * 2
    done = json.dumps(f"Cancelled {HOSTILE}.")
    browser.wait_for(f"document.querySelector('#did').textContent === {done}")

    served.cancel(stays, REASON)
    browser.wait_for("document.querySelector('#running').textContent === 'Nothing runs.'")
    assert browser.evaluate(_texts("#ended td:last-child"))[0] == f"manual: {REASON}"
    assert browser.evaluate("document.querySelectorAll('img, b').length") == 0
    assert browser.evaluate("document.title") == "Operations"
    assert browser.complaints == []


@pytest.mark.slow
@pytest.mark.parametrize("width", [1000, 390])
def test_a_browser_reads_the_tables_and_buttons_out(
    served: Served, browser: Browser, width: int
) -> None:
    served.start("first")
    browser.call(
        "Emulation.setDeviceMetricsOverride",
        width=width, height=800, deviceScaleFactor=1, mobile=False,
    )  # fmt: skip
    browser.open(f"{served.origin}/")
    browser.wait_for("document.querySelector('#running button')")
    nodes = browser.call("Accessibility.getFullAXTree")["nodes"]
    read = {
        (node["role"]["value"], node.get("name", {}).get("value"))
        for node in nodes
        if not node["ignored"]
    }
    assert {
        ("heading", "Operations"),
        ("table", "Running, oldest first"),
        ("table", "Ends by outcome"),
        ("table", "Ended last, newest first"),
        ("columnheader", "Action"),
        ("rowheader", "first"),
        ("button", "Cancel first"),
    } <= read
    assert browser.evaluate("document.documentElement.scrollWidth <= innerWidth")
