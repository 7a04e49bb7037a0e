"""The HTTP door: spoiled requests and broken bytes over real sockets; each gets a problem document or a closed connection.

One connection is kept alive as long as the server keeps it, as a client's pool would; what breaks HTTP itself gets one
of its own.
"""

from __future__ import annotations

import http.client
import json
import random
import socket
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from time import monotonic
from urllib.parse import quote

from tests.badinput import shells
from tests.badinput.nasty import PLANTED, STRINGS, card, string
from tests.badinput.spoiled import GOOD, KINDS, drawn
from tests.badinput.tally import Tally, leak

SECONDS = 20.0
SLOW_SECONDS = 5.0  # nothing that is refused may hold a connection or a thread for long
PATHS = {kind: f"/v1/{kind}s" for kind in KINDS} | {"cancel": "/v1/cancels"}
_JSON = {"Content-Type": "application/json"}
_PROBLEM = "application/problem+json"


@dataclass(frozen=True)
class Wrong:
    """One request; `raw` replaces all of it and need not be HTTP."""

    how: str
    method: str = "POST"
    path: str = "/v1/charges"
    body: bytes | None = None
    headers: tuple[tuple[str, str], ...] = ()
    raw: bytes | None = None


def play(count: int, draw: random.Random, host: str, port: int) -> Tally:
    tally = Tally("http")
    door = Door(host, port)
    for number in range(count):
        wrong = draw.choices(_WAYS, _WEIGHTS)[0](draw, number)
        tally.played(wrong.how)
        begun = monotonic()
        door.knock(wrong, tally)
        if monotonic() - begun > SLOW_SECONDS:
            tally.wrong(wrong.how, f"took {monotonic() - begun:.1f} s: {wrong}")
    door.close()
    return tally


class Door:
    """A connection that is made anew when the server has closed it."""

    def __init__(self, host: str, port: int) -> None:
        self._where = (host, port)
        self._connection: http.client.HTTPConnection | None = None

    def close(self) -> None:
        if self._connection:
            self._connection.close()
        self._connection = None

    def knock(self, wrong: Wrong, tally: Tally) -> None:
        if wrong.raw is not None:
            self._raw(wrong, tally)
            return
        try:
            status, kind, text = self._ask(wrong)
        except (http.client.RemoteDisconnected, ConnectionError):
            self.close()  # it was kept alive too long for the server's taste: ask once more
            try:
                status, kind, text = self._ask(wrong)
            except (http.client.HTTPException, OSError) as error:
                self.close()
                tally.wrong(wrong.how, f"no answer: {type(error).__name__} {error}")
                return
        tally.answers[str(status)] += 1
        _judge(wrong, status, kind, text, tally)

    def _ask(self, wrong: Wrong) -> tuple[int, str, str]:
        if self._connection is None:
            self._connection = http.client.HTTPConnection(*self._where, timeout=SECONDS)
        connection = self._connection
        connection.putrequest(wrong.method, wrong.path, skip_accept_encoding=True)
        for name, value in wrong.headers:
            connection.putheader(name, value.encode("utf-8", "surrogatepass"))
        connection.putheader("Content-Length", str(len(wrong.body or b"")))
        connection.endheaders(wrong.body or b"")
        answer = connection.getresponse()
        return answer.status, answer.headers.get("Content-Type", ""), answer.read().decode(errors="replace")

    def _raw(self, wrong: Wrong, tally: Tally) -> None:
        """Whatever it is: an answer of 4xx, or the end of the connection; never silence and never 5xx."""
        assert wrong.raw is not None
        with socket.create_connection(self._where, timeout=SECONDS) as raw:
            with suppress(ConnectionError):
                raw.sendall(wrong.raw)
            with suppress(OSError):  # ENOTCONN, where the server has already hung up
                raw.shutdown(socket.SHUT_WR)
            data = b""
            try:
                while part := raw.recv(65536):
                    data += part
            except ConnectionError:
                pass
            except TimeoutError:
                tally.wrong(wrong.how, f"silence after {wrong.raw[:80]!r}")
        first = data.partition(b"\r\n")[0].decode(errors="replace")
        tally.answers[first[9:12] or "closed"] += 1
        if data and first[9:10] != "4":
            tally.wrong(wrong.how, f"answered {first!r} to {wrong.raw[:120]!r}")
        if found := leak(data.decode(errors="replace")):
            tally.wrong(wrong.how, f"{found} in {data[:300]!r}")


