"""The wire says how far a request got, ends by its deadline and never rides on a dead or foreign connection."""

from __future__ import annotations

import os
import shutil
import socket
import ssl
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from service.core.effect import LeaseLost
from service.providers.http1 import Answer
from service.providers.wire import NoAnswer, NotSent, Wire
from tests.contract.fake_servers import wait_until
from tests.contract.raw_server import RawServer, Script, answer, drips, raw, says

JSON = b'{"id":"pi_1"}'
CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"


def nothing() -> None:
    """A guard that allows."""


def post(wire: Wire, seconds: float = 5.0, guard: Callable[[], None] = nothing) -> Answer:
    headers = {"Idempotency-Key": "e:create"}
    return wire.request("POST", "/v1/x", headers, b"amount=1", seconds=seconds, before_send=guard)


def closed_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])


@pytest.mark.parametrize(
    ("data", "status", "body"),
    [
        (answer(JSON), 200, JSON),
        (answer(b""), 200, b""),
        (answer(b"<html>", "502 Bad Gateway"), 502, b"<html>"),
        (answer(b"", "302 Found", "Location: http://127.0.0.1:1/elsewhere"), 302, b""),
        (CHUNKED + b'5\r\n{"id"\r\n8;x=y\r\n:"pi_1"}\r\n0\r\nT: 1\r\n\r\n', 200, JSON),
        (b"HTTP/1.1 100 Continue\r\n\r\n" + answer(JSON), 200, JSON),
        (b"HTTP/1.1 204 No Content\r\n\r\n", 204, b""),
    ],
    ids=["length", "empty", "502", "redirect-not-followed", "chunked", "after-100", "204"],
)
def test_a_complete_answer_comes_back_whatever_its_status(data: bytes, status: int, body: bytes) -> None:
    with raw(says(data)) as server:
        got = post(Wire(server.url))
        assert (got.status, got.body) == (status, body)
        assert len(server.requests) == 1


def test_an_answer_without_a_length_ends_with_its_connection() -> None:
    with raw(says(b"HTTP/1.1 200 OK\r\n\r\n" + JSON, close=True)) as server:
        got = post(Wire(server.url))
        assert got.body == JSON
        assert not got.reusable


