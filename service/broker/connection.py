"""A kombu Connection that keeps its transport when it changes hosts, and can be given up for dead."""

from __future__ import annotations

from typing import Any

from kombu import Connection

_SCHEMES = {"service.broker.redis_transport:": "redis", "service.broker.amqp_transport:": "amqp"}


class BrokerConnection(Connection):
    """One connection to the broker. The transport is ours (Redis) and survives a failover to the next URL."""

    _given_up = False

    def switch(self, conn_str: str) -> None:
        """Take the next URL. kombu would also take the plain transport of its scheme, which one bad item kills."""
        super().switch(conn_str)
        self.transport_cls = self._initial_params["transport"]  # type: ignore[attr-defined]

    def give_up(self) -> None:
        """From now on `close` does nothing: what still uses the connection meets a dead socket, not an empty shell.

        Celery 5.7.0 closes a lost connection after collecting it. On Redis the channel's clean-up then finds its
        connection info gone and raises AttributeError, which ends a busy worker whenever its broker restarts
        (celery/celery#10242 added the close). The sockets are closed by the collect, or with the object.
        """
        self._given_up = True

    def release(self) -> None:
        """Close, unless given up."""
        if not self._given_up:
            super().release()

    close = release

    def as_uri(self, *args: Any, **kwargs: Any) -> str:
        """For log lines: the scheme people know instead of our class's path, without the password."""
        uri: str = super().as_uri(*args, **kwargs)
        scheme = next((scheme for ours, scheme in _SCHEMES.items() if uri.startswith(ours)), None)
        return uri if scheme is None else scheme + uri[uri.index("://") :]
