"""At least one break of every class, planted among healthy effects: an audit finds all of them and nothing else."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from psycopg.types.json import Jsonb
from uuid_utils import uuid7

from service.engine import audit
from service.engine.audit import Report, Wish
from service.providers.stripe import books as stripe_books
from service.providers.stripe.pages import pages
from service.settings import Settings
from service.store import audits
from service.store.audit_duties import CHECKS
from service.store.database import statement
from tests.contract.fake_servers import FakeServer, running
from tests.store.plot import Plot, hours

ACTOR = "test"
WINDOW_HOURS = 48.0
Breaks = defaultdict[str, set[str]]


@pytest.fixture
def fake(tmp_path: Path) -> Iterator[FakeServer]:
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


def everything(settings: Settings, ledger: Path | None = None) -> Report:
    wish = Wish(since=hours(WINDOW_HOURS), lag_seconds=0, mail_ledger=str(ledger) if ledger else None)
    return audit.run(settings, wish, actor=ACTOR)


def within(settings: Settings, since: float, until: float) -> Report:
    return audit.run(settings, Wish(hours(since), hours(until), 0), actor=ACTOR)


def found(report: Report) -> dict[str, set[str]]:
    by_class: Breaks = defaultdict(set)
    with statement() as connection:
        for row in audits.of_audit(connection, report.audit):
            by_class[row["class"]].add(row["subject"])
    return dict(by_class)


def drift(report: Report) -> dict[str, int]:
    with statement() as connection:
        rows = audits.listed(connection, audit=report.audit, class_="ledger_drift")
    return {row["subject"]: row["amount"] for row in rows}


def events(settings: Settings) -> list[dict[str, Any]]:
    api = stripe_books.books(settings)
    return [event for page in pages(api, "/v1/events", {}, seconds=20) for event in page]


# --- what is healthy --------------------------------------------------------------------------------------------


def healthy(plot: Plot) -> None:
    """A few hundred effects of every kind and state, none of which is anybody's business."""
    for number in range(120):
        at = hours(3 + number / 10)
        charge = plot.charge(at=at, amount=1000 + number, currency="usd" if number % 3 else "eur",
                             request={"receipt_email": "ada@example.test", "customer": "cus_1"},
                             wish={"customer": "cus_1"})  # fmt: skip
        letter = plot.effect("email", at=at + timedelta(seconds=9), caused_by=charge)
        plot.letter(letter, at=at + timedelta(seconds=10))
    for number in range(30):
        at = hours(5 + number / 10)
        plot.object(plot.effect(state="failed", at=at), at=at, status="declined", refer=False)
        wish: dict[str, Any] = {}
        refunded = plot.effect(at=hours(20))
        plot.refund(wish, refunded, at=at, amount=1000)
        plot.refund(wish, refunded, at=at, amount=3200)
        plot.object(refunded, at=hours(20), **wish)
    for _ in range(10):
        authorised(plot, "succeeded", "captured", "capture")
        authorised(plot, "failed", "canceled", "cancel")
    twice_by_policy = plot.effect("email", at=hours(4), provider="smtp", policy="at_least_once",
                                  outcome=Jsonb({"possible_duplicate": True}))  # fmt: skip
    plot.letter(twice_by_policy, at=hours(4))
    plot.letter(twice_by_policy, at=hours(3.9))
    unsettled(plot)
    sent_late_without_doubt(plot)


def authorised(plot: Plot, state: str, status: str, kind: str, **changes: Any) -> tuple[str, str]:
    """A charge whose money was held, and the capture or cancel that ended it."""
    charge = plot.effect(state=state, at=hours(9))
    plot.object(charge, at=hours(9), status=status)
    end = plot.effect(kind, at=hours(8.9), concerns=charge, ready_when="authorised", **changes)
    return charge, end


def unsettled(plot: Plot) -> None:
    plot.effect(state="pending", at=hours(1), attempt=0, first_sent_at=None)
    plot.effect(state="unknown", at=hours(1))
    plot.effect(state="parked", at=hours(5))
    plot.effect(state="executing", at=hours(0))
    plot.object(plot.effect(state="awaiting", at=hours(6)), at=hours(6), status="processing")
    plot.object(plot.effect(state="unknown", at=hours(1.5)), at=hours(1.5))  # moved, and not settled yet: no break
    wish: dict[str, Any] = {}
    charge = plot.effect(at=hours(12))
    plot.refund(wish, charge, at=hours(1.5), amount=100, state="unknown")
    plot.object(charge, at=hours(12), **wish)


def sent_late_without_doubt(plot: Plot) -> None:
    """A key may go out after the horizon when nothing had been sent under it, or when that was proven absent."""
    late, sent = hours(30), hours(4)
    refused = plot.effect(at=late, settled_at=sent)
    absent = plot.effect(at=late, settled_at=sent)
    plot.fact(absent, "unknown", at=late)
    plot.fact(absent, "absent", at=hours(5))
    for own in (refused, absent):
        plot.object(own, at=sent)


# --- what is broken ---------------------------------------------------------------------------------------------


