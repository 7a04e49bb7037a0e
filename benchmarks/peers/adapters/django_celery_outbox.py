"""django-celery-outbox: `OutboxCelery` writes the task beside the business row, a relay publishes it, Celery runs it.

django-celery-outbox docs, "Getting Started" and "Concepts". The consumer is a Celery worker with `acks_late` and
`reject_on_worker_lost`, since the outbox promises delivery at least once. The task id survives relay and redelivery.
"""

from __future__ import annotations

import os
import subprocess
import sys

import django
from celery.result import AsyncResult
from django.conf import settings

from benchmarks.peers import provider

ENDS = {"SUCCESS": "finished", "FAILURE": "failed"}
BROKER = os.environ["PEERS_BROKER"]

if not settings.configured:
    from urllib.parse import unquote, urlsplit

    url = urlsplit(os.environ["PEERS_DATABASE"])
    settings.configure(
        DATABASES={
            "default": {
                "ENGINE": "django.db.backends.postgresql",
                "NAME": url.path[1:],
                "USER": unquote(url.username or ""),
                "PASSWORD": unquote(url.password or ""),
                "HOST": url.hostname,
                "PORT": url.port,
            }
        },
        INSTALLED_APPS=["django_celery_outbox"],
        CELERY_OUTBOX_APP=f"{__name__}.app",
        USE_TZ=True,
    )
    django.setup()

from django.core.management import call_command  # noqa: E402 - Django wants its settings first
from django.db import transaction  # noqa: E402 - the same
from django_celery_outbox import OutboxCelery  # noqa: E402 - the same

app = OutboxCelery("peers", broker=BROKER, backend=BROKER)
app.conf.update(
    task_acks_late=True,
    task_reject_on_worker_lost=True,
    broker_connection_retry_on_startup=True,
    # As for plain Celery: short, and looked at every second.
    broker_transport_options={
        "visibility_timeout": int(os.environ["PEERS_LEASE_SECONDS"]),
        "unacked_restore_interval": 1,
        "unacked_restore_throttle": 1,
    },
)


@app.task(bind=True, name="charge")
def charge(self, order: str, amount: int) -> str:  # type: ignore[no-untyped-def]  # noqa: ANN001 - Celery's own way
    """One call to the provider."""
    return provider.charge(order, amount, self.request.id)


def prepare() -> None:
    """`manage.py migrate`."""
    call_command("migrate", verbosity=0)


def submit(key: str, amount: int) -> str:
    """Into the outbox, inside a transaction."""
    with transaction.atomic():
        charge.apply_async((key, amount), task_id=key)
    return "accepted"


def work() -> None:
    """A relay beside a worker."""
    relay = f"import {__name__}; from django.core.management import call_command; call_command('celery_outbox_relay')"
    subprocess.Popen([sys.executable, "-c", relay])
    flags = ["--concurrency", "1", "--loglevel", "INFO"]
    os.execv(  # noqa: S606 - becomes the worker itself, so that its process id is known
        sys.executable, [sys.executable, "-m", "celery", "-A", __name__, "worker", *flags]
    )


def recover() -> None:
    """Nothing: the worker replaces its child by itself."""


def state(key: str) -> str:
    """Celery's result state."""
    return AsyncResult(key, app=app).state
