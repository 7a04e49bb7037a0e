"""Verify asks and never sends: outcomes move forward what is open, guarded; what is final is compared, never changed."""

from __future__ import annotations

import pytest

from service.core.errors import DependencyUnavailable, EffectNotFound, ValidationError
from service.core.outcome import Absent, Awaiting, Contradiction, Deferred, Failed, Succeeded, Unknown
from service.core.state import FINAL, State
from service.engine import second_object
from service.engine.judgement import Finding, judge
from service.engine.verify import verify
from service.store import breaks
from service.store.database import transaction
from tests.store.answers import final
from tests.store.asked import AskedProvider, kind_of, made, open_breaks, verified
from tests.store.books import order

YES = Succeeded("pi_1", {"charge": "ch_1"}, {"status": 200})
NO = Failed("card_declined", "Your card was declined.", {"code": "card_declined"}, {"status": 200})
LATER = Awaiting("processing", "pi_1", 60.0, {"status": "processing"})
OPEN = (State.UNKNOWN, State.PARKED, State.AWAITING)


def asked(effect_id, says, *, intent=None, **more):
    provider = AskedProvider(says, **more)
    return verify(kind_of(provider), effect_id, actor="cli:ada", seconds=5.0, intent=intent)


# --- what is open moves forward -------------------------------------------------------------------------------------


@pytest.mark.parametrize("state", OPEN)
def test_a_success_settles_what_was_open_and_causes_its_receipt_in_the_same_commit(books, state):
    effect_id = made(books, state)
    verdict = asked(effect_id, YES)
    assert (verdict.finding, verdict.before, verdict.state) == (Finding.SETTLED, state, State.SUCCEEDED)
    assert books.effect(effect_id)["provider_ref"] == "pi_1"
    assert books.one("select count(*) from effects where caused_by = %s", effect_id) == 1
    assert books.duty(effect_id) is None
    assert books.facts(effect_id)[-2:] == ["verified", "succeeded"]
    told = verified(books, effect_id)
    assert (told["actor"], told["evidence"]["answer"], told["evidence"]["status"]) == ("cli:ada", "succeeded", 200)


@pytest.mark.parametrize("state", OPEN)
def test_a_failure_settles_what_was_open_and_causes_nothing(books, state):
    effect_id = made(books, state)
    assert asked(effect_id, NO).state is State.FAILED
    assert books.effect(effect_id)["outcome"]["code"] == "card_declined"
    assert books.count("effects") == 1


def test_what_the_provider_still_works_on_is_awaited(books):
    unknown, parked, awaiting = (made(books, state) for state in OPEN)
    assert asked(unknown, LATER).state is State.AWAITING
    # A person must let it go on: nothing leads from parked to awaiting.
    found = asked(parked, LATER)
    assert (found.finding, found.reason, found.state) == (
        Finding.UNDECIDED, "awaiting_at_the_provider", State.PARKED,
    )  # fmt: skip
    assert asked(awaiting, LATER).finding is Finding.AGREES


@pytest.mark.parametrize(
    ("says", "finding", "answer"),
    [
        (Unknown("not_found"), Finding.UNDECIDED, "not_found"),
        (Unknown("cannot_be_asked"), Finding.UNDECIDED, "cannot_be_asked"),
        (Unknown("unexpected_status"), Finding.UNDECIDED, "unknown"),
        (Absent("absent"), Finding.UNDECIDED, "absent"),
        (Deferred("rate_limited"), Finding.NO_ANSWER, "deferred"),
        (DependencyUnavailable("Stripe does not answer"), Finding.NO_ANSWER, "deferred"),
        (RuntimeError("our own bug"), Finding.UNDECIDED, "unknown"),
    ],
)
def test_what_proves_nothing_changes_nothing_but_the_journal(books, says, finding, answer):
    for state in OPEN:
        effect_id = made(books, state)
        before, duty = books.effect(effect_id), books.duty(effect_id)
        verdict = asked(effect_id, says)
        assert (verdict.finding, verdict.answer, verdict.state) == (finding, answer, state)
        assert (books.effect(effect_id), books.duty(effect_id)) == (before, duty)
        assert verified(books, effect_id)["evidence"]["answer"] == answer
    assert open_breaks(books) == []


