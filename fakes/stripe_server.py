"""The Stripe fake as a process: the API on one port, the back door with the oracle on another."""

from __future__ import annotations

from pathlib import Path

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from fakes import ledger, webhooks
from fakes import serve as serving
from fakes.storage import Storage
from fakes.stripe import SCHEMA, StripeDialect


async def serve(state: Path, port: int, admin_port: int, latency_seconds: float) -> None:
    """Run until told to stop."""
    house = serving.House("stripe", state, SCHEMA + webhooks.SCHEMA)
    await house.open()
    sender = webhooks.Sender(house.storage, house.clock)
    api, back = serving.listen(port), serving.listen(admin_port)
    running = [
        await serving.start_http(house.front_door(StripeDialect(), latency_seconds), api),
        await serving.start_http(house.admin().app([*_oracle(house.storage), *await sender.start()]), back),
    ]
    await serving.run_until_stopped(
        house.storage,
        state,
        {
            "fake": "stripe",
            "port": serving.port_of(api),
            "url": f"http://{serving.HOST}:{serving.port_of(api)}",
            "admin_port": serving.port_of(back),
            "admin_url": f"http://{serving.HOST}:{serving.port_of(back)}",
        },
    )
    del running  # held until here: asyncio keeps only weak references to tasks


def _oracle(storage: Storage) -> list[Route]:
    async def show(request: Request) -> Response:
        effect_id = request.query_params.get("effect_id")
        return JSONResponse(await storage.write(lambda db: ledger.oracle(db, effect_id)))

    return [Route("/_fake/ledger", show)]
