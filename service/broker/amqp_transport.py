"""kombu's AMQP transport, made to unpack nothing before the message has been looked at.

kombu decompresses a message while it builds it, if its header `compression` says so: 421 bytes of bzip2 become 400 MB
in the worker, before anybody could weigh them, and again at each redelivery. Nobody of us ever compressed a message,
so the header is taken away; what it spoke of is then no JSON and is dropped like everything else that is none.
"""

from __future__ import annotations

from typing import Any

from kombu.transport import pyamqp


class Message(pyamqp.Message):
    """A message as it came."""

    def __init__(self, msg: Any, channel: Any = None, **kwargs: Any) -> None:
        headers = msg.properties.get("application_headers")
        if isinstance(headers, dict):
            headers.pop("compression", None)
        super().__init__(msg, channel=channel, **kwargs)


class Channel(pyamqp.Channel):
    """A channel whose messages come as they are."""

    Message = Message


class Connection(pyamqp.Connection):
    """A connection with such channels."""

    Channel = Channel


class Transport(pyamqp.Transport):
    """`amqp://`."""

    Connection = Connection


class TLSTransport(pyamqp.SSLTransport):
    """`amqps://`."""

    Connection = Connection
