"""What must never be is refused by the database itself, whoever asks: one line here for each constraint and trigger."""

from __future__ import annotations

from collections.abc import Iterator

import psycopg
import pytest
from psycopg import errors
from psycopg.types.json import Jsonb

from service.core.state import FINAL, TRANSITIONS, State
from tests.store.books import order

# What an effect needs beside its state to be whole.
WHOLE = {
    "pending": {},
    "executing": {"attempt": 1, "first_sent_at": "now", "lease_until": "now"},
    "awaiting": {"attempt": 1, "first_sent_at": "now"},
    "unknown": {"attempt": 1, "first_sent_at": "now", "in_doubt": True},
    "parked": {"attempt": 1, "first_sent_at": "now"},
    "succeeded": {"attempt": 1, "first_sent_at": "now", "settled_at": "now", "outcome": Jsonb({})},
    "failed": {"attempt": 1, "first_sent_at": "now", "settled_at": "now", "outcome": Jsonb({})},
}
CLEAN = {"lease_until": None, "settled_at": None, "in_doubt": False}


class Sql:
    """Effects written by hand, past all of our code."""

    def __init__(self, connection: psycopg.Connection) -> None:
        self.connection = connection
        self.number = 0

    def effect(self, state: str = "pending", **changes: object) -> str:
        self.number += 1
        asked = order(f"key-{self.number}")
        columns = {
            "id": asked.id,
            "tenant": "default",
            "kind": "charge",
            "dedupe_key": asked.dedupe_key,
            "fingerprint": asked.fingerprint,
            "request": Jsonb(dict(asked.request)),
            "state": state,
            "policy": "at_most_once",
            "amount": 4200,
            "currency": "eur",
            **WHOLE.get(state, {}),
            **changes,
        }
        marks = ", ".join(f"%({name})s" for name in columns)
        self.connection.execute(f"insert into effects ({', '.join(columns)}) values ({marks})", columns)
        return str(columns["id"])

    def change(self, effect_id: str, **changes: object) -> None:
        wanted = ", ".join(f"{name} = %({name})s" for name in changes)
        self.connection.execute(f"update effects set {wanted} where id = %(_id)s", {**changes, "_id": effect_id})

    def duty(self, effect_id: str, **changes: object) -> None:
        columns = {"effect_id": effect_id, "kind": "charge", "lane": "charge", "road": "fresh", **changes}
        marks = ", ".join(f"%({name})s" for name in columns)
        self.connection.execute(f"insert into outbox ({', '.join(columns)}) values ({marks})", columns)

    def fact(self, fact: str = "accepted", attempt: int = 0) -> None:
        self.connection.execute(
            "insert into journal (effect_id, fact, attempt, actor) values (%s, %s, %s, 'me')",
            (order().id, fact, attempt),
        )


@pytest.fixture
def sql(database: str) -> Iterator[Sql]:
    with psycopg.connect(database, autocommit=True) as connection:
        yield Sql(connection)


@pytest.mark.parametrize("state", list(State))
def test_a_whole_effect_is_taken_in_every_state(sql, state):
    sql.effect(state.value)


