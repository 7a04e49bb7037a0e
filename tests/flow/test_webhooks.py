"""What Stripe tells us leads to a look at once, and to nothing else: true, false, late, doubled or forged."""

from __future__ import annotations

import http.client
import json
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.flow.ear import PATH, SECRET, Ear, event, header, hearing
from tests.flow.system import System
from tests.flow.waiting import until

EFFECT = "01890000-0000-7000-8000-000000000017"
SOON_SECONDS = 15.0  # the poll comes after 60 and more; alone on the machine it takes a second or two
UNSIGNED = 1_000


def waits(system: System, card: str, **wish: object) -> tuple[str, str]:
    """A charge that Stripe will answer later: its id and its PaymentIntent."""
    from tasks import charge

    request = {"amount": 4200, "currency": "eur", "payment_method": card, **wish}
    effect_id = charge.apply_async(kwargs=request, dedupe_key=f"later:{card}:{time.monotonic_ns()}").id
    system.reaches(effect_id, "awaiting")
    return effect_id, str(system.effect(effect_id)["provider_ref"])


def look(system: System) -> None:
    """What beat asks for every ten seconds."""
    caller = system.start("caller", ["celery", "-A", "tasks", "call", "inbox"])
    assert caller.wait() == 0


@pytest.mark.parametrize(
    ("card", "wish", "end"),
    [
        ("pm_success_de", {}, "succeeded"),
        ("pm_failed_de", {}, "failed"),
        ("pm_card_authenticationRequired", {"off_session": False}, "succeeded"),
    ],
    ids=["processing, paid", "processing, refused", "requires_action, done"],
)
def test_what_was_awaited_is_settled_as_soon_as_stripe_tells(system: System, card: str, wish: dict, end: str) -> None:
    system.relay()
    system.worker()
    with hearing(system) as ear:
        effect_id, intent = waits(system, card, **wish)
        told_at = time.monotonic()
        system.stripe.admin(f"intents/{intent}/finish", {"as": end})
        system.reaches(effect_id, end, seconds=SOON_SECONDS)
        print(f"settled {time.monotonic() - told_at:.2f} s after Stripe knew")
        system.until(lambda: "hinted" in system.facts(effect_id), "the journal names the event")
        assert all(row["effect_id"] is not None for row in ear.inbox() if row["object_type"] == "payment_intent")
    system.settles(effect_id)
    system.oracle.check()
    assert system.charged(effect_id) == (1 if end == "succeeded" else 0)


def lost(system: System, ear: Ear) -> str:
    """A charge that was made and whose answer was lost, with nobody left to ask again before an hour is over."""
    ear.turn(drop=["*"])
    system.stripe.fault("close_after", route="confirm")
    relay = system.relay()
    effect_id = system.charge(receipt="ada@example.test")
    system.reaches(effect_id, "unknown")
    relay.kill()
    system.sql("update effects set not_before = now() + interval '1 hour' where id = %s", effect_id)
    system.sql("update outbox set available_at = now() + interval '1 hour' where effect_id = %s", effect_id)
    assert system.state(effect_id) == "unknown"
    return effect_id


def test_an_answer_that_was_lost_comes_by_webhook(system: System) -> None:
    system.worker()
    with hearing(system) as ear:
        effect_id = lost(system, ear)
        system.relay()
        ear.resend("payment_intent.succeeded")
        system.reaches(effect_id, "succeeded", seconds=SOON_SECONDS)
    system.settles(effect_id)
    books = system.oracle.check()
    assert len(books.money_of[effect_id]) == 1
    assert len(books.letters) == 1


def test_a_parked_effect_is_settled_by_the_inbox_with_its_receipt(system: System) -> None:
    system.worker(lanes="charge,email,periodic")
    with hearing(system) as ear:
        effect_id = lost(system, ear)
        system.sql("update effects set state = 'parked' where id = %s", effect_id)
        system.sql(
            "update outbox set road = 'parked', parked_at = now(), parked_reason = 'age_limit' where effect_id = %s",
            effect_id,
        )
        ear.resend("payment_intent.succeeded")
        system.until(ear.inbox, "the event is kept")
        assert system.state(effect_id) == "parked"
        look(system)
        system.reaches(effect_id, "succeeded", seconds=SOON_SECONDS)
        system.relay()
        system.settles(effect_id)
        assert system.facts(effect_id)[-2:] == ["verified", "succeeded"]
    assert len(system.oracle.check().letters) == 1


