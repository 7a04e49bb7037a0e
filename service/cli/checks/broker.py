"""Checks of the broker: reachable, keeps what it is given, and its queues are the ones we mean."""

from __future__ import annotations

import time
from contextlib import suppress
from typing import Any

from service.cli.checks.check import Check
from service.core.errors import CounterfoilError
from service.settings import Settings

IN_HAND = "unacked_index"  # kombu's sorted set of what was handed out and not acknowledged, by the time of it
# Each worker looks now and then for what is overdue and takes turns at it with the others.
HANDED_BACK_SWEEPS = 12


def broker(settings: Settings) -> Check:
    """The broker answers and keeps what it is given."""
    settings.broker()
    from service.broker.publish import Publisher
    from tasks import app

    redis = settings.broker().startswith(("redis://", "rediss://"))
    unfit: list[str] = []
    try:
        with Publisher(app) as publisher:
            publisher.ping()
    except CounterfoilError:
        with suppress(Exception):  # it is away: the first error says so. Else it has a queue of another form: which?
            unfit = _unfit_queues(settings)
        if not unfit:
            raise
    if redis:
        unfit = _unfit_redis(settings.broker())
    return Check(
        "broker",
        ok=not unfit,
        found="; ".join(unfit) or f"{app.address().shown} answers",
        meaning="It may drop messages: no effect is lost, but those come due again only after minutes.",
        fix="maxmemory-policy noeviction, appendonly yes" if redis else "delete those queues when they are empty",
    )


def visibility(settings: Settings) -> Check:
    """What a worker has taken and left is handed out again."""
    from service.broker.address import SWEEP_SECONDS, visibility_seconds

    patience = visibility_seconds(settings.lease) + HANDED_BACK_SWEEPS * SWEEP_SECONDS
    found, age = _oldest_in_hand(settings)
    return Check(
        "visibility",
        ok=age <= patience,
        found=found,
        meaning="Nobody hands back what a lost worker has taken: its effects come due again in the outbox, later.",
        fix="counterfoil worker: any that runs hands it back, after three leases (COUNTERFOIL_LEASE)",
    )


def _oldest_in_hand(settings: Settings) -> tuple[str, float]:
    """In words, and for how many seconds, by the clock that the workers have written it with: theirs."""
    from redis import Redis
    from redis.exceptions import RedisError

    try:
        url = settings.broker()
        if not url.startswith(("redis://", "rediss://")):
            return "not asked: this broker hands out by itself what a lost worker held", 0.0
        with Redis.from_url(url.split(";", maxsplit=1)[0], socket_timeout=3, socket_connect_timeout=3) as client:
            oldest: Any = client.zrange(IN_HAND, 0, 0, withscores=True)
    except (CounterfoilError, RedisError):
        return "not asked: no broker answers", 0.0
    if not oldest:
        return "no message is in hand", 0.0
    age = max(0.0, time.time() - float(oldest[0][1]))
    return f"the oldest message is in hand for {age:.0f} s", age


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


def _unfit_queues(settings: Settings) -> list[str]:
    from service.broker.queues import differing
    from tasks import app

    if not settings.broker().startswith("amqp"):
        return []
    with app.connection_for_write() as connection:
        wrong = differing(connection, settings.lane_names)
    return [f"queue {name} is no quorum queue with our delivery limit" for name in wrong]
