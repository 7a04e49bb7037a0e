"""Lists: each is found by an index that knows it, so a page costs its own rows however long a tenant's history is."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from sqlalchemy import text

from service.core.state import FINAL, State
from service.store import attempts, effects, listing
from service.store.database import statement, transaction
from service.store.listing import Filters
from tests.store.books import ACTOR, LIMITS, Books, order, orders

HISTORY = 4_000
LIMIT = 5
BEYOND = 10
"""Rows that a page may read and not show: those between its own and the index's edge."""
_NOW = datetime.now(UTC)

# A tenant's years: what is rare is what is oldest. `quiet` has neither failures nor letters.
_LEDGER = """
with rows as (
    select i, t.tenant, now() - interval '300 days' * (1 - i / %s::float8) as at,
           t.tenant = 'big' and i <= 7 as failed, case when t.tenant = 'big' and i between 3 and 9 then 'email' else 'charge' end as kind
    from generate_series(1, %s) i, (values ('big'), ('quiet')) t (tenant)
), made as (
    insert into effects (id, tenant, kind, dedupe_key, fingerprint, request, state, attempt, first_sent_at, policy,
                         provider, provider_ref, outcome, amount, currency, created_at, settled_at)
    select (lpad(to_hex((extract(epoch from at) * 1000)::bigint), 12, '0') || '7000' || case tenant when 'big' then '8' else '9' end
            || lpad(to_hex(i), 15, '0'))::uuid,
           tenant, kind, 'old:' || i || ':' || kind, repeat('0', 64), case kind when 'charge' then '{"amount": 1, "currency": "eur"}' else '{}' end::jsonb,
           case when failed then 'failed' else 'succeeded' end, 1, at, 'at_most_once', 'stripe', tenant || i, '{}',
           case kind when 'charge' then 1 end, case kind when 'charge' then 'eur' end, at, at
    from rows returning id, state
)
insert into journal (effect_id, fact, attempt, actor) select id, state, 1, 'test' from made
"""


PAGES: list[tuple[dict[str, Any], int]] = [
    ({}, LIMIT),
    ({"kind": "email"}, LIMIT),
    ({"kind": "refund"}, 0),
    ({"state": "failed"}, LIMIT),
    ({"state": "failed", "kind": "email"}, LIMIT),
    ({"state": "failed", "created_until": _NOW - timedelta(days=90)}, LIMIT),
    ({"state": "failed", "created_since": _NOW - timedelta(days=90)}, 0),
    ({"state": "succeeded", "kind": "charge"}, LIMIT),
    ({"state": "pending"}, 0),
    ({"state": "pending", "kind": "charge"}, 0),
    *(({"state": state.value}, 0) for state in State if state not in {*FINAL, State.PENDING}),
    ({"key": "old:7:email"}, 1),
    ({"key": "unheard"}, 0),
    ({"kind": "charge", "key_prefix": "old:39"}, LIMIT),
    ({"kind": "email", "key_prefix": "unheard"}, 0),
    ({"ref": "big17"}, 1),
    ({"ref": "unheard"}, 0),
    ({"caused_by": order().id}, 0),
    ({"concerns": order().id}, 0),
    ({"created_until": _NOW - timedelta(days=400)}, 0),
    ({"created_since": _NOW + timedelta(days=2)}, 0),
]
"""Each filter that there is, and how many of `big` it finds, LIMIT at most."""


@pytest.fixture
def ledger(books: Books) -> Books:
    books.run(_LEDGER, HISTORY, HISTORY)
    books.run("vacuum analyze effects")
    return books


def rows_read(filters: Filters, after: str | None = None) -> int:
    """How many effects Postgres reads for a page."""
    with transaction() as connection:
        connection.execute(listing.CAUTIOUS, {"patience": "0"})
        asked, values = listing.query(connection, filters, after)
        explained = text(f"explain (analyze, format json) {asked}")
        plan = connection.execute(explained, {**values, "limit": LIMIT}).scalar_one()
    [found] = json.loads(plan) if isinstance(plan, str) else plan
    return sum(map(_touched, _nodes(found["Plan"])))


def _nodes(node: dict[str, Any]) -> list[dict[str, Any]]:
    return [node, *(below for child in node.get("Plans", []) for below in _nodes(child))]


def _touched(node: dict[str, Any]) -> int:
    if node.get("Relation Name") != "effects":
        return 0
    removed = node.get("Rows Removed by Filter", 0) + node.get("Rows Removed by Index Recheck", 0)
    return int((node["Actual Rows"] + removed) * node["Actual Loops"])


@pytest.mark.usefixtures("ledger")
def test_a_page_reads_its_own_rows_and_not_a_tenants_history(subtests: pytest.Subtests) -> None:
    for chosen, found in PAGES:
        with subtests.test(str(chosen)):
            filters = Filters("big", **chosen)
            assert len(listing.page(filters, after=None, limit=LIMIT)) == found
            assert rows_read(filters) <= found + BEYOND


