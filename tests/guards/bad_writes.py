"""For each object of the schema that forbids something: one write that it refuses and nothing else does.

A NOT NULL needs no line of its own: a whole row without that column is its bad write.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import psycopg
from psycopg import sql as q
from psycopg.types.json import Jsonb

from tests.migrations.test_guards import Sql
from tests.store.books import order

_NOW = datetime(2026, 1, 1, tzinfo=UTC)
OPERATION = order().id
ROWS: dict[str, dict[str, Any]] = {
    "audits": {"since": _NOW, "until": _NOW + timedelta(days=1), "actor": "me"},
    "breaks": {"class": "missing", "subject": "one"},
    "inbox": {"provider": "stripe", "event_id": "evt_1", "type": "t", "object_id": "o", "object_type": "charge", "event_at": _NOW},
    "incarnations": {
        "follows": 0, "system_identifier": "1", "database_oid": 1, "timeline": 1, "last_fact": 0,
        "released_at": _NOW, "released_by": "me", "release_reason": "first",
    },
    "orphans": {"provider": "stripe", "provider_ref": "pi_1", "kind": "charge"},
    "outbox": {"kind": "charge", "lane": "charge", "road": "fresh"},
    "journal": {"fact": "accepted", "attempt": 0, "actor": "me"},
    "operations": {"id": OPERATION, "verb": "replay", "selector": {}, "total": 1, "planned_by": "me", "expires_at": _NOW},
    "operation_items": {"operation_id": OPERATION, "effect_id": OPERATION, "position": 1, "seen_state": "parked", "seen_attempt": 1},
    "group_notes": {"group_id": "0123456789ab", "note": "INC-42", "author": "me"},
    "lanes": {"name": "slow", "paused_at": _NOW, "paused_by": "me", "pause_reason": "slow"},
    "actions": {"actor": "me", "door": "cli", "verb": "pause", "subject": "lane slow"},
    "purges": {"subject": "requests", "until": _NOW},
    "kept_requests": {"effect_id": order().id, "why": "break"},
    "api_keys": {"id": "cfk_a", "tenant": "t", "name": "n", "hash": "a" * 64, "scopes": ["effects:read"], "created_by": "me"},
    "buckets": {"account": "stripe test", "costs": {"charge": 2}, "per_second": 1.0, "burst": 2.0, "tokens": 1.0},
    "circuits": {"provider": "stripe", "kinds": ["charge"]},
}  # fmt: skip
"""A whole row of each table but `effects`; what points to others is added when it is written."""


class Hand(Sql):
    """Rows written by hand, past all of our code."""

    def __init__(self, connection: psycopg.Connection) -> None:
        super().__init__(connection)

    def put(self, table: str, **changes: object) -> None:
        """A whole row, less what is asked to be wrong with it."""
        if table == "effects":
            self.effect(**changes)
            return
        row = {**ROWS[table], **changes}
        if table in ("outbox", "journal") and "effect_id" not in changes:
            row["effect_id"] = self.effect()
        if table == "operation_items" and "operation_id" not in changes:
            self._operation()
        names = q.SQL(", ").join(map(q.Identifier, row))
        marks = q.SQL(", ").join(map(q.Placeholder, row))
        statement = q.SQL("insert into {} ({}) values ({})").format(q.Identifier(table), names, marks)
        self.connection.execute(statement, {name: Jsonb(v) if isinstance(v, dict) else v for name, v in row.items()})

    def _operation(self) -> None:
        if self.connection.execute("select 1 from operations where id = %s", [OPERATION]).fetchone() is None:
            self.put("operations")

    def do(self, statement: str) -> None:
        self.connection.execute(statement)


@dataclass(frozen=True, slots=True)
class Bad:
    """`before` is allowed and prepares; `write` is what only this object refuses; `harm` what it would mean."""

    harm: str
    write: Callable[[Hand], object]
    before: Callable[[Hand], object] = lambda _: None


def _money(amount: int, currency: str = "eur") -> dict[str, Any]:
    return {"amount": amount, "currency": currency, "request": Jsonb({"amount": amount, "currency": currency})}


def _change(**changes: object) -> Callable[[Hand], object]:
    return lambda h: h.connection.execute(
        "update effects set " + ", ".join(f"{name} = %({name})s" for name in changes), changes
    )


def _twice(table: str, **changes: object) -> tuple[Callable[[Hand], object], Callable[[Hand], object]]:
    return (lambda h: h.put(table, **changes)), (lambda h: h.put(table, **changes))


_ID = order().id
_STRANGER = "0198c0de-0000-7000-8000-00000000dead"

EFFECTS = {
    "effects_pkey": Bad("two effects of one id, and one key at the provider for both (I1)", lambda h: h.effect(id=_ID), lambda h: h.effect(id=_ID)),
    "effects_dedupe_key": Bad("one dedupe key, two effects, two charges (I1)", lambda h: h.effect(dedupe_key="k"), lambda h: h.effect(dedupe_key="k")),
    "effects_provider_ref": Bad(
        "one PaymentIntent pays for two effects (I5)",
        lambda h: h.effect("succeeded", provider="stripe", provider_ref="pi_1"),
        lambda h: h.effect("succeeded", provider="stripe", provider_ref="pi_1"),
    ),
    "effects_names": Bad("an effect without a tenant, whom nobody may see", lambda h: h.effect(tenant="")),
    "effects_fingerprint": Bad("a fingerprint that never equals another (I4)", lambda h: h.effect(fingerprint="abc")),
    "effects_state": Bad("a state that no code knows (I2)", lambda h: h.effect("done")),
    "effects_policy": Bad("a policy that no code knows", lambda h: h.effect(policy="perhaps")),
    "effects_attempt": Bad("an attempt is under way and nobody knows since when (W6)", lambda h: h.effect("awaiting", first_sent_at=None)),
    "effects_lease": Bad("executing without a lease: nobody ever takes over (I10)", lambda h: h.effect("executing", lease_until=None)),
    "effects_doubt": Bad("unknown and free of doubt: a front answer settles it as failed (I5)", lambda h: h.effect("unknown", in_doubt=False)),
    "effects_settled": Bad("succeeded and never settled: no report has it", lambda h: h.effect("succeeded", settled_at=None)),
    "effects_outcome": Bad("settled without an outcome: its caller waits for what is not there", lambda h: h.effect("succeeded", outcome=None)),
    "effects_final_certain": Bad("failed, and perhaps done (I5)", lambda h: h.effect("failed", in_doubt=True)),
    "effects_request": Bad("nothing to send, for ever (I2)", lambda h: h.effect(kind="cancel", request=None, amount=None, currency=None)),
    "effects_provider": Bad("a reference of nobody's", lambda h: h.effect("succeeded", provider_ref="pi_1")),
    "effects_money": Bad("a charge of minus one cent", lambda h: h.effect(**_money(-1))),
    "effects_currency": Bad("a charge in no currency of this world", lambda h: h.effect(**_money(4200, "xts"))),
    "effects_has_money": Bad("a charge of nothing", lambda h: h.effect(amount=None, currency=None)),
    "effects_money_as_requested": Bad("the books say 42.01, the request 42.00 (I1: amounts equal)", lambda h: h.effect(amount=4201)),
    "effects_ready": Bad("a refund that waits for no charge (order)", lambda h: h.effect(kind="refund", ready_when="settled")),
    # The trigger below corrects it; where triggers do not run (a subscriber, pg_restore --disable-triggers) it is refused.
    "effects_failed_state": Bad("a failure that no list of failures has (I2)", lambda h: h.effect("failed"), lambda h: h.do("alter table effects disable trigger user")),
    "effects_caused_by_fkey": Bad("a receipt of a charge that never was (I3)", lambda h: h.effect(caused_by=_STRANGER)),
    "effects_concerns_fkey": Bad("a refund of a charge that never was (I3)", lambda h: h.effect(kind="refund", concerns=_STRANGER, ready_when="settled")),
    "trigger effects_final": Bad("a settled outcome is rewritten (I5)", _change(outcome=Jsonb({"charge": "ch_2"})), lambda h: h.effect("succeeded")),
    "trigger effects_frozen": Bad("what was accepted is changed on the way (I4)", _change(tenant="other"), lambda h: h.effect()),
    "trigger effects_keep": Bad("a dedupe key is forgotten, and free for a second charge (I1)", lambda h: h.do("delete from effects"), lambda h: h.effect()),
    "trigger effects_keep_all": Bad("all dedupe keys are forgotten (I1)", lambda h: h.do("truncate effects cascade"), lambda h: h.effect()),
    "trigger effects_monotonic": Bad("a fencing token comes back: a zombie owns the effect (I9)", _change(attempt=2), lambda h: h.effect("unknown", attempt=3)),
    "trigger effects_transition": Bad("a parked effect is sent without a person (I8)", _change(state="executing", lease_until="now"), lambda h: h.effect("parked")),
}  # fmt: skip


def _each_month(hand: Hand) -> None:
    """Truncate one partition after the other; refused when all of them refuse."""
    months = hand.connection.execute(
        "select inhrelid::regclass::text from pg_inherits where inhparent = 'journal'::regclass"
    )
    refused: Exception | None = None
    for (name,) in months.fetchall():
        try:
            with hand.connection.transaction():
                hand.do(f"truncate {name}")
        except psycopg.errors.IntegrityConstraintViolation as error:
            refused = error
        else:
            return
    assert refused
    raise refused


OTHERS = {
    "outbox_pkey": Bad("one effect is delivered by two rows (I7)", lambda h: h.duty(_ID), lambda h: (h.effect(id=_ID), h.duty(_ID))),
    "outbox_road": Bad("a row that no relay looks for (I2)", lambda h: h.put("outbox", road="elsewhere")),
    "outbox_priority": Bad("a priority beyond those that exist", lambda h: h.put("outbox", priority=10)),
    "outbox_deliveries": Bad("a fresh row that was delivered before", lambda h: h.put("outbox", deliveries=1)),
    "outbox_parked": Bad("parked, and nobody knows why (I2)", lambda h: h.put("outbox", road="parked")),
    "outbox_effect_id_fkey": Bad("a duty for no effect (I7)", lambda h: h.put("outbox", effect_id=_STRANGER)),
    "journal_pkey": Bad(
        "two facts of one number: their order is lost (I8)",
        lambda h: h.do(f"insert into journal (effect_id, id, at, fact, attempt, actor) values ('{_ID}', 1, '2026-01-01', 'accepted', 0, 'me')"),
        lambda h: h.do(f"insert into journal (effect_id, id, at, fact, attempt, actor) values ('{_ID}', 1, '2026-01-01', 'accepted', 0, 'me')"),
    ),
    "journal_fact": Bad("a fact that explains nothing (I8)", lambda h: h.put("journal", fact="guessed")),
    "journal_attempt": Bad("a fact of an attempt that cannot be (I8)", lambda h: h.put("journal", attempt=-1)),
    "trigger journal_append_only": Bad("a fact is rewritten (I8)", lambda h: h.do("update journal set actor = 'you'"), lambda h: h.put("journal")),
    "trigger journal_keep": Bad("a month of facts is gone (I8)", _each_month, lambda h: h.put("journal")),
    "inbox_pkey": Bad("one event is looked at twice as often as it came", *reversed(_twice("inbox"))),
    "inbox_tries": Bad("fewer tries than none", lambda h: h.put("inbox", tries=-1)),
    "inbox_result": Bad("processed, and nobody knows with what result", lambda h: h.put("inbox", processed_at=_NOW)),
    "audits_pkey": Bad(
        "two audits of one number",
        lambda h: h.do("insert into audits (id, since, until, actor) overriding system value values (1, '2026-01-01', '2026-01-02', 'me')"),
        lambda h: h.do("insert into audits (id, since, until, actor) overriding system value values (1, '2026-01-01', '2026-01-02', 'me')"),
    ),
    "audits_window": Bad("an audit of no time finds nothing and is the cursor", lambda h: h.put("audits", until=_NOW)),
    "breaks_pkey": Bad(
        "a person closes two breaks and has looked at one",
        lambda h: h.do("insert into breaks (id, class, subject) overriding system value values (1, 'a', 'two')"),
        lambda h: h.do("insert into breaks (id, class, subject) overriding system value values (1, 'a', 'one')"),
    ),
    "breaks_names": Bad("a break about nothing", lambda h: h.put("breaks", subject="")),
    "breaks_closed": Bad("closed by nobody", lambda h: h.put("breaks", closed_at=_NOW)),
    "breaks_open": Bad("one thing is two open breaks", *reversed(_twice("breaks"))),
    "breaks_first_audit_fkey": Bad("found by an audit that never was", lambda h: h.put("breaks", first_audit=99)),
    "breaks_last_audit_fkey": Bad("seen by an audit that never was", lambda h: h.put("breaks", last_audit=99)),
    "incarnations_pkey": Bad(
        "two lives of one number: which is the latest?",
        lambda h: h.do("update incarnations set id = default where false; insert into incarnations (id, follows, system_identifier, database_oid, timeline, last_fact, quarantined_at, quarantine_reason) overriding system value values (1, 1, '1', 1, 1, 0, now(), 'r')"),
        lambda h: h.do("insert into incarnations (id, follows, system_identifier, database_oid, timeline, last_fact, quarantined_at, quarantine_reason) overriding system value values (1, 0, '1', 1, 1, 0, now(), 'r')"),
    ),
    "incarnations_chain": Bad("two processes write down two lives for one (I1: one of them is released unseen)", *reversed(_twice("incarnations"))),
    "incarnations_quarantine": Bad("in quarantine, and nobody knows why", lambda h: h.put("incarnations", quarantined_at=_NOW)),
    "incarnations_release": Bad("released by nobody (I1)", lambda h: h.put("incarnations", released_by=None, release_reason=None, released_at=None)),
    "trigger incarnations_final": Bad("a release is rewritten for another timeline (I1)", lambda h: h.do("update incarnations set timeline = 2"), lambda h: h.put("incarnations")),
    "trigger incarnations_keep": Bad("a life is forgotten, and the next begins as the first (I1)", lambda h: h.do("delete from incarnations"), lambda h: h.put("incarnations")),
    "trigger incarnations_keep_all": Bad("all lives are forgotten (I1)", lambda h: h.do("truncate incarnations cascade"), lambda h: h.put("incarnations")),
    "orphans_pkey": Bad("one object at the provider is adopted twice (I1)", *reversed(_twice("orphans"))),
    "orphans_dedupe_hash": Bad(
        "two movements of money answer to one key (I1)",
        lambda h: h.put("orphans", dedupe_hash="h", provider_ref="pi_2"),
        lambda h: h.put("orphans", dedupe_hash="h"),
    ),
    "buckets_pkey": Bad("an account has two paces, and is asked at both", *reversed(_twice("buckets"))),
    "buckets_costs": Bad("a bucket of no kind: nobody's pace, and nobody knows", lambda h: h.put("buckets", costs={})),
    "buckets_rate": Bad("a pace of nothing: its effects wait for ever (I2)", lambda h: h.put("buckets", per_second=0.0)),
    "buckets_tokens": Bad("more tokens than the bucket holds: a storm", lambda h: h.put("buckets", tokens=float("nan"))),
    "circuits_pkey": Bad("a provider is away and answers at once", *reversed(_twice("circuits"))),
    "circuits_kinds": Bad("open, and for no kind", lambda h: h.put("circuits", kinds=[])),
    "circuits_failures": Bad("fewer failures than none: it never opens", lambda h: h.put("circuits", failures=-1)),
    "circuits_open": Bad("open without a probe: its effects wait for ever (I2)", lambda h: h.put("circuits", opened_at=_NOW)),
    "operations_pkey": Bad("two operations of one name: the wrong one is started", *reversed(_twice("operations"))),
    "operations_verb": Bad("a verb that no relay knows: it runs for ever", lambda h: h.put("operations", verb="delete")),
    "operations_state": Bad("an operation that nobody drives and nobody sees end", lambda h: h.put("operations", state="gone")),
    "operations_total": Bad("fewer effects than none", lambda h: h.put("operations", total=-1)),
    "operations_batch": Bad("a commit of no effect: it never ends", lambda h: h.put("operations", batch=0)),
    "operations_pace": Bad("a pace of nothing: it never ends", lambda h: h.put("operations", per_second=0.0)),
    "operations_started": Bad("effects are replayed, and nobody has said why (I8)", lambda h: h.put("operations", state="running")),
    "operations_paused": Bad("paused, and it goes on", lambda h: h.put("operations", paused_at=_NOW)),
    "operations_finished": Bad("finished, and it can be started", lambda h: h.put("operations", finished_at=_NOW)),
    "operation_items_pkey": Bad("one operation replays one effect twice", lambda h: h.put("operation_items", position=2), lambda h: h.put("operation_items")),
    "operation_items_position": Bad("two effects are the third: which one is a canary?", lambda h: h.put("operation_items", effect_id=_STRANGER), lambda h: h.put("operation_items")),
    "operation_items_result": Bad("neither done nor skipped nor waiting", lambda h: h.put("operation_items", result="lost", done_at=_NOW)),
    "operation_items_done": Bad("done at no time: the pace does not count it", lambda h: h.put("operation_items", result="done")),
    "operation_items_why": Bad("skipped, and nobody knows why", lambda h: h.put("operation_items", result="skipped", done_at=_NOW)),
    "operation_items_ended": Bad("came to rest before it was touched", lambda h: h.put("operation_items", ended="parked")),
    "operation_items_operation_id_fkey": Bad("an item of no plan", lambda h: h.put("operation_items", operation_id=_STRANGER)),
    "trigger operation_items_frozen": Bad("what is carried out is not what was seen", lambda h: h.do("update operation_items set seen_attempt = 2"), lambda h: h.put("operation_items")),
    "group_notes_pkey": Bad(
        "two notes of one number",
        lambda h: h.do("insert into group_notes (group_id, id, note, author) overriding system value values ('a', 1, 'n', 'me')"),
        lambda h: h.do("insert into group_notes (group_id, id, note, author) overriding system value values ('a', 1, 'n', 'me')"),
    ),
    "group_notes_note": Bad("a note that says nothing", lambda h: h.put("group_notes", note="")),
    "lanes_pkey": Bad("one lane is paused and is not", *reversed(_twice("lanes"))),
    "lanes_paused": Bad("paused by nobody: whom to ask?", lambda h: h.put("lanes", paused_by=None)),
    "actions_pkey": Bad(
        "two actions of one number",
        lambda h: h.do("insert into actions (id, actor, door, verb, subject) overriding system value values (1, 'me', 'cli', 'v', 's')"),
        lambda h: h.do("insert into actions (id, actor, door, verb, subject) overriding system value values (1, 'me', 'cli', 'v', 's')"),
    ),
    "actions_door": Bad("came in by no door that we have", lambda h: h.put("actions", door="window")),
    "trigger actions_append_only": Bad("who did it is rewritten", lambda h: h.do("update actions set actor = 'you'"), lambda h: h.put("actions")),
    "trigger actions_keep": Bad("who did what is gone", lambda h: h.do("truncate actions"), lambda h: h.put("actions")),
    "api_keys_pkey": Bad("one name, two keys: the wrong one is revoked", lambda h: h.put("api_keys", hash="b" * 64), lambda h: h.put("api_keys")),
    "api_keys_hash": Bad("one key opens for two tenants", lambda h: h.put("api_keys", id="cfk_b"), lambda h: h.put("api_keys")),
    "api_keys_hash_form": Bad("a key that was kept in clear", lambda h: h.put("api_keys", hash="cfk_a_secret")),
    "api_keys_names": Bad("a key of nobody's tenant", lambda h: h.put("api_keys", tenant="")),
    "api_keys_scopes": Bad("a scope that no code knows", lambda h: h.put("api_keys", scopes=["all"])),
    "api_keys_pace": Bad("a rate of nothing: the key is never let in", lambda h: h.put("api_keys", per_second=0.0, burst=1)),
    "api_keys_tokens": Bad("more requests than the bucket holds", lambda h: h.put("api_keys", per_second=1.0, burst=1, tokens=float("nan"), filled_at=_NOW)),
    "api_keys_revoked": Bad("revoked by nobody", lambda h: h.put("api_keys", revoked_at=_NOW)),
    "api_keys_rotates_fkey": Bad("the heir of a key that never was", lambda h: h.put("api_keys", rotates="cfk_z")),
    "trigger api_keys_frozen": Bad("a small key becomes a large one", lambda h: h.do("update api_keys set scopes = array['charges:write']"), lambda h: h.put("api_keys")),
    "purges_pkey": Bad("two purges, each as far as the other is not", *reversed(_twice("purges"))),
    "purges_subject": Bad("a purge of something that is kept for ever (I1)", lambda h: h.put("purges", subject="keys")),
    "purges_done": Bad("fewer purged than none", lambda h: h.put("purges", done=-1)),
    "kept_requests_pkey": Bad("one request is kept for two reasons and let go for one", *reversed(_twice("kept_requests"))),
    "kept_requests_why": Bad("a request is kept, and nobody knows why", lambda h: h.put("kept_requests", why="perhaps")),
    "orphans_incarnation_fkey": Bad("found in a life that never was", lambda h: h.put("orphans", incarnation=99)),
}  # fmt: skip
BAD = {**EFFECTS, **OTHERS}

FILLS: dict[str, tuple[str, Callable[[Hand], object]]] = {
    "trigger effects_marked": ("the code of before 0011 could let no effect fail", lambda h: h.effect("failed")),
}
"""What fills a column in for whoever does not know it: with it the write is taken, without it refused."""
FILLED = {"failed"}
"""The columns."""

QUICK_ONLY = {
    "actions_subject": "what was done to a lane, a key or an operation is found",
    "breaks_effect": "a person looks for the breaks of an effect",
    "effects_caused_by": "the receipt of a charge is found",
    "effects_concerns": "what waits for a charge is woken",
    "effects_failed": "a tenant's failures are found among millions that succeeded",
    "effects_failed_newest": "all tenants' failures are found, newest first",
    "effects_tenant": "a tenant sees its own effects, newest first",
    "effects_tenant_kind": "a tenant's letters are found among millions of charges",
    "effects_unsettled": "what a tenant has under way is found among millions that are settled",
    "effects_succeeded": "a tenant's successes are found behind a hundred thousand that wait",
    "effects_settled": "an audit finds its window",
    "inbox_open": "what nobody has looked at is found",
    "inbox_received": "old events are found",
    "operation_items_effect": "the operations of an effect are found",
    "operations_open": "a relay finds what it has to drive",
    "operations_planned_at": "people see the newest first",
    "outbox_held": "a resumed lane finds what it held",
    "outbox_by_kind": "a relay that may not take all kinds finds what it may",
    "outbox_fresh": "a relay takes fresh rows by priority",
    "outbox_later": "a relay takes what comes due again",
    "outbox_parked": "people see what is parked",
    "outbox_published": "the window is counted, the overdue are found",
}
"""Indexes that forbid nothing: without them everything is as right as before, and slower."""
