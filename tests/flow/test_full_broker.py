"""A broker that answers every question and takes nothing is away: only a write shows it."""

from __future__ import annotations

from pathlib import Path

import pytest

from service.broker.app import create_app
from service.broker.publish import Publisher
from service.core.errors import DependencyUnavailable
from service.settings import Settings
from tests.flow.brokers import Valkey


def test_a_valkey_without_room_is_away_until_it_has_some(tmp_path: Path) -> None:
    """Found by the chaos suite: a relay that asked instead of writing took the outage for over, again and again."""
    server = Valkey(tmp_path, "--maxmemory", "1mb", "--maxmemory-policy", "noeviction")
    server.start()
    try:
        with Publisher(create_app(Settings(broker_url=server.url))) as publisher:  # type: ignore[arg-type]
            with pytest.raises(DependencyUnavailable, match="did not take"):
                publisher.ping()
            with server.client() as client:
                client.config_set("maxmemory", "0")
            publisher.ping()
            with server.client() as client:
                assert client.ttl("_kombu.counterfoil.probe") > 0
    finally:
        server.stop()
