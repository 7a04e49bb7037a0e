"""Publisher confirms, pipelined: publish a batch, then wait once for the broker to have stored all of it.

RabbitMQ numbers the publishes of a channel from 1 and acknowledges numbers, many at a time ("Consumer
Acknowledgements and Publisher Confirms", RabbitMQ docs). A message nobody can route comes back before its number is
acknowledged, and only because it was published as mandatory.
"""

from __future__ import annotations

from time import monotonic
from typing import Any


class NotStored(Exception):
    """The broker refused or returned a message, or did not confirm in time: each message may or may not be there."""


class Confirms:
    """The open publishes of one channel."""

    def __init__(self, channel: Any) -> None:
        self._channel = channel
        self._published = 0
        self._open: set[int] = set()
        self._trouble: str | None = None
        channel.confirm_select()
        channel.events["basic_ack"].add(self._acknowledged)
        channel.events["basic_nack"].add(self._refused)
        channel.events["basic_return"].add(self._returned)

    def expect(self) -> None:
        """Call before each publish on the channel."""
        self._published += 1
        self._open.add(self._published)

    def wait(self, seconds: float) -> None:
        """Until all are stored. Raises NotStored."""
        until = monotonic() + seconds
        while self._open and self._trouble is None:
            left = until - monotonic()
            if left <= 0:
                raise self._in_vain(seconds)
            try:
                self._channel.connection.drain_events(timeout=left)
            except TimeoutError:
                raise self._in_vain(seconds) from None
        if self._trouble is not None:
            raise NotStored(self._trouble)

    def _in_vain(self, seconds: float) -> NotStored:
        """What an alarm looks like: the broker has blocked whoever publishes, and says nothing."""
        return NotStored(f"{len(self._open)} messages were not confirmed within {seconds:g} s")

    def _acknowledged(self, tag: int, multiple: bool) -> None:
        if multiple:
            self._open = {number for number in self._open if number > tag}
        else:
            self._open.discard(tag)

    def _refused(self, tag: int, multiple: bool) -> None:
        self._trouble = "the broker refused to store a message"
        self._acknowledged(tag, multiple)

    def _returned(self, error: Any, exchange: str, routing_key: str, message: Any) -> None:  # noqa: ARG002
        self._trouble = f"queue {routing_key!r} does not exist"
