"""Circuit: a provider that is away is asked by one effect now and then; the others keep their attempts and wait."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from threading import Barrier, Event
from time import monotonic

import pytest

from service.core.effect import Policy
from service.core.outcome import (
    Absent,
    Awaiting,
    Contradiction,
    Deferred,
    Failed,
    Outcome,
    Succeeded,
    Unknown,
)
from service.engine import circuit
from service.engine.circuit import Sign, sign
from service.engine.execute import Executor
from service.engine.kind import Kind
from service.engine.pace import Meter
from service.providers.http1 import Answer, Headers
from service.providers.mail import resend, smtp
from service.providers.mail.smtp_session import Phase
from service.providers.stripe.answers import Expected, classify
from service.providers.stripe.reply import Reply, Sent, Step
from service.settings import Settings
from service.store import circuits, database
from tests.store.books import Books, order, orders
from tests.store.script import ScriptedProvider, succeed

FAILURES = 3
REFUSED = Deferred("not_sent_refused")


@pytest.fixture(autouse=True)
def fresh_knowledge(monkeypatch: pytest.MonkeyPatch) -> None:
    """Workers look at each message, so that a test need not wait until they know."""
    monkeypatch.setattr(circuit, "LOOK_SECONDS", 0.0)


@dataclass
class Provider:
    """Away until it is told to be back; `seen` in the order of attempts."""

    answer: Outcome | None = REFUSED
    scripted: ScriptedProvider = field(init=False)

    def __post_init__(self) -> None:
        self.scripted = ScriptedProvider(usual=lambda a, lease: self.answer or succeed(a, lease))

    @property
    def seen(self) -> list[str]:
        return [attempt.id for attempt in self.scripted.seen]

    def kind(self, name: str = "charge") -> Kind:
        return Kind(name, provider=lambda: self.scripted)


def worker(**settings) -> Executor:
    return Executor(Settings(**{"slots": 4, "circuit_failures": FAILURES, **settings}), actor="worker")


def opened(books: Books, provider: Provider, executor: Executor) -> list[str]:
    """Its circuit is open after so many failures; the ids that failed."""
    ids = books.accept(*(order(f"first:{i}") for i in range(FAILURES)))
    executor.run(provider.kind(), ids)
    assert books.one("select opened_at is not null from circuits")
    return ids


def probe_now(books: Books) -> None:
    assert books.run("update circuits set probe_at = now()") == 1


def taken() -> list[str]:
    return [row.effect_id for row in Meter("relay").take(500, 105.0)]


def standing() -> circuits.Circuit:
    with database.statement() as connection:
        [found] = circuits.standing(connection)
    return found


# --- what says something about the provider --------------------------------------------------------------------------


def stripe(**facts) -> Outcome:
    reply = Reply(**{"step": Step.CREATE, "sent": Sent.ANSWERED, **facts})
    found = classify(reply, Expected("e", 4200, "eur", livemode=False))
    assert not hasattr(found, "value")
    return found


def resent(status: int, name: str = "") -> Outcome:
    return resend.classify(Answer(status, Headers(), b'{"name": "%s"}' % name.encode(), reusable=True), in_doubt=False)


def mailed(phase: Phase, code: int) -> Outcome:
    return smtp.refused(phase, code, b"no", unanswered=0)


DECLINE = {"type": "card_error", "code": "card_declined", "message": "no"}
SIGNS = {
    Sign.FAILS: [
        stripe(sent=Sent.NOT_SENT, reason="refused"),
        stripe(sent=Sent.NOT_SENT, reason="timeout"),
        stripe(sent=Sent.NOT_SENT, reason="dns"),
        stripe(sent=Sent.MAYBE, reason="timeout"),
        stripe(sent=Sent.MAYBE, reason="torn"),
        stripe(sent=Sent.MAYBE, reason="timeout", step=Step.RETRIEVE),
        stripe(status=500),
        stripe(status=502),
        stripe(status=503, step=Step.RETRIEVE),
        stripe(status=429, error={"code": "rate_limit"}),
        resent(429, "rate_limit_exceeded"),
        resent(429, "daily_quota_exceeded"),
        resent(500),
        Deferred("not_sent_refused"),
        mailed(Phase.GREETING, 421),
        smtp.broken(Phase.CONNECT, ConnectionRefusedError(), unanswered=0),
        smtp.broken(Phase.DOT, TimeoutError(), unanswered=0),
    ],
    Sign.ANSWERS: [
        Succeeded("pi_1"),
        Awaiting("processing"),
        Absent("absent"),
        stripe(status=402, error=DECLINE),
        stripe(status=400, error={"type": "invalid_request_error", "code": "parameter_missing"}),
        stripe(status=400, error={"type": "idempotency_error"}),
        stripe(status=409),
        resent(422, "validation_error"),
        mailed(Phase.ENVELOPE, 550),
    ],
    Sign.NOTHING: [
        stripe(sent=Sent.NOT_SENT, reason="no_time_left"),
        stripe(status=401),
        stripe(status=403),
        stripe(status=429, error={"code": "lock_timeout"}),
        Unknown("status_500", {"status": 500, "replayed": True}),
        resent(401),
        mailed(Phase.ENVELOPE, 451),
        Unknown("bug", {"exception": "KeyError"}),
        Unknown("key_expired"),
        Unknown("not_found", {"age_seconds": 1}),
        Deferred("lease_lost"),
        Deferred("dependency_unavailable", evidence={"detail": "Postgres does not answer"}),
        Failed("invalid_message", "to is not one plain e-mail address"),
        Contradiction("wrong_kind"),
    ],
}  # fmt: skip


@pytest.mark.parametrize(("says", "outcome"), [(s, o) for s, all_ in SIGNS.items() for o in all_], ids=str)
def test_only_what_says_nothing_about_the_effect_counts_against_its_provider(says, outcome):
    assert sign(outcome) is says


# --- opening ---------------------------------------------------------------------------------------------------------


def test_failures_in_a_row_over_all_workers_open_it_and_then_nothing_is_claimed(books, said):
    provider, one, other = Provider(), worker(), worker()
    ids = books.accept(*orders(FAILURES + 2))
    for executor, effect_id in zip((one, other, one), ids, strict=False):
        executor.run(provider.kind(), [effect_id])
    assert [line["event"] for line in said].count("circuit_open") == 1
    found = standing()
    assert (found.open, found.kinds, found.failures) == (True, ("charge",), FAILURES)
    assert found.last_error == "not_sent_refused"
    assert found.open_seconds is not None
    assert found.probe_seconds is not None
    assert 0.499 <= found.open_seconds + found.probe_seconds <= circuits.PROBE_SECONDS + 0.001
    books.run("update circuits set probe_at = now() + interval '1 hour'")
    for executor in (one, other):
        assert executor.run(provider.kind(), ids[FAILURES:]).claimed == 0
    assert provider.seen == ids[:FAILURES]
    for effect_id in ids[FAILURES:]:
        row = books.effect(effect_id)
        assert (row["state"], row["attempt"], row["first_sent_at"]) == ("pending", 0, None)
        assert books.facts(effect_id) == ["accepted"]


def test_an_answer_in_between_ends_the_row(books):
    provider, executor = Provider(), worker()
    for turn in range(2):
        for i in range(FAILURES - 1):
            executor.run(provider.kind(), books.accept(order(f"{turn}:{i}")))
        provider.answer = Failed("card_declined", "no", evidence={"status": 402})
        executor.run(provider.kind(), books.accept(order(f"{turn}:declined")))
        provider.answer = REFUSED
    assert not standing().open


def test_declines_never_open_it_and_leave_no_trace(books):
    provider = Provider(Failed("card_declined", "no", evidence={"status": 402}))
    worker().run(provider.kind(), books.accept(*orders(3 * FAILURES)))
    assert books.count("circuits") == 0


def test_without_a_threshold_it_never_opens(books):
    provider = Provider()
    worker(circuit_failures=0).run(provider.kind(), books.accept(*orders(3 * FAILURES)))
    assert books.count("circuits") == 0
    assert len(provider.seen) == 3 * FAILURES


def test_a_kind_that_works_goes_on_and_its_success_closes_it_for_the_others(books):
    """A failing refund endpoint must not stop charges, and what they learn is news for the refunds."""
    provider, executor = Provider(), worker()
    opened(books, provider, executor)
    provider.answer = None
    [capture] = books.accept(order("capture", kind="email"))
    assert executor.run(provider.kind("email"), [capture]).ended == {"succeeded": 1}
    assert not standing().open


def test_what_fails_under_way_when_it_opens_makes_it_no_worse(books):
    together = Barrier(2 * FAILURES)

    def fail(_attempt, _lease):
        together.wait(20)
        return REFUSED

    executor = worker(slots=2 * FAILURES)
    executor.run(Kind("charge", provider=lambda: ScriptedProvider(usual=fail)), books.accept(*orders(2 * FAILURES)))
    found = standing()
    assert (found.failures, found.probes) == (FAILURES, 0)


# --- half-open -------------------------------------------------------------------------------------------------------


def test_one_probe_at_a_time_over_all_workers_and_its_success_closes_it(books, said):
    provider, workers = Provider(), [worker() for _ in range(4)]
    opened(books, provider, workers[0])
    waiting = books.accept(*orders(8))
    provider.answer = None
    begun, go_on = Event(), Event()

    def hold(attempt, lease):
        begun.set()
        assert go_on.wait(20)
        return succeed(attempt, lease)

    provider.scripted.usual = hold
    provider.scripted.seen.clear()
    probe_now(books)
    with ThreadPoolExecutor(5) as pool:
        running = [pool.submit(w.run, provider.kind(), waiting[2 * i : 2 * i + 2]) for i, w in enumerate(workers)]
        assert begun.wait(20)
        others = Event()
        for _ in range(2000):
            if sum(future.done() for future in running) == 3:
                break
            others.wait(0.01)
        assert sum(future.done() for future in running) == 3
        assert len(provider.seen) == 1
        go_on.set()
        assert sum(future.result().claimed for future in running) == 1
    assert not standing().open
    assert [line["event"] for line in said].count("circuit_closed") == 1
    rest = [effect_id for effect_id in waiting if effect_id not in provider.seen]
    for effect_id in rest:
        books.make_due(effect_id)
    assert workers[3].run(provider.kind(), rest).ended == {"succeeded": 7}


def test_a_probe_that_fails_makes_the_next_one_wait_longer_up_to_a_limit(books):
    provider, executor = Provider(), worker()
    opened(books, provider, executor)
    waits = []
    for i in range(8):
        probe_now(books)
        begun = monotonic()
        assert executor.run(provider.kind(), books.accept(order(f"probe:{i}"))).claimed == 1
        waits.append((standing().probe_seconds, monotonic() - begun))
    for i, (seconds, passed) in enumerate(waits):
        most = min(circuits.PROBE_MAX_SECONDS, circuits.PROBE_SECONDS * 2 ** (i + 1))
        assert most * 0.5 - passed <= seconds <= most
    assert standing().failures == FAILURES + 8


@pytest.mark.parametrize(("asked", "waits"), [(120.0, 120.0), (90_000.0, circuits.ASKED_MAX_SECONDS)])
def test_retry_after_is_honoured_for_everybody_up_to_an_hour(books, asked, waits):
    provider, executor = Provider(Deferred("rate_limited", asked, {"status": 429})), worker()
    opened(books, provider, executor)
    assert waits - 5 < standing().probe_seconds <= waits


def test_a_prober_that_dies_delays_the_next_probe_by_a_lease(books):
    provider, executor = Provider(), worker(lease=61.5)
    opened(books, provider, executor)
    probe_now(books)
    with database.statement() as connection:
        assert circuits.probe(connection, "stripe", seconds=61.5)  # and then it was killed
    [effect_id] = books.accept(order("next"))
    assert executor.run(provider.kind(), [effect_id]).claimed == 0
    assert 40 < standing().probe_seconds <= 61.5
    books.run("update circuits set probe_at = probe_at - interval '62 seconds'")
    provider.answer = None
    books.make_due(effect_id)
    taken()
    assert executor.run(provider.kind(), [effect_id]).ended == {"succeeded": 1}
    assert not standing().open


def test_a_probe_that_finds_its_effect_settled_lets_another_one_try(books):
    provider, executor = Provider(None), worker()
    [settled] = books.accept(order("settled"))
    executor.run(provider.kind(), [settled])
    provider.answer = REFUSED
    opened(books, provider, executor)
    probe_now(books)
    assert executor.run(provider.kind(), [settled]).claimed == 0
    assert standing().probe_seconds <= circuits.PROBE_SECONDS


def test_what_is_in_doubt_is_asked_by_a_probe_under_its_own_key(books):
    """Its key grows old while the circuit is open (20 of 24 hours), so probes go on for as long as that takes."""
    provider, executor = Provider(Unknown("no_answer_timeout")), worker()
    ids = opened(books, provider, executor)
    provider.answer = None
    probe_now(books)
    books.make_due(ids[0])
    assert executor.run(provider.kind(), taken()).ended == {"succeeded": 1}
    assert provider.scripted.seen[-1].in_doubt
    assert books.effect(ids[0])["attempt"] == 2


# --- relays ----------------------------------------------------------------------------------------------------------


def test_a_relay_publishes_nothing_of_a_provider_that_is_away_and_then_one_probe_a_kind(books):
    provider, executor = Provider(), worker()
    for failed in opened(books, provider, executor):
        books.run("update outbox set available_at = now() + interval '1 hour' where effect_id = %s", failed)
    waiting = books.accept(*(order(f"waiting:{i}") for i in range(5)))
    [urgent] = books.accept(order("urgent", priority=9))
    [letter] = books.accept(order("letter", kind="email", lane="email"))
    assert taken() == [letter]
    assert all(books.duty(effect_id)["road"] == "fresh" for effect_id in waiting)
    probe_now(books)
    assert taken() == [urgent]
    assert taken() == [], "one at a time"
    provider.answer = None
    assert executor.run(provider.kind(), [urgent]).ended == {"succeeded": 1}
    assert sorted(taken()) == waiting


def test_an_attempt_that_went_silent_stands_as_unknown_while_its_provider_is_away(books):
    provider, executor = Provider(), worker()
    [silent] = books.accept(order("silent"))
    taken()
    books.claim(silent)
    opened(books, provider, executor)
    books.end_lease(silent)
    books.run("update outbox set available_at = now() - interval '1 second' where effect_id = %s", silent)
    assert taken() == []
    assert (books.effect(silent)["state"], books.duty(silent)["road"]) == ("unknown", "later")
    assert books.facts(silent)[-1] == "leased_out"


def test_a_blind_letter_is_claimed_as_a_probe_like_any_other(books):
    provider = Provider(Deferred("not_sent_connect", evidence={"phase": "connect", "unanswered": 0}))
    provider.scripted.name = "smtp"
    executor = worker()
    letters = [order(f"l:{i}", kind="email", policy=Policy.AT_MOST_ONCE) for i in range(FAILURES + 1)]
    ids = books.accept(*letters)
    executor.run(provider.kind("email"), ids[:FAILURES])
    assert standing().open
    provider.answer = None
    probe_now(books)
    assert executor.run(provider.kind("email"), ids[FAILURES:]).ended == {"succeeded": 1}
    assert not standing().open


def test_without_its_table_effects_flow(books):
    books.run("alter table circuits rename to circuits_away")
    provider = Provider()
    report = worker().run(provider.kind(), books.accept(*orders(2 * FAILURES)))
    assert report.claimed == 2 * FAILURES
