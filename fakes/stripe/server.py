"""The Stripe fake as a process: the API on one port, the back door with the oracle on another."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

from fakes.house import doors
from fakes.house import serve as serving
from fakes.house.profiles import Habits
from fakes.stripe import admin as stripe_admin
from fakes.stripe import objects, settings
from fakes.stripe.dialect import SCHEMA, StripeDialect


async def serve(state: Path, port: int, admin_port: int, habits: Habits, *, strict_accounts: bool = False) -> None:
    """Run until told to stop."""
    _adopt(state / "stripe.sqlite3")
    house = serving.House("stripe", state, SCHEMA, habits, events=True)
    await house.open()
    if strict_accounts:
        await house.storage.write(lambda db: settings.change(db, {"strict_accounts": True}))
    api, back = doors.listen(port), doors.listen(admin_port)
    await house.start_api(StripeDialect(), api)
    await house.start_admin(stripe_admin.routes(house.storage, house.clock), back)
    await serving.run_until_stopped(
        house.storage,
        state,
        {
            "fake": "stripe",
            "port": doors.port_of(api),
            "url": f"http://{doors.HOST}:{doors.port_of(api)}",
            "admin_port": doors.port_of(back),
            "admin_url": f"http://{doors.HOST}:{doors.port_of(back)}",
        },
    )


def _adopt(path: Path) -> None:
    """Bring what an older fake left behind up to date, before anybody reads it."""
    if path.exists():
        with closing(sqlite3.connect(path)) as connection, connection:
            objects.adopt(connection)
