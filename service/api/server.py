"""Serve the API: one process, uvicorn with h11; tells its address in one log line and drains on a stop signal."""

from __future__ import annotations

import logging
import signal
import socket
from types import FrameType

import structlog
import uvicorn
from fastapi import FastAPI

from service.api.app import create_app
from service.api.headers import WAIT_SECONDS_MAX
from service.core.errors import SetupError
from service.settings import Settings
from service.telemetry import logs

BACKLOG = 2048
# Waits for outcomes end at once on a stop signal; what else is under way is a statement or two.
DRAIN_SECONDS_MAX = WAIT_SECONDS_MAX
KEEP_ALIVE_SECONDS = 65  # longer than common gateways keep theirs, so that none writes into a closing connection

log = structlog.get_logger(__name__)


class _Server(uvicorn.Server):
    """Tells the application as soon as a stop signal has come."""

    def __init__(self, config: uvicorn.Config, app: FastAPI) -> None:
        super().__init__(config)
        self._application = app

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        self._application.state.draining = True
        super().handle_exit(sig, frame)


def serve(settings: Settings) -> None:
    """Serve until SIGTERM or Ctrl-C. Port 0 takes a free one. Raises SettingsError or SetupError."""
    logs.configure(settings, process="api")
    app = create_app(settings)
    listener = listen(settings.api_host, settings.api_port)
    config = uvicorn.Config(
        app,
        loop="asyncio",
        http="h11",
        ws="none",
        lifespan="on",
        log_config=None,
        log_level="warning",
        access_log=False,
        server_header=False,
        proxy_headers=False,
        timeout_keep_alive=KEEP_ALIVE_SECONDS,
        timeout_graceful_shutdown=DRAIN_SECONDS_MAX,
    )
    # uvicorn raises the signal again once it has drained; a drained server has done what it was told: exit code 0.
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: None)
    logging.getLogger("uvicorn.error").addFilter(_worth_saying)
    log.info("listening", url=address_of(listener))
    _Server(config, app).run([listener])


def _worth_saying(record: logging.LogRecord) -> bool:
    """An answer that is dropped because the request was no HTTP is no error of ours; what is one, `Arrival` says."""
    return not record.getMessage().startswith("ASGI callable returned without")


def listen(host: str, port: int) -> socket.socket:
    """A bound socket. Raises SetupError naming the fix."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    # The protocol by name: asyncio switches Nagle's algorithm off only where it reads TCP, and an answer of two writes
    # would else wait for the client's delayed acknowledgement, 40 ms (RFC 896, RFC 1122 4.2.3.2).
    listener = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host, port))
        listener.listen(BACKLOG)
    except OSError as error:
        listener.close()
        raise SetupError(
            f"the API cannot listen on {host}:{port} ({error.strerror}): "
            "choose another COUNTERFOIL_API_PORT, 0 for any",
            field="COUNTERFOIL_API_PORT",
        ) from error
    return listener


def address_of(listener: socket.socket) -> str:
    """The URL of a bound socket."""
    host, port = listener.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
