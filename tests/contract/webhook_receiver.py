"""A receiver of webhooks on a real socket, which answers what it is told and keeps what it got."""

from __future__ import annotations

import json
import threading
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Self

from tests.contract.fake_servers import wait_until


@dataclass(frozen=True)
class Post:
    body: bytes
    signature: str

    def json(self) -> dict[str, Any]:
        return dict(json.loads(self.body))


class Receiver:
    """Answers every post with `answers`."""

    def __init__(self) -> None:
        self.answers = 200
        self.posts: list[Post] = []
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(self))
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_port}/webhooks"
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
        self._closed = False

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_error: object) -> None:
        self.close()

    def close(self) -> None:
        """Nobody listens any more; posts are refused."""
        if not self._closed:
            self._closed = True
            self._server.shutdown()
            self._server.server_close()

    def wait(self, count: int) -> list[Post]:
        """The posts, once there are this many."""
        wait_until(lambda: len(self.posts) >= count, f"{count} posts")
        return list(self.posts)

    def forget(self) -> None:
        self.posts.clear()


def _handler(receiver: Receiver) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            receiver.posts.append(Post(body, self.headers["Stripe-Signature"]))
            self.send_response(receiver.answers)
            self.send_header("Content-Length", "0")
            self.send_header("Location", "/elsewhere")
            self.end_headers()

        def log_message(self, *_arguments: object) -> None:
            """Tests print what they need."""

    return Handler
