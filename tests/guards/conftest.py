"""The fixtures of the flow tests, for processes that lack a guard."""

from tests.flow.conftest import (
    mail_fake,
    nursery,
    rabbitmq_url,
    stripe_fake,
    system,
    valkey_server,
    valkey_wire,
    wire,
)

__all__ = ["mail_fake", "nursery", "rabbitmq_url", "stripe_fake", "system", "valkey_server", "valkey_wire", "wire"]
