"""Checks of the broker: reachable, keeps what it is given, and its queues are the ones we mean."""

from __future__ import annotations

from typing import Any

from service.cli.checks.check import Check
from service.settings import Settings


def broker(settings: Settings) -> Check:
    """The broker answers and keeps what it is given."""
    settings.broker()
    from service.broker.publish import Publisher
    from tasks import app

    with Publisher(app) as publisher:
        publisher.ping()
    redis = settings.broker().startswith(("redis://", "rediss://"))
    unfit = _unfit_redis(settings.broker()) if redis else _unfit_queues(settings)
    return Check(
        "broker",
        ok=not unfit,
        found="; ".join(unfit) or f"{app.address().shown} answers",
        meaning="It may drop messages: no effect is lost, but those come due again only after minutes.",
        fix="maxmemory-policy noeviction, appendonly yes" if redis else "delete those queues when they are empty",
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


def _unfit_queues(settings: Settings) -> list[str]:
    from service.broker.queues import differing
    from tasks import app

    if not settings.broker().startswith("amqp"):
        return []
    with app.connection_for_write() as connection:
        wrong = differing(connection, settings.lane_names)
    return [f"queue {name} is no quorum queue with our delivery limit" for name in wrong]
