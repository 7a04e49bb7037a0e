"""A database that went back in time claims nothing; one that has never lived begins to; a release is for ever."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import structlog
from psycopg import errors
from sqlalchemy.exc import InternalError

from service.core.errors import DependencyUnavailable, Quarantined, SettingsError
from service.engine import quarantine
from service.engine.execute import Executor
from service.engine.kind import Kind
from service.engine.relay import Relay
from service.settings import Settings
from service.store import attempts, incarnation, outbox
from service.store.database import make_engine, statement, transaction
from service.store.incarnation import NOTHING, Seen
from service.store.watermark import FILE, RECORD_BYTES, Watermark
from tests.server import Server
from tests.store.books import ACTOR, LIMITS, Books, order, orders
from tests.store.script import RecordingPublisher, ScriptedProvider


@pytest.fixture
def watermark(tmp_path: Path) -> Iterator[Watermark]:
    made = Watermark(tmp_path)
    yield made
    made.close()


def claim(*ids: str, watermark: Watermark | None = None) -> list[str]:
    with statement() as connection:
        return [a.id for a in attempts.claim(connection, ids, LIMITS, actor=ACTOR, watermark=watermark)]


def rewrite(books: Books, change: str) -> None:
    """What only another history could have written."""
    books.run("alter table incarnations disable trigger user")
    books.run(f"update incarnations set {change}")
    books.run("alter table incarnations enable trigger user")


def promote(books: Books) -> None:
    """As if this were a replica that was promoted: the row names a timeline that is not the server's any more."""
    rewrite(books, "timeline = timeline - 1")


def released(reason: str = "looked at it") -> None:
    with transaction() as connection:
        closed = incarnation.quarantined(connection)
        assert closed
        assert incarnation.release(connection, closed.id, actor="ada", reason=reason, counts={"orphans": 0})


# --- the first life ------------------------------------------------------------------------------------------------


def test_the_first_claim_begins_the_first_life_and_many_at_once_begin_one(books):
    ids = books.accept(*orders(8))
    assert books.count("incarnations") == 0
    with statement() as connection:
        assert incarnation.look(connection).open
    with ThreadPoolExecutor(4) as pool:
        claimed = list(pool.map(claim, ids))
    assert sorted(id_ for some in claimed for id_ in some) == sorted(ids)
    [row] = books.rows("select * from incarnations")
    assert (row["follows"], row["released_by"], row["quarantined_at"]) == (0, ACTOR, None)


def test_a_database_that_forgot_its_own_life_does_not_begin_anew_where_it_is_known(books, watermark):
    first, second = books.accept(*orders(2))
    assert claim(first, watermark=watermark) == [first]
    books.run("alter table incarnations disable trigger user")
    books.run("delete from incarnations")
    books.run("alter table incarnations enable trigger user")
    with pytest.raises(Quarantined, match="has forgotten its own life"):
        claim(second, watermark=watermark)
    assert claim(second) == [second], "a host that has never seen it cannot know"


# --- what is refused, and why --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ("timeline = timeline - 1", "a replica was promoted or a backup restored"),
        ("system_identifier = '1'", "another server or database"),
        ("database_oid = 1", "another server or database"),
    ],
)
def test_a_life_that_was_not_released_claims_nothing_and_loses_nothing(books, change, why):
    first, second = books.accept(*orders(2))
    [attempt] = books.claim(first)
    rewrite(books, change)
    with pytest.raises(Quarantined, match=why):
        claim(second)
    with statement() as connection:
        assert attempts.record(connection, [(attempt, {"payment_intent": "pi_1"})], 90, actor=ACTOR) == set()
    assert books.effect(first)["progress"] == {}, "no step with money follows a recovery point that was refused"
    assert books.effect(second)["attempt"] == 0
    assert len(books.accept(order("accepted as ever"))) == 1


def test_a_copy_of_a_database_is_another_database(postgres: Server, template: str):
    with postgres.database(template=template) as original:
        engine = make_engine(postgres.url_of(original), pooled=False)
        with engine.begin() as connection:
            assert incarnation.begin(connection, actor=ACTOR)
            assert incarnation.look(connection).open
        engine.dispose()
        with postgres.database(template=original) as copy:
            engine = make_engine(postgres.url_of(copy), pooled=False)
            with engine.connect() as connection:
                found = incarnation.look(connection)
            engine.dispose()
    assert not found.open
    assert "a clone" in str(found.reason)


