"""What docs/security.md promises, tried from outside: keys, files, redirects, certificates."""

from __future__ import annotations

import json
import os
import shutil
import ssl
import stat
import subprocess
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Self

import pytest

from tests.e2e.conftest import Program, checked
from tests.support.batches import Batch, vllm
from tests.support.oracle_server import OracleServer
from tests.support.processes import Finished
from tests.support.pty_driver import PtyProgram

pytestmark = pytest.mark.slow

KEY = "sk-planted-7f3a9c51e8"
UMASK_0 = ("sh", "-c", 'umask 0; exec "$@"', "sh")
Answer = Callable[["Server", BaseHTTPRequestHandler], None]


class Server:
    """A server on this machine that answers as it likes and remembers what it was sent."""

    def __init__(self, answer: Answer, certificate: Path | None = None) -> None:
        self.heads: list[dict[str, str]] = []
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                outer.heads.append(dict(self.headers))
                self.rfile.read(int(self.headers.get("Content-Length", 0)))
                answer(outer, self)

            do_GET = do_POST  # noqa: N815  (the base's)

            def log_message(self, format: str, *args: object) -> None:  # noqa: A002
                """Say nothing."""

        self._http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._http.handle_error = lambda *_: None  # type: ignore[method-assign]  # a broken handshake
        if certificate is not None:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(certificate, certificate.with_suffix(".key"))
            self._http.socket = context.wrap_socket(self._http.socket, server_side=True)
        scheme = "http" if certificate is None else "https"
        self.url = f"{scheme}://127.0.0.1:{self._http.server_port}/v1"

    def __enter__(self) -> Self:
        """Serve until the block ends."""
        self._thread = threading.Thread(target=self._http.serve_forever)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        """Stop."""
        self._http.shutdown()
        self._thread.join()
        self._http.server_close()


def send(
    handler: BaseHTTPRequestHandler, status: int, body: str, kind: str, **headers: str
) -> None:
    data = body.encode()
    handler.send_response(status)
    for name, value in {"Content-Type": kind, **headers}.items():
        handler.send_header(name, value)
    handler.send_header("Content-Length", str(len(data)))
    handler.end_headers()
    handler.wfile.write(data)


def reply(_server: Server, handler: BaseHTTPRequestHandler) -> None:
    """Stream a short reply."""
    chunks: list[dict[str, object]] = [
        {"delta": {"content": "fine"}, "finish_reason": None},
        {"delta": {}, "finish_reason": "stop"},
    ]
    lines = [
        json.dumps({"id": "x", "object": "chat.completion.chunk", "created": 1, "model": "m",
                    "choices": [{"index": 0, **chunk}]})
        for chunk in chunks
    ]  # fmt: skip
    body = "".join(f"data: {line}\n\n" for line in [*lines, "[DONE]"])
    send(handler, 200, body, "text/event-stream")


def echo_of_the_head(status: int) -> Answer:
    """Refuse, and say in the error all that was sent, the key with it."""

    def answer(server: Server, handler: BaseHTTPRequestHandler) -> None:
        error = {"message": f"bad request: {server.heads[-1]}", "code": KEY, "type": KEY}
        send(handler, status, json.dumps({"error": error}), "application/json", **{"X-Echo": KEY})

    return answer


def to(place: str) -> Answer:
    def answer(_server: Server, handler: BaseHTTPRequestHandler) -> None:
        send(handler, 307, "", "text/plain", Location=f"{place}?leaked={KEY}")

    return answer


def asked(server: Server) -> list[str]:
    return ["--base-url", server.url, "--api", "chat", "--api-key-env", "PLANTED", "-m", "m"]


def with_key(program: Program, *words: str) -> Finished:
    return checked(program.cli.run(*words, env={"PLANTED": KEY}))


def everything_below(folder: Path) -> bytes:
    return b"\n".join(path.read_bytes() for path in folder.rglob("*") if path.is_file())


@pytest.mark.parametrize("status", [401, 500])
def test_a_key_is_in_no_output_and_no_file_whatever_a_server_says(
    program: Program, status: int, tmp_path: Path
) -> None:
    (tmp_path / "in.txt").write_text("one\n")
    with Server(echo_of_the_head(status)) as server:
        batch = ["batch", str(tmp_path / "in.txt"), "-o", str(tmp_path / "out.jsonl")]
        said = [
            with_key(program, "--verbose", "run", *asked(server), "hello"),
            with_key(program, "run", "--json", *asked(server), "hello"),
            with_key(program, "models", "probe", *asked(server)),
            with_key(program, *batch, "--retries", "0", "--deadline", "3s", *asked(server)),
        ]
        assert KEY in str(server.heads)
    for done in said:
        assert done.returncode != 0
        assert KEY.encode() not in done.stdout
        assert KEY not in done.errors
    assert KEY.encode() not in everything_below(tmp_path)


