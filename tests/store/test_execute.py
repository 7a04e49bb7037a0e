"""Execute: each effect of a message is claimed, performed and settled on its own, and a doubled message does nothing."""

from __future__ import annotations

import threading

import pytest

from service.core.effect import Guarantee, LeaseLost, Policy
from service.core.errors import DependencyUnavailable, SettingsError
from service.core.outcome import Awaiting, Contradiction, Deferred, Failed, Succeeded, Unknown
from service.engine.execute import Executor, Room
from service.engine.kind import Kind
from service.settings import Settings
from tests.store.books import Books, order, orders
from tests.store.script import ScriptedProvider, succeed

WAIT_SECONDS = 20


@pytest.fixture
def executor(books) -> Executor:  # noqa: ARG001 - the database
    return Executor(Settings(slots=8), actor="worker")


def kind_of(provider: ScriptedProvider, **changes) -> Kind:
    return Kind(**{"name": "charge", "provider": lambda: provider, **changes})


def state(books: Books, effect_id: str) -> str:
    return str(books.effect(effect_id)["state"])


def test_a_message_is_executed_and_a_second_copy_does_nothing(books, executor):
    ids = books.accept(*orders(12))
    provider = ScriptedProvider()
    report = executor.run(kind_of(provider), ids)
    assert (report.asked, report.claimed, report.ended) == (12, 12, {"succeeded": 12})
    again = executor.run(kind_of(provider), ids)
    assert (again.asked, again.claimed, again.ended) == (12, 0, {})
    assert sorted(attempt.id for attempt in provider.seen) == sorted(ids)
    assert books.count("outbox") == 0


def test_duplicates_foreign_ids_and_what_is_not_due_are_passed_over(books, executor):
    from datetime import UTC, datetime, timedelta

    [one] = books.accept()
    [later] = books.accept(order("later", not_before=datetime.now(UTC) + timedelta(hours=1)))
    provider = ScriptedProvider()
    report = executor.run(kind_of(provider), [one, order().id, later, one])
    assert (report.asked, report.claimed) == (4, 1)
    assert [attempt.id for attempt in provider.seen] == [one]


def test_each_effect_ends_as_its_own_answer_says(books, executor):
    answers = {
        "paid": Succeeded("pi_1"),
        "declined": Failed("card_declined", "no"),
        "later": Awaiting("processing", "pi_2"),
        "busy": Deferred("rate_limited"),
        "silent": Unknown("timeout"),
        "odd": Contradiction("echo_mismatch"),
    }
    provider = ScriptedProvider(steps={key: (lambda _a, _l, o=o: o) for key, o in answers.items()})
    ids = books.accept(*(order(key) for key in answers))
    report = executor.run(kind_of(provider), ids)
    expected = ["succeeded", "failed", "awaiting", "pending", "unknown", "parked"]
    assert [state(books, effect_id) for effect_id in ids] == expected
    assert report.ended == dict.fromkeys(expected, 1)


def test_one_that_hangs_holds_up_no_other(books, executor):
    release, others = threading.Event(), threading.Semaphore(0)

    def hang(attempt, lease):
        assert release.wait(WAIT_SECONDS)
        return succeed(attempt, lease)

    def quick(attempt, lease):
        others.release()
        return succeed(attempt, lease)

    ids = books.accept(*orders(8))
    provider = ScriptedProvider(usual=quick, steps={"order:0:charge": hang})
    running = threading.Thread(target=executor.run, args=(kind_of(provider), ids))
    running.start()
    try:
        for _ in range(7):
            assert others.acquire(timeout=WAIT_SECONDS)
        ended = threading.Event()
        for _ in range(2000):
            if books.one("select count(*) from effects where state = 'succeeded'") == 7:
                break
            ended.wait(0.01)
        assert books.one("select count(*) from effects where state = 'succeeded'") == 7
        assert state(books, ids[0]) == "executing"
    finally:
        release.set()
        running.join(WAIT_SECONDS)
    assert state(books, ids[0]) == "succeeded"


def test_a_bug_in_a_provider_is_unknown_and_never_failed(books, executor):
    def bug(_attempt, _lease):
        raise ZeroDivisionError("secret")

    [effect_id] = books.accept()
    executor.run(kind_of(ScriptedProvider(usual=bug)), [effect_id])
    assert state(books, effect_id) == "unknown"
    assert books.one("select evidence from journal where fact = 'unknown'") == {"exception": "ZeroDivisionError"}


