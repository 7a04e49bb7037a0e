"""An audit leaves alone what is young, goes on where the last one ended, runs alone, and keeps what it found."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import psycopg
import pytest
from structlog.testing import capture_logs

from service.core.errors import DependencyUnavailable, SettingsError, ValidationError
from service.engine import audit
from service.engine.audit import Report, Wish
from service.providers.mail import books as mail_books
from service.settings import Settings
from service.store import audits, breaks, journal
from service.store.audit_duties import CHECKS
from service.store.database import statement
from tests.contract.fake_servers import FakeServer, running
from tests.store.plot import Plot, hours

ACTOR = "test"


@pytest.fixture
def fake(tmp_path: Path) -> Iterator[FakeServer]:
    """An account of this test alone: in a shared one each audit would find the others' money."""
    with running("stripe", tmp_path / "stripe") as server:
        yield server


@pytest.fixture
def settings(fake: FakeServer, settings_from: Callable[..., Settings], database: str) -> Settings:  # noqa: ARG001
    return settings_from(stripe_api_key="sk_test_audit", stripe_api_base=fake.address["url"])


@pytest.fixture
def plot(database: str, fake: FakeServer) -> Iterator[Plot]:
    made = Plot(database, fake)
    yield made
    made.close()


def missing(plot: Plot, *, at: datetime) -> str:
    """An effect that succeeded with nothing at the provider: three breaks when it has a receipt, two without."""
    return plot.effect(at=at, currency="sek", provider_ref=f"pi_nowhere_{at.timestamp()}")


def of_class(class_: str, *, closed: bool = False) -> list[dict[str, object]]:
    with statement() as connection:
        return list(audits.listed(connection, class_=class_, closed=closed))


def run(settings: Settings, since: datetime | None = None, until: datetime | None = None, lag: float = 0) -> Report:
    return audit.run(settings, Wish(since, until, lag), actor=ACTOR)


def test_it_says_what_it_cannot_check_any_more_and_compares_the_money_all_the_same(
    plot: Plot, settings: Settings
) -> None:
    own = plot.charge(at=hours(3), request={"receipt_email": "ada@example.test"})
    plot.plant()
    assert run(settings, hours(5)).unchecked == {}
    plot.books.run("update effects set request = null where id = %s", own)
    report = run(settings, hours(5))
    assert report.unchecked == {"requests_purged": 1}
    assert report.breaks["missing_at_provider"] == report.breaks["amount_mismatch"] == report.breaks["param_drift"] == 0
    letter = plot.effect("email", at=hours(3), provider="smtp")
    plot.books.run("delete from journal where effect_id = %s", letter)
    assert run(settings, hours(5)).breaks["lost_email"] == 1
    plot.books.run("alter table journal detach partition journal_first")
    with statement() as connection:
        kept_from = journal.kept_from(connection)
    assert kept_from
    report = run(settings, hours(5))
    assert report.unchecked == {"requests_purged": 1, "no_facts_before": kept_from}
    assert report.breaks["lost_email"] == 0, "nothing can be said of facts that are gone"


# --- the window -------------------------------------------------------------------------------------------------


def test_what_is_younger_than_the_settle_lag_is_left_for_the_next_audit(plot: Plot, settings: Settings) -> None:
    own = missing(plot, at=hours(2))
    assert run(settings, hours(5), lag=3 * 3600).breaks["missing_at_provider"] == 0
    assert run(settings, hours(5), lag=3600).breaks["missing_at_provider"] == 1
    assert [row["subject"] for row in of_class("missing_at_provider")] == [own]


def test_the_default_lag_is_the_deadline_and_an_hour(plot: Plot, settings: Settings) -> None:
    missing(plot, at=hours(1))
    report = audit.run(settings, Wish(since=hours(5)), actor=ACTOR)
    assert report.breaks["missing_at_provider"] == 0
    assert timedelta(minutes=59) < datetime.now(UTC) - report.until < timedelta(minutes=62)


def test_an_audit_goes_on_where_the_last_one_ended_with_an_overlap(plot: Plot, settings: Settings) -> None:
    missing(plot, at=hours(30))
    first = run(settings, until=hours(2))
    assert first.since < hours(30), "the first one begins with the first effect"
    second = run(settings)
    assert second.since == first.until - timedelta(seconds=audit.OVERLAP_SECONDS)
    third = run(settings)
    assert third.since == second.until - timedelta(seconds=audit.OVERLAP_SECONDS)


def test_a_window_that_leaves_a_gap_or_lies_in_the_past_does_not_move_the_cursor(settings: Settings) -> None:
    first = run(settings, hours(50), hours(40))
    run(settings, hours(20), hours(10))
    run(settings, hours(90), hours(80))
    with statement() as connection:
        assert audits.cursor(connection) == first.until


