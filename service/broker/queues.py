"""The queues that exist: one per lane, one for periodic tasks, one for dead letters; all declare them alike."""

from __future__ import annotations

from collections.abc import Iterable

from kombu import Connection, Exchange, Queue

PERIODIC = "periodic"
DEAD = "counterfoil.dead"
# A message that kills its worker is redelivered at once, for ever, unless somebody counts. Ten bears a series of
# deploys; the effects of a dead letter come due again in the outbox, which counts attempts itself.
DELIVERY_LIMIT = 10
# Dead letters are evidence for a person, not work; Postgres holds the truth. A flood of them must not fill a disk.
DEAD_LETTERS_MAX = 10_000

_ANONYMOUS = Exchange("")
"""The default exchange: nothing to bind, so that a broker that lost everything still routes."""


def lane_queues(lanes: Iterable[str]) -> list[Queue]:
    """Every queue a worker may consume. RabbitMQ reads the arguments, Redis ignores them."""
    arguments = {
        # Replicated and fsynced: a classic queue loses messages that were reported as stored (broker SIGKILL, W4).
        "x-queue-type": "quorum",
        "x-delivery-limit": DELIVERY_LIMIT,
        "x-dead-letter-exchange": DEAD,
    }
    names = [*dict.fromkeys((*lanes, PERIODIC))]
    return [Queue(name, _ANONYMOUS, routing_key=name, durable=True, queue_arguments=dict(arguments)) for name in names]


def dead_letter_queue() -> Queue:
    """Where RabbitMQ puts what was refused or redelivered too often. Redis has no such thing: there it is dropped."""
    return Queue(
        DEAD,
        Exchange(DEAD, "fanout", durable=True),
        durable=True,
        queue_arguments={"x-queue-type": "quorum", "x-max-length": DEAD_LETTERS_MAX},
    )


def differing(connection: Connection, lanes: Iterable[str]) -> list[str]:
    """The queues that RabbitMQ has in another form than ours (classic, without delivery limit): it refuses ours.

    A queue that is not there is made, as any worker would. Raises what kombu raises when the broker is away.
    """
    wrong = []
    for queue in lane_queues(lanes):
        channel = connection.channel()
        try:
            queue(channel).queue_declare()
        except connection.channel_errors:  # which ends the channel
            wrong.append(queue.name)
    return wrong