@pytest.mark.parametrize(
    ("script", "reason"),
    [
        (says(b"", close=True), "torn"),
        (says(b"", reset=True), "reset"),
        (says(b"HTTP/1.1 200 OK\r\nContent-Length: 99\r\n\r\n{", close=True), "torn"),
        (says(b"HTTP/1.1 200 OK\r\nContent-Le", close=True), "torn"),
        (says(CHUNKED + b"9\r\n{", close=True), "torn"),
        (says(CHUNKED + b"1\r\n{\r\n", close=True), "torn"),
        (says(CHUNKED + b"zz\r\n{\r\n"), "not_http"),
        (says(b"SSH-2.0-OpenSSH\r\n"), "not_http"),
        (says(b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n{}"), "not_http"),
        (says(b"HTTP/1.1 200 OK\r\nContent-Length: 99999999\r\n\r\n{"), "not_http"),
        (says(b"HTTP/1.1 200 OK\r\nX: " + b"x" * 20000 + b"\r\n\r\n"), "not_http"),
    ],
)
def test_w8_whatever_goes_wrong_after_the_first_byte_is_no_answer(script: Script, reason: str) -> None:
    with raw(script) as server:
        with pytest.raises(NoAnswer) as caught:
            post(Wire(server.url))
        assert caught.value.reason == reason
        assert len(server.requests) == 1


@pytest.mark.parametrize("data", [answer(JSON * 500), b"HTTP/1.1 200 OK\r\nX: " + b"y" * 4000])
def test_a_dripping_answer_cannot_hold_a_call_past_its_deadline(data: bytes) -> None:
    with raw(drips(data)) as server:
        started = time.monotonic()
        with pytest.raises(NoAnswer, match="timeout"):
            post(Wire(server.url), seconds=0.5)
        assert time.monotonic() - started < 20  # dripping to its end would take minutes
        assert len(server.requests) == 1


def test_a_receiver_that_does_not_read_cannot_hold_a_call_either() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        wire = Wire(f"http://127.0.0.1:{server.getsockname()[1]}")
        with pytest.raises(NoAnswer, match="timeout"):
            wire.request("POST", "/", {}, b"x" * 20_000_000, seconds=0.5, before_send=nothing)


@pytest.mark.parametrize(("host", "reason"), [("127.0.0.1", "refused"), ("does-not-exist.invalid", "dns")])
def test_what_never_connected_was_not_sent(host: str, reason: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_such_name(*_: object, **__: object) -> None:
        raise socket.gaierror(socket.EAI_NONAME, "no such name")

    if reason == "dns":
        monkeypatch.setattr(socket, "getaddrinfo", no_such_name)
    with pytest.raises(NotSent) as caught:
        post(Wire(f"http://{host}:{closed_port()}"))
    assert caught.value.reason == reason


def test_no_time_left_means_not_sent() -> None:
    with raw(says(answer(JSON))) as server:
        with pytest.raises(NotSent):
            post(Wire(server.url), seconds=0)
        assert server.requests == []


def test_i9_what_the_guard_raises_passes_through_and_nothing_is_sent() -> None:
    def fenced() -> None:
        wait_until(lambda: server.connections, "the connection, which is open before the guard is asked")
        raise LeaseLost

    with raw(says(answer(JSON))) as server:
        with pytest.raises(LeaseLost):
            post(Wire(server.url), guard=fenced)
        assert server.requests == []


def test_a_connection_is_kept_and_one_that_the_server_closed_is_replaced_before_anything_is_sent() -> None:
    with raw(says(answer(JSON))) as server:
        wire = Wire(server.url)
        assert [post(wire).status for _ in range(3)] == [200] * 3
        assert server.connections == 1
    hangs_up = says(answer(JSON), close=True)
    with raw(hangs_up) as server:
        wire = Wire(server.url)
        for count in (1, 2, 3):
            assert post(wire).status == 200
            wait_until(lambda: not wire._idle.kept or readable(wire._idle.kept[-1][1]), "the server's goodbye")
            assert server.connections == count


def readable(sock: socket.socket) -> bool:
    sock.settimeout(0)
    try:
        return sock.recv(1, socket.MSG_PEEK) == b""
    except BlockingIOError:
        return False


def test_a_connection_idle_for_too_long_is_not_used_again() -> None:
    with raw(says(answer(JSON))) as server:
        wire = Wire(server.url)
        post(wire)
        wire._idle.kept[0] = (wire._idle.kept[0][0] - 6.0, wire._idle.kept[0][1])
        post(wire)
        assert server.connections == 2


def test_bytes_nobody_asked_for_end_a_connection() -> None:
    with raw(says(answer(JSON) + answer(b'{"id":"pi_other"}'))) as server:
        wire = Wire(server.url)
        assert [post(wire).body for _ in range(3)] == [JSON] * 3


def test_a_broken_exchange_is_never_followed_on_the_same_connection() -> None:
    def sometimes(conn: socket.socket, server: RawServer) -> None:
        conn.sendall(answer(JSON) if len(server.requests) != 2 else b"nonsense\r\n" + answer(b"{}"))

    with raw(sometimes) as server:
        wire = Wire(server.url)
        post(wire)
        with pytest.raises(NoAnswer):
            post(wire)
        assert post(wire).body == JSON
        assert server.connections == 2


def test_a_forked_child_opens_its_own_connection() -> None:
    with raw(says(answer(JSON))) as server:
        wire = Wire(server.url)
        post(wire)
        child = os.fork()
        if child == 0:
            try:
                os._exit(0 if post(wire).body == JSON else 1)
            finally:
                os._exit(2)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
        assert server.connections == 2
        assert post(wire).body == JSON
        assert server.connections == 2  # the parent still has its own


def test_the_proxy_of_the_environment_is_ignored(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy"):
        monkeypatch.setenv(name, f"http://127.0.0.1:{closed_port()}")
    with raw(says(answer(JSON))) as server:
        assert post(Wire(server.url)).status == 200


def test_a_line_break_in_a_header_is_refused() -> None:
    with raw(says(answer(JSON))) as server:
        with pytest.raises(ValueError, match="line break"):
            Wire(server.url).request("POST", "/", {"X": "a\r\nY: b"}, seconds=5, before_send=nothing)
        assert server.requests == []


@pytest.mark.skipif(shutil.which("openssl") is None, reason="needs the openssl command to make a certificate")
def test_tls_is_verified_by_default_and_the_deadline_holds_on_it(tmp_path: Path) -> None:
    key, cert = tmp_path / "key.pem", tmp_path / "cert.pem"
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-keyout", key, "-out", cert, "-days", "2",
         "-subj", "/CN=127.0.0.1", "-addext", "subjectAltName=IP:127.0.0.1"],
        check=True, capture_output=True,
    )  # fmt: skip
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(cert, key)
    trusting = ssl.create_default_context(cafile=str(cert))
    with raw(says(answer(JSON)), context) as server:
        with pytest.raises(NotSent, match="tls"):
            post(Wire(server.url))
        wire = Wire(server.url, tls=trusting)
        before = server.connections
        assert [post(wire).body for _ in range(3)] == [JSON] * 3
        assert server.connections == before + 1
        assert len(server.requests) == 3
    with raw(drips(answer(JSON * 500)), context) as server, pytest.raises(NoAnswer, match="timeout"):
        post(Wire(server.url, tls=trusting), seconds=0.7)


def test_the_deadline_holds_between_greenlets_too() -> None:
    """In a process of its own: patching for gevent cannot be undone."""
    program = """
import gevent.monkey; gevent.monkey.patch_all()
import gevent, sys
from service.providers.wire import NoAnswer, Wire
wire = Wire(sys.argv[1])
def call():
    try:
        wire.request("POST", "/", {}, b"x", seconds=0.5, before_send=lambda: None)
    except NoAnswer as error:
        return error.reason
jobs = [gevent.spawn(call) for _ in range(3)]
gevent.joinall(jobs)
print([job.value for job in jobs])
"""
    with raw(drips(answer(JSON * 500))) as server:
        done = subprocess.run(
            [sys.executable, "-c", program, server.url], capture_output=True, text=True, timeout=60, check=True
        )
        assert done.stdout.strip() == "['timeout', 'timeout', 'timeout']"
        assert len(server.requests) == 3
