"""Every kind of effect × every fault × both sides of the horizon: each ends as its row says, at the provider's ledger.

Columns F1 to F10: close before read, 429, 409 in progress, stored 500 without effect, stored 500 with effect, unstored
502, effect then reset, effect then hang, effect then half an answer, effect then a dripping answer (over SMTP: the
same troubles as its phases know them, see `stage.SMTP_FAULTS`). Rows: what is disturbed, and whether the answer is
asked for again at once (+0 h) or only when the provider has forgotten the key (+25 h).

    ok1      succeeded, once at the provider          lost0/lost1  parked: the key has expired and nobody can be asked
    unkn0    unknown, in sight, and not done          absent0      parked for a person: looked for twice, not there
    blind0/1 parked: blind, and may have been sent    ok2*         succeeded; two copies, flagged as possible duplicate
"""

from __future__ import annotations

from collections.abc import Callable

import pytest
from psycopg.types.json import Jsonb

from tests.faults.stage import SUBJECTS, End, Stage

TABLE = """
                F1       F2   F3   F4       F5      F6       F7      F8      F9      F10
create      +0  ok1      ok1  ok1  unkn0    ok1     ok1      ok1     ok1     ok1     ok1
create      +25 ok1      ok1  ok1  ok1      ok1     ok1      ok1     ok1     ok1     ok1
confirm     +0  ok1      ok1  ok1  unkn0    ok1     ok1      ok1     ok1     ok1     ok1
confirm     +25 ok1      ok1  ok1  ok1      ok1     ok1      ok1     ok1     ok1     ok1
refund      +0  ok1      ok1  ok1  unkn0    ok1     ok1      ok1     ok1     ok1     ok1
refund      +25 absent0  ok1  ok1  absent0  ok1     absent0  ok1     ok1     ok1     ok1
capture     +0  ok1      ok1  ok1  unkn0    ok1     ok1      ok1     ok1     ok1     ok1
capture     +25 ok1      ok1  ok1  ok1      ok1     ok1      ok1     ok1     ok1     ok1
keyed       +0  ok1      ok1  ok1  unkn0    unkn1   ok1      ok1     ok1     ok1     ok1
keyed       +25 lost0    ok1  ok1  lost0    lost1   lost0    lost1   lost1   lost1   lost1
blind_once  +0  ok1      ok1  ok1  ok1      blind0  ok1      blind1  blind1  ok1     ok1
blind_once  +25 ok1      ok1  ok1  ok1      blind0  ok1      blind1  blind1  ok1     ok1
blind_again +0  ok1      ok1  ok1  ok1      ok1     ok1      ok2*    ok2*    ok1     ok1
blind_again +25 ok1      ok1  ok1  ok1      ok1     ok1      ok2*    ok2*    ok1     ok1
"""
ENDS = {
    "ok1": End("succeeded", 1),
    "ok2*": End("succeeded", 2, flagged=True),
    "unkn0": End("unknown", 0),
    "unkn1": End("unknown", 1),
    "lost0": End("parked", 0, "key_expired"),
    "lost1": End("parked", 1, "key_expired"),
    "absent0": End("parked", 0, "absent"),
    "blind0": End("parked", 0, "no_answer"),
    "blind1": End("parked", 1, "no_answer"),
}


def rows() -> list[tuple[str, int, str, str]]:
    head, *lines = TABLE.strip().splitlines()
    faults = head.split()
    return [
        (subject, int(hours), fault, end)
        for subject, hours, *ends in (line.split() for line in lines)
        for fault, end in zip(faults, ends, strict=True)
    ]


@pytest.mark.parametrize(("subject", "hours", "fault", "end"), rows(), ids=str)
def test_it_ends_as_the_table_says(stage: Stage, subject, hours, fault, end):
    effect_id, found = stage.play(SUBJECTS[subject], fault, hours)
    expected = ENDS[end]
    # `blind_again` may need no second copy to be flagged: what is flagged is only asked where copies exist.
    assert (found.state, found.done, found.reason) == (expected.state, expected.done, expected.reason)
    assert found.flagged == expected.flagged or subject == "blind_again"
    in_sight(stage, effect_id, found)


def in_sight(stage: Stage, effect_id: str, found: End) -> None:
    """I2: what is not final has a fact that says why, a reason, and a moment when it is looked at again."""
    duty = stage.books.duty(effect_id)
    assert (duty is None) == (found.state in ("succeeded", "failed"))
    if duty:
        assert duty["last_error"]
        assert duty["road"] == ("parked" if found.state == "parked" else "later")
        assert found.state in stage.books.facts(effect_id)


def test_the_matrix_is_whole():
    assert len(rows()) == len(SUBJECTS) * 10 * 2
    print(f"fault matrix: {len(rows())} ends")


def altered_under_its_key(stage: Stage) -> End:
    """A refund whose answer was lost, and whose frozen request was changed by hand before it is sent again."""
    refund = SUBJECTS["refund"]
    effect_id = stage.accept(refund)
    stage.disturb(refund, effect_id, "F7")
    stage.perform(effect_id, refund)
    stage.alter(effect_id, request=Jsonb({**stage.books.effect(effect_id)["request"], "amount": 1100}), amount=1100)
    stage.perform(effect_id, refund)
    return stage.end(effect_id, refund)


def late_repair(stage: Stage) -> End:
    """Stripe answers 500 without effect, and rolls the refund forward a day later: after a first look, before a second."""
    refund = SUBJECTS["refund"]
    effect_id = stage.accept(refund)
    fault = {"action": "status_500_stored_before", "then": "roll_forward", "seconds": 26 * 3600.0}
    stage.stripe.fault(times=1, route="refund", key=effect_id, **fault)
    stage.perform(effect_id, refund)
    stage.age(effect_id, 25)
    stage.perform(effect_id, refund)
    stage.settle(effect_id, refund, hours_between=2.0)
    stage.age(effect_id, 2)  # by now it has happened, whatever we believe
    return stage.end(effect_id, refund)


def front_answer_after_doubt(stage: Stage) -> End:
    """The answer of a refund is lost, the next try meets a 429, and the one after it a forgotten key."""
    refund = SUBJECTS["refund"]
    effect_id = stage.accept(refund)
    for fault in ("F7", "F2"):
        stage.disturb(refund, effect_id, fault)
        stage.perform(effect_id, refund)
    stage.age(effect_id, 25)
    stage.settle(effect_id, refund, hours_between=2.0)
    return stage.end(effect_id, refund)


STORIES: dict[str, tuple[Callable[[Stage], End], End]] = {
    "altered_under_its_key": (altered_under_its_key, End("parked", 1, "idempotency_error")),
    "late_repair": (late_repair, End("succeeded", 1)),
    "front_answer_after_doubt": (front_answer_after_doubt, End("succeeded", 1)),
}


@pytest.mark.parametrize("story", STORIES)
def test_a_longer_story_ends_well(stage: Stage, story):
    play, end = STORIES[story]
    assert play(stage) == end