def test_nothing_is_asked_about_what_was_never_sent(books):
    effect_id = made(books, State.PENDING)
    verdict = asked(effect_id, AssertionError())
    assert (verdict.finding, verdict.answer) == (Finding.UNDECIDED, "not_asked")
    assert books.facts(effect_id) == ["accepted"]


def test_a_pending_effect_in_doubt_is_asked_about_and_left_to_its_next_attempt(books):
    effect_id = made(books, State.PARKED)
    books.run("update effects set state = 'pending' where id = %s", effect_id)
    books.run(
        "update outbox set road = 'later', parked_at = null, parked_reason = null where effect_id = %s", effect_id
    )
    books.run("insert into journal (effect_id, fact, attempt, actor) values (%s, 'replayed', 1, 'ada')", effect_id)
    found = asked(effect_id, YES)
    assert (found.finding, found.reason) == (Finding.UNDECIDED, "succeeded_at_the_provider")
    assert books.effect(effect_id)["state"] == "pending"


# --- attempts come first --------------------------------------------------------------------------------------------


def test_while_an_attempt_is_at_work_nobody_asks(books):
    effect_id = made(books, State.EXECUTING)
    verdict = asked(effect_id, AssertionError())
    assert (verdict.finding, verdict.reason) == (Finding.BUSY, "an attempt is at work")
    assert books.facts(effect_id) == ["accepted", "claimed"]


def test_an_attempt_whose_lease_is_over_is_at_work_no_longer(books):
    effect_id = made(books, State.EXECUTING)
    books.end_lease(effect_id)
    assert asked(effect_id, YES).state is State.SUCCEEDED
    assert books.facts(effect_id) == ["accepted", "claimed", "leased_out", "verified", "succeeded"]


def test_a_claim_in_between_wins_and_the_answer_is_only_a_fact(books):
    effect_id = made(books, State.UNKNOWN)

    def claimed():
        books.make_due(effect_id)
        assert books.claim(effect_id)

    verdict = asked(effect_id, YES, meanwhile=claimed)
    assert (verdict.finding, verdict.reason) == (Finding.BUSY, "it moved on while we asked")
    assert books.effect(effect_id)["state"] == "executing"
    assert books.facts(effect_id)[-1] == "late_answer"
    assert books.count("effects") == 1, "no receipt for an answer that settled nothing"


def test_one_who_settles_in_between_is_not_overwritten(books):
    effect_id = made(books, State.UNKNOWN)
    attempt = _standing(effect_id)
    verdict = asked(effect_id, YES, meanwhile=lambda: books.settle(final(attempt, State.FAILED)))
    assert verdict.finding is Finding.BUSY
    assert books.effect(effect_id)["state"] == "failed"


def _standing(effect_id):
    from service.store import attempts

    with transaction() as connection:
        return attempts.standing(connection, effect_id)


# --- what is final is compared --------------------------------------------------------------------------------------

MISMATCH = Contradiction("echo_mismatch")


