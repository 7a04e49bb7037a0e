"""The journal by months: an insert is never refused, no month can be emptied, and one goes only when nobody needs it."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from itertools import pairwise
from typing import Any

import psycopg
import pytest
from psycopg import errors
from sqlalchemy import text

from service.engine import retention
from service.store import journal
from service.store.database import statement
from tests.migrations.test_guards import Sql
from tests.server import Server
from tests.store.books import ACTOR, Books, order
from tests.store.test_retention import age, settled

BEFORE = "0008"


def partitions(books: Books) -> list[str]:
    query = "select relname from pg_class c join pg_inherits i on i.inhrelid = c.oid where inhparent = 'journal'::regclass order by 1"
    return [row["relname"] for row in books.rows(query)]


def part_of(books: Books, own: str) -> set[str]:
    return {
        row["t"] for row in books.rows("select tableoid::regclass::text as t from journal where effect_id = %s", own)
    }


@pytest.mark.usefixtures("database")
def test_months_are_made_ahead_once() -> None:
    with statement() as connection:
        assert journal.make_months(connection) == [], "the upgrade has made them"
        assert len(journal.make_months(connection, ahead=6)) == 3
        assert journal.make_months(connection, ahead=6) == []
        found = journal.months(connection)
    assert (found[0].since, found[-1].until) == (None, None)
    for one, other in pairwise(found[:-1]):
        assert one.until == other.since, "no gap between two months"


@pytest.mark.parametrize("year", [1971, 2051])
def test_a_fact_of_any_date_is_taken(books: Books, year: int) -> None:
    [own] = books.accept()
    books.run("insert into journal (effect_id, at, fact, attempt, actor) values (%s, %s, 'hinted', 0, 'me')",
              own, datetime(year, 1, 1, tzinfo=UTC))  # fmt: skip
    assert len(books.facts(own)) == 2
    if year == 2051:
        assert "journal_rest" in part_of(books, own)


def test_a_month_whose_facts_lie_in_the_rest_is_left_there_and_the_next_are_made(books: Books) -> None:
    with statement() as connection:
        last = journal.months(connection)[-2].until
        assert last
        [own] = books.accept()
        books.run("insert into journal (effect_id, at, fact, attempt, actor) values (%s, %s, 'hinted', 0, 'me')",
                  own, last + timedelta(days=3))  # fmt: skip
        made = journal.make_months(connection, ahead=6)
    assert len(made) == 2
    assert f"journal_{last:%Y_%m}" not in made
    assert "journal_rest" in part_of(books, own)


@pytest.mark.parametrize("what", ["update {} set actor = 'you'", "delete from {}", "truncate {}"])
def test_no_partition_can_be_rewritten_or_emptied(books: Books, what: str) -> None:
    books.accept()
    [name] = part_of(books, books.one("select effect_id::text from journal"))
    for table in (name, "journal"):
        with pytest.raises(errors.IntegrityConstraintViolation, match="append-only"):
            books.run(what.format(table))
    if what.startswith("truncate"):
        for table in partitions(books):
            with pytest.raises(errors.IntegrityConstraintViolation, match="append-only"):
                books.run(what.format(table))


def test_one_effects_facts_are_found_by_index_in_each_month(books: Books) -> None:
    books.accept(*[order(f"k{i}") for i in range(200)])
    books.run("analyze")
    with statement() as connection:
        query = "explain select * from journal where effect_id = '00000000-0000-7000-8000-000000000001' order by id"
        plan = "\n".join(connection.exec_driver_sql(query).scalars())
    assert "Seq Scan" not in plan
    assert plan.count("Index Scan") + plan.count("Bitmap Index Scan") >= len(partitions(books))


def test_a_young_effects_facts_are_asked_of_no_old_month_and_none_is_missed(books: Books) -> None:
    [own] = books.accept()
    created = books.effect(own)["created_at"]
    books.run("alter table journal disable trigger user")
    books.run("update journal set at = at - interval '20 days'")  # a failover to a server whose clock is behind
    books.run("alter table journal enable trigger user")
    with statement() as connection:
        assert [fact["fact"] for fact in journal.of(connection, own, since=created)] == ["accepted"]
        assert [fact["fact"] for fact in journal.of(connection, own)] == ["accepted"]
        values = {"id": own, "since": created + timedelta(days=400), "limit": 9}
        plan = "\n".join(connection.execute(text(f"explain (analyze) {journal.OF.text}"), values).scalars())
    assert "Subplans Removed" in plan
    assert "journal_first" not in plan


# --- old months -----------------------------------------------------------------------------------------------------


def long_ago(books: Books, days: float) -> None:
    """As if the journal had been kept by months when all this happened: its facts in a month of their own."""
    until = f"{datetime.now(UTC).replace(day=1) - timedelta(days=70):%Y-%m-01 00:00Z}"
    books.run("alter table journal disable trigger user")
    books.run("update journal set at = at - %s", timedelta(days=days))
    books.run("alter table journal enable trigger user")
    books.run("alter table journal detach partition journal_first")
    books.run(f"alter table journal attach partition journal_first for values from (minvalue) to ('{until}')")


def test_months_are_kept_for_ever_unless_the_settings_say_otherwise(books: Books, settings_from: Any) -> None:
    settled(books, "old", days=400)
    assert retention.prune(settings_from(), actor=ACTOR, door="cli").months == []


@pytest.mark.parametrize("why", [None, "unsettled", "young"])
def test_an_old_month_goes_only_when_no_effect_in_it_is_of_interest(
    books: Books, settings_from: Any, why: str | None
) -> None:
    settings = settings_from(journal_months=1)
    own = settled(books, "old", days=400)
    if why == "unsettled":
        [other] = books.accept(order("open"))
        age(books, other, 400)
    elif why == "young":
        other = settled(books, "young", days=400)
        books.run("alter table effects disable trigger user")
        books.run("update effects set settled_at = now() - interval '1 day' where id = %s", other)
        books.run("alter table effects enable trigger user")
    long_ago(books, 400)
    [found] = retention.plan(settings).months
    assert (found.name, found.kept) == ("journal_first", why)
    if why:
        with statement() as connection:
            [one] = [m for m in journal.months(connection) if m.name == "journal_first"]
            with pytest.raises(Exception, match="not settled for long enough"):
                journal.drop(connection, one, settled_before=datetime.now(UTC) - timedelta(days=28))
    done = retention.prune(settings, actor=ACTOR, door="cli")
    assert done.months == ([] if why else ["journal_first"])
    assert ("journal_first" in partitions(books)) == bool(why)
    with statement() as connection:
        assert (journal.kept_from(connection) is None) == bool(why)
    assert books.count("actions") == int(not why)
    if not why:
        books.run("insert into journal (effect_id, fact, attempt, actor) values (%s, 'succeeded', 1, 'me')", own)


@pytest.mark.usefixtures("database")
def test_a_month_that_has_not_passed_is_never_dropped() -> None:
    with statement() as connection:
        newest = journal.months(connection)[-2]
        with pytest.raises(Exception, match="no month of the journal that has passed"):
            journal.drop(connection, newest, settled_before=datetime.now(UTC) - timedelta(days=400))


# --- the way there and back -----------------------------------------------------------------------------------------


def test_a_full_journal_becomes_the_first_month_without_being_read_through_and_comes_back(postgres: Server) -> None:
    with postgres.database() as name:
        postgres.migrate(name, revision=BEFORE)
        with psycopg.connect(postgres.url_of(name), autocommit=True) as connection:
            sql = Sql(connection)
            for _ in range(5):
                sql.fact()
            before = connection.execute("select * from journal order by id").fetchall()
        postgres.migrate(name, revision="0009")
        with psycopg.connect(postgres.url_of(name), autocommit=True) as connection:
            assert connection.execute("select * from journal order by id").fetchall() == before
            sequence = connection.execute("select pg_get_serial_sequence('journal', 'id')").fetchone()
            assert sequence == ("public.journal_id_seq",)
            Sql(connection).fact()
            ids = [i for (i,) in connection.execute("select id from journal order by id")]
            assert ids == [1, 2, 3, 4, 5, 6], "the numbers go on, for lives of the database are compared by them"
            left = connection.execute("select count(*) from pg_constraint where conname = 'journal_until'").fetchone()
            assert left == (0,)
            connection.execute("insert into journal (effect_id, at, fact, attempt, actor)"
                               " select effect_id, now() + interval '100 days', 'hinted', 0, 'me' from journal where id = 1")  # fmt: skip
        _down(postgres, name)
        with psycopg.connect(postgres.url_of(name), autocommit=True) as connection:
            kept = connection.execute("select * from journal order by id").fetchall()
            assert kept[:5] == before
            assert len(kept) == 7
            Sql(connection).fact()
            assert connection.execute("select max(id) from journal").fetchone() == (8,)
            with pytest.raises(errors.GeneratedAlways):
                connection.execute("insert into journal (effect_id, id, fact, attempt, actor)"
                                   " select effect_id, 99, fact, 0, 'me' from journal")  # fmt: skip
        postgres.migrate(name)


def _down(postgres: Server, name: str) -> None:
    from alembic import command

    command.downgrade(postgres.alembic(name), BEFORE)


def test_an_upgrade_that_was_interrupted_before_the_exchange_is_simply_run_again(postgres: Server) -> None:
    with postgres.database() as name:
        postgres.migrate(name, revision=BEFORE)
        with psycopg.connect(postgres.url_of(name), autocommit=True) as writer:
            sql = Sql(writer)
            sql.fact()
            with psycopg.connect(postgres.url_of(name)) as reader:
                reader.execute(
                    "select * from journal"
                )  # its lock stands in the way of the exchange, not of what is before
                with pytest.raises(Exception, match="lock timeout"):
                    postgres.migrate(name, revision="0009")
            sql.fact()
            postgres.migrate(name, revision="0009")
            assert writer.execute("select count(*) from journal").fetchone() == (2,)


def test_whoever_could_write_the_journal_before_still_can(postgres: Server) -> None:
    with postgres.database() as name:
        postgres.migrate(name, revision=BEFORE)
        granted = """
            select has_table_privilege('pg_monitor', 'journal', 'insert'),
                   has_sequence_privilege('pg_monitor', 'journal_id_seq', 'usage'),
                   has_table_privilege('pg_monitor', 'journal', 'update'),
                   has_function_privilege('pg_monitor', 'counterfoil_journal_drop(text, timestamptz)', 'execute')
        """
        with psycopg.connect(postgres.url_of(name), autocommit=True) as connection:
            connection.execute("grant select, insert on journal to pg_monitor")
            postgres.migrate(name, revision="0009")
            assert connection.execute(granted).fetchone() == (True, True, False, False)