def test_doubled_reordered_and_repeated_events_end_as_if_each_had_come_once(system: System) -> None:
    system.relay()
    system.worker(lanes="charge,email,periodic")
    with hearing(system) as ear:
        ear.turn(duplicate=2, double_event=True, reorder=4)
        ids = [*system.charges(4), *system.charges(2, card="pm_card_visa_chargeDeclined")]
        system.settles(*ids)
        system.stripe.advance(0.01)  # a window that never fills is sent all the same
        told = {"payment_intent.succeeded": 8, "payment_intent.payment_failed": 4}

        def counts() -> Counter[str]:
            return Counter(row["type"] for row in ear.inbox())

        system.until(lambda: all(counts()[t] == n for t, n in told.items()), f"{told} are kept, each once")
        system.sql("update inbox set available_at = now() where processed_at is null")
        look(system)
        system.until(lambda: all(row["processed_at"] for row in ear.inbox()), "every event is dealt with")
        assert {row["result"] for row in ear.inbox() if row["type"] in told} <= {"agrees", "settled", "nudged"}
    assert system.sql("select * from breaks") == []
    system.oracle.check()
    assert [system.charged(one) for one in ids] == [1] * 4 + [0] * 2


def test_a_late_cancellation_of_what_succeeded_is_a_break_and_no_overwrite(system: System) -> None:
    system.relay()
    system.worker(lanes="charge,periodic")
    with hearing(system, register=False) as ear:
        effect_id = system.charge()
        system.settles(effect_id)
        intent = system.effect(effect_id)["provider_ref"]
        about = {"id": intent, "object": "payment_intent", "metadata": {"effect_id": effect_id}}
        for type_ in ("payment_intent.canceled", "payment_intent.payment_failed"):
            assert ear.post(event(about, type_)).status == 200
        look(system)
        system.until(lambda: all(row["processed_at"] for row in ear.inbox()), "every event is dealt with")
        # What these events say is not believed: the intent itself has succeeded.
        assert {row["result"] for row in ear.inbox()} == {"agrees"}
    assert system.sql("select * from breaks") == []
    assert system.state(effect_id) == "succeeded"
    system.oracle.check()


# --- the door -------------------------------------------------------------------------------------------------------


def test_unsigned_requests_cause_nothing(system: System) -> None:
    body = event({"id": "pi_1", "object": "payment_intent", "metadata": {"effect_id": EFFECT}})

    def knock(port: int, times: int) -> Counter[int]:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=20)
        seen: Counter[int] = Counter()
        for _ in range(times):
            connection.request("POST", PATH, body, {"Stripe-Signature": header(body, secret="whsec_guess")})
            answer = connection.getresponse()
            answer.read()
            seen[answer.status] += 1
        connection.close()
        return seen

    with hearing(system, register=False) as ear, ThreadPoolExecutor(4) as threads:
        parts = [threads.submit(knock, ear.port, UNSIGNED // 4) for _ in range(4)]
        assert sum((part.result() for part in parts), Counter()) == {400: UNSIGNED}
        assert ear.inbox() == []
        assert system.sql("select * from journal") == []
        until(lambda: len(ear.program.lines("webhook_refused")) == UNSIGNED, "each is one line in the log")
        assert ear.post(body).status == 200, "and the door is still open"


def test_only_what_is_signed_fresh_and_an_event_of_our_mode_is_kept(system: System) -> None:
    about = {"id": "pi_1", "object": "payment_intent"}
    good = event(about)
    with hearing(system, register=False, STRIPE_WEBHOOK_SECRET=f"whsec_new,{SECRET}") as ear:
        refused = {
            "no signature": ear.post(good, ""),
            "another body": ear.post(good + b" ", header(good)),
            "too old": ear.post(good, header(good, at=time.time() - 400)),
            "from the future": ear.post(good, header(good, at=time.time() + 400)),
            "live mode with a test key": ear.post(event(about, livemode=True)),
            "no event": ear.post(b'{"object": "list"}'),
            "no JSON": ear.post(b"nonsense"),
        }
        for name, answer in refused.items():
            assert (answer.status, answer.json["code"]) == (400, "webhook_refused"), name
            assert SECRET not in answer.raw.decode(), name
        assert ear.post(b"x" * (512 * 1024 + 1)).status == 413
        assert ear.inbox() == []
        first, again = ear.post(good), ear.post(good, header(good, secret="whsec_new"))
        assert (first.status, first.json["new"], again.status, again.json["new"]) == (200, True, 200, False)
        assert len(ear.inbox()) == 1
        assert SECRET not in ear.program.text()


def test_without_a_secret_the_door_names_the_setting(system: System) -> None:
    with hearing(system, register=False, STRIPE_WEBHOOK_SECRET="") as ear:
        answer = ear.post(event({"id": "pi_1", "object": "payment_intent"}))
        assert (answer.status, answer.json["code"]) == (503, "webhooks_not_set_up")
        assert answer.json["field"] == "COUNTERFOIL_STRIPE_WEBHOOK_SECRET"
        assert "retry-after" in answer.headers


def test_while_postgres_is_away_stripe_is_asked_to_tell_it_again(system: System) -> None:
    nowhere = system.database.rpartition("/")[0] + "/no_such_database"
    with hearing(system, register=False, DATABASE_URL=nowhere) as ear:
        answer = ear.post(event({"id": "pi_1", "object": "payment_intent"}))
        assert (answer.status, answer.json["code"]) == (503, "dependency_unavailable")
        assert json.loads(answer.raw)["retryable"] is True
