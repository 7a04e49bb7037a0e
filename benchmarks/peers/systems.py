"""Who takes part, how each is set up, and what its own documentation says about a crash after the effect."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class System:
    """One row of the table."""

    name: str
    title: str
    adapter: str
    packages: tuple[str, ...]
    """The first one gives the row its version."""
    says: str
    """The documentation's own words, and where they stand."""
    variant: str = ""
    route: str = "create"
    """The request that moves money: create-and-confirm in one, or the confirm of two steps."""
    lease: bool = True
    """Whether somebody else takes over from a holder that is merely slow."""
    ours: bool = False
    """Runs in the project's environment, and always sends its key."""


_CELERY = ("celery", "kombu", "redis")

SYSTEMS = (
    System(
        "celery-early",
        "Celery, default (early acknowledgement)",
        "celery",
        _CELERY,
        "“the default behavior is to acknowledge the message in advance, just before it’s executed, so that a task "
        "invocation that already started is never executed again” (Celery, User Guide, Tasks)",
        variant="early",
        lease=False,
    ),
    System(
        "celery-late",
        "Celery, `acks_late`",
        "celery",
        _CELERY,
        "“the worker will acknowledge the message if the child process executing the task is terminated … even when "
        "acks_late is enabled” (Celery, User Guide, Tasks)",
        variant="late",
    ),
    System(
        "celery-late-rejecting",
        "Celery, `acks_late` + `reject_on_worker_lost`",
        "celery",
        _CELERY,
        "“this means the task may be executed twice if the worker crashes mid execution” (Celery, `Task.acks_late`); "
        "“Ideally task functions should be idempotent” (User Guide, Tasks)",
        variant="late_rejecting",
    ),
    System(
        "django-celery-outbox",
        "django-celery-outbox, worker as above",
        "django_celery_outbox",
        ("django-celery-outbox", "django", "celery"),
        "“consumers still need to be idempotent” (django-celery-outbox, README); “Your tasks should be idempotent” "
        "(Concepts)",
    ),
    System(
        "dbos",
        "DBOS, charge in one step",
        "dbos",
        ("dbos", "sqlalchemy"),
        "“steps get at-least-once guarantees and workflow outcomes are persisted exactly-once” (DBOS, Concurrent "
        "Executions)",
        lease=False,
    ),
    System(
        "dbos-two-steps",
        "DBOS, create and confirm in two steps",
        "dbos",
        ("dbos", "sqlalchemy"),
        "the same; the id of the PaymentIntent is the result of the first step, and a PaymentIntent succeeds once",
        variant="two_steps",
        route="confirm",
        lease=False,
    ),
    System(
        "procrastinate",
        "procrastinate, with the guide’s `retry_stalled_jobs`",
        "procrastinate",
        ("procrastinate", "psycopg"),
        "“if no specific action is taken, these stalled jobs will remain in the queue forever”; “Those stalled jobs "
        "can then be retried for example by a periodic task” (procrastinate, Retry stalled jobs)",
    ),
    System(
        "pgqueuer",
        "pgqueuer",
        "pgqueuer",
        ("pgqueuer", "asyncpg"),
        "“A job may run more than once; PgQueuer does not attempt exactly-once” (pgqueuer, ADR-0004); “Once the job "
        "reaches a terminal state …, the key is released” (Reliability Model)",
    ),
    System(
        "absurd",
        "Absurd",
        "absurd",
        ("absurd-sdk", "absurdctl", "psycopg"),
        "“brief overlapping execution is possible”; “If a step calls an external system that supports its own "
        "idempotency keys, derive one from the task identity” (Absurd, Concepts)",
    ),
    System(
        "counterfoil",
        "**Counterfoil**",
        "counterfoil",
        ("counterfoil",),
        "[docs/guarantees.md](guarantees.md)",
        route="confirm",
        ours=True,
    ),
)