@pytest.mark.parametrize(
    ("state", "says", "finding", "class_"),
    [
        (State.SUCCEEDED, YES, Finding.AGREES, None),
        (State.SUCCEEDED, Succeeded("pi_other"), Finding.CONTRADICTION, "contradiction"),
        (State.SUCCEEDED, Failed("canceled", "It was canceled"), Finding.CONTRADICTION, "late_contradiction"),
        (State.SUCCEEDED, LATER, Finding.CONTRADICTION, "contradiction"),
        (State.SUCCEEDED, Unknown("not_confirmed"), Finding.CONTRADICTION, "contradiction"),
        (State.SUCCEEDED, Absent("absent"), Finding.CONTRADICTION, "contradiction"),
        (State.SUCCEEDED, MISMATCH, Finding.CONTRADICTION, "contradiction"),
        (State.SUCCEEDED, Unknown("not_found"), Finding.UNDECIDED, None),
        (State.SUCCEEDED, Unknown("cannot_be_asked"), Finding.UNDECIDED, None),
        (State.SUCCEEDED, Deferred("rate_limited"), Finding.NO_ANSWER, None),
        (State.FAILED, YES, Finding.CONTRADICTION, "contradiction"),
        (State.FAILED, LATER, Finding.CONTRADICTION, "contradiction"),
        (State.FAILED, MISMATCH, Finding.CONTRADICTION, "contradiction"),
        (State.FAILED, NO, Finding.AGREES, None),
        (State.FAILED, Unknown("not_found"), Finding.AGREES, None),
        (State.FAILED, Unknown("not_confirmed"), Finding.AGREES, None),
        (State.FAILED, Absent("absent"), Finding.AGREES, None),
        (State.FAILED, Unknown("cannot_be_asked"), Finding.UNDECIDED, None),
        (State.FAILED, Deferred("access_refused"), Finding.NO_ANSWER, None),
    ],
)
def test_what_an_answer_means_for_a_final_effect(state, says, finding, class_):
    found = judge(state, "pi_1", says)
    assert (found.finding, found.break_class) == (finding, class_)


def test_a_final_effect_is_compared_and_never_changed(books):
    cases = [
        (State.SUCCEEDED, NO, "late_contradiction"),
        (State.FAILED, YES, "contradiction"),
        (State.FAILED, NO, None),
    ]
    for state, says, class_ in cases:
        effect_id = made(books, state)
        before = books.effect(effect_id)
        assert asked(effect_id, says).state is state
        assert books.effect(effect_id) == before
        assert books.facts(effect_id)[-1] == "verified"
        assert open_breaks(books)[-1] == (class_, effect_id) if class_ else effect_id not in str(open_breaks(books))


def test_a_contradiction_found_again_is_the_same_break(books):
    effect_id = made(books, State.FAILED)
    for _ in range(3):
        asked(effect_id, YES)
    with transaction() as connection:
        [row] = breaks.listed(connection, effect_id=effect_id)
    assert (row["amount"], row["currency"], row["provider"]) == (4200, "eur", "stripe")
    assert (row["detail"]["state"], row["detail"]["answer"]) == ("failed", "succeeded")
    assert row["seen_at"] > row["found_at"]


def test_an_object_that_is_not_ours_is_a_break_and_the_unsettled_effect_stays(books):
    effect_id = made(books, State.UNKNOWN)
    assert asked(effect_id, MISMATCH).finding is Finding.CONTRADICTION
    assert books.effect(effect_id)["state"] == "unknown"
    assert open_breaks(books) == [("contradiction", effect_id)]


def test_an_answer_that_the_schema_refuses_is_a_break(books):
    first, second = made(books, State.UNKNOWN), made(books, State.UNKNOWN)
    assert asked(first, YES).state is State.SUCCEEDED
    verdict = asked(second, YES)  # the same PaymentIntent for two effects
    assert (verdict.finding, verdict.reason) == (Finding.CONTRADICTION, "schema_refused")
    assert books.effect(second)["state"] == "unknown"
    assert open_breaks(books) == [("contradiction", second)]


# --- hints ----------------------------------------------------------------------------------------------------------


def test_a_hinted_intent_is_asked_for_only_where_none_is_recorded(books):
    fresh = made(books, State.UNKNOWN)
    known = made(books, State.UNKNOWN, progress={"payment_intent": "pi_known"})
    for effect_id, expected in ((fresh, "pi_hint"), (known, "pi_known")):
        provider = AskedProvider(Unknown("not_found"))
        verify(kind_of(provider), effect_id, actor="t", seconds=1.0, intent="pi_hint")
        assert provider.seen[0].progress["payment_intent"] == expected


