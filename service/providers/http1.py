"""Reads one HTTP/1.1 answer, whole or not at all (RFC 9112).

Stricter than the standard library's reader and, since it builds no e-mail message out of the headers, at a third of
its cost; a charge reads two answers. Whatever is not exactly framed is `Torn` or `NotHttp`, and the caller
then knows no more than that a request went out (W8).
"""

from __future__ import annotations

import io
import re
from typing import Any

LINE_BYTES_MAX = 16 * 1024  # above any header a provider sends, below what could fill memory
HEADERS_MAX = 100  # Stripe sends about twenty
ANSWER_BYTES_MAX = 1024 * 1024  # a PaymentIntent has five kilobytes; more than this is no answer of ours

_STATUS = re.compile(rb"HTTP/1\.([01]) ([1-9][0-9]{2})(?: |\r?\n|\Z)")
_HEX = re.compile(rb"[0-9A-Fa-f]{1,8}\Z")


class Torn(Exception):
    """The connection ended inside the answer, or before it."""


class NotHttp(Exception):
    """What came is not an HTTP/1.x answer, or is larger than any answer of ours."""


class Headers(dict[str, str]):
    """Headers of an answer; names in any case."""

    def __contains__(self, name: object) -> bool:
        return super().__contains__(str(name).lower())

    def __getitem__(self, name: str) -> str:
        return super().__getitem__(name.lower())

    def get(self, name: str, default: Any = None) -> Any:
        """The value, or the default."""
        return super().get(name.lower(), default)


class Answer:
    """A complete answer; `reusable` says whether the connection may carry another request."""

    __slots__ = ("body", "headers", "reusable", "status")

    def __init__(self, status: int, headers: Headers, body: bytes, *, reusable: bool) -> None:
        self.status = status
        self.headers = headers
        self.body = body
        self.reusable = reusable

    def retry_after(self) -> float | None:
        """Seconds the server asks us to wait, when it says so in seconds; a day at most."""
        text = self.headers.get("retry-after", "")
        return min(float(text), 86400.0) if text.isascii() and text.isdigit() else None


def read_answer(stream: io.BufferedReader) -> Answer:
    """The next final answer on the stream. Raises Torn, NotHttp, or what the stream raises."""
    while True:
        minor, status = _status(stream)
        headers = _headers(stream)
        if status >= 200:
            break
        if status == 101:
            raise NotHttp("switching protocols was not asked for")
    body, framed = _body(stream, status, headers)
    connection = headers.get("connection", "").lower()
    return Answer(status, headers, body, reusable=framed and minor == 1 and "close" not in connection)


def _line(stream: io.BufferedReader) -> bytes:
    line = stream.readline(LINE_BYTES_MAX)
    if not line.endswith(b"\n"):
        raise Torn if len(line) < LINE_BYTES_MAX else NotHttp("line too long")
    return line


def _status(stream: io.BufferedReader) -> tuple[int, int]:
    found = _STATUS.match(_line(stream))
    if found is None:
        raise NotHttp("no status line")
    return int(found[1]), int(found[2])


def _headers(stream: io.BufferedReader) -> Headers:
    headers = Headers()
    for _ in range(HEADERS_MAX + 1):
        line = _line(stream)
        if line in (b"\r\n", b"\n"):
            return headers
        name, colon, value = line.decode("latin-1").partition(":")
        if not colon or not name or name != name.strip():
            raise NotHttp("malformed header")
        name, value = name.lower(), value.strip()
        if name == "content-length" and headers.get(name, value) != value:
            raise NotHttp("two lengths")
        headers[name] = value
    raise NotHttp("too many headers")


def _body(stream: io.BufferedReader, status: int, headers: Headers) -> tuple[bytes, bool]:
    """The body, and whether its end was marked; without a mark the end of the connection is the end."""
    if status in (204, 304):
        return b"", True
    coding = headers.get("transfer-encoding")
    if coding is not None:
        if coding.lower() != "chunked":
            raise NotHttp("unknown transfer coding")
        return _chunks(stream), True
    length = headers.get("content-length")
    if length is None:
        body = stream.read(ANSWER_BYTES_MAX + 1)
        _check_size(len(body))
        return body, False
    if not (length.isascii() and length.isdigit()):
        raise NotHttp("malformed length")
    return _exactly(stream, int(length)), True


def _exactly(stream: io.BufferedReader, size: int) -> bytes:
    _check_size(size)
    body = stream.read(size)
    if len(body) < size:
        raise Torn
    return body


def _chunks(stream: io.BufferedReader) -> bytes:
    parts: list[bytes] = []
    total = 0
    while True:
        digits = _line(stream).partition(b";")[0].strip()
        if not _HEX.match(digits):
            raise NotHttp("malformed chunk")
        size = int(digits, 16)
        if size == 0:
            _headers(stream)  # the trailer, which nobody here reads
            return b"".join(parts)
        total += size
        _check_size(total)
        parts.append(_exactly(stream, size))
        if _line(stream).strip():
            raise NotHttp("malformed chunk")


def _check_size(size: int) -> None:
    if size > ANSWER_BYTES_MAX:
        raise NotHttp("too large")