def _judge(wrong: Wrong, status: int, kind: str, text: str, tally: Tally) -> None:
    if found := leak(text):
        tally.wrong(wrong.how, f"{found} in the answer {text[:200]}")
    if not 400 <= status < 500:
        tally.wrong(wrong.how, f"answered {status} {text[:200]} to {wrong}"[:700])
    elif wrong.method != "HEAD":
        if not kind.startswith(_PROBLEM):
            tally.wrong(wrong.how, f"{status} as {kind!r}: {text[:100]}")
            return
        problem = json.loads(text)
        if not problem.get("detail") or not problem.get("code") or not problem.get("type"):
            tally.wrong(wrong.how, f"says too little: {text[:200]}")


def _key(number: int) -> tuple[str, str]:
    return ("Idempotency-Key", f'"bad:{number}"')


def _spoiled(draw: random.Random, number: int) -> Wrong:
    found = drawn(draw, json_only=True)
    return Wrong(
        found.how, path=PATHS[found.kind], body=_encoded(found.request), headers=(*_JSON.items(), _key(number))
    )


def _encoded(request: object) -> bytes:
    return json.dumps(request, ensure_ascii=False).encode("utf-8", "surrogatepass")


def _broken_json(draw: random.Random, number: int) -> Wrong:
    kind = draw.choice(KINDS)
    good = json.dumps(GOOD[kind]).encode()
    place = draw.randrange(len(good))
    body = draw.choice(
        [b"", b"null", b"[]", b"7", b'"' + PLANTED.encode() + b'"', good[:-1], good + b"}", good.replace(b":", b"=", 1), b"\xff\xfe" + good,
         good.decode().encode("utf-16"), b"\xef\xbb\xbf" + good, b"[" * 50_000, b'{"a":' * 30_000, good[:place] + b"\x00" + good[place:],
         b'{"amount": NaN, ' + good[1:], b'{"amount": Infinity, ' + good[1:], b'{"amount": 1e999, ' + good[1:], b'{"charge": "x", ' + good[1:],
         good[:-1] + b', "' + next(iter(GOOD[kind])).encode() + b'": 1}', b"9" * 100_000, b'{"amount": ' + b"9" * 5_000 + b"}", b"x" * 600_000]
    )  # fmt: skip
    return Wrong("broken JSON", path=PATHS[kind], body=body, headers=(*_JSON.items(), _key(number)))


def _headers(draw: random.Random, _: int) -> Wrong:
    kind = draw.choice(KINDS)
    line = draw.choice([text for text in STRINGS if not {"\n", "\r", "\x00"} & set(text)])[:500]
    keys: list[tuple[tuple[str, str], ...]] = [
        (), (("Idempotency-Key", ""),), (("Idempotency-Key", '""'),), (("Idempotency-Key", '"open'),), (("Idempotency-Key", f'"{line} "'),),
        (("Idempotency-Key", "k" * 256),), (("Idempotency-Key", card(draw)),), (("Idempotency-Key", f"é{PLANTED}"),), (_key(1), _key(2)),
        (("Idempotency-Key", f'"a";{PLANTED}=1 b'),), (("Idempotency-Key", f"a b {PLANTED}"),),
    ]  # fmt: skip
    return Wrong(
        "dedupe key header", path=PATHS[kind], body=_encoded(GOOD[kind]), headers=(*_JSON.items(), *draw.choice(keys))
    )


def _types(draw: random.Random, number: int) -> Wrong:
    kind = draw.choice(KINDS)
    media = draw.choice(
        [
            "text/plain",
            "application/xml",
            "multipart/form-data; boundary=x",
            "application/x-www-form-urlencoded",
            "",
            PLANTED,
            "*/*",
            "text/json",
        ]
    )
    return Wrong(
        "content type", path=PATHS[kind], body=_encoded(GOOD[kind]), headers=(("Content-Type", media), _key(number))
    )


