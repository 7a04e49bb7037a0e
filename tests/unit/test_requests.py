"""What a charge and an e-mail may say: strict types, Stripe's limits, no card numbers, no second header line."""

from __future__ import annotations

from typing import NotRequired, get_origin, get_type_hints

import pytest

from service.core.effect import Policy
from service.core.errors import ValidationError
from tasks import charge, email
from tasks.arguments import CancelArguments, CaptureArguments, ChargeArguments, EmailArguments, RefundArguments
from tasks.authorisations import CancelRequest, CaptureRequest
from tasks.mail import EmailRequest
from tasks.payments import ChargeRequest
from tasks.refunds import RefundRequest

PAY = {"amount": 4200, "currency": "eur", "payment_method": "pm_1"}
MAIL = {"to": "ada@example.test", "subject": "Hello", "text": "Hello Ada"}
KEY = "order:seventeen"
CARD = "4242424242424242"


def request_of(task, **changes):
    base = PAY if task is charge else MAIL
    kwargs = {name: value for name, value in {**base, **changes}.items() if value is not ...}
    return task.order(None, kwargs, dedupe_key=KEY).request


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("amount", True),
        ("amount", 42.0),
        ("amount", "4200"),
        ("amount", None),
        ("amount", 0),
        ("amount", -1),
        ("amount", 100_000_000),
        ("amount", ...),
        ("currency", "EUR"),
        ("currency", "euro"),
        ("currency", None),
        ("currency", 978),
        ("currency", ...),
        ("payment_method", ...),
        ("payment_method", "cus_1"),
        ("payment_method", "pm 1"),
        ("payment_method", "pm_1\n"),
        ("payment_method", "pm_1/../x"),
        ("payment_method", "pm_"),
        ("payment_method", 7),
        ("customer", "pm_1"),
        ("customer", ""),
        ("customer", "cus_1?expand=x"),
        ("receipt_email", "ada"),
        ("receipt_email", "Ada <ada@example.test>"),
        ("receipt_email", "a@b.test, c@d.test"),
        ("receipt_email", "ada@example.test\nBcc: eve@example.test"),
        ("description", ""),
        ("description", "x" * 1001),
        ("description", 5),
        ("statement_descriptor_suffix", "x" * 23),
        ("statement_descriptor_suffix", "Ü"),
        ("metadata", {"a": 1}),
        ("metadata", {"": "x"}),
        ("metadata", {"k" * 41: "x"}),
        ("metadata", {"k": "x" * 501}),
        ("metadata", {str(i): "x" for i in range(41)}),
        ("metadata", {"effect_id": "x"}),
        ("metadata", "k=v"),
        ("off_session", "yes"),
        ("off_session", 1),
        ("capture_method", "automatic_async"),
        ("capture_method", None),
        ("metadata", {"capture_effect_id": "x"}),
        ("card", "x"),
    ],
)
def test_a_charge_refuses_by_name(field, value):
    with pytest.raises(ValidationError) as caught:
        request_of(charge, **{field: value})
    assert (caught.value.field or "").startswith(field), caught.value
    assert caught.value.code == "invalid_request"


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("to", ...),
        ("to", ""),
        ("to", "ada"),
        ("to", "a@b.test,c@d.test"),
        ("to", ["a@b.test"]),
        ("to", "ada@example.test\r\nBcc: eve@example.test"),
        ("to", "ada@example.test\n"),
        ("to", f"{'a' * 64}@{'b' * 200}.test"),
        ("subject", ""),
        ("subject", "Hello\nBcc: eve@example.test"),
        ("subject", "Hello\rBcc: eve@example.test"),
        ("subject", "Hello\u2028Bcc: eve@example.test"),
        ("subject", "Hello\x00"),
        ("subject", "x" * 201),
        ("text", ""),
        ("text", ...),
        ("text", b"bytes"),
        ("text", "x" * (256 * 1024 + 1)),
        ("html", ""),
        ("sender", "Shop <shop@example.test>"),
        ("sender", "shop@example.test\nX: y"),
        ("policy", "perhaps"),
        ("cc", "eve@example.test"),
    ],
)
def test_an_email_refuses_by_name(field, value):
    with pytest.raises(ValidationError) as caught:
        request_of(email, **{field: value})
    assert (caught.value.field or "").removeprefix("kwargs.").startswith(field), caught.value


