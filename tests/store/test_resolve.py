"""A person settles what is stuck: with reason and evidence, after the provider was asked, guarded, and on the record."""

from __future__ import annotations

import pytest
from psycopg.types.json import Jsonb

from service.core.errors import EffectNotFound, ValidationError
from service.core.outcome import Absent, Awaiting, Contradiction, Deferred, Failed, Succeeded, Unknown
from service.core.state import State
from service.engine.resolve import As, Ending, Wish, objects, resolve
from tests.store.asked import AskedProvider, kind_of, made, open_breaks, quiet
from tests.store.books import order
from tests.store.replays import replay

YES = Succeeded("pi_1", {"charge": "ch_1"})
NO = Failed("card_declined", "Your card was declined.", {"code": "card_declined"})
LATER = Awaiting("processing", "pi_1")
SILENT = Unknown("not_found")
ABSENT = "absent"


def wish(as_: As = As.SUCCEEDED, **changes) -> Wish:
    return Wish(as_, **{"reason": "INC-42", "evidence": "seen in the dashboard", **changes})


def resolved(effect_id, wanted, says=SILENT, **more):
    return resolve(kind_of(AskedProvider(says, **more)), effect_id, wanted, actor="cli:ada", seconds=5.0)


def journalled(books, effect_id):
    [row] = books.rows("select * from journal where effect_id = %s and fact = 'resolved'", effect_id)
    return row


@pytest.mark.parametrize("state", [State.UNKNOWN, State.PARKED])
def test_a_person_may_say_that_it_succeeded_and_its_receipt_follows_in_the_same_commit(books, state):
    effect_id = made(books, state)
    done = resolved(effect_id, wish(ref="pi_9"))
    assert (done.ending, done.before, done.state) == (Ending.RESOLVED, state, State.SUCCEEDED)
    assert books.effect(effect_id)["provider_ref"] == "pi_9"
    assert books.effect(effect_id)["outcome"] == {"payment_intent": "pi_9", "resolved": True}
    assert [str(r["id"]) for r in books.rows("select id from effects where caused_by = %s", effect_id)] == list(
        done.caused
    )
    assert books.facts(effect_id)[-2:] == ["resolved", "succeeded"]
    row = journalled(books, effect_id)
    assert row["actor"] == "cli:ada"
    assert row["evidence"] == {
        "as": "succeeded", "reason": "INC-42", "evidence": "seen in the dashboard", "answer": "not_found", "ref": "pi_9",
    }  # fmt: skip
    assert open_breaks(books) == []


@pytest.mark.parametrize("state", [State.UNKNOWN, State.PARKED])
def test_a_person_may_say_that_it_failed(books, state):
    effect_id = quiet(books, made(books, state))
    assert resolved(effect_id, wish(As.FAILED)).state is State.FAILED
    assert books.effect(effect_id)["outcome"]["code"] == "resolved_as_failed"
    assert books.count("effects") == 1


@pytest.mark.parametrize("reason", ["not_found", "not_confirmed", "cannot_be_asked"])
def test_i5_nobody_may_call_it_failed_while_the_last_request_may_still_land(books, reason):
    effect_id = made(books, State.UNKNOWN)
    said = resolved(effect_id, wish(As.FAILED), says=Unknown(reason))
    assert (said.ending, said.state) == (Ending.REFUSED, State.UNKNOWN)
    assert "may still land; look again in" in said.why
    insisted = resolved(effect_id, wish(As.FAILED, against_provider=True), says=Unknown(reason))
    assert insisted.state is State.FAILED
    assert [row[0] for row in open_breaks(books)] == ["against_provider"]


def test_i5_nobody_may_call_it_failed_while_the_provider_may_repair_its_own_500(books):
    effect_id = quiet(books, made(books, State.UNKNOWN))
    told = Jsonb({"step": "confirm", "status": 500})
    books.run("insert into journal (effect_id, fact, attempt, actor, evidence) values (%s, 'unknown', 1, 'w', %s)",
              effect_id, told)  # fmt: skip
    said = resolved(effect_id, wish(As.FAILED), says=Unknown("not_confirmed"))
    assert (said.ending, said.state) == (Ending.REFUSED, State.UNKNOWN)
    assert "look again in 13" in said.why  # of the 1,440 minutes of a day, less than two hours are over