@pytest.mark.parametrize(
    ("error", "reason"), [(LeaseLost(), "lease_lost"), (DependencyUnavailable("away"), "dependency_unavailable")]
)
def test_what_was_never_sent_comes_back_without_doubt(books, executor, error, reason):
    def refuse(_attempt, _lease):
        raise error

    [effect_id] = books.accept()
    executor.run(kind_of(ScriptedProvider(usual=refuse)), [effect_id])
    row = books.effect(effect_id)
    assert (row["state"], row["in_doubt"]) == ("pending", False)
    assert books.duty(effect_id)["last_error"] == reason


def test_i9_a_worker_that_was_overtaken_writes_no_state(books, executor):
    [effect_id] = books.accept()

    def overtaken(attempt, lease):
        books.end_lease(effect_id)
        assert len(books.claim(effect_id)) == 1
        return succeed(attempt, lease)

    report = executor.run(kind_of(ScriptedProvider(usual=overtaken)), [effect_id])
    assert (report.claimed, report.ended) == (1, {})
    assert (state(books, effect_id), books.effect(effect_id)["attempt"]) == ("executing", 2)
    assert books.facts(effect_id)[-1] == "late_answer"


def test_i9_an_overtaken_worker_may_not_commit_a_recovery_point_and_stops(books, executor):
    [effect_id] = books.accept()
    reached = []

    def overtaken(attempt, lease):
        lease.record({"payment_intent": "pi_1"})
        books.end_lease(effect_id)
        reached.append("first")
        lease.record({"payment_intent": "pi_2"})
        reached.append("second")
        return succeed(attempt, lease)

    executor.run(kind_of(ScriptedProvider(usual=overtaken)), [effect_id])
    assert reached == ["first"]
    assert books.effect(effect_id)["progress"] == {"payment_intent": "pi_1"}


def test_w11_the_next_attempt_goes_on_from_the_recovery_point(books, executor):
    [effect_id] = books.accept()

    def two_steps(attempt, lease):
        if "payment_intent" not in attempt.progress:
            lease.record({"payment_intent": "pi_1"})
            return Unknown("timeout")
        return Succeeded(attempt.progress["payment_intent"])

    provider = ScriptedProvider(usual=two_steps)
    executor.run(kind_of(provider), [effect_id])
    books.make_due(effect_id)
    executor.run(kind_of(provider), [effect_id])
    assert [attempt.in_doubt for attempt in provider.seen] == [False, True]
    assert (state(books, effect_id), books.effect(effect_id)["provider_ref"]) == ("succeeded", "pi_1")


def test_the_follow_up_is_accepted_in_the_settling_commit_and_once(books, executor):
    def receipt(attempt, outcome):
        return [order(f"{attempt.id}:receipt", kind="email", caused_by=attempt.id, context={"ref": outcome.ref})]

    paid, declined = books.accept(order("paid"), order("declined"))
    steps = {"declined": lambda _a, _l: Failed("card_declined", "no")}
    executor.run(kind_of(ScriptedProvider(steps=steps), follow_up=receipt), [paid, declined])
    [letter] = books.rows("select * from effects where kind = 'email'")
    assert (str(letter["caused_by"]), letter["state"]) == (paid, "pending")
    together = "select count(distinct xmin::text) from effects where id = any(%s)"
    assert books.one(together, [paid, str(letter["id"])]) == 1, "one commit"
    assert books.duty(str(letter["id"]))["lane"] == "email"


def test_a_fenced_out_success_causes_no_follow_up(books, executor):
    def receipt(attempt, _outcome):
        return [order(f"{attempt.id}:receipt", kind="email")]

    [effect_id] = books.accept()

    def overtaken(attempt, lease):
        books.end_lease(effect_id)
        books.claim(effect_id)
        return succeed(attempt, lease)

    executor.run(kind_of(ScriptedProvider(usual=overtaken), follow_up=receipt), [effect_id])
    assert books.count("effects") == 1