def test_a_stored_key_is_in_its_own_file_and_nowhere_else(program: Program, tmp_path: Path) -> None:
    checked(program.cli.run("keys", "set", "groq", stdin=f"{KEY}\n".encode()))
    with Server(reply) as server:
        (program.cli.data / "config.toml").write_text(
            f'[profiles.groq]\npreset = "groq"\nbase_url = "{server.url}"\n'
        )
        said = [
            program.run("run", "-m", "groq/m", "hello"),
            program.run("run", "--json", "-m", "groq/m", "hello"),
            program.run("keys", "list"),
            program.run("config", "show", "--json"),
            program.run("doctor"),
            program.run("conversations", "list", "--json"),
        ]
        assert KEY in str(server.heads)
    assert said[0].text == "fine"
    for done in said:
        assert KEY.encode() not in done.stdout
        assert KEY not in done.errors
    holders = [p for p in tmp_path.rglob("*") if p.is_file() and KEY.encode() in p.read_bytes()]
    assert [path.name for path in holders] == ["keys.json"]
    assert stat.S_IMODE(holders[0].stat().st_mode) == 0o600


def test_a_redirect_takes_neither_the_key_nor_the_prompt_elsewhere(
    program: Program, tmp_path: Path
) -> None:
    (tmp_path / "in.txt").write_text("one\n")
    with Server(reply) as elsewhere, Server(to(elsewhere.url)) as server:
        done = with_key(program, "run", *asked(server), "hello")
        assert done.returncode == 3
        assert "redirects" in done.errors
        batch = ["batch", str(tmp_path / "in.txt"), "-o", str(tmp_path / "out.jsonl")]
        assert with_key(program, *batch, *asked(server)).returncode != 0
        with_key(program, "models", "probe", *asked(server))
        assert len(server.heads) >= 3
        assert elsewhere.heads == []
    assert KEY not in done.errors


@pytest.fixture
def certificate(tmp_path: Path) -> Path:
    """A certificate for 127.0.0.1 that nobody has signed."""
    if shutil.which("openssl") is None:
        pytest.skip("openssl is not installed")
    file = tmp_path / "server.pem"
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256",
         "-nodes", "-days", "2", "-subj", "/CN=localhost", "-addext",
         "subjectAltName=IP:127.0.0.1", "-keyout", str(file.with_suffix(".key")),
         "-out", str(file)],
        check=True, capture_output=True,
    )  # fmt: skip
    return file


def test_a_certificate_that_nobody_vouches_for_is_not_trusted(
    program: Program, certificate: Path, tmp_path: Path
) -> None:
    (tmp_path / "in.txt").write_text("one\n")
    batch = ["batch", str(tmp_path / "in.txt"), "-o", str(tmp_path / "out.jsonl")]
    with Server(reply, certificate) as server:
        done = with_key(program, "run", *asked(server), "hello")
        assert (done.returncode, done.text) == (4, "")
        assert "certificate" in done.errors
        assert with_key(program, *batch, *asked(server), "--wait-ready", "1s").returncode == 4
        assert server.heads == []
        trusting = {"PLANTED": KEY, "SSL_CERT_FILE": str(certificate)}
        trusted = checked(program.cli.run("run", *asked(server), "hello", env=trusting))
        assert (trusted.returncode, trusted.text) == (0, "fine")


def test_all_that_is_written_is_the_owner_s_alone_also_under_umask_0(tmp_path: Path) -> None:
    program = Program(tmp_path)
    long = program.script("word " * 500, delay_s=0.02)
    with OracleServer(vllm(delay_s=0.01)) as server, _loosely():
        batch = Batch(tmp_path, server, items=3, length=20)
        for words in (
            ["run", "-m", program.script("a b c"), "a whole one"],
            ["run", "-m", program.script("a b c"), "--pause-after", "1", "a paused one"],
            ["run", "-m", long, "--on-pause", "hold", "--timeout", "500ms", "a late one"],
            ["config", "set", "timeout", "5m"],
            batch.words("--item-timeout", "300ms", "--retries", "0"),
        ):
            with program.start(*words, wrap=UMASK_0) as process:
                checked(process.wait())
        (tmp_path / "key").write_text(KEY)
        with program.start("keys", "set", "groq", stdin=KEY.encode(), wrap=UMASK_0) as process:
            assert process.wait().returncode == 0
        chat = [*UMASK_0, *program.cli.command("chat", "-m", long)]
        with PtyProgram(chat, env=program.cli.env, cwd=program.cli.cwd) as terminal:
            terminal.wait_for("/help", timeout_s=20)
            terminal.send("hello\r")
            terminal.wait_for("word word", timeout_s=20)
            terminal.send(b"\x03")
            terminal.wait_for("/resume", timeout_s=20)
            terminal.send(b"\x04")
            terminal.wait(20)
        assert _open_to_others(Path(program.cli.env["LLMCTL_HOME"])) == []
        assert _open_to_others(batch.state) == []
        assert [p.name for p in tmp_path.glob("out.jsonl*") if _others_may(p)] == []


@contextmanager
def _loosely() -> Iterator[None]:
    """What the test itself makes would be as open; only the program has to take care."""
    with ExitStack() as stack:
        stack.callback(os.umask, os.umask(0o077))
        yield


def _open_to_others(folder: Path) -> list[str]:
    found = [folder, *folder.rglob("*")]
    assert len(found) > 1
    return [str(path) for path in found if _others_may(path)]


def _others_may(path: Path) -> bool:
    return bool(path.stat().st_mode & (stat.S_IRWXG | stat.S_IRWXO))
