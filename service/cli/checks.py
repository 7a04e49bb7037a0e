"""The checks of `doctor`. Each looks at one thing, changes nothing, and never fails itself."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any

from service.core.errors import CounterfoilError
from service.embedded import address
from service.engine import quarantine
from service.providers.build import charge_provider, email_provider
from service.settings import Settings
from service.store import health, outbox, schema
from service.store.database import statement
from service.store.watermark import Watermark

POSTGRES_MAJOR_MIN = 14
# Leases and countdowns run on the database's clock, eta on the caller's: a second between them is harmless, a minute
# is not.
SKEW_SECONDS_MAX = 5.0
# Longer than the slowest look of a relay at a quiet outbox, so that a healthy one is never called late.
LATE_SECONDS = 30.0


@dataclass(frozen=True, slots=True)
class Check:
    """`found` is what was seen; `meaning` and `fix` speak of the case that it is not ok."""

    name: str
    ok: bool
    found: str
    meaning: str
    fix: str

    def document(self) -> dict[str, Any]:
        """As JSON shows it."""
        return asdict(self)


def run_all(settings: Settings) -> Iterator[Check]:
    """Every check, in the order in which one would mend them."""
    database: tuple[tuple[str, Callable[[], Check]], ...] = (
        ("tables", _tables),
        ("life", partial(_life, settings)),
        ("outbox", _relay),
        ("unknown", _unknown),
        ("parked", _parked),
        ("pairs", _pairs),
    )
    reached = True
    for check in _guarded("database", partial(_database, settings)):
        reached = check.ok
        yield check
    if reached:
        yield from _server()
        for name, look in database:
            yield from _guarded(name, look)
    yield from _guarded("broker", partial(_broker, settings))
    yield from _guarded("payments", partial(_payments, settings))
    yield from _guarded("mail", partial(_mail, settings))


def _guarded(name: str, look: Callable[[], Check]) -> Iterator[Check]:
    try:
        yield look()
    except CounterfoilError as error:
        yield Check(
            name, ok=False, found=error.message, meaning="This could not be looked at.", fix=_FIXES.get(name, "")
        )
    except Exception as error:  # noqa: BLE001 - a check that breaks is a finding, not an end
        yield Check(
            name, ok=False, found=type(error).__name__, meaning="This check met a bug.", fix="counterfoil db check"
        )


_FIXES = {
    "database": "set COUNTERFOIL_DATABASE_URL to a Postgres that runs, or start the embedded one: counterfoil up",
    "broker": "set COUNTERFOIL_BROKER_URL to a broker that runs, or start the embedded one: counterfoil up",
    "payments": "set COUNTERFOIL_STRIPE_API_KEY (sk_test_… for a sandbox)",
    "life": "set COUNTERFOIL_STATE_DIR to a directory that can be written",
    "mail": "set COUNTERFOIL_EMAIL_URL (smtp://… or resend+https://KEY@host)",
}


def _database(settings: Settings) -> Check:
    settings.database()
    with statement() as connection:
        server = health.server(connection)
    return Check(
        "database",
        ok=True,
        found=f"Postgres {server.version}, database {server.name}",
        meaning="",
        fix=_FIXES["database"],
    )


def _server() -> Iterator[Check]:
    with statement() as connection:
        before = time.time()
        server = health.server(connection)
        skew = server.clock - (before + time.time()) / 2
    yield Check(
        "version",
        ok=server.major >= POSTGRES_MAJOR_MIN,
        found=server.version,
        meaning=f"Older than Postgres {POSTGRES_MAJOR_MIN}: statements of ours do not run there.",
        fix="upgrade Postgres",
    )
    yield Check(
        "writable",
        ok=not server.replica,
        found="a replica" if server.replica else "the primary",
        meaning="Nothing can be accepted on a replica.",
        fix="point COUNTERFOIL_DATABASE_URL at the primary",
    )
    yield Check(
        "isolation",
        ok=server.isolation == "read committed",
        found=server.isolation,
        meaning="Claims and settlements are guarded for READ COMMITTED; stricter levels would fail them at random.",
        fix="remove default_transaction_isolation for this role, or a pooler's override",
    )
    yield Check(
        "durable",
        ok=server.fsync == "on",
        found=f"fsync {server.fsync}",
        meaning="After a power cut committed effects can be gone.",
        fix="set fsync = on",
    )
    between = "a pooler" if server.pooled else "a direct connection"
    yield Check(
        "limits",
        ok=server.statement_timeout != "0",
        found=f"{between}, statement_timeout {server.statement_timeout}",
        meaning="The pooler drops our time limits: a statement that hangs is waited for without end.",
        fix="alter role … set statement_timeout = '15s', lock_timeout = '5s', "
        "idle_in_transaction_session_timeout = '15s', jit = off; or connect directly",
    )
    yield Check(
        "clock",
        ok=abs(skew) <= SKEW_SECONDS_MAX,
        found=f"{skew:+.2f} s from here",
        meaning="This machine and the database disagree about the time: an eta will be off by as much.",
        fix="run an NTP client on both",
    )


def _tables() -> Check:
    with statement() as connection:
        there = schema.database_head(connection)
    return Check(
        "tables",
        ok=there == schema.code_head(),
        found=f"migration {there or 'none'}",
        meaning=f"This version needs {schema.code_head()}.",
        fix="counterfoil db upgrade",
    )


def _life(settings: Settings) -> Check:
    watermark = Watermark(settings.state_dir)
    watermark.seen()  # says so when the state directory cannot be used: then nothing is sent
    watermark.close()
    found = quarantine.standing(settings)
    return Check(
        "life",
        ok=found.open,
        found=quarantine.sentence(found),
        meaning="The database went back in time or is another one: effects are accepted and shown, and none is sent.",
        fix="counterfoil recover; docs/recover.md",
    )


def _stats() -> dict[str, Any]:
    with statement() as connection:
        return outbox.stats(connection)


def _relay() -> Check:
    oldest = _stats()["oldest_unpublished_seconds"] or 0.0
    return Check(
        "outbox",
        ok=oldest <= LATE_SECONDS,
        found=f"oldest due and unpublished effect: {oldest:.0f} s" if oldest else "nothing is waiting to be published",
        meaning="No relay is publishing: none runs, the broker is away, or the window is full because no worker runs.",
        fix="counterfoil relay, counterfoil worker; then look at their logs",
    )


def _unknown() -> Check:
    count = int(_stats()["unknown"])
    return Check(
        "unknown",
        ok=count == 0,
        found=f"{count} effects with an unknown outcome",
        meaning="They may or may not have happened; each is asked after by itself with the same key.",
        fix="counterfoil effects list --state unknown",
    )


def _parked() -> Check:
    count = int(_stats()["parked"])
    return Check(
        "parked",
        ok=count == 0,
        found=f"{count} parked effects",
        meaning="They wait for a person and will not go on by themselves.",
        fix="counterfoil outbox list --state parked; then counterfoil outbox replay",
    )


def _pairs() -> Check:
    with statement() as connection:
        without_outbox, without_effect = health.unpaired(connection)
    return Check(
        "pairs",
        ok=without_outbox == without_effect == 0,
        found=f"{without_outbox} unsettled effects without an outbox row, {without_effect} settled ones with one",
        meaning="Invariant I7 is broken: somebody changed rows by hand, or restored a part of a backup.",
        fix="stop writing to these tables by hand; report it with the journal of one such effect",
    )


def _broker(settings: Settings) -> Check:
    settings.broker()
    from service.broker.publish import Publisher
    from tasks import app

    with Publisher(app) as publisher:
        publisher.ping()
    unfit = _unfit_redis(settings.broker()) if settings.broker().startswith(("redis://", "rediss://")) else []
    return Check(
        "broker",
        ok=not unfit,
        found="; ".join(unfit) or f"{app.address().shown} answers",
        meaning="It may drop messages: no effect is lost, but those come due again only after minutes.",
        fix="maxmemory-policy noeviction, appendonly yes",
    )


def _unfit_redis(url: str) -> list[str]:
    from redis import Redis
    from redis.exceptions import RedisError

    wanted = {"maxmemory-policy": "noeviction", "appendonly": "yes"}
    client = Redis.from_url(url.split(";", maxsplit=1)[0], socket_timeout=3, socket_connect_timeout=3)
    try:
        there: dict[str, str] = {}
        for name in wanted:
            there |= {_str(k): _str(v) for k, v in dict(client.config_get(name)).items()}
    except RedisError:
        return []  # managed services forbid CONFIG; what cannot be seen is not called wrong
    finally:
        client.close()
    return [f"{name} is {there[name]}" for name, value in wanted.items() if there.get(name, value) != value]


def _str(value: Any) -> str:
    return value.decode() if isinstance(value, bytes) else str(value)


def _payments(settings: Settings) -> Check:
    if settings.stripe_api_key is None and _fake(settings, "stripe"):
        return Check("payments", ok=True, found="the fake of `counterfoil up`: no money moves", meaning="", fix="")
    charge_provider(settings)
    key = settings.stripe_api_key.get_secret_value() if settings.stripe_api_key else ""
    mode = "live" if "_live_" in key[:8] else "test"
    where = settings.stripe_api_base or "Stripe"
    return Check("payments", ok=True, found=f"{mode} key, {where}", meaning="", fix=_FIXES["payments"])


def _mail(settings: Settings) -> Check:
    from service.cli.config import shown

    if settings.email_url is None and _fake(settings, "mail"):
        return Check("mail", ok=True, found="the fake of `counterfoil up`: no letter leaves", meaning="", fix="")
    email_provider(settings)
    return Check("mail", ok=True, found=str(shown(settings.email_url)), meaning="", fix=_FIXES["mail"])


def _fake(settings: Settings, kind: str) -> bool:
    """Whether `counterfoil up` runs on this state directory and stands in for a provider."""
    if address.running(settings.state_dir) is None:
        return False
    return (settings.state_dir / "fakes" / kind / "address.json").exists()
