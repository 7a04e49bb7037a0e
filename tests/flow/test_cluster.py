"""A Redis Cluster is refused with one sentence, whether its URL says so or only the server does."""

from __future__ import annotations

from pathlib import Path

import pytest

from service.broker.app import create_app
from service.broker.publish import Publisher
from service.core.errors import SettingsError
from service.settings import Settings
from tests.flow.brokers import Valkey, free_port


def test_a_node_of_a_cluster_is_refused_by_the_relay_before_anything_is_published(tmp_path: Path) -> None:
    # Its second port is the first plus 10,000 unless told otherwise, which may be above all ports.
    node = Valkey(tmp_path, "--cluster-enabled", "yes", "--cluster-port", str(free_port()))
    node.start()
    try:
        publisher = Publisher(create_app(Settings(broker_url=node.url)))  # type: ignore[arg-type]
        with publisher, pytest.raises(SettingsError, match="Cluster") as refused:
            publisher.ping()
        assert node.password not in str(refused.value)
    finally:
        node.stop()
