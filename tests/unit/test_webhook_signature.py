"""A webhook is Stripe's by its bytes, its time and one of our secrets, in the eyes of the SDK's own verifier as well."""

from __future__ import annotations

import json
from datetime import UTC, datetime

import pytest
import stripe
from hypothesis import given
from hypothesis import strategies as st

from service.providers.stripe.events import NotAnEvent, parse
from service.providers.stripe.signature import BadSignature, verify

NOW = 1_900_000_000
SECRET = "whsec_first"
BODY = b'{"id": "evt_1", "object": "event"}'
EFFECT = "01890000-0000-7000-8000-000000000017"


def signed(body: bytes = BODY, secret: str = SECRET, at: int = NOW) -> str:
    """The header as the SDK itself writes it."""
    return str(stripe.WebhookSignature.generate_signature_header(body.decode(), secret, timestamp=at))


def accepted(header: str | None, body: bytes = BODY, secrets: tuple[str, ...] = (SECRET,), now: float = NOW) -> bool:
    try:
        verify(header, body, secrets, now=now)
    except BadSignature:
        return False
    return True


def test_what_the_sdk_signs_is_accepted():
    assert accepted(signed())


@given(body=st.binary(max_size=200), secret=st.text("abcdef0123456789_", min_size=1, max_size=40))
def test_we_and_the_sdk_agree_about_any_bytes(body, secret):
    text = body.decode("latin-1")
    header = signed(text.encode(), secret)
    assert accepted(header, text.encode(), (secret,))
    assert stripe.WebhookSignature.verify_header(text, header, secret)


@pytest.mark.parametrize(
    ("name", "header"),
    [
        ("nothing", None),
        ("an empty header", ""),
        ("no time", "v1=" + "0" * 64),
        ("no signature", f"t={NOW}"),
        ("another scheme only", f"t={NOW},v0=" + "0" * 64),
        ("two times", f"t={NOW},{signed()}"),
        ("a time that is no number", "t=now,v1=" + "0" * 64),
        ("a time in other digits", "t=٣٣,v1=" + "0" * 64),
        ("letters that are not ASCII", f"t={NOW},v1=é"),
        ("another secret", signed(secret="whsec_other")),
        ("another body", signed(b"{}")),
        ("a changed time", signed().replace(str(NOW), str(NOW + 1))),
        ("thousands of signatures", f"t={NOW}" + ",v1=0" * 300),
        ("nine signatures", f"t={NOW}" + ",v1=0" * 9),
    ],
)
def test_whatever_is_not_signed_by_us_is_refused_without_telling_the_secret(name, header):
    with pytest.raises(BadSignature) as refused:
        verify(header, BODY, (SECRET,), now=NOW)
    assert SECRET not in str(refused.value), name


@pytest.mark.parametrize("apart", [-301, 301, 86_400, -86_400])
def test_a_copy_that_is_too_old_or_from_the_future_is_refused(apart):
    assert not accepted(signed(at=NOW + apart))
    assert accepted(signed(at=NOW + (300 if apart > 0 else -300)))


def test_while_a_secret_is_rolled_both_are_good_on_either_side():
    both = f"{signed()},{signed(secret='whsec_second').partition(',')[2]}"
    for secrets in ((SECRET,), ("whsec_second",), ("whsec_second", SECRET), ("whsec_other", SECRET)):
        assert accepted(both, secrets=secrets)
    assert accepted(signed(), secrets=("whsec_second", SECRET))
    assert not accepted(signed(), secrets=("whsec_second", "whsec_third"))


def test_several_secrets_stand_in_one_setting(settings_from):
    assert settings_from(stripe_webhook_secret="").stripe_webhook_secrets == ()
    assert settings_from(stripe_webhook_secret=" whsec_a, whsec_b ,").stripe_webhook_secrets == ("whsec_a", "whsec_b")


# --- what is read of an event --------------------------------------------------------------------------------------


def event(about: object, **changes: object) -> bytes:
    document = {"id": "evt_1", "object": "event", "type": "payment_intent.succeeded", "created": NOW, "livemode": False}
    return json.dumps({**document, "data": {"object": about}, **changes}).encode()


def test_only_ids_are_read_of_a_payment_intent():
    found = parse(event({"id": "pi_1", "object": "payment_intent", "metadata": {"effect_id": EFFECT.upper()}}))
    assert (found.object_id, found.object_type, found.payment_intent) == ("pi_1", "payment_intent", "pi_1")
    assert (found.effect_id, found.at) == (EFFECT, datetime.fromtimestamp(NOW, UTC))
    assert found.livemode is False


@pytest.mark.parametrize("intent", ["pi_1", {"id": "pi_1", "object": "payment_intent"}])
def test_the_intent_of_a_charge_or_refund_is_found_expanded_or_not(intent):
    found = parse(event({"id": "re_1", "object": "refund", "payment_intent": intent}))
    assert (found.object_id, found.payment_intent, found.effect_id) == ("re_1", "pi_1", None)


@pytest.mark.parametrize("metadata", [None, [], {"effect_id": 7}, {"effect_id": "order 17"}, {"order": "17"}])
def test_metadata_that_names_no_effect_is_nobodys(metadata):
    assert parse(event({"id": "pi_1", "object": "payment_intent", "metadata": metadata})).effect_id is None


def test_an_object_without_an_id_is_an_event_all_the_same():
    found = parse(event({"object": "balance"}, livemode=True))
    assert (found.object_id, found.object_type, found.payment_intent, found.livemode) == ("", "balance", None, True)
    assert parse(event("nothing")).object_type == ""
    assert parse(event({"id": "pi_\u0000", "object": "payment_intent"})).object_id == ""


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"nonsense",
        b"\xff",
        b"[]",
        b"[" * 100_000,
        b'{"object": "list"}',
        event({}, id=None),
        event({}, id="evt 1"),
        event({}, type=""),
        event({}, created="now"),
        event({}, created=True),
        event({}, created=10**15),
    ],
)
def test_what_is_no_event_is_refused_without_being_quoted(body):
    with pytest.raises(NotAnEvent) as refused:
        parse(body)
    assert len(str(refused.value)) < 60
