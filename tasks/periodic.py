"""Periodic tasks, run by `counterfoil beat` and any worker. Run twice they are harmless; never, they tell less."""

from __future__ import annotations

from typing import Any

import structlog
from celery import Task

from service import settings
from service.core.errors import DependencyUnavailable, SettingsError, ValidationError
from service.engine import audit as auditing
from service.engine import inbox, retention
from service.store import journal, outbox
from service.store.database import statement
from tasks.app import app
from tasks.effect_task import actor
from tasks.kinds import KINDS

WATCH_SECONDS = 60.0
INBOX_SECONDS = 10.0  # the nudge has done most of it within a second; this is for what no attempt will touch
AUDIT_SECONDS = 3600.0  # each goes on where the last one ended; what is younger than an hour waits for the next
LATE_SECONDS = 900.0  # a provider that has refused for this long (a wrong key, an outage) is somebody's business

PRUNE_SECONDS = 600.0  # a little at a time, so that a day's worth of old requests is no event
PRUNE_RUN_SECONDS = 60.0  # the lane's other tasks wait for no longer

log = structlog.get_logger(__name__)


class Periodic(Task):  # type: ignore[type-arg]
    """A task that takes nothing: Celery would print the names of the arguments that a stranger gave it."""

    abstract = True

    def __call__(self, *args: Any, **kwargs: Any) -> None:
        """A worker's way in."""
        if args or kwargs:
            log.warning("message_dropped", task=self.name, reason="the message holds arguments")
            return
        self.run()


@app.task(name="watch", base=Periodic)
def watch() -> None:
    """Say what is stuck: nothing stands unknown, parked or unpublished in silence (I2)."""
    with statement() as connection:
        now = outbox.stats(connection)
    late = now["oldest_unpublished_seconds"] or 0.0
    if late > 10 * settings.load().poll + 5:
        log.warning("outbox_late", oldest_seconds=round(late, 1), fresh=now["fresh"])
    if now["unclaimed"]:
        log.warning("effects_unclaimed", count=now["unclaimed"])
    if (now["oldest_unsettled_seconds"] or 0.0) > LATE_SECONDS:
        log.warning("effects_late", oldest_seconds=round(now["oldest_unsettled_seconds"], 1))
    if now["unknown"]:
        log.warning(
            "effects_unknown", count=now["unknown"], oldest_seconds=round(now["oldest_unknown_seconds"] or 0, 1)
        )
    if now["parked"]:
        log.warning("effects_parked", count=now["parked"], oldest_seconds=round(now["oldest_parked_seconds"] or 0, 1))


@app.task(name="inbox", base=Periodic)
def look_into_inbox() -> None:
    """Look at what Stripe has told us about and no attempt has dealt with. A dead provider costs one call a run."""
    found = inbox.run_once(KINDS, actor=actor(), seconds=settings.load().provider_deadline)
    if found:
        log.info("inbox", count=sum(found.values()), results=[f"{result} {n}" for result, n in sorted(found.items())])


@app.task(name="audit", base=Periodic)
def audit() -> None:
    """Compare our books with the provider's since the last audit; one warning for each class of break."""
    try:
        report = auditing.run(settings.load(), auditing.Wish(), actor=actor())
    except ValidationError as error:  # another one is at work, or nothing is old enough yet
        log.info("not_audited", reason=str(error))
    except (SettingsError, DependencyUnavailable) as error:
        log.warning("not_audited", reason=str(error))
    else:
        for name, count in report.breaks.items():
            if count:
                log.warning("audit_break", break_class=name, count=count, new=report.new[name], audit=report.audit)
        log.info("audited", audit=report.audit, effects=report.effects, breaks=report.found)


@app.task(name="prune", base=Periodic)
def prune() -> None:
    """Make the journal's next months, and let go what is older than the settings say."""
    with statement() as connection:
        made = journal.make_months(connection)
    if made:
        log.info("journal_months_made", months=made)
    done = retention.prune(settings.load(), actor=actor(), door="periodic", seconds=PRUNE_RUN_SECONDS)
    if done.requests or done.events or done.items or done.months:
        log.info(
            "pruned",
            requests_purged=done.requests,
            events=done.events,
            items_dropped=done.items,
            months=done.months,
        )


# Set here and not by a signal: registering a task finalizes the app, and the signal is over before anybody listens.
app.conf.beat_schedule = {
    "watch": {
        "task": watch.name,
        "schedule": WATCH_SECONDS,
        "options": {"queue": "periodic", "expires": WATCH_SECONDS},
    },
    "inbox": {
        "task": look_into_inbox.name,
        "schedule": INBOX_SECONDS,
        # Late is as good as never: the next run looks at the same rows.
        "options": {"queue": "periodic", "expires": INBOX_SECONDS},
    },
    "prune": {
        "task": prune.name,
        "schedule": PRUNE_SECONDS,
        "options": {"queue": "periodic", "expires": PRUNE_SECONDS},
    },
    "audit": {
        "task": audit.name,
        "schedule": AUDIT_SECONDS,
        "options": {"queue": "periodic", "expires": AUDIT_SECONDS},
    },
}
