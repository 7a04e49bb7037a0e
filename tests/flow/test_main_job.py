"""The main job, end to end, as it is started in production: `counterfoil relay`, `counterfoil worker`."""

from __future__ import annotations

import json
import socket
import urllib.request
from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.flow.brokers import free_port
from tests.flow.system import System


def test_a_charge_and_its_receipt_happen_once_with_two_commands(system: System) -> None:
    system.start("relay", ["service", "relay"], cold=True)
    system.start("worker", ["service", "worker", "--concurrency", "4"], cold=True)
    effect_id = system.charge(receipt="ada@example.test")
    system.settles(effect_id)
    books = system.oracle.check()
    assert len(books.money_of[effect_id]) == 1
    assert [letter["recipient"] for letter in books.letters] == ["ada@example.test"]


def test_the_http_api_leads_to_the_same_charge(system: System) -> None:
    port = free_port()
    system.start("api", ["service", "api", "--port", str(port)])
    system.relay()
    system.worker()
    body = {"amount": 990, "currency": "eur", "payment_method": "pm_card_visa", "receipt_email": "http@example.test"}
    system.until(lambda: _listens(port), "the API listens")
    first, again = (_post(port, body, key="order:http") for _ in range(2))
    assert first["id"] == again["id"]
    system.settles(first["id"])
    system.oracle.check()
    assert system.charged(first["id"]) == 1


@pytest.mark.parametrize(
    ("card", "code", "decline_code"),
    [
        ("pm_card_visa_chargeDeclined", "card_declined", "generic_decline"),
        ("pm_card_chargeDeclinedInsufficientFunds", "card_declined", "insufficient_funds"),
    ],
)
def test_a_decline_ends_failed_with_the_codes_of_stripe(
    system: System, card: str, code: str, decline_code: str
) -> None:
    system.relay()
    system.worker()
    effect_id = system.charge(card=card, receipt="declined@example.test")
    system.settles(effect_id)
    system.oracle.check()
    assert system.state(effect_id) == "failed"
    outcome = system.effect(effect_id)["outcome"]
    assert (outcome["code"], outcome["decline_code"]) == (code, decline_code)


def test_an_answer_of_too_many_requests_comes_back_through_the_outbox(system: System) -> None:
    system.stripe.fault("status_429", route="create", times=2)
    system.relay()
    worker = system.worker()
    effect_id = system.charge()
    system.settles(effect_id)
    system.oracle.check()
    assert system.facts(effect_id).count("deferred") == 2
    assert [row["status"] for row in system.asked(effect_id, "create")] == [429, 429, 200]
    assert not [line for line in worker.lines() if "retry" in str(line["event"]).lower()]


def test_fifty_callers_with_one_key_charge_one_card(system: System) -> None:
    from tasks import charge

    wish = {"amount": 4200, "currency": "eur", "payment_method": "pm_card_visa"}
    system.relay()
    system.worker()
    with ThreadPoolExecutor(50) as callers:
        results = list(callers.map(lambda _: charge.apply_async(kwargs=wish, dedupe_key="order:one"), range(50)))
    [effect_id] = {result.id for result in results}
    assert sum(bool(result.created) for result in results) == 1
    system.settles(effect_id)
    system.oracle.check()


def test_a_keyed_letter_whose_answer_is_lost_is_sent_exactly_once(system: System) -> None:
    system.mail.fault("close_after", route="emails")
    system.relay()
    system.worker()
    effect_id = system.email("keyed@example.test")
    system.settles(effect_id)
    books = system.oracle.check()
    assert len(books.letters_of[effect_id]) == 1
    assert len(system.asked(effect_id, "send")) == 2


def test_a_blind_letter_at_most_once_is_parked_when_the_reply_to_the_dot_is_lost(system: System) -> None:
    system.mail.fault("close", phase="after_accept")
    _by_smtp(system)
    effect_id = system.email("blind@example.test", policy="at_most_once")
    system.reaches(effect_id, "parked")
    books = system.oracle.check()
    assert len(books.letters_of[effect_id]) == 1  # it was accepted; nobody here can know, so nobody sends again
    assert system.facts(effect_id).count("claimed") == 1


def test_a_blind_letter_at_least_once_is_sent_again_in_the_same_bytes_and_says_so(system: System) -> None:
    system.mail.fault("close", phase="after_accept")
    _by_smtp(system)
    effect_id = system.email("twice@example.test", policy="at_least_once")
    system.settles(effect_id)
    books = system.oracle.check()
    first, second = books.letters_of[effect_id]
    assert (first["raw"], first["message_id"]) == (second["raw"], second["message_id"])
    assert system.effect(effect_id)["outcome"]["possible_duplicate"] is True


def test_a_blind_letter_that_is_dropped_before_the_dot_is_sent_once(system: System) -> None:
    system.mail.fault("close", phase="data")
    _by_smtp(system)
    effect_id = system.email("before@example.test", policy="at_most_once")
    system.settles(effect_id)
    books = system.oracle.check()
    assert len(books.letters_of[effect_id]) == 1
    assert "possible_duplicate" not in system.effect(effect_id)["outcome"]


def _by_smtp(system: System) -> None:
    system.relay()
    system.worker(EMAIL_URL=system.mail.address["smtp_url"])


def _listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def _post(port: int, body: dict[str, object], *, key: str, **headers: str) -> dict[str, str]:
    request = urllib.request.Request(
        f"http://127.0.0.1:{port}/v1/charges",
        data=json.dumps(body).encode(),
        headers={"Content-Type": "application/json", "Idempotency-Key": key, **headers},
    )
    with urllib.request.urlopen(request, timeout=10) as answer:
        return dict(json.load(answer))
