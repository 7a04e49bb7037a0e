"""From one broker URL to all that a connection must be told; nothing here opens a socket."""

from __future__ import annotations

import math
import ssl
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import SplitResult, parse_qsl, urlencode, urlsplit, urlunsplit

from service.core.errors import SettingsError

CONNECT_SECONDS = 3.0  # a broker on the same network answers in milliseconds; a black hole must not hold a process
SOCKET_SECONDS = 10.0  # kombu's default is for ever: a half-open connection would stop a worker without a word
# When a delivered and unacknowledged message is handed out again (Redis). It must exceed the longest task, or a task
# is run again while it runs; it need not be short, since the outbox publishes again long before.
VISIBILITY_SECONDS_MIN = 300
# The sweep for such messages, in every worker: kombu's default of 100 s would add to each recovery.
SWEEP_SECONDS = 5
# A worker killed while it sweeps holds this lock; kombu's default stops all redelivery for five minutes.
SWEEP_LOCK_SECONDS = 30
# A ceiling, not a size: acks run in as many threads or greenlets as the pool has, and kombu's default of 10 makes
# the eleventh fail, which leaks its prefetch slot until the worker starves.
CONNECTIONS_MAX = 1_000

_REDIS = "service.broker.redis_transport:Transport"
_SENTINEL = "service.broker.redis_transport:SentinelTransport"
_AMQP = "service.broker.amqp_transport:Transport"
_AMQPS = "service.broker.amqp_transport:TLSTransport"


@dataclass(frozen=True)
class Address:
    """How to reach one broker. `shown` has no user, password or query."""

    url: str = field(repr=False)
    shown: str
    transport: str
    options: dict[str, Any] = field(repr=False)
    tls: dict[str, Any] | bool = field(default=False, repr=False)

    @property
    def is_redis(self) -> bool:
        """Redis, Valkey or a Sentinel's master; else RabbitMQ."""
        return self.transport in (_REDIS, _SENTINEL)


def visibility_seconds(lease_seconds: float) -> int:
    """Longer than three leases, so longer than every task; see VISIBILITY_SECONDS_MIN."""
    return max(VISIBILITY_SECONDS_MIN, math.ceil(3 * lease_seconds))


def read_address(url: str, *, lease_seconds: float) -> Address:
    """Understand one URL, or several separated by semicolons. Raises SettingsError that names the fix."""
    parts = [urlsplit(part) for part in url.split(";") if part]
    scheme = parts[0].scheme
    shown = ", ".join(f"{part.scheme}://{part.netloc.rpartition('@')[2]}" for part in parts)
    if scheme in ("redis", "rediss"):
        _refuse_unknown(parts)
        tls = {"ssl_cert_reqs": ssl.CERT_REQUIRED} if scheme == "rediss" else False  # kombu's default is unverified
        return Address(url, shown, _REDIS, _redis_options(lease_seconds), tls)
    if scheme == "sentinel":
        master = dict(parse_qsl(parts[0].query)).get("master")
        if not master:
            raise SettingsError(
                "COUNTERFOIL_BROKER_URL names a Sentinel without its master: append ?master=mymaster",
                field="COUNTERFOIL_BROKER_URL",
            )
        parts = [part._replace(query=_without_master(part.query)) for part in parts]
        _refuse_unknown(parts)
        plain = ";".join(urlunsplit(part) for part in parts)
        return Address(plain, shown, _SENTINEL, {**_redis_options(lease_seconds), "master_name": master})
    plain = ";".join(urlunsplit(part._replace(query="")) for part in parts)
    # Without confirms a publish that "returned" means nothing: the broker may never have seen it.
    options = {"confirm_publish": True}
    if scheme == "amqps":
        return Address(plain, shown, _AMQPS, options, _amqp_tls(parts[0]))
    return Address(plain, shown, _AMQP, options)


def _refuse_unknown(parts: list[SplitResult]) -> None:
    """Whatever kombu does not know it takes for an argument of its own, and breaks.

    How long a message may be in hand is not to be said here at all: a time shorter than the lease would hand it out
    while its first worker is still at it.
    """
    for name in (name for part in parts for name, _ in parse_qsl(part.query, keep_blank_values=True)):
        if not name.startswith("ssl_") and name != "virtual_host":
            hint = "; it follows from COUNTERFOIL_LEASE" if name == "visibility_timeout" else ""
            raise SettingsError(
                f"COUNTERFOIL_BROKER_URL has a parameter that is not taken there: {name}{hint}",
                field="COUNTERFOIL_BROKER_URL",
            )


def _without_master(query: str) -> str:
    return urlencode([(name, value) for name, value in parse_qsl(query) if name != "master"])


def _amqp_tls(parts: SplitResult) -> dict[str, Any]:
    """Verified by default: chain and host name. The query may name files: ?ssl_ca_certs=…&ssl_certfile=…"""
    chosen = {name.removeprefix("ssl_"): value for name, value in parse_qsl(parts.query) if name.startswith("ssl_")}
    if chosen.pop("cert_reqs", "required").lower() in ("none", "cert_none"):
        return {"cert_reqs": ssl.CERT_NONE, **chosen}
    # py-amqp checks the host name exactly when server_hostname is given; None means that of the URL.
    return {"cert_reqs": ssl.CERT_REQUIRED, "server_hostname": None, **chosen}


def _redis_options(lease_seconds: float) -> dict[str, Any]:
    return {
        "visibility_timeout": visibility_seconds(lease_seconds),
        "unacked_restore_interval": SWEEP_SECONDS,
        "unacked_restore_throttle": 1,
        "unacked_mutex_expire": SWEEP_LOCK_SECONDS,
        "socket_timeout": SOCKET_SECONDS,
        "socket_connect_timeout": CONNECT_SECONDS,
        "socket_keepalive": True,
        "max_connections": CONNECTIONS_MAX,
        # Priority orders the backlog in Postgres, not the wire: one list per queue instead of four.
        "priority_steps": [0],
    }