@pytest.mark.parametrize(
    ("constraint", "state", "changes"),
    [
        ("effects_state", "done", {}),
        ("effects_names", "pending", {"tenant": ""}),
        ("effects_names", "pending", {"dedupe_key": ""}),
        ("effects_fingerprint", "pending", {"fingerprint": "abc"}),
        ("effects_fingerprint", "pending", {"fingerprint": "A" * 64}),
        ("effects_policy", "pending", {"policy": "perhaps"}),
        ("effects_attempt", "pending", {"attempt": -1, "first_sent_at": "now"}),
        ("effects_attempt", "pending", {"attempt": 1}),
        ("effects_lease", "executing", {"lease_until": None}),
        ("effects_lease", "pending", {"lease_until": "now"}),
        ("effects_lease", "unknown", {"lease_until": "now"}),
        ("effects_doubt", "unknown", {"in_doubt": False}),
        ("effects_settled", "succeeded", {"settled_at": None}),
        ("effects_settled", "parked", {"settled_at": "now", "outcome": Jsonb({})}),
        ("effects_outcome", "succeeded", {"outcome": None}),
        ("effects_final_certain", "failed", {"in_doubt": True}),
        ("effects_request", "pending", {"request": None}),
        ("effects_provider", "succeeded", {"provider_ref": "pi_1"}),
        ("effects_money", "pending", {"kind": "email", "currency": None}),
        ("effects_money", "pending", {"kind": "email", "amount": None}),
        ("effects_money", "pending", {"amount": 0, "request": Jsonb({"amount": 0, "currency": "eur"})}),
        ("effects_money", "pending", {"amount": -1, "request": Jsonb({"amount": -1, "currency": "eur"})}),
        ("effects_money", "pending", {"amount": 10**8, "request": Jsonb({"amount": 10**8, "currency": "eur"})}),
        ("effects_currency", "pending", {"currency": "EUR", "request": Jsonb({"amount": 4200, "currency": "EUR"})}),
        ("effects_currency", "pending", {"currency": "xts", "request": Jsonb({"amount": 4200, "currency": "xts"})}),
        ("effects_has_money", "pending", {"amount": None, "currency": None}),
        ("effects_money_as_requested", "pending", {"amount": 4201}),
        ("effects_money_as_requested", "pending", {"currency": "usd"}),
    ],
)
def test_a_constraint_refuses_what_contradicts_itself(sql, constraint, state, changes):
    with pytest.raises(errors.CheckViolation, match=f'"{constraint}"'):
        sql.effect(state, **changes)


@pytest.mark.parametrize("request_", [{}, {"amount": 4200}, {"currency": "eur"}])
def test_money_that_the_request_does_not_name_is_refused(sql, request_):
    with pytest.raises(errors.CheckViolation, match="effects_money_as_requested"):
        sql.effect(request=Jsonb(request_))


def test_i1_a_dedupe_key_is_used_once_per_tenant_and_kind(sql):
    sql.effect(dedupe_key="k")
    sql.effect(dedupe_key="k", tenant="other")
    with pytest.raises(errors.UniqueViolation, match="effects_dedupe_key"):
        sql.effect(dedupe_key="k")


def test_i1_a_reference_of_the_provider_belongs_to_one_effect(sql):
    sql.effect("succeeded", provider="stripe", provider_ref="pi_1")
    sql.effect("succeeded", provider="other", provider_ref="pi_1")
    with pytest.raises(errors.UniqueViolation, match="effects_provider_ref"):
        sql.effect("succeeded", provider="stripe", provider_ref="pi_1")


MOVES = [(a, b) for a in State for b in State if a is not b]


@pytest.mark.parametrize(("before", "after"), MOVES, ids=[f"{a}-{b}" for a, b in MOVES])
def test_only_the_moves_of_the_table_are_possible(sql, before, after):
    effect_id = sql.effect(before.value)
    first_sent = {} if before is not State.PENDING else {"first_sent_at": "now"}
    target = {k: v for k, v in WHOLE[after.value].items() if k != "first_sent_at"}
    change = {**CLEAN, "state": after.value, **target, **first_sent}
    if after in TRANSITIONS[before]:
        sql.change(effect_id, **change)
        return
    with pytest.raises(errors.IntegrityConstraintViolation, match="final" if before in FINAL else "no such transition"):
        sql.change(effect_id, **change)


@pytest.mark.parametrize("state", sorted(FINAL))
@pytest.mark.parametrize(
    "changes",
    [{"outcome": Jsonb({"charge": "ch_2"})}, {"settled_at": "2030-01-01"}, {"attempt": 2}, {"provider": "other"}],
    ids=lambda c: next(iter(c)),
)
def test_a_settled_effect_is_final(sql, state, changes):
    effect_id = sql.effect(state.value)
    with pytest.raises(errors.IntegrityConstraintViolation, match="a settled effect is final"):
        sql.change(effect_id, **changes)


def test_a_settled_effects_request_may_be_purged_and_the_key_stays(sql):
    effect_id = sql.effect("succeeded")
    sql.change(effect_id, request=None)
    open_one = sql.effect("pending")
    with pytest.raises(errors.CheckViolation, match="effects_request"):
        sql.change(open_one, request=None)


