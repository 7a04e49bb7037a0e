"""The fixtures of the flow tests: real servers, fakes and programs."""

from tests.flow.conftest import mail_fake, nursery, stripe_fake, system, valkey_server, valkey_wire, wire

__all__ = ["mail_fake", "nursery", "stripe_fake", "system", "valkey_server", "valkey_wire", "wire"]
