"""The mail fake as a process: SMTP and HTTP in front, one mailbox, and the back door with the oracle."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from fakes.house import clock, doors, idempotency, request_log
from fakes.house import serve as serving
from fakes.house.profiles import Habits
from fakes.house.storage import Storage
from fakes.mail import mailbox, smtp
from fakes.mail.resend import ResendDialect

SCHEMA = clock.SCHEMA + idempotency.SCHEMA + request_log.SCHEMA + mailbox.SCHEMA


@dataclass(frozen=True, slots=True)
class Ports:
    """Where to listen; 0 takes a free one."""

    smtp: int = 0
    http: int = 0
    admin: int = 0


async def serve(state: Path, ports: Ports, habits: Habits) -> None:
    """Run until told to stop."""
    house = serving.House("mail", state, SCHEMA, habits)
    await house.open()
    post, api, back = (doors.listen(port) for port in (ports.smtp, ports.http, ports.admin))
    slot = smtp.Slot(house.storage, house.plan, house.clock, house.numbers, habits.latency_seconds)
    letterbox = smtp.SmtpDoor(slot, post)
    await letterbox.open()
    house.doors.add("smtp", letterbox)
    await house.start_api(ResendDialect(), api)
    await house.start_admin(_oracle(house.storage), back)
    await serving.run_until_stopped(
        house.storage,
        state,
        {
            "fake": "mail",
            "smtp_port": doors.port_of(post),
            "smtp_url": f"smtp://{doors.HOST}:{doors.port_of(post)}",
            "http_port": doors.port_of(api),
            "http_url": f"http://{doors.HOST}:{doors.port_of(api)}",
            "admin_port": doors.port_of(back),
            "admin_url": f"http://{doors.HOST}:{doors.port_of(back)}",
        },
    )


def _oracle(storage: Storage) -> list[Route]:
    async def show(request: Request) -> Response:
        recipient = request.query_params.get("recipient")
        return JSONResponse(await storage.write(lambda db: mailbox.oracle(db, recipient)))

    return [Route("/_fake/mailbox", show)]