def test_a_large_tenant_that_is_silent_reads_nothing_of_the_others(ledger: Books) -> None:
    ledger.accept(*[order(f"new:{i}", tenant="quiet") for i in range(200)])
    ledger.run("analyze effects")
    assert rows_read(Filters("big")) == LIMIT


@pytest.mark.usefixtures("ledger")
def test_a_tenant_without_failures_is_told_so_at_once() -> None:
    for state in ("failed", "pending", "parked"):
        filters = Filters("quiet", state=state)
        assert listing.page(filters, after=None, limit=LIMIT) == []
        assert rows_read(filters) <= BEYOND  # all tenants' failures, while they are few


def test_successes_are_found_behind_a_backlog(ledger: Books) -> None:
    ledger.accept(*[order(f"new:{i}", tenant="big") for i in range(200)])
    ledger.run("analyze effects")
    assert len(listing.page(Filters("big", state="succeeded"), after=None, limit=LIMIT)) == LIMIT
    assert rows_read(Filters("big", state="succeeded")) <= LIMIT + BEYOND


def test_a_range_reads_a_day_more_than_it_shows_at_most(ledger: Books) -> None:
    """Ids are made by the callers' clocks, and created_at decides."""
    filters = Filters("big", created_since=_NOW - timedelta(days=200), created_until=_NOW - timedelta(days=100))
    page = listing.page(filters, after=None, limit=LIMIT)
    assert all(_NOW - timedelta(days=200) <= row["created_at"] < _NOW - timedelta(days=100) for row in page)
    assert LIMIT <= rows_read(filters) <= LIMIT + HISTORY / 300 + 1
    assert ledger.count("effects") == 2 * HISTORY


@pytest.mark.usefixtures("ledger")
def test_failures_are_paged_to_their_end_newest_first() -> None:
    filters, seen, after = Filters("big", state="failed"), [], None
    while page := listing.page(filters, after=after, limit=3):
        seen += [row["dedupe_key"] for row in page]
        after = listing.place(filters, page[-1])
        assert rows_read(filters, after) <= LIMIT
    assert seen == [f"old:{i}:{'email' if i > 2 else 'charge'}" for i in range(7, 0, -1)]


def test_what_waits_is_found_before_and_behind_a_history(ledger: Books) -> None:
    ids = ledger.accept(*orders(6, tenant="big"))
    ledger.run(
        "update effects set attempt = 1, first_sent_at = now(), state = 'executing', lease_until = now() where id = %s",
        ids[0],
    )
    ledger.run("update effects set state = 'parked', lease_until = null where id = %s", ids[0])
    ledger.run(
        "update outbox set road = 'parked', parked_at = now(), parked_reason = 'by_person' where effect_id = %s", ids[0]
    )
    ledger.run("insert into journal (effect_id, fact, attempt, actor) values (%s, 'parked', 1, 'test')", ids[0])
    [parked] = listing.page(Filters("big", state="parked"), after=None, limit=LIMIT)
    assert (parked["id"], parked["parked_reason"]) == (ids[0], "by_person")
    pending = listing.page(Filters("big", state="pending", kind="charge"), after=None, limit=10)
    assert [row["id"] for row in pending] == sorted(ids[1:], reverse=True)
    with statement() as connection:  # the command's, over all tenants
        assert [row["id"] for row in effects.page(connection, {"state": "parked"}, after=None, limit=9)] == [ids[0]]
        assert len(effects.page(connection, {"state": "pending"}, after=None, limit=9)) == 5
        assert len(effects.page(connection, {"state": "failed"}, after=None, limit=9)) == 7


# --- at no cost to claims -------------------------------------------------------------------------------------------


def test_no_index_stands_on_what_a_claim_changes(books: Books) -> None:
    """An attribute in an index, or in its condition, makes each update that changes it write all indexes anew."""
    changed = "state|attempt|lease_until|not_before|first_sent_at|in_doubt|progress|budget_from|patience_from"
    defined = "select indexdef from pg_indexes where tablename = 'effects' and indexdef ~ %s"
    assert books.rows(defined, rf"\m({changed})\M") == []


def test_claims_are_heap_only_updates(books: Books) -> None:
    ids = books.accept(*orders(120))
    few = sorted(ids)[::4]  # a block has room for new versions of a quarter of its rows (fillfactor 70)
    told = text("select n_tup_upd, n_tup_hot_upd from pg_stat_xact_user_tables where relname = 'effects'")
    with transaction() as connection:
        assert len(attempts.claim(connection, few, LIMITS, actor=ACTOR)) == len(few)
        updated, heap_only = connection.execute(told).one()
    assert updated == heap_only == len(few)