def test_an_interrupted_audit_leaves_no_cursor(plot: Plot, settings: Settings) -> None:
    missing(plot, at=hours(5))

    def stop(name: str, _done: int) -> None:
        if name == "our effects":
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        audit.run(settings, Wish(hours(9), lag_seconds=0), actor=ACTOR, progress=stop)
    with statement() as connection:
        assert audits.cursor(connection) is None
    assert plot.books.one("select count(*) from audits where finished_at is null") == 1
    assert run(settings, hours(9)).breaks["missing_at_provider"] == 1


def test_two_audits_at_once_the_second_says_so(settings: Settings) -> None:
    with audits.session(), pytest.raises(ValidationError, match="another audit is under way"):
        run(settings, hours(5))
    run(settings, hours(5))


@pytest.mark.parametrize(
    ("since", "until", "words"),
    [(5.0, 7.0, "is not before --until"), (-2.0, None, "nothing is old enough yet")],
)
def test_a_window_that_cannot_be_is_refused(settings: Settings, since: float, until: float | None, words: str) -> None:
    with pytest.raises(ValidationError, match=words):
        run(settings, hours(since), None if until is None else hours(until))


def test_without_a_key_or_with_a_dead_provider_nothing_is_begun(
    plot: Plot, settings_from: Callable[..., Settings], fake: FakeServer
) -> None:
    with pytest.raises(SettingsError, match="COUNTERFOIL_STRIPE_API_KEY"):
        run(settings_from(), hours(5))
    nobody = settings_from(stripe_api_key="sk_test_audit", stripe_api_base="http://127.0.0.1:9")
    with pytest.raises(DependencyUnavailable, match="does not answer"):
        run(nobody, hours(5))
    refused = settings_from(stripe_api_key="rk_test_audit", stripe_api_base=fake.address["url"])
    fake.fault("status_401")
    try:
        with pytest.raises(DependencyUnavailable, match="401"):
            run(refused, hours(5))
    finally:
        fake.reset()
    assert plot.books.count("audits") == 0


# --- nobody is accused unheard ----------------------------------------------------------------------------------


def test_money_older_than_the_window_is_asked_for_by_its_id(plot: Plot, settings: Settings) -> None:
    """A bank debit: the PaymentIntent is days old, and so is its balance line; we heard of it only now."""
    slow = plot.effect(at=hours(100), settled_at=hours(2))
    plot.object(slow, at=hours(100))
    wish: dict[str, object] = {}
    charge = plot.effect(at=hours(100), settled_at=hours(99))
    plot.refund(wish, charge, at=hours(98), amount=1000, settled_at=hours(2))
    plot.object(charge, at=hours(100), **wish)
    plot.plant()
    report = run(settings, hours(4))
    assert report.found == 0
    assert {row["currency"]: row["own"] for row in report.sums} == {"eur": 3200}
    assert all(row["own"] == row["provider"] for row in report.sums)


# --- breaks are rows --------------------------------------------------------------------------------------------


def test_a_break_found_again_is_refreshed_and_one_not_found_again_stays_open(plot: Plot, settings: Settings) -> None:
    own = missing(plot, at=hours(3))
    run(settings, hours(5))
    [before] = of_class("missing_at_provider")
    run(settings, hours(5))
    [again] = of_class("missing_at_provider")
    assert again["id"] == before["id"]
    assert again["seen_at"] > before["seen_at"]
    assert again["found_at"] == before["found_at"]
    assert not again["not_seen_again"]
    plot.books.run("update effects set state = 'failed', failed = true where id = %s", own)
    run(settings, hours(200), hours(100))
    assert not of_class("missing_at_provider")[0]["not_seen_again"], "that audit did not look there"
    run(settings, hours(5))
    [gone] = of_class("missing_at_provider")
    assert gone["not_seen_again"]
    assert gone["closed_at"] is None


def test_a_closed_break_that_is_found_again_is_a_new_one(plot: Plot, settings: Settings) -> None:
    missing(plot, at=hours(3))
    run(settings, hours(5))
    [row] = of_class("missing_at_provider")
    with statement() as connection:
        assert audits.assign(connection, row["id"], "ada")
        assert audits.note(connection, row["id"], "asked")
        assert audits.note(connection, row["id"], "answered")
        assert breaks.close(connection, row["id"], actor=ACTOR)
        assert not audits.assign(connection, row["id"], "eve")
        assert not audits.note(connection, row["id"], "too late")
    assert run(settings, hours(5)).new["missing_at_provider"] == 1
    closed, fresh = of_class("missing_at_provider", closed=True)
    assert (closed["owner"], closed["note"], closed["closed_by"]) == ("ada", "asked\nanswered", ACTOR)
    assert fresh["owner"] is None


def test_an_audit_keeps_its_counts_and_leaves_no_tables_behind(plot: Plot, settings: Settings) -> None:
    plot.charge(at=hours(3))
    plot.plant()
    report = run(settings, hours(5))
    kept = plot.books.one("select counts from audits where id = %s", report.audit)
    assert kept["objects_per_effect"] == {"1": 1}
    assert kept["breaks"] == {}
    with psycopg.connect(plot.books.url) as connection:
        left = connection.execute("select count(*) from pg_class where relname like 'seen_%'").fetchone()
    assert left == (0,)