@pytest.mark.parametrize(
    "changes",
    [
        {"id": order().id},
        {"tenant": "other"},
        {"kind": "email"},
        {"dedupe_key": "other"},
        {"fingerprint": "0" * 64},
        {"policy": "at_least_once"},
        {"amount": 4201, "request": Jsonb({"amount": 4201, "currency": "eur"})},
        {"currency": "usd", "request": Jsonb({"amount": 4200, "currency": "usd"})},
        {"request": Jsonb({"amount": 4200, "currency": "eur", "payment_method": "pm_2"})},
        {"created_at": "2020-01-01"},
    ],
    ids=lambda c: next(iter(c)),
)
def test_what_was_accepted_is_frozen(sql, changes):
    effect_id = sql.effect()
    with pytest.raises(errors.IntegrityConstraintViolation, match="what was accepted is frozen"):
        sql.change(effect_id, **changes)


def test_what_caused_an_effect_is_frozen_and_exists(sql):
    cause, effect_id = sql.effect("succeeded"), sql.effect()
    with pytest.raises(errors.IntegrityConstraintViolation, match="frozen"):
        sql.change(effect_id, caused_by=cause)
    with pytest.raises(errors.ForeignKeyViolation):
        sql.effect(caused_by=order().id)


def test_i8_attempts_only_grow(sql):
    effect_id = sql.effect("unknown", attempt=3)
    sql.change(effect_id, attempt=4)
    with pytest.raises(errors.IntegrityConstraintViolation, match="attempts only grow"):
        sql.change(effect_id, attempt=3)


@pytest.mark.parametrize("moment", ["2030-01-01", None])
def test_the_first_send_never_changes(sql, moment):
    effect_id = sql.effect("unknown")
    with pytest.raises(errors.IntegrityConstraintViolation, match="first_sent_at never changes"):
        sql.change(effect_id, first_sent_at=moment)


@pytest.mark.parametrize("statement", ["delete from effects", "truncate effects cascade", "truncate effects, outbox"])
@pytest.mark.parametrize("state", ["pending", "succeeded"])
def test_a_dedupe_key_is_kept_for_ever(sql, statement, state):
    sql.effect(state)
    with pytest.raises(errors.IntegrityConstraintViolation, match="a dedupe key is kept for ever"):
        sql.connection.execute(statement)


@pytest.mark.parametrize("statement", ["update journal set actor = 'you'", "delete from journal", "truncate journal"])
def test_the_journal_is_append_only(sql, statement):
    sql.fact()
    with pytest.raises(errors.IntegrityConstraintViolation, match="the journal is append-only"):
        sql.connection.execute(statement)


def test_the_journal_takes_known_facts_of_possible_attempts(sql):
    with pytest.raises(errors.CheckViolation, match="journal_fact"):
        sql.fact("guessed")
    with pytest.raises(errors.CheckViolation, match="journal_attempt"):
        sql.fact(attempt=-1)


@pytest.mark.parametrize(
    ("constraint", "changes"),
    [
        ("outbox_road", {"road": "elsewhere"}),
        ("outbox_priority", {"priority": 10}),
        ("outbox_priority", {"priority": -1}),
        ("outbox_deliveries", {"deliveries": -1, "road": "later"}),
        ("outbox_deliveries", {"deliveries": 1}),
        ("outbox_parked", {"road": "parked"}),
        ("outbox_parked", {"road": "parked", "parked_at": "now"}),
        ("outbox_parked", {"parked_at": "now"}),
        ("outbox_parked", {"parked_reason": "why"}),
    ],
)
def test_the_outbox_refuses_what_contradicts_itself(sql, constraint, changes):
    with pytest.raises(errors.CheckViolation, match=f'"{constraint}"'):
        sql.duty(sql.effect(), **changes)


def test_i7_a_duty_is_for_an_effect_that_exists_and_there_is_one(sql):
    with pytest.raises(errors.ForeignKeyViolation):
        sql.duty(order().id)
    effect_id = sql.effect()
    sql.duty(effect_id)
    with pytest.raises(errors.UniqueViolation):
        sql.duty(effect_id)
