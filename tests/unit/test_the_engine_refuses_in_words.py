"""What a person at a terminal reads when the engine refuses a wish: one sentence with its field and the way on."""

from __future__ import annotations

import pytest

from service.core.errors import ValidationError
from service.core.operation import Selection, Verb
from service.core.state import State
from service.engine import operations, resolve
from service.engine.resolve import As, Wish

LONG = "x" * (resolve.TEXT_LENGTH_MAX + 1)


def wish(as_: As = As.SUCCEEDED, **changes) -> Wish:
    return Wish(as_, **{"reason": "INC-42", "evidence": "seen", **changes})


def planned(**selectors):
    return lambda: operations.plan(Verb.REPLAY, Selection(**selectors), actor="ada")


REFUSALS = [
    (
        planned(),
        "selection",
        "say which effects: --id, --state parked, --group, --older-than …; there is no 'everything'",
    ),
    (planned(state=State.FAILED), "state", "only parked, unknown, stuck effects can be selected by state"),
    (planned(state=State.PARKED, limit=0), "limit", "the limit is 1 to 10000"),
    (planned(state=State.PARKED, limit=10_001), "limit", "the limit is 1 to 10000"),
    (
        lambda: operations.start("x", reason=" ", actor="ada", door="cli"),
        "reason",
        "a reason of 1 to 500 characters is needed; it is kept in the journal of every effect",
    ),
    (lambda: resolve.check(wish(reason=" ")), "reason", "--reason is needed; it is kept in the journal"),
    (lambda: resolve.check(wish(evidence="")), "evidence", "--evidence is needed; it is kept in the journal"),
    (
        lambda: resolve.check(wish(reason=LONG)),
        "reason",
        f"--reason is longer than {resolve.TEXT_LENGTH_MAX} characters",
    ),
    (lambda: resolve.check(wish(As.FAILED, ref="pi_1")), "ref", "a reference belongs to --as succeeded"),
    (lambda: resolve.check(wish(ref="pi 1\n")), "ref", "--ref is the provider's id, like pi_…"),
    (lambda: resolve.check(wish(ref="")), "ref", "--ref is the provider's id, like pi_…"),
    (lambda: resolve.check(wish(ref="é")), "ref", "--ref is the provider's id, like pi_…"),
    (lambda: resolve.check(wish(ref="p" * 256)), "ref", "--ref is the provider's id, like pi_…"),
    (
        lambda: resolve.check(wish(As.PENDING, against_provider=True)),
        "against_provider",
        "nobody may send again against the provider's word",
    ),
    (
        lambda: resolve.check(wish(reason="a\x00b")),
        "reason.reason",
        "reason.reason holds a NUL character or an unpaired surrogate; remove it",
    ),
]


@pytest.mark.parametrize(("call", "field", "sentence"), REFUSALS, ids=[f"{row[1]}: {row[2][:30]}" for row in REFUSALS])
def test_a_refusal_is_one_sentence_with_its_field(call, field, sentence):
    with pytest.raises(ValidationError) as refused:
        call()
    assert (refused.value.field, refused.value.message) == (field, sentence)


@pytest.mark.parametrize(
    "fine",
    [
        wish(),
        wish(ref="p"),
        wish(ref="p" * 255),
        wish(reason="x" * resolve.TEXT_LENGTH_MAX),
        wish(As.FAILED, against_provider=True),
        wish(As.SUCCEEDED, against_provider=True),
        wish(As.PENDING),
    ],
)
def test_what_is_just_within_the_limits_is_taken(fine):
    resolve.check(fine)