@pytest.mark.parametrize(
    ("task", "changes", "field"),
    [
        (charge, {"description": f"card {CARD}"}, "description"),
        (charge, {"description": "4242-4242-4242-4242"}, "description"),
        (charge, {"metadata": {"note": CARD}}, "metadata.note"),
        (charge, {"metadata": {CARD: "note"}}, "metadata"),
        (charge, {"payment_method": f"pm_{CARD}"}, "payment_method"),
        (charge, {"customer": f"cus_{CARD}"}, "customer"),
        (charge, {"receipt_email": f"{CARD}@example.test"}, "receipt_email"),
        (charge, {"amount": int(CARD)}, "amount"),
        (charge, {"statement_descriptor_suffix": CARD}, "statement_descriptor_suffix"),
        (charge, {"card": CARD}, "card"),
        (email, {"text": f"Your card {CARD}"}, "text"),
        (email, {"html": f"<b>{CARD}</b>"}, "html"),
        (email, {"subject": CARD}, "subject"),
        (email, {"to": f"{CARD}@example.test"}, "to"),
    ],
)
def test_a_card_number_is_refused_in_every_field_and_never_repeated(task, changes, field):
    with pytest.raises(ValidationError, match="card number") as caught:
        request_of(task, **changes)
    assert caught.value.field == f"kwargs.{field}"
    assert "4242" not in str(caught.value)


@pytest.mark.parametrize("task", [charge, email])
def test_a_card_number_is_no_dedupe_key(task):
    with pytest.raises(ValidationError, match="card number"):
        task.order(None, PAY if task is charge else MAIL, dedupe_key=f"order:{CARD}")


@pytest.mark.parametrize(
    ("task", "changes"),
    [
        (charge, {"description": "a\x00b"}),
        (charge, {"description": "\ud800"}),
        (charge, {"metadata": {"note": "a\x00b"}}),
        (charge, {"metadata": {"a\x00b": "note"}}),
        (charge, {"metadata": {"note": "\udfff"}}),
        (email, {"text": "a\x00b"}),
        (email, {"text": "\ud800"}),
        (email, {"html": "<p>\x00</p>"}),
    ],
)
def test_text_that_postgres_cannot_hold_is_refused_before_it_breaks_the_callers_transaction(task, changes):
    with pytest.raises(ValidationError) as caught:
        request_of(task, **changes)
    assert next(iter(changes)) in (caught.value.field or "")


def test_the_limits_themselves_are_taken():
    request_of(charge, amount=99_999_999, description="x" * 1000, statement_descriptor_suffix="x" * 22)
    request_of(charge, metadata={f"k{i}": "x" * 500 for i in range(40)})
    request_of(email, subject="x" * 200, text="x" * (256 * 1024))


def test_what_is_given_is_frozen_as_given():
    request = request_of(charge, customer="cus_1", receipt_email="ada@example.test", description="Order 17 – Bücher")
    assert request == {
        "amount": 4200,
        "currency": "eur",
        "payment_method": "pm_1",
        "customer": "cus_1",
        "receipt_email": "ada@example.test",
        "description": "Order 17 – Bücher",
        "metadata": {},
        "off_session": True,
    }


@pytest.mark.parametrize("policy", list(Policy))
def test_a_letter_chooses_its_policy(policy):
    order = email.order(None, {**MAIL, "policy": policy.value}, dedupe_key=KEY)
    assert order.policy is policy
    assert (order.amount, order.currency) == (None, None)


def test_nothing_but_a_charge_moves_money():
    assert charge.order(None, PAY, dedupe_key=KEY).amount == 4200
    assert charge.order(None, PAY, dedupe_key=KEY).policy is Policy.AT_MOST_ONCE


@pytest.mark.parametrize("kwargs", [None, {}])
def test_an_empty_request_names_what_is_missing(kwargs):
    with pytest.raises(ValidationError) as caught:
        charge.order(None, kwargs, dedupe_key=KEY)
    assert caught.value.field in {"amount", "currency", "payment_method"}


@pytest.mark.parametrize(
    ("model", "arguments"),
    [
        (ChargeRequest, ChargeArguments),
        (EmailRequest, EmailArguments),
        (RefundRequest, RefundArguments),
        (CaptureRequest, CaptureArguments),
        (CancelRequest, CancelArguments),
    ],
)
def test_what_editors_know_of_a_call_is_what_is_checked(model, arguments):
    assert set(model.model_fields) == set(arguments.__annotations__)
    needed = {name for name, field in model.model_fields.items() if field.is_required()}
    hints = get_type_hints(arguments, include_extras=True)
    assert needed == {name for name, hint in hints.items() if get_origin(hint) is not NotRequired}