def test_an_older_copy_on_the_same_timeline_is_told_by_what_this_host_has_seen(books, watermark):
    first, second = books.accept(*orders(2))
    claim(first, watermark=watermark)
    seen = watermark.seen()
    cases = {
        "the database's log is at": Seen(seen.database, seen.life, seen.lsn + 2**40, seen.effect, seen.attempt),
        f"forgotten attempt 2 of effect {first}": Seen(seen.database, seen.life, seen.lsn, first, 2),
        f"forgotten attempt 1 of effect {order().id[:8]}": Seen(seen.database, seen.life, seen.lsn, order().id, 1),
        "in a life that this host has seen end": Seen(seen.database, seen.life + 1, seen.lsn, first, 1),
    }
    for why, remembered in cases.items():
        with statement() as connection:
            found = incarnation.look(connection, remembered)
        assert not found.open
        assert why in str(found.reason)
    with statement() as connection:
        assert incarnation.look(connection, Seen("another/1", seen.life + 9, seen.lsn * 2)).open
    assert claim(second, watermark=watermark) == [second]


def test_what_was_released_since_is_believed(books, watermark):
    first, second = books.accept(*orders(2))
    claim(first, watermark=watermark)
    promote(books)
    with statement() as connection:
        assert incarnation.quarantine(connection, "a replica was promoted")
    released()
    assert claim(second, watermark=watermark) == [second]
    assert watermark.seen().effect == second


# --- writing it down, and the release ------------------------------------------------------------------------------


def test_a_quarantine_is_written_down_once_and_stands_until_it_is_released(books):
    [effect_id] = books.accept()
    books.claim(effect_id)
    promote(books)
    turn = threading.Barrier(4)

    def notice(_: int) -> bool:
        with statement() as connection:
            turn.wait(10)
            return incarnation.quarantine(connection, "a replica was promoted")

    with ThreadPoolExecutor(4) as pool:
        assert sorted(pool.map(notice, range(4))) == [False, False, False, True]
    rewrite(books, "timeline = timeline + 1")  # even if the server were back on the timeline it knows
    with pytest.raises(Quarantined, match="a replica was promoted"):
        claim(effect_id)
    released("INC-42")
    row = books.rows("select * from incarnations order by id")[-1]
    assert (row["released_by"], row["release_reason"], row["counts"]) == ("ada", "INC-42", {"orphans": 0})
    with statement() as connection:
        assert incarnation.quarantined(connection) is None
        assert incarnation.look(connection).open
        assert not incarnation.release(connection, row["id"], actor="eve", reason="again", counts={})


@pytest.mark.parametrize("change", ["update incarnations set released_by = 'eve'", "delete from incarnations"])
def test_what_was_released_can_neither_be_changed_nor_forgotten(books, change):
    books.claim(*books.accept())
    with pytest.raises(errors.IntegrityError):
        books.run(change)


# --- the processes -------------------------------------------------------------------------------------------------


def test_in_quarantine_a_worker_performs_nothing_a_relay_publishes_nothing_and_both_say_so_once(books, tmp_path):
    settings = Settings(slots=4, state_dir=tmp_path)
    first, *rest = books.accept(*orders(4))
    provider, publisher = ScriptedProvider(), RecordingPublisher()
    kind = Kind("charge", provider=lambda: provider)
    executor, relay = Executor(settings, actor="worker"), Relay(publisher, settings, actor="relay")
    assert executor.run(kind, [first]).claimed == 1
    promote(books)
    with structlog.testing.capture_logs() as said:
        for _ in range(3):
            assert executor.run(kind, rest).claimed == 0
            assert relay.run_once().taken == 0
    assert [attempt.id for attempt in provider.seen] == [first]
    assert publisher.ids == []
    assert [line["event"] for line in said] == ["quarantined"] * 2, "each process once a minute"
    assert books.one("select count(*) from incarnations where quarantined_at is not null") == 1
    found = quarantine.standing(settings)
    assert quarantine.sentence(found).startswith("quarantined: the database is on timeline")
    released()
    fresh = Relay(publisher, settings, actor="relay")
    assert fresh.run_once().taken == 3
    assert executor.run(kind, rest).claimed == 3
    assert quarantine.sentence(quarantine.standing(settings)) == "released to send"