def test_what_was_noted_of_an_old_doubt_does_not_park_a_letter_that_is_sent_anew(books):
    effect_id = made(books, State.PARKED, reason=ABSENT)
    noted = {"unanswered": 1, "missed_at_age_seconds": 80000.0, "payment_intent": "pi_1"}
    books.run("update effects set progress = %s where id = %s", Jsonb(noted), effect_id)
    resolved(effect_id, wish(As.PENDING))
    assert books.effect(effect_id)["progress"] == {"payment_intent": "pi_1"}


def test_without_a_reference_none_is_stored(books):
    effect_id = made(books, State.PARKED)
    resolved(effect_id, wish())
    assert books.effect(effect_id)["provider_ref"] is None


def test_the_providers_own_outcome_is_what_gets_written_where_it_has_one(books):
    won, lost = made(books, State.PARKED), made(books, State.PARKED)
    resolved(won, wish(), YES)
    resolved(lost, wish(As.FAILED), NO)
    assert (books.effect(won)["provider_ref"], books.effect(won)["outcome"]) == ("pi_1", {"charge": "ch_1"})
    assert books.effect(lost)["outcome"]["code"] == "card_declined"


# --- the provider's word --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("as_", "says", "contradicts"),
    [
        (As.SUCCEEDED, YES, False),
        (As.SUCCEEDED, NO, True),
        (As.SUCCEEDED, LATER, True),
        (As.SUCCEEDED, Absent("absent"), True),
        (As.SUCCEEDED, Unknown("not_confirmed"), True),
        (As.SUCCEEDED, Unknown("hint_refused"), True),
        (As.SUCCEEDED, Contradiction("echo_mismatch"), True),
        (As.SUCCEEDED, Deferred("rate_limited"), True),
        (As.SUCCEEDED, SILENT, False),
        (As.SUCCEEDED, Unknown("cannot_be_asked"), False),
        (As.FAILED, YES, True),
        (As.FAILED, LATER, True),
        (As.FAILED, NO, False),
        (As.FAILED, Absent("absent"), False),
        (As.FAILED, Unknown("not_confirmed"), False),
        (As.FAILED, SILENT, False),
        (As.PENDING, YES, True),
        (As.PENDING, NO, True),
        (As.PENDING, LATER, True),
        (As.PENDING, SILENT, False),
    ],
)
def test_when_the_provider_contradicts(as_, says, contradicts):
    assert (objects(wish(as_), None, says) is not None) is contradicts


def test_another_reference_than_the_providers_or_ours_is_a_contradiction():
    assert "pi_1" in (objects(wish(ref="pi_9"), None, YES) or "")
    assert "pi_7" in (objects(wish(ref="pi_9"), "pi_7", SILENT) or "")
    assert objects(wish(ref="pi_7"), "pi_7", SILENT) is None


def test_what_the_provider_contradicts_is_not_written(books):
    effect_id = made(books, State.PARKED)
    facts = books.facts(effect_id)
    done = resolved(effect_id, wish(As.FAILED), YES)
    assert (done.ending, done.state, done.why) == (Ending.REFUSED, State.PARKED, "the provider has it as pi_1")
    assert resolved(effect_id, wish(), Deferred("rate_limited")).ending is Ending.NO_ANSWER
    assert books.facts(effect_id) == facts


def test_a_person_who_insists_opens_a_break(books):
    effect_id = made(books, State.PARKED)
    done = resolved(effect_id, wish(As.FAILED, against_provider=True), YES)
    assert (done.ending, done.state) == (Ending.RESOLVED, State.FAILED)
    assert open_breaks(books) == [("against_provider", effect_id)]
    assert journalled(books, effect_id)["evidence"]["against_provider"] == "the provider has it as pi_1"


def test_insisting_without_need_opens_none(books):
    effect_id = made(books, State.PARKED)
    resolved(effect_id, wish(against_provider=True), YES)
    assert open_breaks(books) == []


def test_a_reference_is_what_the_provider_is_asked_for(books):
    provider = AskedProvider(YES)
    resolve(kind_of(provider), made(books, State.PARKED), wish(ref="pi_1"), actor="t", seconds=1.0)
    assert provider.seen[0].progress["payment_intent"] == "pi_1"


