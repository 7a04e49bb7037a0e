"""The relay: wakes at once, sleeps for free, shares work, sits out outages, leaves when told."""

from __future__ import annotations

import json
from base64 import b64decode
from collections import Counter
from time import monotonic

from psycopg import connect, sql
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from service.engine.relay import QUIET_SECONDS as LISTENING_SECONDS
from tests.flow.system import System
from tests.flow.waiting import age
from tests.flow.wires import ValkeyWire

OUTAGE_SECONDS = 4.0  # several of the relay's tries, so that one line for all of them means something
QUIET_SECONDS = 3.0


def test_a_broker_that_is_away_costs_one_log_line_and_no_effect(system: System, valkey_wire: ValkeyWire) -> None:
    relay = system.relay()
    worker = system.worker()
    system.settles(system.charge())
    valkey_wire.server.stop()
    try:
        effect_id = system.charge(receipt="broker@example.test")
        system.until(lambda: relay.lines("outage"), "the relay has noticed")
        system.until(age(OUTAGE_SECONDS), "the outage has lasted a while")
    finally:
        valkey_wire.server.start()
    system.settles(effect_id)
    system.oracle.check()
    assert [line["event"] for line in relay.lines("outage")] == ["outage", "outage_over"]
    assert (relay.code, worker.code) == (None, None)


def test_a_database_that_is_away_costs_one_log_line_and_no_effect(system: System) -> None:
    relay = system.relay()
    worker = system.worker()
    system.settles(system.charge())
    effect_id = system.charge(countdown=1)
    name = str(conninfo_to_dict(system.database)["dbname"])
    with connect(make_conninfo(system.database, dbname="postgres"), autocommit=True) as outside:
        door = sql.SQL("alter database {} allow_connections {}")
        outside.execute(door.format(sql.Identifier(name), sql.Literal(False)))
        outside.execute(
            "select pg_terminate_backend(pid) from pg_stat_activity where datname = %s and backend_type = 'client backend'",
            (name,),
        )
        try:
            system.until(lambda: relay.lines("outage"), "the relay has noticed")
            system.until(age(OUTAGE_SECONDS), "the outage has lasted a while")
        finally:
            outside.execute(door.format(sql.Identifier(name), sql.Literal(True)))
    system.settles(effect_id)
    system.oracle.check()
    assert [line["event"] for line in relay.lines("outage")] == ["outage", "outage_over"]
    assert (relay.code, worker.code) == (None, None)


def test_two_relays_side_by_side_publish_each_row_once(system: System, valkey_wire: ValkeyWire) -> None:
    """Long before anything is redelivered, and while both are at work."""
    times = {"REDELIVERY": "60"}
    system.relay(**times)
    system.relay(**times)
    effect_ids = [effect_id for _ in range(10) for effect_id in system.charges(40)]
    left = "select 1 from outbox where road <> 'published'"
    system.until(lambda: not system.sql(left), "all rows are published")

    def published() -> Counter[str]:
        bodies = (json.loads(b64decode(json.loads(raw)["body"])) for raw in valkey_wire.copies("charge"))
        return Counter(effect_id for _, kwargs, _ in bodies for effect_id in kwargs["effect_ids"])

    system.until(lambda: published().total() >= len(effect_ids), "all messages are in the broker")
    assert published() == Counter(effect_ids)
    assert system.sql("select sum(deliveries) as n from outbox")[0]["n"] == len(effect_ids)


def test_a_relay_told_to_stop_leaves_with_zero_and_nothing_half_done(system: System, valkey_wire: ValkeyWire) -> None:
    relay = system.relay()
    system.until(lambda: _connections(system), "the relay is at work")
    effect_ids = system.charges(200)
    assert relay.stop() == 0
    published = system.sql("select effect_id from outbox where road = 'published'")
    bodies = [json.loads(b64decode(json.loads(raw)["body"])) for raw in valkey_wire.copies("charge")]
    assert {str(row["effect_id"]) for row in published} == {i for _, kwargs, _ in bodies for i in kwargs["effect_ids"]}
    system.worker()
    system.relay()
    system.settles(*effect_ids)
    system.oracle.check()


def test_a_relay_that_waits_is_stopped_at_once(system: System) -> None:
    relay = system.relay(POLL="60")
    system.until(lambda: _connections(system), "the relay is at work")
    assert relay.stop(seconds=10) == 0


def test_the_bell_wakes_a_relay_long_before_its_poll(system: System) -> None:
    relay = system.relay(POLL="300")
    system.worker()
    first = system.charge()
    system.settles(first)
    second = system.charge(receipt="bell@example.test")
    system.settles(second, seconds=20)
    system.oracle.check()
    assert relay.code is None


def test_an_idle_relay_costs_three_statements_per_poll(system: System) -> None:
    """Looked at for long, as Postgres counts a second late; and again if its own housekeeping was counted as well."""
    poll = 0.3
    system.relay(POLL=str(poll))
    system.until(lambda: _connections(system), "the relay is at work")
    system.until(age(QUIET_SECONDS), "what it did to begin with is counted")
    seen = []
    for _ in range(6):
        before, begun = _transactions(system), monotonic()
        system.until(age(2 * QUIET_SECONDS), "some time without work")
        polls = (monotonic() - begun) / (poll + LISTENING_SECONDS)
        seen.append((_transactions(system) - before) / polls)
        if 1 < seen[-1] <= 3.4:
            return
    raise AssertionError(f"statements per poll: {seen}")


def _connections(system: System) -> list[dict[str, object]]:
    return system.sql(
        "select pid from pg_stat_activity where datname = current_database() and query ilike 'listen %%'"
        " or (datname = current_database() and application_name = 'counterfoil')"
    )


def _transactions(system: System) -> int:
    row = system.sql("select xact_commit + xact_rollback as n from pg_stat_database where datname = current_database()")
    return int(row[0]["n"])