def break_money(plot: Plot, expected: Breaks) -> dict[str, int]:
    """Each in a currency of its own, so that the drift of each sum is known: returned in minor units."""
    at = hours(7)
    expected["missing_at_provider"] |= {
        plot.effect(at=at, currency="sek", amount=5000, provider_ref="pi_nowhere"),
        plot.effect("refund", at=at, currency="sek", amount=700, concerns=plot.charge(at=at, currency="sek"),
                    ready_when="settled", provider_ref="re_nowhere"),
        authorised(plot, "succeeded", "captured", "cancel")[1],
    }  # fmt: skip
    expected["amount_mismatch"].add(plot.charge(at=at, currency="nok", wish={"amount": 4300}))
    expected["amount_mismatch"].add(authorised(plot, "succeeded", "captured", "capture", amount=1000)[1])
    double = plot.charge(at=at, currency="dkk")
    plot.object(double, at=at, currency="dkk", refer=False)
    long_ago = plot.effect(at=hours(400), currency="dkk", provider_ref="pi_of_last_month")
    plot.object(long_ago, at=at, currency="dkk", refer=False)
    expected["duplicate_effect"] |= {double, long_ago}
    plot.object(None, at=at, currency="pln")
    plot.object(str(uuid7()), at=at, currency="pln", refer=False)
    plot.object(None, at=at, currency="pln", status="requires_capture")
    denied = plot.effect(state="failed", at=at, currency="czk")
    forgotten = plot.effect(state="pending", at=at, currency="czk")
    for own in (denied, forgotten):
        plot.object(own, at=at, currency="czk", refer=False)
    expected["false_negative"] |= {denied, forgotten}
    plot.charge(at=at, currency="chf", wish={"without": ["balance_transaction"]})
    return {"sek": -5000 + 700, "nok": 100, "eur": 3200, "dkk": 8400, "pln": 8400, "czk": 8400, "chf": -4200}


def break_refunds(plot: Plot, expected: Breaks) -> tuple[str, dict[str, int]]:
    """Returns the charge of which too much was given back, and the drift."""
    at = hours(6)
    too_much: dict[str, Any] = {}
    generous = plot.effect(at=at, currency="huf")
    for _ in range(2):
        plot.refund(too_much, generous, at=at, amount=3000, currency="huf")
    plot.object(generous, at=at, currency="huf", **too_much)
    twice: dict[str, Any] = {}
    charge = plot.effect(at=at, currency="ron")
    own = plot.refund(twice, charge, at=at, amount=1000, currency="ron")
    twice["refunds"] *= 2
    plot.object(charge, at=at, currency="ron", **twice)
    expected["duplicate_refund"].add(own)
    return generous, {"ron": -1000}


def break_keys(plot: Plot, expected: Breaks) -> None:
    at = hours(6)
    bumped = plot.charge(at=at)
    plot.object(bumped, at=at, status="requires_confirmation", key=f"{bumped}:create:2", refer=False)
    foreign = plot.charge(at=at, wish={"key": "somebody-elses"})
    expected["illegal_key_bump"] |= {f"{bumped} create", f"{foreign} create", f"{foreign} confirm"}
    reused = plot.charge(at=at)
    plot.object(reused, at=at, amount=4300, status="requires_confirmation", refer=False)
    other = plot.charge(at=at, request={"customer": "cus_1"}, wish={"customer": "cus_2"})
    refused = plot.effect(state="parked", at=at)
    plot.fact(refused, "parked", at=at, code="idempotency_error", reason="idempotency_error")
    expected["param_drift"] |= {reused, other, refused}
    stale = plot.effect(at=hours(30), settled_at=at)
    plot.fact(stale, "unknown", at=hours(30))
    plot.object(stale, at=at)
    asked = plot.effect(state="parked", at=hours(30), attempt=2)
    plot.fact(asked, "leased_out", at=hours(29))
    plot.fact(asked, "unknown", at=at, attempt=2, step="refund", replayed=False, status=500)
    expected["stale_key_send"] |= {stale, asked}


def break_duties(plot: Plot, expected: Breaks) -> None:
    expected["stuck"] |= {
        plot.effect(state="unknown", at=hours(3)),
        plot.effect(state="executing", at=hours(3)),
        plot.effect(state="awaiting", at=hours(24 * 8)),
        plot.effect(state="parked", at=hours(60), duty={"parked_at": hours(50)}),
        plot.effect(state="pending", at=hours(3), in_doubt=True),
    }
    settled = plot.charge(at=hours(6))
    plot.duty(settled)
    expected["outbox_stuck"] |= {
        settled,
        plot.effect(state="pending", at=hours(1), duty={"road": "fresh", "available_at": hours(1)}),
        plot.effect(state="pending", at=hours(1), duty=None),
    }
    contradicted = plot.charge(at=hours(6))
    plot.fact(contradicted, "late_answer", at=hours(5), answer="failed")
    expected["late_contradiction"].add(contradicted)
    expected["missing_followup"].add(plot.charge(at=hours(6), request={"receipt_email": "ada@example.test"}))