# --- back to pending ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("as_", "state"), [(As.PENDING, State.UNKNOWN), (As.PENDING, State.PARKED)])
def test_nobody_may_send_again_what_may_have_been_sent(books, as_, state):
    effect_id = made(books, state)
    done = resolved(effect_id, wish(as_))
    assert done.ending is Ending.REFUSED
    assert "absence is not proven" in done.why
    assert books.effect(effect_id)["in_doubt"]


def test_with_absence_on_record_it_is_sent_again_under_the_same_keys(books):
    effect_id = made(books, State.PARKED, reason=ABSENT)
    done = resolved(effect_id, wish(As.PENDING))
    assert (done.ending, done.state) == (Ending.RESOLVED, State.PENDING)
    effect = books.effect(effect_id)
    assert (effect["state"], effect["in_doubt"], effect["budget_from"]) == ("pending", False, 1)
    assert books.facts(effect_id)[-1] == "resolved"
    [again] = books.claim(effect_id)
    assert (again.number, again.prior, again.in_doubt, again.tries) == (2, State.PENDING, False, 1)


def test_what_was_provably_never_sent_may_be_sent(books):
    effect_id = made(books, State.PARKED)
    books.run("update effects set in_doubt = false where id = %s", effect_id)
    assert resolved(effect_id, wish(As.PENDING)).state is State.PENDING


def test_absence_is_not_enough_when_the_provider_has_it_after_all(books):
    effect_id = made(books, State.PARKED, reason=ABSENT)
    assert resolved(effect_id, wish(As.PENDING), YES).ending is Ending.REFUSED
    with pytest.raises(ValidationError, match="send again"):
        resolved(effect_id, wish(As.PENDING, against_provider=True), YES)


# --- the guard ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("state", [s for s in State if s not in (State.UNKNOWN, State.PARKED)])
def test_nothing_else_is_ever_touched(books, state):
    effect_id = made(books, state)
    before = books.effect(effect_id)
    done = resolved(effect_id, wish(), AssertionError())
    assert (done.ending, done.state) == (Ending.REFUSED, state)
    assert books.effect(effect_id) == before


def test_whoever_claims_meanwhile_wins(books):
    effect_id = made(books, State.UNKNOWN)

    def claimed():
        books.make_due(effect_id)
        assert books.claim(effect_id)

    done = resolved(effect_id, wish(), meanwhile=claimed)
    assert (done.ending, books.effect(effect_id)["state"]) == (Ending.REFUSED, "executing")
    assert "resolved" not in books.facts(effect_id)


def test_a_replay_meanwhile_wins_as_well(books):
    effect_id = made(books, State.PARKED)
    done = resolved(effect_id, wish(), meanwhile=lambda: replay(effect_id, reason="INC-41"))
    assert (done.ending, books.effect(effect_id)["state"]) == (Ending.REFUSED, "pending")


def test_two_people_settle_it_once(books):
    effect_id = quiet(books, made(books, State.PARKED))
    first = resolved(effect_id, wish(), meanwhile=lambda: resolved(effect_id, wish(As.FAILED)))
    assert (first.ending, books.effect(effect_id)["state"]) == (Ending.REFUSED, "failed")
    assert books.count("effects") == 1


# --- what a person must say -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"reason": " "}, "reason"),
        ({"evidence": ""}, "evidence"),
        ({"reason": "x" * 2001}, "reason"),
        ({"evidence": "\x00"}, "evidence.evidence"),
        ({"ref": "pi_\n1"}, "ref"),
        ({"as_": As.FAILED, "ref": "pi_1"}, "ref"),
    ],
)
def test_reason_and_evidence_are_needed_and_a_reference_fits(changes, field):
    with pytest.raises(ValidationError) as refused:
        resolved("01890000-0000-7000-8000-000000000000", wish(**changes))
    assert refused.value.field == field


def test_what_does_not_exist_or_is_of_another_kind_is_said(books):
    with pytest.raises(EffectNotFound):
        resolved("01890000-0000-7000-8000-000000000000", wish())
    [letter] = books.accept(order("mail", kind="email"))
    with pytest.raises(ValidationError, match="email"):
        resolved(letter, wish())
