"""Every setting of Celery that differs from its default, and why. None needs the broker's address."""

from __future__ import annotations

from typing import Any

from service.broker.address import visibility_seconds
from service.broker.queues import PERIODIC, lane_queues
from service.settings import Settings

HEARTBEAT_SECONDS = 30  # AMQP: notices a half-open connection in a minute; Celery's default takes four
# A task that outlives the visibility timeout is run twice at the same time. prefork can kill it before; threads,
# gevent and solo rely on the deadlines around each call.
KILL_BEFORE_VISIBILITY_SECONDS = 30


def configuration(settings: Settings) -> dict[str, Any]:
    """Celery's configuration for these settings."""
    return {**_delivery(settings), **_routing(settings), **_connection(), **_quiet()}


def _delivery(settings: Settings) -> dict[str, Any]:
    return {
        # Acknowledged when done, so that a message whose worker dies comes again (W5 to W9).
        "task_acks_late": True,
        # Without it Celery acknowledges, and so loses, the message of a child that was killed.
        "task_reject_on_worker_lost": True,
        # A failed task is not requeued (the default, said aloud): the outbox retries with backoff, the broker would
        # do it at once and for ever.
        "task_acks_on_failure": True,
        "task_acks_on_timeout": True,
        # As few reserved messages as possible wait behind a slow one or in a worker that dies.
        "worker_prefetch_multiplier": 1,
        # Celery lowers the prefetch after a reconnect and raises it again task by task, which has left workers idle;
        # a duplicate is harmless here, a worker that stops consuming is not.
        "worker_enable_prefetch_count_reduction": False,
        # The copy that a lost connection brings finds the lease taken and does nothing, so the first run may finish.
        # Killing it (prefork could) would turn a call that is under way into an unknown outcome (W7, W8).
        "worker_cancel_long_running_tasks_on_connection_loss": False,
        "task_time_limit": visibility_seconds(settings.lease) - KILL_BEFORE_VISIBILITY_SECONDS,
        # State is in Postgres. A result backend costs two to twenty times the task itself.
        "task_ignore_result": True,
        "result_backend": None,
        # JSON in, JSON out: pickle is remote code execution for whoever reaches the broker.
        "task_serializer": "json",
        "accept_content": ["json"],
        "enable_utc": True,
        "timezone": "UTC",
    }


def _routing(settings: Settings) -> dict[str, Any]:
    return {
        # Explicit, and nothing else: a misspelt queue must fail, not create a classic queue that nobody serves.
        "task_queues": lane_queues(settings.lane_names),
        "task_create_missing_queues": False,
        "task_default_queue_type": "quorum",
        "task_default_queue": PERIODIC,
        "task_default_routing_key": PERIODIC,
        # The anonymous exchange needs no bindings, so a broker that was wiped routes at once.
        "task_default_exchange": "",
        "task_default_exchange_type": "direct",
        "task_default_delivery_mode": "persistent",
    }


def _connection() -> dict[str, Any]:
    return {
        # A worker waits for its broker as long as it takes; a supervisor that restarts it would do no better.
        "broker_connection_retry_on_startup": True,
        "broker_connection_retry": True,
        "broker_connection_max_retries": None,
        # RabbitMQ closes the channel of a consumer that acknowledges too late; that must not end the worker.
        "broker_channel_error_retry": True,
        "broker_heartbeat": HEARTBEAT_SECONDS,
    }


def _quiet() -> dict[str, Any]:
    return {
        "worker_consumer": "service.broker.consumer:Consumer",
        # Nobody sends remote commands: one queue and one subscription per worker less, and no way in.
        "worker_enable_remote_control": False,
        "worker_send_task_events": False,
        "task_send_sent_event": False,
        # Logging is configured once, for every process alike (service.telemetry.logs).
        "worker_hijack_root_logger": False,
        "worker_redirect_stdouts": False,
    }