def break_mail(plot: Plot, expected: Breaks) -> None:
    at = hours(6)
    double = plot.effect("email", at=at)
    unflagged = plot.effect("email", at=at, provider="smtp", policy="at_least_once")
    denied = plot.effect("email", "failed", at=at)
    astray = plot.effect("email", at=at)
    for own in (double, double, unflagged, unflagged, denied):
        plot.letter(own, at=at)
    plot.letter(astray, at=at, recipient="eve@example.test")
    plot.letter(str(uuid7()), at=at)
    expected["duplicate_email"] |= {double, unflagged}
    expected["lost_email"] |= {plot.effect("email", at=at), astray}
    expected["false_negative"].add(denied)
    expected["orphan_at_provider"].add(f"email {plot.letters[-1]['id']}")


# --- the promises -----------------------------------------------------------------------------------------------


def test_every_class_is_found_and_nothing_else(plot: Plot, settings: Settings, tmp_path: Path) -> None:
    expected: Breaks = defaultdict(set)
    healthy(plot)
    plot.plant()
    known = {event["id"] for event in events(settings)}
    sums = break_money(plot, expected)
    orphans_before = {row["payment_intent"] for row in plot.plant()}
    generous, more = break_refunds(plot, expected)
    break_keys(plot, expected)
    break_duties(plot, expected)
    break_mail(plot, expected)
    plot.plant()
    told = events(settings)
    missed = next(event["id"] for event in told if event["type"] == "payment_intent.succeeded" and event["id"] in known)
    plot.hear(told, except_for=frozenset({missed}))
    plot.books.run("update inbox set processed_at = null, result = null, received_at = %s where event_id = %s",
                   hours(3), told[0]["id"])  # fmt: skip
    expected["missed_webhook"] |= {missed, told[0]["id"]}
    expected["ledger_drift"] |= set(sums | more)
    expected["over_refund"].add(plot.books.one("select provider_ref from effects where id = %s", generous))
    unowned = {
        row["id"] for row in objects(settings)
        if row["id"] in orphans_before and row["currency"] == "pln"
    }  # fmt: skip
    expected["orphan_at_provider"] |= {f"charge {ref}" for ref in unowned}
    ledger = tmp_path / "letters.jsonl"
    ledger.write_text(plot.mail_ledger())

    first = everything(settings, ledger)
    assert found(first) == dict(expected)
    assert {check.name for check in CHECKS} == set(expected), "every class was planted"
    assert drift(first) == sums | more
    assert set(first.objects) == {1, 2}
    assert first.objects[2] == 2

    second = everything(settings, ledger)
    assert found(second) == dict(expected), "an independent second run finds the same"
    assert sum(second.new.values()) == 0, "and doubles nothing"


def objects(settings: Settings) -> list[dict[str, Any]]:
    api = stripe_books.books(settings)
    return [thing for page in pages(api, "/v1/payment_intents", {}, seconds=20) for thing in page]


def test_a_healthy_ledger_has_no_break(plot: Plot, settings: Settings, tmp_path: Path) -> None:
    healthy(plot)
    plot.plant()
    plot.hear(events(settings))
    ledger = tmp_path / "letters.jsonl"
    ledger.write_text(plot.mail_ledger())
    report = everything(settings, ledger)
    assert found(report) == {}
    assert set(report.objects) == {1}
    assert all(row["own"] == row["provider"] for row in report.sums)
    assert {row["currency"] for row in report.sums} == {"eur", "usd"}
    assert all(row["fees"] > 0 for row in report.sums)
    without_ledger = everything(settings)
    assert found(without_ledger) == {}


def test_an_empty_ledger_has_no_break(settings: Settings) -> None:
    report = everything(settings)
    assert report.found == 0
    assert report.objects == {}


def test_a_refund_that_fails_after_it_was_settled_contradicts_us(plot: Plot, settings: Settings) -> None:
    wish: dict[str, Any] = {}
    charge = plot.effect(at=hours(5), currency="usd")
    refund = plot.refund(wish, charge, at=hours(4), amount=1000, currency="usd")
    plot.object(charge, at=hours(5), currency="usd", **wish)
    plot.plant()
    assert everything(settings).found == 0
    ref = plot.books.one("select provider_ref from effects where id = %s", refund)
    plot.fake.admin(f"refunds/{ref}/finish", {"as": "failed"})
    plot.books.run("update effects set settled_at = %s where id = %s", hours(60), refund)
    report = everything(settings)
    assert report.breaks["late_contradiction"] == 1
    assert report.breaks["ledger_drift"] == 1


def test_an_effect_that_adopted_its_forgotten_predecessors_money_agrees(plot: Plot, settings: Settings) -> None:
    """After a restore: the object names an effect that no longer exists, and another one holds its id."""
    adopter = plot.effect(at=hours(100), settled_at=hours(2))
    plot.object(str(uuid7()), at=hours(100), refer=False)
    [planted] = plot.plant()
    plot.settled(adopter, planted["payment_intent"])
    report = within(settings, 4, 0)
    assert report.found == 0
    assert [(row["own"], row["provider"]) for row in report.sums] == [(4200, 4200)]
    assert within(settings, 102, 50).found == 0, "nor is it an orphan of its own day"