def test_two_effects_with_one_reference_of_the_provider_park_one_and_spare_all_others(books, executor):
    together = threading.Barrier(4)

    def same(_attempt, _lease):
        together.wait(WAIT_SECONDS)
        return Succeeded("pi_same", evidence={"request_id": "req_1"})

    def other(attempt, lease):
        together.wait(WAIT_SECONDS)
        return succeed(attempt, lease)

    ids = books.accept(*orders(4))
    provider = ScriptedProvider(usual=other, steps={"order:1:charge": same, "order:2:charge": same})
    report = executor.run(kind_of(provider), ids)
    states = [state(books, effect_id) for effect_id in ids]
    assert (states[0], states[3], sorted(states[1:3])) == ("succeeded", "succeeded", ["parked", "succeeded"])
    assert books.one("select parked_reason from outbox") == "schema_refused"
    assert books.one("select evidence ->> 'request_id' from journal where fact = 'parked'") == "req_1"
    assert books.one("select in_doubt from effects where state = 'parked'") is True
    assert report.claimed == 4


def test_text_that_postgres_cannot_hold_costs_nobody_their_settlement(books, executor):
    def torn(_attempt, _lease):
        return Failed("card_declined", "a\x00b\ud800c \\u0000", {"more": ["\x00\x00"]}, {"body": "\x00"})

    ids = books.accept(*orders(3))
    executor.run(kind_of(ScriptedProvider(steps={"order:1:charge": torn})), ids)
    assert [state(books, effect_id) for effect_id in ids] == ["succeeded", "failed", "succeeded"]
    told = books.effect(ids[1])["outcome"]
    assert told == {"code": "card_declined", "message": "a\ufffdb?c \\u0000", "more": ["\ufffd\ufffd"]}


def test_a_spent_effect_is_parked_by_the_worker_that_meets_it(books):
    worker = Executor(Settings(slots=2, attempt_budget=2), actor="worker")
    [effect_id] = books.accept()
    for _ in range(2):
        books.claim(effect_id)
        books.end_lease(effect_id)
    provider = ScriptedProvider()
    report = worker.run(kind_of(provider), [effect_id])
    assert (report.claimed, provider.seen) == (0, [])
    assert (state(books, effect_id), books.duty(effect_id)["parked_reason"]) == ("parked", "attempt_budget")


@pytest.mark.parametrize(("policy", "ends"), [(Policy.AT_MOST_ONCE, "parked"), (Policy.AT_LEAST_ONCE, "unknown")])
def test_a_blind_provider_follows_the_policy_of_the_effect(books, executor, policy, ends):
    [effect_id] = books.accept(order("mail", kind="email", policy=policy))
    provider = ScriptedProvider(usual=lambda _a, _l: Unknown("no_answer"), name="smtp", guarantee=Guarantee.BLIND)
    executor.run(kind_of(provider, name="email"), [effect_id])
    assert state(books, effect_id) == ends


def test_more_effects_than_slots_run_in_turns(books):
    worker = Executor(Settings(slots=3), actor="worker")
    busy, most = [0], [0]
    lock = threading.Lock()

    def count(attempt, lease):
        with lock:
            busy[0] += 1
            most[0] = max(most[0], busy[0])
        answer = succeed(attempt, lease)
        with lock:
            busy[0] -= 1
        return answer

    ids = books.accept(*orders(20))
    assert worker.run(kind_of(ScriptedProvider(usual=count)), ids).ended == {"succeeded": 20}
    assert most[0] <= 3


def test_room_is_given_only_when_there_is_enough():
    room = Room(4)
    room.enter(3)
    entered = threading.Event()
    waiting = threading.Thread(target=lambda: (room.enter(2), entered.set()))
    waiting.start()
    assert not entered.is_set()
    room.leave(0)
    assert not entered.is_set()
    room.leave(1)
    assert entered.wait(WAIT_SECONDS)
    waiting.join(WAIT_SECONDS)


def test_a_worker_without_a_provider_claims_nothing_and_says_so_in_one_line(books, executor, said):
    [effect_id] = books.accept()

    def unset() -> ScriptedProvider:
        raise SettingsError("COUNTERFOIL_STRIPE_API_KEY is not set")

    report = executor.run(Kind("charge", provider=unset), [effect_id])
    assert (report.asked, report.claimed) == (1, 0)
    assert state(books, effect_id) == "pending"
    [line] = said
    assert "COUNTERFOIL_STRIPE_API_KEY" in line["error"]
    assert not line.get("exc_info")
