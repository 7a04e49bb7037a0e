"""Each check of `counterfoil doctor` fails for what it is there for, says what that means, and how to mend it."""

from __future__ import annotations

import json
from typing import Any

import psycopg
import pytest

from tests.flow.doctoring import check, shows, spoiled
from tests.flow.doors import park
from tests.flow.terminal import Run, accepted, key, run, shell, url  # noqa: F401 - fixtures

OFF = "alter table outbox set (autovacuum_enabled = {})"
CASES = {
    "indexes": (
        "alter index outbox_fresh rename to outbox_gone",
        "alter index outbox_gone rename to outbox_fresh",
        ("missing: outbox_fresh", "counterfoil db upgrade"),
    ),
    "bloat": (OFF.format("off"), "alter table outbox reset (autovacuum_enabled)", ("outbox has autovacuum off", "turn autovacuum on")),
    "tables": (
        "update alembic_version set version_num = '0001'",
        "update alembic_version set version_num = '{head}'",
        ("0001", "counterfoil db upgrade"),
    ),
    "isolation": (
        "alter database {name} set default_transaction_isolation = 'serializable'",
        "alter database {name} reset default_transaction_isolation",
        ("serializable", "default_transaction_isolation"),
    ),
}  # fmt: skip


@shows(*CASES)
@pytest.mark.parametrize("name", CASES)
def test_a_database_in_bad_repair_is_seen_and_the_fix_is_named(run: Run, url: str, name: str) -> None:
    with psycopg.connect(url) as db:
        head = str(db.execute("select version_num from alembic_version").fetchall()[0][0])
        fresh = db.execute("select indexname from pg_indexes where tablename = 'outbox' and indexname like '%fresh%'")
        index = str(fresh.fetchall()[0][0])
        about = {"head": head, "name": db.info.dbname}
    do, undo, (seen, fix) = CASES[name]
    do, undo, seen = (said.replace("outbox_fresh", index).format(**about) for said in (do, undo, seen))
    assert check(run, name)["ok"]
    with spoiled(url, do, undo):
        found = check(run, name)
        assert not found["ok"]
        assert seen in found["found"]
        assert fix in found["fix"]
        assert found["meaning"]


@shows("outbox")
def test_what_is_due_and_not_published_means_that_no_relay_is_at_work(run: Run, url: str, key: str) -> None:
    effect_id = accepted(run, key)
    with spoiled(
        url,
        f"update outbox set available_at = now() - interval '1 hour', created_at = now() - interval '1 hour' where effect_id = '{effect_id}'",
        f"update outbox set available_at = now(), created_at = now() where effect_id = '{effect_id}'",
    ):
        found = check(run, "outbox")
        assert not found["ok"]
        assert "counterfoil relay" in found["fix"]


@shows("published and not picked up")
def test_what_nobody_picks_up_is_told_from_what_nobody_publishes(run: Run, url: str, key: str) -> None:
    effect_id = accepted(run, key)
    with spoiled(
        url,
        "update outbox set road = 'published', deliveries = 3, created_at = now() - interval '1 day',"
        f" available_at = now() + interval '1 minute' where effect_id = '{effect_id}'",
        f"update outbox set road = 'fresh', deliveries = 0, created_at = now(), available_at = now() where effect_id = '{effect_id}'",
    ):
        found = check(run, "published and not picked up")
        assert not found["ok"]
        assert effect_id in found["found"]
        assert "workers" in found["fix"]
        assert check(run, "started and not finished")["ok"]


@shows("lanes")
def test_a_paused_lane_is_not_forgotten(run: Run) -> None:
    run("lanes", "pause", "email", "--reason", "INC-44")
    try:
        found = check(run, "lanes")
        assert not found["ok"]
        assert "INC-44" in found["found"]
    finally:
        run("lanes", "resume", "email")
    assert check(run, "lanes")["ok"]


@shows("operations")
def test_an_operation_that_no_relay_looks_after_stands_still(run: Run, url: str, key: str) -> None:
    park(url, effect_id := accepted(run, key))
    words = ("outbox", "replay", "--id", effect_id, "--reason", "x", "--execute", "--yes", "--no-wait", "--json")
    operation = json.loads(run(*words).stdout)["operation"]
    try:
        with psycopg.connect(url, autocommit=True) as db:
            db.execute("alter table operations disable trigger user")
            db.execute("update operations set started_at = now() - interval '1 hour' where id = %s", (operation,))
            db.execute("update operations set planned_at = started_at where id = %s", (operation,))
            db.execute("alter table operations enable trigger user")
        found = check(run, "operations")
        assert not found["ok"]
        assert operation in found["found"]
        assert "counterfoil relay" in found["fix"]
    finally:
        run("ops", "cancel", operation)


@shows("unknown", "key window")
def test_doubts_older_than_the_key_are_told_apart_from_fresh_ones(run: Run, url: str, key: str) -> None:
    effect_id = accepted(run, key)
    with psycopg.connect(url, autocommit=True) as db:
        db.execute("alter table effects disable trigger user")
        for hours, in_the_window in ((1, True), (21, False)):
            db.execute(
                "update effects set state = 'unknown', in_doubt = true, attempt = 1,"
                " first_sent_at = now() - make_interval(hours => %s) where id = %s",
                (hours, effect_id),
            )
            assert not check(run, "unknown")["ok"]
            assert check(run, "key window")["ok"] is in_the_window
        db.execute("alter table effects enable trigger user")


@shows("broker")
def test_a_broker_that_would_throw_messages_away_is_not_well(run: Run, valkey_server: Any) -> None:
    from redis import Redis

    url = valkey_server.url
    with Redis.from_url(url) as broker:
        policy = broker.config_get("maxmemory-policy")["maxmemory-policy"]
        broker.config_set("maxmemory-policy", "allkeys-lru")
        try:
            found = check(run, "broker", broker_url=url)
            assert not found["ok"]
            assert "maxmemory-policy is allkeys-lru" in found["found"]
            assert "noeviction" in found["fix"]
        finally:
            broker.config_set("maxmemory-policy", policy)
