"""The mail fake as a process: SMTP and HTTP in front, one mailbox, and the back door with the oracle."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from pathlib import Path

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from fakes import clock, idempotency, mailbox, request_log, smtp
from fakes import serve as serving
from fakes.resend import ResendDialect
from fakes.storage import Storage

SCHEMA = clock.SCHEMA + idempotency.SCHEMA + request_log.SCHEMA + mailbox.SCHEMA


@dataclass(frozen=True, slots=True)
class Ports:
    """Where to listen; 0 takes a free one."""

    smtp: int = 0
    http: int = 0
    admin: int = 0


async def serve(state: Path, ports: Ports, latency_seconds: float) -> None:
    """Run until told to stop."""
    house = serving.House("mail", state, SCHEMA)
    await house.open()
    post, api, back = (serving.listen(port) for port in (ports.smtp, ports.http, ports.admin))
    manners = smtp.Manners(house.plan)
    door = smtp.Door(house.storage, manners, house.clock, latency_seconds)
    running = [
        await asyncio.get_running_loop().create_server(lambda: smtp.Server(door, manners), sock=post),
        await serving.start_http(house.front_door(ResendDialect(), latency_seconds), api),
        await serving.start_http(house.admin().app(_oracle(house.storage)), back),
    ]
    await serving.run_until_stopped(
        house.storage,
        state,
        {
            "fake": "mail",
            "smtp_port": serving.port_of(post),
            "smtp_url": f"smtp://{serving.HOST}:{serving.port_of(post)}",
            "http_port": serving.port_of(api),
            "http_url": f"http://{serving.HOST}:{serving.port_of(api)}",
            "admin_port": serving.port_of(back),
            "admin_url": f"http://{serving.HOST}:{serving.port_of(back)}",
        },
    )
    del running  # held until here: asyncio keeps only weak references to tasks


def _oracle(storage: Storage) -> list[Route]:
    async def show(request: Request) -> Response:
        recipient = request.query_params.get("recipient")
        return JSONResponse(await storage.write(lambda db: mailbox.oracle(db, recipient)))

    return [Route("/_fake/mailbox", show)]