# --- what the inbox has not heard ---------------------------------------------------------------------------------


def test_configured_webhooks_that_never_came_are_one_break(
    plot: Plot, fake: FakeServer, settings_from: Callable[..., Settings]
) -> None:
    plot.charge(at=hours(3))
    plot.plant()
    found = settings_from(
        stripe_api_key="sk_test_audit", stripe_api_base=fake.address["url"], stripe_webhook_secret="whsec_test"
    )
    assert run(found, hours(5)).breaks["missed_webhook"] == 1
    [row] = of_class("missed_webhook")
    assert row["subject"] == "every event"


# --- the mail ledger ----------------------------------------------------------------------------------------------

LETTER = "0198c0de-0000-7000-8000-000000000001"


@pytest.mark.parametrize(
    "text",
    [
        f'{{"idempotency_key": "{LETTER}:send", "recipient": "Ada@example.test", "at": 1700000000}}\n\n',
        f'{{"mail": [{{"message_id": "<{LETTER}@x.test>", "recipient": "ada@example.test", "at": 1700000000.0}}]}}',
        f'{{\n"mail": [\n{{"effect_id": "{LETTER}", "recipient": "ada@example.test", "at": "2023-11-14T22:13:20"}}]}}',
        f"effect_id,recipient,at\n{LETTER},ada@example.test,2023-11-14T22:13:20+00:00\n,eve@example.test,1\n",
    ],
    ids=["lines", "document", "pretty document", "csv"],
)
def test_a_mail_ledger_may_be_spelt_in_three_ways(tmp_path: Path, text: str) -> None:
    path = tmp_path / "ledger"
    path.write_text(text)
    [[letter]] = list(mail_books.letters(str(path)))
    assert (letter.effect, letter.recipient) == (LETTER, "ada@example.test")
    assert letter.created == datetime(2023, 11, 14, 22, 13, 20, tzinfo=UTC)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (f'{{"effect_id": "{LETTER}", "at": 1}}', "copy 1 of the mail ledger lacks a recipient or a time"),
        (f'{{"effect_id": "{LETTER}", "recipient": "a@b.test", "at": "soon"}}', "lacks a recipient or a time"),
        ('{"mail": 3}', "neither lines nor"),
    ],
)
def test_a_mail_ledger_that_cannot_be_read_is_refused_in_words(tmp_path: Path, text: str, words: str) -> None:
    path = tmp_path / "ledger"
    path.write_text(text)
    with pytest.raises(ValidationError, match=words):
        list(mail_books.letters(str(path)))


def test_a_mail_ledger_that_is_not_there_is_said_so(tmp_path: Path) -> None:
    with pytest.raises(ValidationError, match="cannot be read"):
        list(mail_books.letters(str(tmp_path / "none")))
    with pytest.raises(DependencyUnavailable, match="does not answer"):
        list(mail_books.letters("http://127.0.0.1:9/letters"))


# --- every hour -------------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("settings")
def test_the_hourly_task_warns_once_for_each_class_and_is_harmless_twice(plot: Plot) -> None:
    from tasks import periodic

    missing(plot, at=hours(1.6))  # within the overlap of two audits
    missing(plot, at=hours(1.5))
    for fresh in (2, 0):
        with capture_logs() as lines:
            periodic.audit()
        told = {line["break_class"]: line for line in lines if line["event"] == "audit_break"}
        assert set(told) >= {"missing_at_provider", "ledger_drift"}  # the fake has other tests' objects, too
        assert (told["missing_at_provider"]["count"], told["missing_at_provider"]["new"]) == (2, fresh)
        assert all(line["log_level"] == "warning" for line in told.values())
        assert [line for line in lines if line["event"] == "audited"]


@pytest.mark.usefixtures("settings")
def test_the_hourly_task_says_in_one_line_why_it_did_not_audit(settings_from: Callable[..., Settings]) -> None:
    from tasks import periodic

    with audits.session(), capture_logs() as lines:
        periodic.audit()
    assert [(line["event"], line["log_level"]) for line in lines] == [("not_audited", "info")]
    settings_from(stripe_api_base="http://127.0.0.1:9")
    with capture_logs() as lines:
        periodic.audit()
    assert [(line["event"], line["log_level"]) for line in lines] == [("not_audited", "warning")]


def test_the_docs_explain_every_class() -> None:
    text = (Path(__file__).resolve().parents[2] / "docs" / "audit.md").read_text(encoding="utf-8")
    explained = [line.split("`")[1] for line in text.splitlines() if line.startswith("| `")]
    assert explained == sorted(explained, key=[check.name for check in CHECKS].index)
    assert set(explained) == {check.name for check in CHECKS}
