"""One Celery app, configured and not connected: making it needs no broker, connecting finds the one there is now."""

from __future__ import annotations

import sys
from typing import Any

from celery import Celery
from celery.backends.base import DisabledBackend
from celery.signals import setup_logging

from service.broker.address import CONNECT_SECONDS, SOCKET_SECONDS, Address, read_address
from service.broker.configuration import configuration
from service.broker.connection import BrokerConnection
from service.core.errors import NotExactlyOnce
from service.settings import Settings
from service.telemetry import logs

WORKER_FLAGS = ("--without-gossip", "--without-mingle", "--without-heartbeat")
"""What the consumer does anyway, for whoever reads the process list."""


class NoBackend(DisabledBackend):
    """Says what to do instead where Celery would say that a backend is missing."""

    def ensure_chords_allowed(self) -> None:
        """Refused: Raises NotExactlyOnce naming the alternative."""
        raise NotExactlyOnce(
            "a chord counts messages, and messages get lost and doubled: accept the effects in one transaction and "
            "the next one when all of them have succeeded"
        )


class App(Celery):
    """Celery that asks the settings for its broker at each connection, and connects with our transports.

    The address is not configuration: embedded servers may come up later, and on another port after a restart.
    """

    settings: Settings

    def _get_backend(self) -> NoBackend:
        """Outcomes are read from Postgres; a result backend would be a second truth."""
        return NoBackend(app=self)

    def address(self) -> Address:
        """Where the broker is now. Raises SettingsError naming the fix."""
        return read_address(self.settings.broker(), lease_seconds=self.settings.lease)

    def connection_for_read(self, url: str | None = None, **options: Any) -> BrokerConnection:  # noqa: ARG002
        """A worker's connection, not yet open."""
        return self.open_address(**options)

    def connection_for_write(self, url: str | None = None, **options: Any) -> BrokerConnection:  # noqa: ARG002
        """A publisher's connection, not yet open; its reads and writes on RabbitMQ are bounded as well."""
        address = self.address()
        bounds = {} if address.is_redis else {"read_timeout": SOCKET_SECONDS, "write_timeout": SOCKET_SECONDS}
        return self.open_address(address, transport_options=bounds, **options)

    def connection(self, *_: Any, heartbeat: float | None = None, **__: Any) -> BrokerConnection:
        """Celery's older name for a publisher's connection."""
        return self.connection_for_write(heartbeat=heartbeat)

    def open_address(
        self,
        address: Address | None = None,
        *,
        heartbeat: float | None = None,
        transport_options: dict[str, Any] | None = None,
        **_: Any,
    ) -> BrokerConnection:
        """A connection object for an address; other options that Celery passes along have no meaning for ours."""
        address = address or self.address()
        return BrokerConnection(
            address.url,
            transport=address.transport,
            ssl=address.tls,
            heartbeat=heartbeat or 0,
            connect_timeout=CONNECT_SECONDS,
            transport_options={**address.options, **(transport_options or {})},
        )


def create_app(settings: Settings) -> App:
    """The app of this process. Tasks are registered on it by whoever imports it."""
    app = App("counterfoil", set_as_current=True)
    app.settings = settings
    app.conf.update(configuration(settings))

    @setup_logging.connect(weak=False, dispatch_uid="counterfoil")
    def _logging(**_: Any) -> None:
        """Celery's lines take our shape; without a receiver it would write its own."""
        logs.configure(settings, process="beat" if "beat" in sys.argv else "worker")

    return app