def _query(draw: random.Random, _: int) -> Wrong:
    name = draw.choice(["state", "kind", "limit", "after", "cursor", "state", "no_such_filter"])
    path = f"/v1/effects?{name}={quote(PLANTED + string(draw)[:200], errors='replace')}"
    return Wrong(f"query {name}", "GET", path)


def _path(draw: random.Random, _: int) -> Wrong:
    name = quote(string(draw)[:200] + PLANTED, safe="", errors="replace")
    method, path = draw.choice(
        [("GET", f"/v1/effects/{name}"), ("GET", f"/v1/{name}"), ("GET", f"/{name}"), ("DELETE", "/v1/charges"), ("PUT", "/v1/emails"),
         ("PATCH", f"/v1/effects/{name}"), ("POST", f"/v1/effects/{name}"), ("GET", "/v1/charges"), ("TRACE", "/v1/charges"),
         ("POST", "/v1/webhooks/stripe"), ("POST", f"/v1/webhooks/{name}"), ("GET", "/v1/effects/019a2f6e-0000-7000-8000-00000000dead")]
    )  # fmt: skip
    return Wrong(f"{method} somewhere", method, path, body=PLANTED.encode() if method != "GET" else None)


def _webhook(draw: random.Random, _: int) -> Wrong:
    body = json.dumps(
        {"id": f"evt_{PLANTED}", "object": "event", "type": string(draw)[:80], "data": {"object": {"id": PLANTED}}},
        ensure_ascii=True,
    )
    signature = draw.choice(
        [
            "",
            "t=1,v1=" + "0" * 64,
            f"t={PLANTED}",
            "v1=",
            "t=99999999999999999999,v1=00",
            string(draw).split("\n")[0].split("\r")[0].replace("\x00", "")[:300],
        ]
    )
    return Wrong(
        "forged webhook",
        path="/v1/webhooks/stripe",
        body=body.encode(),
        headers=(*_JSON.items(), ("Stripe-Signature", signature)),
    )


def _raw(draw: random.Random, _: int) -> Wrong:
    host, body = b"Host: x\r\n", _encoded(GOOD["charge"])
    head = b"POST /v1/charges HTTP/1.1\r\n" + host + b"Content-Type: application/json\r\n"
    raw = draw.choice(
        [b"\x00" * 100, b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", b"GET\r\n\r\n", b"GET / HTTP/9.9\r\n\r\n", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
         head + b"Content-Length: -1\r\n\r\n" + body, head + b"Content-Length: x\r\n\r\n" + body, head + b"Content-Length: 5\r\nContent-Length: 6\r\n\r\n" + body,
         head + b"Transfer-Encoding: chunked\r\n\r\nzz\r\n" + body, head + b"Transfer-Encoding: chunked\r\n\r\n-5\r\nab", head + b"Content-Length: 9999\r\n\r\n{",
         head + b"X: a\x00b\r\n\r\n", head + b" folded\r\n\r\n", head + b"no colon here\r\n\r\n", b"GET /" + b"a" * 70_000 + b" HTTP/1.1\r\n" + host + b"\r\n",
         head + b"X-Big: " + b"b" * 70_000 + b"\r\n\r\n", b"POST /v1/charges\x00 HTTP/1.1\r\n" + host + b"\r\n", draw.randbytes(200), PLANTED.encode() + b"\r\n\r\n"]
    )  # fmt: skip
    return Wrong("not HTTP", raw=raw)


def _shell(spoil: Callable[[random.Random, int], tuple[str, str, bytes]]) -> Callable[[random.Random, int], Wrong]:
    def wrong(draw: random.Random, number: int) -> Wrong:
        how, path, body = spoil(draw, number)
        return Wrong(how, path=path, body=body, headers=tuple(_JSON.items()))

    return wrong


_WAYS: tuple[Callable[[random.Random, int], Wrong], ...] = (
    _spoiled,
    _broken_json,
    _headers,
    _types,
    _query,
    _path,
    _webhook,
    _raw,
    _shell(shells.batch),
    _shell(shells.operation),
    _shell(shells.note),
)
_WEIGHTS = (50, 10, 8, 4, 6, 5, 3, 2, 6, 5, 1)