def test_a_relay_sends_again_when_the_database_was_released(books, tmp_path, monkeypatch):
    monkeypatch.setattr(quarantine, "LOOK_SECONDS", 0.0)
    books.claim(*books.accept(order("first")))
    books.accept(order("second"))
    promote(books)
    publisher = RecordingPublisher()
    relay = Relay(publisher, Settings(state_dir=tmp_path), actor="relay")
    assert relay.run_once().taken == 0
    assert relay._pause() == Settings().poll, "what is due is no reason to look all the time"
    released()
    assert relay.run_once().taken == 2


def test_a_server_that_takes_no_writes_yet_is_an_outage_and_not_a_bug(database):  # noqa: ARG001 - the engine's
    """A replica before its promotion answers, reads, and refuses to lock or write."""

    def work(before: str, after: str) -> None:
        with statement() as connection:
            connection.exec_driver_sql(before)
            try:
                outbox.take(connection, 10, 105)
            finally:
                connection.exec_driver_sql(after)

    with pytest.raises(DependencyUnavailable, match="takes no writes"):
        work("set default_transaction_read_only = on", "set default_transaction_read_only = off")
    with pytest.raises(InternalError):
        work("do $$ begin raise sqlstate '25P01'; end $$", "")


def test_a_message_from_a_life_that_was_lost_is_dropped_with_a_line(books, tmp_path):
    [effect_id] = books.accept()
    provider = ScriptedProvider()
    with structlog.testing.capture_logs() as said:
        executor = Executor(Settings(state_dir=tmp_path), actor="worker")
        report = executor.run(Kind("charge", provider=lambda: provider), [effect_id, order().id, order().id])
    assert (report.asked, report.claimed) == (3, 1)
    assert [line["count"] for line in said if line["event"] == "unknown_effects"] == [2]


# --- the watermark -------------------------------------------------------------------------------------------------


def test_the_watermark_only_rises_whoever_writes_it(tmp_path):
    one, other = Watermark(tmp_path), Watermark(tmp_path)
    assert one.seen() == one.peek() == NOTHING
    high, low = Seen("1/1", 5, 100, order().id, 1), Seen("1/1", 5, 99, order().id, 1)
    one.saw(high)
    other.saw(low)
    assert one.seen() == other.seen() == other.peek() == high
    other.saw(Seen("1/1", 6, 1, order().id, 1))
    assert one.seen().life == 6
    one.saw(Seen("2/1", 1, 1))
    assert other.seen().database == "2/1", "another database has a watermark of its own"
    assert (tmp_path / FILE).stat().st_size == RECORD_BYTES
    one.close()
    one.close()
    other.close()


def test_many_threads_and_processes_leave_the_highest(tmp_path):
    def write(number: int) -> None:
        made = Watermark(tmp_path)
        for lsn in range(number, 400, 4):
            made.saw(Seen("1/1", 1, lsn))
        made.close()

    children = []
    for number in range(2):
        if (child := os.fork()) == 0:
            write(number)
            os._exit(0)
        children.append(child)
    with ThreadPoolExecutor(2) as pool:
        list(pool.map(write, (2, 3)))
    assert [os.waitpid(child, 0)[1] for child in children] == [0, 0]
    assert Watermark(tmp_path).peek().lsn == 399


def test_without_a_place_for_the_watermark_nothing_is_claimed_and_one_sentence_says_why(books, tmp_path):
    (tmp_path / "file").touch()
    settings = Settings(state_dir=tmp_path / "file" / "state")
    [effect_id] = books.accept()
    provider = ScriptedProvider()
    with structlog.testing.capture_logs() as said:
        report = Executor(settings, actor="worker").run(Kind("charge", provider=lambda: provider), [effect_id])
    assert report.claimed == 0
    assert said[0]["event"] == "not_executed"
    assert "COUNTERFOIL_STATE_DIR" in said[0]["error"]
    assert quarantine.standing(settings).open, "looking needs no file"


def test_a_damaged_watermark_is_no_reason_to_believe_everything(tmp_path):
    (tmp_path / FILE).write_bytes(b"half a rec")
    with pytest.raises(SettingsError, match="damaged"):
        Watermark(tmp_path).seen()