@pytest.mark.parametrize("state", [State.UNKNOWN, State.PARKED])
def test_an_unconfirmed_intent_that_is_ours_becomes_the_recovery_point(books, state):
    effect_id = made(books, state)
    verdict = asked(effect_id, Unknown("not_confirmed"), intent="pi_hint")
    assert (verdict.finding, books.effect(effect_id)["state"]) == (Finding.UNDECIDED, state.value)
    assert books.effect(effect_id)["progress"]["payment_intent"] == "pi_hint"
    assert books.facts(effect_id)[-1] == "hinted"
    asked(effect_id, Unknown("not_confirmed", {"payment_intent": "pi_second"}), intent="pi_second")
    assert books.effect(effect_id)["progress"]["payment_intent"] == "pi_hint", "the first one stays for ever"


def test_a_hint_is_not_recorded_once_another_attempt_has_begun(books):
    effect_id = made(books, State.UNKNOWN)

    def claimed():
        books.make_due(effect_id)
        assert books.claim(effect_id)

    asked(effect_id, Unknown("not_confirmed"), intent="pi_hint", meanwhile=claimed)
    assert "payment_intent" not in books.effect(effect_id)["progress"]


def test_a_strangers_object_with_our_id_proves_nothing_about_ours(books):
    effect_id = made(books, State.UNKNOWN)
    verdict = asked(effect_id, MISMATCH, intent="pi_forged")
    assert (verdict.finding, verdict.reason) == (Finding.UNDECIDED, "hint_refused")
    assert open_breaks(books) == []


@pytest.mark.parametrize(("says", "class_"), [(Succeeded("pi_2"), "duplicate_effect"), (NO, None), (MISMATCH, None)])
def test_a_second_object_that_moved_money_is_a_duplicate_and_no_other(books, says, class_):
    effect_id = made(books, State.SUCCEEDED, progress={"payment_intent": "pi_1"})
    provider = AskedProvider(says)
    second_object.look(kind_of(provider), effect_id, "pi_2", actor="t", seconds=1.0)
    assert provider.seen[0].progress["payment_intent"] == "pi_2"
    assert open_breaks(books) == ([(class_, effect_id)] if class_ else [])


# --- the edges ------------------------------------------------------------------------------------------------------


def test_what_does_not_exist_or_is_of_another_kind_is_said(books):
    with pytest.raises(EffectNotFound):
        asked("01890000-0000-7000-8000-000000000000", YES)
    [letter] = books.accept(order("mail", kind="email"))
    with pytest.raises(ValidationError, match="email"):
        asked(letter, YES)


@pytest.mark.parametrize("state", [s for s in State if s is not State.EXECUTING])
@pytest.mark.parametrize("says", [YES, NO, LATER, MISMATCH, Absent("a"), Deferred("d"), Unknown("u")])
def test_every_answer_has_a_meaning_in_every_state(state, says):
    found = judge(state, "pi_1", says)
    assert (found.break_class is not None) == (found.finding is Finding.CONTRADICTION)
    assert not (found.finding is Finding.SETTLED and state in FINAL)


@pytest.mark.usefixtures("database")
def test_a_break_is_one_open_row_until_somebody_closes_it():
    with transaction() as connection:
        assert breaks.open(connection, "stuck", "x", amount=5, currency="eur", detail={"a": 1})
        assert not breaks.open(connection, "stuck", "x", detail={"b": 2})
        [row] = breaks.listed(connection, class_="stuck")
        assert (row["amount"], row["detail"]) == (5, {"a": 1, "b": 2})
        assert breaks.close(connection, row["id"], actor="ada", note="mended")
        assert not breaks.close(connection, row["id"], actor="ada")
        assert list(breaks.listed(connection)) == []
        assert breaks.open(connection, "stuck", "x"), "seen again after it was closed, it is a new one"
        assert len(breaks.listed(connection, closed=True)) == 2
        assert len(breaks.listed(connection, closed=True, after=row["id"])) == 1
