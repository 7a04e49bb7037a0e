"""The database of a seed: rows in memory, and each statement of `service.store` as one step that nothing interrupts.

Written by hand after the SQL (claim, record, settle, lease out, hold back, wake, nudge, replay, release); tests/store
shows that the SQL does the same. Every change of state is looked up in the product's own table of transitions.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

from service.core.effect import Attempt, Concerned, Policy, Ready
from service.core.errors import DedupeConflict, DependencyUnavailable, Quarantined, ValidationError
from service.core.keys import dedupe_hash, fingerprint
from service.core.state import State
from service.engine.execute import WAITS_SECONDS
from service.store.attempts import Limits, Settlement
from tests.model.decisions import FINAL, LEGAL
from tests.simulation.hub import Hub
from tests.simulation.nemesis import COMMIT_LOST, DAY, OUTAGE, Nemesis

LIMITS = Limits(lease=90.0, budget=60, age_limit=3 * 86400.0)
REDELIVERY_SECONDS = 105.0
YEAR = 365 * DAY
_STATES = {state.value: state for state in State}
_FORGOTTEN = ("unanswered", "missed_at_age_seconds", "stored_500", "look_up")


class Broken(BaseException):
    """A promise is broken; a `BaseException`, so that nothing in the product catches it."""


class Row:
    """An effect with its outbox row; `road` is `gone` when that one is deleted."""

    __slots__ = (
        "attempt", "available_at", "begun_at", "booked", "born", "budget_from", "caused_by", "concerns", "created_at",
        "dedupe_key", "doubted", "first_sent_at", "id", "in_doubt", "kind", "lease_until", "not_before", "outcome",
        "parked_reason", "patience_from", "policy", "progress", "provider_ref", "ready_when", "receipt", "released",
        "request", "road", "server_error", "state",
    )  # fmt: skip

    def __init__(self, id_: str, kind: str, request: dict[str, Any], now: float) -> None:
        self.id, self.kind, self.request, self.dedupe_key = id_, kind, request, id_
        self.state, self.attempt, self.in_doubt, self.road = "pending", 0, False, "fresh"
        self.lease_until = self.not_before = self.first_sent_at = self.patience_from = self.begun_at = None
        self.available_at = self.created_at = now
        self.progress: dict[str, Any] = {}
        self.outcome: Any = None
        self.provider_ref = self.parked_reason = self.concerns = self.ready_when = self.caused_by = None
        self.budget_from = self.booked = self.born = self.doubted = 0
        self.policy = Policy.AT_MOST_ONCE
        self.receipt = self.released = self.server_error = False

    def copied(self) -> tuple[Any, ...]:
        """Its columns, as a backup keeps them."""
        return tuple([dict(self.progress) if name == "progress" else getattr(self, name) for name in _COLUMNS])

    def become(self, values: tuple[Any, ...]) -> None:
        """What it was when the backup was taken."""
        for name, value in zip(_COLUMNS, values, strict=True):
            setattr(self, name, value)


_COLUMNS = tuple(name for name in Row.__slots__ if name not in ("id", "request", "released"))


class Database:
    """All rows; `due` is told whenever a row may have come due."""

    def __init__(self, hub: Hub, nemesis: Nemesis, off: str, due: Callable[[float], None]) -> None:
        self.hub, self.nemesis, self.off, self.due = hub, nemesis, off, due
        self.hits = nemesis.hits
        self.rows: dict[str, Row] = {}
        self.ever: dict[str, Row] = {}
        self.closed, self.lives, self.last_fact = False, 0, 0
        self.began_at = -YEAR  # its life: the first claim
        self.left_at = 0.0
        self.quarantined_at: float | None = None
        self.orphans: dict[str, Any] = {}
        self.breaks: set[tuple[str, str]] = set()
        self.away_until = 0.0
        self.stuck: Callable[[Row], object] = lambda _: None
        self.trace: list[str] | None = None
        self.moves: set[tuple[str, str]] = set()

    # --- one statement, one commit -----------------------------------------------------------------------------------

    def commit(self, work: Callable[[], Any]) -> Any:
        """Do it, unless the database is away; its answer may be lost although it is done. Raises DependencyUnavailable."""
        hub = self.hub
        if not self.nemesis.left and hub.now >= self.away_until:
            return work()
        if hub.now >= self.away_until and self.nemesis.fires(OUTAGE):
            self.away_until = hub.now + self.nemesis.span()
        if hub.now < self.away_until:
            raise DependencyUnavailable("Postgres does not answer")
        done = work()
        if self.nemesis.fires(COMMIT_LOST):
            self.away_until = hub.now + 0.5
            raise DependencyUnavailable("the connection broke before the commit's answer")
        return done

    def say(self, row: Row, what: str) -> None:
        if self.trace is not None:
            self.trace.append(f"{self.hub.now:12.1f}  {row.id} {row.kind:7} #{row.attempt} {row.state:9}  {what}")

    def move(self, row: Row, to: str, why: str) -> None:
        """Every change of state."""
        move = (row.state, to)
        self.moves.add(move)
        if move not in LEGAL:
            raise Broken(f"I8 illegal move {row.state} → {to} of {row.id}")
        row.state = to
        row.lease_until = None
        if to in ("unknown", "parked") and self.nemesis.persons:
            self.stuck(row)
        self.say(row, why)

    def later(self, row: Row, seconds: float) -> None:
        row.road, row.available_at = "later", self.hub.now + seconds
        self.due(seconds)

    # --- callers -----------------------------------------------------------------------------------------------------

    def accept(self, row: Row) -> Row:
        """One row for one dedupe key, for ever. Raises DedupeConflict when the key came with another request (I4)."""
        if row.concerns is not None and row.concerns not in self.rows:
            raise ValidationError(f"there is no charge {row.concerns}", field="charge")
        if self.off != "unique_key":
            for known in self.rows.values():
                if known.dedupe_key == row.dedupe_key:
                    self._same(known, row)
                    return known
        elif row.id in self.rows:
            row.id += "'"
        self.rows[row.id] = self.ever[row.id] = row
        row.born = len(self.ever)
        self.due(0.0)
        self.say(row, "accepted")
        return row

    def _same(self, known: Row, asked: Row) -> None:
        if self.off == "fingerprint" or known.request is asked.request:
            return
        if fingerprint(known.kind, known.request) != fingerprint(asked.kind, asked.request):
            raise DedupeConflict(f"{known.dedupe_key} was used for another request", effect_id=known.id)

    # --- workers -----------------------------------------------------------------------------------------------------

    def claim(self, ids: Sequence[str]) -> list[Attempt]:
        if self.closed and self.off != "gate":
            raise Quarantined("restored")
        self.began_at = self.hub.now if self.began_at < 0.0 else self.began_at
        claimed = []
        for id_ in sorted(ids):
            row = self.rows.get(id_)
            if row is None or not self._claimable(row):
                continue
            if self._spent(row):
                self._park_spent(row)
            elif self.ready(row):
                claimed.append(self._claim(row))
            elif row.state == "pending" and row.road == "published":
                self.hits["held back for its charge"] += 1
                # Until the charge itself is looked at nothing can change, so no event is spent on finding that out.
                self.later(row, max(WAITS_SECONDS, self.rows[row.concerns].available_at - self.hub.now))
        return claimed

    def _claimable(self, row: Row) -> bool:
        now = self.hub.now
        if row.not_before is not None and row.not_before > now:
            return False
        if row.state == "executing":
            return row.lease_until < now
        return row.state in ("pending", "unknown", "awaiting")

    def _spent(self, row: Row) -> bool:
        if row.state == "awaiting":
            return False
        since = row.first_sent_at if row.patience_from is None else row.patience_from
        too_old = since is not None and since < self.hub.now - LIMITS.age_limit
        return row.attempt - row.budget_from >= LIMITS.budget or too_old

    def _park_spent(self, row: Row) -> None:
        row.in_doubt = row.in_doubt or row.state == "executing"
        row.parked_reason = "attempt_budget" if row.attempt - row.budget_from >= LIMITS.budget else "age_limit"
        self.hits["parked: spent"] += 1
        row.road = "parked"
        self.move(row, "parked", f"parked: {row.parked_reason}")

    def ready(self, row: Row) -> bool:
        if row.concerns is None or row.state != "pending" or self.off == "order_gate":
            return True
        other = self.rows[row.concerns]
        held = other.state == "awaiting" and (other.outcome or {}).get("status") == "requires_capture"
        return other.state in FINAL or (row.ready_when is Ready.AUTHORISED and held)

    def _claim(self, row: Row) -> Attempt:
        prior = row.state
        if prior == "executing":
            self.hits["lost lease found by a claim"] += 1
            if self.off != "doubt_on_lost_lease":
                row.in_doubt = True
            prior = "unknown" if self.off != "doubt_on_lost_lease" else "pending"
            self.move(row, "unknown", "leased out")
        row.attempt += 1
        self.move(row, "executing", "claimed")
        now = self.hub.now
        row.lease_until = now + LIMITS.lease
        row.begun_at = now
        if self.orphans:
            self._adopt_orphan(row)
        self.due(REDELIVERY_SECONDS)
        if row.first_sent_at is None and self.off != "sent_first":
            row.first_sent_at = now
        return self.attempt(row, prior)

    def _adopt_orphan(self, row: Row) -> None:
        """What an earlier life has sent for this key is this one's, and nothing is sent again."""
        name = dedupe_hash("t", row.kind, row.dedupe_key)
        for orphan in self.orphans.values():
            if orphan.hash == name and orphan.adopted_by is None and self.off != "orphans":
                orphan.adopted_by, row.in_doubt = row.id, True
                row.progress.update(orphan.found)
                row.first_sent_at = orphan.sent_at if row.first_sent_at is None else row.first_sent_at
                self.hits["orphan adopted"] += 1
                self.say(row, f"adopted {orphan.found}")

    def attempt(self, row: Row, prior: str) -> Attempt:
        """The effect as a provider sees it."""
        now, sent = self.hub.now, row.first_sent_at
        since = sent if row.patience_from is None else row.patience_from
        concerned = None
        if row.concerns is not None:
            other = self.rows[row.concerns]
            ref = other.provider_ref or other.progress.get("payment_intent")
            concerned = Concerned(other.id, _STATES[other.state], ref, other.progress.get("effect_id"))
        return Attempt(
            row.id,
            "t",
            row.kind,
            row.attempt,
            _STATES[prior],
            row.in_doubt,
            0.0 if sent is None else now - sent,
            row.attempt - row.budget_from,
            0.0 if since is None else now - since,
            row.request,
            dict(row.progress),
            row.policy,
            row.dedupe_key,
            {},
            concerned,
        )

    def record(self, attempt: Attempt, progress: dict[str, Any]) -> bool:
        row = self.rows.get(attempt.id)
        if row is None or (self.closed and self.off != "gate"):
            self.hits["record refused: a life that is over"] += 1
            return False
        owned = row.attempt == attempt.number and row.state == "executing" and row.lease_until > self.hub.now
        if not owned and self.off != "fenced_record":
            self.hits["record refused"] += 1
            return False
        row.progress.update(progress)
        if row.state == "executing":
            row.lease_until = self.hub.now + LIMITS.lease
        self.say(row, f"recorded {progress}")
        return True

    def settle(self, done: Settlement, follow_up: Callable[[Row], Row | None]) -> bool:
        row, to = self.rows.get(done.id), done.state.value
        if row is None:
            self.hits["settlement of a forgotten effect"] += 1
            return False
        forward = (row.state in ("unknown", "parked", "awaiting") and to in FINAL) or (
            row.state == "unknown" and to == "awaiting"
        )
        current = row.attempt == done.attempt or self.off == "fence"
        if not (current and (row.state == "executing" or forward or self.off == "final_guard")):
            self.hits["late answer stays a fact"] += 1
            self.say(row, f"late answer: {to}")
            return False
        if row.attempt != done.attempt:
            raise Broken(f"I9 attempt {done.attempt} of {row.id} wrote, {row.attempt} owns it")
        if row.state != "executing":
            self.hits["late answer moves it forward"] += 1
        self.write(row, done)
        caused = follow_up(row) if to == "succeeded" else None
        if caused is not None:
            self.accept(caused)
        self.wake(row)
        return True

    def write(self, row: Row, done: Settlement) -> None:
        """What `_SETTLE` sets."""
        now, to = self.hub.now, done.state.value
        row.in_doubt = done.in_doubt
        if done.evidence and "step" in done.evidence and done.evidence.get("status", 0) >= 500:
            row.server_error = True
        if done.outcome is not None:
            row.outcome = dict(done.outcome)
        row.provider_ref = done.provider_ref or row.provider_ref
        row.not_before = None if done.after_seconds is None else now + done.after_seconds
        if to == "awaiting":
            row.budget_from, row.patience_from = row.attempt, now
        self.move(row, to, f"settled: {done.fact} {done.error or ''}")
        if to in FINAL:
            row.booked += to == "succeeded"
            row.road = "gone"
        elif to == "parked":
            row.road, row.parked_reason = "parked", done.parked_reason
            self.hits[f"parked: {done.parked_reason}"] += 1
        else:
            self.later(row, done.after_seconds or 0.0)

    def wake(self, row: Row) -> None:
        """What waited for this one comes due; what it acted upon is asked after."""
        for other in self.rows.values():
            if other.concerns == row.id and other.state == "pending" and other.road in ("later", "published"):
                if (other.not_before is None or other.not_before <= self.hub.now) and self.ready(other):
                    self.hits["woken by its charge"] += 1
                    self.later(other, 0.0)
            elif other.id == row.concerns and other.state == "awaiting":
                other.not_before = None
                if other.road in ("later", "published"):
                    self.later(other, 0.0)

    # --- relays ------------------------------------------------------------------------------------------------------

    def take(self) -> list[tuple[Row, bool]]:
        """What is due, pushed ahead; with it whether it was published before and nothing came of it."""
        now, taken = self.hub.now, []
        if self.closed and self.off != "gate":
            return taken
        for row in self.rows.values():
            if row.road in ("fresh", "later", "published") and row.available_at <= now:
                taken.append((row, row.road == "published"))
                row.road, row.available_at = "published", now + REDELIVERY_SECONDS
                if self.off == "row_until_settled":
                    row.road = "gone"
        for row, again in taken:
            if again and row.state == "executing" and row.lease_until < now:
                self.lease_out(row)
        if taken:
            self.due(REDELIVERY_SECONDS)
        return taken

    def lease_out(self, row: Row) -> None:
        if self.off != "doubt_on_lost_lease":
            row.in_doubt = True
        self.hits["lost lease found by a relay"] += 1
        self.move(row, "unknown" if self.off != "doubt_on_lost_lease" else "pending", "leased out")

    def put_back(self, rows: Iterable[Row]) -> None:
        for row in rows:
            if row.road == "published":
                self.later(row, 1.0)

    # --- webhooks and persons ----------------------------------------------------------------------------------------

    def nudge(self, row: Row) -> None:
        """An event has come: whoever waits for it, and what acts upon it, is asked after now."""
        for other in self.rows.values():
            if (other is row or other.concerns == row.id) and other.state in ("unknown", "awaiting"):
                other.not_before = None
                self.hits["nudged by a webhook"] += 1
                if other.road in ("later", "published"):
                    self.later(other, 0.0)

    # --- a database that went back in time ---------------------------------------------------------------------------

    def quarantine(self) -> None:
        """Written down by whoever notices first."""
        if self.quarantined_at is None:
            self.quarantined_at, self.last_fact = self.hub.now, len(self.ever)

    def doubt(self, row: Row, step: int, last_fact: int) -> bool:
        """Mark what may have been sent in the life that was lost."""
        if row.road == "gone" or row.born > last_fact or row.doubted == self.lives or self.off == "doubt":
            return False
        if row.state == "executing":
            self.move(row, "unknown", "leased out")
        row.in_doubt, row.lease_until, row.doubted = True, None, self.lives
        row.first_sent_at = row.created_at if row.first_sent_at is None else row.first_sent_at
        row.attempt += step
        row.budget_from, row.patience_from = row.attempt, self.hub.now
        if row.kind == "email":
            row.progress["unanswered"] = max(1, row.progress.get("unanswered", 0))
        if row.road == "published":
            self.later(row, 0.0)
        self.hits["doubted by the recovery"] += 1
        self.say(row, "doubted by the recovery")
        return True

    def replay(self, row: Row) -> bool:
        live = row.state == "executing" and row.lease_until >= self.hub.now
        if row.road == "gone" or live:
            return False
        if row.state == "parked":
            if self.off == "doubt_survives_replay":
                row.in_doubt = False
            self.move(row, "pending", "replayed")
        row.not_before, row.budget_from = None, row.attempt
        row.patience_from = self.hub.now if row.first_sent_at is not None else None
        self.later(row, 0.0)
        return True

    def release(self, row: Row) -> None:
        """A person has proven that it was not done."""
        self.move(row, "pending", "released")
        row.in_doubt, row.not_before, row.released = False, None, True
        row.budget_from, row.patience_from = row.attempt, self.hub.now
        row.progress = {name: value for name, value in row.progress.items() if name not in _FORGOTTEN}
        self.later(row, 0.0)

    def adopt(self, row: Row, attempt: int, intent: str) -> None:
        """W11 healed from outside."""
        if row.attempt == attempt and row.state in ("unknown", "parked") and "payment_intent" not in row.progress:
            self.hits["intent adopted from a look"] += 1
            row.progress["payment_intent"] = intent
            self.say(row, f"adopted {intent}")
