"""The fault proxy: what arrives, byte for byte, and how a connection ends."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator
from contextlib import closing, suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.support.fault_proxy import (
    ChunkTracker,
    Disturber,
    FaultProxy,
    LinkPlan,
    Trouble,
    TroubleKind,
    random_plan,
)
from tests.support.oracle_server import OracleServer, Settings

REPLY = bytes(range(256)) * 40


class Echo:
    """Sends REPLY to whoever connects, then notes what it gets until the end."""

    def __init__(self) -> None:
        self.socket = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self.socket.getsockname()[1]}"
        self.got: list[bytes] = []
        self.ends: list[str] = []
        threading.Thread(target=self._run, daemon=True).start()

    def _run(self) -> None:
        while True:
            try:
                plug, _ = self.socket.accept()
            except OSError:
                return
            with plug:
                try:
                    plug.sendall(REPLY)
                    data, end = drain(plug)
                except OSError as error:
                    data, end = b"", type(error).__name__
                self.got.append(data)
                self.ends.append(end)

    def wait(self) -> None:
        deadline = time.monotonic() + 5
        while not self.ends and time.monotonic() < deadline:
            time.sleep(0.002)


@pytest.fixture
def echo() -> Iterator[Echo]:
    made = Echo()
    with closing(made.socket):
        yield made
        made.socket.shutdown(socket.SHUT_RDWR)


def drain(plug: socket.socket) -> tuple[bytes, str]:
    parts = []
    try:
        while data := plug.recv(1 << 16):
            parts.append(data)
    except OSError as error:
        return b"".join(parts), type(error).__name__
    return b"".join(parts), ""


def plugged(proxy: FaultProxy) -> socket.socket:
    return socket.create_connection(("127.0.0.1", int(proxy.url.rpartition(":")[2])), timeout=5)


def fetch(proxy: FaultProxy, sent: bytes = b"") -> tuple[bytes, str]:
    """Send, if there is anything to, and read to the end.

    Who is closed at once may hear of it while connecting, while sending, or when it reads.
    """
    try:
        with plugged(proxy) as plug:
            if sent:
                with suppress(OSError):
                    plug.sendall(sent)
                    plug.shutdown(socket.SHUT_WR)
            return drain(plug)
    except ConnectionResetError as error:
        return b"", type(error).__name__


# --- Bytes ----------------------------------------------------------------------------------------


def test_without_troubles_it_is_transparent(echo: Echo) -> None:
    with FaultProxy(echo.url) as proxy:
        assert fetch(proxy, b"question") == (REPLY, "")
        echo.wait()
        assert echo.got == [b"question"]
        (link,) = proxy.links
        assert (link.up, link.down, link.troubles) == (8, len(REPLY), 0)


@pytest.mark.parametrize("after", [0, 1, 5000, len(REPLY)])
@pytest.mark.parametrize("reset", [False, True])
def test_cut_after_so_many_bytes(echo: Echo, after: int, reset: bool) -> None:
    with FaultProxy(echo.url) as proxy:
        proxy.enqueue(LinkPlan(Trouble("cut", after_bytes=after, reset=reset)))
        data, error = fetch(proxy)
        assert error == ("ConnectionResetError" if reset else "")
        assert data == REPLY[:after]
        assert fetch(proxy, b"question") == (REPLY, "")


def test_cut_on_the_way_up(echo: Echo) -> None:
    with FaultProxy(echo.url) as proxy:
        proxy.enqueue(LinkPlan(Trouble("cut", after_bytes=3, direction="up")))
        fetch(proxy, b"question")
        echo.wait()
        assert echo.got == [b"que"]


def test_half_close_ends_one_direction_only(echo: Echo) -> None:
    with FaultProxy(echo.url) as proxy:
        proxy.enqueue(LinkPlan(Trouble("half_close", after_bytes=100)))
        with plugged(proxy) as plug:
            assert drain(plug) == (REPLY[:100], "")
            plug.sendall(b"still here")
        echo.wait()
        assert echo.got == [b"still here"]


def test_garbage_and_duplicates(echo: Echo) -> None:
    with FaultProxy(echo.url) as proxy:
        proxy.enqueue(
            LinkPlan(
                Trouble("duplicate", after_bytes=300, size=5),
                Trouble("garbage", after_bytes=10, data=b"XX"),
            )
        )
        data, _ = fetch(proxy, b"question")
        assert data == REPLY[:10] + b"XX" + REPLY[10:300] + REPLY[295:300] + REPLY[300:]
        assert proxy.links[0].troubles == 0  # nothing to act out, only bytes


def test_drip_keeps_every_byte(echo: Echo) -> None:
    with FaultProxy(echo.url) as proxy:
        slow = Trouble("drip", after_bytes=len(REPLY) - 20, size=2, seconds=0.002)
        proxy.enqueue(LinkPlan(slow))
        began = time.monotonic()
        assert fetch(proxy, b"question") == (REPLY, "")
        assert time.monotonic() - began >= 0.018


def test_stall_for_a_time_and_for_ever(echo: Echo) -> None:
    with FaultProxy(echo.url) as proxy:
        proxy.enqueue(
            LinkPlan(Trouble("stall", after_bytes=50, seconds=0.03)),
            LinkPlan(Trouble("stall", after_bytes=50)),
        )
        began = time.monotonic()
        assert fetch(proxy, b"question") == (REPLY, "")
        assert time.monotonic() - began >= 0.03
        with plugged(proxy) as plug:
            plug.settimeout(0.03)
            assert drain(plug) == (REPLY[:50], "TimeoutError")


def test_connecting_takes_its_time(echo: Echo) -> None:
    with FaultProxy(echo.url, otherwise=LinkPlan(connect_delay_s=0.03)) as proxy:
        began = time.monotonic()
        assert fetch(proxy, b"question") == (REPLY, "")
        assert time.monotonic() - began >= 0.03


# --- The whole network ----------------------------------------------------------------------------


@pytest.mark.parametrize("reset", [False, True])
def test_the_network_goes_away_and_comes_back(echo: Echo, reset: bool) -> None:
    with FaultProxy(echo.url) as proxy:
        with plugged(proxy) as plug:
            plug.recv(1)
            proxy.refuse()
            assert proxy.cut_all(reset=reset) == 1
            assert drain(plug)[1] == ("ConnectionResetError" if reset else "")
            with pytest.raises(ConnectionRefusedError):
                plugged(proxy)
        proxy.accept()
        assert fetch(proxy, b"question") == (REPLY, "")


def test_a_client_that_leaves_is_missed_behind_the_proxy() -> None:
    endless = Settings(length=100_000, delay_s=0.001)
    with (
        OracleServer(endless) as server,
        FaultProxy(server.url) as proxy,
        plugged(proxy) as plug,
    ):
        body = b'{"model":"oracle","stream":true,"messages":[{"role":"user","content":"x"}]}'
        head = b"POST /v1/chat/completions HTTP/1.1\r\nContent-Length: %d\r\n\r\n" % len(body)
        plug.sendall(head + body)
        server.wait_until(lambda c: c.tokens > 3)
        plug.close()
        server.wait_until(lambda c: c.disconnects == 1)


def test_freeze_and_thaw(echo: Echo) -> None:
    with FaultProxy(echo.url) as proxy:
        proxy.freeze()
        with plugged(proxy) as plug:
            plug.settimeout(0.03)
            assert drain(plug) == (b"", "TimeoutError")
            proxy.thaw()
            plug.settimeout(5)
            plug.shutdown(socket.SHUT_WR)
            assert drain(plug) == (REPLY, "")


def test_a_dead_server_closes_the_client() -> None:
    with socket.create_server(("127.0.0.1", 0)) as gone:
        url = f"http://127.0.0.1:{gone.getsockname()[1]}"
    with FaultProxy(url) as proxy:
        assert fetch(proxy, b"question")[0] == b""


# --- Chunks ---------------------------------------------------------------------------------------

HEAD = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"


def chunked(*parts: bytes) -> bytes:
    return HEAD + b"".join(b"%x\r\n%b\r\n" % (len(p), p) for p in parts) + b"0\r\n\r\n"


def test_the_tracker_knows_the_inside_of_chunks() -> None:
    data = chunked(b"abc", b"X") + chunked(b"de")
    inside = bytes(
        value for value, is_in in zip(data, ChunkTracker().feed(data), strict=True) if is_in
    )
    assert inside == b"abd"  # the last byte of a chunk has nothing of it to come


def test_the_tracker_leaves_other_bodies_alone() -> None:
    data = b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n3\r\nabc\r\n0"
    assert not any(ChunkTracker().feed(data))


@given(after=st.integers(0, 120), split=st.integers(0, 120))
def test_truncation_is_inside_a_chunk_wherever_it_is_asked_for(after: int, split: int) -> None:
    data = chunked(b"a" * 20, b"b" * 30)
    disturber = Disturber([Trouble("truncate_chunked", after_bytes=after)])
    passed = b""
    for step in (*disturber.feed(data[:split]), *disturber.feed(data[split:])):
        if isinstance(step, Trouble):
            assert step.kind is TroubleKind.CUT
            break
        passed += step
    if passed == data:
        assert after > data.rindex(b"b") - 1
    else:
        assert len(passed) >= after
        assert passed[-1:] in (b"a", b"b")
        assert data[len(passed) :][:1] in (b"a", b"b")


@given(st.lists(st.binary(max_size=30), max_size=6), st.integers(0, 100), st.integers(1, 20))
def test_splits_do_not_change_what_a_disturber_does(
    parts: list[bytes], after: int, size: int
) -> None:
    def run(pieces: list[bytes]) -> bytes:
        troubles = [
            Trouble("garbage", after_bytes=after),
            Trouble("duplicate", 2 * after, size=size),
        ]
        disturber = Disturber(troubles)
        steps = [step for piece in pieces for step in disturber.feed(piece)]
        return b"".join(step for step in steps if isinstance(step, bytes))

    assert run([b"", *parts]) == run([b"", b"".join(parts)])


# --- Chance ---------------------------------------------------------------------------------------


def test_a_seed_means_a_plan() -> None:
    plans = [random_plan(seed) for seed in range(300)]
    assert plans == [random_plan(seed) for seed in range(300)]
    assert {trouble.kind for plan in plans for trouble in plan.troubles} == set(TroubleKind) - {
        TroubleKind.OUTAGE
    }


@pytest.mark.parametrize("seed", range(20))
def test_no_plan_hangs_or_breaks_the_proxy(echo: Echo, seed: int) -> None:
    with FaultProxy(echo.url) as proxy:
        proxy.enqueue(random_plan(seed))
        fetch(proxy, b"question")
        assert fetch(proxy, b"question") == (REPLY, "")


def test_unknown_words_are_refused() -> None:
    with pytest.raises(ValueError, match="explode"):
        Trouble("explode")
    with pytest.raises(ValueError, match="no host and port"):
        FaultProxy("localhost")


def test_an_outage_ends(echo: Echo) -> None:
    with FaultProxy(echo.url) as proxy:
        proxy.enqueue(LinkPlan(Trouble("outage", after_bytes=10, seconds=0.1)))
        assert fetch(proxy, b"question")[0] == REPLY[:10]
        refused, data = 0, b""
        deadline = time.monotonic() + 5
        while not data and time.monotonic() < deadline:
            try:
                data, _ = fetch(proxy, b"question")
            except ConnectionRefusedError:
                refused += 1
                time.sleep(0.002)
        assert refused
        assert data == REPLY
