"""Personal data stands in one place: after an erasure nothing of it is found in the whole database, by any way it came."""

from __future__ import annotations

import psycopg

from service.engine import erasure
from tests.flow.ear import hearing
from tests.flow.system import System

ADDRESS = "ada.planted@example.test"
NAME = "Planta Lovelace"
BODY = "The planted body of a letter"
PLANTED = (ADDRESS, "ada.planted", NAME, "Planta", BODY)


def dump(url: str) -> str:
    """Every table of the database, by COPY."""
    tables = "select oid::regclass::text from pg_class where relkind = 'r' and relnamespace = 'public'::regnamespace"
    parts = []
    with psycopg.connect(url) as connection:
        for (table,) in connection.execute(tables).fetchall():
            with connection.cursor().copy(f"copy {table} to stdout") as copy:
                parts.append(b"".join(bytes(block) for block in copy).decode())
    return "\n".join(parts)


def test_after_an_erasure_a_dump_of_the_database_holds_nothing_of_the_person(system: System) -> None:
    from tasks import charge, email

    wish = {"amount": 4200, "currency": "eur", "receipt_email": ADDRESS, "description": f"Order of {NAME}",
            "metadata": {"customer_name": NAME}}  # fmt: skip
    letter = {"to": ADDRESS, "subject": f"Dear {NAME}", "text": f"{BODY}\nfor {NAME}", "html": f"<p>{BODY}</p>"}
    system.relay()
    with hearing(system):
        system.worker()
        paid = charge.apply_async(kwargs={**wish, "payment_method": "pm_card_visa"}, dedupe_key="paid").id
        declined = charge.apply_async(
            kwargs={**wish, "payment_method": "pm_card_chargeDeclined"}, dedupe_key="declined"
        ).id
        sent = email.apply_async(kwargs=letter, dedupe_key="sent").id
        system.settles(paid, declined, sent)
        system.until(lambda: system.sql("select 1 from inbox"), "Stripe has told us")
        [receipt] = system.until(
            lambda: system.sql("select id::text from effects where caused_by = %s", paid), "the receipt is accepted"
        )
        system.settles(receipt["id"])
    books = dump(system.database)
    assert all(word in books for word in PLANTED), "it was there"
    found = erasure.plan(to=ADDRESS)
    assert set(found.ids) == {paid, declined, sent, receipt["id"]}
    assert found.quoting == 0
    erasure.erase(found.ids, reason="request 17", actor="test", to=ADDRESS)
    assert {system.facts(one)[-1] for one in found.ids} == {"erased"}
    left = [word for word in PLANTED if word.lower() in dump(system.database).lower()]
    assert left == []


def test_what_a_server_quotes_of_the_request_in_its_refusal_does_not_get_into_the_outcome() -> None:
    """An outcome is final and kept for ever, so it is made discreet before it is written."""
    from service.core.effect import Attempt, Guarantee, Policy
    from service.core.outcome import Failed
    from service.core.state import State
    from service.engine.settlement import settlement
    from service.store.attempts import Limits

    attempt = Attempt(
        id="0198c0de-0000-7000-8000-000000000001", tenant="default", kind="email", number=1, prior=State.PENDING,
        in_doubt=False, sent_age_seconds=0.0, tries=1, waited_seconds=0.0, progress={}, policy=Policy.AT_LEAST_ONCE,
        dedupe_key="k", context={}, request={"to": ADDRESS, "subject": f"Dear {NAME}", "text": f"{BODY}\n{NAME}"},
    )  # fmt: skip
    said = f"5.1.1 <{ADDRESS.upper()}> unknown: '{BODY}' for {NAME} (Dear {NAME})"
    done = settlement(attempt, Failed("smtp_550", said), provider="smtp", guarantee=Guarantee.BLIND,
                      limits=Limits(90, 60, 1e6), random=lambda: 0.5)  # fmt: skip
    assert done.outcome
    message = str(done.outcome["message"])
    assert message.startswith("5.1.1 ")
    assert [word for word in PLANTED if word.lower() in message.lower()] == []
