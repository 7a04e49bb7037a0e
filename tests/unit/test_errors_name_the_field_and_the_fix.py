"""What a caller reads when a call is refused is one sentence that names the field and the fix; it is part of the contract."""

from __future__ import annotations

import pytest

from service.core.card import looks_like_card_number, refuse_card_numbers
from service.core.errors import DedupeConflict, Quarantined, ValidationError
from service.core.keys import check_dedupe_key, check_name, fingerprint
from service.core.money import check_money
from service.core.text import refuse_unstorable_text

VISA = "4242424242424242"
SENTENCES = [
    (
        lambda: check_dedupe_key(None),
        "dedupe_key",
        "dedupe_key is required: pass dedupe_key='order:17:charge', this effect's name, the same on every try",
    ),
    (lambda: check_dedupe_key(17), "dedupe_key", "dedupe_key must be a string, not int"),
    (lambda: check_dedupe_key("k" * 256), "dedupe_key", "dedupe_key has 256 characters; the limit is 255"),
    (lambda: check_dedupe_key("a key"), "dedupe_key", "dedupe_key may hold printable ASCII without spaces only"),
    (
        lambda: check_dedupe_key(f"card:{VISA}"),
        "dedupe_key",
        "dedupe_key holds what looks like a card number; send the provider's token (pm_…) instead",
    ),
    (
        lambda: refuse_card_numbers({"note": ["fine", VISA]}, field="kwargs"),
        "kwargs.note",
        "kwargs.note holds what looks like a card number; send the provider's token (pm_…) instead",
    ),
    (
        lambda: check_name("a lane", field="queue"),
        "queue",
        "queue must be 1 to 63 letters, digits or _.:- and start with a letter or digit",
    ),
    (
        lambda: check_money(True, "eur"),
        "amount",
        "amount must be an integer of minor units (4200 is 42.00 eur), not bool",
    ),
    (
        lambda: check_money("42", "eur"),
        "amount",
        "amount must be an integer of minor units (4200 is 42.00 eur), not str",
    ),
    (lambda: check_money(0, "eur"), "amount", "amount must be positive, not 0"),
    (lambda: check_money(10**8, "eur"), "amount", "amount 100000000 is over the limit of 99999999 minor units"),
    (lambda: check_money(1, 978), "currency", "currency must be a lowercase ISO-4217 code, not int"),
    (lambda: check_money(1, "EUR"), "currency", "currency 'EUR' is not a lowercase ISO-4217 code; write 'eur'"),
    (lambda: check_money(1, "xts"), "currency", "currency 'xts' is not a lowercase ISO-4217 code"),
    (lambda: check_money(1, "doubloons"), "currency", "currency 'doubloon' is not a lowercase ISO-4217 code"),
    (
        lambda: refuse_unstorable_text({"a": [{"b": "nul\x00"}]}, field="kwargs"),
        "kwargs.a.b",
        "kwargs.a.b holds a NUL character or an unpaired surrogate; remove it",
    ),
]


@pytest.mark.parametrize(("call", "field", "sentence"), SENTENCES, ids=[row[2][:40] for row in SENTENCES])
def test_a_refusal_is_one_sentence_with_its_field(call, field, sentence):
    with pytest.raises(ValidationError) as refused:
        call()
    assert (refused.value.field, refused.value.message, str(refused.value)) == (field, sentence, sentence)


def test_a_conflict_names_the_effect_that_stands():
    conflict = DedupeConflict("used before", effect_id="0198c0de")
    assert (conflict.field, conflict.effect_id, conflict.message) == ("dedupe_key", "0198c0de", "used before")


def test_a_quarantine_says_why_and_which_command_ends_it():
    closed = Quarantined("a replica was promoted")
    assert closed.reason == "a replica was promoted"
    assert closed.message == "quarantined: a replica was promoted; run `counterfoil recover`"


@pytest.mark.parametrize("currency", ["isk", "ugx"])
@pytest.mark.parametrize("whole", [100, 4200])
def test_whole_amounts_of_currencies_without_a_minor_unit_are_taken(currency, whole):
    check_money(whole, currency)


# --- what is no sentence -------------------------------------------------------------------------------------------


def test_the_fingerprint_of_a_request_is_the_same_in_every_release():
    """Kept for ever beside the key: a release that computed another one would refuse every repeat (I4)."""
    request = {"amount": 4200, "description": "Bücher für Ada, 42 €", "metadata": {"b": "2", "a": "1"}}
    assert fingerprint("charge", request) == "83c7f8a5c7ae29cbe7ac219e907d12842a3470220b14632641924c8e9ffc2b3a"


def test_a_number_that_is_none_has_no_fingerprint():
    with pytest.raises(ValueError, match="JSON"):
        fingerprint("charge", {"amount": float("nan")})


@pytest.mark.parametrize("value", [True, False, None])
def test_a_flag_is_no_card_number(value):
    refuse_card_numbers({"flag": value}, field="kwargs")


def test_digits_on_both_sides_of_an_identifier_are_not_read_as_one_number():
    half, rest = VISA[:8], VISA[8:]
    for identifier in ("0198c0de-0000-7000-8000-000000000001", "abcdefabcdefabcdefabcdefabcd"):
        assert not looks_like_card_number(f"{half}{identifier}{rest}")
        assert not looks_like_card_number(f"{half} {identifier} {rest}")
        assert looks_like_card_number(f"{identifier} {VISA}")
